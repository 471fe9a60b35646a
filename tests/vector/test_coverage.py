"""Simplified and smoothed polygons share their borders; 8-connectivity; the vertex budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize, shapes
from scipy.ndimage import gaussian_filter

from geoglnet.types import Shape
from geoglnet.vector.pieces import Polygons, TracingRules, trace_tile
from geoglnet.vector.seams import Seams
from geoglnet.vector.tiles import ArrayTiles
from geoglnet.windows import iter_cores
from tests.tracing import geometries_of, iter_rows

CLASSES = (0, 1, 2)
sides = st.integers(1, 16)
full_labels = arrays(np.uint8, st.tuples(sides, sides), elements=st.sampled_from(CLASSES))
holed_labels = arrays(np.uint8, st.tuples(sides, sides), elements=st.sampled_from([*CLASSES, 255]))
tolerances = st.sampled_from([0.0, 0.8, 1.5, 4.0])


def smooth_labels(size: int, seed: int = 0, classes: int = 3, blur: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((size, size)), blur) for _ in range(classes)]
    return np.argmax(fields, axis=0).astype(np.uint8)


def traced(labels: np.ndarray, tile_size: int, max_vertices: int = 2_000_000, **rules: Any) -> tuple[Polygons, Seams]:
    source, tracing = ArrayTiles(labels), TracingRules(**({"values": CLASSES} | rules))
    seams = Seams(source.shape, tracing.connectivity, max_vertices, is_grid=not tracing.reshapes)
    found = []
    for window in iter_cores(source.shape, tile_size, margin=0):
        whole, open_tile = trace_tile(source, window, tracing)
        found += [whole, seams.join(open_tile)]
    return Polygons.concatenate(found), seams


@settings(max_examples=60)
@given(full_labels, st.integers(3, 18), tolerances, st.booleans())
def test_reshaped_neighbors_leave_no_gap_and_no_overlap(
    labels: np.ndarray, tile_size: int, tolerance: float, smooth: bool
) -> None:
    polygons, _ = traced(labels, tile_size, tolerance=tolerance or 1.0, smooth=smooth)
    assert shapely.is_valid(polygons.geometries).all()
    assert shapely.coverage_is_valid(polygons.geometries)
    assert shapely.area(polygons.geometries).sum() == pytest.approx(labels.size)
    assert shapely.union_all(polygons.geometries).equals(shapely.box(0, 0, *labels.shape[::-1]))


@settings(max_examples=40)
@given(holed_labels, st.integers(3, 18), st.booleans())
def test_reshaped_polygons_are_as_many_as_the_labels_have_and_of_the_same_pixels(
    labels: np.ndarray, tile_size: int, smooth: bool
) -> None:
    reshaped, _ = traced(labels, tile_size, tolerance=1.5, smooth=smooth)
    exact, _ = traced(labels, 100)
    assert sorted(zip(reshaped.class_id, reshaped.totals[:, 0], strict=True)) == sorted(
        zip(exact.class_id, exact.totals[:, 0], strict=True)
    )


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("tile_size", [37, 64])
def test_neighbors_across_tile_lines_share_all_their_vertices(tile_size: int, smooth: bool) -> None:
    labels = smooth_labels(192, seed=1, classes=5)
    polygons, _ = traced(labels, tile_size, values=range(5), tolerance=1.5, smooth=smooth)
    assert shapely.coverage_is_valid(polygons.geometries)
    assert shapely.area(polygons.geometries).sum() == pytest.approx(labels.size)


def test_tile_lines_cost_few_vertices_and_no_area() -> None:
    labels = smooth_labels(256)
    tiled, _ = traced(labels, 64, tolerance=1.5)
    whole, _ = traced(labels, 256, tolerance=1.5)
    exact, _ = traced(labels, 256)
    points = [int(shapely.get_num_coordinates(p.geometries).sum()) for p in (tiled, whole, exact)]
    assert points[0] < 1.1 * points[1] < 0.5 * points[2]
    assert shapely.area(tiled.geometries).sum() == pytest.approx(labels.size)


def test_simplified_borders_stay_within_about_the_tolerance() -> None:
    labels = smooth_labels(200)
    simplified, _ = traced(labels, 64, tolerance=2.0)
    borders = shapely.union_all(shapely.boundary(simplified.geometries))
    exact = shapely.union_all(shapely.boundary(traced(labels, 200)[0].geometries))
    assert shapely.hausdorff_distance(borders, exact) < 5
    assert shapely.get_coordinates(borders).max() <= 200


def test_no_edge_lies_on_a_tile_line_where_the_labels_do_not_change() -> None:
    labels, tile_size = smooth_labels(256, seed=4), 64
    for rules in ({"tolerance": 1.5}, {"tolerance": 1.5, "smooth": True}, {}):
        polygons, _ = traced(labels, tile_size, **rules)
        edges = [
            np.stack([p[:-1], p[1:]], axis=1) for p in map(shapely.get_coordinates, shapely.get_rings(polygons.geometries))
        ]
        start, end = np.concatenate(edges).transpose(1, 0, 2)
        for axis in (0, 1):
            on_line = (start[:, axis] == end[:, axis]) & (start[:, axis] % tile_size == 0)
            on_line &= (start[:, axis] > 0) & (start[:, axis] < 256)
            for a, b in zip(start[on_line], end[on_line], strict=True):
                low, high = sorted((a[1 - axis], b[1 - axis]))
                along = np.arange(int(low), int(np.ceil(high)))
                line = int(a[axis])
                pair = (
                    (labels[along, line - 1], labels[along, line])
                    if axis == 0
                    else (labels[line - 1, along], labels[line, along])
                )
                assert (pair[0] != pair[1]).all()


def test_smoothing_rounds_corners_and_keeps_where_three_classes_meet() -> None:
    labels = np.zeros((60, 60), dtype=np.uint8)
    labels[20:40, 20:40] = 1
    labels[30:, :] = np.where(labels[30:] == 0, 2, labels[30:])
    simplified, _ = traced(labels, 60, tolerance=1.0)
    smoothed, _ = traced(labels, 60, tolerance=1.0, smooth=True)
    one = smoothed.geometries[smoothed.class_id == 1][0]
    assert len(one.exterior.coords) > len(simplified.geometries[simplified.class_id == 1][0].exterior.coords)
    assert {(20.0, 30.0), (40.0, 30.0)} <= set(one.exterior.coords)
    assert not one.covers(shapely.Point(20.5, 20.5))


@settings(max_examples=60)
@given(holed_labels, st.integers(1, 18))
def test_eight_connected_polygons_equal_those_of_gdal(labels: np.ndarray, tile_size: int) -> None:
    found, _ = traced(labels, tile_size, connectivity=8)
    wanted = [(v, shapely.geometry.shape(g)) for g, v in shapes(labels, mask=labels != 255, connectivity=8)]
    pixels = sorted((int(v), float(shapely.make_valid(g).area)) for v, g in wanted)
    assert sorted(zip(found.class_id.tolist(), found.totals[:, 0].astype(float).tolist(), strict=True)) == pixels
    assert shapely.is_valid(found.geometries).all()
    np.testing.assert_array_equal(shapely.area(found.geometries), found.totals[:, 0])
    burned = np.full(labels.shape, 255, dtype=np.uint8)
    if len(found):
        rasterize(zip(found.geometries, found.class_id, strict=True), out=burned)
    np.testing.assert_array_equal(burned, labels)


@settings(max_examples=40)
@given(full_labels, st.integers(2, 7), st.integers(4, 60), st.sampled_from([4, 8]))
def test_cut_polygons_are_the_whole_ones_in_pieces(
    labels: np.ndarray, tile_size: int, max_vertices: int, connectivity: int
) -> None:
    found, seams = traced(labels, tile_size, max_vertices, connectivity=connectivity)
    whole, _ = traced(labels, 100, connectivity=connectivity)
    assert seams.num_open_pieces == seams.num_held_points == 0
    number = np.array([last(seams.same_parts, n) for n in found.part_of.tolist()], dtype=np.int64)
    joined = [shapely.union_all(found.geometries[number == n]) for n in np.unique(number[number > 0])]
    geometries = [*found.geometries[number == 0], *joined]
    assert canonical(geometries) == canonical(whole.geometries)
    assert found.totals[:, 0].sum() == labels.size
    np.testing.assert_array_equal(shapely.area(found.geometries), found.totals[:, 0])


def last(same_parts: dict[int, int], number: int) -> int:
    while number in same_parts:
        number = same_parts[number]
    return number


def canonical(geometries: Any) -> list[bytes]:
    """Shapes in an order of their own, without points on straight edges."""
    return sorted(shapely.normalize(shapely.simplify(g, 0)).wkb for g in geometries)


def test_what_is_held_stays_within_the_budget_and_few_numbers_are_kept() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (400, 400), dtype=np.uint8) // 2  # class 0 percolates
    source, rules = ArrayTiles(labels), TracingRules((0, 1))
    seams, most = Seams(Shape(400, 400), max_vertices=20_000), 0
    seams._many_keys = 500
    for window in iter_cores(source.shape, 40, margin=0):
        seams.join(trace_tile(source, window, rules)[1])
        most = max(most, seams.num_held_points)
        assert seams.num_open_pieces < 3000
    assert most <= 20_000
    assert seams.num_cut >= 1


def test_a_tile_without_any_of_the_classes_gives_nothing() -> None:
    whole, open_tile = trace_tile(
        ArrayTiles(np.full((5, 5), 9, dtype=np.uint8)),
        next(iter_cores(Shape(5, 5), 5, margin=0)),
        TracingRules((1,), tolerance=1),
    )
    assert len(whole) == len(open_tile) == 0


def test_polygons_keep_their_bits_whatever_the_transform() -> None:
    labels = smooth_labels(64)
    moved = Affine(0.5, 0, 300000, 0, -0.5, 4600000)
    for rows in iter_rows(ArrayTiles(labels), TracingRules(CLASSES, tolerance=1.5), moved, 20):
        points = shapely.get_coordinates(geometries_of(rows))
        assert (points * 2 == np.round(points * 2)).all()
