"""Generates a scene: plans a land, puts buildings and trees on it, paints it from above, and labels it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

from geoglnet.errors import ConfigError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.synthetic.appearance import draw_appearance
from geoglnet.synthetic.canvas import Canvas, cast_shadows, photograph
from geoglnet.synthetic.land import Cover, Land, plan_land
from geoglnet.synthetic.painting import burn, paint_buildings, paint_clutter, paint_land, paint_trees
from geoglnet.synthetic.standing import Building, Tree, plan_buildings, plan_trees
from geoglnet.types import Shape

DEFAULT_SHAPE = Shape(2560, 3072)
DEFAULT_PIXEL_SIZE_M = 0.25
MIN_SIDE_M = 60.0
UTM_36S = CRS.from_epsg(32736)
ORIGIN = (612_000.0, 9_312_000.0)

GENERATED_LEGEND = Legend(
    names=("grass", "ground", "bare", "field", "forest", "water", "road", "tree", "building"),
    colors=(
        (170, 200, 120),
        (220, 200, 170),
        (235, 225, 205),
        (230, 210, 90),
        (30, 110, 50),
        (70, 130, 200),
        (90, 90, 90),
        (80, 160, 70),
        (220, 60, 50),
    ),
)
"""Classes of a generated scene, from the lowest layer to the highest; "ground" is the trodden land of villages."""

LANDCOVER_OF = {
    "grass": "rangeland",
    "ground": "urban",
    "bare": "barren",
    "field": "agriculture",
    "forest": "forest",
    "water": "water",
    "road": "urban",
    "building": "urban",
}
"""DeepGlobe's land cover of each class. A lone "tree" has none: there it counts as what it stands on."""


@dataclass(frozen=True, slots=True)
class TruePolygon:
    """A true outline in CRS coordinates; the polygons of a scene do not overlap."""

    class_name: str
    geometry: shapely.Polygon


@dataclass(frozen=True, slots=True)
class GeneratedScene:
    """A generated scene with its truth.

    Args:
        image: ``(3, H, W)`` uint8.
        labels: ``(H, W)`` uint8, values of :data:`GENERATED_LEGEND`.
        height: ``(H, W)`` float32 meters above the ground, of roofs, crowns and walls.
        polygons: true outlines in CRS coordinates.
        transform: pixel to CRS coordinates.
        crs: a UTM zone.
    """

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    height: npt.NDArray[np.float32]
    polygons: tuple[TruePolygon, ...]
    transform: Affine
    crs: CRS


def generate_scene(shape: Shape = DEFAULT_SHAPE, seed: int = 0, pixel_size_m: float = DEFAULT_PIXEL_SIZE_M) -> GeneratedScene:
    """Generate a village with its fields, woods and water as seen from above; equal seeds give equal scenes.

    Sun, season, soil, roofs, density and camera are drawn from the seed. Memory: about 60 bytes per pixel.

    Args:
        shape: size in pixels.
        seed: seed of everything that is drawn.
        pixel_size_m: ground size of a pixel.

    Raises:
        ConfigError: the scene would be less than 60 m wide or high.
    """
    width, height = shape.width * pixel_size_m, shape.height * pixel_size_m
    if min(width, height) < MIN_SIDE_M:
        raise ConfigError(f"a generated scene of {width:g} × {height:g} m is too small; make it {MIN_SIDE_M:g} m at least")
    # One generator for everything: the order of the calls below is part of the scene.
    rng = np.random.default_rng(seed)
    look = draw_appearance(rng)
    land = plan_land(rng, width, height)
    buildings = plan_buildings(rng, land, look)
    trees = plan_trees(rng, land, buildings, look)
    canvas = Canvas.blank(rng, shape, pixel_size_m)
    paint_land(canvas, rng, land, look)
    paint_clutter(canvas, rng, land, look)
    paint_buildings(canvas, rng, buildings, look)
    paint_trees(canvas, rng, trees, look)
    cast_shadows(canvas, look)  # after everything has its height
    image = photograph(canvas, look, rng)
    layers = list(_iter_truth(land, buildings, trees, shapely.box(0, 0, width, height)))
    transform = Affine.translation(*ORIGIN) @ Affine.scale(pixel_size_m, -pixel_size_m)
    labels = burn(((g, GENERATED_LEGEND.value_of(name)) for name, g in layers), shape, pixel_size_m).astype(np.uint8)
    return GeneratedScene(image, labels, canvas.height, tuple(_placed(layers)), transform, UTM_36S)


def landcover_labels(labels: npt.NDArray[np.uint8], legend: Legend) -> npt.NDArray[np.uint8]:
    """Translate the labels of a generated scene to a land-cover legend with the names of :data:`LANDCOVER_OF`.

    Args:
        labels: ``(h, w)`` uint8, values of :data:`GENERATED_LEGEND`.
        legend: legend of the land cover.

    Returns:
        ``(h, w)`` uint8, values of ``legend``.

    Raises:
        LegendError: the legend lacks one of the names.
    """
    table = np.full(256, NO_CLASS, np.uint8)
    for name, cover in LANDCOVER_OF.items():
        table[GENERATED_LEGEND.value_of(name)] = legend.value_of(cover)
    # A lone tree becomes what it stands on: the class of the nearest pixel that is not a tree.
    is_tree = labels == GENERATED_LEGEND.value_of("tree")
    nearest = ndimage.distance_transform_edt(is_tree, return_distances=False, return_indices=True)
    return np.asarray(table[labels[tuple(nearest)]])


def _iter_truth(
    land: Land, buildings: Sequence[Building], trees: Sequence[Tree], extent: shapely.Polygon
) -> Iterator[tuple[str, shapely.Geometry]]:
    """Yield class names and visible shapes in meters, from the highest layer down, none over another."""
    crowns = shapely.buffer(
        # Trees of a forest belong to its parcel.
        shapely.points([(t.x, t.y) for t in trees if not t.in_forest] or np.empty((0, 2))),
        np.array([t.radius for t in trees if not t.in_forest]),
        quad_segs=3,
    )
    pieces = {"road": [road.shape for road in land.roads]}  # a whole network would be near to everything
    layers: dict[str, list[shapely.Geometry]] = {
        "building": [b.shape for b in buildings],
        # Crowns that touch are one polygon, as tracing could not part them either.
        "tree": list(shapely.get_parts(shapely.union_all(crowns))),
        "road": list(shapely.get_parts(shapely.union_all(pieces["road"]))),
        "water": list(land.water),
        **{use: [p.shape for p in land.parcels if p.use == use] for use in ("forest", "field", "bare", "ground", "grass")},
    }
    # Each layer is cut by everything above it, so that polygons and labels agree on what the camera sees.
    above: list[shapely.Geometry] = []
    for name, shapes in layers.items():
        cover = Cover(above)
        for shape in shapes:
            for geometry in shapely.get_parts(cover.cut_from(shape & extent)):
                if isinstance(geometry, shapely.Polygon) and geometry.area > 0.5:  # m²; smaller ones are slivers of the cuts
                    yield name, geometry
        above += pieces.get(name, shapes)


def _placed(layers: Sequence[tuple[str, shapely.Geometry]]) -> Iterator[TruePolygon]:
    """Move shapes to CRS coordinates.

    They are snapped to a grid of 1/1024 m first, which CRS coordinates represent exactly: rounding after the move would make
    some rings touch themselves.
    """
    for name, geometry in layers:
        for part in shapely.get_parts(shapely.set_precision(geometry, 1 / 1024)):
            # y points down in the plan, and north in the CRS.
            yield TruePolygon(name, shapely.transform(part, lambda points: points * (1, -1) + ORIGIN))
