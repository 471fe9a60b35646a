"""What models of any kind say about themselves: ours, and those that other programs saved. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from geoglnet.errors import CheckpointError
from geoglnet.models.foreign.onnx_file import read_onnx
from geoglnet.models.manifest import Manifest, read_manifest
from geoglnet.types import StrPath

PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")


def describe_model(path: StrPath) -> Manifest:
    """Read what a model says about itself, whoever saved it.

    Args:
        path: ``.safetensors`` of ours, or ``.onnx`` with the metadata of Deepness, or described by MLM.

    Raises:
        CheckpointError: the file cannot be used.
        ModuleNotFoundError: ONNX is not installed.
    """
    file = Path(path)
    if file.suffix.lower() == ".onnx":
        return read_onnx(file).manifest
    refuse_pickles(file)
    return read_manifest(file)


def refuse_pickles(path: Path) -> None:
    """Refuse files that execute what they like when they are read.

    Raises:
        CheckpointError: it is one by its name.
    """
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, which can execute anything and is not opened; save the model as ONNX (torch.onnx.export)"
        )
