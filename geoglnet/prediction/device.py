"""Which machine part the network runs on."""

from __future__ import annotations

import re

import torch

from geoglnet.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device of a given name.

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
        raise ConfigError("device 'mps' asked for, but this machine has none that torch can use; use --device cpu")
    return device


def first_batch_size(device: torch.device) -> int:
    """Patches per step to begin with where nobody chose: a GPU takes many, and halves them where its memory is too small.

    On a CPU more at once save no time: they only take memory, 80 MB each with the shipped models.
    """
    return 32 if device.type == "cuda" else 1


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        built_for = torch.version.cuda
        why = "no CUDA device is visible to it" if built_for else "it was built for CPUs only"
        raise ConfigError(f"device {str(device)!r} asked for, but torch {torch.__version__} says {why}; use --device cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"device {str(device)!r} asked for, but there are {count}; use cuda:0 to cuda:{count - 1}")
