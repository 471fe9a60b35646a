"""Merging of local maps into maps of the overview's size: the sharing direction ℒ → 𝒢 (paper §3.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geoglnet.errors import ConfigError
from geoglnet.models.branch import SharedLevels, SharedMaps
from geoglnet.models.sharing import Footprint, Geometry
from geoglnet.models.transfers import to_device

PLACES = ("bottom_up", "top_down", "smooth_first", "smooth_second")


@dataclass(frozen=True, slots=True)
class Look:
    """What the local branch sees in some patches.

    Args:
        shared: maps that can be merged into the global branch's.
        term: ``(n, num_classes, h, w)`` the local half of f_agg: all that the final logits need of the patch.
    """

    shared: SharedMaps
    term: Tensor


class Merge:
    """Running sum of the maps of patches, at the sizes of the global branch's maps.

    Memory is that of the global branch's shared maps, in float32, however many patches are added: 84 MB for the paper's
    ResNet50 and one overview of 500 px.

    Args:
        like: the global branch's maps of the same regions.
        geometry: exact, or the authors'.
    """

    def __init__(self, like: SharedMaps, geometry: Geometry) -> None:
        self._like = like
        self._geometry = geometry
        # float32 whatever the maps are: hundreds of patches are added up.
        self._sums = {
            place: [None if m is None else torch.zeros_like(m, dtype=torch.float32) for m in getattr(like, place)]
            for place in PLACES
        }
        self._added: list[tuple[int, Footprint]] = []
        self._finest = (1, 1)

    def add(self, local: SharedMaps, footprints: Tensor, overview_index: Tensor | None = None) -> None:
        """Take the maps of some patches.

        Args:
            local: the local branch's maps; they are not kept.
            footprints: ``(n, 4)`` of (top, left, bottom, right), fractions of the patch's region.
            overview_index: ``(n,)`` which region each patch belongs to; all to the first when left out.
        """
        owners = [0] * len(footprints) if overview_index is None else overview_index.tolist()
        self.add_at(local, footprints.tolist(), owners)

    def add_at(self, local: SharedMaps, footprints: Sequence[Footprint], owners: Sequence[int]) -> None:
        """:meth:`add` with plain numbers, as a traced network of a fixed region needs them."""
        self._added += list(zip(owners, footprints, strict=True))
        for place, sums in self._sums.items():
            for total, maps in zip(sums, getattr(local, place), strict=True):
                if total is not None and maps is not None:
                    # A patch's maps of level 2 tell its size; the authors count coverage in its pixels.
                    self._finest = max(self._finest, (maps.shape[-2], maps.shape[-1]))
                    self._add_map(total, maps, footprints, owners)

    def _add_map(self, total: Tensor, maps: Tensor, footprints: Sequence[Footprint], owners: Sequence[int]) -> None:
        size = (total.shape[-2], total.shape[-1])
        # One by one: patches overlap, so two of them may add to the same cell.
        for values, footprint, owner in zip(maps.float(), footprints, owners, strict=True):
            rows, cols, placed = self._geometry.place(values, footprint, size)
            total[owner, :, rows, cols] += placed

    def maps(self) -> SharedMaps:
        """Divide the sums over patches by how many patches cover each place; 0 where none does.

        Raises:
            ConfigError: no patch was added.
        """
        if not self._added:
            raise ConfigError("nothing to merge: no patch of the region was looked at")
        return SharedMaps(*(self._divided(place) for place in PLACES))

    def _divided(self, place: str) -> SharedLevels:
        return tuple(
            None if total is None or own is None else (total / self._cover(total)).to(own.dtype)
            for total, own in zip(self._sums[place], getattr(self._like, place), strict=True)
        )

    def _cover(self, total: Tensor) -> Tensor:
        size = (total.shape[-2], total.shape[-1])
        of_region = [[footprint for owner, footprint in self._added if owner == i] for i in range(len(total))]
        counts = [self._geometry.cover(footprints, size, self._finest) for footprints in of_region]
        return to_device(torch.stack(counts)[:, None], total.device)
