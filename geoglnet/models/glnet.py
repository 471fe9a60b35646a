"""GLNet: collaborative global-local network (Chen et al., CVPR 2019, §3.2).

The global branch sees a region whole but decimated (the *overview*), the local branch sees full-resolution *patches* of
it. The module keeps nothing between calls: what the global branch saw is a value that the caller holds::

    maps = network.see(overviews)                         # once per region
    logits = network.segment(patches, footprints, maps)   # for any patches of it, in any order and batch
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geoglnet.config import Branches, ModelConfig, Sharing
from geoglnet.errors import ConfigError
from geoglnet.models.backbone import Levels
from geoglnet.models.branch import Branch
from geoglnet.models.pyramid import FeatureMaps, SharedMaps
from geoglnet.models.sharing import check_footprints, crop

OverviewMaps = FeatureMaps


@dataclass(frozen=True, slots=True)
class Crops:
    """The global branch's maps at the footprints of some patches."""

    maps: OverviewMaps
    footprints: Tensor
    overview_index: Tensor | None

    def at(self, source: Tensor, like: Tensor) -> Tensor:
        """A global map at the footprints, in the size of a local map."""
        chosen = source[:1] if self.overview_index is None else source[self.overview_index]
        return crop(chosen, self.footprints, (like.shape[-2], like.shape[-1]))

    def _levels(self, source: Levels, like: Levels) -> Levels:
        m2, m3, m4, m5 = (self.at(s, m) for s, m in zip(source, like, strict=True))
        return m2, m3, m4, m5

    def shared(self, like: Levels) -> SharedMaps:
        """All sixteen shared maps, in the sizes of c2…c5."""
        maps = self.maps
        places = (maps.bottom_up, maps.top_down, maps.smooth_first, maps.smooth_second)
        return SharedMaps(*(self._levels(place, like) for place in places))


@dataclass(frozen=True, slots=True)
class PatchLogits:
    """Logits and last maps of patches, all at 1/4 of the patch's size.

    Args:
        s_loc: ``(n, num_classes, h, w)`` logits of the local branch.
        x_loc: ``(n, C, h, w)`` its last map.
        s_agg: logits of f_agg, when the network aggregates.
        x_glb: the global branch's last map at the patches' footprints, when there is a global branch.
    """

    s_loc: Tensor
    x_loc: Tensor
    s_agg: Tensor | None
    x_glb: Tensor | None

    @property
    def final(self) -> Tensor:
        """The logits to segment with."""
        return self.s_loc if self.s_agg is None else self.s_agg


class GLNet(nn.Module):
    """Global and local branch, deep sharing at sixteen places, and the aggregation layer f_agg.

    Memory of the maps of one overview of side S, in float32 bytes: 4 · S² · (Σ channels / stride²), 84 MB for the paper's
    ResNet50 at S = 500 — whatever the size of the scene.

    Args:
        config: architecture. ``branches`` other than both gives the paper's one-branch baselines.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        shares = config.sharing is Sharing.GLOBAL_TO_LOCAL
        last_channels = 4 * config.smooth_channels
        self.global_branch = None if config.branches is Branches.LOCAL else Branch(config, takes_shared=False)
        self.local_branch = None if config.branches is Branches.GLOBAL else Branch(config, takes_shared=shares)
        self.f_agg = nn.Conv2d(2 * last_channels, config.num_classes, kernel_size=3, padding=1) if config.aggregate else None

    def see(self, overviews: Tensor) -> OverviewMaps:
        """The global branch on whole regions.

        Args:
            overviews: ``(B, C, h1, w1)`` float, normalised.

        Returns:
            All maps of the global branch; ``logits`` are s_glb ``(B, num_classes, ⌈h1/4⌉, ⌈w1/4⌉)``.

        Raises:
            ConfigError: this network has no global branch.
        """
        if self.global_branch is None:
            raise ConfigError("this network has only a local branch; call segment(patches, footprints)")
        maps: OverviewMaps = self.global_branch(overviews)
        return maps

    def segment(
        self, patches: Tensor, footprints: Tensor, maps: OverviewMaps | None = None, overview_index: Tensor | None = None
    ) -> PatchLogits:
        """The local branch on patches, with the global branch's maps at their footprints.

        Args:
            patches: ``(n, C, h2, w2)`` float, normalised.
            footprints: ``(n, 4)`` of (top, left, bottom, right), fractions of the patch's region.
            maps: what :meth:`see` returned; not needed by a network with a local branch only.
            overview_index: ``(n,)`` which overview each patch belongs to; all to the first when left out.

        Returns:
            Logits at 1/4 of the patch's size: ``(n, num_classes, ⌈h2/4⌉, ⌈w2/4⌉)``.

        Raises:
            ConfigError: no local branch, no maps where they are needed, or footprints outside the region.
        """
        if self.local_branch is None:
            raise ConfigError("this network has only a global branch; its logits are see(overviews).logits")
        check_footprints(footprints, len(patches))
        if self.global_branch is None:
            local = self.local_branch(patches)
            return PatchLogits(local.logits, local.last, None, None)
        if maps is None:
            raise ConfigError("segment needs the maps that see(overviews) returned")
        return self._segment_with(Crops(maps, footprints, overview_index), patches, self.local_branch)

    def _segment_with(self, crops: Crops, patches: Tensor, branch: Branch) -> PatchLogits:
        bottom_up: Levels = branch.backbone(patches)
        shared = crops.shared(bottom_up) if self.config.sharing is Sharing.GLOBAL_TO_LOCAL else None
        local: FeatureMaps = branch.pyramid(bottom_up, shared)
        x_glb = crops.at(crops.maps.last, local.last)
        s_agg = None if self.f_agg is None else self.f_agg(torch.cat([local.last, x_glb], dim=1))
        return PatchLogits(local.logits, local.last, s_agg, x_glb)

    def forward(
        self, overviews: Tensor, patches: Tensor, footprints: Tensor, overview_index: Tensor | None = None
    ) -> tuple[OverviewMaps, PatchLogits]:
        """Both branches at once: :meth:`see`, then :meth:`segment`."""
        maps = self.see(overviews)
        return maps, self.segment(patches, footprints, maps, overview_index)
