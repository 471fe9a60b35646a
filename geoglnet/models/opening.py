"""Networks by their files, whoever saved them."""

from __future__ import annotations

from pathlib import Path

from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.description import refuse_pickles
from geoglnet.models.foreign.onnx_file import read_onnx
from geoglnet.models.foreign.onnx_network import OnnxNetwork
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network
from geoglnet.types import StrPath


def open_model(path: StrPath) -> tuple[Network, Manifest]:
    """Read a network, in evaluation mode, and its manifest. Of a file of others only its graph is executed, by ONNX Runtime.

    Args:
        path: ``.safetensors`` of ours, or ``.onnx`` with the metadata of Deepness, or described by MLM.

    Raises:
        CheckpointError: the file cannot be used.
        ConfigError: the library that its backbone comes from is not installed.
        ModuleNotFoundError: an extra is missing.
    """
    file = Path(path)
    if file.suffix.lower() == ".onnx":
        found = read_onnx(file)
        manifest = found.manifest
        return OnnxNetwork(manifest.model, found).eval(), manifest
    refuse_pickles(file)
    return load_checkpoint(file)
