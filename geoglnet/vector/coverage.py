"""Outlines with fewer points or round corners, whose neighbours keep sharing their borders: no gap, no overlap.

All faces of a tile take part, also those that become no polygon, so that every border between two faces is inside the
coverage; the tile's own border does not move, so that pieces of neighbouring tiles still meet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

from geoglnet.types import Shape
from geoglnet.vector.rings import Geometries, Rings

_ROUNDS = 2
_ATTEMPTS = 4


def simplify_coverage(outlines: Geometries, tolerance: float) -> Geometries:
    """Drop points whose triangle with their neighbours is smaller than ``tolerance²`` (Visvalingam-Whyatt).

    Args:
        outlines: polygons that share all their vertices and together fill a rectangle.
        tolerance: in their units.
    """
    simplified: Geometries = shapely.coverage_simplify(outlines, tolerance, simplify_boundary=False)
    return simplified


def smooth_coverage(outlines: Geometries, shape: Shape) -> Geometries:
    """Cut corners twice (Chaikin), except where three faces meet and on the tile's border.

    Cutting a corner does not depend on the direction of travel, so both sides of a border get the same points. Where the
    outcome would cross another border, the faces concerned keep their corners.

    Args:
        outlines: polygons on whole numbers that share all their vertices and together fill ``shape``.
        shape: of the tile.
    """
    rings = Rings.from_polygons(outlines)
    fixed = _is_fixed(rings, shape)
    for _ in range(_ATTEMPTS):
        smoothed = _cut_corners(rings, fixed).polygons()
        wrong = _wrong_faces(smoothed)
        if not wrong.any():
            return smoothed
        corners = np.repeat(wrong[rings.polygon], rings.lengths)
        fixed |= np.isin(_codes(rings.points), _codes(rings.points[corners]))
    return outlines


def _codes(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    x, y = points.astype(np.int64).T
    codes: npt.NDArray[np.int64] = (y << 32) | x
    return codes


def _is_fixed(rings: Rings, shape: Shape) -> npt.NDArray[np.bool_]:
    """Points on the tile's border, and those where more than two edges meet."""
    codes = _codes(rings.points)
    following = rings.following()
    edges = np.unique(np.sort(np.column_stack([codes, codes[following]]), axis=1), axis=0)
    ends, degree = np.unique(edges.ravel(), return_counts=True)
    x, y = rings.points.T
    on_border = (x == 0) | (y == 0) | (x == shape.width) | (y == shape.height)
    fixed: npt.NDArray[np.bool_] = on_border | np.isin(codes, ends[degree != 2])
    return fixed


def _cut_corners(rings: Rings, fixed: npt.NDArray[np.bool_]) -> Rings:
    for _ in range(_ROUNDS):
        rings, fixed = _cut_once(rings, fixed)
    return rings


def _cut_once(rings: Rings, fixed: npt.NDArray[np.bool_]) -> tuple[Rings, npt.NDArray[np.bool_]]:
    following = rings.following()
    preceding = np.empty_like(following)
    preceding[following] = np.arange(len(following))
    points = rings.points
    before = np.where(fixed[:, None], points, 0.75 * points + 0.25 * points[preceding])
    after = 0.75 * points + 0.25 * points[following]
    count = np.where(fixed, 1, 2)
    position = np.cumsum(count) - count
    cut = np.empty((int(count.sum()), 2))
    cut[position] = before
    cut[position[~fixed] + 1] = after[~fixed]
    starts = np.cumsum(rings.lengths) - rings.lengths
    lengths = np.add.reduceat(count, starts)
    return Rings(cut, lengths, rings.polygon), np.repeat(fixed, count)


def _wrong_faces(outlines: Geometries) -> npt.NDArray[np.bool_]:
    if shapely.coverage_is_valid(outlines) and shapely.is_valid(outlines).all():
        return np.zeros(len(outlines), dtype=bool)
    crossed: npt.NDArray[np.bool_] = ~shapely.is_empty(shapely.coverage_invalid_edges(outlines))
    crossed |= ~shapely.is_valid(outlines)
    return crossed
