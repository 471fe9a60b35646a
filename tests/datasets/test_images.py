"""Datasets: files to labeled scenes, on one grid; what cannot be used is named, what is left out is counted."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.windows import Window
from shapely import box

from geoglnet.config import RegionConfig
from geoglnet.datasets.coding import legend_coding
from geoglnet.datasets.images import iter_files
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader, open_dataset
from geoglnet.datasets.regions import DecodedScene, LabeledRegion, collate, cut
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.datasets.sources import SOURCE_KINDS, GeneratedSource, ImagesSource, source_from_plain
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.datasets.truth import ImageTruth, LabelPolygons, PolygonTruth
from geoglnet.errors import ConfigError, DatasetError, LegendError, SceneError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.types import Shape
from geoglnet.vector.polygon_reader import read_polygons
from geoglnet.windows import patch_windows
from tests.miniature import write_layer_of
from tests.rasters import noise, write_raster

LEGEND = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)
LAND = Legend(("urban", "water", "forest"), ((0, 255, 255), (0, 0, 255), (0, 255, 0)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A 0.5 m raster of 100 × 80 px in UTM with one building, and a label image."""
    transform = from_origin(500_000, 9_000_000, 0.5, 0.5)
    write_raster(tmp_path / "a.tif", noise(3, 80, 100), transform=transform)
    building = np.array([box(500_005, 8_999_980, 500_015, 8_999_990)], object)
    write_layer_of(tmp_path / "a.gpkg", {"building": building}, "EPSG:32736")
    colors = np.zeros((3, 80, 100), np.uint8)
    colors[:, :40] = np.array([0, 0, 255])[:, None, None]
    write_raster(tmp_path / "a_label.tif", colors, transform=transform)
    return tmp_path


def reader(folder: Path, legend: Legend = LEGEND, resolution_m: float = 0.5, **options: Any) -> PairReader:
    return PairReader(folder, legend, resolution_m, RecordedProgress(), **options)


def read_all(pair: Pair) -> LabeledRegion:
    return pair.read_region(slice(0, pair.shape.height), slice(0, pair.shape.width))


def buildings(**changes: Any) -> ImagesSource:
    return ImagesSource(**({"images": "a.tif", "polygons": "a.gpkg", "unlabeled": "background"} | changes))


def test_polygons_are_drawn_on_the_grid_of_the_scene(folder: Path) -> None:
    (pair,) = reader(folder).iter_pairs(buildings())
    expected = np.zeros((80, 100), np.uint8)
    expected[20:40, 10:30] = 1
    np.testing.assert_array_equal(read_all(pair).labels, expected)
    np.testing.assert_array_equal(pair.read_labels(slice(15, 45), slice(5, 50)), expected[15:45, 5:50])


def test_what_lies_outside_polygons_is_unlabeled_unless_said(folder: Path) -> None:
    (pair,) = reader(folder).iter_pairs(buildings(unlabeled="ignore"))
    assert set(np.unique(read_all(pair).labels)) == {1, 255}
    with pytest.raises(LegendError, match="needs a background class"):
        list(reader(folder, LAND).iter_pairs(buildings()))


@pytest.mark.parametrize("resolution_m", [0.25, 1.0])
def test_polygons_are_drawn_at_the_resolution_of_the_model(folder: Path, resolution_m: float) -> None:
    (pair,) = reader(folder, resolution_m=resolution_m).iter_pairs(buildings())
    region = read_all(pair)
    # Ground distances differ from map distances by UTM's scale factor, at most 0.04 % here.
    assert abs(region.labels.sum() * resolution_m**2 - 100) < 3
    assert region.image.shape[1:] == region.labels.shape


@settings(max_examples=25, deadline=None)
@given(row=st.integers(0, 60), col=st.integers(0, 80), height=st.integers(1, 20), width=st.integers(1, 20))
def test_truth_of_a_window_is_the_window_of_the_truth(row: int, col: int, height: int, width: int) -> None:
    shapes = np.array([box(3.2, 4.7, 31.1, 22.5), box(40, 30, 77, 66)], dtype=object)
    truth = PolygonTruth(LabelPolygons(shapes, np.array([1, 1], np.uint8)), rasterio.Affine.identity(), fill=0)
    whole = truth.read_labels(Window(col_off=0, row_off=0, width=100, height=80))
    part = truth.read_labels(Window(col_off=col, row_off=row, width=width, height=height))
    np.testing.assert_array_equal(part, whole[row : row + height, col : col + width])


def test_label_colors_become_the_legend_and_black_is_unlabeled(folder: Path) -> None:
    truth = ImageTruth(folder / "a_label.tif", legend_coding(LAND, {}, ()), Shape(40, 50))
    labels = truth.read_labels(Window(col_off=0, row_off=0, width=50, height=40))
    np.testing.assert_array_equal(np.unique(labels[:20]), [1])
    np.testing.assert_array_equal(np.unique(labels[20:]), [255])


def test_a_color_outside_the_legend_is_an_error_with_its_pixel(folder: Path) -> None:
    with rasterio.open(folder / "a_label.tif", "r+") as dst:
        dst.write(np.full((3, 1, 1), 77, np.uint8), window=Window(col_off=33, row_off=7, width=1, height=1))
    truth = ImageTruth(folder / "a_label.tif", legend_coding(LAND, {}, ()), Shape(80, 100))
    with pytest.raises(DatasetError, match=r"a_label\.tif has color \(77, 77, 77\) at row 7, column 33"):
        truth.read_labels(Window(col_off=20, row_off=0, width=30, height=10))


def test_a_class_outside_the_legend_is_an_error_that_counts(folder: Path) -> None:
    with pytest.raises(LegendError, match=r"class 'building' in 'kind' \(1 polygons\), which the legend lacks"):
        list(reader(folder, LAND).iter_pairs(buildings(class_column="kind", unlabeled="ignore")))


def test_classes_of_a_column_are_renamed_or_ignored_when_said(folder: Path) -> None:
    changes = {"class_column": "kind", "unlabeled": "ignore", "values": {"building": "urban"}}
    (renamed,) = reader(folder, LAND).iter_pairs(buildings(**changes))
    assert set(np.unique(read_all(renamed).labels)) == {0, 255}
    (ignored,) = reader(folder).iter_pairs(buildings(class_column="kind", ignore=("building",)))
    assert set(np.unique(read_all(ignored).labels)) == {0, 255}


def test_stars_pair_images_with_their_truth(folder: Path) -> None:
    files = reader(folder)
    found = list(iter_files(ImagesSource(images="*_label.tif", polygons="*.gpkg"), files))
    assert found == [(folder / "a_label.tif", folder / "a.gpkg")]
    with pytest.raises(DatasetError, match="has no truth"):
        list(iter_files(ImagesSource(images="*.tif", labels="*_missing.tif"), files))
    with pytest.raises(DatasetError, match="no file matches"):
        list(iter_files(ImagesSource(images="*.jpg", labels="*_label.tif"), files))
    elsewhere = ImagesSource(images=f"{folder}/*_label.tif", polygons=f"{folder}/*.gpkg")
    assert list(iter_files(elsewhere, reader(folder / "other"))) == found
    with pytest.raises(DatasetError, match="write / between folders"):
        files.matching(r"..\*.tif")


def test_a_label_image_of_another_size_is_refused_with_both_sizes(folder: Path) -> None:
    write_raster(folder / "b_label.tif", np.zeros((1, 40, 50), np.uint8), crs=None)
    with pytest.raises(DatasetError, match=r"b_label\.tif is 50 × 40 px, a\.tif is 100 × 80 px"):
        list(reader(folder).iter_pairs(ImagesSource(images="a.tif", labels="b_label.tif")))


def test_polygons_in_another_crs_are_reprojected_and_that_is_said(folder: Path) -> None:
    (pair,) = reader(folder).iter_pairs(buildings())
    geopandas.read_file(folder / "a.gpkg").to_crs(4326).to_file(folder / "lonlat.geojson")
    theirs = reader(folder)
    (other,) = theirs.iter_pairs(buildings(polygons="lonlat.geojson"))
    assert (read_all(other).labels != read_all(pair).labels).sum() <= 4
    said = "lonlat.geojson is in EPSG:4326, its raster in EPSG:32736: polygons are reprojected"
    assert said in theirs.progress.messages("log")
    assert not [line for line in reader(folder).progress.messages("log") if "reprojected" in line]


def test_an_empty_vector_layer_is_refused(folder: Path) -> None:
    write_layer_of(folder / "empty.gpkg", {}, "EPSG:32736")
    with pytest.raises(DatasetError, match=r"empty\.gpkg holds no polygons"):
        list(reader(folder).iter_pairs(buildings(polygons="empty.gpkg")))


def test_one_layer_of_several_is_read_when_it_is_named(folder: Path) -> None:
    for layer, left in (("roads", 500_040), ("houses", 500_000)):
        shape = np.array([box(left, 8_999_990, left + 5, 9_000_000)], object)
        write_layer_of(folder / "many.gpkg", {"building": shape}, "EPSG:32736", layer=layer)
    polygons = read_polygons(folder / "many.gpkg", "EPSG:32736", layer="houses")
    assert shapely.get_coordinates(polygons.geometries).min(axis=0)[0] == 500_000
    with pytest.raises(DatasetError, match="did you mean 'houses'"):
        read_polygons(folder / "many.gpkg", "EPSG:32736", layer="house")


def test_a_palette_that_contradicts_the_legend_is_refused(folder: Path) -> None:
    path = write_raster(folder / "p_label.tif", np.ones((1, 80, 100), np.uint8))
    with rasterio.open(path, "r+") as dst:
        dst.write_colormap(1, {0: (0, 0, 255, 255), 1: (0, 255, 255, 255), 2: (0, 255, 0, 255)})  # water first
    with pytest.raises(DatasetError, match="colors value 0 as 'water', the legend says 'urban'"):
        list(reader(folder, LAND).iter_pairs(ImagesSource(images="a.tif", labels="p_label.tif")))
    values = {"0": "water", "1": "urban", "2": "forest"}
    (pair,) = reader(folder, LAND).iter_pairs(ImagesSource(images="a.tif", labels="p_label.tif", values=values))
    assert set(np.unique(read_all(pair).labels)) == {0}


def test_nodata_of_a_label_image_is_unlabeled_or_background_as_said(folder: Path) -> None:
    values = np.ones((1, 80, 100), np.uint8)
    values[:, :40] = 0
    write_raster(folder / "n_label.tif", values, nodata=0)
    source = ImagesSource(images="a.tif", labels="n_label.tif")
    (pair,) = reader(folder).iter_pairs(source)
    assert set(np.unique(read_all(pair).labels)) == {1, 255}
    (filled,) = reader(folder).iter_pairs(replace(source, unlabeled="background"))
    assert set(np.unique(read_all(filled).labels)) == {0, 1}


def test_a_truncated_jpeg_is_an_error_and_left_out_only_when_asked_for(tmp_path: Path) -> None:
    for name in "ab":
        write_raster(tmp_path / f"{name}.jpg", noise(3, 300, 300), crs=None, driver="JPEG")
        write_raster(tmp_path / f"{name}.png", np.tile(np.uint8([0, 1]), (1, 300, 150)), crs=None, driver="PNG")
    path = tmp_path / "b.jpg"
    path.write_bytes(path.read_bytes()[:20_000])
    source, settings = ImagesSource(images="*.jpg", labels="*.png"), (RegionConfig(), SampleConfig(64, 32), AugmentConfig())
    with pytest.raises(SceneError, match=r"b\.jpg cannot be read"):
        open_dataset([source], reader(tmp_path), *settings)
    careful = reader(tmp_path, skip_corrupt=True)
    assert len(open_dataset([source], careful, *settings).scenes) == 2  # its upper part can be read
    assert [Path(line.split()[1]).name for line in careful.progress.messages("warning")] == ["b.jpg"]


def test_scenes_are_decoded_until_the_cache_is_full(folder: Path) -> None:
    for size in (80, 600):
        write_raster(folder / f"s{size}.tif", noise(3, size, 900))
        write_raster(folder / f"t{size}.tif", np.tile(np.uint8([0, 1]), (1, size, 450)))
    source, files = ImagesSource(images="s*.tif", labels="t*.tif"), reader(folder)
    opened = open_dataset([source], files, RegionConfig(), SampleConfig(64, 32, cache_mb=1), AugmentConfig())
    assert [isinstance(scene, DecodedScene) for scene in opened.scenes] == [False, True]
    assert "2 training scenes, 0.6 Mpx; 1 held in memory" in files.progress.messages("log")


def test_what_is_left_out_is_counted_and_logged(folder: Path) -> None:
    write_raster(folder / "empty.tif", noise(3, 80, 100))
    write_raster(folder / "empty_label.tif", np.full((1, 80, 100), 255, np.uint8))
    write_raster(folder / "a_label.tif", np.repeat(np.uint8([[[0] * 50 + [1] * 50]]), 80, axis=1))
    sources = [ImagesSource(images="a.tif", labels="a_label.tif"), ImagesSource(images="empty.tif", labels="empty_label.tif")]
    files = reader(folder)
    opened = open_dataset(sources, files, RegionConfig(), SampleConfig(96, 48, order="exhaustive"), AugmentConfig())
    assert opened.weights[1] == 0
    log = " | ".join(files.progress.messages("log"))
    assert f"1 of 2 scenes have no label and are left out: {folder / 'empty.tif'}" in log
    assert "2 of 2 scenes are smaller than a region of 96 px and are filled up unlabeled" in log
    assert "2 regions per round; 2 without a label are left out" in log


def test_a_single_class_is_nothing_to_learn(folder: Path) -> None:
    settings = RegionConfig(), SampleConfig(64, 32), AugmentConfig()
    with pytest.raises(DatasetError, match=r"no training pixel of background: only one class is labeled\. Set unlabeled"):
        open_dataset([buildings(unlabeled="ignore")], reader(folder), *settings)


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"images": "a"},
        {"images": "a", "polygons": "b", "labels": "c"},
        {"images": "*/*", "labels": "c"},
        {"labels": "c"},
        {"images": "a", "labels": "c", "unlabeled": "black"},
    ],
)
def test_a_source_without_exactly_one_truth_is_refused(plain: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        ImagesSource(**plain)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"kind": "deepglobo"}, "unknown kind = 'deepglobo' of a source; did you mean 'deepglobe'"),
        ({"kind": "deepglobe", "splitt": "train"}, "unknown key 'splitt' for DeepGlobeSource; did you mean 'split"),
        ({"kind": "deepglobe", "split": "val"}, "split = 'val'"),
        ({"kind": "deepglobe", "order": "kaggle"}, "order = 'kaggle'"),
        ({"kind": "inria", "splits": "official", "split": "test"}, "the official test tiles have no labels"),
        ({"kind": "isic", "longest_side": -1}, "longest_side"),
        ({"kind": "rasters", "images": "*.tif"}, "exactly one of labels"),
        ({"generated": 0}, "name 1 to 100000"),
        ({"images": "*.tif", "labels": "*.png", "weight": 0.0}, "weight = 0.0 must be above 0"),
    ],
)
def test_a_wrong_source_is_named(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source_from_plain(plain)


def test_a_source_without_kind_is_images_or_generated() -> None:
    assert isinstance(source_from_plain({"images": "*.tif", "labels": "*.png"}), ImagesSource)
    assert isinstance(source_from_plain({"generated": 2}), GeneratedSource)


def test_overview_patches_and_labels_agree() -> None:
    labels = torch.randint(0, 3, (96, 96), dtype=torch.uint8)
    image = torch.rand(3, 96, 96)
    windows = patch_windows(Shape(96, 96), 48, 16)
    sample = cut(image, labels, Shape(32, 32), [w.toslices() for w in windows])
    assert sample.overview.shape == (3, 32, 32)
    for patch, patch_labels, footprint in zip(sample.patches, sample.patch_labels, sample.footprints, strict=True):
        top, left, bottom, right = (footprint * 96).round().int().tolist()
        assert torch.equal(patch, image[:, top:bottom, left:right])
        assert torch.equal(patch_labels, labels[top:bottom, left:right])
    batch = collate([sample, sample])
    assert batch.overview_index.tolist() == [0] * len(windows) + [1] * len(windows)


def test_another_ignore_value_in_the_files_is_no_class_in_the_labels(tmp_path: Path) -> None:
    write_raster(tmp_path / "labels.tif", np.array([[[0, 1], [99, 2]]], np.uint8))
    theirs = legend_coding(Legend(LAND.names, LAND.colors, ignore_value=99), {}, ())
    window = Window(col_off=0, row_off=0, width=2, height=2)
    labels = ImageTruth(tmp_path / "labels.tif", theirs, Shape(2, 2)).read_labels(window)
    np.testing.assert_array_equal(labels, [[0, 1], [255, 2]])
    with pytest.raises(DatasetError, match="has label 99 at row 1, column 0; known are 0, 1, 2, 255"):
        ImageTruth(tmp_path / "labels.tif", legend_coding(LAND, {}, ()), Shape(2, 2)).read_labels(window)


@pytest.mark.parametrize("kind", SOURCE_KINDS)
def test_the_guide_names_every_key_of_every_source(kind: str) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    (row,) = (line for line in guide.splitlines() if line.startswith(f'| `"{kind}"`'))
    keys = {field.name for field in fields(SOURCE_KINDS[kind])} - {"kind", "weight"}
    assert keys == set(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1]))
