"""DeepGlobe, Inria and images without georeference as GeoDatasets, compared with TorchGeo's own classes on the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affine import Affine
from pyproj import CRS
from shapely import box
from torch.utils.data import DataLoader
from torchgeo import samplers
from torchgeo.datasets import DeepGlobeLandCover, InriaAerialImageLabeling, random_bbox_assignment, roi_split

from geoglnet.config import RegionConfig
from geoglnet.datasets.deepglobe import DEEPGLOBE_LEGEND
from geoglnet.datasets.reader import PairReader, open_dataset
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.datasets.sources import DeepGlobeSource, ImagesSource, InriaSource, IsicSource
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.legend import Legend
from geoglnet.progress import SilentProgress
from geoglnet.torchgeo import (
    BalancedRegionSampler,
    DeepGlobe,
    GlobalLocalDataset,
    GriddedRegionSampler,
    PixelFrameDataset,
    RandomRegionSampler,
    collate,
    inria_cities,
)
from geoglnet.torchgeo.adapter import query
from geoglnet.torchgeo.inria import INRIA_LEGEND
from geoglnet.torchgeo.pixel_frame import STRIDE
from geoglnet.types import Shape
from tests.miniature import INRIA_CRS, SIZE, blocks, picture, write_deepglobe, write_image, write_inria, write_isic

pytestmark = pytest.mark.smoke

REGION = RegionConfig(64, 32, 32, 8, 8)
SAMPLE = SampleConfig(64, 32, 2, 0.5)
LESIONS = Legend(("background", "lesion"), ((0, 0, 0), (255, 0, 0)), background=0)
AUTHORS = Legend(
    (*DEEPGLOBE_LEGEND.names[-1:], *DEEPGLOBE_LEGEND.names[:-1]), DEEPGLOBE_LEGEND.colors[-1:] + DEEPGLOBE_LEGEND.colors[:-1]
)


def at(number: int, row: int = 0, col: int = 0, size: int = SIZE) -> Any:
    return query(Affine(1, 0, number * STRIDE + col, 0, -1, -row), Shape(size, size))


@pytest.mark.parametrize("split", ["train", "test"])
def test_deepglobe_holds_what_torchgeos_own_class_reads(tmp_path: Path, split: str) -> None:
    theirs = DeepGlobeLandCover(str(write_deepglobe(tmp_path, "torchgeo")), split, checksum=False)
    ours = DeepGlobe(tmp_path, split, splits="folders")
    assert len(ours) == len(theirs) == 2
    assert [name.lower().split()[0] for name in theirs.classes] == list(ours.legend.names)
    assert tuple(map(tuple, theirs.colormap)) == ours.legend.colors
    for number in range(2):
        sample, expected = ours[at(number)], theirs[number]
        assert Path(theirs.image_fns[number]) == Path(ours.paths[number])
        assert (sample["image"] - expected["image"]).abs().mean() < 1  # decoders of JPEG have ways of their own with colors
        assert torch.equal(sample["mask"], expected["mask"])


def test_another_order_of_classes_is_mapped_by_name(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    theirs, authors = DeepGlobe(tmp_path), DeepGlobe(tmp_path, legend=AUTHORS)
    assert torch.equal(authors[at(1)]["mask"], (theirs[at(1)]["mask"] + 1) % 7)
    for legend in (DEEPGLOBE_LEGEND, AUTHORS):  # whatever the dataset's own legend is
        wrapped = GlobalLocalDataset(theirs, legend, region=REGION, sample=SAMPLE)
        assert torch.equal(wrapped[at(1)]["mask"], DeepGlobe(tmp_path, legend=legend)[at(1)]["mask"])


def test_the_frame_is_where_its_documentation_says(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    dataset = DeepGlobe(tmp_path)
    assert (dataset.res, STRIDE) == ((1.0, 1.0), 65_536)
    assert dataset.crs.is_engineering
    assert CRS.from_user_input(dataset.crs.to_wkt()) == dataset.crs
    assert dataset.index.geometry.bounds.to_numpy().tolist() == [[0, -96, 96, 0], [65_536, -96, 65_632, 0]]
    with pytest.raises(IndexError, match="no raster of DeepGlobe is at"):
        dataset[at(5)]
    part = dataset[at(1, row=10, col=20, size=30)]
    assert torch.equal(part["mask"], dataset[at(1)]["mask"][10:40, 20:50])
    assert Affine(*part["transform"].tolist()[:6]) == Affine(1, 0, 65_556, 0, -1, -10)
    x, y = at(1)
    half = dataset[x.start : x.stop : 2, y.start : y.stop : 2]
    assert half["image"].shape == (3, 48, 48)
    assert half["mask"].shape == (48, 48)


SOURCES = {
    "deepglobe": (write_deepglobe, DeepGlobeSource(), DEEPGLOBE_LEGEND),
    "isic": (write_isic, IsicSource(split="all", longest_side=120), LESIONS),
    "images": (
        lambda root: [
            write_image(root / name / f"{number}.png", array)
            for number in range(3)
            for name, array in (("images", picture(blocks(2, number) * 5, number)), ("labels", blocks(2, number)[None]))
        ],
        ImagesSource(images="images/*.png", labels="labels/*.png"),
        INRIA_LEGEND,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SOURCES)
def test_samples_of_images_without_georeference_equal_those_of_training_bit_by_bit(tmp_path: Path, kind: str) -> None:
    write, source, legend = SOURCES[kind]
    write(tmp_path)
    resolution_m = getattr(source, "pixel_size_m", 0) or 1.0
    reader = PairReader(tmp_path, legend, resolution_m, SilentProgress())
    trained = open_dataset([source], reader, REGION, SAMPLE, AugmentConfig())
    trained.length, trained.seed = 6, 3
    ours = GlobalLocalDataset(
        PixelFrameDataset(source, tmp_path, legend, resolution_m=resolution_m),
        legend,
        region=REGION,
        sample=SAMPLE,
        augment=AugmentConfig(),
    )
    for index in range(len(trained)):
        rng = np.random.default_rng((trained.seed, index))  # as training draws: a scale, a place, then what is in the sample
        square = trained.sampler.draw(index, round(SAMPLE.region_size * trained.augment.draw_scale(rng)), rng)
        shape = trained.scenes[square.scene].shape
        row, col = (min(max(start, 0), side - square.size) for start, side in zip((square.row, square.col), shape, strict=True))
        place = at(square.scene, row, col, square.size)
        made = ours.region_sample((*(slice(a.start, a.stop, square.size / 64) for a in place),), rng)
        for name in ("overview", "overview_labels", "patches", "patch_labels", "footprints"):
            assert torch.equal(getattr(made, name), getattr(trained[index], name)), (index, name)


def test_samplers_of_both_kinds_reach_every_image_and_nothing_between_them(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    plain = DeepGlobe(tmp_path)
    wrapped = GlobalLocalDataset(plain, DEEPGLOBE_LEGEND, region=REGION, sample=SAMPLE)
    for sampler in (
        RandomRegionSampler(wrapped, 64, length=12, generator=1),
        GriddedRegionSampler(wrapped, 64),
        BalancedRegionSampler(wrapped, 64, length=12, generator=1),
    ):
        batches = list(DataLoader(wrapped, 4, sampler=sampler, collate_fn=collate))
        assert all((batch["mask"] < 7).all() for batch in batches)
        lefts = {float(place[0].start) // STRIDE for place in sampler}
        assert lefts == {0, 1}
    theirs = getattr(samplers, "GriddedPatchSampler", None) or samplers.GridGeoSampler  # before TorchGeo 0.10
    assert sum((plain[place]["mask"] < 7).sum() for place in theirs(plain, size=48, stride=48)) == 2 * SIZE * SIZE


def test_torchgeos_splits_of_the_frame_hold_their_own_images_alone(tmp_path: Path) -> None:
    write_deepglobe(tmp_path, per_split=3)
    dataset = DeepGlobe(tmp_path)
    halves = [box(STRIDE, -40, STRIDE + SIZE, 0), box(STRIDE, -SIZE, STRIDE + SIZE, -40)]
    whole, (upper, lower) = dataset[at(1)]["mask"], roi_split(dataset, halves)
    for part, rows in ((upper, slice(0, 40)), (lower, slice(40, SIZE))):
        assert len(part) == 1
        assert torch.equal(part[at(1)]["mask"], whole)
        wrapped = GlobalLocalDataset(part, DEEPGLOBE_LEGEND, region=REGION, sample=SAMPLE)
        mask = wrapped[at(1)]["mask"]
        assert torch.equal(mask[rows], whole[rows])
        assert (mask != 255).sum() == (rows.stop - rows.start) * SIZE
        for place in RandomRegionSampler(wrapped, 32, length=8, generator=0):
            assert (wrapped[place]["mask"] != 255).all()
    first, second = random_bbox_assignment(dataset, [1, 2], torch.Generator().manual_seed(1))
    assert sorted(float(left) // STRIDE for part in (first, second) for left in part.index.bounds.minx) == [0, 1, 2]
    for part in (first, second):
        wrapped = GlobalLocalDataset(part, DEEPGLOBE_LEGEND, region=REGION, sample=SAMPLE)
        for left in part.index.bounds.minx:
            assert torch.equal(wrapped[at(int(left) // STRIDE)]["mask"], dataset[at(int(left) // STRIDE)]["mask"])


@pytest.mark.parametrize(("split", "theirs"), [("train", "train"), ("validation", "val")])
def test_inria_holds_what_torchgeos_own_class_reads_in_its_real_crs(
    tmp_path: Path, split: str, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inria(tmp_path)
    (tmp_path / "AerialImageDataset7").rename(tmp_path / "AerialImageDataset")  # as TorchGeo calls it
    monkeypatch.chdir(tmp_path)  # TorchGeo 0.8 takes the first number in the whole path for the tile's
    expected = InriaAerialImageLabeling(".", theirs, checksum=False)
    cities = inria_cities(".", split, "official")
    assert {city: dataset.crs.to_epsg() for city, dataset in cities.items()} == {
        city: int(crs.split(":")[1]) for city, crs in INRIA_CRS.items()
    }
    assert sum(len(dataset.datasets[0]) for dataset in cities.values()) == len(expected.files)
    for city, dataset in cities.items():
        wrapped = GlobalLocalDataset(dataset, INRIA_LEGEND, region=REGION, sample=SAMPLE)
        images = dataset.datasets[0].index
        for path, (left, bottom, right, top) in zip(images.filepath, images.geometry.bounds.to_numpy(), strict=True):
            assert Path(path).name.startswith(city)
            (number,) = [n for n, file in enumerate(expected.files) if Path(file["image"]) == Path(path)]
            for sample in (dataset[left:right, bottom:top], wrapped[left:right, bottom:top]):
                assert torch.equal(sample["mask"].squeeze(), expected[number]["mask"].squeeze().long())
            assert torch.equal(dataset[left:right, bottom:top]["image"], expected[number]["image"])


def test_the_authors_splits_of_inria_are_taken_too(tmp_path: Path) -> None:
    write_inria(tmp_path)
    cities = inria_cities(tmp_path, "train", "glnet")
    ours = {Path(path).stem for dataset in cities.values() for path in dataset.datasets[0].index.filepath}
    reader = PairReader(tmp_path, INRIA_LEGEND, 0.3, SilentProgress())
    assert ours == {Path(pair.name).stem for pair in reader.iter_pairs(InriaSource())}
