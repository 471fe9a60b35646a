"""The polygons inside a WKB geometry of any kind: collections, surfaces, triangles, curves.

GEOS reads neither triangles nor surfaces made of them, refuses rings that are left open, and keeps curves as curves. This
reader takes from a geometry all that has an area: curves become straight steps of four degrees, as GDAL makes them.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Rings = list[Points]

_Z, _M, _SRID = 0x80000000, 0x40000000, 0x20000000  # flags of the extended form; the standard adds 1000, 2000 or 3000
_POINT, _LINE, _POLYGON, _ARCS, _COMPOUND, _CURVE_POLYGON, _TRIANGLE = 1, 2, 3, 8, 9, 10, 17
_COLLECTIONS = {4, 5, 6, 7, 11, 12, 15, 16}  # of points, lines, polygons, anything, curves, surfaces; of faces, of triangles
_DEEPEST = 32
_ARC_STEP = math.radians(4)


def rings_of(wkb: bytes) -> list[Rings]:
    """Read the polygons of a geometry, each as its outer ring and its holes, ``(n, 2)`` points as they are written.

    Raises:
        ValueError: these bytes are no geometry.
    """
    parser = _Parser(wkb)
    try:
        return parser.geometry(0)[0]
    except struct.error as error:
        raise ValueError("it ends too early") from error


@dataclass(slots=True)
class _Parser:
    """A place in the bytes of a geometry."""

    wkb: bytes
    at: int = 0

    def geometry(self, depth: int) -> tuple[list[Rings], Points]:
        """Polygons of the geometry that begins here, and the points of its line where it is one."""
        order, kind, num_axes = self._header()
        nothing = np.empty((0, 2))
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if kind == _POINT:
            self.at += 8 * num_axes
            return [], nothing
        if kind in (_LINE, _ARCS):
            points = self._points(order, num_axes)
            return [], _straightened(points) if kind == _ARCS else points
        count = self._number(order)
        if kind in (_POLYGON, _TRIANGLE):
            return [[self._points(order, num_axes) for _ in range(count)]], nothing
        children = (self.geometry(depth + 1) for _ in range(count))
        if kind == _CURVE_POLYGON:
            return [[line for _, line in children]], nothing
        if kind == _COMPOUND:
            return [], np.concatenate([nothing, *(line for _, line in children)])
        if kind in _COLLECTIONS:
            return [polygon for polygons, _ in children for polygon in polygons], nothing
        raise ValueError(f"it is of kind {kind}, which is unknown")

    def _header(self) -> tuple[str, int, int]:
        order = "<" if self.wkb[self.at : self.at + 1] == b"\x01" else ">"
        self.at += 1
        code = self._number(order)
        if code & _SRID:
            self.at += 4
        thousands, kind = divmod(code & 0x0FFFFFFF, 1000)
        return order, kind, 2 + bool(code & _Z or thousands in (1, 3)) + bool(code & _M or thousands in (2, 3))

    def _number(self, order: str) -> int:
        (number,) = struct.unpack_from(f"{order}I", self.wkb, self.at)
        self.at += 4
        return int(number)

    def _points(self, order: str, num_axes: int) -> Points:
        count = self._number(order)
        if self.at + 8 * count * num_axes > len(self.wkb):
            raise ValueError("it ends too early")
        numbers = np.frombuffer(self.wkb, f"{order}f8", count * num_axes, self.at)
        self.at += numbers.nbytes
        return numbers.reshape(count, num_axes)[:, :2].astype(np.float64)


def _straightened(points: Points) -> Points:
    """A circular string as a line; every second point lies on the arc between its neighbors."""
    parts = [points[:1]]
    for start, middle, end in zip(points[:-2:2], points[1:-1:2], points[2::2], strict=True):
        parts += [_arc(start, middle, end), end[None]]
    return np.concatenate(parts)


def _arc(start: Points, middle: Points, end: Points) -> Points:
    """Points between the ends of an arc, without them; the middle alone where all three lie on a line."""
    center, turn = _circle(start, middle, end)
    if center is None:
        return middle[None]
    first = math.atan2(*(start - center)[::-1])
    angles = first + np.linspace(0, turn, math.ceil(abs(turn) / _ARC_STEP) + 1)[1:-1]
    radius = math.hypot(*(start - center))
    return np.asarray(center + radius * np.column_stack([np.cos(angles), np.sin(angles)]))


def _circle(start: Points, middle: Points, end: Points) -> tuple[Points | None, float]:
    """Center of an arc and the angle it turns, to the left above 0."""
    if (start == end).all():  # a whole circle, whose middle lies opposite
        return (start + middle) / 2, 2 * math.pi
    (bx, by), (cx, cy) = middle - start, end - start
    twice_area = 2 * (bx * cy - by * cx)
    if twice_area == 0 or not math.isfinite(twice_area):
        return None, 0.0
    b, c = bx * bx + by * by, cx * cx + cy * cy
    center = start + np.array([cy * b - by * c, bx * c - cx * b]) / twice_area
    first, last = (math.atan2(*(point - center)[::-1]) for point in (start, end))
    return center, (last - first) % (2 * math.pi) - (2 * math.pi if twice_area < 0 else 0.0)
