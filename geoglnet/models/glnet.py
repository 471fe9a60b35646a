"""GLNet: collaborative global-local network (Chen et al., CVPR 2019, §3.2).

The global branch sees a region whole but decimated (the *overview*), the local branch sees full-resolution *patches* of
it. The module keeps nothing between calls: what the global branch saw is a value that the caller holds::

    maps = network.see(overviews)                         # once per region
    logits = network.segment(patches, footprints, maps)   # for any patches of it, in any order and batch

With bidirectional sharing the region is gone through twice: what the local branch finds in all patches is merged, the
global branch takes it in, and only then come the final logits::

    maps, merge = network.see(overviews), network.merge(maps)
    for patches, footprints in …:
        merge.add(network.look(patches, footprints, maps).shared, footprints)
    maps = network.refine(overviews, maps, merge.maps())  # then segment, as above

:meth:`GLNet.iter_logits` does either without looking at any patch twice.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoglnet.config import Branches, Compat, ModelConfig, Sharing, Stage
from geoglnet.errors import ConfigError
from geoglnet.models.backbone import Levels
from geoglnet.models.branch import Branch, FeatureMaps, SharedMaps
from geoglnet.models.checks import check_footprints, check_image
from geoglnet.models.crops import Crops
from geoglnet.models.folding import FoldedGLNet
from geoglnet.models.merging import Look, Merge
from geoglnet.models.network import Network, PatchBatch, PatchLogits, RegionMaps
from geoglnet.models.official.geometry import OFFICIAL
from geoglnet.models.rounds import iter_two_rounds
from geoglnet.models.sharing import EXACT

GEOMETRIES = {Compat.NONE: EXACT, Compat.OFFICIAL: OFFICIAL}
# The authors' stages 1 to 3; the joint stage is §3.2.3 as written, all losses at once.
_TRAINED = {
    Stage.GLOBAL: ("global_branch",),
    Stage.LOCAL: ("local_branch", "f_agg"),
    Stage.BIDIRECTIONAL: ("refined_branch", "f_agg"),
    Stage.JOINT: ("global_branch", "local_branch", "f_agg"),
}


@dataclass(frozen=True, slots=True)
class OverviewMaps(RegionMaps):
    """The global branch's maps of some regions.

    Args:
        first: its maps before it has heard of any patch; they are what the local branch takes.
        refined: its maps with the local branch's merged in, once :meth:`GLNet.refine` has made them.
    """

    first: FeatureMaps
    refined: FeatureMaps | None = None

    @property
    def last(self) -> Tensor:
        """x_glb ``(B, C, h1/4, w1/4)``."""
        return (self.refined or self.first).last

    @property
    def logits(self) -> Tensor:
        """s_glb ``(B, num_classes, h1/4, w1/4)``."""
        return (self.refined or self.first).logits


class GLNet(Network):
    """Global and local branch, deep sharing at sixteen places, and the aggregation layer f_agg.

    >>> import torch
    >>> from geoglnet import GLNet, ModelConfig
    >>> network = GLNet(ModelConfig(num_classes=7, backbone="mobilenet_v2", pyramid_channels=16, smooth_channels=8)).eval()
    >>> maps = network.see(torch.zeros(1, 3, 64, 64))  # overview (B, C, h1, w1), normalized
    >>> patches, footprints = torch.zeros(2, 3, 96, 96), torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    >>> network.segment(patches, footprints, maps).final.shape  # (n, num_classes, h2/4, w2/4)
    torch.Size([2, 7, 24, 24])

    Memory of the maps of one overview of side S, in float32 bytes: 4 · S² · (Σ channels / stride²), 84 MB for the paper's
    ResNet50 at S = 500 — whatever the size of the scene. Bidirectional sharing takes as much again for the merged maps.

    Args:
        config: architecture. ``branches`` other than both gives the paper's one-branch baselines; bidirectional sharing adds
            a *refined* global branch, which takes the local maps in (the authors', too, is a third network).

    Raises:
        ConfigError: no such backbone.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.geometry = GEOMETRIES[config.compat]
        # x_L is the concatenation of four second-smooth maps (paper §3.2.1), so f_agg sees twice as many (§3.2.3).
        last_channels = 4 * config.smooth_channels
        self.global_branch = None if config.branches is Branches.LOCAL else Branch(config)
        self.local_branch = None if config.branches is Branches.GLOBAL else Branch(config, config.levels_into_local)
        self.refined_branch = Branch(config, config.levels_into_global) if config.levels_into_global else None
        self.f_agg = nn.Conv2d(2 * last_channels, config.num_classes, kernel_size=3, padding=1) if config.aggregate else None

    def see(self, overviews: Tensor) -> OverviewMaps:
        """Run the global branch on whole regions.

        Args:
            overviews: ``(B, C, h1, w1)`` float, normalized.

        Returns:
            All maps of the global branch; ``logits`` are s_glb ``(B, num_classes, ⌈h1/4⌉, ⌈w1/4⌉)``.

        Raises:
            BandsError: other than the network's bands.
            ConfigError: this network has no global branch, or the image has NaN or infinite values.
        """
        if self.global_branch is None:
            raise ConfigError("this network has only a local branch; call segment(patches, footprints)")
        check_image(overviews, self.config.in_channels)
        return OverviewMaps(self.global_branch(overviews))

    def segment(
        self, patches: Tensor, footprints: Tensor, maps: RegionMaps | None = None, overview_index: Tensor | None = None
    ) -> PatchLogits:
        """Run the local branch on patches, with the global branch's maps at their footprints.

        Args:
            patches: ``(n, C, h2, w2)`` float, normalized.
            footprints: ``(n, 4)`` of (top, left, bottom, right), fractions of the patch's region.
            maps: what :meth:`see` returned, or :meth:`refine` where sharing is bidirectional; not needed by a network with a
                local branch only.
            overview_index: ``(n,)`` which overview each patch belongs to; all to the first when left out.

        Returns:
            Logits at 1/4 of the patch's size: ``(n, num_classes, ⌈h2/4⌉, ⌈w2/4⌉)``.

        Raises:
            BandsError: other than the network's bands.
            ConfigError: no local branch, no maps where they are needed, footprints outside the region, or NaN in the image.
        """
        if maps is not None and not isinstance(maps, OverviewMaps):
            raise ConfigError(
                "these maps are another network's, folded perhaps; use those that see(overviews) of this one returns"
            )
        branch, crops = self._checked(patches, footprints, maps, overview_index)
        if maps is None:
            local: FeatureMaps = branch(patches)
            return PatchLogits(local.logits, local.last)
        if self.refined_branch is not None and maps.refined is None:
            raise ConfigError("sharing is bidirectional: merge what look(…) finds in all patches, and refine(…) the maps first")
        local = self._local_maps(branch, patches, crops, maps)
        # f_agg: one 3 × 3 convolution of both branches' last maps, the global one cropped at the footprint (paper §3.2.3).
        x_glb = crops.at(maps.last, local.last)
        s_agg = None if self.f_agg is None else self.f_agg(torch.cat([local.last, x_glb], dim=1))
        return PatchLogits(local.logits, local.last, s_agg, x_glb)

    def look(self, patches: Tensor, footprints: Tensor, maps: OverviewMaps, overview_index: Tensor | None = None) -> Look:
        """Run the local branch on patches whose maps are still to be merged into the global one's; see :meth:`segment`."""
        branch, crops = self._checked(patches, footprints, maps, overview_index)
        local = self._local_maps(branch, patches, crops, maps)
        return Look(local.shared(self.config.levels_into_global), self._half(local.last, slice(None, local.last.shape[1])))

    def merge(self, maps: OverviewMaps) -> Merge:
        """Make an empty sum for what :meth:`look` finds in the patches of the regions seen."""
        return Merge(maps.first.shared(self.config.levels_into_global), self.geometry)

    def refine(self, overviews: Tensor, maps: OverviewMaps, merged: SharedMaps) -> OverviewMaps:
        """Run the refined global branch, which takes the local branch's maps in (paper §3.2.2, bidirectional).

        Args:
            overviews: as given to :meth:`see`.
            maps: what it returned.
            merged: the local maps of all patches, merged.

        Raises:
            ConfigError: sharing is not bidirectional.
        """
        if self.refined_branch is None:
            raise ConfigError(f"sharing is {self.config.sharing.value!r}: only a bidirectional network refines its maps")
        # The local branch goes on reading the first maps: what it found is already in the refined ones.
        return OverviewMaps(maps.first, self.refined_branch(overviews, merged))

    def aggregate(self, term: Tensor, footprints: Tensor, maps: OverviewMaps) -> Tensor:
        """Add up the final logits ``(n, num_classes, h, w)`` of patches that were looked at, once the maps are refined.

        f_agg is linear, so its two halves are added up: equal to :meth:`segment` on the same maps, without the patches.
        """
        if self.f_agg is None:
            raise ConfigError("this network does not aggregate; its final logits are segment(…).final")
        channels = maps.last.shape[1]
        x_glb = Crops(footprints, None, self.geometry).at(maps.last, term)
        bias = 0.0 if self.f_agg.bias is None else self.f_agg.bias[:, None, None]
        return term + self._half(x_glb, slice(channels, None)) + bias

    def fold(self) -> FoldedGLNet:
        """Compose the affine decoder: equal logits away from patch borders, at a fraction of the cost.

        Raises:
            ConfigError: the network has no local branch.
        """
        return FoldedGLNet(self)

    @property
    def has_two_rounds(self) -> bool:
        return self.refined_branch is not None

    @property
    def sums_logits(self) -> bool:
        return self.config.compat is Compat.OFFICIAL

    def for_inference(self) -> Network:
        """Fold, where there are patches; the authors' way counts their edges, which a folded network does not know."""
        return self if self.local_branch is None or self.sums_logits else self.fold()

    def iter_logits(
        self, overview: Tensor | None, maps: RegionMaps | None, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> Iterator[Tensor]:
        """Yield final logits in one round over the patches, or in the two of bidirectional sharing."""
        if self.refined_branch is not None and overview is not None and isinstance(maps, OverviewMaps):
            return iter_two_rounds(self, overview, maps, batches)
        return super().iter_logits(overview, maps, batches)

    def trained_parts(self, stage: Stage) -> tuple[str, ...]:
        """Name the branches that a stage updates, and f_agg with the patches."""
        parts = _TRAINED[stage]
        has_stage = getattr(self, parts[0]) is not None
        return tuple(name for name in parts if getattr(self, name) is not None) if has_stage else ()

    def backbones(self) -> Iterator[nn.Module]:
        """Yield the backbones of all branches."""
        branches = (self.global_branch, self.local_branch, self.refined_branch)
        yield from (branch.backbone for branch in branches if branch is not None)

    def begin(self, stage: Stage) -> None:
        """Start the refined global branch as the global branch is."""
        if stage is Stage.BIDIRECTIONAL and self.refined_branch is not None and self.global_branch is not None:
            self.refined_branch.start_from(self.global_branch)

    def training_maps(self, stage: Stage, overviews: Tensor, batches: Iterable[PatchBatch]) -> RegionMaps | None:
        """Run the global branch; in the bidirectional stage, merge the patches' maps without a graph and refine with one."""
        if self.global_branch is None:
            return None
        if stage is not Stage.BIDIRECTIONAL:
            maps = self.see(overviews)  # no graph where the branch is frozen
            # segment takes refined maps; before their own stage they are the first ones.
            return maps if self.refined_branch is None else OverviewMaps(maps.first, maps.first)
        with torch.no_grad():
            maps = self.see(overviews)
            merged = self._merged(maps, batches)
        return self.refine(overviews, maps, merged)

    def complete_maps(self, overviews: Tensor, batches: Iterable[PatchBatch]) -> RegionMaps | None:
        """Run the global branch and, with bidirectional sharing, refine its maps by those of all patches."""
        if self.global_branch is None:
            return None
        maps = self.see(overviews)
        return maps if self.refined_branch is None else self.refine(overviews, maps, self._merged(maps, batches))

    def regularized_parameters(self) -> list[nn.Parameter]:
        """List what x_loc depends on in the local branch: all but its classifier."""
        named = () if self.local_branch is None else self.local_branch.named_parameters()
        return [parameter for name, parameter in named if not name.startswith("pyramid.classify")]

    def overviews_only(self) -> Network:
        """Copy the global branch into a network of its own."""
        config = replace(self.config, branches=Branches.GLOBAL, sharing=Sharing.NONE, aggregate=False)
        if self.global_branch is None:
            raise ConfigError("this network has only a local branch")
        with torch.random.fork_rng(devices=[]):  # a training's random numbers go on as if nothing had been built
            alone = GLNet(config)
        alone.global_branch = copy.deepcopy(self.global_branch)
        return alone.train(self.training)

    def forward(
        self, overviews: Tensor, patches: Tensor, footprints: Tensor, overview_index: Tensor | None = None
    ) -> tuple[OverviewMaps, PatchLogits]:
        """Run everything at once; with bidirectional sharing, ``patches`` are all that the regions are to be known by."""
        maps = self.see(overviews)
        if self.refined_branch is not None:
            maps = self.refine(overviews, maps, self._merged(maps, [PatchBatch(patches, footprints, overview_index)]))
        return maps, self.segment(patches, footprints, maps, overview_index)

    def _checked(
        self, patches: Tensor, footprints: Tensor, maps: OverviewMaps | None, overview_index: Tensor | None
    ) -> tuple[Branch, Crops]:
        if self.local_branch is None:
            raise ConfigError("this network has only a global branch; its logits are see(overviews).logits")
        check_image(patches, self.config.in_channels)
        check_footprints(footprints, patches.shape[0])
        if maps is None and self.global_branch is not None:
            raise ConfigError("segment needs the maps that see(overviews) returned")
        return self.local_branch, Crops(footprints, overview_index, self.geometry)

    def _merged(self, maps: OverviewMaps, batches: Iterable[PatchBatch]) -> SharedMaps:
        merge = self.merge(maps)
        for batch in batches:
            look = self.look(batch.patches, batch.footprints, maps, batch.overview_index)
            merge.add(look.shared, batch.footprints, batch.overview_index)
        return merge.maps()

    def _local_maps(self, branch: Branch, patches: Tensor, crops: Crops, maps: OverviewMaps) -> FeatureMaps:
        # The local branch takes global maps at every stage of its FPN, at the sizes of its own c2…c5.
        bottom_up: Levels = branch.backbone(patches)
        levels = self.config.levels_into_local
        shared = crops.shared(maps.first.shared(levels), bottom_up) if levels else None
        local: FeatureMaps = branch.pyramid(bottom_up, shared)
        return local

    def _half(self, last: Tensor, channels: slice) -> Tensor:
        """f_agg of one branch's last map alone, without the bias."""
        if self.f_agg is None:
            raise ConfigError("this network does not aggregate")
        return F.conv2d(last, self.f_agg.weight[:, channels], padding=1)
