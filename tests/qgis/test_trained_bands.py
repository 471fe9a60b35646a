"""Models of one, four and ten bands from a training on generated scenes to a styled, drawn layer."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path
from typing import Any

import pytest
from osgeo import gdal
from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsMapLayer,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsPalettedRasterRenderer,
    QgsProject,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor, QImage
from toolbox import UTM, Feedback, scene_layer

pytestmark = pytest.mark.usefixtures("plugin")

SIDE = 240  # pixels of half a meter
TREES = QColor(230, 75, 50)
SENTINEL2 = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22")
CODES = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
CONFIG = """
name = "trees"
resolution_m = 0.5
[legend]
classes = [{name = "open", color = [0, 0, 0]}, {name = "trees", color = [230, 75, 50]}]
background = 0
[model]
backbone = "mobilenet_v2"
pyramid_channels = 16
smooth_channels = 8
[region]
region_size = 256
overview_size = 128
patch_size = 128
patch_overlap = 16
margin = 32
[sample]
region_size = 128
patch_size = 64
patches_per_region = 1
balanced_fraction = 0.5
[optim]
global_steps = GLOBAL
local_steps = LOCAL
batch_size = 4
global_learning_rate = 5e-3
local_learning_rate = 5e-3
cosine = true
gamma = 2.0
backbone_weights = ""
[[train]]
kind = "rasters"
images = "train/IMAGE"
labels = "train/labels.tif"
"""
HEIGHTS = "{range = [0, 20]}"
KINDS = {  # names, scaling, raster, raster beside it, steps of the two branches: as few as make both classes appear
    1: (("height",), HEIGHTS, "height.tif", "", (24, 12)),
    4: (
        ("red", "green", "blue", "height"),
        f'{{red = "as_is", green = "as_is", blue = "as_is", height = {HEIGHTS}}}',
        "ortho.tif",
        "height.tif",
        (30, 24),
    ),
    10: (SENTINEL2, '"reflectance"', "ten.tif", "", (24, 12)),
}
# One process, because importing PyTorch takes as long as a training.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np, rasterio
from affine import Affine
from geoglnet.cli.main import geoglnet
from geoglnet.synthetic import GENERATED_LEGEND, generate_scene
from geoglnet.types import Shape

folder, side, codes = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
scene = generate_scene(Shape(side, 2 * side), 2, 0.5)
is_tree = np.isin(scene.labels, [GENERATED_LEGEND.value_of(name) for name in ("tree", "forest")])
# Ten bands of reflectance, in the product's units: from blue to red, and the brighter the higher something stands.
mixed = [scene.image[round(at)] * 12.0 + 300 + scene.height * 40 * k for k, at in enumerate(np.linspace(2, 0, len(codes)))]
images = {
    "ortho": scene.image, "height": scene.height[None].astype("float32"), "labels": is_tree[None].astype("uint8"),
    "ten": np.stack(mixed[::-1]).astype("uint16"),
}
for half, first in (("train", 0), ("held_out", side)):
    (folder / half).mkdir()
    place = {"crs": scene.crs, "transform": scene.transform @ Affine.translation(first, 0), "width": side, "height": side}
    for name, image in images.items():
        kind = {"count": len(image), "dtype": image.dtype, "driver": "GTiff"}
        kind |= {"photometric": "MINISBLACK"} if name == "ten" else {}
        with rasterio.open(folder / half / f"{name}.tif", "w", **place, **kind) as dst:
            dst.write(image[:, :, first : first + side])
            if name == "ten":
                dst.descriptions, dst.scales = codes[::-1], [1e-4] * len(codes)
for words in map(str.split, sys.argv[4:]):
    geoglnet([word.replace("FOLDER", str(folder)) for word in words], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def trained(program: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of every kind, trained on one half of a scene, and the labels that it predicts in the other."""
    folder = tmp_path_factory.mktemp("trained")
    verbs = []
    for count, (names, scaling, image, beside, (first, second)) in KINDS.items():
        text = CONFIG.replace("IMAGE", image).replace("GLOBAL", str(first)).replace("LOCAL", str(second))
        text += f'beside = {{height = "train/{beside}"}}\n' if beside else ""
        (folder / f"{count}.toml").write_text(f"{text}[bands]\nnames = {list(names)}\nscaling = {scaling}\n", encoding="utf-8")
        verbs.append(f"train FOLDER/{count}.toml --data FOLDER -o FOLDER/{count}.safetensors")
        more = f"--with height=FOLDER/held_out/{beside}" if beside else ""
        verbs.append(
            f"predict FOLDER/held_out/{image} {more} --model FOLDER/{count}.safetensors -o FOLDER/{count}.tif --device cpu"
        )
    python = Path(program).with_name("python")
    words = [python, "-c", PROGRAM, str(folder), str(SIDE), ",".join(CODES), *verbs]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, timeout=400)
    return folder


def losses(folder: Path) -> list[float]:
    """Losses of the global branch, step by step."""
    with (folder / "losses.csv").open(encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["stage"] == "global"]


def pixels(path: Path) -> bytes:
    raster = gdal.Open(str(path))
    return bytes(raster.GetRasterBand(1).ReadRaster())


def drawn(layers: list[QgsMapLayer], path: Path) -> QImage:
    """Layers as QGIS draws them, the topmost first; a pixel of the scene on one of the picture."""
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(layers[-1].crs())
    settings.setExtent(layers[-1].extent())
    settings.setOutputSize(QSize(SIDE, SIDE))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    image = job.renderedImage()
    assert image.save(str(path))
    return image


@pytest.mark.parametrize("count", KINDS)
def test_a_trained_model_segments_in_qgis_as_in_the_program(
    count: int, trained: Path, project: QgsProject, tmp_path: Path
) -> None:
    import processing

    names, _, image, beside, _ = KINDS[count]
    *_, before_last, last = loss = losses(trained / f"{count}.run")
    assert before_last + last < 0.9 * sum(loss[:2])
    scene = scene_layer(trained / "held_out" / image)
    project.addMapLayer(scene)
    feedback = Feedback()
    chosen: dict[str, Any] = {
        "INPUT": scene,
        "MODEL_FILE": str(trained / f"{count}.safetensors"),
        "BESIDE": f"height={trained / 'held_out' / beside}" if beside else "",
        "DEVICE": "cpu",
        "LABELS": str(tmp_path / "l.tif"),
        "POLYGONS": str(tmp_path / "p.gpkg"),
    }
    processing.runAndLoadResults("geoglnet:segmentscene", chosen, feedback=feedback)
    assert pixels(tmp_path / "l.tif") == pixels(trained / f"{count}.tif")
    found = pixels(tmp_path / "l.tif")
    assert set(found) == {0, 1}
    labels, polygons = (project.mapLayersByName(kind)[0] for kind in ("labels", "polygons"))
    assert labels.crs().authid() == polygons.crs().authid() == UTM
    assert isinstance(labels.renderer(), QgsPalettedRasterRenderer)
    assert [entry.label for entry in labels.renderer().classes()] == ["open", "trees"]
    assert isinstance(polygons.renderer(), QgsCategorizedSymbolRenderer)
    assert [category.value() for category in polygons.renderer().categories()] == ["trees"]
    assert polygons.featureCount() > 0
    both = drawn([polygons, scene], tmp_path / "both.png")
    picture = drawn([labels], tmp_path / "labels.png")
    assert len({both.pixel(at % SIDE, at // SIDE) for at in range(len(found))}) > 2, "the scene shines through"
    shown = sum(picture.pixelColor(at % SIDE, at // SIDE) == TREES for at, value in enumerate(found) if value == 1)
    assert shown > 0.95 * found.count(1) > 0
    said = "\n".join(feedback.said)
    assert all(name in said for name in names)
    if count == 10:
        assert "model trees: bands 10, 9, 8, 7, 6, 5, 4, 3, 2, 1 as" in said
