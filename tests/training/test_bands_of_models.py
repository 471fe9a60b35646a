"""Models of any bands: trained, stored, loaded and predicted with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

import geoglnet
from geoglnet.bands import Bands, ValueRange
from geoglnet.config import ScalingRule
from geoglnet.datasets import generated
from geoglnet.errors import Canceled, ConfigError
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import read_manifest
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import ArraySink, predict_scene
from geoglnet.progress import RecordedProgress
from geoglnet.raster.scene import open_scene
from geoglnet.training.fit import Start, fit
from geoglnet.training.train_config import read_config
from geoglnet.types import Shape

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning", "ignore:.*does not have many workers.*")

CONFIG = """
name = "toy"
resolution_m = 1.0
[legend]
classes = [{name = "ground", color = [1, 1, 1]}, {name = "roof", color = [255, 0, 0]}]
background = 0
[model]
backbone = "mobilenet_v3_small"
pyramid_channels = 8
smooth_channels = 4
[region]
region_size = 96
overview_size = 48
patch_size = 64
patch_overlap = 16
margin = 16
[[train]]
kind = "images"
images = "*_image.tif"
labels = "*_label.tif"
[[validation]]
kind = "images"
images = "*_image.tif"
labels = "*_label.tif"
[sample]
region_size = 96
patch_size = 64
patches_per_region = 1
[optim]
global_steps = 1
local_steps = 1
batch_size = 2
backbone_weights = ""
"""
SENTINEL2 = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22")
CASES = {
    "height alone": ("[bands]\nnames = ['height']\nscaling = {range = [0, 30]}\n", np.float32, (0, 30)),
    "color and near infrared of 8 bits": ("[bands]\nnames = ['red', 'green', 'blue', 'nir']\n", np.uint8, (10, 240)),
    "ten bands of Sentinel-2": (f"[bands]\nnames = {list(SENTINEL2)}\nscaling = 'reflectance'\n", np.uint16, (0, 6000)),
}


def write_set(folder: Path, names: tuple[str, ...], dtype: type[np.generic], ends: tuple[float, float]) -> None:
    """A scene of blocks, in any number of bands, with its labels."""
    rng = np.random.default_rng(0)
    roofs = np.kron(rng.random((7, 8)) < 0.3, np.ones((16, 16)))[:105, :120]
    low, high = ends
    image = low + (high - low) * (0.2 + 0.5 * roofs + 0.1 * rng.random((len(names), *roofs.shape)))
    place = {"crs": "EPSG:32633", "transform": Affine(1, 0, 500000, 0, -1, 5000000), "driver": "GTiff"}
    for kind, values in (("image", image.astype(dtype)), ("label", roofs.astype(np.uint8)[None])):
        size = {"count": len(values), "height": 105, "width": 120, "dtype": values.dtype}
        with rasterio.open(folder / f"a_{kind}.tif", "w", **place, **size) as dst:
            dst.write(values)
            if kind == "image":
                dst.descriptions = names
                dst.colorinterp = [ColorInterp.undefined] * len(names)
            if kind == "image" and dtype is np.uint16:
                dst.scales = [1e-4] * len(names)


@pytest.mark.parametrize("case", CASES)
def test_any_bands_are_trained_stored_and_predicted_with(case: str, tmp_path: Path) -> None:
    bands, dtype, ends = CASES[case]
    (tmp_path / "toy.toml").write_text(CONFIG + bands)
    config = read_config(tmp_path / "toy.toml")
    write_set(tmp_path, config.bands.names, dtype, ends)
    assert (config.model.in_channels, config.bands.is_measured) == (len(config.bands), False)
    progress = RecordedProgress()
    manifest = fit(config, tmp_path, tmp_path / "toy.safetensors", progress=progress)
    network, read = load_checkpoint(tmp_path / "toy.safetensors")
    assert read.bands == manifest.bands
    assert (read.bands.names, read.bands.scaling) == (config.bands.names, config.bands.scaling)
    assert len(read.bands.mean) == len(config.bands)
    assert any("mean ± std of the bands, measured on" in message for message in progress.messages("log"))
    assert 0 < min(read.bands.mean) <= max(read.bands.mean) < 1
    with open_scene(tmp_path / "a_image.tif", model_bands=read.bands) as scene:
        sink = ArraySink(Shape(105, 120))
        predict_scene(scene, network, read, sink, config=PredictConfig(device="cpu"))
    assert set(np.unique(sink.array).tolist()) <= {0, 1}
    geoglnet.predict(tmp_path / "a_image.tif", tmp_path / "labels.tif", model=tmp_path / "toy.safetensors")
    with rasterio.open(tmp_path / "labels.tif") as src:
        assert (src.read(1) == sink.array).all()
        assert config.bands.is_8bit or f"{config.bands}: values" in src.tags()["GEOGLNET_VALUES"]


def test_a_finished_training_of_measured_bands_is_known_when_it_is_resumed(tmp_path: Path) -> None:
    bands, dtype, ends = CASES["height alone"]
    (tmp_path / "toy.toml").write_text(CONFIG + bands + "[augment]\ncolor = 0.2\n")
    config = read_config(tmp_path / "toy.toml", {"optim.save_every_s": 0.0, "optim.local_steps": 3})
    write_set(tmp_path, ("height",), dtype, ends)

    class Stopping(RecordedProgress):
        def advance(self, amount: int = 1, **figures: float) -> None:
            super().advance(amount, **figures)
            if "loss" in figures and sum("loss" in event for event in self.events) == 3:  # in the local stage
                raise Canceled("stopped")

    path = tmp_path / "toy.safetensors"
    with pytest.raises(Canceled):
        fit(config, tmp_path, path, progress=Stopping())
    manifest = fit(config, tmp_path, path, start=Start(resume=True))
    assert read_manifest(path).bands == manifest.bands
    assert manifest.bands.is_measured


def test_generated_scenes_have_the_bands_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "SHAPE", Shape(640, 640))
    legend = Legend(("ground", "building"), ((0, 0, 0), (230, 75, 50)), background=0)
    colors = generated.generated_region(3, legend, 0.25)
    rule = (ScalingRule.REFLECTANCE, ScalingRule.AS_IS, ValueRange(0, 30))
    bands = Bands(("blue", "pan", "height"), scaling=rule)
    region = generated.generated_region(3, legend, 0.25, bands)
    assert np.abs(region.image[0] - colors.image[2]).max() < 1e-2
    assert np.abs(region.image[1] - colors.image.mean(axis=0)).max() < 1e-2
    heights = region.image[2] * 30 / 255
    is_building = region.labels == 1
    assert np.median(heights[is_building]) > 2
    assert np.median(heights[~is_building]) < 0.5
    with pytest.raises(ConfigError, match="generated scenes have no band 'nir'"):
        generated.generated_region(3, legend, 0.25, Bands(("nir",)))
