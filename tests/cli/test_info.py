"""What ``info`` says of the bands of rasters and products, and of what a model would take of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from geoglnet.cli.main import geoglnet
from tests.products import write_safe
from tests.rasters import noise, write_raster


def info(*words: str | Path) -> dict[str, Any]:
    ran = CliRunner().invoke(geoglnet, ["info", *map(str, words), "--json"])
    assert ran.exit_code == 0, ran.stderr
    facts: dict[str, Any] = json.loads(ran.stdout)
    return facts


def names(facts: dict[str, Any]) -> list[str]:
    return [band["name"] for band in facts["bands"]]


@pytest.fixture
def four_bands(tmp_path: Path) -> Path:
    path = write_raster(tmp_path / "scene.tif", noise(5, 40, 60).astype(np.uint16) * 20, photometric="minisblack")
    with rasterio.open(path, "r+") as dst:
        dst.descriptions = ("B02", "Band 3 - Green", "rot", "B08", "height")
        dst.scales, dst.offsets = [1e-4] * 4 + [0.1], [-0.1] * 4 + [0]
    return path


def test_bands_of_a_raster_are_named_with_scale_and_offset(four_bands: Path) -> None:
    facts = info(four_bands)
    assert (facts["num_bands"], names(facts)) == (5, ["blue", "green", "red", "nir", ""])
    assert facts["bands"][4]["description"] == "height"
    assert (facts["scale"], facts["offset"]) == ([1e-4] * 4 + [0.1], [-0.1] * 4 + [0])
    ran = CliRunner().invoke(geoglnet, ["info", str(four_bands)])
    assert "1 blue (B02), 2 green (Band 3 - Green), 3 red (rot), 4 nir (B08), 5 (height)" in ran.stdout
    assert "3 red (rot), 2 green (Band 3 - Green), 1 blue (B02) (by description" in ran.stdout


def test_what_a_model_would_take_is_said(four_bands: Path) -> None:
    facts = info(four_bands, "--model", "buildings", "--bands", "nir,red,green")
    # B08 may be a code of another sensor than Sentinel-2, so this is a warning.
    assert any("4 nir (B08) as red, 3 red (rot) as green" in remark for remark in facts["remarks"])
    assert any("which an 8-bit model does not use" in rule for rule in facts["rules"])
    assert "2nd to 98th percentile" in facts["values"]


@pytest.mark.parametrize("is_zipped", [False, True])
def test_bands_of_a_sentinel_2_product_are_all_named(tmp_path: Path, is_zipped: bool) -> None:
    path = write_safe(tmp_path)
    if is_zipped:
        path = Path(shutil.make_archive(str(tmp_path / "product"), "zip", tmp_path, path.name))
    facts = info(path)
    assert (facts["kind"], facts["num_bands"], round(facts["pixel_size_m"])) == ("scene", 8, 10)
    assert names(facts) == ["coastal", "blue", "green", "red", "rededge071", "nir", "nir08", "swir16"]
    assert facts["scale"] == [1e-4] * 8
    assert facts["offset"][3] == pytest.approx(-0.1)
    assert any("4 red (B04), 3 green (B03), 2 blue (B02)" in rule for rule in facts["rules"])


def test_bands_of_a_stac_item_are_all_named(tmp_path: Path) -> None:
    write_raster(tmp_path / "rgb.tif", noise(3, 40, 60))
    write_raster(tmp_path / "nir.tif", noise(1, 40, 60))
    colors = [{"name": name, "common_name": name} for name in ("blue", "green", "red")]
    units = [{"scale": 1e-4, "offset": 0}] * 3
    assets = {"image": {"href": "rgb.tif", "type": "image/tiff", "eo:bands": colors, "raster:bands": units}}
    assets |= {"nir": {"href": "nir.tif", "type": "image/tiff"}}
    (tmp_path / "item.json").write_text(json.dumps({"stac_version": "1.0.0", "id": "place", "assets": assets}))
    facts = info(tmp_path / "item.json")
    assert (facts["path"], names(facts)) == ("place", ["blue", "green", "red", "nir"])
    assert facts["scale"] == [1e-4, 1e-4, 1e-4, None]


def test_the_models_that_suit_a_scene_are_named_and_why_others_do_not(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", noise(3, 64, 64), pixel_size=0.1)
    models = {model["name"]: model for model in info(scene)["models"]}
    assert models["buildings"] == {"name": "buildings", "suits": True, "remark": ""}
    assert not models["landcover"]["suits"]
    assert models["landcover"]["remark"] == "its pixels are 0.1 m, the model is for 0.3 to 2 m"
    assert "has no band nir" in models["landcover-sentinel2-rgbn"]["remark"]
    assert "--bands" in models["landcover-sentinel2-rgbn"]["remark"]
    ran = CliRunner().invoke(geoglnet, ["info", str(scene)])
    assert "buildings: suits\n" in ran.stdout
    assert "landcover: no, its pixels are 0.1 m" in ran.stdout
    bare = write_raster(tmp_path / "bare.tif", noise(3, 64, 64), crs=None)
    assert info(bare)["models"][0]["remark"] == "if its pixels are 0.05 to 0.4 m"
