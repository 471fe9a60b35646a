"""What folding is made of: chains of convolutions as one kernel, and a kernel as a 1×1 convolution and a sum of shifts.

Kernels are composed in float64, so that what they add up to is rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of convolutions ending in logits, as one kernel ``(K, C, k, k)`` and the constant ``(K,)`` it adds."""

    kernel: Tensor
    bias: Tensor

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Chain:
        return cls(conv.weight.detach().double(), _bias(conv))

    def after(self, conv: nn.Conv2d) -> Chain:
        """The chain with one more convolution before it."""
        kernel = F.conv_transpose2d(self.kernel, conv.weight.detach().double())
        return Chain(kernel, self.bias + self.kernel.sum(dim=(2, 3)) @ _bias(conv))

    def split(self, channels: int) -> tuple[Chain, Tensor | None]:
        """The part that acts on the first channels, and the kernel that acts on the rest, if there are any."""
        rest = self.kernel[:, channels:]
        return Chain(self.kernel[:, :channels], self.bias), rest if rest.shape[1] else None


def taps(*kernels: Tensor, size: int = 1) -> nn.Conv2d:
    """1×1 convolution to one channel per tap of the largest kernel (or of ``size``); each acts on its own input channels."""
    size = max(size, *(kernel.shape[-1] for kernel in kernels))
    kernel = torch.cat([_widened(kernel, size) for kernel in kernels], dim=1)
    classes, channels = kernel.shape[:2]
    conv = nn.Conv2d(channels, classes * size * size, kernel_size=1, bias=False)
    flipped = kernel.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)  # F.fold adds where a convolution reads
    conv.weight = nn.Parameter(flipped.float(), requires_grad=False)
    return conv


def add_taps(tapped: Tensor, size: int) -> Tensor:
    """``(n, K · size², h, w)`` channels of :func:`taps`, each shifted by its tap and added up: ``(n, K, h, w)`` float32."""
    height, width = tapped.shape[-2:]
    margin = size // 2
    summed = F.fold(tapped.float().flatten(2), (height + size - 1, width + size - 1), kernel_size=size)
    return summed[..., margin : margin + height, margin : margin + width]


def halves(conv: nn.Conv2d, channels: int) -> tuple[nn.Conv2d, nn.Conv2d | None]:
    """A 1×1 convolution of concatenated maps as two whose results add up: of the first channels, and of the rest, if any."""
    first = _part(conv, slice(None, channels), conv.bias)
    return first, _part(conv, slice(channels, None), None) if conv.in_channels > channels else None


def _part(conv: nn.Conv2d, channels: slice, bias: Tensor | None) -> nn.Conv2d:
    weight = conv.weight.detach()[:, channels].clone()
    part = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size=1, bias=bias is not None)
    part.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        part.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return part


def _bias(conv: nn.Conv2d) -> Tensor:
    return torch.zeros(conv.out_channels).double() if conv.bias is None else conv.bias.detach().double()


def _widened(kernel: Tensor, size: int) -> Tensor:
    return F.pad(kernel, ((size - kernel.shape[-1]) // 2,) * 4)


def stacked(kernels: Sequence[Tensor | None]) -> list[Tensor]:
    """The kernels that there are."""
    return [kernel for kernel in kernels if kernel is not None]
