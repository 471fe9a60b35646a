"""Reprojects polygons to the CRS of a scene, even if they cover a continent.

Far from the area that a projection is made for, it returns infinite coordinates, or finite ones that are wrong. So polygons
that reach far beyond the scene are clipped to its surroundings while they are in their own CRS, and their long edges, which
are straight there, get points between their ends. Others are transformed point by point.

Longitudes mean the same after a full turn. So the surroundings are compared with polygons three times: where they are, and a
turn to the west and to the east. Where a target's coordinates jump from one end of its world to the other, polygons are cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Transformer

from geoglnet.types import Bounds
from geoglnet.vector.rings import Geometries

_EARTH_M = 6_378_137.0
_MARGINS_M = (50_000.0, 1_000.0)  # around the scene; the smaller where the projection ends before the larger
_LONG_EDGE_M = 500.0  # a straight edge this long bends by millimeters in another projection
_STEPS = 21  # points along each side of the scene's surroundings that are transformed to find their bounds in another CRS
_MOST = 0.9  # of a turn: longitudes that span more are the whole world
_HAIR = 1e-11  # of a turn: less than a millimeter
_NOWHERE = shapely.Polygon()


def reproject(geometries: Geometries, source: CRS, target: CRS, around: Bounds | None, *, is_same: bool = False) -> Geometries:
    """Reproject valid polygons from one CRS to another.

    Args:
        geometries: ``(n,)`` polygons or multipolygons.
        source: their CRS.
        target: the other CRS.
        around: (left, bottom, right, top) in ``target`` of the scene that they are for; ``None`` transforms all of them whole.
        is_same: whether coordinates in both CRSs mean the same.

    Returns:
        ``(n,)`` polygons or multipolygons; those that were clipped reach beyond ``around`` on all sides where they did before,
        and those that lie where ``target`` has no coordinates are empty.

    Raises:
        ProjError: there is no way from one to the other.
    """
    if is_same:
        return geometries.copy() if around is None else _wrapped(geometries, source, around)
    # 1. All polygons point by point: for those near the scene this is all, and mostly these are all there are.
    to_target = Transformer.from_crs(source, target, always_xy=True)
    moved = _moved(geometries, to_target)
    place = None if around is None else _place(around, source, target)
    if place is None or around is None:
        return moved
    # 2. Drop what does not reach the surroundings in its own CRS, if it has no coordinates in the target or seems to reach the
    #    scene there, which happens where a projection folds.
    bounds = shapely.bounds(geometries)
    touches = np.logical_or.reduce([_overlap(bounds, turned) for turned, _ in place.turns()])
    is_lost = ~np.isfinite(shapely.bounds(moved)).all(axis=1)
    moved[~touches & (is_lost | _overlap(shapely.bounds(moved), around))] = _NOWHERE
    # 3. Clip what reaches the surroundings and cannot be transformed point by point: it has lost coordinates, crosses a jump,
    #    reaches beyond the surroundings, or has edges that bend.
    cuts = _cuts(shapely.total_bounds(geometries), source, target) if place.turn else []
    is_cut = np.logical_or.reduce([np.zeros(len(bounds), bool), *((bounds[:, 0] < cut) & (bounds[:, 2] > cut) for cut in cuts)])
    is_wide = touches & (is_lost | is_cut | ~_inside(bounds, place.bounds) | (_longest_edges(geometries) > place.long_edge))
    for row in np.flatnonzero(is_wide):
        parts = _moved(shapely.segmentize(place.parts(geometries[row], cuts), place.long_edge), to_target)
        moved[row] = parts[0] if len(parts) == 1 else shapely.union_all(shapely.make_valid(parts))
    return _wrapped(moved, target, around) if target.is_geographic else moved


def beyond_degrees(geometries: Geometries, crs: CRS) -> tuple[int, tuple[float, float]] | None:
    """Find the first polygon of a geographic CRS with coordinates that are not longitude and latitude.

    Returns:
        Its index and such coordinates; ``None`` where there is none, or the CRS is not geographic.
    """
    if not crs.is_geographic:
        return None
    points, index = shapely.get_coordinates(geometries, return_index=True)
    turn = _full_turn(crs)
    # Longitudes may be as large as a full turn, latitudes as a quarter: some files count longitudes from 0 to 360, or continue
    # beyond 180 in polygons that cross that meridian.
    bad = (np.abs(points) > np.array([1.0, 0.25]) * turn * (1 + 1e-6)).any(axis=1)
    if not bad.any():
        return None
    first = int(np.argmax(bad))
    return int(index[first]), (float(points[first, 0]), float(points[first, 1]))


@dataclass(frozen=True, slots=True)
class _Place:
    """A scene's surroundings in the CRS of polygons.

    Args:
        bounds: (left, bottom, right, top).
        long_edge: length in units of the CRS above which edges get points between their ends.
        turn: a full turn of longitudes in units of the CRS; 0 in a plane.
    """

    bounds: Bounds
    long_edge: float
    turn: float

    def turns(self) -> Iterator[tuple[Bounds, float]]:
        """Yield the bounds, and those a turn further to the west and to the east, each with its offset."""
        left, bottom, right, top = self.bounds
        for off in (-self.turn, 0.0, self.turn) if self.turn else (0.0,):
            yield (left + off, bottom, right + off, top), off

    def parts(self, geometry: shapely.Geometry, cuts: Sequence[float]) -> Geometries:
        """Clip a polygon to the surroundings, one part for each turn and each side of a cut.

        Parts end a hair before a cut: exactly on it, a point could be transformed to either end of the world.
        """
        parts, hair = [], _HAIR * self.turn
        for (left, bottom, right, top), _ in self.turns():
            for west, east in pairwise([left, *(cut for cut in cuts if left < cut < right), right]):
                box = shapely.box(west + hair * (west in cuts), bottom, east - hair * (east in cuts), top)
                polygons = shapely.get_parts(shapely.intersection(geometry, box))
                parts.append(shapely.union_all(polygons[shapely.get_dimensions(polygons) == 2]))
        found: Geometries = np.array([part for part in parts if not part.is_empty] or [_NOWHERE], object)
        return found

    def clip(self, geometry: shapely.Geometry) -> shapely.Geometry:
        """Clip a polygon to the surroundings; what lies a turn further is brought back."""
        parts = [
            shapely.transform(shapely.intersection(geometry, shapely.box(*bounds)), lambda points, off=off: points - (off, 0))
            for bounds, off in self.turns()
        ]
        polygons = shapely.get_parts(parts)
        return shapely.union_all(polygons[shapely.get_dimensions(polygons) == 2])


def _place(around: Bounds, source: CRS, target: CRS) -> _Place | None:
    """Find the surroundings of a scene in the CRS of polygons; return ``None`` where it has no coordinates for them."""
    to_source = Transformer.from_crs(target, source, always_xy=True)
    for margin_m in _MARGINS_M:
        margin = _length(margin_m, target)
        left, bottom, right, top = np.add(around, (-margin, -margin, margin, margin))
        if target.is_geographic:
            quarter = _full_turn(target) / 4
            bottom, top = max(bottom, -quarter), min(top, quarter)
        grid = np.meshgrid(np.linspace(left, right, _STEPS), np.linspace(bottom, top, _STEPS))
        x, y = to_source.transform(grid[0].ravel(), grid[1].ravel())
        turn = _full_turn(source) if source.is_geographic else 0.0
        if not (is_known := np.isfinite([x, y]).all(axis=0)).all():
            if margin_m != _MARGINS_M[-1] or not turn or not is_known.any() or np.ptp(x[is_known]) < _MOST * turn:
                continue
            # A map of the world in a projection that leaves the corners of the sheet empty.
            return _Place((-turn / 2, -turn / 4, turn / 2, turn / 4), _length(_LONG_EDGE_M, source), turn)
        if turn:
            x, y = _around_middle(x, y, (left, bottom, right, top), source, target)
        return _Place((x.min(), y.min(), x.max(), y.max()), _length(_LONG_EDGE_M, source), turn)
    return None


def _around_middle(x: Any, y: Any, area: Bounds, source: CRS, target: CRS) -> tuple[Any, Any]:
    """Count longitudes from that of the middle, so that they do not jump; include all of them where the area holds a pole."""
    turn = _full_turn(source)
    x = (x - x[len(x) // 2] + turn / 2) % turn - turn / 2 + x[len(x) // 2]
    if np.ptp(x) > _MOST * turn:  # the whole world: without this, a strip between both ends would be left out
        middle = x[len(x) // 2]
        x, y = np.append(x, (middle - turn / 2, middle + turn / 2)), np.append(y, y[:2])
    left, bottom, right, top = area
    to_target = Transformer.from_crs(source, target, always_xy=True)
    for pole in (-turn / 4, turn / 4):
        px, py = to_target.transform(0.0, pole)
        if left <= px <= right and bottom <= py <= top and not target.is_geographic:
            x, y = np.append(x, (-turn / 2, turn / 2)), np.append(y, (pole, pole))
    return x, y


def _cuts(bounds: npt.NDArray[np.float64], source: CRS, target: CRS) -> list[float]:
    """List the longitudes in ``bounds`` at which a target's coordinates jump from one end of its world to the other."""
    # Half a turn from the central meridian, which PROJ names "Longitude of natural origin", "of false origin" or similar.
    operation, turn = target.coordinate_operation, _full_turn(source)
    middles = [
        float(param.value) * param.unit_conversion_factor / (2 * math.pi)
        for param in (() if operation is None else operation.params)
        if param.name.startswith("Longitude of")
    ]
    first = (next(iter(middles), 0.0) + 0.5) * turn
    numbers = range(math.ceil((bounds[0] - first) / turn), math.floor((bounds[2] - first) / turn) + 1)
    return [first + number * turn for number in numbers]


def _wrapped(geometries: Geometries, crs: CRS, around: Bounds) -> Geometries:
    """Add to polygons of a geographic CRS what lies in the scene when longitudes are counted a turn further."""
    wrapped = geometries.copy()
    if not crs.is_geographic:
        return wrapped
    place = _Place(around, 0.0, _full_turn(crs))
    bounds = shapely.bounds(geometries)
    for turned, off in place.turns():
        if off:
            for row in np.flatnonzero(_overlap(bounds, turned)):
                wrapped[row] = shapely.union_all([wrapped[row], place.clip(geometries[row])])
    return wrapped


def _moved(geometries: Geometries, transformer: Transformer) -> Geometries:
    """Transform geometries point by point; coordinates that the target lacks become infinite."""
    moved: Geometries = shapely.transform(
        geometries, lambda points: np.column_stack(transformer.transform(points[:, 0], points[:, 1]))
    )
    return moved


def _longest_edges(geometries: Geometries) -> npt.NDArray[np.float64]:
    """Measure the longest edge of each polygon, ``(n,)``."""
    rings, index = shapely.get_rings(geometries, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    steps = np.hypot(*np.diff(points, axis=0).T)
    steps[np.diff(ring) > 0] = 0.0  # from the last point of a ring to the first of the next
    longest = np.zeros(len(geometries))
    np.maximum.at(longest, index[ring[1:]], steps)
    return longest


def _overlap(bounds: npt.NDArray[np.float64], other: Bounds) -> npt.NDArray[np.bool_]:
    """Find which of ``(n, 4)`` bounds overlap others."""
    left, bottom, right, top = bounds.T
    overlap: npt.NDArray[np.bool_] = (left < other[2]) & (right > other[0]) & (bottom < other[3]) & (top > other[1])
    return overlap


def _inside(bounds: npt.NDArray[np.float64], other: Bounds) -> npt.NDArray[np.bool_]:
    """Find which of ``(n, 4)`` bounds lie inside others."""
    left, bottom, right, top = bounds.T
    inside: npt.NDArray[np.bool_] = (left >= other[0]) & (right <= other[2]) & (bottom >= other[1]) & (top <= other[3])
    return inside


def _full_turn(crs: CRS) -> float:
    """Return a full turn in the units of a geographic CRS."""
    return 2 * math.pi / float(crs.axis_info[0].unit_conversion_factor)


def _length(meters: float, crs: CRS) -> float:
    """Convert meters to the units of a CRS's axes, to longitudes as at the equator."""
    factor = float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0
    return meters / (factor * (_EARTH_M if crs.is_geographic else 1.0))
