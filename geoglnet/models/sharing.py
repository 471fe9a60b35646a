"""Deep feature map sharing (paper §3.2.2).

Global maps are cropped at a patch's footprint and resized to the patch's maps; local maps are brought to the size of the
global ones and merged, each place divided by the number of patches that cover it. Positions are exact fractions of the
region, so nothing depends on how a patch lies to the cells of a map. The authors round (:mod:`geoglnet.models.official`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geoglnet.models.resampling import Size, centers, crop_each, resample, weights_at
from geoglnet.models.transfers import to_device

Footprint = Sequence[float]
"""(top, left, bottom, right) of a patch, as fractions of its region."""

Placed = tuple[slice, slice, Tensor]
"""Rows and columns of a merged map, and what a patch gives to them."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How positions in a region become cells of maps.

    Args:
        crop: ``(source, footprints, size)`` → global maps at footprints, see :func:`crop`.
        place: ``(local map, footprint, merged size)`` → where and what it adds to a merged map, see :func:`place`.
        cover: ``(footprints, merged size, size of a patch's maps of level 2)`` → ``(H, W)`` what the sum is divided by, see
            :func:`cover`.
    """

    crop: Callable[[Tensor, Tensor, Size], Tensor]
    place: Callable[[Tensor, Footprint, Size], Placed]
    cover: Callable[[Sequence[Footprint], Size, Size], Tensor]


def crop(source: Tensor, footprints: Tensor, size: Size) -> Tensor:
    """Parts of feature maps, resampled bilinearly at exact (fractional) positions.

    Position (i, j) of the crop reads the source at ``top + (i + ½)/h · (bottom − top)``: no rounding to whole cells, so a
    patch sees the same global features wherever it lies (the authors round; ``docs/paper.md``).

    Args:
        source: ``(n, C, H, W)``, or ``(1, C, H, W)`` for all footprints.
        footprints: ``(n, 4)`` of (top, left, bottom, right), fractions of the source from 0 to 1.
        size: (h, w) of the crops.

    Returns:
        ``(n, C, h, w)`` in the source's dtype.
    """
    if footprints.device.type == source.device.type == "cpu" and not torch.compiler.is_compiling():
        return crop_each(source, footprints.tolist(), size).to(source.dtype)
    top, left, bottom, right = to_device(footprints.float(), source.device).unbind(dim=1)
    rows = weights_at(centers(top, bottom, size[0]), source.shape[-2])
    cols = weights_at(centers(left, right, size[1]), source.shape[-1])
    return resample(source.float(), rows, cols).to(source.dtype)


def place(local: Tensor, footprint: Footprint, size: Size) -> Placed:
    """Resample a patch's map at the merged map's cells whose centers lie in its footprint, resampled bilinearly.

    Args:
        local: ``(C, h, w)``.
        footprint: of the patch.
        size: (H, W) of the merged map.
    """
    top, left, bottom, right = footprint
    rows, y = _cells_inside(top, bottom, size[0], local.device)
    cols, x = _cells_inside(left, right, size[1], local.device)
    height, width = local.shape[-2:]
    return rows, cols, resample(local[None].float(), weights_at(y, height), weights_at(x, width))[0]


def cover(footprints: Sequence[Footprint], size: Size, _: Size) -> Tensor:
    """Count the patches that each cell of a merged map gets a value from; 1 where none does, so that it can be divided by."""
    counts = torch.zeros(size)
    for top, left, bottom, right in footprints:
        counts[_cells(top, bottom, size[0]), _cells(left, right, size[1])] += 1
    return counts.clamp(min=1)


EXACT = Geometry(crop, place, cover)


def _cells(start: float, end: float, length: int) -> slice:
    """Cells, of ``length`` from 0 to 1, whose centers lie between two fractions."""
    # Cell i has its center at i + ½; half-open, so that footprints side by side share no cell and miss none.
    return slice(math.ceil(start * length - 0.5), math.ceil(end * length - 0.5))


def _cells_inside(start: float, end: float, length: int, device: torch.device) -> tuple[slice, Tensor]:
    """Find the cells with their centers in a span, and the centers as fractions of the span."""
    cells = _cells(start, end, length)
    middles = (torch.arange(cells.start, cells.stop, dtype=torch.float64) + 0.5) / length  # not on the device: mps has none
    return cells, to_device(((middles - start) / (end - start)).float()[None], device)
