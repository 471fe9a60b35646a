"""How much memory a network's maps take for an image of any size, counted without computing them.

The network runs on the meta device, where tensors have sizes and no numbers; what is alive at once is counted. It is the
least that any device needs beside the weights: convolutions may ask for room of their own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geoglnet.types import Shape

_STEP = 32  # stride of the deepest maps
_LARGEST = 16384


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts the bytes of tensors that are made inside it on the meta device: alive now, most at once, and all ever made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak, self.made = 0, 0, 0
        self._views: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._hold(tensor)
        return made

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        # By storage: views of a tensor take no memory of their own.
        key, size = storage._cdata, storage.nbytes()
        if not self._views.get(key):
            self.now += size
            self.made += size
            self.peak = max(self.peak, self.now)
        self._views[key] = self._views.get(key, 0) + 1
        # CPython frees a tensor with its last reference, which is when its memory is free too.
        weakref.finalize(tensor, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._views[key] -= 1
        if not self._views[key]:
            self.now -= size


def map_bytes(branch: nn.Module, shape: Shape, in_channels: int = 3) -> int:
    """Bytes of the maps that are alive at once when a branch in evaluation mode sees one float32 image.

    Args:
        branch: on any device; its weights are neither copied nor counted.
        shape: of the image.
        in_channels: bands.
    """
    return _counted(branch, shape, in_channels).peak


def training_bytes(branch: nn.Module, shape: Shape, in_channels: int = 3) -> int:
    """Bytes per image that training a branch takes, about: all maps of the forward pass, which the backward one wants."""
    return _counted(branch, shape, in_channels).made


def _counted(branch: nn.Module, shape: Shape, in_channels: int) -> LiveBytes:
    weightless = {name: tensor.to("meta") for name, tensor in branch.state_dict().items()}
    modes = {module: module.training for module in branch.modules()}
    branch.eval()
    live = LiveBytes()
    try:
        with torch.no_grad(), live:
            # The branch runs on weights without numbers; its own are neither moved nor copied.
            functional_call(branch, weightless, (torch.empty((1, in_channels, *shape), device="meta"),))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return live


def largest_side(needed: Callable[[int], int], budget: int) -> int:
    """Find the largest side, in steps of 32 px, of a square image whose maps fit into a number of bytes; 0 where none does.

    Args:
        needed: bytes by side.
        budget: what there is.
    """
    low, high = 0, _LARGEST // _STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(_STEP * middle) <= budget else (low, middle - 1)
    return _STEP * low
