"""What is asked of a region: which part, which patches matter for it, and with which weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from rasterio import windows
from rasterio.windows import Window
from torch import Tensor

from geoglnet.prediction.plan import PlannedPatch, PlannedRegion, overlap, shifted
from geoglnet.raster.scene import Pixels
from geoglnet.types import Place, Shape


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a patch counts.

    Args:
        rows: in the window.
        cols: in the window.
        inside: the same pixels in the patch.
        weights: ``(h, w)`` float32 from 0 to 1.
    """

    rows: slice
    cols: slice
    inside: tuple[slice, slice]
    weights: Tensor


@dataclass(frozen=True)
class Wanted:
    """A part of a region's reach.

    Args:
        planned: the region.
        window: the part, in the scene.
        pixels: of the whole region.
        visible: ``(h, w)`` bool over the region, where somebody will look; part of what is valid.
        ring: width of the ring of patches that has no weight; ``None``: all patches count alike, up to their edges.
    """

    planned: PlannedRegion
    window: Window
    pixels: Pixels
    visible: npt.NDArray[np.bool_]
    ring: int | None = 0

    @property
    def shape(self) -> Shape:
        return Shape(int(self.window.height), int(self.window.width))

    @cached_property
    def window_in_region(self) -> Window:
        return self.window_in(self.planned.window)

    def window_in(self, other: Window) -> Window:
        """The part, counted from the corner of another window of the scene."""
        return shifted(self.window, *_minus(other))

    def narrowed(self, place: Place) -> Wanted | None:
        """What is asked of a part of the region, as if that were a region of its own; ``None`` when nothing is.

        Args:
            place: rows and columns of the region.
        """
        rows, cols = place
        origin = self.planned.window
        window = Window(
            col_off=int(origin.col_off) + cols.start,
            row_off=int(origin.row_off) + rows.start,
            width=cols.stop - cols.start,
            height=rows.stop - rows.start,
        )
        if not windows.intersect(window, self.window):
            return None
        planned = replace(self.planned, core=window, reach=window, window=window)
        pixels = Pixels(self.pixels.image[:, rows, cols], self.pixels.valid[rows, cols])
        return Wanted(planned, overlap(window, self.window), pixels, self.visible[rows, cols], self.ring)

    @cached_property
    def candidates(self) -> list[PlannedPatch]:
        """Patches that count anywhere in the reach: they depend on the region alone, not on what is asked of it."""
        reach, valid = self.planned.reach_in_region, self.pixels.valid
        return [p for p in self.planned.patches if valid[overlap(p.window, reach).toslices()].any()]

    def meets(self, patch: PlannedPatch) -> bool:
        """Whether the patch has a visible pixel in the window."""
        (top, bottom), (left, right) = patch.window.toranges()
        (first, last), (start, end) = self.window_in_region.toranges()
        return bool(self.visible[max(top, first) : min(bottom, last), max(left, start) : min(right, end)].any())

    def place(self, patch: PlannedPatch) -> Placement:
        """Where a patch that meets the window counts."""
        kept = overlap(patch.window, self.window_in_region)
        rows, cols = shifted(kept, *_minus(self.window_in_region)).toslices()
        inside = shifted(kept, *_minus(patch.window)).toslices()
        row_weights, col_weights = self._weights
        return Placement(rows, cols, inside, torch.outer(row_weights[patch.row, inside[0]], col_weights[patch.col, inside[1]]))

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        rows, cols = self.planned.equal_patch_weights() if self.ring is None else self.planned.patch_weights(self.ring)
        return torch.from_numpy(rows), torch.from_numpy(cols)


def _minus(window: Window) -> tuple[int, int]:
    return -int(window.row_off), -int(window.col_off)
