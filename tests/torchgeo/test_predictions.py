"""Label maps that predict wrote, as the labels of somebody else's training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from torchgeo.datasets import RasterDataset

import geoglnet
from geoglnet.config import RegionConfig
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.errors import DatasetError
from geoglnet.legend import Legend
from geoglnet.torchgeo import GlobalLocalDataset, Predictions
from geoglnet.torchgeo.adapter import ImageRasters, query
from geoglnet.types import Shape
from tests.miniature import OWN_TRANSFORM, SIZE, blocks, picture
from tests.rasters import noise, write_raster

pytestmark = pytest.mark.smoke

WHOLE = query(OWN_TRANSFORM, Shape(SIZE, SIZE))


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with a hole and a neighbor, with labels, confidence and polygons of a shipped model."""
    folder = tmp_path_factory.mktemp("predicted")
    valid = np.ones((SIZE, SIZE), bool)
    valid[:20, :30] = False
    (folder / "maps").mkdir()
    for number in range(2):
        transform = OWN_TRANSFORM @ OWN_TRANSFORM.translation(number * SIZE, 0)
        image = picture(blocks(2, number) * 5, number)
        scene = write_raster(folder / f"scene_{number}.tif", image, transform=transform, valid=valid)
        labels, confidence = (folder / "maps" / f"{layer}_{number}.tif" for layer in ("labels", "confidence"))
        geoglnet.predict(scene, labels, confidence_path=confidence, config=geoglnet.PredictConfig(resolution_m=1.0))
    return folder


def test_a_map_is_a_raster_dataset_with_its_legend(predicted: Path) -> None:
    predictions = Predictions(predicted / "maps")
    assert isinstance(predictions, RasterDataset)
    assert not predictions.is_image
    assert len(predictions) == 2  # confidence is no label map
    assert predictions.legend == geoglnet.load_model("buildings").legend
    assert predictions.classes == ("background", "building")
    assert len(predictions.cmap if isinstance(predictions.cmap, dict) else predictions.cmap.colors) >= 2
    with rasterio.open(predicted / "maps" / "labels_0.tif") as src:
        expected = src.read(1)
        assert CRS.from_wkt(predictions.crs.to_wkt()) == src.crs
    mask = predictions[WHOLE]["mask"].squeeze().numpy()
    np.testing.assert_array_equal(mask, expected)
    assert (mask[:20, :30] == 255).all()


def test_the_next_training_learns_from_maps_and_knows_nothing_outside(predicted: Path) -> None:
    images = ImageRasters([str(predicted / f"scene_{number}.tif") for number in range(2)], cache=False)
    predictions = Predictions(predicted / "maps" / "labels_0.tif", crs=images.crs, res=images.res)
    swapped = Legend(("building", "background"), predictions.legend.colors[::-1], background=1)
    options: dict[str, Any] = {"region": RegionConfig(64, 32, 32, 8, 8), "sample": SampleConfig(64, 32, 2)}
    ours = GlobalLocalDataset(images & predictions, predictions.legend, **options)
    x, y = WHOLE
    mask = ours[x.start : x.stop + SIZE, y.start : y.stop]["mask"].numpy()
    np.testing.assert_array_equal(mask[:, :SIZE], predictions[WHOLE]["mask"].squeeze())
    assert (mask[:, SIZE:] == 255).all()
    with pytest.raises(DatasetError, match="colors value 0 as 'background', the legend says 'building'"):
        GlobalLocalDataset(images & predictions, swapped, **options)
    other = GlobalLocalDataset(images & predictions, swapped, values=predictions.values, **options)[WHOLE]["mask"].numpy()
    known = other != 255
    np.testing.assert_array_equal(other[known], 1 - mask[:, :SIZE][known])
    assert set(np.unique(mask[:, :SIZE])) >= {0, 255}


def test_a_sample_is_drawn_in_the_legends_colors(predicted: Path) -> None:
    predictions = Predictions(predicted / "maps")
    sample = predictions[WHOLE]
    figure = predictions.plot(sample | {"prediction": sample["mask"]}, suptitle="two")
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("Mask", "Prediction")
    drawn, labels = first.images[0].get_array(), sample["mask"].squeeze().numpy()
    for value, color in enumerate(predictions.legend.colors):
        assert (drawn[labels == value][:, :3] == color).all()
    assert (drawn[labels == 255] == 0).all()


def test_files_without_a_legend_or_with_several_are_refused(predicted: Path, tmp_path: Path) -> None:
    write_raster(tmp_path / "plain.tif", noise(1, 32, 32))
    with pytest.raises(DatasetError, match="no label map with a legend"):
        Predictions(tmp_path)
    geoglnet.predict(predicted / "scene_0.tif", tmp_path / "cover.tif", model="landcover")
    with pytest.raises(DatasetError, match=r"(cover|labels_0)\.tif has the classes .*; open maps of one legend"):
        Predictions([tmp_path, predicted / "maps"])
