"""What is asked of a region: which part, which patches matter for it, and with which weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window
from torch import Tensor

from geoglnet.prediction.plan import PlannedPatch, PlannedRegion, overlap, shifted
from geoglnet.raster.scene import Pixels
from geoglnet.types import Shape


@dataclass(frozen=True, slots=True)
class Place:
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
        ring: width of the ring of patches that has no weight.
    """

    planned: PlannedRegion
    window: Window
    pixels: Pixels
    visible: npt.NDArray[np.bool_]
    ring: int = 0

    @property
    def shape(self) -> Shape:
        return Shape(int(self.window.height), int(self.window.width))

    @cached_property
    def window_in_region(self) -> Window:
        return shifted(self.window, *_minus(self.planned.window))

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

    def place(self, patch: PlannedPatch) -> Place:
        """Where a patch that meets the window counts."""
        kept = overlap(patch.window, self.window_in_region)
        rows, cols = shifted(kept, *_minus(self.window_in_region)).toslices()
        inside = shifted(kept, *_minus(patch.window)).toslices()
        row_weights, col_weights = self._weights
        return Place(rows, cols, inside, torch.outer(row_weights[patch.row, inside[0]], col_weights[patch.col, inside[1]]))

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        rows, cols = self.planned.patch_weights(self.ring)
        return torch.from_numpy(rows), torch.from_numpy(cols)


def _minus(window: Window) -> tuple[int, int]:
    return -int(window.row_off), -int(window.col_off)
