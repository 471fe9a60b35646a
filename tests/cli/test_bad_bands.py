"""Bands and values that a model cannot work with: one line, whichever verb finds them, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result

from geoglnet.bands import Bands
from geoglnet.cli.main import geoglnet
from geoglnet.config import ModelConfig, RegionConfig, ScalingRule
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import save_checkpoint
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from tests.rasters import noise, write_raster

NAMES = ("red", "green", "blue", "nir")
CONFIG = """
name = "four"
resolution_m = 0.5
[legend]
classes = [{name = "ground", color = [0, 0, 0]}, {name = "building", color = [230, 75, 50]}]
background = 0
[bands]
names = ["red", "green", "blue", "nir"]
scaling = "RULE"
[model]
backbone = "mobilenet_v2"
[optim]
backbone_weights = ""
[[train]]
images = "scene.tif"
labels = "labels.png"
[[validation]]
images = "scene.tif"
labels = "labels.png"
"""
Model = Callable[[str], Path]


@pytest.fixture(scope="module")
def four_band_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Makes an untrained GLNet of red, green, blue and near infrared at 0.5 m, by the rule for their values."""
    folder = tmp_path_factory.mktemp("models")

    def make(rule: str) -> Path:
        path = folder / f"{rule}.safetensors"
        if not path.exists():
            torch.manual_seed(0)
            model = ModelConfig(2, "mobilenet_v3_small", pyramid_channels=8, smooth_channels=4, in_channels=4)
            region = RegionConfig(region_size=64, overview_size=32, patch_size=32, patch_overlap=8, margin=16)
            legend = Legend(("ground", "building"), ((0, 0, 0), (230, 75, 50)), background=0)
            bands = Bands(NAMES, (0.5,) * 4, (0.2,) * 4, ScalingRule(rule))
            save_checkpoint(path, GLNet(model), Manifest("four", model, region, legend, 0.5, (0.2, 1.0), 1.0, bands=bands))
        return path

    return make


def write_scene(folder: Path, image: np.ndarray, names: tuple[str, ...] = NAMES, **about: Any) -> Path:
    """A raster with descriptions of its bands, and with scales and offsets where they are passed."""
    units = {key: about.pop(key) for key in ("scales", "offsets") if key in about}
    path = write_raster(folder / "scene.tif", image, photometric="minisblack", **about)
    with rasterio.open(path, "r+") as dst:
        dst.descriptions = names
        for key, values in units.items():
            setattr(dst, key, values)
    return path


def reflectance(low: float = 0.05) -> np.ndarray:
    return (noise(4, 64, 80) / 600 + low).astype(np.float32)


def with_band(value: float, at: int = 2) -> np.ndarray:
    image = reflectance()
    image[at] = value
    return image


STORED = (reflectance(0) * 2000).astype(np.uint16)
BAD: dict[str, tuple[str, np.ndarray, dict[str, Any], str]] = {
    "two bands without names": ("reflectance", noise(2, 64, 80), {"names": ("", "")}, "has 2 image bands, 4 are needed"),
    "a band too few": ("reflectance", noise(3, 64, 80), {"names": NAMES[:3]}, "has no band nir"),
    "another name": ("reflectance", noise(4, 64, 80), {"names": (*NAMES[:3], "height")}, "has no band nir"),
    "a name twice": ("reflectance", reflectance(), {"names": ("red", "green", "red", "nir")}, "has 2 bands called red"),
    "NaN": ("reflectance", with_band(np.nan), {}, "band 3 (blue) has no value but NaN, so no pixel is valid"),
    "nodata": ("percentiles", with_band(-5), {"nodata": -5}, "band 3 (blue) has no value but -5, so no pixel is valid"),
    "undeclared nodata": ("by_type", with_band(-9999), {}, "band 3 (blue) has no value but -9999, so no pixel is valid"),
    "a constant band": ("percentiles", with_band(0.25), {}, "band 3 (blue) is 0.25 everywhere, which has no range to stretch"),
    "decibels": ("reflectance", -20 * reflectance(), {}, "of the reflectance is negative (it is -9"),
    "a wrong offset": (
        "reflectance",
        STORED,
        {"scales": [1e-4] * 4, "offsets": [-0.1] * 4},
        "with scale 0.0001 and offset -0.1), so scale or offset is wrong; correct them",
    ),
    "complex values": ("by_type", reflectance().astype(np.complex64), {}, "holds complex values (complex64 in band 1)"),
}


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(geoglnet, list(map(str, words)))


def assert_refused(ran: Result, words: str) -> None:
    assert isinstance(ran.exception, SystemExit), ran.exception
    assert ran.exit_code == 1
    # Rules are printed as they are applied, and a constant side is warned about before.
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("Note: ") and "one of its sides" not in line]
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("Error: ")
    assert words in lines[0]


@pytest.mark.parametrize("case", BAD)
def test_predict_and_train_refuse_it_in_one_line(case: str, four_band_model: Model, tmp_path: Path) -> None:
    rule, image, about, words = BAD[case]
    scene = write_scene(tmp_path, image, **about)
    assert_refused(run("predict", scene, "-o", tmp_path / "out.tif", "--model", four_band_model(rule)), words)
    (tmp_path / "four.toml").write_text(CONFIG.replace("RULE", rule))
    write_raster(tmp_path / "labels.png", np.ones((1, 64, 80), np.uint8), crs=None, driver="PNG")
    before = {path.name for path in tmp_path.iterdir()}
    assert_refused(run("train", tmp_path / "four.toml", "--data", tmp_path, "-o", tmp_path / "four.safetensors"), words)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert "out.tif" not in " ".join(before)


@pytest.mark.parametrize(
    ("case", "option"),
    [
        ("NaN", "choose another with --bands"),
        ("another name", "or add a raster with --with"),
        ("complex values", "amplitude"),
        ("a constant band", "set its black and white values with --scale"),
        ("decibels", "or set --scale"),
    ],
)
def test_info_refuses_what_its_model_would(case: str, option: str, four_band_model: Model, tmp_path: Path) -> None:
    rule, image, about, words = BAD[case]
    ran = run("info", write_scene(tmp_path, image, **about), "--model", four_band_model(rule))
    assert_refused(ran, words)
    assert option in ran.stderr


def test_info_shows_what_the_way_out_would_do(four_band_model: Model, tmp_path: Path) -> None:
    rule, image, about, _ = BAD["a constant band"]
    words = [write_scene(tmp_path, image, **about), "--model", four_band_model(rule), "--scale", "0", "0.5", "--json"]
    ran = run("info", *words)
    assert ran.exit_code == 0, ran.stderr
    assert "values 0 to 0.5 read as 0 to 255 (given with --scale)" in json.loads(ran.stdout)["values"]


@pytest.mark.parametrize("size", [(64, 81), (30, 40)])
def test_rasters_of_other_sizes_need_a_place(size: tuple[int, int], four_band_model: Model, tmp_path: Path) -> None:
    scene = write_scene(tmp_path, noise(3, 64, 80), NAMES[:3])
    other = write_raster(tmp_path / "nir.png", noise(1, *size), crs=None, driver="PNG")
    words = f"{other} has {size[1]} × {size[0]} px, {scene} 80 × 64, and {other} has no CRS to place it by"
    model = four_band_model("by_type")
    ran = run("predict", scene, "--with", f"nir={other}", "-o", tmp_path / "out.tif", "--model", model)
    assert_refused(ran, words)
    assert not list(tmp_path.glob("out*"))


def test_what_may_be_real_is_a_warning(four_band_model: Model, tmp_path: Path) -> None:
    """Flat heights, a scene of water, shadows below 0."""
    water = reflectance()
    water[3] = -0.03
    water[:3, :20] -= np.float32(0.1)
    info = run("info", write_scene(tmp_path, water), "--model", four_band_model("reflectance"), "--json")
    assert info.exit_code == 0, info.stderr
    assert any(
        "band 4 (nir) is -0.03 everywhere, so a model sees nothing in it" in text for text in json.loads(info.stdout)["remarks"]
    )
