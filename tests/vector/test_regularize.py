"""Buildings get straight walls and right angles where that fits them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes
from shapely.affinity import rotate, translate

from geoglnet.types import Shape
from geoglnet.vector.pieces import Polygons
from geoglnet.vector.reshaping import MIN_IOU, dominant_direction, overlap, regularize
from geoglnet.vector.rows import FinishingRules, finish

L_SHAPE = shapely.Polygon([(0, 0), (60, 0), (60, 25), (25, 25), (25, 60), (0, 60)])


def on_pixels(polygon: shapely.Polygon) -> shapely.Polygon:
    """The outline that a perfect model would find."""
    burned = rasterize([polygon], out_shape=(140, 140)).astype(np.uint8)
    outlines = [shapely.geometry.shape(outline) for outline, _ in shapes(burned, mask=burned == 1, connectivity=4)]
    return max(outlines, key=shapely.area)


def turned(polygon: shapely.Polygon, angle: float) -> shapely.Polygon:
    return translate(rotate(polygon, angle, origin="centroid"), 40, 40)


def angles(ring: shapely.LinearRing) -> np.ndarray:
    steps = np.diff(shapely.get_coordinates(ring), axis=0)
    directions = np.degrees(np.arctan2(steps[:, 1], steps[:, 0]))
    return np.diff(np.append(directions, directions[0])) % 180


@pytest.mark.parametrize("angle", [0, 7, 30, 45, 61, 88])
def test_a_building_on_pixels_gets_its_six_corners_back(angle: float) -> None:
    truth = turned(L_SHAPE, angle)
    regular = regularize(on_pixels(truth), 1.0)
    assert len(regular.exterior.coords) == 7
    np.testing.assert_allclose(angles(regular.exterior), 90, atol=1e-6)
    assert overlap(regular, truth) > 0.95


@settings(max_examples=30)
@given(st.floats(0, 90), st.floats(30, 60), st.floats(30, 60))
def test_the_direction_of_a_rectangle_is_found(angle: float, width: float, height: float) -> None:
    truth = translate(rotate(shapely.box(0, 0, width, height), angle), 45, 45)
    found = dominant_direction(on_pixels(truth), 1.0)
    assert abs((found - angle + 45) % 90 - 45) < 4


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(5, 130), st.floats(5, 130)), min_size=3, max_size=9))
def test_what_comes_back_is_valid_and_fits_or_is_the_original(corners: list[tuple[float, float]]) -> None:
    hull = shapely.MultiPoint(corners).convex_hull
    burned = rasterize([hull.buffer(2)], out_shape=(140, 140)).astype(np.uint8)
    for outline, _ in shapes(burned, mask=burned == 1, connectivity=4):
        polygon = shapely.geometry.shape(outline)
        regular = regularize(polygon, 1.0)
        assert regular.is_valid
        assert regular is polygon or overlap(regular, polygon) >= MIN_IOU


def test_holes_are_kept_and_squared_with_the_walls() -> None:
    court = shapely.box(8, 8, 20, 20)
    outline = on_pixels(turned(shapely.box(0, 0, 60, 50) - court, 20))
    regular = regularize(outline, 1.0)
    (hole,) = regular.interiors
    assert len(hole.coords) == 5
    assert shapely.Polygon(hole).area == pytest.approx(144, rel=0.15)


def test_a_shape_without_walls_stays_what_it_is() -> None:
    star = shapely.Polygon([(70 + r * math.cos(a), 70 + r * math.sin(a)) for a, r in _star()])
    outline = on_pixels(star)
    assert regularize(outline, 1.0) is outline


def _star() -> list[tuple[float, float]]:
    return [(math.pi * i / 7, 60.0 if i % 2 else 12.0) for i in range(14)]


def test_buildings_cut_by_the_raster_and_parts_of_others_stay() -> None:
    wobbly = on_pixels(turned(L_SHAPE, 30))
    at_border = shapely.box(0, 0, 30, 31)
    numbers = np.zeros(3, dtype=np.int64)
    polygons = Polygons(
        np.array([wobbly, at_border, wobbly], dtype=object),
        numbers.astype(np.uint8),
        np.ones((3, 3), np.int64),
        np.array([0, 0, 5]),
    )
    rules = FinishingRules(Affine.identity(), None, Shape(140, 140), regularize=True)
    first, second, third = shapely.from_wkb(finish(polygons, rules).wkb)
    assert len(first.exterior.coords) == 7
    assert second.equals(at_border)
    assert third.equals(wobbly)


def test_right_angles_are_right_on_the_ground_where_pixels_are_not_square() -> None:
    truth = turned(L_SHAPE, 30)
    squeezed = shapely.transform(truth, lambda points: points * [1.0, 0.6])
    outline = on_pixels(squeezed)
    polygons = Polygons(
        np.array([outline], dtype=object), np.zeros(1, np.uint8), np.ones((1, 3), np.int64), np.zeros(1, np.int64)
    )
    rules = FinishingRules(Affine.identity(), None, Shape(140, 140), (1.0, 1 / 0.6), regularize=True)
    (regular,) = shapely.from_wkb(finish(polygons, rules).wkb)
    on_ground = shapely.transform(regular, lambda points: points / [1.0, 0.6])
    np.testing.assert_allclose(angles(on_ground.exterior), 90, atol=1e-6)
