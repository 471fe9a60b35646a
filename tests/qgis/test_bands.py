"""Models of other bands than three colors: bands by name in the dialog, and from other rasters."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from osgeo import gdal
from qgis.core import QgsCoordinateReferenceSystem, QgsProcessingException, QgsRasterLayer
from toolbox import UTM, Feedback, run

pytestmark = pytest.mark.usefixtures("plugin", "project")

FOUR_BANDS = """
import sys, torch
from geoglnet.bands import Bands
from geoglnet.config import ModelConfig, RegionConfig
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import save_checkpoint
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest

torch.manual_seed(0)
model = ModelConfig(2, "mobilenet_v3_small", pyramid_channels=8, smooth_channels=4, in_channels=4)
region = RegionConfig(region_size=64, overview_size=32, patch_size=32, patch_overlap=8, margin=16)
legend = Legend(("ground", "building"), ((0, 0, 0), (230, 75, 50)), background=0)
bands = Bands(("red", "green", "blue", "height"), (0.5,) * 4, (0.2,) * 4)
save_checkpoint(sys.argv[1], GLNet(model), Manifest("four", model, region, legend, 1.0, (0.5, 2.0), 1.0, bands=bands))
"""


@pytest.fixture(scope="module")
def four_band_model(program: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of red, green, blue and height, made by the program's own Python."""
    path = tmp_path_factory.mktemp("models") / "four.safetensors"
    python = Path(program).with_name("python")
    subprocess.run([python, "-c", FOUR_BANDS, str(path)], check=True, stdin=subprocess.DEVNULL, timeout=300)
    return path


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


def test_a_missing_band_is_named_with_the_ways_out(four_band_model: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "ortho.tif", 3, 1.0, 80)
    with pytest.raises(QgsProcessingException, match=r"has no band height .*or add a raster with --with"):
        run("segmentscene", INPUT=str(scene), MODEL_FILE=str(four_band_model), LABELS=str(tmp_path / "l.tif"), POLYGONS=None)
    assert not (tmp_path / "l.tif").exists()
