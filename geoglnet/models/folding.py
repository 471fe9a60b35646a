"""The inference form of a network: its affine decoder composed into few large kernels.

Kernels are composed in float64, so that what they add up to is rounded once.

Nothing in the decoder after c2…c5 is normalized or rectified, so from there to the logits it is affine, and affine parts
compose. A chain of convolutions without a change of resolution is one larger convolution to ``num_classes`` channels; such
a convolution is a 1×1 convolution to k² · num_classes channels, each for one tap, followed by adding up the shifted
channels; and 1×1 convolutions commute with cropping and bilinear resizing. So every wide map is mixed down before it is
resized, and the global branch's maps are mixed down once per overview instead of once per patch.

Softmax sees only differences of logits, so kernels are composed to the ``num_classes - 1`` differences to the first class,
whose logit is 0. Of a legend of two classes that is half of all taps.

It is algebra, not approximation: logits less the first class's differ by rounding, except in a ring of
:attr:`FoldedGLNet.ring_size` pixels along a patch's border, where zeros stood beside each of the chain's maps and now stand
beside its input. The predictor crops it.

Batch normalization folds too, and what follows a convolution is fused with it (:mod:`geoglnet.models.fusion`).

With bidirectional sharing the local branch's sixteen maps are wanted themselves, so only what follows them folds; the maps
that are merged, and with them the refined global branch, are then the unfolded network's own, without a ring.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoglnet.config import LEVELS, ModelConfig, Sharing
from geoglnet.errors import ConfigError
from geoglnet.models.backbone import Levels
from geoglnet.models.branch import Branch, FeatureMaps, Pyramid, SharedMaps, resize
from geoglnet.models.checks import check_footprints, check_image
from geoglnet.models.crops import Crops
from geoglnet.models.extractors import Extractor
from geoglnet.models.fusion import FusedConv, fuse
from geoglnet.models.merging import Look, Merge
from geoglnet.models.network import Network, PatchLogits, RegionMaps
from geoglnet.models.resampling import enlarge, in_full_precision
from geoglnet.models.rounds import iter_two_rounds
from geoglnet.models.sharing import Footprint, Geometry


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of convolutions ending in D differences of logits, as one kernel ``(D, C, k, k)`` and the ``(D,)`` it adds."""

    kernel: Tensor
    bias: Tensor

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Chain:
        """Begin with the convolution to logits, as differences to the first."""
        weight, bias = conv.weight.detach().double(), _bias(conv)
        return cls(weight[1:] - weight[:1], bias[1:] - bias[:1])

    def after(self, conv: nn.Conv2d) -> Chain:
        """Put one more convolution before the chain."""
        # Two convolutions in a row are one whose kernel is the full convolution of both, which torch calls transposed.
        kernel = F.conv_transpose2d(self.kernel, conv.weight.detach().double())
        # A constant before the chain goes through it as its kernel's sum (but for the border, where zeros stood: the ring).
        return Chain(kernel, self.bias + self.kernel.sum(dim=(2, 3)) @ _bias(conv))

    def split(self, channels: int) -> tuple[Chain, Tensor | None]:
        """Separate what acts on the first channels from the kernel that acts on the rest, if there are any."""
        rest = self.kernel[:, channels:]
        return Chain(self.kernel[:, :channels], self.bias), rest if rest.shape[1] else None


class Taps(nn.Module):
    """1×1 convolution to one channel per tap of the largest kernel (or of ``size``); each acts on its own input channels.

    It is a matrix product into channels first, which is the order that :func:`add_taps` reads; in float32, whatever the maps
    are in, because hundreds of taps are added up to a logit.
    """

    def __init__(self, *kernels: Tensor, size: int = 1) -> None:
        super().__init__()
        # Smaller kernels are widened with zeros, so that the taps of all meet in the same channels and are added up once.
        size = max(size, *(kernel.shape[-1] for kernel in kernels))
        kernel = torch.cat([_widened(kernel, size) for kernel in kernels], dim=1)
        flipped = kernel.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, kernel.shape[1])  # add_taps adds where a convolution reads
        self.weight = nn.Parameter(flipped.float(), requires_grad=False)

    def forward(self, *maps: Tensor) -> Tensor:
        """``(n, C, h, w)`` maps, whose channels follow one another → ``(n, D · size², h, w)`` float32."""
        first, *parts = torch.split(self.weight, [m.shape[1] for m in maps], dim=1)
        with in_full_precision(self.weight.device):
            mixed = torch.bmm(first.expand(maps[0].shape[0], -1, -1), _flat(maps[0]))
            for weight, m in zip(parts, maps[1:], strict=True):
                mixed = torch.baddbmm(mixed, weight.expand(m.shape[0], -1, -1), _flat(m))
        return mixed.view(*mixed.shape[:2], *maps[0].shape[-2:])


def add_taps(tapped: Tensor, size: int) -> Tensor:
    """``(n, D · size², h, w)`` channels of :class:`Taps`, each shifted by its tap and added up: ``(n, D, h, w)``."""
    height, width = tapped.shape[-2:]
    margin = size // 2
    taps = tapped.view(tapped.shape[0], -1, size, size, height, width)
    if torch.compiler.is_compiling():  # a program has no assignment to a part: shifted copies, added up
        shifts = range(-margin, size - margin)
        lines = reduce(torch.add, (F.pad(taps[:, :, :, margin + by], (by, -by)) for by in shifts))
        return reduce(torch.add, (F.pad(lines[:, :, margin + by], (0, 0, by, -by)) for by in shifts))
    # Along rows first, then along columns: 2 · size additions of large blocks. F.fold adds value by value.
    across = tapped.new_zeros(len(taps), taps.shape[1], size, height, width + 2 * margin)
    for index in range(size):
        across[..., index : index + width] += taps[:, :, :, index]
    summed = tapped.new_zeros(len(taps), taps.shape[1], height + 2 * margin, width)
    for index in range(size):
        summed[..., index : index + height, :] += across[:, :, index, :, margin : margin + width]
    return summed[..., margin : margin + height, :]


def with_first(differences: Tensor) -> Tensor:
    """Put the logit of the first class, which is 0, before the others' differences to it: ``(n, K, h, w)``."""
    return F.pad(differences, (0, 0, 0, 0, 1, 0))


def halves(conv: nn.Conv2d, channels: int) -> tuple[nn.Conv2d, nn.Conv2d | None]:
    """Split a 1×1 convolution of concatenated maps into two whose results add up: of the first channels, of any others."""
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
    """Drop the kernels that are missing."""
    return [kernel for kernel in kernels if kernel is not None]


@dataclass(frozen=True, slots=True)
class FoldedMaps(RegionMaps):
    """What the local branch needs of an overview.

    Args:
        whole: the global branch's maps.
        laterals: c3…c5 (c2…c5 for two rounds) of the global branch, mixed down as the local branch's laterals do; ``None``
            at levels that are not shared.
        near: ``(B, k² · D, h1/4, w1/4)`` global maps that meet at the patch's finest level, mixed down; ``None`` when there
            are none.
        far: second-smooth global maps of levels 3 to 5, mixed down.
        refined: x_glb of the refined global branch, mixed down, once :meth:`FoldedGLNet.refine` has made it.
    """

    whole: FeatureMaps
    laterals: tuple[Tensor | None, ...]
    near: Tensor | None
    far: tuple[Tensor | None, ...]
    refined: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """s_glb of the global branch as it saw the overview first."""
        return self.whole.logits


class Unfolded(Protocol):
    """The parts of a :class:`~geoglnet.models.glnet.GLNet`."""

    config: ModelConfig
    geometry: Geometry
    global_branch: Branch | None
    local_branch: Branch | None
    refined_branch: Branch | None
    f_agg: nn.Conv2d | None


class FoldedGLNet(Network):
    """A GLNet folded for inference, made by :meth:`GLNet.fold` and called as a GLNet is.

    Args:
        network: in evaluation mode; it stays as it is, and shares no more than weights.

    Raises:
        ConfigError: the network has no local branch: there is nothing to fold.
    """

    def __init__(self, network: Unfolded) -> None:
        super().__init__(network.config)
        if network.local_branch is None:
            raise ConfigError("a network with only a global branch has no patches, and nothing to fold")
        self.geometry, self.dtype = network.geometry, torch.float32
        self.global_branch, self.refined_branch = (
            None if branch is None else fuse(branch) for branch in (network.global_branch, network.refined_branch)
        )
        self.backbone = fuse(network.local_branch.backbone)
        self._take_stages(network.local_branch.pyramid, network.local_branch.backbone.channels)
        self._take_kernels(_compose(network.local_branch.pyramid, network.f_agg, network.config))
        self.eval()

    def _take_stages(self, pyramid: Pyramid, channels: Sequence[int]) -> None:
        """Keep the convolutions that do not fold: all levels for two rounds, else all but the finest."""
        self.levels = LEVELS if self.has_two_rounds else LEVELS[1:]
        kept = slice(-len(self.levels), None)
        # Lateral convolutions are 1×1, so they commute with cropping: the global half runs once per overview, not per patch.
        split = [halves(_conv(conv), c) for conv, c in zip(pyramid.laterals[kept], channels[kept], strict=True)]
        self.laterals = nn.ModuleList(FusedConv(own) for own, _ in split)
        # Identity stands for levels that are not shared, which _mixed passes over.
        self.laterals_glb = nn.ModuleList(nn.Identity() if glb is None else FusedConv(glb) for _, glb in split)
        self.smooth_first, self.smooth_second = fuse(pyramid.smooth_first[kept]), fuse(pyramid.smooth_second[kept])

    def _take_kernels(self, kernels: _Kernels) -> None:
        self.near_own = Taps(kernels.near_own)
        self.near_above = None if kernels.near_above is None else Taps(kernels.near_above)
        self.near_glb = Taps(*kernels.near_glb, size=kernels.near_own.shape[-1]) if kernels.near_glb else None
        self.far_own = nn.ModuleList(Taps(kernel) for kernel in kernels.far_own)
        self.far_glb = nn.ModuleList(nn.Identity() if k is None else Taps(k) for k in kernels.far_glb)
        self.refined_glb = None if kernels.refined is None else Taps(kernels.refined)
        self.near_size, self.far_size = kernels.near_own.shape[-1], kernels.far_own[0].shape[-1]
        self.ring_size = 4 * (self.near_size // 2)  # where logits differ from the network's as it was trained
        self.bias = nn.Parameter(kernels.bias.float()[:, None, None], requires_grad=False)

    def prepare(self, dtype: torch.dtype) -> bool:
        """Put all weights into a type but the last ones: taps are mixed and added up in float32."""
        self.dtype = dtype
        for part in self.modules():
            if isinstance(part, FusedConv):
                part.prepare(dtype)
            elif isinstance(part, Extractor):
                part.to(dtype)
        return True

    @property
    def has_two_rounds(self) -> bool:
        """Tell whether all patches are looked at before any of them gets its logits."""
        return self.config.sharing is Sharing.BIDIRECTIONAL

    def see(self, overviews: Tensor) -> FoldedMaps:
        """Run the global branch on whole regions and mix its maps down once; see :meth:`GLNet.see`."""
        check_image(overviews, self.config.in_channels)
        return self._see(overviews)

    def _see(self, overviews: Tensor) -> FoldedMaps:
        if self.global_branch is None:
            raise ConfigError("this network has only a local branch; call segment(patches, footprints)")
        maps: FeatureMaps = self.global_branch(overviews.to(self.dtype))
        near = None if self.near_glb is None else self.near_glb(*self._near_maps(maps))
        return FoldedMaps(
            whole=maps,
            laterals=self._mixed(self.laterals_glb, maps.bottom_up, self.levels),
            near=near,
            far=self._mixed(self.far_glb, maps.smooth_second, LEVELS[1:]),
        )

    def segment(
        self, patches: Tensor, footprints: Tensor, maps: RegionMaps | None = None, overview_index: Tensor | None = None
    ) -> PatchLogits:
        """Run the local branch on patches; see :meth:`GLNet.segment`."""
        if maps is not None and not isinstance(maps, FoldedMaps):
            raise ConfigError(
                "these maps are another network's, unfolded perhaps; use those that see(overviews) of this one returns"
            )
        check_image(patches, self.config.in_channels)
        check_footprints(footprints, patches.shape[0])
        if maps is None and self.global_branch is not None:
            raise ConfigError("segment needs the maps that see(overviews) returned")
        crops = Crops(footprints, overview_index, self.geometry)
        if self.has_two_rounds and maps is not None:
            return PatchLogits(s_agg=self._with_refined(self._look(patches, crops, maps).term, crops, maps))
        return PatchLogits(s_agg=with_first(self._segment(patches, crops, maps)))

    def iter_logits(
        self, overview: Tensor | None, maps: RegionMaps | None, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> Iterator[Tensor]:
        """Yield final logits in one round over the patches, or in the two of bidirectional sharing."""
        if self.has_two_rounds and overview is not None and isinstance(maps, FoldedMaps):
            return iter_two_rounds(self, overview, maps, batches)
        return super().iter_logits(overview, maps, batches)

    def look(self, patches: Tensor, footprints: Tensor, maps: FoldedMaps, overview_index: Tensor | None = None) -> Look:
        """Run the first round of bidirectional sharing; see :meth:`GLNet.look`."""
        check_image(patches, self.config.in_channels)
        check_footprints(footprints, patches.shape[0])
        return self._look(patches, Crops(footprints, overview_index, self.geometry), maps)

    def merge(self, maps: FoldedMaps) -> Merge:
        """Do what :meth:`GLNet.merge` does."""
        return Merge(maps.whole.shared(self.config.levels_into_global), self.geometry)

    def refine(self, overviews: Tensor, maps: FoldedMaps, merged: SharedMaps) -> FoldedMaps:
        """Do what :meth:`GLNet.refine` does."""
        if self.refined_branch is None or self.refined_glb is None:
            raise ConfigError(f"sharing is {self.config.sharing.value!r}: only a bidirectional network refines its maps")
        refined: FeatureMaps = self.refined_branch(overviews.to(self.dtype), merged)
        return replace(maps, refined=self.refined_glb(refined.last))

    def aggregate(self, term: Tensor, footprints: Tensor, maps: FoldedMaps) -> Tensor:
        """Do what :meth:`GLNet.aggregate` does."""
        return self._with_refined(term, Crops(footprints, None, self.geometry), maps)

    def region_logits(self, overviews: Tensor | None, patches: Tensor, places: Sequence[Footprint]) -> Tensor:
        """Do what :meth:`Network.region_logits` does; with bidirectional sharing of one region."""
        if not self.has_two_rounds or overviews is None:
            return super().region_logits(overviews, patches, places)
        maps, crops = self._see(overviews), Crops(torch.tensor(places, device=patches.device), None, self.geometry)
        look, merge = self._look(patches, crops, maps), self.merge(maps)
        merge.add_at(look.shared, places, [0] * len(places))
        return self._with_refined(look.term, crops, self.refine(overviews, maps, merge.maps()))

    def _segment(self, patches: Tensor, crops: Crops, maps: FoldedMaps | None) -> Tensor:
        # Level 2 has most of the pixels and none of its maps are needed themselves: one kernel leads from c2 to the logits.
        c2, *deep = self.backbone(patches.to(self.dtype))
        top_down, _, second = self._stages(deep, crops, maps)
        near = self.near_own(c2)
        if self.near_above is not None:
            near += enlarge(self.near_above(top_down[0]), _size(near))
        return self._logits(near, second, crops, maps)

    def _look(self, patches: Tensor, crops: Crops, maps: FoldedMaps) -> Look:
        bottom_up: Levels = self.backbone(patches.to(self.dtype))
        stages = self._stages(bottom_up, crops, maps)
        # Two rounds need the maps that are merged, so nothing before the second smoothing folds here.
        wanted = self.config.levels_into_global
        shared = SharedMaps(
            *(tuple(m if lv in wanted else None for lv, m in zip(LEVELS, p, strict=True)) for p in (bottom_up, *stages))
        )
        near, *far = stages[2]
        return Look(shared, self._logits(self.near_own(near), far, crops, maps))

    def _stages(
        self, bottom_up: Sequence[Tensor], crops: Crops, maps: FoldedMaps | None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Top-down, first-smooth and second-smooth maps of the levels that are kept, as the unfolded pyramid computes them."""
        glb = None if maps is None else maps.whole.shared(self.config.levels_into_local)
        kept = slice(-len(self.levels), None)

        def stage(convs: nn.ModuleList, own: Sequence[Tensor], shared: Sequence[Tensor | None] | None) -> list[Tensor]:
            pairs = zip(convs, own, shared or (None,) * len(own), strict=True)
            return [conv(m if g is None else torch.cat([m, crops.at(g, m)], dim=1)) for conv, m, g in pairs]

        top_down = [conv(m) for conv, m in zip(self.laterals, bottom_up, strict=True)]
        for level, mixed in enumerate(maps.laterals if maps else ()):
            if mixed is not None:
                top_down[level] = top_down[level] + crops.at(mixed, top_down[level])
        for level in reversed(range(len(top_down) - 1)):  # top-down: each level takes the one above it
            top_down[level] = top_down[level] + resize(top_down[level + 1], top_down[level])
        first = stage(self.smooth_first, top_down, glb.top_down[kept] if glb else None)
        return top_down, first, stage(self.smooth_second, first, glb.smooth_first[kept] if glb else None)

    def _logits(self, near: Tensor, second: Sequence[Tensor], crops: Crops, maps: FoldedMaps | None) -> Tensor:
        """Everything mixed down to taps, brought to the finest level and added up."""
        far = [taps(m) for taps, m in zip(self.far_own, second, strict=True)]
        if maps is not None:
            near = near if maps.near is None else near.add_(crops.at(maps.near, near))
            far = [m if g is None else m.add_(crops.at(g, m)) for m, g in zip(far, maps.far, strict=True)]
        # Mixing down comes before resizing: a few channels per class are resized instead of the maps' own, which are many.
        far_sum = enlarge(far[0], _size(near))
        for m in far[1:]:
            far_sum += enlarge(m, _size(near))
        # The taps of the smaller kernel are the inner ones of the larger.
        rest, size = (self.near_size - self.far_size) // 2, self.far_size
        if rest < 0 or torch.compiler.is_compiling():
            return add_taps(near, self.near_size) + add_taps(far_sum, size) + self.bias
        n, sides = near.shape[0], _size(near)
        inner = near.view(n, -1, self.near_size, self.near_size, *sides)[:, :, rest : rest + size, rest : rest + size]
        inner += far_sum.view(n, -1, size, size, *sides)
        return add_taps(near, self.near_size) + self.bias

    def _with_refined(self, term: Tensor, crops: Crops, maps: FoldedMaps) -> Tensor:
        if maps.refined is None:
            raise ConfigError("sharing is bidirectional: merge what look(…) finds in all patches, and refine(…) the maps first")
        # 3 is the size of f_agg's kernel: nothing is composed with it here.
        return with_first(term + add_taps(crops.at(maps.refined, term), 3))

    def _near_maps(self, maps: FeatureMaps) -> list[Tensor]:
        shared = maps.shared(self.config.levels_into_local)
        if self.has_two_rounds:
            return [m for m in shared.smooth_second[:1] if m is not None]
        finest = [shared.bottom_up[0], shared.top_down[0], shared.smooth_first[0], shared.smooth_second[0]]
        return [m for m in (*finest, maps.last if self.config.aggregate else None) if m is not None]

    def _mixed(self, convs: nn.ModuleList, maps: Levels, levels: Sequence[int]) -> tuple[Tensor | None, ...]:
        kept, shared = maps[-len(levels) :], self.config.levels_into_local
        return tuple(conv(m) if lv in shared else None for lv, conv, m in zip(levels, convs, kept, strict=True))


@dataclass(frozen=True, slots=True)
class _Kernels:
    """Composed kernels ``(D, C, k, k)`` in float64, from each map straight to the differences of logits.

    Args:
        near_own: from c2, or from the second-smooth map of level 2 for two rounds.
        near_above: from p3, which is added to level 2 resized; none for two rounds.
        near_glb: from the global maps that meet there.
        far_own: from the second-smooth maps of levels 3 to 5.
        far_glb: from the global ones.
        refined: from x_glb of the refined global branch.
        bias: what they add.
    """

    near_own: Tensor
    near_above: Tensor | None
    near_glb: list[Tensor]
    far_own: list[Tensor]
    far_glb: list[Tensor | None]
    refined: Tensor | None
    bias: Tensor


def _compose(pyramid: Pyramid, f_agg: nn.Conv2d | None, config: ModelConfig) -> _Kernels:
    smooth, shared = config.smooth_channels, config.levels_into_local
    last, from_glb = Chain.of(f_agg or pyramid.classify).split(4 * smooth)
    if shared:
        last = last.after(_conv(pyramid.fuse))
    # The last map is a concatenation of four levels (and of the shared ones), so its kernel falls into as many blocks.
    blocks = torch.split(last.kernel, smooth, dim=1)
    own, glb = blocks[:4], dict(zip(shared, blocks[4:], strict=True))
    far_own, far_glb = list(own[1:]), [glb.get(level) for level in LEVELS[1:]]
    # x_glb of the refined branch is not known before all patches are, so its kernel stays apart.
    if config.sharing is Sharing.BIDIRECTIONAL:
        return _Kernels(own[0], None, stacked([glb.get(2)]), far_own, far_glb, from_glb, last.bias)
    bottom, above, near_glb = _through_level_2(pyramid, Chain(own[0], last.bias), config)
    near_glb = [*near_glb, *stacked([glb.get(2), from_glb])]
    return _Kernels(bottom.kernel, above, near_glb, far_own, far_glb, None, bottom.bias)


def _through_level_2(pyramid: Pyramid, last: Chain, config: ModelConfig) -> tuple[Chain, Tensor, list[Tensor]]:
    """Compose from the second-smooth map of level 2 back to c2: kernels of c2, of p3 resized, of the global maps on the way."""
    lateral, first, second = (_conv(convs[0]) for convs in (pyramid.laterals, pyramid.smooth_first, pyramid.smooth_second))
    takes_glb = 2 in config.levels_into_local
    middle, glb_first = last.after(second).split(config.pyramid_channels)
    top, glb_top = middle.after(first).split(config.pyramid_channels)
    bottom, glb_bottom = top.after(lateral).split(lateral.in_channels // 2 if takes_glb else lateral.in_channels)
    return bottom, top.kernel, stacked([glb_bottom, glb_top, glb_first])


def _size(m: Tensor) -> tuple[int, int]:
    return m.shape[-2], m.shape[-1]


def _flat(m: Tensor) -> Tensor:
    """``(n, C, h · w)`` float32, as a view where channels lie last."""
    return m.float().permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)


def _conv(module: nn.Module) -> nn.Conv2d:
    return cast(nn.Conv2d, module)  # module lists forget what they hold
