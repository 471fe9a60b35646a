"""Region samples of any GeoDataset: the same as those of our own training, bit by bit, in TorchGeo's keys and types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS
from rasterio.warp import Resampling, calculate_default_transform, reproject
from shapely import box
from torch.utils.data import DataLoader
from torchgeo.datasets import GeoDataset, RasterDataset, VectorDataset, roi_split

from geoglnet.bands import Bands
from geoglnet.config import RegionConfig, ScalingRule
from geoglnet.datasets.reader import PairReader, open_dataset
from geoglnet.datasets.regions import FILL_VALUE
from geoglnet.datasets.regions import collate as collate_regions
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.datasets.sources import RastersSource
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.errors import ConfigError, DatasetError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.torchgeo import GlobalLocalDataset, GriddedRegionSampler, RegionQuery, collate, region_batch
from geoglnet.torchgeo.adapter import ImageRasters, LabelRasters, Query, labels_of, query
from geoglnet.types import Shape
from tests.miniature import OWN_TRANSFORM, SIZE, blocks, picture
from tests.rasters import write_raster

pytestmark = pytest.mark.smoke

LEGEND = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)
REGION = RegionConfig(64, 32, 32, 8, 8)
SAMPLE = SampleConfig(64, 32, 2, 0.5)
WHOLE = query(OWN_TRANSFORM, Shape(SIZE, SIZE))


HOLES = np.ones((SIZE, SIZE), bool)
HOLES[20:50, 30:70] = False


def write_scene(folder: Path, number: int = 0, **options: Any) -> None:
    labels = blocks(2, seed=number)
    image = picture(labels * 5, number)
    transform = OWN_TRANSFORM @ Affine.translation(number * SIZE, 0)
    scale = options.pop("scale", 1)
    if "nodata" in options:
        image[:, ~HOLES] = options["nodata"]
    write_raster(
        folder / f"scene_{number}.tif", image.astype(options.pop("dtype", "uint8")) * scale, transform=transform, **options
    )
    write_raster(folder / f"truth_{number}.tif", labels[None], transform=transform)


def opened(folder: Path, pattern: str = "*") -> GeoDataset:
    paths = [sorted(map(str, folder.glob(f"{name}_{pattern}.tif"))) for name in ("scene", "truth")]
    images = ImageRasters(paths[0], cache=False)
    return images & LabelRasters(paths[1], crs=images.crs, res=images.res, cache=False)


def wrapped(dataset: GeoDataset, **changes: Any) -> GlobalLocalDataset:
    return GlobalLocalDataset(dataset, LEGEND, **({"region": REGION, "sample": SAMPLE} | changes))


def shifted(square: Any, length: int) -> tuple[int, int]:
    """Where training reads a square: inside its scene."""
    return tuple(min(max(start, 0), length - square.size) for start in (square.row, square.col))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("options", "bands"),
    [
        ({}, Bands()),
        ({"alpha": HOLES * 255}, Bands()),
        ({"dtype": "uint16", "scale": 40, "nodata": 0}, Bands()),
        ({"dtype": "uint16", "scale": 40, "valid": HOLES}, Bands(scaling=ScalingRule.PERCENTILES)),
    ],
    ids=["8 bits", "alpha", "16 bits", "floats with a mask"],
)
def test_samples_equal_those_of_training_bit_by_bit(tmp_path: Path, options: dict[str, Any], bands: Bands) -> None:
    write_scene(tmp_path, **options)
    reader = PairReader(tmp_path, LEGEND, 1.0, RecordedProgress(), bands=bands)
    source = RastersSource(images="scene_*.tif", labels="truth_*.tif")
    trained = open_dataset([source], reader, REGION, SAMPLE, AugmentConfig())
    trained.length, trained.seed = 5, 3
    ours = wrapped(opened(tmp_path), bands=bands, augment=AugmentConfig())
    assert ours.bands == trained.bands
    for index in range(len(trained)):
        rng = np.random.default_rng((trained.seed, index))  # as training draws: a scale, a place, then what is in the sample
        square = trained.sampler.draw(index, round(SAMPLE.region_size * trained.augment.draw_scale(rng)), rng)
        row, col = shifted(square, SIZE)
        place = query(OWN_TRANSFORM @ Affine.translation(col, row), Shape(square.size, square.size), square.size / 64)
        made, expected = ours.region_sample(place, rng), trained[index]
        for name in ("overview", "overview_labels", "patches", "patch_labels", "footprints"):
            assert torch.equal(getattr(made, name), getattr(expected, name)), name


def test_samples_have_the_keys_and_types_of_the_installed_torchgeo(tmp_path: Path) -> None:
    write_scene(tmp_path)
    dataset = opened(tmp_path)
    theirs, sample = dataset.datasets[0][WHOLE], wrapped(dataset)[WHOLE]
    assert theirs.keys() <= sample.keys()
    for key in theirs.keys() - {"image"}:
        assert type(sample[key]) is type(theirs[key]), key
    assert all(value is not None for value in sample.values())
    assert sample["image"].shape == (3, 48, 48)  # as much smaller than 96 as REGION says
    assert sample["mask"].shape == (SIZE, SIZE)
    assert (sample["mask"].dtype, sample["patch_masks"].dtype) == (torch.int64, torch.int64)
    assert sample["patches"].shape == (2, 3, 32, 32)
    assert Affine(*sample["transform"].tolist()[:6]) == OWN_TRANSFORM
    for patch, labels, footprint in zip(sample["patches"], sample["patch_masks"], sample["footprints"], strict=True):
        top, left, bottom, right = (round(float(v) * SIZE) for v in footprint)
        assert torch.equal(sample["mask"][top:bottom, left:right], labels)
        assert torch.equal(patch * 255, theirs["image"][:, top:bottom, left:right])


def test_samples_do_not_depend_on_what_is_kept_in_memory(tmp_path: Path) -> None:
    write_scene(tmp_path, valid=HOLES)
    kept, read = (wrapped(opened(tmp_path), sample=SampleConfig(64, 32, 2, cache_mb=mb)) for mb in (1, 0))
    for place in (WHOLE, query(OWN_TRANSFORM @ Affine.translation(9, -20), Shape(50, 70)), WHOLE):
        assert all(torch.equal(kept[place][key], read[place][key]) for key in ("image", "mask", "patches"))


def test_the_overview_is_the_same_query_with_a_coarser_step(tmp_path: Path) -> None:
    write_scene(tmp_path)
    dataset = opened(tmp_path)
    sample = wrapped(dataset)[WHOLE]
    coarse = dataset[query(OWN_TRANSFORM, Shape(SIZE, SIZE), step=2)]
    assert (sample["image"] * 255 - coarse["image"]).abs().mean() < 4
    half = wrapped(dataset, sample=SampleConfig(64, 32, 0))[query(OWN_TRANSFORM, Shape(SIZE, SIZE), step=2)]
    assert half["mask"].shape == (48, 48)


def test_nodata_is_no_value_where_torchgeo_reads_zeros(tmp_path: Path) -> None:
    write_scene(tmp_path, valid=HOLES)
    dataset, progress = opened(tmp_path), RecordedProgress()
    sample = wrapped(dataset, sample=SampleConfig(96, 96, 0), progress=progress)[WHOLE]
    assert (sample["mask"] == 255).numpy().sum() == (~HOLES).sum()
    holes = sample["patches"][0][:, torch.from_numpy(~HOLES)]
    assert torch.equal(holes, torch.full_like(holes, FILL_VALUE / 255))
    assert "the files of ImageRasters are read by geoglnet: nodata, alpha, bands by name" in progress.messages("log")


class OwnRasters(ImageRasters):
    """Read by a method of its own."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index)


def test_a_dataset_that_reads_in_its_own_way_is_read_that_way(tmp_path: Path) -> None:
    write_scene(tmp_path)
    plain, progress = opened(tmp_path), RecordedProgress()
    own = OwnRasters(plain.datasets[0].paths, cache=False) & plain.datasets[1]
    ours = wrapped(own, progress=progress)
    assert any("IntersectionDataset is read by its own __getitem__" in line for line in progress.messages("log"))
    expected = wrapped(plain)[WHOLE]
    assert all(torch.equal(ours[WHOLE][key], expected[key]) for key in ("image", "mask", "patches"))
    write_scene(tmp_path, dtype="uint16", scale=40)
    with pytest.raises(DatasetError, match="which are not 8-bit; say what they are with Bands"):
        ours[WHOLE]
    with pytest.raises(ConfigError, match=r"bands red, green, blue of IntersectionDataset need mean=… and std=…"):
        wrapped(own, bands=Bands(scaling=ScalingRule.PERCENTILES))


@pytest.mark.parametrize("spoiled", ["missing", "None"])
@pytest.mark.parametrize("key", ["image", "mask"])
def test_a_key_that_is_missing_or_none_is_an_error(tmp_path: Path, key: str, spoiled: str) -> None:
    """Read as zeros, it would make maps of one class."""
    write_scene(tmp_path)

    class Spoiled(OwnRasters):
        def __getitem__(self, index: Any) -> Any:
            sample = dataset[index]
            return sample | {key: None} if spoiled == "None" else {k: v for k, v in sample.items() if k != key}

    dataset = opened(tmp_path)
    with pytest.raises(
        DatasetError, match=f"TorchGeo .* is not supported: Spoiled gives samples with .*, and no tensor '{key}'"
    ):
        wrapped(Spoiled(dataset.datasets[0].paths, cache=False))[WHOLE]


def test_a_union_is_one_mosaic_and_a_split_shows_no_label_of_another(tmp_path: Path) -> None:
    for number in range(2):
        write_scene(tmp_path, number)
    one, other = (ImageRasters([str(tmp_path / f"scene_{number}.tif")], cache=False) for number in range(2))
    labels = opened(tmp_path).datasets[1]
    ours = wrapped((one | other) & labels)
    both = query(OWN_TRANSFORM, Shape(SIZE, 2 * SIZE))
    truth = np.concatenate([blocks(2, seed=0), blocks(2, seed=1)], axis=1)
    np.testing.assert_array_equal(ours[both]["mask"], truth)
    x, y = both
    train, _ = roi_split(ours, [box(x.start, y.start, x.start + 100, y.stop), box(x.start + 100, y.start, x.stop, y.stop)])
    mask = train[both]["mask"].numpy()
    np.testing.assert_array_equal(mask[:, :100], truth[:, :100])
    assert (mask[:, 100:] == 255).all()
    with pytest.raises(IndexError, match="no raster of UnionDataset"):
        ours[x.start + 5000 : x.stop + 5000, y]


class Dated(RasterDataset):
    filename_regex = r".*_(?P<date>\d{8})\.tif"


class DatedLabels(Dated):
    filename_glob = "truth_*"
    is_image = False


def test_a_query_of_a_time_reads_the_rasters_and_labels_of_that_time(tmp_path: Path) -> None:
    for day in (1, 2):
        image = np.full((3, SIZE, SIZE), 80 * day, np.uint8)
        write_raster(tmp_path / f"scene_2020010{day}.tif", image, transform=OWN_TRANSFORM)
        write_raster(tmp_path / f"truth_2020010{day}.tif", blocks(2, day)[None], transform=OWN_TRANSFORM)
    images = Dated(sorted(map(str, tmp_path.glob("scene_*"))), cache=False)
    ours = wrapped(images & DatedLabels(str(tmp_path), cache=False))
    for day in (1, 2):
        time = slice(pd.Timestamp(2020, 1, day, 1), pd.Timestamp(2020, 1, day, 2))
        sample = ours[(*WHOLE, time)]
        assert (sample["patches"] * 255).unique().round().tolist() == [80 * day]
        np.testing.assert_array_equal(sample["mask"], blocks(2, day))


def test_of_several_rasters_at_a_place_the_first_valid_pixel_counts(tmp_path: Path) -> None:
    write_raster(tmp_path / "scene_0.tif", np.full((3, SIZE, SIZE), 60, np.uint8), transform=OWN_TRANSFORM, valid=HOLES)
    write_raster(tmp_path / "scene_1.tif", np.full((3, SIZE, SIZE), 180, np.uint8), transform=OWN_TRANSFORM)
    write_raster(tmp_path / "truth_0.tif", blocks(2, 0)[None], transform=OWN_TRANSFORM)
    sample = wrapped(opened(tmp_path), sample=SampleConfig(96, 96, 0))[WHOLE]
    np.testing.assert_array_equal((sample["patches"][0, 0] * 255).round(), np.where(HOLES, 60, 180))
    np.testing.assert_array_equal(sample["mask"], blocks(2, 0))


def test_rasters_of_another_crs_are_warped_to_that_of_the_dataset(tmp_path: Path) -> None:
    write_scene(tmp_path)
    labels = blocks(2, 0)
    bounds = box(*OWN_TRANSFORM @ (0, SIZE), *OWN_TRANSFORM @ (SIZE, 0)).bounds
    transform, width, height = calculate_default_transform("EPSG:32736", "EPSG:3857", SIZE, SIZE, *bounds)
    warped = np.full((height, width), 255, np.uint8)
    grid = {"src_transform": OWN_TRANSFORM, "src_crs": "EPSG:32736", "dst_transform": transform, "dst_crs": "EPSG:3857"}
    reproject(labels, warped, **grid, resampling=Resampling.nearest, init_dest_nodata=False)
    write_raster(tmp_path / "mercator.tif", warped[None], crs="EPSG:3857", transform=transform, nodata=255)
    truth = LabelRasters([str(tmp_path / "mercator.tif")], cache=False)
    ours = wrapped(truth & ImageRasters([str(tmp_path / "scene_0.tif")], cache=False), sample=SampleConfig(96, 64, 1))
    assert CRS.from_user_input(ours.crs) == CRS.from_epsg(3857)
    sample = ours[query(transform, Shape(height, width))]
    image, mask = sample["patches"][0].mean(dim=0) * 255, sample["patch_masks"][0]
    known = mask != 255
    assert known.float().mean() > 0.9
    assert ((image > 102) == (mask == 1))[known].float().mean() > 0.95  # grays 40 and 165


def test_polygons_are_read_once_and_drawn_as_torchgeo_draws_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scene(tmp_path)
    x, y = WHOLE
    shapes = [box(x.start + 10, y.start + 7, x.start + 50.2, y.start + 60), box(x.start + 30, y.start + 40, x.stop, y.stop + 9)]
    table = geopandas.GeoDataFrame({"number": [7, 1]}, geometry=shapes, crs="EPSG:32736")
    table.to_crs("EPSG:4326").to_file(tmp_path / "drawn.gpkg")
    labels = VectorDataset(str(tmp_path / "drawn.gpkg"), label_name="number")
    dataset = ImageRasters([str(tmp_path / "scene_0.tif")], cache=False) & labels
    expected = dataset[WHOLE]["mask"].numpy()
    assert set(np.unique(expected)) == {0, 1, 7}
    with pytest.raises(DatasetError, match="VectorDataset has label 7, which the legend lacks"):
        wrapped(dataset)
    ours = GlobalLocalDataset(
        dataset, LEGEND, values={"0": "background", "1": "building", "7": "background"}, region=REGION, sample=SAMPLE
    )
    monkeypatch.setattr(VectorDataset, "__getitem__", None)
    mask = ours[WHOLE]["mask"].numpy()
    known = mask != 255
    np.testing.assert_array_equal(mask[known], (expected == 1)[known])
    left, bottom, right, top = dataset.index.total_bounds
    assert known.sum() == pytest.approx((right - left) * (top - bottom), rel=0.03)  # the bounds of the layer


def test_a_batch_has_all_patches_and_says_whose_they_are(tmp_path: Path) -> None:
    write_scene(tmp_path)
    ours = wrapped(opened(tmp_path))
    batch = collate([ours[WHOLE], ours[WHOLE]])
    assert batch["image"].shape == (2, 3, 48, 48)
    assert batch["overview_index"].tolist() == [0, 0, 1, 1]
    made = [ours.region_sample(WHOLE, np.random.default_rng(0)) for _ in range(2)]
    expected = collate_regions(made)
    assert region_batch(batch).patches.shape == expected.patches.shape
    assert torch.equal(region_batch(batch).overview_labels, expected.overview_labels)


def loaded(dataset: GlobalLocalDataset, workers: int) -> list[dict[str, Any]]:
    sampler = GriddedRegionSampler(dataset, 64, shuffle=True, generator=5)
    options = {"multiprocessing_context": "spawn"} if workers else {}
    return list(DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers, collate_fn=collate, **options))


@pytest.mark.slow
def test_samples_are_the_same_in_any_number_of_workers(tmp_path: Path) -> None:
    write_scene(tmp_path)
    ours = wrapped(opened(tmp_path), augment=AugmentConfig())
    batches = [loaded(ours, workers) for workers in (0, 2)]
    assert sum(len(batch["image"]) for batch in batches[0]) == 4
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("image", "mask", "patches", "footprints"))


@given(number=st.integers(0, 2**62))
def test_a_query_keeps_its_seed_on_its_way_to_another_process(number: int) -> None:
    import pickle

    place = RegionQuery((slice(0, 1), slice(2, 3), slice(4, 5)), (number, 7))
    again = pickle.loads(pickle.dumps(place))
    assert (tuple(again), again.seed) == (tuple(place), (number, 7))


def test_a_wrapped_dataset_keeps_its_grid(tmp_path: Path) -> None:
    write_scene(tmp_path)
    ours = wrapped(opened(tmp_path))
    with pytest.raises(DatasetError, match=r"set dataset\.res = 2\.0 before wrapping it"):
        ours.res = 2.0
    with pytest.raises(DatasetError, match="before wrapping it"):
        ours.crs = CRS.from_epsg(3857)
    with pytest.raises(DatasetError, match=r"a region of 20 × 20 px is smaller than its patches of 32 px"):
        ours[query(OWN_TRANSFORM, Shape(20, 20))]


def test_labels_are_read_at_a_place_as_before(tmp_path: Path) -> None:
    write_scene(tmp_path)
    place: Query = WHOLE
    assert labels_of(opened(tmp_path).datasets[1], place).shape == (SIZE, SIZE)
