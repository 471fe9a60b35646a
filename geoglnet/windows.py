"""Windows of cores, regions and patches: pure arithmetic.

A scene is cut into block-aligned *cores* that partition it; each core is seen inside its *region* (core plus margin,
shifted to stay inside the scene); a region is covered by *patches* (paper §4.1: equal squares, overlapping, the last one
flush with the border).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geoglnet.blending import patch_offsets as patch_offsets
from geoglnet.types import Shape


def patch_windows(shape: Shape, patch_size: int, overlap: int) -> list[Window]:
    """List the windows of all patches of a region of ``shape``, row by row; none is larger than the region."""
    height, width = min(patch_size, shape.height), min(patch_size, shape.width)
    return [
        Window(col_off=col, row_off=row, width=width, height=height)
        for row in patch_offsets(shape.height, patch_size, overlap)
        for col in patch_offsets(shape.width, patch_size, overlap)
    ]


def footprints(windows: Sequence[Window], shape: Shape) -> npt.NDArray[np.float32]:
    """Convert windows to fractions of a region.

    Returns:
        ``(n, 4)`` float32 array of (top, left, bottom, right), each from 0 to 1.
    """
    # Computed in float64: positions of large regions lose pixels in float32.
    corners = [(w.row_off, w.col_off, w.row_off + w.height, w.col_off + w.width) for w in windows]
    sides = (shape.height, shape.width, shape.height, shape.width)
    return (np.array(corners, dtype=np.float64).reshape(-1, 4) / sides).astype(np.float32)


def core_edges(length: int, region_size: int, margin: int) -> tuple[int, ...]:
    """List the borders of cores along one axis: multiples of ``region_size - 2 · margin`` from 0, then ``length``.

    An axis no longer than a region has a single core, and a rest no wider than the margin belongs to the core before it. So the
    last core is wider than the margin (when there are several) and at most a margin wider than the others.
    """
    if length <= region_size:
        return 0, length
    core_size = region_size - 2 * margin
    count = -(-(length - margin) // core_size)  # rounded up; less the margin, so that a narrow rest is no core of its own
    return (*range(0, count * core_size, core_size), length)


def iter_cores(shape: Shape, region_size: int, margin: int) -> Iterator[Window]:
    """Yield the cores of a scene of ``shape``, row by row; they partition it."""
    rows, cols = core_edges(shape.height, region_size, margin), core_edges(shape.width, region_size, margin)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(cols):
            yield Window(col_off=left, row_off=top, width=right - left, height=bottom - top)


def region_window(core: Window, shape: Shape, region_size: int, margin: int) -> Window:
    """Return the region around a core: a square from ``margin`` before the core, shifted to stay inside the scene.

    A scene smaller than a region is one region.
    """
    row_off, height = _span(int(core.row_off), shape.height, region_size, margin)
    col_off, width = _span(int(core.col_off), shape.width, region_size, margin)
    return Window(col_off=col_off, row_off=row_off, width=width, height=height)


def _span(core_start: int, length: int, region_size: int, margin: int) -> tuple[int, int]:
    """Return start and size of a region along one axis."""
    # Shifted, not cut: every region of a large scene has the size that the network was trained with.
    size = min(region_size, length)
    start = min(max(core_start - margin, 0), length - size)
    return start, size
