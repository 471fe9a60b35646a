"""People's own rasters: matched by place with vector layers and label rasters through TorchGeo's index."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from pyproj import CRS
from rasterio.warp import Resampling, calculate_default_transform, reproject
from rasterio.windows import Window
from shapely import GeometryCollection, Point, Polygon, box
from torchgeo.datasets import IntersectionDataset, RasterDataset

from geoglnet.bands import Bands
from geoglnet.config import RegionConfig, ScalingRule
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader, open_dataset
from geoglnet.datasets.regions import LabeledRegion, cut
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.datasets.sources import ImagesSource, RastersSource
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.datasets.truth import LabelPolygons
from geoglnet.errors import ConfigError, DatasetError, LegendError, SceneError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.torchgeo.adapter import (
    ImageRasters,
    LabelRasters,
    VectorLabels,
    coverages,
    footprints,
    labels_of,
    limit,
    paths_of,
    query,
)
from geoglnet.types import Shape
from tests.miniature import OWN_TRANSFORM, SIZE, blocks, picture, polygons_of, write_layer_of, write_own
from tests.rasters import noise, write_raster

pytestmark = pytest.mark.smoke

LEGEND = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_own(tmp_path)


def reader(folder: Path, legend: Legend = LEGEND, resolution_m: float = 1.0) -> PairReader:
    return PairReader(folder, legend, resolution_m, RecordedProgress())


def vector(**changes: Any) -> RastersSource:
    plain = {"images": "scene_*.tif", "polygons": "buildings.gpkg", "unlabeled": "background"}
    return RastersSource(**(plain | changes))


def rasters(**changes: Any) -> RastersSource:
    return RastersSource(**({"images": "scene_*.tif", "labels": "truth_*.tif"} | changes))


def read_all(pair: Pair) -> LabeledRegion:
    return pair.read_region(slice(0, pair.shape.height), slice(0, pair.shape.width))


def number_of(pair: Pair) -> int:
    return int(Path(pair.name).stem[-1])


def test_one_layer_labels_all_rasters_that_it_meets_and_the_others_are_counted(folder: Path) -> None:
    files = reader(folder)
    pairs = list(files.iter_pairs(vector()))
    assert [number_of(pair) for pair in pairs] == [0, 1]
    for pair in pairs:
        np.testing.assert_array_equal(read_all(pair).labels, blocks(2, seed=number_of(pair)))
    assert "1 of 3 rasters overlap no label and are left out: scene_2.tif" in files.progress.messages("log")


def test_label_rasters_are_matched_by_place_not_by_name(folder: Path) -> None:
    for number in range(3):
        (folder / f"truth_{number}.tif").rename(folder / f"labels_of_day_{9 - number}.tif")
    pairs = list(reader(folder).iter_pairs(rasters(labels="labels_of_day_*.tif")))
    assert [number_of(pair) for pair in pairs] == [0, 1, 2]
    for pair in pairs:
        np.testing.assert_array_equal(read_all(pair).labels, blocks(2, seed=number_of(pair)))


def test_labels_in_another_tiling_are_joined(folder: Path) -> None:
    truth = np.concatenate([blocks(2, seed=0), blocks(2, seed=1)], axis=1)
    for path in folder.glob("truth_*.tif"):
        path.unlink()
    for number, rows in enumerate((slice(0, 40), slice(40, SIZE))):
        transform = OWN_TRANSFORM @ Affine.translation(0, rows.start)
        write_raster(folder / f"truth_{number}.tif", truth[None, rows], transform=transform)
    pairs = list(reader(folder).iter_pairs(rasters()))
    assert [number_of(pair) for pair in pairs] == [0, 1]
    for pair in pairs:
        np.testing.assert_array_equal(read_all(pair).labels, blocks(2, seed=number_of(pair)))


def test_label_rasters_in_another_crs_are_reprojected_and_that_is_said(folder: Path) -> None:
    with rasterio.open(folder / "truth_0.tif") as src:
        transform, width, height = calculate_default_transform(src.crs, "EPSG:3857", src.width, src.height, *src.bounds)
        labels = np.full((height, width), 255, np.uint8)
        reproject(
            src.read(1), labels, src_transform=src.transform, src_crs=src.crs, dst_transform=transform,
            dst_crs="EPSG:3857", resampling=Resampling.nearest, init_dest_nodata=False,
        )  # fmt: skip
    write_raster(folder / "mercator.tif", labels[None], crs="EPSG:3857", transform=transform, nodata=255)
    files = reader(folder)
    (pair,) = files.iter_pairs(rasters(labels="mercator.tif", images="scene_0.tif"))
    labels = read_all(pair).labels
    known = labels != 255
    assert known.mean() > 0.95
    assert (labels[known] == blocks(2, seed=0)[known]).mean() > 0.95
    assert any("mercator.tif is in EPSG:3857" in line for line in files.progress.messages("log"))


def test_a_vector_layer_in_another_crs_is_reprojected_and_that_is_said(folder: Path) -> None:
    geopandas.read_file(folder / "buildings.gpkg").to_crs(4326).to_file(folder / "lonlat.geojson")
    files = reader(folder)
    for pair in files.iter_pairs(vector(polygons="lonlat.geojson")):
        assert (read_all(pair).labels == blocks(2, seed=number_of(pair))).mean() > 0.98
    said = "lonlat.geojson is in EPSG:4326, its raster in EPSG:32736: polygons are reprojected"
    assert said in files.progress.messages("log")


def test_what_nobody_labeled_is_unlabeled_unless_said(folder: Path) -> None:
    (pair, _) = reader(folder).iter_pairs(vector(unlabeled="ignore"))
    assert set(np.unique(read_all(pair).labels)) == {1, 255}


def test_labels_end_where_the_label_rasters_end(folder: Path) -> None:
    write_raster(folder / "part.tif", blocks(2, seed=0)[None, :50, :60], transform=OWN_TRANSFORM)
    (pair,) = reader(folder).iter_pairs(rasters(labels="part.tif"))
    expected = np.full((SIZE, SIZE), 255)
    expected[:50, :60] = blocks(2, seed=0)[:50, :60]
    np.testing.assert_array_equal(read_all(pair).labels, expected)


@pytest.mark.parametrize("kind", ["polygons", "labels"])
def test_outside_the_area_of_interest_nothing_is_known(folder: Path, kind: str) -> None:
    corner = OWN_TRANSFORM @ (0, 0)
    area = np.array([box(corner[0] + 20, corner[1] - 70, corner[0] + 80, corner[1] - 10)], object)
    write_layer_of(folder / "area.gpkg", {"area": area}, "EPSG:32736")
    source = vector(area="area.gpkg") if kind == "polygons" else rasters(area="area.gpkg")
    (pair,) = reader(folder).iter_pairs(source)
    expected = np.full((SIZE, SIZE), 255)
    expected[10:70, 20:80] = blocks(2, seed=0)[10:70, 20:80]
    np.testing.assert_array_equal(read_all(pair).labels, expected)


def test_an_invalid_area_is_repaired_and_counted(folder: Path) -> None:
    x, y = OWN_TRANSFORM @ (0, 0)
    reaching = Polygon(box(x, y - 50, x + 40, y).exterior.coords, [box(x + 30, y - 20, x + 60, y - 10).exterior.coords])
    area = np.array([reaching, box(x, y - 50, x + 40, y)], object)
    write_layer_of(folder / "area.gpkg", {"area": area}, "EPSG:32736")
    files = reader(folder)
    (pair,) = files.iter_pairs(vector(area="area.gpkg", images="scene_0.tif"))
    expected = np.full((SIZE, SIZE), 255)
    for place in (np.s_[:50, :40], np.s_[10:20, 40:60]):
        expected[place] = blocks(2, seed=0)[place]
    np.testing.assert_array_equal(read_all(pair).labels, expected)
    assert any("area.gpkg: 1 of 2 features had invalid polygons" in line for line in files.progress.messages("log"))


def test_geoparquet_and_collections_label_rasters(folder: Path) -> None:
    frame = geopandas.read_file(folder / "buildings.gpkg")
    frame.geometry = [GeometryCollection([shape, Point(0, 0)]) for shape in frame.geometry]
    frame.to_parquet(folder / "buildings.parquet")
    for pair in reader(folder).iter_pairs(vector(polygons="buildings.parquet", class_column="kind")):
        np.testing.assert_array_equal(read_all(pair).labels, blocks(2, seed=number_of(pair)))


def test_a_raster_in_the_area_without_a_polygon_is_background(folder: Path) -> None:
    corner = OWN_TRANSFORM @ (0, 0)
    area = np.array([box(corner[0], corner[1] - SIZE, corner[0] + 60_000, corner[1])], object)
    write_layer_of(folder / "area.gpkg", {"area": area}, "EPSG:32736")
    pairs = list(reader(folder).iter_pairs(vector(area="area.gpkg")))
    assert [number_of(pair) for pair in pairs] == [0, 1, 2]
    assert set(np.unique(read_all(pairs[2]).labels)) == {0}


def test_rasters_of_several_crs_stay_in_their_own(folder: Path) -> None:
    labels = blocks(2, seed=5)
    transform = Affine(1, 0, 300_000, 0, -1, 5_000_000)
    write_raster(folder / "scene_5.tif", picture(labels, 5), crs="EPSG:32633", transform=transform)
    write_layer_of(folder / "vienna.gpkg", {"building": polygons_of(labels, transform, 1)}, "EPSG:32633")
    pairs = {number_of(pair): pair for pair in reader(folder).iter_pairs(vector(polygons="*.gpkg"))}
    assert sorted(pairs) == [0, 1, 5]
    assert str(pairs[5].file.crs) == "EPSG:32633"
    np.testing.assert_array_equal(read_all(pairs[5]).labels, labels)


def test_labels_are_read_at_the_resolution_of_the_model(folder: Path) -> None:
    (pair, _) = reader(folder, resolution_m=2.0).iter_pairs(vector())
    region = read_all(pair)
    assert region.labels.shape == region.image.shape[1:] == (SIZE // 2, SIZE // 2)
    assert (region.labels == blocks(2, seed=0)[::2, ::2]).mean() > 0.95


def test_the_overview_is_the_same_slice_with_a_coarser_step(folder: Path) -> None:
    """What we decimate from a region read once is what TorchGeo reads of the same place with a coarser step."""
    images = ImageRasters([str(folder / "scene_0.tif")], cache=False)
    labels = LabelRasters([str(folder / "truth_0.tif")], crs=images.crs, res=images.res, cache=False)
    both = images & labels
    assert isinstance(both, IntersectionDataset)
    shape = Shape(SIZE, SIZE)
    fine, coarse = both[query(OWN_TRANSFORM, shape)], both[query(OWN_TRANSFORM, shape, step=3)]
    assert fine["image"].shape == (3, SIZE, SIZE)
    assert coarse["image"].shape == (3, SIZE // 3, SIZE // 3)
    (pair,) = reader(folder).iter_pairs(vector(images="scene_0.tif"))
    region = read_all(pair)
    np.testing.assert_array_equal(region.image, fine["image"].numpy())
    np.testing.assert_array_equal(region.labels, fine["mask"].numpy())
    image = torch.from_numpy(region.image).float()
    sample = cut(image, torch.from_numpy(region.labels), Shape(SIZE // 3, SIZE // 3), [(slice(0, 32), slice(0, 32))])
    assert (sample.overview - coarse["image"]).abs().mean() < 1.0


def test_reading_part_of_a_raster_is_part_of_reading_all(folder: Path) -> None:
    for source in (vector(), rasters()):
        (pair, *_) = reader(folder).iter_pairs(source)
        whole, part = read_all(pair), pair.read_region(slice(13, 60), slice(7, 91))
        np.testing.assert_array_equal(part.labels, whole.labels[13:60, 7:91])
        np.testing.assert_array_equal(part.image, whole.image[:, 13:60, 7:91])
        np.testing.assert_array_equal(pair.truth.read_labels(Window(7, 13, 84, 47)), part.labels)


def test_torchgeo_has_all_that_we_rely_on(folder: Path) -> None:
    """Fails on a TorchGeo in which a column, key or method that :mod:`geoglnet.torchgeo.adapter` reads is missing."""
    images = ImageRasters([str(folder / "scene_0.tif")], cache=False)
    labels = LabelRasters([str(folder / "truth_0.tif")], crs=images.crs, res=images.res, cache=False)
    place = query(OWN_TRANSFORM, Shape(SIZE, SIZE))
    for dataset in (images, labels):
        assert isinstance(dataset, RasterDataset)
        assert isinstance(dataset.index, geopandas.GeoDataFrame)
        assert list(dataset.index["filepath"]) == [str(path) for path in paths_of(dataset)]
        assert footprints(dataset)[0].equals(box(*rasterio.open(paths_of(dataset)[0]).bounds))
        assert dataset.res == (1.0, 1.0)
        assert CRS.from_user_input(dataset.crs) == CRS.from_epsg(32736)
    assert labels_of(labels, place).shape == (SIZE, SIZE)
    assert images[place]["image"].shape == (3, SIZE, SIZE)
    assert coverages(images, labels)[folder / "scene_0.tif"].area == pytest.approx(SIZE * SIZE)
    limit(labels, box(*OWN_TRANSFORM * (0, SIZE), *OWN_TRANSFORM * (SIZE / 2, 0)))
    assert coverages(images, labels)[folder / "scene_0.tif"].area == pytest.approx(SIZE * SIZE / 2)


def test_what_a_torchgeo_lacks_is_said_in_one_line_with_its_version(folder: Path) -> None:
    named = re.escape(f"TorchGeo {version('torchgeo')} is not supported: ")
    images = ImageRasters([str(folder / "scene_0.tif")], cache=False)
    labels = LabelRasters([str(folder / "truth_0.tif")], crs=images.crs, res=images.res, cache=False)
    labels.is_image = True  # its samples have the key "image" alone
    with pytest.raises(DatasetError, match=named + r"LabelRasters gives samples with .*, and no tensor 'mask'"):
        labels_of(labels, query(OWN_TRANSFORM, Shape(SIZE, SIZE)))
    images.index = images.index.rename(columns={"filepath": "file"})
    with pytest.raises(DatasetError, match=named + "the index of ImageRasters has no column 'filepath'; install one from"):
        coverages(images, labels)
    del labels.index
    with pytest.raises(DatasetError, match=named + "the index of LabelRasters has no geometries"):
        footprints(labels)


def test_vector_labels_give_samples_as_torchgeos_rasters_do(folder: Path) -> None:
    """So that they can be joined with any other dataset, and read by a query that leaves the resolution out."""
    images = ImageRasters([str(folder / "scene_0.tif")], cache=False)
    polygons = LabelPolygons(np.array([box(*images.index.total_bounds)], object), np.array([1], np.uint8))
    labels = VectorLabels([folder / "buildings.gpkg"], images, polygons, 0)
    x, y = query(OWN_TRANSFORM, Shape(SIZE, SIZE))
    sample = (images & labels)[x, y]
    assert sample["image"].shape[1:] == sample["mask"].shape == (SIZE, SIZE)
    assert labels_of(labels, (slice(x.start, x.stop), slice(y.start, y.stop))).sum() == SIZE * SIZE


def test_an_empty_layer_and_a_missing_class_are_named(folder: Path) -> None:
    write_layer_of(folder / "empty.gpkg", {}, "EPSG:32736")
    with pytest.raises(DatasetError, match=r"empty\.gpkg holds no polygons"):
        list(reader(folder).iter_pairs(vector(polygons="empty.gpkg")))
    other = Legend(("background", "roof"), ((0, 0, 0), (255, 0, 0)), background=0)
    with pytest.raises(LegendError, match="class 'building' in 'kind'"):
        list(reader(folder, other).iter_pairs(vector(class_column="kind")))
    with pytest.raises(DatasetError, match="no column 'class'"):
        list(reader(folder).iter_pairs(vector(class_column="class")))


def test_rasters_and_labels_that_do_not_meet_are_refused(folder: Path) -> None:
    shape = np.array([box(0, 0, 10, 10)], object)
    write_layer_of(folder / "far.gpkg", {"building": shape}, "EPSG:32736")
    with pytest.raises(DatasetError, match=r"none of 3 rasters .* overlaps a label; check the places and CRS of both"):
        list(reader(folder).iter_pairs(vector(polygons="far.gpkg")))


def test_rasters_that_have_no_place_are_refused(folder: Path) -> None:
    write_raster(folder / "bare.tif", noise(3, 20, 20), crs=None)
    with pytest.raises(DatasetError, match=r"bare\.tif has no georeference; use kind = 'images'"):
        list(reader(folder).iter_pairs(vector(images="bare.tif")))
    write_raster(folder / "turned.tif", noise(3, 20, 20), transform=OWN_TRANSFORM @ Affine.rotation(10))
    with pytest.raises(DatasetError, match=r"turned\.tif is rotated"):
        list(reader(folder).iter_pairs(vector(images="turned.tif")))
    write_raster(folder / "blind.tif", np.zeros((1, 20, 20), np.uint8), crs=None)
    with pytest.raises(DatasetError, match=r"blind\.tif has no CRS"):
        list(reader(folder).iter_pairs(rasters(labels="blind.tif")))


def test_a_rotation_that_is_a_rounding_error_is_none(folder: Path) -> None:
    straight = [read_all(pair).labels for pair in reader(folder).iter_pairs(rasters())]
    for path in (*folder.glob("scene_*.tif"), *folder.glob("truth_*.tif")):
        with rasterio.open(path, "r+") as dst:
            dst.transform = Affine(*dst.transform[:1], 1e-15, *dst.transform[2:3], -1e-15, *dst.transform[4:6])
    turned = [read_all(pair).labels for pair in reader(folder).iter_pairs(rasters())]
    assert len(turned) == 3
    np.testing.assert_array_equal(turned, straight)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("nodata", [None, 7])
def test_what_a_rotated_label_raster_does_not_cover_is_unlabeled(folder: Path, nodata: int | None, dtype: str) -> None:
    turned = OWN_TRANSFORM @ Affine.translation(20, 5) @ Affine.rotation(20)
    labels = np.ones((1, 60, 60), dtype)
    labels[0, :30] = 0
    write_raster(folder / "turned.tif", labels, transform=turned, nodata=nodata)
    (pair,) = reader(folder).iter_pairs(rasters(images="scene_0.tif", labels="turned.tif", unlabeled="background"))
    rows, cols = np.mgrid[:SIZE, :SIZE] + 0.5
    x, y = ~(Affine.translation(20, 5) @ Affine.rotation(20)) * (cols, rows)
    expected = np.where((x >= 0) & (x < 60) & (y >= 0) & (y < 60), (y >= 30).astype(int), 255)
    found = read_all(pair).labels
    assert (found != expected).mean() < 0.002  # pixels whose centers lie on an edge
    assert (found == 255).mean() == pytest.approx((expected == 255).mean(), abs=0.002)


@pytest.mark.parametrize("size", [1, 3])
def test_reprojected_tiles_without_nodata_meet_and_end_where_they_end(folder: Path, size: int) -> None:
    """Two tiles of another zone side by side; in each, TorchGeo would give 0 to what only the other covers."""
    extent = geopandas.GeoSeries([box(*rasterio.open(folder / "scene_0.tif").bounds)], crs="EPSG:32736").to_crs("EPSG:32737")
    left, bottom, right, top = extent.buffer(-12).total_bounds
    middle = (left + right) / 2
    for number, start in enumerate((left, middle)):
        width, height = round((middle - left) / size), round((top - bottom) / size)
        transform = Affine(size, 0, start, 0, -size, top)
        write_raster(
            folder / f"tile_{number}.tif", np.ones((1, height, width), np.uint8), crs="EPSG:32737", transform=transform
        )
    (pair,) = reader(folder).iter_pairs(rasters(images="scene_0.tif", labels="tile_*.tif"))
    labels = read_all(pair).labels
    assert set(np.unique(labels)) == {1, 255}
    assert (labels == 1).mean() == pytest.approx((right - left) * (top - bottom) / SIZE**2, rel=0.06)


def test_label_rasters_that_stand_on_their_head_are_read_where_they_lie(folder: Path) -> None:
    (folder / "truth_0.tif").unlink()
    upside_down = OWN_TRANSFORM @ Affine.translation(0, SIZE) @ Affine.scale(1, -1)
    write_raster(folder / "truth_0.tif", blocks(2, seed=0)[None, ::-1], transform=upside_down)
    (pair,) = reader(folder).iter_pairs(rasters(images="scene_0.tif"))
    np.testing.assert_array_equal(read_all(pair).labels, blocks(2, seed=0))


@pytest.mark.parametrize("kind", [RastersSource, ImagesSource])
@pytest.mark.parametrize("fill", [np.nan, -1])
def test_labels_may_be_floats_with_nan_or_signed_bytes(folder: Path, kind: Any, fill: float) -> None:
    for number in range(3):
        with rasterio.open(folder / f"truth_{number}.tif") as src:
            transform = src.transform
        labels = blocks(2, number)[None].astype("float32" if np.isnan(fill) else "int8")
        labels[0, :10] = fill
        nodata = None if np.isnan(fill) and number == 1 else fill
        write_raster(folder / f"truth_{number}.tif", labels, transform=transform, nodata=nodata)
    for pair in reader(folder).iter_pairs(kind(images="scene_*.tif", labels="truth_*.tif")):
        expected = blocks(2, seed=number_of(pair))
        expected[:10] = 255
        np.testing.assert_array_equal(read_all(pair).labels, expected)


MASKS = {"0": "background", "255": "building"}


@pytest.mark.parametrize("nodata", [None, 0, 255])
def test_values_that_are_mapped_win_over_what_they_mean_elsewhere(folder: Path, nodata: int | None) -> None:
    for number in range(3):
        with rasterio.open(folder / f"truth_{number}.tif") as src:
            transform = src.transform
        write_raster(folder / f"truth_{number}.tif", blocks(2, number)[None] * 255, transform=transform, nodata=nodata)
    for source in (rasters(values=MASKS), ImagesSource(images="scene_*.tif", labels="truth_*.tif", values=MASKS)):
        for pair in reader(folder).iter_pairs(source):
            np.testing.assert_array_equal(read_all(pair).labels, blocks(2, seed=number_of(pair)))
    (ignoring, *_) = reader(folder).iter_pairs(rasters(values=MASKS, ignore=(255,)))
    assert set(np.unique(read_all(ignoring).labels)) == {0, 255}


def test_where_a_class_is_missing_the_meaning_of_255_and_the_way_to_map_it_are_said(folder: Path) -> None:
    write_raster(folder / "truth_0.tif", blocks(2, seed=0)[None] * 255, transform=OWN_TRANSFORM)
    source = rasters(images="scene_0.tif", labels="truth_0.tif")
    said = r'255 means no class; where it is one, map it: values = { 0 = "background", 255 = "building" }'
    with pytest.raises(DatasetError, match=re.escape(said)):
        open_dataset([source], reader(folder), RegionConfig(64, 32, 32, 8, 16), SampleConfig(64, 32, 1), AugmentConfig())


def test_a_value_of_the_images_can_be_named_that_is_none(folder: Path) -> None:
    with rasterio.open(folder / "scene_0.tif", "r+") as dst:
        dst.write(np.full((3, 20, 30), 7, np.uint8), window=Window(col_off=5, row_off=8, width=30, height=20))
    (plain, *_) = reader(folder).iter_pairs(rasters())
    (named, *_) = reader(folder).iter_pairs(rasters(nodata=7))
    labels, expected = read_all(named).labels, read_all(plain).labels
    expected[8:28, 5:35] = 255
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(named.read_labels(slice(0, SIZE), slice(0, SIZE)), expected)
    with pytest.raises(ConfigError, match="nodata = 'white' must be a number"):
        rasters(nodata="white")


def test_a_label_that_no_class_has_is_named_with_its_place(folder: Path) -> None:
    with rasterio.open(folder / "truth_0.tif", "r+") as dst:
        dst.write(np.full((1, 1, 1), 9, np.uint8), window=Window(col_off=3, row_off=5, width=1, height=1))
    (pair, *_) = reader(folder).iter_pairs(rasters())
    with pytest.raises(DatasetError, match=r"has label 9 at x 500003\.5, y 8999994\.5; known are 0, 1, 255; map it"):
        read_all(pair)
    (ignoring, *_) = reader(folder).iter_pairs(rasters(ignore=(9,)))
    assert read_all(ignoring).labels[5, 3] == 255


def test_a_damaged_raster_is_named_and_left_out_only_when_asked_for(folder: Path) -> None:
    (folder / "scene_1.tif").write_bytes(b"II*")
    with pytest.raises(SceneError, match=r"scene_1\.tif is not a raster"):
        list(reader(folder).iter_pairs(vector()))
    careful = PairReader(folder, LEGEND, 1.0, RecordedProgress(), skip_corrupt=True)
    assert [number_of(pair) for pair in careful.iter_pairs(vector())] == [0]
    assert "scene_1.tif is not a raster" in careful.progress.messages("warning")[0]


def test_rasters_matched_by_place_carry_the_bands_of_the_model(folder: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 0.1, (4, SIZE, SIZE)).astype(np.float32)
    values[3, :5] = np.nan
    path = write_raster(folder / "wide_a.tif", values, transform=OWN_TRANSFORM)
    with rasterio.open(path, "r+") as dst:
        dst.descriptions = ("nir", "red", "green", "blue")
    bands = Bands(("red", "green", "blue", "nir"), scaling=ScalingRule.REFLECTANCE)
    opened = PairReader(folder, LEGEND, 1.0, RecordedProgress(), bands=bands)
    (pair,) = opened.iter_pairs(vector(images="wide_*.tif"))
    region = read_all(pair)
    assert region.image.dtype == np.float32
    assert np.isnan(region.image[:, :5]).all()
    assert (region.labels[:5] == 255).all()
    assert np.abs(region.image[3, 5:] / 255 - values[0, 5:]).max() < 1e-5
    assert pair.read_valid(slice(0, 10), slice(0, 10)).shape == (4, 50)
