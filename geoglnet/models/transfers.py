"""Copies from the host to a device that nobody waits for."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(source: Tensor, device: torch.device) -> Tensor:
    """Move a tensor, to a GPU from pinned memory: a copy from pageable memory would hold up the host, and wait for the GPU."""
    if device.type != "cuda" or source.device.type != "cpu":
        return source.to(device)
    return source.pin_memory().to(device, non_blocking=True)
