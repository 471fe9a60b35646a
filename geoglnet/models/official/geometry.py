"""Geometry of the authors' published code, with its roundings (``compat = "official"``).

Their trained weights have absorbed it, so a checkpoint of theirs needs it to give their logits:

* footprints are rounded to whole cells of each map, both for crops and for merging;
* merged sums are divided by the coverage of the *full-resolution* patches, shrunk bilinearly, which is not quite the
  coverage of the rounded places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from geoglnet.models.resampling import Size
from geoglnet.models.sharing import Footprint, Geometry, Placed

STRIDE = 4  # of the maps of level 2; the authors' patches are multiples of it


def crop_rounded(source: Tensor, footprints: Tensor, size: Size) -> Tensor:
    """Whole cells of feature maps around footprints, resized bilinearly; arguments as for :func:`sharing.crop`."""
    tall, wide = source.shape[-2:]
    crops = []
    for index, (top, left, bottom, right) in enumerate(footprints.tolist()):
        rows, cols = _cells(top, bottom, tall), _cells(left, right, wide)
        # One source for all footprints, or one each.
        crops.append(_resized(source[min(index, len(source) - 1), :, rows, cols], size))
    return torch.stack(crops)


def place_rounded(local: Tensor, footprint: Footprint, size: Size) -> Placed:
    """Shrink a patch's map bilinearly (without averaging) onto whole cells; arguments as for :func:`sharing.place`."""
    top, left, bottom, right = footprint
    rows, cols = _cells(top, bottom, size[0]), _cells(left, right, size[1])
    return rows, cols, _resized(local, (rows.stop - rows.start, cols.stop - cols.start))


def cover_resized(footprints: Sequence[Footprint], size: Size, finest: Size) -> Tensor:
    """Coverage counted in pixels of the region and shrunk bilinearly; arguments as for :func:`sharing.cover`."""
    top, left, bottom, right = footprints[0]
    # The region's size in pixels, from that of one patch and its share of the region.
    height, width = round(STRIDE * finest[0] / (bottom - top)), round(STRIDE * finest[1] / (right - left))
    counts = torch.zeros(height, width)
    for top, left, bottom, right in footprints:
        counts[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] += 1
    shrunk = F.interpolate(counts[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    return torch.where(shrunk > 0, shrunk, 1.0)  # they never leave a part of the image out


OFFICIAL = Geometry(crop_rounded, place_rounded, cover_resized)


def _cells(start: float, end: float, length: int) -> slice:
    """Round the first cell and the number of cells, as the authors do; at the far end that may be a cell too many."""
    count = max(1, round(length * (end - start)))
    first = min(round(length * start), length - count)
    return slice(first, first + count)


def _resized(values: Tensor, size: Size) -> Tensor:
    return F.interpolate(values[None], size=size, mode="bilinear", align_corners=False)[0]
