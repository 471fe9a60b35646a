"""Buildings along the streets of a generated land, and trees around them, in meters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import shapely

from geoglnet.synthetic.appearance import Appearance, Covering, RoofStyle
from geoglnet.synthetic.land import Land, Parcel


class Form(Enum):
    """Shape of a roof."""

    GABLE = "gable"
    HIP = "hip"
    LEAN_TO = "lean_to"
    FLAT = "flat"


@dataclass(frozen=True, slots=True)
class Roof:
    """A rectangular roof around (x, y): ``length`` along the ridge, whose direction is ``angle``."""

    x: float
    y: float
    length: float
    width: float
    angle: float
    form: Form
    style: RoofStyle
    eaves: float
    slope: float = 0.0

    @property
    def shape(self) -> shapely.Polygon:
        """Outline from above."""
        along = np.array([math.cos(self.angle), math.sin(self.angle)]) * self.length / 2
        across = np.array([-math.sin(self.angle), math.cos(self.angle)]) * self.width / 2
        return shapely.Polygon(
            np.array((self.x, self.y)) + np.array([along + across, along - across, -along - across, across - along])
        )


@dataclass(frozen=True, slots=True)
class Building:
    """Roofs that belong together."""

    roofs: tuple[Roof, ...]
    shape: shapely.Polygon


@dataclass(frozen=True, slots=True)
class Tree:
    """A round crown; ``in_forest`` where it belongs to a closed canopy."""

    x: float
    y: float
    radius: float
    height: float
    in_forest: bool = False


def plan_buildings(rng: np.random.Generator, land: Land, look: Appearance) -> list[Building]:
    """Plan houses along the edges of village parcels, sheds behind them, and a few farmsteads."""
    buildings: list[Building] = []
    for parcel in land.parcels:
        if parcel.use == "ground":
            buildings += _settle(rng, parcel, look)
        elif parcel.use != "forest" and rng.random() < 0.14:
            buildings += _farmstead(rng, parcel, look)
    return buildings


def plan_trees(rng: np.random.Generator, land: Land, buildings: Sequence[Building], look: Appearance) -> list[Tree]:
    """Plan closed forests, hedges along fields, and trees in gardens and pastures; none stands in a house or on a road."""
    trees = [tree for parcel in land.parcels for tree in _grow(rng, parcel, look)]
    blocked = [b.shape for b in buildings] + [road.shape for road in land.roads] + list(land.water)
    index = shapely.STRtree(blocked)
    points = shapely.points([(tree.x, tree.y) for tree in trees]) if trees else np.empty(0, object)
    # The trunk keeps about half a radius away; the rest of a crown may hang over roofs and roads.
    near, _ = index.query(points, predicate="dwithin", distance=[0.55 * tree.radius for tree in trees] if trees else 0.0)
    hit = set(near.tolist())
    return [tree for i, tree in enumerate(trees) if i not in hit]


def _settle(rng: np.random.Generator, parcel: Parcel, look: Appearance) -> list[Building]:
    """Build on a parcel of a village: houses along its edge first, then sheds and houses inside where there is room."""
    plots = parcel.shape.buffer(-1.2)  # meters between a building and the parcel's edge
    taken: list[Building] = []
    for x, y, angle in _iter_frontage(rng, parcel.shape, setback=rng.uniform(4.5, 8)):
        if rng.random() < look.building_density:
            _try_to_build(taken, _house(rng, look, x, y, angle), plots)
    low_x, low_y, high_x, high_y = parcel.shape.bounds
    for _ in range(int(parcel.shape.area / 90 * look.building_density)):
        x, y = rng.uniform(low_x, high_x), rng.uniform(low_y, high_y)
        make = _shed if rng.random() < 0.6 else _house
        _try_to_build(taken, make(rng, look, x, y, parcel.angle + rng.normal(0, 0.08)), plots)
    return taken


def _farmstead(rng: np.random.Generator, parcel: Parcel, look: Appearance) -> list[Building]:
    """Build a few houses and sheds, sometimes around a hall, in the middle of a parcel."""
    plots, taken = parcel.shape.buffer(-3), list[Building]()
    if plots.is_empty:
        return taken
    middle = plots.representative_point()
    if rng.random() < 0.35:
        _try_to_build(taken, _hall(rng, look, middle.x, middle.y, parcel.angle), plots)
    for _ in range(int(rng.integers(2, 7))):
        x, y = rng.normal((middle.x, middle.y), 14)
        make = _shed if rng.random() < 0.4 else _house
        _try_to_build(taken, make(rng, look, x, y, parcel.angle + rng.normal(0, 0.1)), plots)
    return taken


def _try_to_build(taken: list[Building], building: Building, plots: shapely.Geometry) -> None:
    """Add a building if it stands on the plots and 0.8 m from all others."""
    if plots.contains(building.shape) and all(building.shape.distance(other.shape) > 0.8 for other in taken):
        taken.append(building)


def _iter_frontage(rng: np.random.Generator, shape: shapely.Polygon, setback: float) -> Iterator[tuple[float, float, float]]:
    """Yield places along the edge of a parcel, with the edge's direction."""
    for line in shapely.get_parts(shapely.get_exterior_ring(shapely.get_parts(shape.buffer(-setback)))):
        at = rng.uniform(0, 8)
        while at < line.length - 4:
            here, next_to = line.interpolate(at), line.interpolate(at + 0.5)
            yield here.x, here.y, math.atan2(next_to.y - here.y, next_to.x - here.x) + rng.normal(0, 0.03)
            at += rng.uniform(9, 19)


def _house(rng: np.random.Generator, look: Appearance, x: float, y: float, angle: float) -> Building:
    """Draw a house, a third of them with a wing, a quarter with the gable to the street."""
    style = look.roofs[int(rng.integers(len(look.roofs)))]
    width = rng.uniform(5.5, 10.5)
    length = width * rng.uniform(1.05, 1.8)
    if rng.random() < 0.25:
        angle += math.pi / 2
    roof = _roof(rng, (x, y), (length, width), angle, style)
    roofs = [roof]
    if rng.random() < 0.35:
        roofs.append(_wing(rng, roof))
    return _building(roofs)


def _wing(rng: np.random.Generator, roof: Roof) -> Roof:
    """Draw a second roof at right angles, at one end of the first."""
    end = rng.choice((-1, 1)) * (roof.length / 2 - roof.width * 0.35)
    reach, width = roof.width * rng.uniform(1.2, 1.7), roof.width * rng.uniform(0.55, 0.75)
    aside = rng.choice((-1, 1)) * (reach - roof.width) / 2
    cos, sin = math.cos(roof.angle), math.sin(roof.angle)
    place = (roof.x + end * cos - aside * sin, roof.y + end * sin + aside * cos)
    eaves = roof.eaves + (rng.uniform(-0.8, 3) if roof.form is Form.FLAT else -0.2)
    return Roof(*place, reach, width, roof.angle + math.pi / 2, roof.form, roof.style, eaves, roof.slope)


def _shed(rng: np.random.Generator, look: Appearance, x: float, y: float, angle: float) -> Building:
    """Draw a shed with a flat or lean-to roof."""
    style = look.roofs[int(rng.integers(len(look.roofs)))]
    width = rng.uniform(2.4, 4.5)
    form = Form.FLAT if style.covering is Covering.CONCRETE else Form.LEAN_TO
    length = width * rng.uniform(1, 1.8)
    return _building([Roof(x, y, length, width, angle, form, style, rng.uniform(2, 2.8), math.tan(rng.uniform(0.1, 0.2)))])


def _hall(rng: np.random.Generator, look: Appearance, x: float, y: float, angle: float) -> Building:
    """Draw a large hall with a metal roof."""
    metal = [style for style in look.roofs if style.covering is Covering.METAL] or list(look.roofs)
    size = (rng.uniform(22, 44), rng.uniform(11, 20))
    style = metal[int(rng.integers(len(metal)))]
    return _building([Roof(x, y, *size, angle, Form.GABLE, style, rng.uniform(4, 6), math.tan(rng.uniform(0.12, 0.25)))])


def _roof(
    rng: np.random.Generator, place: tuple[float, float], size: tuple[float, float], angle: float, style: RoofStyle
) -> Roof:
    """Draw the form of a house's roof: flat if it is concrete, in whole stories."""
    if style.covering is Covering.CONCRETE:
        return Roof(*place, *size, angle, Form.FLAT, style, rng.choice((3.2, 3.4, 6.4, 9.4)))
    form = (Form.GABLE, Form.HIP, Form.LEAN_TO)[int(rng.choice(3, p=(0.55, 0.33, 0.12)))]
    degrees = rng.uniform(4, 9) if form is Form.LEAN_TO else rng.uniform(14, 32)
    return Roof(
        *place, *size, angle, form, style, rng.uniform(2.5, 3.4) + 2.8 * (rng.random() < 0.15), math.tan(math.radians(degrees))
    )


def _building(roofs: list[Roof]) -> Building:
    """Unite roofs to a building."""
    return Building(tuple(roofs), shapely.union_all([roof.shape for roof in roofs]))


def _grow(rng: np.random.Generator, parcel: Parcel, look: Appearance) -> Iterator[Tree]:
    """Yield the trees of a parcel by its use."""
    if parcel.use == "forest":
        yield from _forest(rng, parcel.shape)
        return
    per_m2 = {"ground": 1 / 210, "grass": 1 / 650, "field": 1 / 9000, "bare": 1 / 3000}[parcel.use] * look.tree_density
    low_x, low_y, high_x, high_y = parcel.shape.bounds
    clumps = rng.uniform((low_x, low_y), (high_x, high_y), (4, 2))
    # A Poisson process over the bounding box, of which two fifths gather in clumps; those outside of the parcel are dropped.
    for _ in range(rng.poisson((high_x - low_x) * (high_y - low_y) * per_m2)):
        x, y = rng.uniform((low_x, low_y), (high_x, high_y))
        if rng.random() < 0.4:
            x, y = clumps[rng.integers(4)] + rng.normal(0, 5, 2)
        if parcel.shape.contains(shapely.Point(x, y)):
            yield _tree(rng, x, y, float(np.clip(rng.lognormal(0.75, 0.45), 0.9, 5.5)))
    if parcel.use in ("field", "grass") and rng.random() < 0.3 * look.tree_density:
        yield from _hedge(rng, parcel.shape)


def _hedge(rng: np.random.Generator, shape: shapely.Polygon) -> Iterator[Tree]:
    """Yield small trees along a part of a parcel's edge."""
    line, at = shape.exterior, rng.uniform(0, 40)
    end = at + line.length * rng.uniform(0.2, 0.7)
    while at < end:
        point = line.interpolate(at % line.length)
        x, y = rng.normal((point.x, point.y), 0.6)
        yield _tree(rng, x, y, rng.uniform(1, 2.6))
        at += rng.uniform(1.6, 5)


def _forest(rng: np.random.Generator, shape: shapely.Polygon) -> Iterator[Tree]:
    """Yield touching crowns on a jittered triangular lattice."""
    spacing = rng.uniform(3.8, 5.6)
    low_x, low_y, high_x, high_y = shape.bounds
    rows = np.arange(low_y, high_y, spacing * 0.87)  # half the root of 3: equilateral triangles
    grid = [(x + (i % 2) * spacing / 2, y) for i, y in enumerate(rows) for x in np.arange(low_x, high_x, spacing)]
    points = np.array(grid or np.empty((0, 2))) + rng.normal(0, spacing * 0.22, (len(grid), 2))
    inside = shapely.contains_xy(shape, points)
    for x, y in points[inside & (rng.random(len(points)) < 0.96)]:
        yield _tree(rng, x, y, spacing * rng.uniform(0.48, 0.85), in_forest=True)


def _tree(rng: np.random.Generator, x: float, y: float, radius: float, *, in_forest: bool = False) -> Tree:
    """Draw the height of a tree by its radius; forest trees grow taller."""
    height = radius * rng.uniform(1.4, 2.2) + (4 if in_forest else 0.8)
    return Tree(float(x), float(y), radius, height, in_forest)
