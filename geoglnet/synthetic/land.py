"""Plan of a generated land: roads, parcels and water, as shapes in meters (x right, y down).

A square is divided recursively into cells, then rotated and bent; dividing lines become roads, cells become parcels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Road:
    """A road: its surface ``shape`` and its axis ``center``. Small roads end at the water."""

    shape: shapely.Geometry
    center: shapely.Geometry
    width: float
    is_paved: bool


@dataclass(frozen=True, slots=True)
class Parcel:
    """A piece of land of one use (a class name); ``angle`` is the direction of its rows."""

    shape: shapely.Polygon
    use: str
    angle: float


@dataclass(frozen=True, slots=True)
class Land:
    """Everything flat: roads, parcels and water."""

    roads: tuple[Road, ...]
    parcels: tuple[Parcel, ...]
    water: tuple[shapely.Polygon, ...]


class Cover:
    """Many shapes that are cut out of others, with an index, so that only those nearby are united."""

    def __init__(self, shapes: Sequence[shapely.Geometry]) -> None:
        self._shapes = np.array(shapes, dtype=object)
        self._index = shapely.STRtree(self._shapes)

    def cut_from(self, shape: shapely.Geometry) -> shapely.Geometry:
        """Return what is left of a shape."""
        near = self._shapes[self._index.query(shape, predicate="intersects")]
        return shape - shapely.union_all(near) if len(near) else shape


@dataclass(frozen=True, slots=True)
class _Village:
    """A disk of the land, of a village or a wood."""

    center: Points
    radius: float

    def holds(self, point: Points) -> bool:
        """Return whether a point is inside."""
        return bool(np.hypot(*(point - self.center)) < self.radius)


@dataclass(slots=True)
class _Survey:
    """Recursive division of a square into cells, and the lines that divide them, with the depth of each."""

    rng: np.random.Generator
    villages: tuple[_Village, ...]
    frame: _Frame
    cells: list[Points] = field(default_factory=list)
    borders: list[tuple[int, Points]] = field(default_factory=list)

    def divide(self, low: Points, high: Points, depth: int = 0) -> None:
        """Divide the rectangle between two corners until its parts are parcels; villages have small ones."""
        middle = self.frame.placed((low + high)[None] / 2)[0]
        target = 62.0 if self.is_village(middle) else self.rng.uniform(60, 170)
        axis = int(np.argmax(high - low))
        if (high - low)[axis] < target:
            self.cells.append(np.array([low, (high[0], low[1]), high, (low[0], high[1])]))
            return
        cut = low[axis] + (high - low)[axis] * self.rng.uniform(0.38, 0.62)
        first_high, second_low = high.copy(), low.copy()
        first_high[axis] = second_low[axis] = cut
        self.borders.append((depth, np.array([second_low, first_high])))
        self.divide(low, first_high, depth + 1)
        self.divide(second_low, high, depth + 1)

    def is_village(self, point: Points) -> bool:
        """Return whether a point of the land is in a village."""
        return any(village.holds(point) for village in self.villages)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Transformation from the divided square to the land: a rotation about the middle, then a bend by two long waves."""

    middle: Points
    angle: float
    waves: Points  # (2, 5): wave number x, y, phase, shift x, y

    def placed(self, points: Points) -> Points:
        """Transform ``(n, 2)`` points of the square to the land."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turned: Points = points @ np.array([[cos, sin], [-sin, cos]]) + self.middle
        bent = turned.copy()
        for kx, ky, phase, dx, dy in self.waves:
            bent += np.sin(turned @ (kx, ky) + phase)[:, None] * (dx, dy)
        return bent


def plan_land(rng: np.random.Generator, width: float, height: float) -> Land:
    """Plan roads, parcels and water of a land of ``width`` × ``height`` meters."""
    extent = shapely.box(0, 0, width, height)
    frame = _draw_frame(rng, width, height)
    survey = _Survey(rng, _draw_villages(rng, frame, width, height), frame)
    # The square must cover the land however it is rotated, hence the diagonal, with room for the bends.
    half = np.full(2, 0.55 * math.hypot(width, height) + 30)
    survey.divide(-half, half)
    water = _draw_water(rng, width, height, survey.villages)
    roads = tuple(road for road in _iter_roads(rng, survey, shapely.union_all(water)) if road.shape.intersects(extent))
    occupied = Cover([road.shape for road in roads] + list(water))
    return Land(roads, tuple(_iter_parcels(rng, survey, extent, occupied)), tuple(_parts(shapely.union_all(water) & extent)))


def _draw_frame(rng: np.random.Generator, width: float, height: float) -> _Frame:
    """Draw the rotation and the waves of a land."""
    waves = []
    for _ in range(2):
        direction, length = rng.uniform(0, 2 * math.pi), rng.uniform(220, 480)
        wave_number, amplitude = 2 * math.pi / length, rng.uniform(3, 9)
        across = direction + math.pi / 2  # transverse waves bend lines without squeezing the cells
        waves.append(
            (
                wave_number * math.cos(direction),
                wave_number * math.sin(direction),
                rng.uniform(0, 2 * math.pi),
                amplitude * math.cos(across),
                amplitude * math.sin(across),
            )
        )
    return _Frame(np.array([width / 2, height / 2]), rng.uniform(0, math.pi), np.array(waves))


def _draw_villages(rng: np.random.Generator, frame: _Frame, width: float, height: float) -> tuple[_Village, ...]:
    """Draw a large village near the middle, and up to two small ones anywhere."""
    size = min(width, height)
    center = frame.placed(rng.uniform(-0.15, 0.15, (1, 2)) * size)[0]
    villages = [_Village(center, rng.uniform(0.28, 0.42) * size)]
    for _ in range(int(rng.integers(0, 3))):
        villages.append(_Village(rng.uniform(0, 1, 2) * (width, height), rng.uniform(0.08, 0.16) * size))
    return tuple(villages)


def _iter_roads(rng: np.random.Generator, survey: _Survey, water: shapely.Geometry) -> Iterator[Road]:
    """Yield the dividing lines that become roads: the earlier a line divides, the larger the road."""
    for depth, ends in survey.borders:
        in_village = survey.is_village(survey.frame.placed(ends.mean(axis=0, keepdims=True))[0])
        if (width := _road_width(rng, depth, in_village)) is None:
            continue
        # Points every 8 m, so that the road bends with the land.
        steps = np.linspace(0, 1, max(2, int(np.hypot(*(ends[1] - ends[0])) / 8)))[:, None]
        center = shapely.LineString(survey.frame.placed(ends[0] + steps * (ends[1] - ends[0])))
        is_paved = bool(rng.random() < (0.75 if depth < 2 else 0.3 if width > 4.5 else 0.05))
        has_bridge = depth < 3
        shape = center.buffer(width / 2, cap_style="flat")
        yield Road(shape if has_bridge else shape - water, center if has_bridge else center - water, width, is_paved)


def _road_width(rng: np.random.Generator, depth: int, in_village: bool) -> float | None:
    """Draw the width of a road in meters; ``None`` where the line becomes none."""
    if depth < 2:
        return float(rng.uniform(6.5, 9))
    if depth < 4:
        return float(rng.uniform(4.2, 6))
    if in_village:
        return float(rng.uniform(2.6, 4.4)) if rng.random() < 0.8 else None
    return float(rng.uniform(2, 3)) if rng.random() < 0.25 else None


def _iter_parcels(rng: np.random.Generator, survey: _Survey, extent: shapely.Polygon, occupied: Cover) -> Iterator[Parcel]:
    """Yield the cells with a use, less roads and water."""
    low, high = np.array(extent.bounds[:2]), np.array(extent.bounds[2:])
    woods = [_Village(rng.uniform(low, high), rng.uniform(50, 150)) for _ in range(int(rng.integers(1, 4)))]
    uses, weights = ("field", "grass", "bare", "forest"), rng.dirichlet((6, 2.2, 0.8, 1))
    for corners in survey.cells:
        # Edges get points every 8 m, so that they bend with the land.
        ring = survey.frame.placed(np.asarray(shapely.segmentize(shapely.LinearRing(corners), 8).coords))
        middle = ring[:-1].mean(axis=0)
        use = str(rng.choice(uses, p=weights))
        if survey.is_village(middle):
            use = "ground"
        elif any(wood.holds(middle) for wood in woods):
            use = "forest"
        # buffer(0) mends rings that the bend has made cross themselves.
        for shape in _parts(occupied.cut_from(shapely.Polygon(ring).buffer(0) & extent)):
            yield Parcel(shape, use, survey.frame.angle + float(rng.choice((0, math.pi / 2))))


def _draw_water(rng: np.random.Generator, width: float, height: float, villages: tuple[_Village, ...]) -> list[shapely.Polygon]:
    """Draw a river past the villages in half of the scenes, and one or two ponds."""
    water = []
    if rng.random() < 0.5:
        side, away = rng.uniform(0, 2 * math.pi), villages[0].radius * rng.uniform(0.9, 1.1)
        across = np.array([math.cos(side), math.sin(side)])
        steps = np.linspace(-1, 1, 80)[:, None] * math.hypot(width, height)
        bends = 14 * np.sin(steps / 50 + rng.uniform(0, 6)) + 6 * np.sin(steps / 21 + rng.uniform(0, 6))
        axis = villages[0].center + across * (away + 20 + bends) + steps * np.array([-across[1], across[0]])
        water.append(shapely.LineString(axis).buffer(rng.uniform(4, 12)))
    for _ in range(int(rng.integers(1, 3))):
        water.append(_pond(rng, rng.uniform(0.08, 0.92, 2) * (width, height), rng.uniform(10, 0.05 * min(width, height) + 12)))
    return water


def _pond(rng: np.random.Generator, center: Points, radius: float) -> shapely.Polygon:
    """Draw a pond: a circle, deformed by three harmonics and stretched."""
    angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    radii = np.full(72, radius)
    for k in (2, 3, 5):
        radii += radius * rng.normal(0, 0.22 / k) * np.sin(k * angles + rng.uniform(0, 6))
    stretch = np.array([rng.uniform(0.7, 1.4), 1.0])
    return shapely.Polygon(center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1) * stretch).buffer(0)


def _parts(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    """List the polygons of any geometry, without slivers."""
    polygons = [part for part in shapely.get_parts(geometry) if isinstance(part, shapely.Polygon)]
    return [polygon for polygon in polygons if polygon.area > 4]
