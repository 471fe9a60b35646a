"""Polygons as flat arrays of rings, and as well-known binary (WKB).

As flat arrays, all polygons of a tile are measured, reordered and encoded in single passes of machine code, without a shapely
object for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from geoglnet.types import Floats, Ints
from geoglnet.vector.compiled import compiled

Geometries = npt.NDArray[np.object_]
_HEADER = np.dtype([("is_little_endian", "u1"), ("kind", "<u4"), ("num_rings", "<u4")])
_POLYGON = 3
_POINT_BYTES = 16
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rings:
    """Open rings (the first point is not repeated), one after the other, shell before holes.

    Args:
        points: ``(n, 2)`` float64 coordinates.
        lengths: number of points of each ring.
        polygon: number of the polygon that each ring belongs to, ascending from 0 without gaps.
    """

    points: Floats
    lengths: Ints
    polygon: Ints

    @classmethod
    def from_polygons(cls, polygons: Geometries) -> Rings:
        """Take ``(n,)`` shapely polygons apart."""
        # Ends are offsets as in Arrow and GeoArrow: they begin with 0, one more than there are rings or polygons.
        _, points, (ring_ends, polygon_ends) = shapely.to_ragged_array(polygons)
        is_closing = np.zeros(len(points), dtype=bool)
        is_closing[ring_ends[1:] - 1] = True
        polygon = np.repeat(np.arange(len(polygons)), np.diff(polygon_ends))
        return cls(points[~is_closing], np.diff(ring_ends) - 1, polygon)

    def __len__(self) -> int:
        return int(self.polygon[-1]) + 1 if len(self.polygon) else 0

    def __getitem__(self, chosen: slice | npt.NDArray[np.bool_]) -> Rings:
        """Select some of the polygons, numbered anew from 0."""
        is_chosen = np.zeros(len(self), dtype=bool)
        is_chosen[chosen] = True
        ring = np.flatnonzero(is_chosen[self.polygon])
        return self._in_order(ring, (np.cumsum(is_chosen) - 1)[self.polygon[ring]])

    def ordered(self) -> Rings:
        """Sort rings by polygon, the shell before its holes, which run the other way round."""
        is_hole = _measure_rings(self.points, self.lengths)[:, 4] < 0  # by the sign of the area
        order = np.lexsort((is_hole, self.polygon))
        return self._in_order(order, self.polygon[order])

    def _in_order(self, ring: Ints, polygon: Ints) -> Rings:
        starts = np.cumsum(self.lengths) - self.lengths
        return Rings(_gather(self.points, starts[ring], self.lengths[ring]), self.lengths[ring], polygon)

    def polygons(self) -> Geometries:
        """Build ``(n,)`` shapely polygons."""
        if len(self) == 0:
            return np.empty(0, dtype=object)
        ring = np.repeat(np.arange(len(self.lengths)), self.lengths)
        rings = shapely.linearrings(self.points, indices=ring)
        polygons: Geometries = shapely.polygons(rings, indices=self.polygon)
        return polygons

    def num_points(self) -> Ints:
        """Count the points of every polygon, ``(n,)``, with the one that closes each ring."""
        return np.bincount(self.polygon, weights=self.lengths + 1, minlength=len(self)).astype(np.intp)

    def measures(self) -> tuple[Floats, Floats, Floats]:
        """Measure the polygons in the plane: bounds ``(n, 4)``, areas ``(n,)`` and lengths of borders ``(n,)``."""
        of_rings = _measure_rings(self.points, self.lengths)
        first = np.flatnonzero(np.diff(self.polygon, prepend=-1))
        low, high = (reduce.reduceat(of_rings, first) for reduce in (np.minimum, np.maximum))
        total = np.add.reduceat(of_rings, first)  # holes count negative and subtract themselves
        bounds = np.column_stack([low[:, :2], high[:, 2:4]])
        return bounds, np.abs(total[:, 4]) / 2, total[:, 5]

    def following(self) -> Ints:
        """Return the index of the point after each one, ``(n,)``, around its ring."""
        ends = np.cumsum(self.lengths)
        after = np.arange(1, len(self.points) + 1)
        after[ends - 1] = ends - self.lengths
        return after

    def without_straight_points(self) -> Rings:
        """Drop the points at which an outline of horizontal and vertical edges does not turn."""
        starts = np.cumsum(self.lengths) - self.lengths
        after = self.following()
        before = np.empty_like(after)  # the inverse permutation
        before[after] = np.arange(len(after))
        # Edges run along the axes: a point where x or y stays the same twice lies on a straight line.
        goes_on = (self.points[before] == self.points) & (self.points == self.points[after])
        turns = ~goes_on.any(axis=1)
        return Rings(self.points[turns], np.add.reduceat(turns, starts, dtype=np.intp), self.polygon)


Outlines = Geometries | Rings
"""Shapely geometries, or polygons as rings, which is quicker."""


def as_geometries(outlines: Outlines) -> Geometries:
    """Return outlines as ``(n,)`` shapely geometries."""
    return outlines.polygons() if isinstance(outlines, Rings) else outlines


def together(parts: Geometries, geometry: Ints) -> Geometries:
    """Assemble parts to multipolygons, the inverse of ``shapely.get_parts``; a single part stays a polygon.

    Args:
        parts: ``(n,)`` polygons.
        geometry: ``(n,)`` number of the geometry that each belongs to, ascending from 0 without gaps.
    """
    several = np.bincount(geometry)[geometry] > 1
    geometries = np.empty(int(geometry[-1]) + 1, dtype=object)
    geometries[geometry[~several]] = parts[~several]
    if several.any():
        numbers, indices = np.unique(geometry[several], return_inverse=True)
        geometries[numbers] = shapely.multipolygons(parts[several], indices=indices)
    return geometries


@compiled
def _gather(points: Floats, starts: Ints, lengths: Ints) -> Floats:
    """Copy the points of some rings, in the order of ``starts``."""
    gathered = np.empty((lengths.sum(), 2))
    place = 0
    for i in range(len(starts)):
        before, after = points[starts[i] : starts[i] + lengths[i]], gathered[place : place + lengths[i]]
        for step in range(len(before)):
            after[step, 0], after[step, 1] = before[step, 0], before[step, 1]
        place += lengths[i]
    return gathered


@compiled
def _measure_rings(points: Floats, lengths: Ints) -> Floats:
    """Measure every ring: west, south, east, north, twice the signed area (shoelace formula), length."""
    measures = np.empty((len(lengths), 6))
    start = 0
    for ring in range(len(lengths)):
        end = start + lengths[ring]
        # Relative to the first point: far from the origin, products of coordinates lose the small differences that areas are
        # made of.
        x, y = points[start, 0], points[start, 1]
        west, south, east, north, doubled_area, length = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        before_x, before_y = points[end - 1, 0] - x, points[end - 1, 1] - y
        for i in range(start, end):
            here_x, here_y = points[i, 0] - x, points[i, 1] - y
            west, east = min(west, here_x), max(east, here_x)
            south, north = min(south, here_y), max(north, here_y)
            doubled_area += before_x * here_y - here_x * before_y
            length += np.sqrt((here_x - before_x) ** 2 + (here_y - before_y) ** 2)
            before_x, before_y = here_x, here_y
        measures[ring] = (x + west, y + south, x + east, y + north, doubled_area, length)
        start = end
    return measures


def to_wkb(outlines: Outlines) -> pa.LargeBinaryArray:
    """Encode ``(n,)`` geometries as little-endian WKB in one Arrow array."""
    if isinstance(outlines, Rings) and len(outlines):
        return _rings_to_wkb(outlines)
    return pa.array(shapely.to_wkb(as_geometries(outlines)), pa.large_binary())


def _rings_to_wkb(rings: Rings) -> pa.LargeBinaryArray:
    """Write the WKB of polygons straight into one buffer.

    A polygon is a header (byte order, type, number of rings), then every ring: its number of points, and their coordinates.
    """
    num_rings = np.bincount(rings.polygon)
    ring_bytes = 4 + _POINT_BYTES * (rings.lengths + 1)  # a ring's last point is its first
    # Before the end of a ring lie all rings so far, and the headers of their polygons and of its own.
    ring_ends = np.cumsum(ring_bytes) + _HEADER.itemsize * (rings.polygon + 1)
    ends = ring_ends[np.cumsum(num_rings) - 1]
    places = np.append(0, ends)

    headers = np.empty(len(rings), dtype=_HEADER)
    headers["is_little_endian"], headers["kind"], headers["num_rings"] = 1, _POLYGON, num_rings
    wkb = np.empty(int(ends[-1]), dtype=np.uint8)
    _put(wkb, places[:-1], headers)
    _put(wkb, ring_ends - ring_bytes, (rings.lengths + 1).astype("<u4"))
    _put_points(wkb, ring_ends - ring_bytes + 4, rings)
    buffers = [None, pa.py_buffer(places.astype(np.int64)), pa.py_buffer(wkb)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(rings), buffers)


def _put(wkb: Bytes, places: Ints, values: npt.NDArray[Any]) -> None:
    """Write one value at each place."""
    raw = values.view(np.uint8).reshape(len(values), -1)
    wkb[places[:, None] + np.arange(raw.shape[1])] = raw


def _put_points(wkb: Bytes, places: Ints, rings: Rings) -> None:
    """Write the points of each ring, and its first point once more, because rings are closed in WKB."""
    points = np.ascontiguousarray(rings.points, dtype="<f8").view(np.uint8).ravel()
    num_bytes = _POINT_BYTES * rings.lengths
    starts = np.cumsum(num_bytes) - num_bytes
    _copy(points, starts, num_bytes, wkb, places)
    _copy(points, starts, np.full(len(starts), _POINT_BYTES), wkb, places + num_bytes)


@compiled
def _copy(source: Bytes, starts: Ints, num_bytes: Ints, target: Bytes, places: Ints) -> None:
    for i in range(len(starts)):
        # Through slices the machine code is one copy per ring, not one per byte.
        before, after = source[starts[i] : starts[i] + num_bytes[i]], target[places[i] : places[i] + num_bytes[i]]
        for step in range(len(before)):
            after[step] = before[step]
