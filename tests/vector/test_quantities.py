"""Quantities and probabilities: classes between breaks, and the most probable of several bands."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from scipy.ndimage import gaussian_filter

from geoglnet.errors import BandsError
from geoglnet.vector.polygonizer import vectorize
from geoglnet.vector.settings import VectorConfig
from geoglnet.vector.values import RasterValues
from tests.rasters import write_raster


def surface(seed: int = 0, bands: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.standard_normal((60, 70)), 3) for _ in range(bands)])
    return (fields - fields.min()) / (fields.max() - fields.min())


def read(path: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_file(path, layer=path.stem)


def shapes_of(frame: geopandas.GeoDataFrame) -> list[tuple[bytes, int]]:
    return sorted((shapely.normalize(g).wkb, int(c)) for g, c in zip(frame.geometry, frame.class_id, strict=True))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.1])
def test_a_threshold_gives_the_polygons_of_the_thresholded_raster(tmp_path: Path, threshold: float) -> None:
    values = surface().astype(np.float32)
    values[0, 5, 5:9] = threshold  # in single precision 0.7 lies below the double of that name
    values[0, 40:45, 10:20] = np.nan
    vectorize(write_raster(tmp_path / "p.tif", values), tmp_path / "out.gpkg", values=RasterValues(breaks=(threshold,)))
    thresholded = (values >= threshold).astype(np.uint8)
    vectorize(write_raster(tmp_path / "t.tif", thresholded), tmp_path / "other.gpkg")
    found = read(tmp_path / "out.gpkg")
    assert shapes_of(found) == shapes_of(read(tmp_path / "other.gpkg"))
    assert set(found.class_name) == {f"{threshold} or more"}


def test_breaks_make_classes_with_names_and_what_is_below_only_when_asked_for(tmp_path: Path) -> None:
    heights = np.array([[[-5, 0, 9, 10, 20, 99, -9999]]], np.int16)
    path = write_raster(tmp_path / "heights.tif", heights, nodata=-9999)
    vectorize(path, tmp_path / "out.gpkg", values=RasterValues(breaks=(0, 10, 20)))
    found = read(tmp_path / "out.gpkg")
    assert dict(zip(found.class_id, found.class_name, strict=True)) == {1: "0 to 10", 2: "10 to 20", 3: "20 or more"}
    assert vectorize(path, tmp_path / "all.gpkg", values=RasterValues(breaks=(0, 10, 20), background="none")) == 4
    assert "below 0" in set(read(tmp_path / "all.gpkg").class_name)


def test_breaks_are_in_the_units_that_a_raster_declares(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scaled.tif", np.array([[[100, 200, 300]]], np.uint16))
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = (0.01,), (1.0,)
    vectorize(path, tmp_path / "out.gpkg", values=RasterValues(breaks=(3,)))  # 200 is 3
    assert read(tmp_path / "out.gpkg").geometry.area.tolist() == [0.5]


def test_the_most_probable_band_wins_and_its_value_is_the_confidence(tmp_path: Path) -> None:
    stack = surface(1, 4).astype(np.float32)
    stack /= stack.sum(axis=0)
    stack[:, :4, :4] = np.nan
    path = write_raster(tmp_path / "stack.tif", stack)
    with rasterio.open(path, "r+") as dst:
        dst.descriptions = ("water", "forest", "", "town")
    vectorize(path, tmp_path / "out.gpkg", values=RasterValues(argmax=True), config=VectorConfig(tile_size=32))
    labels = np.where(np.isnan(stack[0]), 255, np.argmax(np.nan_to_num(stack), axis=0)).astype(np.uint8)
    best = write_raster(tmp_path / "best.tif", np.nan_to_num(stack.max(axis=0))[None])
    label_path = write_raster(tmp_path / "labels.tif", labels[None], nodata=255)
    vectorize(label_path, tmp_path / "other.gpkg", confidence_path=best, values=RasterValues(background="none"))
    found, other = read(tmp_path / "out.gpkg"), read(tmp_path / "other.gpkg")
    assert shapes_of(found) == shapes_of(other)
    assert sorted(found.confidence) == sorted(other.confidence)
    assert set(found.class_name) <= {"water", "forest", "class 2", "town"}


def test_probabilities_are_cleaned_and_keep_the_confidence_of_their_pixels(tmp_path: Path) -> None:
    stack = surface(2, 3).astype(np.float32)
    path = write_raster(tmp_path / "stack.tif", stack)
    config = VectorConfig(sieve="20px")
    assert vectorize(path, tmp_path / "out.gpkg", values=RasterValues(argmax=True), config=config) > 0
    found = read(tmp_path / "out.gpkg")
    assert found.geometry.area.min() >= 20 * 0.25
    assert found.confidence.between(0, 1).all()


def test_one_band_of_several_is_read_and_none_is_guessed(tmp_path: Path) -> None:
    bands = np.stack([np.full((8, 8), 5), np.full((8, 8), 9)]).astype(np.uint16)
    path = write_raster(tmp_path / "bands.tif", bands)
    with pytest.raises(BandsError, match=r"has 2 bands.*band=1.*argmax=True"):
        vectorize(path, tmp_path / "out.gpkg")
    with pytest.raises(BandsError, match="no band 3"):
        vectorize(path, tmp_path / "out.gpkg", values=RasterValues(band=3))
    vectorize(path, tmp_path / "out.gpkg", values=RasterValues(band=2))
    assert read(tmp_path / "out.gpkg").class_id.tolist() == [9]
    single = write_raster(tmp_path / "single.tif", bands[:1])
    with pytest.raises(BandsError, match="argmax compares 2 to 254"):
        vectorize(single, tmp_path / "other.gpkg", values=RasterValues(argmax=True))
