"""Scenes as Python programs have them: every kind of the same scene gives the same labels."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

import geoglnet
from geoglnet import PredictConfig, VectorConfig
from geoglnet.errors import ConfigError
from tests.rasters import noise, write_raster
from tests.stubs import CPU

xarray = pytest.importorskip("xarray")
rioxarray = pytest.importorskip("rioxarray")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    valid = np.ones((96, 128), bool)
    valid[:20, :30] = False
    return write_raster(tmp_path / "scene.tif", noise(3, 96, 128), pixel_size=1.0, valid=valid)


def labels_of(scene: Any, model: Path, **keywords: Any) -> np.ndarray:
    done = geoglnet.predict(scene, model=model, config=CPU, **keywords)
    labels: np.ndarray = done.labels().values
    assert done.crs == rasterio.crs.CRS.from_epsg(32736)
    return labels


def test_every_kind_of_a_scene_gives_the_same_labels(scene: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    expected = labels_of(scene, tiny_model_path)
    assert (expected == 255).any()
    with rasterio.open(scene) as src:
        masked, place = src.read(masked=True), {"transform": src.transform, "crs": src.crs}
        assert (labels_of(src, tiny_model_path) == expected).all()
        with MemoryFile(scene.read_bytes()) as file, file.open() as in_memory:
            in_memory_labels = labels_of(in_memory, tiny_model_path)
    assert in_memory_labels.shape == expected.shape
    assert (labels_of(masked, tiny_model_path, **place) == expected).all()
    assert (labels_of(masked, tiny_model_path, transform=place["transform"], crs="EPSG:32736") == expected).all()
    opened = rioxarray.open_rasterio(scene, masked=True)
    assert (labels_of(opened.fillna(0).astype("uint8").rio.write_nodata(None), tiny_model_path)[expected != 255] < 255).all()
    labeled = xarray.DataArray(masked.filled(0), dims=("band", "y", "x"), coords=opened.coords).rio.write_crs("EPSG:32736")
    plain = labels_of(masked.filled(0), tiny_model_path, **place)
    assert (labels_of(labeled, tiny_model_path) == plain).all()
    assert (labels_of(labeled.transpose("y", "x", "band"), tiny_model_path) == plain).all()


def test_lazy_arrays_are_computed_strip_by_strip(scene: Path, tiny_model_path: Path) -> None:
    pytest.importorskip("dask")
    lazy = rioxarray.open_rasterio(scene, chunks={"y": 32, "x": 32})
    with rasterio.open(scene) as src:
        plain = labels_of(src.read(), tiny_model_path, transform=src.transform, crs=src.crs)
    assert (labels_of(lazy, tiny_model_path) == plain).all()


def test_a_warped_dataset_is_read_in_its_own_crs(scene: Path, tiny_model_path: Path) -> None:
    with rasterio.open(scene) as src, WarpedVRT(src, crs="EPSG:32735") as warped:
        done = geoglnet.predict(warped, model=tiny_model_path, config=CPU)
    assert done.crs == rasterio.crs.CRS.from_epsg(32735)


def test_bands_of_a_labeled_array_are_found_by_name(scene: Path, tiny_model_path: Path) -> None:
    with rasterio.open(scene) as src:
        image, place = src.read(), {"transform": src.transform, "crs": src.crs}
    expected = labels_of(image, tiny_model_path, **place)
    y, x = np.arange(96), np.arange(128)
    turned = xarray.DataArray(image[::-1], dims=("band", "y", "x"), coords={"band": ["blue", "green", "red"], "y": y, "x": x})
    assert (labels_of(turned, tiny_model_path, **place) == expected).all()


def test_a_stac_item_in_memory_is_read_like_its_file(scene: Path, tiny_model_path: Path) -> None:
    bands = [{"name": str(number), "eo:common_name": name} for number, name in enumerate(("red", "green", "blue"), 1)]
    asset = {"href": scene.as_posix(), "type": "image/tiff; application=geotiff", "roles": ["data"], "bands": bands}
    item = {"type": "Feature", "stac_version": "1.1.0", "id": "one", "properties": {}, "geometry": None, "links": []}
    assert labels_of({**item, "assets": {"image": asset}}, tiny_model_path).shape == (1, 96, 128)


def test_without_files_the_results_last_as_long_as_their_handle(scene: Path, tiny_model_path: Path) -> None:
    done = geoglnet.predict(scene, model=tiny_model_path, config=CPU)
    assert set(done.paths) == {"labels", "confidence", "vector"}
    assert len(done.polygons()) == done.num_polygons
    folder = done.paths["labels"].parent
    assert folder.exists()
    del done
    gc.collect()
    assert not folder.exists()


def test_settings_are_keywords_too(scene: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    with rasterio.open(scene) as src:
        left, bottom, _, _ = src.bounds
    bounds = (left, bottom, left + 64, bottom + 48)
    names = {"labels_path": tmp_path / "a.tif", "vector_path": tmp_path / "a.gpkg"}
    one = geoglnet.predict(scene, **names, model=tiny_model_path, bounds=bounds, device="cpu", simplify="2px", min_area=9)
    others = {name: path.with_stem("b") for name, path in names.items()}
    config, shaping = PredictConfig(bounds=bounds, device="cpu"), VectorConfig(simplify="2px", min_area_m2=9)
    two = geoglnet.predict(scene, **others, model=tiny_model_path, config=config, vector_config=shaping)
    assert (one.labels().values == two.labels().values).all()
    assert one.polygons().geometry.equals(two.polygons().geometry)
    assert geoglnet.estimate(scene, model=tiny_model_path, device="cpu", bounds=bounds).steps > 0
    with pytest.raises(TypeError, match=r"predict\(\) got an unexpected keyword argument 'min_aera'"):
        geoglnet.predict(scene, model=tiny_model_path, min_aera=9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (5, "a int is no scene; give a file's name"),
        (np.zeros((40, 40, 3), np.uint8), r"has its bands last; give np\.moveaxis"),
        (np.zeros(40, np.uint8), "is not a raster"),
        (np.array([["a", "b"]]), "an array of <U1 is not a raster"),
        ([np.zeros((3, 8, 8))], "a list is no scene"),
    ],
)
def test_what_is_no_scene_is_said_in_one_line(wrong: Any, message: str, tiny_model_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        geoglnet.predict(wrong, model=tiny_model_path)


def test_datasets_that_cannot_be_read_are_refused(scene: Path, tiny_model_path: Path) -> None:
    with rasterio.open(scene) as src:
        pass
    with pytest.raises(ConfigError, match="is closed"):
        geoglnet.predict(src, model=tiny_model_path)
    with rasterio.open(scene, "r+") as dst, pytest.raises(ConfigError, match="is open for writing"):
        geoglnet.predict(dst, model=tiny_model_path)
    with pytest.raises(ConfigError, match="has a transform and a CRS of its own"):
        geoglnet.predict(scene, crs="EPSG:4326", model=tiny_model_path)
