"""Reshapes outlines: simplifies and smooths coverages, whose shared borders stay shared, and regularizes buildings.

All faces of a tile take part in simplifying and smoothing, also those that become no polygon, so that every border between two
faces is inside the coverage; the tile's own border does not move, so that pieces of neighboring tiles still meet.

A building's outline on pixels is a staircase. Regularization removes the stairs (Douglas-Peucker), then every edge votes for a
direction modulo 90°, weighted with its length; every edge becomes a wall along or across the winning direction, at the
length-weighted mean of its points; walls shorter than the noise join their neighbors; corners are where two walls meet. A
polygon that fits badly is returned unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.affinity import rotate

from geoglnet.types import Shape
from geoglnet.vector.rings import Geometries, Rings

_ROUNDS = 2
_ATTEMPTS = 4
MIN_IOU = 0.8
"""A regularized polygon that overlaps with its original less than this is not used."""
_STAIR_PIXELS = 1.5  # the outline of a straight wall deviates from it by less than this
_WALL_PIXELS = 4.0  # shorter walls are noise
Points = npt.NDArray[np.float64]


def simplify_coverage(outlines: Geometries, tolerance: float) -> Geometries:
    """Drop points whose triangle with their neighbors is smaller than ``tolerance²`` (Visvalingam-Whyatt).

    Args:
        outlines: ``(n,)`` polygons that share all their vertices and together fill a rectangle.
        tolerance: in the units of their coordinates.

    Returns:
        ``(n,)`` polygons that share all their vertices and fill the same rectangle.
    """
    simplified: Geometries = shapely.coverage_simplify(outlines, tolerance, simplify_boundary=False)
    return simplified


def smooth_coverage(outlines: Geometries, shape: Shape) -> Geometries:
    """Cut corners twice (Chaikin), except where three faces meet and on the tile's border.

    Cutting a corner does not depend on the direction of travel, so both sides of a border get the same points. Where a
    smoothed border would cross another one, the faces concerned keep their corners.

    Args:
        outlines: ``(n,)`` polygons with integer coordinates that share all their vertices and together fill ``shape``.
        shape: of the tile.

    Returns:
        ``(n,)`` valid polygons; ``outlines`` themselves if they still cross after four attempts.
    """
    rings = Rings.from_polygons(outlines)
    fixed = _is_fixed(rings, shape)
    for _ in range(_ATTEMPTS):
        smoothed = _cut_corners(rings, fixed).polygons()
        wrong = _wrong_faces(smoothed)
        if not wrong.any():
            return smoothed
        # All points of the faces that cross are fixed, on their neighbors' side too: a border has the same points on both.
        corners = np.repeat(wrong[rings.polygon], rings.lengths)
        fixed |= np.isin(_codes(rings.points), _codes(rings.points[corners]))
    return outlines


def _codes(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Encode points with integer coordinates as one number each, which sorts and compares faster than pairs."""
    x, y = points.astype(np.int64).T
    codes: npt.NDArray[np.int64] = (y << 32) | x
    return codes


def _is_fixed(rings: Rings, shape: Shape) -> npt.NDArray[np.bool_]:
    """Find the points that may not move: those on the tile's border, and those where more than two edges meet."""
    codes = _codes(rings.points)
    following = rings.following()
    # Both faces of a border bring its edges, in opposite directions: sorted, each is counted once.
    edges = np.unique(np.sort(np.column_stack([codes, codes[following]]), axis=1), axis=0)
    ends, degree = np.unique(edges.ravel(), return_counts=True)
    x, y = rings.points.T
    on_border = (x == 0) | (y == 0) | (x == shape.width) | (y == shape.height)
    fixed: npt.NDArray[np.bool_] = on_border | np.isin(codes, ends[degree != 2])
    return fixed


def _cut_corners(rings: Rings, fixed: npt.NDArray[np.bool_]) -> Rings:
    """Cut every corner that is not fixed as often as :data:`_ROUNDS` says."""
    for _ in range(_ROUNDS):
        rings, fixed = _cut_once(rings, fixed)
    return rings


def _cut_once(rings: Rings, fixed: npt.NDArray[np.bool_]) -> tuple[Rings, npt.NDArray[np.bool_]]:
    """Replace every corner by two points, a quarter of the way to its neighbors (Chaikin 1974); fixed points stay."""
    following = rings.following()
    preceding = np.empty_like(following)
    preceding[following] = np.arange(len(following))
    points = rings.points
    before = np.where(fixed[:, None], points, 0.75 * points + 0.25 * points[preceding])
    after = 0.75 * points + 0.25 * points[following]
    count = np.where(fixed, 1, 2)
    position = np.cumsum(count) - count  # of a point's first replacement
    cut = np.empty((int(count.sum()), 2))
    cut[position] = before
    cut[position[~fixed] + 1] = after[~fixed]
    starts = np.cumsum(rings.lengths) - rings.lengths
    lengths = np.add.reduceat(count, starts)
    return Rings(cut, lengths, rings.polygon), np.repeat(fixed, count)


def _wrong_faces(outlines: Geometries) -> npt.NDArray[np.bool_]:
    """Find the faces that cross themselves or a neighbor, ``(n,)`` bool."""
    # Checking the whole coverage is far quicker than asking which edges are wrong, and mostly none is.
    if shapely.coverage_is_valid(outlines) and shapely.is_valid(outlines).all():
        return np.zeros(len(outlines), dtype=bool)
    crossed: npt.NDArray[np.bool_] = ~shapely.is_empty(shapely.coverage_invalid_edges(outlines))
    crossed |= ~shapely.is_valid(outlines)
    return crossed


@dataclass(slots=True)
class _Wall:
    """One wall after rotation: along x or along y, ``offset`` from that axis."""

    is_along_x: bool
    offset: float
    weight: float

    def absorb(self, other: _Wall) -> None:
        """Merge with a wall of the same direction, at the mean offset weighted by length."""
        total = self.weight + other.weight
        self.offset = (self.offset * self.weight + other.offset * other.weight) / total
        self.weight = total


def regularize(polygon: shapely.Geometry, pixel_size: float) -> shapely.Geometry:
    """Give a polygon straight walls and right angles; return ``polygon`` itself where that does not fit.

    Args:
        polygon: polygon, with holes, or multipolygon, in units of equal length in all directions.
        pixel_size: side of the pixels that it was traced on, in these units.

    Returns:
        A valid geometry; its overlap with ``polygon`` is at least :data:`MIN_IOU` of their union.
    """
    if polygon.geom_type == "MultiPolygon":
        return shapely.multipolygons([regularize(part, pixel_size) for part in polygon.geoms])
    # The box is a second opinion: on small buildings a few stairs can outvote the walls. The better overlap decides.
    angles = [dominant_direction(polygon, pixel_size), _box_direction(polygon)]
    candidates = [fitted for angle in angles for fitted in _fit(polygon, angle, pixel_size)]
    scored = [(overlap(fitted, polygon), fitted) for fitted in candidates]
    best, fitted = max(scored, key=lambda pair: pair[0], default=(0.0, polygon))
    return fitted if best >= MIN_IOU else polygon


def overlap(one: shapely.Geometry, other: shapely.Geometry) -> float:
    """Return the intersection over union of two polygons' areas."""
    common = one.intersection(other).area
    return float(common / (one.area + other.area - common))


def dominant_direction(polygon: shapely.Polygon, pixel_size: float) -> float:
    """Find the direction of the walls in degrees from -45 to 45, by the votes of all edges modulo 90°."""
    steps = np.diff(_without_stairs(polygon.exterior, pixel_size), axis=0)
    # The mean of angles on a circle: at four times their angle, walls along and across point the same way.
    votes = np.hypot(*steps.T) * np.exp(4j * np.arctan2(steps[:, 1], steps[:, 0]))
    return math.degrees(float(np.angle(votes.sum()))) / 4


def _box_direction(polygon: shapely.Polygon) -> float:
    """Find the direction of the smallest rectangle around the polygon, from -45 to 45 degrees."""
    (x0, y0), (x1, y1) = shapely.get_coordinates(shapely.oriented_envelope(polygon))[:2]
    return (math.degrees(math.atan2(y1 - y0, x1 - x0)) + 45) % 90 - 45


def _without_stairs(ring: shapely.LinearRing, pixel_size: float) -> Points:
    """Return the points of a ring that are left when pixels' stairs are simplified away, ``(n, 2)``, first = last."""
    points: Points = shapely.get_coordinates(shapely.simplify(ring, _STAIR_PIXELS * pixel_size))
    return points


def _fit(polygon: shapely.Polygon, angle: float, pixel_size: float) -> Iterator[shapely.Polygon]:
    """Fit walls in one direction; yield at most one polygon, none where walls do not close to a valid one."""
    turned = rotate(polygon, -angle, origin=(0, 0))
    shell = _square_ring(turned.exterior, pixel_size)
    if shell is None:
        return
    holes = [_square_ring(ring, pixel_size) or ring for ring in turned.interiors]
    # Squared holes may touch the squared shell; then the holes as they were may still fit.
    for squared in (shapely.Polygon(shell, holes), shapely.Polygon(shell, turned.interiors)):
        if squared.is_valid:
            yield rotate(squared, angle, origin=(0, 0))
            return


def _square_ring(ring: shapely.LinearRing, pixel_size: float) -> shapely.LinearRing | None:
    """Square a ring whose walls run along the axes; return ``None`` where no simple ring results."""
    walls = _joined(_walls(_without_stairs(ring, pixel_size)))
    # The shortest wall goes first, and lengths are taken anew each time: removing it moves the walls on both sides.
    while len(walls) > 4 and min(lengths := _lengths(walls)) < _WALL_PIXELS * pixel_size:
        walls = _without_wall(walls, lengths.index(min(lengths)))
    if len(walls) < 4:
        return None
    squared = shapely.LinearRing(_corners(walls))
    return squared if squared.is_valid and squared.is_simple else None


def _walls(points: Points) -> list[_Wall]:
    """Make every edge of a closed ring a wall along the axis that it is closer to."""
    walls = []
    for (x0, y0), (x1, y1) in zip(points[:-1].tolist(), points[1:].tolist(), strict=True):
        is_along_x = abs(x1 - x0) >= abs(y1 - y0)
        middle = (y0 + y1) / 2 if is_along_x else (x0 + x1) / 2
        walls.append(_Wall(is_along_x, middle, math.hypot(x1 - x0, y1 - y0)))
    return walls


def _joined(walls: list[_Wall]) -> list[_Wall]:
    """Merge walls that follow each other in one direction, so that directions alternate."""
    joined: list[_Wall] = []
    for wall in walls:
        if joined and joined[-1].is_along_x == wall.is_along_x:
            joined[-1].absorb(wall)
        else:
            joined.append(wall)
    if len(joined) > 1 and joined[0].is_along_x == joined[-1].is_along_x:  # across the point where the ring begins
        joined[0].absorb(joined.pop())
    return joined


def _lengths(walls: list[_Wall]) -> list[float]:
    """Measure every wall: it reaches from the wall before to the wall after it."""
    return [abs(walls[(i + 1) % len(walls)].offset - walls[i - 1].offset) for i in range(len(walls))]


def _without_wall(walls: list[_Wall], position: int) -> list[_Wall]:
    """Remove the wall at ``position``, and merge those before and after it, which have the same direction."""
    turned = walls[position + 1 :] + walls[:position]
    turned[0].absorb(turned.pop())
    return turned


def _corners(walls: list[_Wall]) -> list[tuple[float, float]]:
    """Intersect every wall with the one before it."""
    corners = []
    for i, wall in enumerate(walls):
        other = walls[i - 1]
        corners.append((other.offset, wall.offset) if wall.is_along_x else (wall.offset, other.offset))
    return corners
