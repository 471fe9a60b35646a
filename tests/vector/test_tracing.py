"""Tile-wise tracing equals tracing the whole raster at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine

from geoglnet.errors import BandsError, ConfigError, SceneError
from geoglnet.types import Shape
from geoglnet.vector.pieces import TracingRules, trace_tile
from geoglnet.vector.rings import Rings
from geoglnet.vector.rows import PolygonRecords
from geoglnet.vector.seams import Seams
from geoglnet.vector.tiles import ArrayTiles, DatasetTiles
from geoglnet.vector.tracing import label_components, trace_components
from geoglnet.windows import iter_cores
from tests.tracing import geometries_of, rows_of

SKEWED = Affine(0.3, 0.01, 431234.567, 0.02, -0.3, 4612345.678)
UTM = Affine(0.5, 0, 300000, 0, -0.5, 4600000)

sides = st.integers(1, 14)
small_labels = arrays(np.uint8, st.tuples(sides, sides), elements=st.sampled_from([0, 1, 2, 255]))
blocky_labels = small_labels.map(lambda labels: labels.repeat(2, axis=0).repeat(3, axis=1))


def canonical(rows: PolygonRecords) -> list[tuple[bytes, int]]:
    """Polygons in an order and with ring starts that do not depend on how they were traced."""
    return in_order(geometries_of(rows), rows.class_id)


def in_order(geometries: Any, class_ids: Any) -> list[tuple[bytes, int]]:
    return sorted((shapely.normalize(g).wkb, int(c)) for g, c in zip(geometries, class_ids, strict=True))


def whole_raster(labels: np.ndarray, values: tuple[int, ...], transform: Affine) -> list[tuple[bytes, int]]:
    traced = shapes(labels, mask=np.isin(labels, values), connectivity=4, transform=transform)
    geometries, class_ids = zip(*((shapely.geometry.shape(g), v) for g, v in traced), strict=True) if values else ((), ())
    return in_order(geometries, class_ids)


@settings(max_examples=100, deadline=None)
@given(st.one_of(small_labels, blocky_labels), st.integers(3, 17), st.sampled_from([Affine.identity(), UTM, SKEWED]))
def test_tiled_tracing_equals_tracing_the_whole_raster(labels: np.ndarray, tile_size: int, transform: Affine) -> None:
    found = rows_of(ArrayTiles(labels), TracingRules((0, 2)), transform, tile_size)
    wanted = whole_raster(labels, (0, 2), transform) if np.isin(labels, (0, 2)).any() else []
    assert canonical(found) == wanted


def test_a_corner_at_which_two_pieces_of_a_tile_touch_is_linked_anew_when_they_are_one_component() -> None:
    labels = np.zeros((6, 6), dtype=np.uint8)
    labels[[0, 1, 2, 3, 3, 3, 2, 1, 0], [2, 1, 1, 1, 2, 3, 3, 3, 3]] = 1
    assert len(trace_components(label_components(labels[:3, :3]).ids)) == 4  # the touching pieces are two of them
    found = rows_of(ArrayTiles(labels), TracingRules((1,)), Affine.identity(), 3)
    (polygon,) = geometries_of(found)
    assert len(polygon.interiors) == 1
    assert canonical(found) == whole_raster(labels, (1,), Affine.identity())


@settings(max_examples=30, deadline=None)
@given(small_labels, st.integers(2, 9))
def test_polygons_are_valid_and_rasterize_back_to_the_labels(labels: np.ndarray, tile_size: int) -> None:
    found = rows_of(ArrayTiles(labels), TracingRules((0, 1, 2)), Affine.identity(), tile_size)
    assert shapely.is_valid(geometries_of(found)).all()
    burned = np.full(labels.shape, 255, dtype=np.uint8)
    if len(found):
        rasterize(zip(geometries_of(found), found.class_id, strict=True), out=burned)
    np.testing.assert_array_equal(burned, labels)


@settings(max_examples=30, deadline=None)
@given(small_labels, st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_confidence_is_that_of_the_pixels_inside(labels: np.ndarray, tile_size: int, seed: int) -> None:
    confidence = np.random.default_rng(seed).choice(np.array([0, 7, 254, 255], dtype=np.uint8), labels.shape)
    found = rows_of(ArrayTiles(labels, confidence), TracingRules((0, 1)), Affine.identity(), tile_size)
    for geometry, mean in zip(geometries_of(found), found.confidence, strict=True):
        inside = confidence[rasterize([geometry], out_shape=labels.shape) == 1].astype(float)
        known = inside[inside != 255]
        np.testing.assert_allclose(mean, known.mean() / 254 if len(known) else np.nan)


@settings(max_examples=30, deadline=None)
@given(small_labels)
def test_tiles_of_one_pixel_give_the_same_polygons_as_one_tile(labels: np.ndarray) -> None:
    one = rows_of(ArrayTiles(labels), TracingRules((0, 1, 2)), UTM, 1)
    whole = rows_of(ArrayTiles(labels), TracingRules((0, 1, 2)), UTM, 1000)
    assert canonical(one) == canonical(whole)


@settings(max_examples=30, deadline=None)
@given(small_labels)
def test_outlines_with_junctions_form_a_valid_coverage(labels: np.ndarray) -> None:
    ids = label_components(labels).ids
    shared = trace_components(ids, junctions=True).polygons()
    assert shapely.coverage_is_valid(shared)
    assert shapely.equals(shared, trace_components(ids).polygons()).all()


def test_a_hole_that_touches_the_shell_at_a_corner_is_a_hole() -> None:
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=np.uint8)
    (polygon,) = trace_components(label_components(np.where(labels == 1, labels, 255).astype(np.uint8)).ids).polygons()
    assert polygon.is_valid
    assert len(polygon.interiors) == 1
    assert polygon.area == 7


def test_pixels_that_touch_at_a_corner_are_two_polygons() -> None:
    found = rows_of(ArrayTiles(np.eye(2, dtype=np.uint8)), TracingRules((1,)), UTM, 1)
    assert len(found) == 2


def test_a_spiral_across_many_tiles_is_one_polygon() -> None:
    labels = np.zeros((21, 21), dtype=np.uint8)
    row, col, step, length = 0, 0, (0, 1), 20
    labels[0, 0] = 1
    for turn in range(18):
        for _ in range(length):
            row, col = row + step[0], col + step[1]
            labels[row, col] = 1
        step = (step[1], -step[0])
        length -= 2 * (turn % 2 and turn > 0)
    found = rows_of(ArrayTiles(labels), TracingRules((1,)), UTM, 4)
    assert len(found) == 1
    assert canonical(found) == whole_raster(labels, (1,), UTM)


def test_no_piece_is_held_when_all_tiles_are_done() -> None:
    labels = ArrayTiles(np.random.default_rng(0).integers(0, 2, (40, 40), dtype=np.uint8))
    seams, most = Seams(Shape(40, 40)), 0
    for window in iter_cores(Shape(40, 40), 8, margin=0):
        seams.join(trace_tile(labels, window, TracingRules((0, 1)))[1])
        most = max(most, seams.num_open_pieces)
    assert seams.num_open_pieces == 0
    assert most < 200


def test_straight_points_go_and_corners_stay() -> None:
    polygon = shapely.Polygon(
        [(1, 0), (2, 0), (2, 2), (0, 2), (0, 1), (0, 0)], [[(0.5, 0.5), (1, 0.5), (1.5, 0.5), (1.5, 1), (0.5, 1)]]
    )
    (cleaned,) = Rings.from_polygons(np.array([polygon], dtype=object)).without_straight_points().polygons()
    assert shapely.get_num_coordinates(cleaned) == 10
    assert cleaned.equals(polygon)


def write_raster(path: Path, values: np.ndarray, **profile: Any) -> Path:
    bands = values if values.ndim == 3 else values[None]
    profile = {"crs": "EPSG:32645", "transform": UTM} | profile
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands.shape[0],
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=bands.dtype,
        **profile,
    ) as dst:
        dst.write(bands)
    return path


def test_an_open_raster_is_traced_in_its_crs(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 3, (30, 41), dtype=np.uint8)
    with rasterio.open(write_raster(tmp_path / "labels.tif", labels)) as src:
        found = rows_of(DatasetTiles(src), TracingRules((1, 2)), UTM, 16)
    assert canonical(found) == whole_raster(labels, (1, 2), UTM)
    assert np.isnan(found.confidence).all()


def test_nodata_of_any_value_and_type_makes_no_polygons(tmp_path: Path) -> None:
    labels = np.array([[1, -9999], [-9999, 2]], dtype=np.int16)
    with rasterio.open(write_raster(tmp_path / "labels.tif", labels, nodata=-9999)) as src:
        found = rows_of(DatasetTiles(src), TracingRules(range(255)))
    assert sorted(found.class_id) == [1, 2]


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (np.zeros((3, 4, 4), np.uint8), BandsError, "has 3 bands"),
        (np.zeros((4, 4), np.float32), SceneError, "holds float32 values"),
        (np.full((4, 4), 2**32, np.int64), SceneError, "holds the value 4294967296 at column 0, row 0"),
        (np.full((4, 4), -(2**31) - 1, np.int64), SceneError, "which does not fit 32 bits"),
        (np.full((4, 4), 2**63, np.uint64), SceneError, "holds the value 9223372036854775808"),
        (np.full((4, 4), 1 << 32, np.float64), SceneError, "whole_numbers"),
    ],
)
def test_rasters_that_are_not_labels_are_refused_in_one_line(
    tmp_path: Path, values: np.ndarray, error: type[Exception], words: str
) -> None:
    with rasterio.open(write_raster(tmp_path / "labels.tif", values)) as src, pytest.raises(error, match=words) as caught:
        rows_of(DatasetTiles(src), TracingRules((1,)))
    assert "\n" not in str(caught.value)


def test_a_confidence_raster_of_another_size_or_type_is_refused(tmp_path: Path) -> None:
    labels = write_raster(tmp_path / "labels.tif", np.zeros((4, 4), np.uint8))
    small = write_raster(tmp_path / "small.tif", np.zeros((3, 4), np.uint8))
    numbers = write_raster(tmp_path / "numbers.tif", np.zeros((4, 4), np.int16))
    with rasterio.open(labels) as src, rasterio.open(small) as other, pytest.raises(SceneError, match="4 × 3 px"):
        DatasetTiles(src, other)
    with rasterio.open(labels) as src, rasterio.open(numbers) as other, pytest.raises(SceneError, match="bands of int16"):
        DatasetTiles(src, other)


def test_a_truncated_raster_says_where(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (600, 600), dtype=np.uint8)
    path = write_raster(tmp_path / "labels.tif", noise, tiled=True, blockxsize=256, blockysize=256)
    path.write_bytes(path.read_bytes()[:-150_000])
    with rasterio.open(path) as src, pytest.raises(SceneError, match="256 × 88 px at column 0, row 512"):
        rows_of(DatasetTiles(src), TracingRules((0, 1, 2)), UTM, 256)


def test_a_class_of_more_than_32_bits_is_refused() -> None:
    with pytest.raises(ConfigError, match="code 4294967296"):
        TracingRules((2**32,))
