"""Models of other bands than three colors: bands by name in the dialog, and from other rasters."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from osgeo import gdal
from qgis.core import QgsCoordinateReferenceSystem, QgsProcessingException, QgsRasterLayer
from toolbox import UTM, Feedback, run

pytestmark = pytest.mark.usefixtures("plugin", "project")

UNTRAINED = """
import sys, torch
from geoglnet.bands import Bands
from geoglnet.config import ModelConfig, RegionConfig, ScalingRule
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import save_checkpoint
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest

torch.manual_seed(0)
path, rule, *names = sys.argv[1:]
model = ModelConfig(2, "mobilenet_v3_small", pyramid_channels=8, smooth_channels=4, in_channels=len(names))
region = RegionConfig(region_size=64, overview_size=32, patch_size=32, patch_overlap=8, margin=16)
legend = Legend(("ground", "building"), ((0, 0, 0), (230, 75, 50)), background=0)
bands = Bands(tuple(names), (0.5,) * len(names), (0.2,) * len(names), ScalingRule(rule))
save_checkpoint(path, GLNet(model), Manifest("any", model, region, legend, 1.0, (0.5, 2.0), 1.0, bands=bands))
"""
SENTINEL2 = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22")


def make_model(program: str, path: Path, rule: str, names: tuple[str, ...]) -> Path:
    """An untrained model of these bands, made by the program's own Python."""
    words = [Path(program).with_name("python"), "-c", UNTRAINED, str(path), rule, *names]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, timeout=300)
    return path


@pytest.fixture(scope="module")
def four_band_model(program: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "four.safetensors"
    return make_model(program, path, "by_type", ("red", "green", "blue", "height"))


def write_raster(path: Path, count: int, pixel_m: float, size: int) -> Path:
    raster = gdal.GetDriverByName("GTiff").Create(str(path), size, size, count, gdal.GDT_Byte)
    raster.SetGeoTransform((600000, pixel_m, 0, 9300000, 0, -pixel_m))
    raster.SetProjection(QgsCoordinateReferenceSystem(UTM).toWkt())
    for number in range(1, count + 1):
        values = bytes((column * row * 7 + number * 50) % 251 for row in range(size) for column in range(size))
        raster.GetRasterBand(number).WriteRaster(0, 0, size, size, values)
    return path


def test_bands_are_chosen_by_name_and_read_from_another_raster(four_band_model: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "ortho.tif", 3, 1.0, 80)
    heights = write_raster(tmp_path / "höhen 1.tif", 1, 2.0, 40)
    feedback = Feedback()
    found = run(
        "segmentscene",
        feedback,
        INPUT=str(scene),
        MODEL_FILE=str(four_band_model),
        BANDS="BGR",
        BESIDE=f"height={heights}\n",
        LABELS=str(tmp_path / "l.tif"),
        POLYGONS=None,
    )
    labels = QgsRasterLayer(found["LABELS"], "l")
    assert (labels.width(), labels.height(), labels.crs().authid()) == (80, 80, UTM)
    said = "\n".join(feedback.said)
    assert "bands 3 red, 2 green, 1 blue (by preset BGR)" in said
    assert "is resampled to the grid of" in said


@pytest.mark.parametrize(("names", "rule"), [(("height",), "percentiles"), (SENTINEL2, "percentiles")])
def test_models_of_one_band_and_of_ten_segment_a_described_raster(
    names: tuple[str, ...], rule: str, program: str, tmp_path: Path
) -> None:
    scene = write_raster(tmp_path / "scene.tif", len(names), 1.0, 80)
    raster = gdal.Open(str(scene), gdal.GA_Update)
    for number, name in enumerate(reversed(names), start=1):  # in another order than the model's
        raster.GetRasterBand(number).SetDescription(name)
    del raster
    feedback, model = Feedback(), make_model(program, tmp_path / "any.safetensors", rule, names)
    found = run(
        "segmentscene", feedback, INPUT=str(scene), MODEL_FILE=str(model), LABELS=str(tmp_path / "l.tif"), POLYGONS=None
    )
    assert QgsRasterLayer(found["LABELS"], "l").width() == 80
    assert f"{names[0]}: values" in "\n".join(feedback.said)
    if len(names) > 1:
        assert f"bands {len(names)} {names[0]}" in "\n".join(feedback.said)


def test_a_missing_band_is_named_with_the_ways_out(four_band_model: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "ortho.tif", 3, 1.0, 80)
    with pytest.raises(QgsProcessingException, match=r"has no band height .*or add a raster with --with"):
        run("segmentscene", INPUT=str(scene), MODEL_FILE=str(four_band_model), LABELS=str(tmp_path / "l.tif"), POLYGONS=None)
    assert not (tmp_path / "l.tif").exists()
