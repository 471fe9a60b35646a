"""Global maps at the footprints of patches: the sharing direction 𝒢 → ℒ (paper §3.2.2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from geoglnet.models.backbone import Levels
from geoglnet.models.branch import SharedLevels, SharedMaps
from geoglnet.models.sharing import Geometry


@dataclass(frozen=True, slots=True)
class Crops:
    """Where some patches lie in the maps of the global branch.

    Args:
        footprints: ``(n, 4)`` fractions of the patch's region.
        overview_index: ``(n,)`` which overview each patch belongs to; all to the first when left out.
        geometry: of sharing.
    """

    footprints: Tensor
    overview_index: Tensor | None
    geometry: Geometry

    def at(self, source: Tensor, like: Tensor) -> Tensor:
        """Crop a global map at the footprints, to the size of a local map."""
        # A view of the first map, which the crop expands over the footprints without copies.
        chosen = source[:1] if self.overview_index is None else source[self.overview_index]
        return self.geometry.crop(chosen, self.footprints, (like.shape[-2], like.shape[-1]))

    def shared(self, source: SharedMaps, like: Levels) -> SharedMaps:
        """Crop all shared maps, to the sizes of c2…c5."""

        def levels(maps: SharedLevels) -> SharedLevels:
            return tuple(None if m is None else self.at(m, own) for m, own in zip(maps, like, strict=True))

        return SharedMaps(*map(levels, (source.bottom_up, source.top_down, source.smooth_first, source.smooth_second)))
