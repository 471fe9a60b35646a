"""A branch: backbone, feature pyramid, and its maps (paper §3.2.1).

No normalization and no ReLU stand after c2…c5: from there to the logits everything is affine, which is what lets the
network fold at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoglnet.config import LEVELS, ModelConfig
from geoglnet.models.backbone import Levels, build_backbone

SharedLevels = tuple[Tensor | None, ...]
"""Maps of levels 2 to 5; ``None`` at levels that are not shared."""


@dataclass(frozen=True, slots=True)
class SharedMaps:
    """A branch's maps at the places where branches share (paper §3.2.2).

    Each tuple holds levels 2 to 5, at 1/4, 1/8, 1/16 and 1/32 of the image.
    """

    bottom_up: SharedLevels
    top_down: SharedLevels
    smooth_first: SharedLevels
    smooth_second: SharedLevels


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """What a branch computes: the sixteen maps that can be shared, its last map x_L and its logits."""

    bottom_up: Levels
    top_down: Levels
    smooth_first: Levels
    smooth_second: Levels
    last: Tensor
    logits: Tensor

    def shared(self, levels: Sequence[int]) -> SharedMaps:
        """Select the maps of some levels."""
        places = (self.bottom_up, self.top_down, self.smooth_first, self.smooth_second)
        return SharedMaps(*(tuple(m if lv in levels else None for lv, m in zip(LEVELS, p, strict=True)) for p in places))


class Pyramid(nn.Module):
    """FPN head: laterals, top-down sums, two smoothing stages, concatenation at 1/4, classifier.

    Args:
        channels: widths of c2…c5.
        pyramid_channels: width of top-down and first-smooth maps.
        smooth_channels: width of second-smooth maps; x_L has four times as many.
        num_classes: logit channels.
        shared_levels: levels at which every stage takes the other branch's map of the same place as extra channels.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        pyramid_channels: int,
        smooth_channels: int,
        num_classes: int,
        shared_levels: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        last_channels = 4 * smooth_channels
        folds = [2 if level in shared_levels else 1 for level in LEVELS]
        self.laterals = nn.ModuleList(nn.Conv2d(n * c, pyramid_channels, 1) for n, c in zip(folds, channels, strict=True))
        self.smooth_first = nn.ModuleList(_conv3x3(n * pyramid_channels, pyramid_channels) for n in folds)
        self.smooth_second = nn.ModuleList(_conv3x3(n * pyramid_channels, smooth_channels) for n in folds)
        self.fuse = _conv3x3(sum(folds) * smooth_channels, last_channels) if shared_levels else nn.Identity()
        self.classify = _conv3x3(last_channels, num_classes)
        self.apply(_initialize)

    def forward(self, bottom_up: Levels, shared: SharedMaps | None = None) -> FeatureMaps:
        """c2…c5 (and the other branch's maps) → all maps of this branch; logits ``(B, num_classes, h/4, w/4)``."""
        top_down, first, second = self.stages(bottom_up, shared)
        # Shared second-smooth maps enter where the levels are concatenated, as the paper draws it; fuse mixes them in.
        gathered = [*second, *(m for m in (shared.smooth_second if shared else ()) if m is not None)]
        last = self.fuse(torch.cat([resize(m, second[0]) for m in gathered], dim=1))
        return FeatureMaps(bottom_up, top_down, first, second, last, self.classify(last))

    @torch.no_grad()
    def start_from(self, other: Pyramid) -> None:
        """Give the maps that another pyramid without shared maps gives; shared channels start with weight 0."""
        for name in ("laterals", "smooth_first", "smooth_second"):
            for ours, theirs in zip(getattr(self, name), getattr(other, name), strict=True):
                # The shared channels' weights start at 0: the refined branch begins as exactly what the global branch is.
                ours.weight.zero_()[:, : theirs.in_channels] = theirs.weight
                ours.bias.copy_(theirs.bias)
        if isinstance(self.fuse, nn.Conv2d):
            # Identity on the own maps, which come first in the concatenation.
            nn.init.dirac_(self.fuse.weight)
            nn.init.zeros_(self.fuse.bias)  # type: ignore[arg-type]  # there is one
        self.classify.load_state_dict(other.classify.state_dict())

    def stages(self, bottom_up: Levels, shared: SharedMaps | None = None) -> tuple[Levels, Levels, Levels]:
        """Top-down, first-smooth and second-smooth maps: everything that can be shared."""
        top_down = _top_down(_stage(self.laterals, bottom_up, shared.bottom_up if shared else None))
        first = _stage(self.smooth_first, top_down, shared.top_down if shared else None)
        return top_down, first, _stage(self.smooth_second, first, shared.smooth_first if shared else None)


def _stage(convs: nn.ModuleList, own: Levels, shared: SharedLevels | None) -> Levels:
    pairs = zip(convs, own, shared or (None,) * len(own), strict=True)
    p2, p3, p4, p5 = (conv(m if s is None else torch.cat((m, s), dim=1)) for conv, m, s in pairs)
    return p2, p3, p4, p5


def _top_down(laterals: Levels) -> Levels:
    l2, l3, l4, p5 = laterals
    p4 = l4 + resize(p5, l4)
    p3 = l3 + resize(p4, l3)
    return l2 + resize(p3, l2), p3, p4, p5


def resize(source: Tensor, like: Tensor) -> Tensor:
    """Resample a map bilinearly to the size of another."""
    if source.shape[-2:] == like.shape[-2:]:
        return source
    return F.interpolate(source, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, a=1)  # as torchvision's FPN; the authors' N(0, 0.01) learns slowly
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Branch(nn.Module):
    """Backbone and FPN of one branch.

    Args:
        config: architecture.
        shared_levels: levels at which the FPN takes the other branch's maps.
    """

    def __init__(self, config: ModelConfig, shared_levels: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.backbone = build_backbone(config.backbone, config.in_channels)
        widths = (config.pyramid_channels, config.smooth_channels, config.num_classes)
        self.pyramid = Pyramid(self.backbone.channels, *widths, shared_levels)

    def forward(self, image: Tensor, shared: SharedMaps | None = None) -> FeatureMaps:
        """``(B, C, h, w)`` normalized image → this branch's maps."""
        maps: FeatureMaps = self.pyramid(self.backbone(image), shared)
        return maps

    def start_from(self, other: Branch) -> None:
        """Become what another branch is: its weights, and nothing made of the shared maps yet."""
        self.backbone.load_state_dict(other.backbone.state_dict())
        self.pyramid.start_from(other.pyramid)
