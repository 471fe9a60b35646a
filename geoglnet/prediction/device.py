"""Devices that networks run on, and whether a network fits into their memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from geoglnet.config import Branches
from geoglnet.errors import CapacityError, ConfigError
from geoglnet.message import Keyword
from geoglnet.models.demand import largest_side, map_bytes, training_bytes
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network
from geoglnet.types import Shape

_MEMINFO = Path("/proc/meminfo")


def resolve_device(name: str) -> torch.device:
    """Find the device of a given name.

    Args:
        name: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:n"`` or ``"mps"``; automatic is CUDA where there is one.

    Raises:
        ConfigError: no such device, or this machine (or this build of torch) hasn't got it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:0 (a number) or mps")
    device = torch.device(name)
    if device.type == "cuda":
        _check_cuda(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("torch has no device 'mps' that it can use on this machine; use " + Keyword("device", "cpu"))
    return device


def first_batch_size(device: torch.device) -> int:
    """Patches per step to begin with where nobody chose: a GPU takes many, and halves them where its memory is too small.

    On a CPU more at once save no time: they only take memory, 80 MB each with the shipped models.
    """
    return 32 if device.type == "cuda" else 1


def choose_precision(name: str, manifest: Manifest, device: torch.device) -> str:
    """Choose what ``"auto"`` stands for; any other precision is what it is.

    Args:
        name: of :class:`~geoglnet.prediction.predict_config.PredictConfig`.
        manifest: says in which precisions the model was measured.
        device: that the network is on.
    """
    if name != "auto":
        return name
    suits = device.type == "cpu" and "bfloat16" in manifest.measured_precisions and _has_amx()
    return "bfloat16" if suits else "float32"


def _has_amx() -> bool:
    """Tell whether the CPU multiplies matrices of bfloat16 in hardware; others are no faster with it."""
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)  # missing in older releases
    return ask is not None and bool(ask())


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        built_for = torch.version.cuda
        why = "it sees no CUDA device" if built_for else "it was built for CPUs only"
        raise ConfigError(f"torch {torch.__version__} cannot use {str(device)!r}: {why}; use " + Keyword("device", "cpu"))
    if device.index is not None and device.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"there is no device {str(device)!r}; use cuda:0 to cuda:{count - 1}")


def available_bytes(device: torch.device) -> int | None:
    """Bytes that a device can still give; ``None`` where nobody says (other systems than Linux, without CUDA)."""
    if device.type == "cuda":
        # What torch has reserved and does not use is free to us, though the driver counts it as taken.
        free: int = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu" or not _MEMINFO.exists():
        return None
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
    # MemAvailable and not MemFree: Linux gives its file cache back when memory is asked for.
    return int(lines["MemAvailable"].split()[0]) * 1024


def check_capacity(network: Network, manifest: Manifest, device: torch.device) -> None:
    """Refuse to segment with a network whose maps, for one patch or one overview, need more memory than the device has left.

    Only those are asked that take images in one piece: a GLNet's batches are halved where they do not fit.

    Raises:
        CapacityError: it cannot take the size; the message says which it can.
    """
    config = manifest.model
    if network.needs_whole_images:
        key = "patch_size" if config.branches is Branches.LOCAL else "overview_size"
        size = _Size(config.architecture, f"region.{key}", getattr(manifest.region, key))
        _check(size, device, lambda side: map_bytes(network, Shape(side, side), config.in_channels))


def check_training_capacity(network: Network, sides: tuple[int, int], batch: int, device: torch.device) -> None:
    """Refuse to train a network that takes images in one piece on images that the device has no memory for.

    Args:
        network: to be trained.
        sides: of the overviews and of the patches of training regions.
        batch: how many images go through it together.
        device: that it is trained on.

    Raises:
        CapacityError: it cannot take the size; the message says which it can.
    """
    config = network.config
    if network.needs_whole_images:
        weights = 3 * sum(parameter.nbytes for parameter in network.parameters())  # gradients and Adam's two moments
        is_local = config.branches is Branches.LOCAL
        key = "sample.patch_size" if is_local else "the overview of a training region (region.overview_size)"
        size = _Size(config.architecture, key, sides[is_local])
        _check(size, device, lambda side: weights + batch * training_bytes(network, Shape(side, side), config.in_channels))


class _Size(NamedTuple):
    """What is looked at by what: for messages."""

    architecture: str
    key: str
    side: int


def _check(size: _Size, device: torch.device, needed: Callable[[int], int]) -> None:
    free = available_bytes(device)
    if free is None or (wanted := needed(size.side)) <= free:
        return
    raise CapacityError(
        f"{size.architecture} needs {wanted / 1e9:.1f} GB for {size.side} × {size.side} px, and {device} has "
        f"{free / 1e9:.1f} GB left: it can take {largest_side(needed, free)} px. Make {size.key} that small, or free memory"
    )
