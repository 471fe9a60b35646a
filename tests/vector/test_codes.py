"""Codes of any integer type: the polygons are GDAL's, whatever the type, tile size, connectivity, mask and nodata value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.features import shapes

from geoglnet.errors import ConfigError, SceneError
from geoglnet.progress import RecordedProgress
from geoglnet.vector.pieces import TracingRules
from geoglnet.vector.polygonizer import vectorize
from geoglnet.vector.settings import VectorConfig
from geoglnet.vector.tiles import ArrayTiles
from geoglnet.vector.values import RasterValues
from tests.rasters import write_raster
from tests.tracing import geometries_of, rows_of

TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
ALL = RasterValues(background="none")


def ends_of(dtype: str) -> list[int]:
    """The smallest and largest values of a type, of 64 bits those that fit 32."""
    return [max(int(np.iinfo(dtype).min), -(2**31)), min(int(np.iinfo(dtype).max), 2**32 - 1)]


def random_codes(dtype: str, seed: int, shape: tuple[int, int] = (23, 31)) -> np.ndarray:
    """Few values at both ends of a type and around 0 and 255, in areas of some pixels."""
    low, high = ends_of(dtype)
    values = sorted({low, low + 1, 0, 1, min(255, high), high - 1, high})
    small = np.random.default_rng(seed).choice(values, shape).astype(dtype)
    return small.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]


def canonical(geometries: Any, codes: Any) -> list[tuple[bytes, int]]:
    return sorted((shapely.normalize(g).wkb, int(code)) for g, code in zip(geometries, codes, strict=True))


def parts_of(geometries: Any, codes: Any) -> list[tuple[bytes, int]]:
    parts, index = shapely.get_parts(np.asarray(geometries), return_index=True)
    return canonical(parts, np.asarray(codes)[index])


def gdals(values: np.ndarray, mask: np.ndarray | None, connectivity: int) -> list[tuple[bytes, int]]:
    """GDAL's polygons: it reads 8 to 32 bits; larger types are brought to numbers that it reads, without changing equality."""
    known, numbers = np.unique(values, return_inverse=True)
    found = shapes(numbers.astype(np.int32), mask=mask, connectivity=connectivity)
    pairs = [(shapely.geometry.shape(g), known[int(number)]) for g, number in found]
    return canonical([g for g, _ in pairs], [code for _, code in pairs])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("nodata", ["none", "lowest", "highest"])
def test_polygons_of_every_type_are_those_of_gdal(tmp_path: Path, dtype: str, nodata: str) -> None:
    values = random_codes(dtype, 1)
    declared = {"none": None, "lowest": ends_of(dtype)[0], "highest": ends_of(dtype)[1]}[nodata]
    path = write_raster(tmp_path / "codes.tif", values[None], crs=None, nodata=declared)
    for tile_size in (7, 64):
        config = VectorConfig(tile_size=tile_size)
        vectorize(path, tmp_path / "out.gpkg", values=ALL, config=config, overwrite=True)
        frame = geopandas.read_file(tmp_path / "out.gpkg", layer="out")
        upright = shapely.transform(frame.geometry.values, lambda points: points * [1, -1] + 0.0)
        is_valid = None if declared is None else values != np.array(declared, dtype)
        assert canonical(upright, frame.class_id) == gdals(values, is_valid, 4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.sampled_from([4, 8]), st.booleans())
def test_codes_that_cross_many_tiles_are_joined_as_in_one(seed: int, tile_size: int, connectivity: int, reshapes: bool) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.choice(np.array([-(2**31), -1, 255, 70_000, 2**32 - 1]), (12, 14)).repeat(2, axis=0)
    rules = TracingRules(connectivity=connectivity, tolerance=0.5 if reshapes else 0.0)
    tiled, whole = (rows_of(ArrayTiles(codes), rules, tile_size=size) for size in (tile_size, 100))
    assert sorted(tiled.class_id) == sorted(whole.class_id)
    assert shapely.area(geometries_of(tiled)).sum() == pytest.approx(codes.size)
    if not reshapes:
        assert parts_of(geometries_of(tiled), tiled.class_id) == parts_of(geometries_of(whole), whole.class_id)
    if not reshapes and connectivity == 4:
        assert canonical(geometries_of(tiled), tiled.class_id) == gdals(codes, None, 4)


@pytest.mark.parametrize("rules", [{}, {"tolerance": 1.5}, {"connectivity": 8}, {"smooth": True}])
def test_codes_and_bytes_go_through_one_kernel(rules: dict[str, Any]) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (40, 50)).astype(np.uint8).repeat(2, axis=0)
    labels[10:20, 10:20] = 255
    codes = np.where(labels == 255, -(2**40), labels.astype(np.int64))
    one, other = (rows_of(ArrayTiles(found), TracingRules(**rules), tile_size=32) for found in (labels, codes))
    assert one.wkb.equals(other.wkb)
    assert one.class_id.tolist() == other.class_id.tolist()


def test_a_mask_an_alpha_band_and_a_code_to_leave_out_make_no_polygons(tmp_path: Path) -> None:
    codes = np.array([[300, 300, 7], [9022, 9022, 7]], np.uint16)
    valid = np.array([[True, True, True], [False, False, True]])
    masked = write_raster(tmp_path / "masked.tif", codes[None], valid=valid)
    alpha = write_raster(tmp_path / "alpha.tif", codes[None], alpha=valid * np.uint16(65535))
    for path in (masked, alpha):
        vectorize(path, tmp_path / "out.gpkg", values=RasterValues(background=7), overwrite=True)
        assert geopandas.read_file(tmp_path / "out.gpkg", layer="out").class_id.tolist() == [300]


def test_codes_keep_their_numbers_in_the_file(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "codes.tif", np.array([[[1, 2**32 - 1]]], np.uint32))
    vectorize(path, tmp_path / "out.gpkg")
    frame = geopandas.read_file(tmp_path / "out.gpkg", layer="out")
    assert (frame.class_id.tolist(), frame.class_name.tolist()) == ([1, 2**32 - 1], ["class 1", "class 4294967295"])


@pytest.mark.parametrize("options", [{"sieve": "9px"}, {"opening": 1}, {"fill_holes": True}])
@pytest.mark.parametrize("nodata", [None, 255])
def test_cleaning_treats_codes_as_it_treats_labels(tmp_path: Path, options: dict[str, Any], nodata: int | None) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (30, 40)).astype(np.uint8).repeat(4, axis=0).repeat(3, axis=1)
    labels[rng.random(labels.shape) < 0.05] = 2
    labels[:20, :20] = 250
    bytes_path = write_raster(tmp_path / "bytes.tif", labels[None], nodata=nodata)
    wide = np.where(labels > 0, labels.astype(np.int32) + 70_000, 0)
    wide_path = write_raster(tmp_path / "wide.tif", wide[None], nodata=70_255 if nodata else None)
    frames = []
    for path in (bytes_path, wide_path):
        vectorize(path, tmp_path / "out.gpkg", config=VectorConfig(tile_size=64, **options), overwrite=True)
        frames.append(geopandas.read_file(tmp_path / "out.gpkg", layer="out"))
    one, other = frames
    assert canonical(one.geometry, one.class_id + 70_000) == canonical(other.geometry, other.class_id)


@pytest.mark.slow
def test_workers_see_the_same_codes(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "codes.tif", random_codes("int32", 5, (90, 80))[None])
    frames = []
    for workers in (1, 2):
        vectorize(path, tmp_path / f"{workers}.gpkg", config=VectorConfig(tile_size=40, workers=workers))
        frames.append(geopandas.read_file(tmp_path / f"{workers}.gpkg", layer=str(workers)))
    assert frames[0].equals(frames[1])


def test_a_float_raster_says_which_setting_reads_it(tmp_path: Path) -> None:
    whole = write_raster(tmp_path / "whole.tif", np.array([[[1, 2.0]]], np.float32))
    parts = write_raster(tmp_path / "parts.tif", np.array([[[1, 2.5]]], np.float32))
    with pytest.raises(SceneError, match=r"whole numbers \(1, 2\): read them as codes with whole_numbers=True, or .* breaks"):
        vectorize(whole, tmp_path / "out.gpkg")
    with pytest.raises(SceneError, match="labels are integers; make classes of them with breaks"):
        vectorize(parts, tmp_path / "out.gpkg")
    assert vectorize(whole, tmp_path / "out.gpkg", values=RasterValues(whole_numbers=True)) == 2
    with pytest.raises(SceneError, match=r"holds the value 2.5 at column 1, row 0, which is not whole"):
        vectorize(parts, tmp_path / "other.gpkg", values=RasterValues(whole_numbers=True))


def test_a_raster_without_any_valid_pixel_gives_no_polygons(tmp_path: Path) -> None:
    progress = RecordedProgress()
    path = write_raster(tmp_path / "none.tif", np.full((1, 9, 9), -7, np.int16), nodata=-7)
    assert vectorize(path, tmp_path / "out.gpkg", progress=progress) == 0
    assert "values (none) become classes" in progress.messages("log")[0]


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"breaks": (1, 1)}, "must rise"),
        ({"breaks": (2, 1)}, "must rise"),
        ({"breaks": (0, float("nan"))}, "finite"),
        ({"breaks": range(300)}, "too many"),
        ({"argmax": True, "breaks": (1,)}, "choose one"),
        ({"argmax": True, "band": 2}, "leave it out"),
        ({"instances": True, "breaks": (1,)}, "choose one"),
        ({"parts": True}, "instances=True"),
        ({"class_of": Path("a.tif")}, "instances=True"),
        ({"band": 0}, "from 1"),
        ({"background": "nothing"}, "'none'"),
    ],
)
def test_settings_that_exclude_each_other_are_one_line(settings_: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        RasterValues(**settings_)
    assert "\n" not in str(caught.value)
