"""Datasets with a file for each band, and intersections of images: read by our reader, as single rasters are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affine import Affine
from torchgeo.datasets import RasterDataset, Sentinel2

from geoglnet.bands import Bands, ValueRange
from geoglnet.config import RegionConfig, ScalingRule
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.errors import DatasetError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.torchgeo import BalancedRegionSampler, GlobalLocalDataset
from geoglnet.torchgeo.adapter import ImageRasters, LabelRasters, query
from geoglnet.types import Shape
from tests.miniature import SIZE, blocks, write_sentinel2
from tests.rasters import write_raster

pytestmark = pytest.mark.smoke

LEGEND = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)
REGION = RegionConfig(96, 48, 32, 8, 8)
SAMPLE = SampleConfig(96, 96, 0)
TEN_METERS = Affine(10, 0, 500_000, 0, -10, 9_000_000)
WHOLE = query(TEN_METERS, Shape(SIZE, SIZE))
COUNTS = ValueRange(0, 10_000)


def counts(*names: str) -> Bands:
    return Bands(names, (0.5,) * len(names), (0.25,) * len(names), COUNTS)


def wrapped(dataset: Any, bands: Bands, **changes: Any) -> GlobalLocalDataset:
    return GlobalLocalDataset(dataset, LEGEND, bands=bands, **({"region": REGION, "sample": SAMPLE} | changes))


def labels_for(images: Any, folder: Path) -> LabelRasters:
    path = write_raster(folder / "truth.tif", blocks(2, 5)[None], transform=TEN_METERS)
    return LabelRasters([str(path)], crs=images.crs, res=images.res, cache=False)


@pytest.mark.parametrize("named", [True, False], ids=["common names", "codes"])
def test_bands_in_a_file_each_are_found_by_name_and_read_without_nodata(tmp_path: Path, named: bool) -> None:
    written = write_sentinel2(tmp_path, TEN_METERS)
    images = Sentinel2(str(tmp_path), bands=["B02", "B03", "B04", "B8A"], cache=False)
    dataset, progress = images & labels_for(images, tmp_path), RecordedProgress()
    names = ("red", "green", "nir08", "blue") if named else ("B04", "B03", "B8A", "B02")
    ours = wrapped(dataset, counts(*names), progress=progress)
    assert "the files of Sentinel2 are read by geoglnet: nodata, alpha, bands by name" in progress.messages("log")
    sample, theirs = ours[WHOLE], images[WHOLE]["image"] / 10_000
    known = sample["patch_masks"][0] != 255
    np.testing.assert_array_equal(known, written["B04"] != 0)  # what is nodata in one band is known in none
    np.testing.assert_array_equal(sample["patch_masks"][0][known], blocks(2, 5)[known])
    for ours_at, theirs_at in ((0, 2), (1, 1), (3, 0)):  # bands of 10 m: value by value
        torch.testing.assert_close(sample["patches"][0, ours_at][known], theirs[theirs_at][known], rtol=0, atol=1e-6)
    inner = torch.zeros_like(known)
    inner[70:92, 4:92] = True  # away from nodata, whose zeros TorchGeo interpolates into its neighbors
    assert (sample["patches"][0, 2] - theirs[3])[inner].abs().mean() < 0.02  # 20 m, interpolated
    assert (sample["patches"][0, :, ~known] == 0.5).all()  # the bands' mean


def test_a_subset_of_the_bands_may_be_taken_and_a_missing_one_is_named(tmp_path: Path) -> None:
    write_sentinel2(tmp_path, TEN_METERS)
    images = Sentinel2(str(tmp_path), bands=["B02", "B03", "B04", "B8A"], cache=False)
    dataset = images & labels_for(images, tmp_path)
    whole, part = (wrapped(dataset, counts(*names))[WHOLE] for names in (("red", "green", "blue", "nir08"), ("red",)))
    assert torch.equal(part["patches"][0, 0], whole["patches"][0, 0])
    with pytest.raises(
        DatasetError, match=r"Sentinel2 has the bands B02 \(blue\), B03 \(green\), B04 \(red\), B8A \(nir08\), and no 'swir16'"
    ):
        wrapped(dataset, counts("red", "swir16"))


class Numbered(RasterDataset):
    """Bands with names of one's own."""

    filename_glob = "place_one.tif"
    filename_regex = r"place_(?P<band>one|two)\.tif"
    all_bands = ("one", "two")
    separate_files = True


def test_bands_with_names_of_ones_own_are_taken_in_their_order(tmp_path: Path) -> None:
    arrays = [np.random.default_rng(n).integers(1, 200, (1, SIZE, SIZE), np.uint8) for n in range(2)]
    for name, array in zip(("one", "two"), arrays, strict=True):
        write_raster(tmp_path / f"place_{name}.tif", array, transform=TEN_METERS)
    images = Numbered(str(tmp_path), cache=False)
    bands = Bands(("first", "second"), (0.5, 0.5), (0.2, 0.2), ScalingRule.AS_IS)
    sample = wrapped(images & labels_for(images, tmp_path), bands)[WHOLE]
    np.testing.assert_array_equal((sample["patches"][0] * 255).round(), np.concatenate(arrays))


def stacked(folder: Path, crs: str = "EPSG:32736") -> tuple[Any, np.ndarray, np.ndarray]:
    """Color at 10 m with holes, and heights at 20 m with other holes, as two image datasets."""
    color = np.random.default_rng(1).integers(1, 255, (3, SIZE, SIZE), np.uint8)
    holes = np.ones((SIZE, SIZE), bool)
    holes[:16, :32] = False
    write_raster(folder / "color.tif", color, transform=TEN_METERS, valid=holes)
    height = np.add.outer(np.arange(SIZE // 2) / 10, np.linspace(1, 25, SIZE // 2)).astype(np.float32)[None]
    height[:, 40:, 40:] = np.nan
    write_raster(folder / "height.tif", height, transform=TEN_METERS @ Affine.scale(2))
    images = ImageRasters([str(folder / "color.tif")], cache=False)
    return images & ImageRasters([str(folder / "height.tif")], cache=False), color, holes


STACK = Bands(
    ("red", "green", "blue", "height"), (0.5,) * 4, (0.25,) * 4, (*(ScalingRule.AS_IS,) * 3, ValueRange(0, 30))
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:All-NaN", "ignore:invalid value:RuntimeWarning")
def test_images_that_are_intersected_are_stacked_with_the_rules_of_each(tmp_path: Path) -> None:
    images, color, holes = stacked(tmp_path)
    progress = RecordedProgress()
    ours = wrapped(images & labels_for(images, tmp_path), STACK, progress=progress)
    assert any("are read by geoglnet" in line for line in progress.messages("log"))
    sample = ours[WHOLE]
    known = (sample["patch_masks"][0] != 255).numpy()
    assert not known[~holes].any()
    assert not known[82:, 82:].any()  # no height
    assert known[20:76, :].all()
    np.testing.assert_array_equal((sample["patches"][0, :3].numpy() * 255).round()[:, known], color[:, known])
    expected = np.interp(np.arange(SIZE) / 2 - 0.25, np.arange(SIZE // 2), np.linspace(1, 25, SIZE // 2)) + 1.975  # of row 39.5
    np.testing.assert_allclose(sample["patches"][0, 3, 39].numpy()[2:-2] * 30, expected[2:-2], atol=0.1)
    sampler = BalancedRegionSampler(ours, 48, length=4, generator=0)  # its survey reads labels alone
    assert set(sampler.places) == {0, 1}


@pytest.mark.filterwarnings("ignore:All-NaN", "ignore:invalid value:RuntimeWarning")
def test_mean_and_std_of_a_stack_are_measured_for_each_band(tmp_path: Path) -> None:
    images, color, holes = stacked(tmp_path)
    unknown = Bands(STACK.names, scaling=STACK.scaling)
    ours = wrapped(images & labels_for(images, tmp_path), unknown)
    np.testing.assert_allclose(ours.bands.mean[:3], color[:, holes].mean(axis=1) / 255, atol=2e-3)
    assert ours.bands.mean[3] == pytest.approx(15 / 30, abs=0.05)
    with pytest.raises(DatasetError, match=r"ImageRasters \(3\) & ImageRasters \(1\) have 4 bands; name them all"):
        wrapped(images & labels_for(images, tmp_path), Bands())
