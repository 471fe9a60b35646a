"""Painters of land, roofs and crowns on a canvas, each lit by the scene's sun."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import rasterize

from geoglnet.synthetic.appearance import Appearance, Covering, Rgb, jittered
from geoglnet.synthetic.canvas import Canvas, Slices, lit
from geoglnet.synthetic.land import Land, Parcel
from geoglnet.synthetic.noise import Field
from geoglnet.synthetic.standing import Building, Form, Roof, Tree
from geoglnet.types import Shape

Colors: TypeAlias = npt.NDArray[np.floating[Any]]
STRIP_SIZE = 256  # rows painted at once where a painter covers the whole canvas


def burn(shapes: Iterable[tuple[shapely.Geometry, int]], shape: Shape, pixel_size: float) -> npt.NDArray[np.uint16]:
    """Rasterize shapes in meters; later ones cover earlier ones, and 0 stands where there is none.

    Args:
        shapes: shapes with their values.
        shape: size in pixels.
        pixel_size: in meters.

    Returns:
        ``(h, w)`` uint16.
    """
    pairs = [(geometry, value) for geometry, value in shapes if not geometry.is_empty]
    if not pairs:
        return np.zeros(shape, np.uint16)
    return np.asarray(rasterize(pairs, out_shape=tuple(shape), transform=Affine.scale(pixel_size), dtype="uint16"))


def paint_land(canvas: Canvas, rng: np.random.Generator, land: Land, look: Appearance) -> None:
    """Paint parcels, then water, then roads (which bridge it)."""
    places = burn(((p.shape.buffer(0.4), i) for i, p in enumerate(land.parcels, start=1)), canvas.shape, canvas.pixel_size)
    # Meadow everywhere first, so that gaps between parcels look natural.
    for top in range(0, canvas.shape.height, STRIP_SIZE):
        strip = (slice(top, top + STRIP_SIZE), slice(None))
        canvas.image[strip] = _meadow(canvas, strip, look, wet=0.1)
    for index, parcel in enumerate(land.parcels, start=1):
        _paint_parcel(canvas, rng, parcel, places, index, look)
    _paint_water(canvas, land, look)
    _paint_roads(canvas, rng, land, look)


def _paint_parcel(
    canvas: Canvas, rng: np.random.Generator, parcel: Parcel, places: npt.NDArray[np.uint16], index: int, look: Appearance
) -> None:
    """Paint one parcel by its use."""
    low_x, low_y, high_x, high_y = parcel.shape.bounds
    radius = max(high_x - low_x, high_y - low_y) / 2 + 1
    place = canvas.around((low_x + high_x) / 2, (low_y + high_y) / 2, radius)
    if place is None:
        return
    if parcel.use == "field":
        colors = _crop(canvas, rng, place, parcel.angle, look)
    elif parcel.use == "forest":
        colors = _meadow(canvas, place, look, wet=0.8) * np.float32(0.62)
    elif parcel.use == "grass":
        colors = _meadow(canvas, place, look, wet=rng.normal(0, 0.5))
    else:
        colors = _trodden(canvas, place, look, grassy=rng.normal(0.1, 0.35) if parcel.use == "ground" else -1.2)
    inside = places[place] == index
    canvas.image[place][inside] = colors[inside]


def _meadow(canvas: Canvas, place: Slices, look: Appearance, wet: float) -> Colors:
    """Color grass, lush where it is wet, with bare patches where it is dry."""
    broad, fine, grain = canvas.broad[place], canvas.fine[place], canvas.grain[place]
    lushness = np.clip(0.5 + 0.35 * wet + 0.32 * broad + 0.16 * fine, 0, 1)
    colors = _mixed(look.dry, look.lush, lushness)
    bare = np.clip((-broad - 1.0 + 0.4 * fine - 0.3 * wet) * 1.5, 0, 0.8)
    return _toward(colors, look.soil, bare) * _texture(fine, grain, 0.13, 0.12)


def _trodden(canvas: Canvas, place: Slices, look: Appearance, grassy: float) -> Colors:
    """Color bare ground, with some grass."""
    broad, fine, grain = canvas.broad[place], canvas.fine[place], canvas.grain[place]
    grass = np.clip(0.3 + grassy + 0.55 * broad + 0.3 * fine, 0, 1)
    return _toward(_mixed(look.soil, look.lush, grass), look.dry, 0.3 * grass) * _texture(fine, grain, 0.09, 0.08)


def _crop(canvas: Canvas, rng: np.random.Generator, place: Slices, angle: float, look: Appearance) -> Colors:
    """Color rows of a crop over soil, with growth that varies and the tracks of a tractor."""
    x, y = canvas.coordinates(place)
    across = x * math.cos(angle) + y * math.sin(angle)
    broad, fine, grain = canvas.broad[place], canvas.fine[place], canvas.grain[place]
    # Rows closer than two pixels would alias to a pattern that no field has.
    spacing, contrast = max(rng.uniform(0.7, 2.6), 2.2 * canvas.pixel_size), rng.uniform(0.05, 0.4)
    rows = np.sin(2 * math.pi * (across / spacing + 0.08 * fine))
    cover = np.clip(rng.uniform(0.35, 1.1) + contrast * rows + 0.18 * broad + 0.12 * fine, 0, 1)
    crop = jittered(rng, look.crops[int(rng.integers(len(look.crops)))], 9)
    colors = _mixed(jittered(rng, look.soil, 10), crop, cover) * _texture(fine, grain, 0.08, 0.1)
    if rng.random() < 0.5:
        track = (np.abs(across % rng.uniform(9, 18) - 1) < 0.35)[..., None]
        colors *= 1 - np.float32(0.16) * track
    return colors


def _paint_water(canvas: Canvas, land: Land, look: Appearance) -> None:
    """Paint water, and wet soil along a ragged shore."""
    shore = burn(((shape.buffer(2.2), 1) for shape in land.water), canvas.shape, canvas.pixel_size) == 1
    water = burn(((shape, 1) for shape in land.water), canvas.shape, canvas.pixel_size) == 1
    shore &= canvas.fine + 0.6 * canvas.broad > -0.5
    wet_soil = np.asarray(look.soil, np.float32) * np.float32(0.8)
    canvas.image[shore] = wet_soil * _texture(canvas.fine[shore], canvas.grain[shore], 0.08, 0.04)
    ripple = 1 + 0.04 * canvas.broad[water] + 0.015 * canvas.fine[water] + 0.012 * canvas.grain[water]
    canvas.image[water] = np.asarray(look.water, np.float32) * ripple[:, None]


def _paint_roads(canvas: Canvas, rng: np.random.Generator, land: Land, look: Appearance) -> None:
    """Paint dirt roads, then paved ones over them, each with verges and worn tracks; some paved ones have markings."""
    for is_paved in (False, True):
        roads = [road for road in land.roads if road.is_paved is is_paved]
        surface = look.asphalt if is_paved else tuple(min(245.0, 1.08 * c + 6) for c in look.soil)
        verge = burn(((road.shape.buffer(0.7), 1) for road in roads), canvas.shape, canvas.pixel_size) == 1
        ragged = verge & (canvas.fine + 0.4 * canvas.broad > 0.1)
        canvas.image[ragged] = np.asarray(look.soil) * _texture(canvas.fine[ragged], canvas.grain[ragged], 0.07, 0.04)
        inside = burn(((road.shape, 1) for road in roads), canvas.shape, canvas.pixel_size) == 1
        canvas.image[inside] = np.asarray(surface) * _texture(canvas.fine[inside], canvas.grain[inside], 0.035, 0.03)
        tracks = (road.center.buffer(0.27 * road.width + 0.35) - road.center.buffer(0.27 * road.width - 0.35) for road in roads)
        worn = burn(((track, 1) for track in tracks), canvas.shape, canvas.pixel_size) == 1
        canvas.image[worn & inside] *= 0.95 if is_paved else 1.07
    marked = [r for r in land.roads if r.is_paved and r.width > 6.5 and rng.random() < 0.5]
    lines = burn(((road.center.buffer(0.08), 1) for road in marked), canvas.shape, canvas.pixel_size) == 1
    canvas.image[lines] = canvas.image[lines] * 0.6 + 80


def paint_clutter(canvas: Canvas, rng: np.random.Generator, land: Land, look: Appearance) -> None:
    """Paint walls around some yards, and small things in them: bushes, heaps, boards, washing."""
    yards = [parcel for parcel in land.parcels if parcel.use == "ground"]
    walled = [yard.shape.buffer(-0.4).boundary.buffer(0.13) for yard in yards if rng.random() < 0.35]
    gates = shapely.union_all([shapely.Point(rng.uniform(y.shape.bounds[:2], y.shape.bounds[2:])).buffer(9) for y in yards])
    walls = burn(((wall - gates, 1) for wall in walled), canvas.shape, canvas.pixel_size) == 1
    canvas.image[walls] = np.asarray((168, 160, 150), np.float32) * _texture(canvas.fine[walls], canvas.grain[walls], 0.1, 0.05)
    canvas.height[walls] = 1.5
    heaps = ((168, 160, 150), (70, 66, 60), (214, 212, 206), look.lush, look.crowns[0], look.crowns[-1], look.dry)
    for yard in yards:
        places = rng.uniform(yard.shape.bounds[:2], yard.shape.bounds[2:], (rng.poisson(yard.shape.area / 40), 2))
        for place in places[shapely.contains_xy(yard.shape, places)]:
            _drop(canvas, place, rng.uniform((0.2, 0.2), (0.9, 0.9)), heaps[int(rng.integers(len(heaps)))])


def _drop(canvas: Canvas, at: npt.NDArray[np.float64], size: npt.NDArray[np.float64], color: Rgb) -> None:
    """Paint one small thing: an ellipse with a ragged edge, half a meter high."""
    if (place := canvas.around(at[0], at[1], float(size.max()) + 0.3)) is None:
        return
    x, y = canvas.coordinates(place)
    inside = np.square((x - at[0]) / size[0]) + np.square((y - at[1]) / size[1]) < 1 + 0.3 * canvas.fine[place]
    canvas.image[place][inside] = np.asarray(color, np.float32) * (1 + 0.1 * canvas.grain[place][inside])[:, None]
    canvas.height[place][inside] = 0.5


def paint_buildings(canvas: Canvas, rng: np.random.Generator, buildings: Sequence[Building], look: Appearance) -> None:
    """Paint roofs, low ones first, each with the wear of its covering."""
    for building in buildings:
        # Once per building: a wing has the covering of its house.
        color = jittered(rng, building.roofs[0].style.color, 7)
        for roof in sorted(building.roofs, key=lambda roof: roof.eaves):
            _paint_roof(canvas, rng, roof, color, look)


def _paint_roof(canvas: Canvas, rng: np.random.Generator, roof: Roof, color: Rgb, look: Appearance) -> None:
    """Paint one roof where it is higher than what is painted already."""
    place = canvas.around(roof.x, roof.y, math.hypot(roof.length, roof.width) / 2 + 1)
    if place is None:
        return
    x, y = canvas.coordinates(place)
    cos, sin = math.cos(roof.angle), math.sin(roof.angle)
    along = (x - roof.x) * cos + (y - roof.y) * sin
    across = (y - roof.y) * cos - (x - roof.x) * sin
    # Coordinates and slopes in the roof's own directions; the light needs slopes along x and y again.
    rise, slope_along, slope_across = _relief(roof, along, across)
    height = roof.eaves + rise
    inside = (np.abs(along) <= roof.length / 2) & (np.abs(across) <= roof.width / 2) & (height > canvas.height[place])
    shade = lit(look, slope_along * cos - slope_across * sin, slope_along * sin + slope_across * cos)
    if roof.style.covering is Covering.METAL:
        shade = shade + 0.25 * np.maximum(shade - 1, 0)  # metal shines where it faces the sun
    colors = _covering(canvas, rng, roof, color, place, along, across) * shade[..., None]
    canvas.image[place][inside] = np.minimum(colors, 250)[inside]
    canvas.height[place][inside] = height[inside]
    if roof.form is Form.FLAT:
        _furnish(canvas, rng, roof)


def _relief(roof: Roof, along: Field, across: Field) -> tuple[Field, Field, Field]:
    """Compute the height above the eaves, and its slopes along and across the ridge."""
    from_side, from_end = roof.width / 2 - np.abs(across), roof.length / 2 - np.abs(along)
    flat = np.zeros_like(across)
    if roof.form is Form.FLAT:
        parapet = np.minimum(from_side, from_end) < 0.35
        return np.where(parapet, np.float32(0.5), flat), flat, flat
    if roof.form is Form.LEAN_TO:
        return (across + roof.width / 2) * roof.slope, flat, flat + np.float32(roof.slope)
    side_slope = -np.sign(across) * np.float32(roof.slope)
    if roof.form is Form.GABLE:
        return from_side * roof.slope, flat, side_slope
    is_end = from_end < from_side
    slope_along = np.where(is_end, -np.sign(along) * np.float32(roof.slope), 0)
    return np.minimum(from_side, from_end) * roof.slope, slope_along, np.where(is_end, 0, side_slope)


def _covering(
    canvas: Canvas, rng: np.random.Generator, roof: Roof, color: Rgb, place: Slices, along: Field, across: Field
) -> Colors:
    """Color a roof by its material."""
    fine, grain = canvas.fine[place], canvas.grain[place]
    base: Colors = np.asarray(color, np.float32)
    if roof.style.covering is Covering.METAL:
        return _sheets(canvas, rng, roof, base, along, across) * _texture(fine, grain, 0.025, 0.02)
    if roof.style.covering is Covering.TILE:
        # Courses of tiles, widened like rows of crops where they would alias.
        rows: Field = 1 + 0.05 * np.sin(2 * math.pi * across / max(0.45, 2.3 * canvas.pixel_size))
        return base * rows[..., None] * _texture(fine, grain, 0.06, 0.06)
    if roof.style.covering is Covering.THATCH:
        return base * _texture(fine, grain, 0.12, 0.09)
    rim = np.minimum(roof.width / 2 - np.abs(across), roof.length / 2 - np.abs(along)) < 0.35
    return base * (1 + 0.12 * rim)[..., None] * _texture(fine, grain, 0.08, 0.025)


def _sheets(canvas: Canvas, rng: np.random.Generator, roof: Roof, base: Colors, along: Field, across: Field) -> Colors:
    """Color corrugated sheets, each a little different, some rusty or replaced, with a ridge cap."""
    size_along, size_across = 0.85, rng.uniform(1.8, 3.2)
    column = np.clip((along + roof.length / 2) / size_along, 0, None).astype(np.intp)
    row = np.clip((across + roof.width / 2) / size_across, 0, None).astype(np.intp)
    grid = (int(column.max()) + 1, int(row.max()) + 1)
    tone = 1 + rng.normal(0, 0.05, grid).astype(np.float32)
    rusty = rng.random(grid) < roof.style.rust * rng.uniform(0.2, 1.6)
    rust = np.where(rusty, rng.uniform(0.25, 0.9, grid), 0).astype(np.float32)[column, row]
    period = max(0.76, 2.6 * canvas.pixel_size)  # ribs, widened where they would alias
    ribs = 1 + np.float32(rng.uniform(0.015, 0.05)) * np.sin(2 * math.pi * along / period)
    cap = 1 + 0.08 * (np.abs(across) < 0.22) * (roof.form is not Form.LEAN_TO)
    return _toward(base * (tone[column, row] * ribs * cap)[..., None], (128, 84, 62), rust)


def _furnish(canvas: Canvas, rng: np.random.Generator, roof: Roof) -> None:
    """Paint tanks and boxes on a flat roof."""
    for _ in range(int(rng.integers(0, 5))):
        reach = rng.uniform(-0.38, 0.38, 2) * (roof.length, roof.width)
        x = roof.x + reach[0] * math.cos(roof.angle) - reach[1] * math.sin(roof.angle)
        y = roof.y + reach[0] * math.sin(roof.angle) + reach[1] * math.cos(roof.angle)
        radius = rng.uniform(0.35, 0.8)
        if (place := canvas.around(x, y, radius + 1)) is None:
            continue
        px, py = canvas.coordinates(place)
        inside = np.hypot(px - x, py - y) <= radius
        canvas.image[place][inside] = ((40, 42, 44), (214, 216, 214), (60, 96, 150), (120, 116, 110))[int(rng.integers(4))]
        canvas.height[place][inside] = roof.eaves + rng.uniform(0.6, 1.5)


def paint_trees(canvas: Canvas, rng: np.random.Generator, trees: Sequence[Tree], look: Appearance) -> None:
    """Paint crowns, low ones first: lumpy domes with leaves that reflect the light."""
    for tree in sorted(trees, key=lambda tree: tree.height):
        _paint_crown(canvas, rng, tree, look)


def _paint_crown(canvas: Canvas, rng: np.random.Generator, tree: Tree, look: Appearance) -> None:
    """Paint one crown: a hemisphere with an outline of three harmonics, ragged by leaves."""
    place = canvas.around(tree.x, tree.y, tree.radius * 1.3)
    if place is None:
        return
    x, y = canvas.coordinates(place)
    right, down = (x - tree.x) / tree.radius, (y - tree.y) / tree.radius
    lumps = rng.normal(0, 0.07, 3)
    turn = np.arctan2(down, right)
    rim = 1 + sum(
        lump * np.sin(k * turn + phase) for lump, k, phase in zip(lumps, (2, 3, 5), rng.uniform(0, 6, 3), strict=True)
    )
    distance = np.hypot(right, down) / rim + 0.1 * canvas.fine[place] + 0.05 * canvas.grain[place]
    inside = distance < 1
    dome = np.sqrt(np.clip(1 - distance**2, 0.06, 1))  # not 0 at the rim, where the slope would be infinite
    steepness = 0.55 / dome
    leaves = 0.4 * canvas.fine[place] + 0.45 * canvas.grain[place]
    shade = lit(look, -right * steepness + 0.5 * leaves, -down * steepness - 0.5 * leaves) * (0.82 + 0.2 * dome)
    color = np.asarray(jittered(rng, look.crowns[int(rng.integers(len(look.crowns)))], 7), np.float32)
    colors = color * (shade * (1 + 0.3 * leaves))[..., None]
    canvas.image[place][inside] = colors[inside]
    crown = tree.height * (0.55 + 0.45 * dome)
    canvas.height[place][inside] = np.maximum(canvas.height[place], crown)[inside]


def _mixed(first: Rgb, second: Rgb, share: Field) -> Colors:
    """Mix two colors by the share of the second at every pixel."""
    one, other = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return one + share[..., None] * (other - one)


def _toward(colors: Colors, color: Rgb, share: Field) -> Colors:
    """Mix a color into an image by its share at every pixel."""
    return colors + share[..., None] * (np.asarray(color, np.float32) - colors)


def _texture(fine: Field, grain: Field, fine_amount: float, grain_amount: float) -> Colors:
    """Compute a factor of brightness around 1 from the canvas's noises."""
    return np.asarray(1 + np.float32(fine_amount) * fine + np.float32(grain_amount) * grain)[..., None]
