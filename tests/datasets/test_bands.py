"""Bands of training scenes: found by name, selected, and read from other rasters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoglnet.bands import Bands
from geoglnet.datasets.images import iter_pairs
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import ImagesSource, source_files, source_from_plain
from geoglnet.errors import BandsError, SceneNotFoundError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from tests.rasters import noise, write_raster

LEGEND = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)
FOUR = Bands(("red", "green", "blue", "height"), (0.5,) * 4, (0.2,) * 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two scenes of blue, green, red (in words), their heights at half the resolution, and labels."""
    for number, name in enumerate("ab"):
        bgr = write_raster(tmp_path / f"{name}.tif", noise(3, 60, 80, seed=number))
        with rasterio.open(bgr, "r+") as dst:
            dst.descriptions = ("blue", "green", "red")
        place = Affine(1, 0, 500_000, 0, -1, 9_000_000)
        write_raster(tmp_path / f"{name}_dsm.tif", np.full((1, 30, 40), 50 + number, np.uint8), transform=place)
        write_raster(tmp_path / f"{name}_label.tif", np.ones((1, 60, 80), np.uint8))
    return tmp_path


def images(**changes: object) -> ImagesSource:
    source = source_from_plain({"images": "a.tif", "labels": "a_label.tif", **changes})
    assert isinstance(source, ImagesSource)
    return source


def test_training_scenes_are_read_in_the_models_order_with_their_heights(folder: Path) -> None:
    progress = RecordedProgress()
    reader = PairReader(folder, LEGEND, 0.5, progress, bands=FOUR)
    (pair,) = iter_pairs(images(beside={"height": "a_dsm.tif"}), reader)
    said = len(progress.events)
    region = pair.read_region(slice(10, 50), slice(20, 70))
    expected = noise(3, 60, 80)[::-1, 10:50, 20:70]
    assert (np.asarray(region.image)[:3] == expected).all()
    assert (np.asarray(region.image)[3] == 50).all()
    assert (region.labels == 1).all()
    assert len(progress.events) == said  # announced once, not at every read
    assert any("3 red, 2 green, 1 blue (by description)" in text for text in progress.messages("log"))


def test_a_star_finds_the_other_raster_of_each_scene(folder: Path) -> None:
    (folder / "img").mkdir()
    for name in "ab":
        (folder / f"{name}.tif").rename(folder / "img" / f"{name}.tif")
    source = images(images="img/*.tif", labels="*_label.tif", beside={"height": "*_dsm.tif"})
    pairs = list(iter_pairs(source, PairReader(folder, LEGEND, 0.5, RecordedProgress(), bands=FOUR)))
    heights = [np.asarray(pair.read_region(slice(0, 60), slice(0, 80)).image)[3] for pair in pairs]
    assert [float(height.mean()) for height in heights] == [50, 51]
    assert {path.name for path in source_files(source, folder)} >= {"a_dsm.tif", "b_dsm.tif", "a.tif", "b_label.tif"}


def test_bands_of_a_source_can_be_selected(folder: Path) -> None:
    for selection, order in ((["RGB"], [0, 1, 2]), ([1, "red", 2], [0, 2, 1])):
        reader = PairReader(folder, LEGEND, 0.5, RecordedProgress())
        (pair,) = iter_pairs(images(bands=selection), reader)
        assert (np.asarray(pair.read_region(slice(0, 60), slice(0, 80)).image) == noise(3, 60, 80)[order]).all()


def test_a_missing_band_or_raster_stops_the_training_in_one_line(folder: Path) -> None:
    reader = PairReader(folder, LEGEND, 0.5, RecordedProgress(), bands=FOUR)
    with pytest.raises(BandsError, match=r"a.tif has no band height .*it has 1 blue, 2 green, 3 red"):
        list(iter_pairs(images(), reader))
    with pytest.raises(SceneNotFoundError, match=r"nowhere\.tif does not exist"):
        list(iter_pairs(images(beside={"height": "nowhere.tif"}), reader))
