"""Convolutions with what follows them: the batch normalization folded into their weights, a sum and an activation fused in.

What is fused is a copy, for inference; the network it was made from goes on training. Everywhere a fused convolution is
``conv2d``, a sum and an activation. On a CPU, :meth:`FusedConv.prepare` hands all three to oneDNN as one operation, with the
weights laid out once as it wants them. That operation is not public (torch's compiler uses it), so nothing depends on it. For
1 × 1 convolutions of a single image it also avoids the path that torch takes there, which is slower and channels first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoglnet.models.backbone import BasicBlock, Bottleneck, InvertedResidual, ResNet
from geoglnet.models.extractors import Extractor

_NAMES: dict[type[nn.Module], tuple[str, list[float]]] = {  # oneDNN's, with its numbers
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda image: image,
    "relu": F.relu_,
    "hardtanh": lambda image: F.hardtanh_(image, 0.0, 6.0),
    "hardswish": lambda image: F.hardswish(image, inplace=True),
}


class FusedConv(nn.Module):
    """A convolution, the batch normalization that follows it, and its activation.

    Args:
        conv: with zeros around the image.
        norm: in evaluation mode: its statistics are numbers.
        activation: one of those in ``_NAMES``.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None, activation: nn.Module | None = None) -> None:
        super().__init__()
        weight, bias = _folded(conv, norm)
        self.weight: nn.Parameter | None = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.activation, self.scalars = ("none", []) if activation is None else _NAMES[type(activation)]
        self.geometry: tuple[Any, ...] = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self._ordered: Tensor | None = None

    def forward(self, image: Tensor, added: Tensor | None = None) -> Tensor:
        """Compute the next map; ``added`` joins it before the activation."""
        if self._ordered is not None:
            return self._fused(image, self._ordered, added)
        inner = F.conv2d(image, cast(Tensor, self.weight), self.bias, *self.geometry)
        return _ACTIVATIONS[self.activation](inner if added is None else inner + added)

    def _fused(self, image: Tensor, weight: Tensor, added: Tensor | None) -> Tensor:
        stride, padding, dilation, groups = self.geometry
        where = (self.bias, padding, stride, dilation, groups)
        operation = torch.ops.mkldnn._convolution_pointwise
        if added is None:
            fused: Tensor = operation(image, weight, *where, self.activation, self.scalars, "")
        else:
            after = None if self.activation == "none" else self.activation
            fused = operation.binary(image, added, weight, *where, "add", 1.0, after, self.scalars, "")
        return fused

    def prepare(self, dtype: torch.dtype) -> None:
        """Put the weights into a type, and on a CPU into oneDNN's layout."""
        if self._ordered is not None and self._ordered.dtype == dtype:
            return
        self.to(dtype)
        if self.weight is None or self.weight.device.type != "cpu" or not _is_fusible(dtype):
            return
        stride, padding, dilation, groups = self.geometry
        self._ordered = torch.ops.mkldnn._reorder_convolution_weight(self.weight.data, padding, stride, dilation, groups)
        self.weight = None  # not twice in memory

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FusedConv:
        # Moving weights to another device or type goes through here; oneDNN's layout is of a CPU and of one type.
        if self._ordered is not None:
            self.weight, self._ordered = nn.Parameter(self._ordered.to_dense(), requires_grad=False), None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class FusedResidual(nn.Module):
    """A residual block whose sum and last activation are part of its last convolution.

    Args:
        body: what comes before that.
        last: the last convolution.
        shortcut: projects the block's input for the sum; identity where that is the input, ``None`` where nothing is added.
    """

    def __init__(self, body: nn.Module, last: FusedConv, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.body, self.last, self.shortcut = body, last, shortcut

    def forward(self, image: Tensor) -> Tensor:
        """Compute the next map."""
        fused: Tensor = self.last(self.body(image), None if self.shortcut is None else self.shortcut(image))
        return fused


def fuse(module: nn.Module) -> Any:
    """Copy a network, its convolutions fused with what follows them."""
    if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return FusedConv(module)
    if type(module) is nn.Sequential:
        return nn.Sequential(*_fused_sequence(list(module)))
    if isinstance(module, (BasicBlock, Bottleneck)):
        return _fused_block(module)
    if isinstance(module, InvertedResidual):
        *body, last = _fused_sequence(list(module.conv))
        return FusedResidual(nn.Sequential(*body), last, nn.Identity() if module.is_residual else None)
    if isinstance(module, Extractor):  # a library's: nobody knows what its forward does with its parts
        return copy.deepcopy(module)
    fused = copy.copy(module)
    fused._modules = {name: part if part is None else fuse(part) for name, part in module._modules.items()}
    if isinstance(module, ResNet):
        fused.conv1, fused.bn1, fused.relu = FusedConv(module.conv1, module.bn1, module.relu), nn.Identity(), nn.Identity()
    return fused


def _fused_block(block: BasicBlock | Bottleneck) -> FusedResidual:
    body = [FusedConv(block.conv1, block.bn1, block.relu)]
    if isinstance(block, Bottleneck):
        body.append(FusedConv(block.conv2, block.bn2, block.relu))
        last = FusedConv(block.conv3, block.bn3, block.relu)
    else:
        last = FusedConv(block.conv2, block.bn2, block.relu)
    shortcut = nn.Identity() if block.downsample is None else fuse(block.downsample)
    return FusedResidual(nn.Sequential(*body), last, shortcut)


def _fused_sequence(layers: Sequence[nn.Module]) -> Iterator[Any]:
    index = 0
    while index < len(layers):
        layer, following = layers[index], iter(layers[index + 1 :])
        index += 1
        if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            yield fuse(layer)
            continue
        after, norm, activation = next(following, None), None, None
        if isinstance(after, nn.BatchNorm2d):
            norm, after, index = after, next(following, None), index + 1
        if type(after) in _NAMES:
            activation, index = after, index + 1
        yield FusedConv(layer, norm, activation)


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Multiply a normalization into a convolution, in float64, so that the product is rounded once."""
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    if norm is None:
        return weight, bias
    mean, variance = (cast(Tensor, statistic).double() for statistic in (norm.running_mean, norm.running_var))
    scale = (variance + norm.eps).rsqrt()
    scale = scale if norm.weight is None else norm.weight.detach().double() * scale
    shift = 0.0 if norm.bias is None else norm.bias.detach().double()
    moved = ((0.0 if bias is None else bias.double()) - mean) * scale + shift
    return (weight.double() * scale[:, None, None, None]).to(weight.dtype), moved.to(weight.dtype)


def _is_fusible(dtype: torch.dtype) -> bool:
    """Tell whether torch has oneDNN's fused convolution for a type on this CPU."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", "_reorder_convolution_weight")):
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
