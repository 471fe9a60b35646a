"""Sentinel-2 products and STAC items, as miniature files made here."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from rasterio._path import _parse_path, _vsi_path
from rasterio.windows import Window

from geoglnet.bands import Bands
from geoglnet.errors import BandsError, SceneError
from geoglnet.progress import RecordedProgress
from geoglnet.raster import products
from geoglnet.raster.products import find_product
from geoglnet.raster.scaling import Scaling
from geoglnet.raster.scene import open_scene
from tests.products import values_of, write_jp2, write_safe
from tests.rasters import UTM, noise, write_raster
from tests.served import Server

AS_STORED = Scaling(0, 255, "as stored")
FOUR = Bands(("red", "nir", "nir08", "swir16"), (0.5,) * 4, (0.2,) * 4)


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A product with bands at 10, 20 and 60 m, 10 m bands at 20 m too."""
    return write_safe(tmp_path_factory.mktemp("products"))


@pytest.fixture(params=["folder", "zip", "metadata"])
def product(request: pytest.FixtureRequest, safe: Path, tmp_path: Path) -> Path:
    if request.param == "folder":
        return safe
    if request.param == "metadata":
        return safe / "MTD_MSIL2A.xml"
    path = tmp_path / f"{safe.name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in safe.rglob("*"):
            archive.write(file, file.relative_to(safe.parent))
    return path


def test_a_product_opens_as_a_scene_of_named_bands(product: Path) -> None:
    progress = RecordedProgress()
    with open_scene(product, model_bands=FOUR, scaling=AS_STORED, progress=progress) as scene:
        pixels = scene.read_window(Window(0, 0, 120, 120))
        assert (scene.shape, round(scene.pixel_size_m or 0)) == ((120, 120), 10)
        assert scene.band_units[0] == pytest.approx((1e-4, -0.1))
        assert scene.band_units[2] == pytest.approx((1e-4, -0.09))
        assert len([name for name in scene.file_paths if name.endswith(".jp2")]) == 4
        assert any(name.endswith((".zip", "MTD_MSIL2A.xml")) or ".zip/" in name for name in scene.file_paths)
        with scene.reopened() as again:
            assert (again.read_window(Window(0, 0, 120, 120)).image == pixels.image).all()
    assert (pixels.image[0] == values_of("B04", 10)).all()
    assert (pixels.image[1] == values_of("B08", 10)).all()
    centers = pixels.image[2].reshape(60, 2, 60, 2).mean(axis=(1, 3))  # interpolated from 20 m
    assert np.abs(centers - values_of("B8A", 20))[5:-5, 5:-5].mean() < 40
    assert np.corrcoef(centers.ravel(), values_of("B8A", 20).ravel())[0, 1] > 0.9
    assert pixels.valid.all()
    assert any("red (B04)" in text and "swir16 (B11)" in text for text in progress.messages("log"))


def test_without_a_model_a_product_is_red_green_and_blue(safe: Path) -> None:
    with open_scene(safe, scaling=AS_STORED) as scene:
        image = scene.read_window(Window(0, 0, 120, 120)).image
    assert (image == np.stack([values_of(code, 10) for code in ("B04", "B03", "B02")])).all()


def test_zero_is_no_value_in_a_product(safe: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(safe, tmp_path / safe.name))
    image = values_of("B04", 10)
    image[:50] = 0
    red = next(copy.rglob("*_B04_10m.jp2"))
    red.unlink()
    write_jp2(red, image, 10)
    with open_scene(copy, model_bands=FOUR, scaling=AS_STORED) as scene:
        valid = scene.read_window(Window(0, 0, 120, 120)).valid
    assert not valid[:50].any()
    assert valid[50:].all()


def test_bands_of_a_product_can_be_selected_by_code_and_name(safe: Path) -> None:
    with open_scene(safe, bands="B8A,blue", scaling=AS_STORED) as scene:
        assert (scene.read_window(Window(0, 0, 60, 60)).image[0] == values_of("B8A", 20)[:60, :60]).mean() < 0.5
        assert scene.num_bands == 2


def test_products_that_lack_what_is_needed_are_refused(safe: Path, tmp_path: Path) -> None:
    with pytest.raises(BandsError, match=r"has no band swir22 .*it has 1 coastal \(B01\), 2 blue \(B02\)"):
        open_scene(safe, model_bands=Bands(("red", "swir22"), (0.5,) * 2, (0.2,) * 2))
    empty = tmp_path / "S2A_MSIL1C.SAFE"
    empty.mkdir()
    with pytest.raises(SceneError, match="has no bands B01 to B12"):
        open_scene(empty)
    assert find_product("scene.tif") is None


def write_item(folder: Path, **changes: Any) -> Path:
    """A STAC item of a two-band raster and a coarser one, hrefs relative to it."""
    (folder / "data").mkdir(parents=True)
    place = Affine(10, 0, 600_000, 0, -10, 9_000_000)
    write_raster(folder / "data" / "rg.tif", noise(2, 120, 120), crs=UTM, transform=place)
    write_raster(folder / "data" / "nir.tif", noise(1, 60, 60), crs=UTM, transform=place @ Affine.scale(2))
    write_raster(folder / "data" / "visual.tif", noise(3, 120, 120), crs=UTM, transform=place)
    assets = {
        "visual": {"href": "./data/visual.tif", "type": "image/tiff", "eo:bands": [{"common_name": "red"}] * 3},
        "color": {
            "href": "./data/rg.tif",
            "type": "image/tiff; application=geotiff",
            "eo:bands": [{"name": "B3", "common_name": "green"}, {"name": "B4", "common_name": "red"}],
            "raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}, {"scale": 0.0001, "offset": -0.1, "nodata": 0}],
        },
        "infrared": {"href": "data/nir.tif", "type": "image/tiff", "bands": [{"name": "nir", "eo:common_name": "nir"}]},
        "info": {"href": "data/info.json", "type": "application/json"},
    }
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "tile-1", "properties": {}, "assets": assets} | changes
    path = folder / "item.json"
    path.write_text(json.dumps(item), encoding="utf-8")
    return path


@pytest.mark.parametrize("is_served", [False, True])
def test_a_stac_item_opens_as_a_scene(tmp_path: Path, server: Server, is_served: bool) -> None:
    path = write_item(server.folder / "items")
    name = f"{server.url}/items/item.json" if is_served else str(path)
    bands = Bands(("red", "green", "nir"), (0.5,) * 3, (0.2,) * 3)
    with open_scene(name, model_bands=bands) as scene:
        pixels = scene.read_window(Window(0, 0, 120, 120))
        assert scene.name == "tile-1"
        assert scene.file_paths[-1] == name
        assert scene.band_units == ((0.0001, -0.1), (0.0001, -0.1), (1.0, 0.0))
    assert (pixels.image[:2] == noise(2, 120, 120)[::-1]).all()
    assert np.corrcoef(pixels.image[2, ::2, ::2].ravel(), noise(1, 60, 60)[0].ravel())[0, 1] > 0.7


def test_stac_items_without_what_is_needed_are_refused(tmp_path: Path, server: Server) -> None:
    path = write_item(tmp_path / "a")
    with pytest.raises(BandsError, match=r"tile-1 has no band swir16 .*it has 1 green \(B3\), 2 red \(B4\), 3 nir\)"):
        open_scene(path, model_bands=Bands(("red", "swir16"), (0.5,) * 2, (0.2,) * 2))
    bare = write_item(tmp_path / "b", assets={"thumbnail": {"href": "a.png", "type": "image/png"}})
    with pytest.raises(SceneError, match=r"is a STAC item, which lists rasters but is not one; .*thumbnail \(a\.png\)"):
        open_scene(bare)
    with pytest.raises(SceneError, match="cannot be fetched"):
        open_scene(f"{server.url}/nowhere.json")
    (tmp_path / "other.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(SceneError, match="is not a raster"):
        open_scene(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("href", "place"),
    [
        ("a.tif", "https://host/x/a.tif"),
        ("../a.tif", "https://host/a.tif"),
        ("/etc/a.tif", "https://host/etc/a.tif"),  # of the server, never a file of this machine
        ("//other/a.tif", "https://other/a.tif"),
        ("https://other/a.tif?key=1", "/vsicurl/https://other/a.tif?key=1"),
        ("s3://bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("gs://bucket/a.tif", "/vsigs/bucket/a.tif"),
        ("az://box/a.tif", "/vsiaz/box/a.tif"),
        ("/vsis3/bucket/a.tif", "/vsis3/bucket/a.tif"),
    ],
)
def test_addresses_of_assets_lead_where_gdal_reads_them(href: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    item = {"stac_version": "1.0.0", "assets": {"red": {"href": href, "type": "image/tiff"}}}
    monkeypatch.setattr(products, "_json_of", lambda _: item)
    found = find_product("https://host/x/item.json")
    assert found is not None
    path = _vsi_path(_parse_path(str(found.sources[0].path)))
    assert path.removeprefix("/vsicurl/") == place.removeprefix("/vsicurl/")


@pytest.mark.parametrize("wrong", [5, "text", {"a": 1}, [1, None, "x"]])
def test_parts_of_an_item_that_are_malformed_are_as_if_absent(tmp_path: Path, wrong: Any) -> None:
    path = write_item(tmp_path, properties=wrong)
    item = json.loads(path.read_text(encoding="utf-8"))
    for key in ("roles", "raster:bands", "bands"):
        item["assets"]["infrared"][key] = wrong
    item["assets"]["broken"] = wrong
    path.write_text(json.dumps(item), encoding="utf-8")
    found = find_product(path)
    assert found is not None
    assert [band.text for band in found.bands][:2] == ["B3", "B4"]


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write_item(tmp_path)
    bands = Bands(("red", "green", "nir"), (0.5,) * 3, (0.2,) * 3)
    far = Affine(20, 0, 800_000, 0, -20, 9_000_000)
    write_raster(tmp_path / "data" / "nir.tif", noise(1, 60, 60), crs=UTM, transform=far)
    with pytest.raises(BandsError, match=r"nir\.tif does not overlap .*rg\.tif; check the places"):
        open_scene(path, model_bands=bands)
    write_raster(tmp_path / "data" / "nir.tif", noise(1, 60, 60), crs=None)
    with pytest.raises(BandsError, match=r"rg\.tif has 120 × 120 px, .*nir\.tif 60 × 60, and .*nir\.tif has no CRS"):
        open_scene(path, model_bands=bands)
    write_raster(tmp_path / "data" / "nir.tif", noise(1, 60, 60).astype("complex64"), crs=UTM, transform=far)
    with pytest.raises(SceneError, match=r"nir\.tif holds complex values \(complex64 in band 1\)"):
        open_scene(path, model_bands=bands)
