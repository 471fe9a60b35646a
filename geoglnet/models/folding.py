"""Folding: the inference form of a GLNet (DESIGN §2).

Nothing in the decoder after c2…c5 is normalised or rectified, so from there to the logits it is affine, and affine parts
compose. A chain of convolutions without a change of resolution is one larger convolution to ``num_classes`` channels; such
a convolution is a 1×1 convolution to k² · num_classes channels, each for one tap, followed by adding up the shifted
channels; and 1×1 convolutions commute with cropping and bilinear resizing. So every wide map is mixed down before it is
resized, and the global branch's maps are mixed down once per overview instead of once per patch.

It is algebra, not approximation: logits differ by rounding, except in a ring of :attr:`FoldedGLNet.ring_size` pixels along
a patch's border, where zeros stood beside each of the chain's maps and now stand beside its input. The predictor crops it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoglnet.config import ModelConfig, Sharing
from geoglnet.errors import ConfigError
from geoglnet.models.glnet import Crops, GLNet
from geoglnet.models.pyramid import FeatureMaps, Pyramid, resize
from geoglnet.models.sharing import check_footprints


@dataclass(frozen=True, slots=True)
class FoldedMaps:
    """What the local branch needs of an overview.

    Args:
        whole: the global branch's maps.
        near: ``(B, k² · K, h1/4, w1/4)`` all global maps of level 2 (and x_glb), mixed down; ``None`` without sharing and
            aggregation.
        far: second-smooth global maps of levels 3 to 5, mixed down.
    """

    whole: FeatureMaps
    near: Tensor | None
    far: tuple[Tensor, ...]

    @property
    def logits(self) -> Tensor:
        """s_glb, as :attr:`FeatureMaps.logits`."""
        return self.whole.logits


@dataclass(frozen=True, slots=True)
class FoldedLogits:
    """Final logits of patches, ``(n, K, ⌈h2/4⌉, ⌈w2/4⌉)``."""

    final: Tensor


class FoldedGLNet(nn.Module):
    """A GLNet folded for inference; made by :func:`fold`. It is called as a GLNet is, and keeps nothing between calls either.

    Args:
        network: in evaluation mode; backbones, global branch and the convolutions of levels 3 to 5 are shared with it.

    Raises:
        ConfigError: the network has no local branch: there is nothing to fold.
    """

    def __init__(self, network: GLNet) -> None:
        super().__init__()
        if network.local_branch is None:
            raise ConfigError("a network with only a global branch has no patches, and nothing to fold")
        pyramid: Pyramid = network.local_branch.pyramid
        kernels = _compose(pyramid, network.f_agg or pyramid.classify, network.config)
        self.config = network.config
        self.global_branch = network.global_branch
        self.backbone = network.local_branch.backbone
        self.laterals = pyramid.laterals[1:]
        self.smooth_first = pyramid.smooth_first[1:]
        self.smooth_second = pyramid.smooth_second[1:]
        self.near_own, self.near_above = _taps([kernels.near_own]), _taps([kernels.near_above])
        self.far_own = nn.ModuleList(_taps([kernel]) for kernel in kernels.far_own)
        self.near_glb = _taps(kernels.near_glb) if kernels.near_glb else None
        self.far_glb = nn.ModuleList(_taps([kernel]) for kernel in kernels.far_glb)
        self.near_size, self.far_size = kernels.near_own.shape[-1], kernels.far_own[0].shape[-1]
        self.bias = nn.Parameter(kernels.bias.float()[:, None, None], requires_grad=False)
        self.eval()

    @property
    def ring_size(self) -> int:
        """Pixels along a patch's border where logits differ from the network's as it was trained."""
        return 4 * (self.near_size // 2)

    def see(self, overviews: Tensor) -> FoldedMaps:
        """The global branch on whole regions, its maps mixed down once; see :meth:`GLNet.see`."""
        if self.global_branch is None:
            raise ConfigError("this network has only a local branch; call segment(patches, footprints)")
        maps: FeatureMaps = self.global_branch(overviews)
        near = None if self.near_glb is None else self.near_glb(torch.cat(self._near_maps(maps), dim=1))
        far = tuple(conv(m) for conv, m in zip(self.far_glb, maps.smooth_second[1:], strict=False))
        return FoldedMaps(maps, near, far)

    def segment(
        self, patches: Tensor, footprints: Tensor, maps: FoldedMaps | None = None, overview_index: Tensor | None = None
    ) -> FoldedLogits:
        """The local branch on patches; see :meth:`GLNet.segment`."""
        check_footprints(footprints, len(patches))
        if maps is None and self.global_branch is not None:
            raise ConfigError("segment needs the maps that see(overviews) returned")
        crops = None if maps is None else Crops(maps.whole, footprints, overview_index)
        c2, *deep = self.backbone(patches)
        p3, seconds = self._far_maps(deep, crops)
        near = self.near_own(c2) + resize(self.near_above(p3), c2)
        far = [conv(m) for conv, m in zip(self.far_own, seconds, strict=True)]
        if crops is not None and maps is not None:
            near = near if maps.near is None else near + crops.at(maps.near, c2)
            far = [m + crops.at(g, m) for m, g in zip(far, maps.far, strict=True)] if maps.far else far
        far_sum = sum((resize(m, c2) for m in far[1:]), start=resize(far[0], c2))
        return FoldedLogits(_add_taps(near, self.near_size) + _add_taps(far_sum, self.far_size) + self.bias)

    def _near_maps(self, maps: FeatureMaps) -> list[Tensor]:
        shared = [maps.bottom_up[0], maps.top_down[0], maps.smooth_first[0], maps.smooth_second[0]]
        shares = self.config.sharing is Sharing.GLOBAL_TO_LOCAL
        return [*(shared if shares else ()), *([maps.last] if self.config.aggregate else ())]

    def _far_maps(self, deep: Sequence[Tensor], crops: Crops | None) -> tuple[Tensor, list[Tensor]]:
        """p3, and the second-smooth maps of levels 3 to 5, as the unfolded pyramid computes them."""
        glb = crops.maps if crops is not None and self.config.sharing is Sharing.GLOBAL_TO_LOCAL else None

        def stage(convs: nn.ModuleList, own: Sequence[Tensor], shared: Sequence[Tensor] | None) -> list[Tensor]:
            if shared is None or crops is None:
                return [conv(m) for conv, m in zip(convs, own, strict=True)]
            return [conv(torch.cat([m, crops.at(g, m)], dim=1)) for conv, m, g in zip(convs, own, shared, strict=True)]

        l3, l4, p5 = stage(self.laterals, deep, glb.bottom_up[1:] if glb else None)
        p4 = l4 + resize(p5, l4)
        p3 = l3 + resize(p4, l3)
        first = stage(self.smooth_first, (p3, p4, p5), glb.top_down[1:] if glb else None)
        return p3, stage(self.smooth_second, first, glb.smooth_first[1:] if glb else None)


def fold(network: GLNet) -> FoldedGLNet:
    """The inference form of a network: equal logits away from patch borders, at a fraction of the cost.

    Raises:
        ConfigError: the network has no local branch.
    """
    return FoldedGLNet(network)


@dataclass(frozen=True, slots=True)
class _Kernels:
    """Composed kernels ``(K, C, k, k)`` in float64, from each map straight to the logits."""

    near_own: Tensor
    near_above: Tensor
    near_glb: list[Tensor]
    far_own: list[Tensor]
    far_glb: list[Tensor]
    bias: Tensor


def _compose(pyramid: Pyramid, head: nn.Conv2d, config: ModelConfig) -> _Kernels:
    width, smooth = config.pyramid_channels, config.smooth_channels
    shares = config.sharing is Sharing.GLOBAL_TO_LOCAL
    lateral, first, second = (_conv(convs[0]) for convs in (pyramid.laterals, pyramid.smooth_first, pyramid.smooth_second))
    last, from_glb = _Chain.of(head).split(4 * smooth)
    if shares:
        last = last.after(_conv(pyramid.fuse))
    levels = torch.split(last.kernel, smooth, dim=1)
    middle, glb_first = _Chain(levels[0], last.bias).after(second).split(width)
    top, glb_top = middle.after(first).split(width)
    bottom, glb_bottom = top.after(lateral).split(lateral.in_channels // 2 if shares else lateral.in_channels)
    size = bottom.kernel.shape[-1]
    from_maps = (glb_bottom, glb_top, glb_first, *levels[4:5], from_glb)
    near_glb = [_widened(kernel, size) for kernel in from_maps if kernel is not None]
    return _Kernels(bottom.kernel, top.kernel, near_glb, list(levels[1:4]), list(levels[5:8]), bottom.bias)


def _conv(module: nn.Module) -> nn.Conv2d:
    return cast(nn.Conv2d, module)  # module lists forget what they hold


@dataclass(frozen=True, slots=True)
class _Chain:
    """A chain of convolutions ending in logits, as one kernel and the constant it adds."""

    kernel: Tensor
    bias: Tensor

    @classmethod
    def of(cls, conv: nn.Conv2d) -> _Chain:
        return cls(conv.weight.detach().double(), _bias(conv))

    def after(self, conv: nn.Conv2d) -> _Chain:
        """The chain with one more convolution before it."""
        kernel = F.conv_transpose2d(self.kernel, conv.weight.detach().double())
        return _Chain(kernel, self.bias + self.kernel.sum(dim=(2, 3)) @ _bias(conv))

    def split(self, channels: int) -> tuple[_Chain, Tensor | None]:
        """The part that acts on the first channels, and the kernel that acts on the rest, if there are any."""
        rest = self.kernel[:, channels:]
        return _Chain(self.kernel[:, :channels], self.bias), rest if rest.shape[1] else None


def _bias(conv: nn.Conv2d) -> Tensor:
    return torch.zeros(conv.out_channels).double() if conv.bias is None else conv.bias.detach().double()


def _widened(kernel: Tensor, size: int) -> Tensor:
    margin = (size - kernel.shape[-1]) // 2
    return F.pad(kernel, (margin,) * 4)


def _taps(kernels: Sequence[Tensor]) -> nn.Conv2d:
    """1×1 convolution to one channel per tap of kernels of one size, each acting on its own input channels."""
    kernel = torch.cat(list(kernels), dim=1)
    classes, channels, size, _ = kernel.shape
    conv = nn.Conv2d(channels, classes * size * size, kernel_size=1, bias=False)
    flipped = kernel.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)  # F.fold adds where a convolution reads
    conv.weight = nn.Parameter(flipped.float(), requires_grad=False)
    return conv


def _add_taps(taps: Tensor, size: int) -> Tensor:
    height, width = taps.shape[-2:]
    margin = size // 2
    summed = F.fold(taps.float().flatten(2), (height + size - 1, width + size - 1), kernel_size=size)
    return summed[..., margin : margin + height, margin : margin + width]
