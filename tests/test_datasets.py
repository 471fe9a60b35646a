"""Datasets: files to labelled scenes to region samples, drawn by seed alone."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyogrio.raw import write as write_layer
from rasterio.transform import from_origin
from rasterio.windows import Window
from shapely import box, to_wkb

from geoglnet.config import RegionConfig
from geoglnet.datasets.pairs import DecodedScene, Pair, PairReader
from geoglnet.datasets.regions import FILL_VALUE, LabelledRegion, RegionSample, collate, cut
from geoglnet.datasets.samplers import RegionDataset, SampleConfig, class_places, read_filled
from geoglnet.datasets.sources import SourceConfig
from geoglnet.datasets.transforms import AugmentConfig, recolour, resample, turn
from geoglnet.datasets.truth import ImageTruth, PolygonTruth
from geoglnet.errors import ConfigError, DatasetError, LegendError
from geoglnet.legend import Legend
from geoglnet.progress import SilentProgress
from geoglnet.types import Shape
from geoglnet.windows import patch_windows

LEGEND = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)
LAND = Legend(("urban", "water", "forest"), ((0, 255, 255), (0, 0, 255), (0, 255, 0)))
STILL = AugmentConfig(d4=False, scale_min=1, scale_max=1, colour=0)


def scene_of(labels: np.ndarray, name: str = "scene") -> DecodedScene:
    image = np.stack([labels * 40, labels, np.arange(labels.size, dtype=np.uint8).reshape(labels.shape)])
    return DecodedScene(name, LabelledRegion(image.astype(np.uint8), labels.astype(np.uint8)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A 0.5 m raster of 100 × 80 px in UTM with one building, and a label image."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "width": 100, "height": 80, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32736", "transform": from_origin(500_000, 9_000_000, 0.5, 0.5)}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, **place) as dst:
        dst.write(rng.integers(1, 255, (3, 80, 100), dtype=np.uint8))
    building = box(500_005, 8_999_980, 500_015, 8_999_990)
    write_layer(
        tmp_path / "a.gpkg", to_wkb(np.array([building])), [np.array(["building"], object)], ["kind"],
        geometry_type="Polygon", crs="EPSG:32736", driver="GPKG",
    )  # fmt: skip
    colours = np.zeros((3, 80, 100), np.uint8)
    colours[:, :40] = np.array([0, 0, 255])[:, None, None]
    with rasterio.open(tmp_path / "a_label.tif", "w", **profile, **place) as dst:
        dst.write(colours)
    return tmp_path


def reader(folder: Path, files: ExitStack, legend: Legend = LEGEND, resolution_m: float = 0.5) -> PairReader:
    return PairReader(folder, legend, resolution_m, files, SilentProgress())


def read_all(pair: Pair) -> LabelledRegion:
    return pair.read_region(Window(col_off=0, row_off=0, width=pair.shape.width, height=pair.shape.height))


def test_polygons_are_drawn_on_the_grid_of_the_scene(folder: Path) -> None:
    with ExitStack() as files:
        (pair,) = reader(folder, files).iter_pairs(SourceConfig(images="a.tif", polygons="a.gpkg"))
        labels = read_all(pair).labels
        expected = np.zeros((80, 100), np.uint8)
        expected[20:40, 10:30] = 1
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("resolution_m", [0.25, 1.0])
def test_polygons_are_drawn_at_the_resolution_of_the_model(folder: Path, resolution_m: float) -> None:
    with ExitStack() as files:
        (pair,) = reader(folder, files, resolution_m=resolution_m).iter_pairs(SourceConfig(images="a.tif", polygons="a.gpkg"))
        region = read_all(pair)
        # Ground distances differ from map distances by UTM's scale factor, at most 0.04 % here.
        assert abs(region.labels.sum() * resolution_m**2 - 100) < 3
        assert region.image.shape[1:] == region.labels.shape


@settings(max_examples=25, deadline=None)
@given(row=st.integers(0, 60), col=st.integers(0, 80), height=st.integers(1, 20), width=st.integers(1, 20))
def test_truth_of_a_window_is_the_window_of_the_truth(row: int, col: int, height: int, width: int) -> None:
    shapes = np.array([box(3.2, 4.7, 31.1, 22.5), box(40, 30, 77, 66)], dtype=object)
    truth = PolygonTruth(shapes, np.array([1, 1], np.uint8), rasterio.Affine.identity())
    whole = truth.read_labels(Window(col_off=0, row_off=0, width=100, height=80))
    part = truth.read_labels(Window(col_off=col, row_off=row, width=width, height=height))
    np.testing.assert_array_equal(part, whole[row : row + height, col : col + width])


def test_label_colours_become_the_legend_and_black_is_unlabelled(folder: Path) -> None:
    truth = ImageTruth(folder / "a_label.tif", LAND, Shape(40, 50))
    labels = truth.read_labels(Window(col_off=0, row_off=0, width=50, height=40))
    np.testing.assert_array_equal(np.unique(labels[:20]), [1])
    np.testing.assert_array_equal(np.unique(labels[20:]), [255])


def test_a_colour_outside_the_legend_is_an_error(folder: Path) -> None:
    truth = ImageTruth(folder / "a.tif", LAND, Shape(80, 100))
    with pytest.raises(DatasetError, match="has colour"):
        truth.read_labels(Window(col_off=0, row_off=0, width=10, height=10))


def test_a_class_outside_the_legend_is_an_error(folder: Path) -> None:
    with ExitStack() as files, pytest.raises(LegendError, match="no class 'building'"):
        list(reader(folder, files, LAND).iter_pairs(SourceConfig(images="a.tif", polygons="a.gpkg", class_column="kind")))


def test_stars_pair_images_with_their_truth(folder: Path) -> None:
    assert list(SourceConfig(images="*_label.tif", polygons="*.gpkg").iter_files(folder)) == [
        (folder / "a_label.tif", folder / "a.gpkg")
    ]
    with pytest.raises(DatasetError, match="has no truth"):
        list(SourceConfig(images="*.tif", labels="*_missing.tif").iter_files(folder))
    with pytest.raises(DatasetError, match="no file matches"):
        list(SourceConfig(images="*.jpg", labels="*_label.tif").iter_files(folder))


@pytest.mark.parametrize(
    "plain",
    [{}, {"images": "a"}, {"images": "a", "polygons": "b", "labels": "c"}, {"images": "*/*", "labels": "c"}, {"labels": "c"}],
)
def test_a_source_without_exactly_one_truth_is_refused(plain: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        SourceConfig(**plain)


def test_overview_patches_and_labels_agree() -> None:
    region = scene_of(np.random.default_rng(0).integers(0, 3, (96, 96))).whole
    windows = patch_windows(Shape(96, 96), 48, 16)
    image, labels = torch.from_numpy(region.image).float(), torch.from_numpy(region.labels)
    sample = cut(image, labels, Shape(32, 32), windows)
    assert sample.overview.shape == (3, 32, 32)
    for patch, patch_labels, footprint in zip(sample.patches, sample.patch_labels, sample.footprints, strict=True):
        top, left, bottom, right = (footprint * 96).round().int().tolist()
        assert torch.equal(patch, image[:, top:bottom, left:right])
        assert torch.equal(patch_labels, labels[top:bottom, left:right])
    batch = collate([sample, sample])
    assert batch.overview_index.tolist() == [0] * len(windows) + [1] * len(windows)


def dataset(**changes: object) -> RegionDataset:
    rng = np.random.default_rng(1)
    scenes = [scene_of(rng.integers(0, 2, (200, 150))), scene_of(np.full((40, 300), 255))]
    plain = {"augment": AugmentConfig(), "sample": SampleConfig(96, 48, 2, 0.5), "length": 8, "seed": 3} | changes
    return RegionDataset(scenes, [1.0, 1.0], RegionConfig(96, 48, 48, 16, 16), **plain)


def same(one: RegionSample, other: RegionSample) -> bool:
    return torch.equal(one.overview, other.overview) and torch.equal(one.patches, other.patches)


def test_a_sample_depends_on_seed_and_index_only() -> None:
    ours, theirs = dataset(), dataset()
    backwards = [theirs[i] for i in reversed(range(8))][::-1]
    assert all(same(ours[i], backwards[i]) for i in range(8))
    assert not same(ours[0], ours[1])
    assert not same(ours[0], dataset(seed=4)[0])


def test_samples_of_scenes_smaller_than_a_region_are_filled_unlabelled() -> None:
    region = read_filled(scene_of(np.ones((20, 60))), -5, 30, 48)
    assert region.labels.shape == (48, 48)
    assert (region.labels != 255).sum() == 20 * 48
    assert (region.image[:, region.labels == 255] == FILL_VALUE).all()


@settings(max_examples=50, deadline=None)
@given(row=st.integers(-100, 200), col=st.integers(-100, 200), size=st.integers(1, 90))
def test_a_filled_square_holds_as_much_of_the_scene_as_fits(row: int, col: int, size: int) -> None:
    region = read_filled(scene_of(np.ones((50, 70))), row, col, size)
    assert region.labels.shape == (size, size)
    assert (region.labels == 1).sum() == min(size, 50) * min(size, 70)


def test_rare_classes_are_found_and_drawn() -> None:
    labels = np.zeros((640, 640))
    labels[320:340, 320:340] = 1
    places = class_places([scene_of(labels)])
    assert set(places) == {0, 1}
    rare = dataset(sample=SampleConfig(96, 48, 1, 1.0), augment=STILL, length=40)
    rare.scenes = [scene_of(labels)]
    rare.__post_init__()
    seen = sum(bool((rare[i].overview_labels == 1).any()) for i in range(40))
    assert seen >= 10  # half of the samples on average; 1 in 40 without balancing


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_turning_keeps_image_and_labels_together(seed: int) -> None:
    labels = torch.arange(36).reshape(6, 6)
    image, turned = turn(labels[None].float(), labels, np.random.default_rng(seed))
    assert torch.equal(image[0].long(), turned)
    assert sorted(turned.flatten().tolist()) == list(range(36))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), strength=st.floats(0, 1))
def test_recoloured_images_stay_between_0_and_1(seed: int, strength: float) -> None:
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))
    out = recolour(image, strength, np.random.default_rng(seed))
    assert out.shape == image.shape
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.isfinite(out).all()


def test_resampling_invents_no_label() -> None:
    labels = torch.randint(0, 3, (31, 47), dtype=torch.uint8)
    image, scaled = resample(torch.rand(3, 31, 47), labels, (64, 20))
    assert image.shape[1:] == scaled.shape == (64, 20)
    assert set(scaled.unique().tolist()) <= {0, 1, 2}


def test_scenes_without_a_label_are_refused() -> None:
    with pytest.raises(DatasetError, match="none of 1 training scenes has a labelled pixel"):
        RegionDataset([scene_of(np.full((40, 40), 255))], [1.0], RegionConfig(), SampleConfig(), AugmentConfig(), 1)


@pytest.mark.parametrize(
    "plain", [{"patch_size": 16}, {"patch_size": 5000}, {"patches_per_region": 0}, {"balanced_fraction": 2.0}]
)
def test_samples_that_cannot_be_drawn_are_refused(plain: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(plain))):
        SampleConfig(**plain)


def test_another_ignore_value_in_the_files_is_no_class_in_the_labels(tmp_path: Path) -> None:
    values = np.array([[0, 1], [99, 2]], np.uint8)
    with rasterio.open(
        tmp_path / "labels.tif", "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8",
        crs="EPSG:32736", transform=from_origin(0, 2, 1, 1),
    ) as dst:  # fmt: skip
        dst.write(values, 1)
    truth = ImageTruth(tmp_path / "labels.tif", Legend(LAND.names, LAND.colours, ignore_value=99), Shape(2, 2))
    labels = truth.read_labels(Window(col_off=0, row_off=0, width=2, height=2))
    np.testing.assert_array_equal(labels, [[0, 1], [255, 2]])
    with pytest.raises(DatasetError, match="has label 99"):
        ImageTruth(tmp_path / "labels.tif", LAND, Shape(2, 2)).read_labels(Window(col_off=0, row_off=0, width=2, height=2))
