"""Checkpoints: one safetensors file, its header holding the manifest. Nothing is unpickled (DESIGN §4)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from geoglnet.errors import CheckpointError
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import FORMAT_VERSION, MANIFEST_KEY, Manifest, read_manifest
from geoglnet.types import OutputFile, StrPath


def save_checkpoint(path: StrPath, network: GLNet, manifest: Manifest, *, half: bool = True, overwrite: bool = False) -> None:
    """Write a network and its manifest.

    Args:
        path: ``.safetensors`` file.
        network: of the architecture that the manifest names.
        manifest: what the file says about itself.
        half: convolutions as float16 (1-D tensors stay float32); halves the file, moves logits by about 1e-3 of their scale.
        overwrite: replace an existing file.

    Raises:
        OutputExistsError: the file exists.
        OutputError: it cannot be written.
    """
    tensors = {name: _stored(tensor, half) for name, tensor in network.state_dict().items()}
    # One key only: safetensors writes several in random order, and equal models should be equal files.
    header = {MANIFEST_KEY: json.dumps({"format_version": FORMAT_VERSION, **manifest.to_dict()})}
    with OutputFile(Path(path), overwrite) as part_path:
        part_path.touch()
        mode = part_path.stat().st_mode
        save_file(tensors, part_path, metadata=header)
        part_path.chmod(mode)  # safetensors writes through a private temporary file


def load_checkpoint(path: StrPath) -> tuple[GLNet, Manifest]:
    """Read a network, in float32 and evaluation mode, and its manifest.

    >>> import geoglnet
    >>> network, manifest = load_checkpoint(geoglnet.load_model("buildings").path)
    >>> network.training, manifest.bands
    (False, ('red', 'green', 'blue'))

    Memory: 4 bytes per parameter, beside the file's.

    Args:
        path: ``.safetensors`` file; :func:`geoglnet.load_model` takes names of shipped models too.

    Returns:
        Network on the CPU; its architecture, classes, bands, resolution in metres, training and scores.

    Raises:
        CheckpointError: the file is missing, truncated, not ours, of a newer format, or its tensors don't fit.
    """
    manifest = read_manifest(path)
    network = GLNet(manifest.model)
    try:
        state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the network its manifest names: {_first_line(error)}") from error
    return network.eval(), manifest


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(torch.float16) if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
