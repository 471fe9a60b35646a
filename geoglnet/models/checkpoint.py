"""Checkpoints: one safetensors file, its header holding the manifest. Nothing is unpickled."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from geoglnet.errors import CheckpointError
from geoglnet.models.manifest import MANIFEST_KEY, Manifest, read_manifest
from geoglnet.models.network import Network, network_builder
from geoglnet.output import OutputFile, unwritable
from geoglnet.plain import shortened
from geoglnet.types import StrPath

_FORMER_PLACES = ("local_branch.", "global_branch.")  # where baselines stood before 0.1.0


def save_checkpoint(
    path: StrPath | OutputFile, network: Network, manifest: Manifest, *, half: bool = True, overwrite: bool = False
) -> None:
    """Write a network and its manifest.

    Args:
        path: ``.safetensors`` file, or one that has been checked, or claimed.
        network: of the architecture that the manifest names.
        manifest: what the file says about itself.
        half: convolutions as float16 (1-D tensors stay float32); halves the file, moves logits by about 1e-3 of their scale.
        overwrite: replace an existing file.

    Raises:
        CheckpointError: the network has NaN or infinite values.
        OutputExistsError: the file exists.
        OutputError: it cannot be written.
    """
    tensors = {name: _stored(name, tensor, half) for name, tensor in network.state_dict().items()}
    # One key only: safetensors writes several in random order, and equal models should be equal files.
    header = {MANIFEST_KEY: json.dumps({"format_version": manifest.format_version, **manifest.to_dict()})}
    file = path if isinstance(path, OutputFile) else OutputFile(path, overwrite)
    with file as part_path:
        # Made by us first, for the permissions that new files have here.
        part_path.touch()
        mode = part_path.stat().st_mode
        try:
            save_file(tensors, part_path, metadata=header)
        except SafetensorError as error:
            raise unwritable(part_path, _system_error(error)) from error
        part_path.chmod(mode)  # safetensors writes through a private temporary file


def load_checkpoint(path: StrPath) -> tuple[Network, Manifest]:
    """Read a network, in float32 and evaluation mode, and its manifest.

    >>> import geoglnet
    >>> network, manifest = load_checkpoint(geoglnet.load_model("buildings").path)
    >>> network.training, manifest.bands.names
    (False, ('red', 'green', 'blue'))

    Memory: 4 bytes per parameter, beside the file's.

    Args:
        path: ``.safetensors`` file; :func:`geoglnet.load_model` takes names of shipped models too.

    Returns:
        Network on the CPU; its architecture, classes, bands, resolution in meters, training and scores.

    Raises:
        CheckpointError: the file is missing, truncated, not ours, of a newer format, or its tensors don't fit or aren't finite.
        ConfigError: the library that its backbone comes from is not installed, or has no such network.
    """
    manifest = read_manifest(path)
    # No memory for weights yet: a manifest may lie about its size, and the file's headers are compared first.
    build = network_builder(manifest.model)  # imported before: torch computes while its libraries are imported
    with Blank():
        network = build(manifest.model)
    try:
        state = _read_state(path, network.state_dict())
    except SafetensorError as error:
        raise CheckpointError(f"{path} does not hold the network its manifest names: {_first_line(error)}") from error
    network.load_state_dict(state, assign=True)
    if _is_blank(network):  # a library's network keeps numbers of its own that no file holds
        network = build(manifest.model)
        network.load_state_dict(state)
    return network.eval(), manifest


class Blank(TorchFunctionMode):
    """Makes networks without memory for their weights (on torch's meta device), however large the manifest says they are.

    Only what weights are allocated with is blank. ``torch.device("meta")`` would also take the small tensors that some
    networks compute their depths and positions from.
    """

    FACTORIES: ClassVar = {torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros}
    DRAWS: ClassVar = {Tensor.normal_, Tensor.uniform_}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.DRAWS and args[0].is_meta:
            return args[0]  # torch would import its compiler, for seconds, to draw no numbers
        return func(*args, **(kwargs or {}) | ({"device": "meta"} if func in self.FACTORIES else {}))


def _is_blank(network: nn.Module) -> bool:
    own = (*network.parameters(), *network.buffers(), *(value for part in network.modules() for value in vars(part).values()))
    return any(isinstance(value, Tensor) and value.is_meta for value in own)


def _read_state(path: StrPath, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors of a network, in float32. Names, sizes and types are compared before any tensor is read.

    Raises:
        CheckpointError: the file holds others, or a value that no network can work with.
        SafetensorError: the file is damaged.
    """
    with safe_open(path, framework="pt") as opened:
        stored = {_present_name(name, wanted): name for name in opened.keys()}  # noqa: SIM118 - it is no mapping
        missing = [name for name in wanted if name not in stored and not name.endswith("num_batches_tracked")]
        if missing or stored.keys() - wanted.keys():
            name, where = (
                (missing[0], "is not in it") if missing else (min(stored.keys() - wanted.keys()), "is none of that network")
            )
            raise CheckpointError(f"{path} does not hold the network its manifest names: {shortened(name)} {where}")
        for name in stored:
            _check_header(path, name, opened.get_slice(stored[name]), wanted[name])
        return {name: _checked_values(path, name, opened.get_tensor(stored[name])) for name in wanted if name in stored}


def _present_name(name: str, wanted: Mapping[str, Tensor]) -> str:
    """Name a tensor as its network does today: baselines stood in the place of a GLNet's branch before 0.1.0."""
    _, dot, rest = name.partition(".")
    return rest if dot and name not in wanted and rest in wanted and name.startswith(_FORMER_PLACES) else name


def _check_header(path: StrPath, name: str, header: Any, wanted: Tensor) -> None:
    shape, kind = tuple(header.get_shape()), header.get_dtype()
    if shape != tuple(wanted.shape):
        raise CheckpointError(
            f"{path} does not hold the network its manifest names: {name} is {shape}, the network's {tuple(wanted.shape)}"
        )
    kinds = ("F16", "BF16", "F32", "F64") if wanted.is_floating_point() else ("I64",)
    if kind not in kinds:
        raise CheckpointError(f"{path} has {name} as {kind}; it must be {' or '.join(kinds)}")


def _checked_values(path: StrPath, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    # One pass finds NaN and infinities without a mask as large as the tensor.
    tensor = tensor.float()
    least, most = (float(value) for value in tensor.aminmax())  # NaN if any value is
    if not (math.isfinite(least) and math.isfinite(most)):
        raise CheckpointError(f"{path} has NaN or infinite values in {name}; the training diverged or the file is damaged")
    if name.endswith("running_var") and least < 0:
        raise CheckpointError(f"{path} has a negative variance in {name}; the file is damaged")
    return tensor


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor
    if not tensor.isfinite().all():
        raise CheckpointError(
            f"the network has NaN or infinite values in {name}: the training diverged; lower the learning rate"
        )
    if not half or tensor.ndim <= 1:
        return tensor
    small = tensor.to(torch.float16)
    return small if small.isfinite().all() else tensor  # beyond 65504 it stays as it is


def _system_error(error: SafetensorError) -> Exception:
    """Recover the system's error that safetensors has put into words: it keeps the number there alone."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else error


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
