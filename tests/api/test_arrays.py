"""``geoglnet.vectorize`` of arrays: numpy's, masked ones, and xarray's, with or without a place."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine

import geoglnet
from geoglnet.errors import ConfigError
from geoglnet.raster.arrays import array_raster
from tests.rasters import UTM, write_raster

PLACE = Affine(2, 0, 500_000, 0, -2, 9_000_000)
CODES = np.kron(np.array([[111, -7, 0], [523, 523, 70_000]]), np.ones((4, 5), int)).astype(np.int32)


def shapes_of(layer: geoglnet.PolygonLayer) -> list[tuple[bytes, int]]:
    frame = layer.polygons()
    return sorted((shapely.normalize(g).wkb, int(c)) for g, c in zip(frame.geometry, frame.class_id, strict=True))


def test_an_array_gives_the_polygons_of_the_raster_that_holds_it(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "codes.tif", CODES[None], transform=PLACE)
    one = geoglnet.vectorize(path, tmp_path / "one.gpkg")
    other = geoglnet.vectorize(CODES, tmp_path / "other.gpkg", transform=PLACE, crs=UTM)
    assert shapes_of(one) == shapes_of(other)
    assert other.polygons().crs == UTM
    assert other.labels_path is None
    assert not list(Path(tempfile.gettempdir()).glob("geoglnet-*/array.tif"))


def test_masked_pixels_bools_and_half_floats_are_read(tmp_path: Path) -> None:
    masked = np.ma.masked_equal(CODES, 523)
    assert {code for _, code in shapes_of(geoglnet.vectorize(masked, tmp_path / "m.gpkg"))} == {111, -7, 70_000}
    assert [code for _, code in shapes_of(geoglnet.vectorize(CODES > 600, tmp_path / "b.gpkg"))] == [1]
    half = geoglnet.RasterValues(breaks=(0.5,))
    assert geoglnet.vectorize(np.float16(CODES > 600), tmp_path / "h.gpkg", values=half).num_polygons == 1
    stack = np.stack([CODES == 111, CODES != 111]).astype(np.float32)
    best = geoglnet.vectorize(stack, tmp_path / "s.gpkg", values=geoglnet.RasterValues(argmax=True))
    assert {code for _, code in shapes_of(best)} == {0, 1}


def labeled(values: np.ndarray, **options: Any) -> Any:
    xarray = pytest.importorskip("xarray")
    height, width = values.shape[-2:]
    x, y = 500_001 + 2 * np.arange(width), 8_999_999 - 2 * np.arange(height)
    dims = ("band", "y", "x")[-values.ndim :]
    return xarray.DataArray(values, coords={"x": x, "y": y}, dims=dims, **options)


def test_a_data_array_brings_its_place_its_crs_and_its_nodata(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    from rasterio.crs import CRS

    array = labeled(CODES, attrs={"_FillValue": 523})
    array = array.assign_coords(spatial_ref=xarray.DataArray(0, attrs={"crs_wkt": CRS.from_epsg(32736).to_wkt()}))
    found = geoglnet.vectorize(array, tmp_path / "x.gpkg")
    path = write_raster(tmp_path / "codes.tif", CODES[None], transform=PLACE, nodata=523)
    assert shapes_of(found) == shapes_of(geoglnet.vectorize(path, tmp_path / "one.gpkg"))
    assert found.polygons().crs == UTM


def test_a_data_array_whose_rows_run_north_lies_where_its_coordinates_say(tmp_path: Path) -> None:
    upward = labeled(CODES)[::-1]
    one = geoglnet.vectorize(upward, tmp_path / "u.gpkg", crs=UTM).polygons()
    other = geoglnet.vectorize(labeled(CODES), tmp_path / "d.gpkg", crs=UTM).polygons()
    for code in (111, -7, 523, 70_000):
        assert one[one.class_id == code].union_all().equals(other[other.class_id == code].union_all())


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones(5), "shape"),
        (np.ones((0, 5)), "shape"),
        (np.array([["a", "b"]]), "give numbers"),
        (np.ones((2, 2, 2, 2)), "shape"),
    ],
)
def test_arrays_that_are_no_rasters_are_refused(array: np.ndarray, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        geoglnet.vectorize(array, tmp_path / "out.gpkg")


def test_uneven_coordinates_unknown_crs_and_a_place_for_a_file_are_refused(tmp_path: Path) -> None:
    array = labeled(CODES).assign_coords(x=np.arange(15) ** 2)
    with pytest.raises(ConfigError, match="not an even grid"), array_raster(array):
        pass
    with pytest.raises(ConfigError, match="coordinate reference system"), array_raster(CODES, crs="nowhere"):
        pass
    path = write_raster(tmp_path / "codes.tif", CODES[None])
    with pytest.raises(ConfigError, match="of its own"):
        geoglnet.vectorize(path, tmp_path / "out.gpkg", crs=UTM)
