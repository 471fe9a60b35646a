"""Every format opens in geopandas with the same rows; options of the whole tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from pyproj import CRS, Geod, Transformer
from rasterio.transform import Affine, from_origin
from scipy.ndimage import gaussian_filter

from geoglnet.errors import ConfigError, OutputError, SceneError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.vector.formats import FORMATS
from geoglnet.vector.polygonizer import vectorize
from geoglnet.vector.settings import Quantity, VectorConfig
from tests.rasters import write_raster

LEGEND = Legend(("background", "roof", "yard"), ((0, 0, 0), (250, 100, 0), (0, 160, 40)), background=0)
UTM = Affine(0.5, 0, 300000, 0, -0.5, 4600000)


def smooth_labels(size: int = 128, seed: int = 0, classes: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((size, size)), 3) for _ in range(classes)]
    return np.argmax(fields, axis=0).astype(np.uint8)


@pytest.fixture
def labels_path(tmp_path: Path) -> Path:
    path = write_raster(tmp_path / "labels.tif", smooth_labels()[None], crs="EPSG:32645", transform=UTM)
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(GEOGLNET_SCENE="scene.tif", GEOGLNET_MODEL="buildings sha256:12ab")
    return path


def read(path: Path) -> Any:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    if path.suffix == ".gpkg":
        return pyogrio.read_dataframe(path, layer="out")
    return pyogrio.read_dataframe(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_holds_the_same_polygons(labels_path: Path, tmp_path: Path, suffix: str) -> None:
    config = VectorConfig(tile_size=50, simplify="1px")
    count = vectorize(labels_path, tmp_path / f"out{suffix}", legend=LEGEND, config=config)
    frame = read(tmp_path / f"out{suffix}")
    vectorize(labels_path, tmp_path / "reference.gpkg", legend=LEGEND, config=config)
    wanted = pyogrio.read_dataframe(tmp_path / "reference.gpkg", layer="reference").to_crs(frame.crs)
    assert count == len(frame) == len(wanted)
    assert frame.crs == CRS("OGC:CRS84" if "json" in suffix else "EPSG:32645") or frame.crs.to_epsg() in (4326, 32645)
    order = ["class_id", "area_m2"]
    frame, wanted = (f.sort_values(order).reset_index(drop=True) for f in (frame, wanted))
    assert frame.class_name.tolist() == wanted.class_name.tolist()
    np.testing.assert_allclose(frame.area_m2, wanted.area_m2)
    np.testing.assert_allclose(frame.perimeter_m, wanted.perimeter_m)
    assert set(frame.scene) == {"scene.tif"}
    assert set(frame.model) == {"buildings sha256:12ab"}
    assert shapely.area(shapely.symmetric_difference(frame.geometry, wanted.geometry)).max() < 1e-4
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"labels.tif", "reference.gpkg", f"out{suffix}"})


def test_geojson_is_longitude_and_latitude_with_shells_to_the_left(labels_path: Path, tmp_path: Path) -> None:
    vectorize(labels_path, tmp_path / "out.geojson", legend=LEGEND)
    collection = json.loads((tmp_path / "out.geojson").read_text())
    assert "crs" not in collection
    for feature in collection["features"]:
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert (np.abs(ring) <= 180).all()
        assert shapely.LinearRing(ring).is_ccw


def test_geojson_without_crs_keeps_pixels(tmp_path: Path) -> None:
    labels = write_raster(tmp_path / "labels.tif", smooth_labels(32)[None], crs=None)
    vectorize(labels, tmp_path / "out.geojson", legend=LEGEND)
    west, south, east, north = pyogrio.read_dataframe(tmp_path / "out.geojson").total_bounds
    assert (west, south, east, north) == (0, -32, 32, 0)


@pytest.mark.parametrize(("suffix", "crs"), [(".geojson", "EPSG:4326"), (".geojsonl", "EPSG:4979")])
def test_polygons_that_geojson_cannot_hold_are_refused_and_never_cut(tmp_path: Path, suffix: str, crs: str) -> None:
    """Longitudes beyond 180° are brought back, those beyond 360° would be left out."""
    labels = np.kron(np.eye(2, 3, dtype=np.uint8)[None], np.ones((4, 4), np.uint8))
    for name, west, is_held in (("a", 190.0, True), ("b", 350.0, False)):
        path = write_raster(tmp_path / f"{name}.tif", labels, crs=crs, transform=Affine(2, 0, west, 0, -2, 40))
        out = tmp_path / f"{name}{suffix}"
        if is_held:
            vectorize(path, out, legend=LEGEND)
            assert pyogrio.read_dataframe(out).total_bounds.tolist() == [-170, 24, -154, 40]
            continue
        with pytest.raises(OutputError, match=r"reach beyond the longitudes and latitudes .* write \.gpkg"):
            vectorize(path, out, legend=LEGEND)
        assert not out.exists()
        vectorize(path, tmp_path / f"{name}.gpkg", legend=LEGEND)


def test_geoparquet_has_row_groups_and_a_covering(labels_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet

    from geoglnet.vector import exchange

    monkeypatch.setattr(exchange, "_ROWS_PER_GROUP", 10)
    vectorize(labels_path, tmp_path / "out.parquet", legend=LEGEND)
    with parquet.ParquetFile(tmp_path / "out.parquet") as file:
        assert file.num_row_groups == -(-file.metadata.num_rows // 10) > 1
        geo = json.loads(file.metadata.metadata[b"geo"])
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    whole = geopandas.read_parquet(tmp_path / "out.parquet")
    some = geopandas.read_parquet(tmp_path / "out.parquet", bbox=(300000, 4599990, 300010, 4600000))
    assert geo["columns"]["geometry"]["bbox"] == list(whole.total_bounds)
    assert 0 < len(some) < len(whole)


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_empty_layer_is_a_file_too(tmp_path: Path, suffix: str) -> None:
    labels = write_raster(tmp_path / "labels.tif", np.full((1, 9, 9), 255, dtype=np.uint8))
    assert vectorize(labels, tmp_path / f"out{suffix}", legend=LEGEND) == 0
    assert len(read(tmp_path / f"out{suffix}")) == 0


def test_eight_connected_layers_are_multipolygons(tmp_path: Path) -> None:
    labels = write_raster(tmp_path / "labels.tif", np.eye(6, dtype=np.uint8)[None])
    config = VectorConfig(connectivity=8, tile_size=4)
    for suffix in (".gpkg", ".parquet"):
        assert vectorize(labels, tmp_path / f"out{suffix}", legend=LEGEND, config=config) == 1
        frame = read(tmp_path / f"out{suffix}")
        assert frame.geom_type.tolist() == ["MultiPolygon"]
        assert frame.area_m2[0] == pytest.approx(1.5, rel=1e-2)


def test_cut_polygons_share_a_number_and_are_told(tmp_path: Path) -> None:
    ring = np.zeros((1, 64, 64), dtype=np.uint8)
    ring[0, 2:62, 2:62] = np.random.default_rng(0).integers(0, 6, (60, 60)) > 0
    ring[0, 63, 63] = 1
    labels, progress = write_raster(tmp_path / "labels.tif", ring), RecordedProgress()
    config = VectorConfig(tile_size=16, max_vertices=100, min_area_m2=0.3)
    vectorize(labels, tmp_path / "out.gpkg", legend=LEGEND, config=config, progress=progress)
    frame = read(tmp_path / "out.gpkg")
    parts = frame[frame.part_of.notna()]
    assert parts.part_of.nunique() == 1
    assert len(parts) >= 16
    assert frame[frame.part_of.isna()].area_m2.min() >= 0.25
    assert "share a number in part_of" in progress.messages("warning")[0]


def test_noise_is_told_once(tmp_path: Path) -> None:
    noise = np.indices((200, 200)).sum(axis=0, keepdims=True).astype(np.uint8) % 2
    labels, progress = write_raster(tmp_path / "labels.tif", noise), RecordedProgress()
    assert vectorize(labels, tmp_path / "out.gpkg", legend=LEGEND, progress=progress) == 20_000
    assert [m for m in progress.messages("warning") if "the labels are noise" in m] == progress.messages("warning")


def test_workers_write_the_same_rows(labels_path: Path, tmp_path: Path) -> None:
    options = {"tile_size": 40, "simplify": "1px", "sieve": "4px", "min_area_m2": 1.0}
    for workers in (1, 2):
        vectorize(labels_path, tmp_path / f"{workers}.gpkg", legend=LEGEND, config=VectorConfig(workers=workers, **options))
    one, two = (pyogrio.read_dataframe(tmp_path / f"{n}.gpkg", layer=str(n)) for n in (1, 2))
    assert one.equals(two)


def test_an_error_in_a_worker_is_ours(tmp_path: Path) -> None:
    labels = write_raster(tmp_path / "labels.tif", np.full((1, 70, 70), 2**32))
    with pytest.raises(SceneError, match="holds the value 4294967296"):
        vectorize(labels, tmp_path / "out.gpkg", legend=LEGEND, config=VectorConfig(workers=2, tile_size=32))
    assert [p.name for p in tmp_path.iterdir()] == ["labels.tif"]


def test_statistics_of_another_raster_become_attributes(labels_path: Path, tmp_path: Path) -> None:
    heights = np.stack([np.full((128, 128), 7.0), np.arange(128.0 * 128).reshape(128, 128)]).astype(np.float32)
    path = write_raster(tmp_path / "heights.tif", heights, crs="EPSG:32645", transform=UTM)
    config = VectorConfig(statistics_path=path, tile_size=50)
    vectorize(labels_path, tmp_path / "out.gpkg", legend=LEGEND, config=config)
    frame = read(tmp_path / "out.gpkg")
    np.testing.assert_allclose(frame.band1_mean, 7)
    np.testing.assert_allclose(frame.band1_stdev, 0, atol=1e-6)
    column, row = ((frame.centroid.x - 300000) * 2 - 0.5, (4600000 - frame.centroid.y) * 2 - 0.5)
    np.testing.assert_allclose(frame.band2_mean, row * 128 + column, rtol=1e-5, atol=0.01)
    elsewhere = write_raster(tmp_path / "elsewhere.tif", heights, crs="EPSG:4326")
    with pytest.raises(SceneError, match=r"elsewhere\.tif is in EPSG:4326, the labels are in EPSG:32645; warp it"):
        vectorize(labels_path, tmp_path / "b.gpkg", legend=LEGEND, config=VectorConfig(statistics_path=elsewhere))


def test_the_style_can_be_written_beside(labels_path: Path, tmp_path: Path) -> None:
    vectorize(labels_path, tmp_path / "out.fgb", legend=LEGEND, config=VectorConfig(style="qml"))
    vectorize(labels_path, tmp_path / "out.geojson", legend=LEGEND, config=VectorConfig(style="sld"))
    assert "categorizedSymbol" in (tmp_path / "out.qml").read_text()
    assert ElementTree.fromstring((tmp_path / "out.sld").read_text()).tag.endswith("StyledLayerDescriptor")


def test_small_holes_are_closed_and_larger_ones_stay(tmp_path: Path) -> None:
    labels = np.zeros((1, 40, 40), dtype=np.uint8)
    labels[0, 5:35, 5:35] = 1
    labels[0, 10, 10] = 0
    labels[0, 20:26, 20:26] = 0
    path = write_raster(tmp_path / "labels.tif", labels)
    vectorize(path, tmp_path / "out.gpkg", legend=LEGEND, config=VectorConfig(min_hole_m2=1, tile_size=16))
    (polygon,) = read(tmp_path / "out.gpkg").geometry
    assert [shapely.Polygon(ring).area for ring in polygon.interiors] == [9.0]


def test_confidence_may_be_fractions_or_one_band_per_class(labels_path: Path, tmp_path: Path) -> None:
    bands = np.stack([np.full((128, 128), p, dtype=np.float32) for p in (0.1, 0.5, 0.75)])
    for name, image in (("all", bands), ("one", bands[2:])):
        path = write_raster(tmp_path / f"{name}.tif", image, crs="EPSG:32645", transform=UTM)
        vectorize(labels_path, tmp_path / "out.gpkg", legend=LEGEND, confidence_path=path, overwrite=True)
        frame = read(tmp_path / "out.gpkg")
        roofs = 0.5 if name == "all" else 0.75
        np.testing.assert_allclose(frame.confidence, np.where(frame.class_name == "roof", roofs, 0.75), atol=0.002)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:3857", from_origin(1447153, 5161500, 0.3, 0.3)),
        ("EPSG:4326", from_origin(13.0, 42.0, 3e-6, 2e-6)),
        ("EPSG:32633", UTM),
    ],
)
def test_areas_and_perimeters_are_meters_on_the_ground(tmp_path: Path, crs: str, transform: Affine) -> None:
    path = write_raster(tmp_path / "labels.tif", smooth_labels(96)[None], crs=crs, transform=transform)
    vectorize(path, tmp_path / "out.gpkg", legend=LEGEND)
    frame, geod = read(tmp_path / "out.gpkg"), Geod(ellps="WGS84")
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    for row in frame.itertuples():
        degrees = shapely.transform(row.geometry, lambda points: np.column_stack(to_degrees.transform(*points.T)))
        assert row.area_m2 == pytest.approx(abs(geod.geometry_area_perimeter(degrees)[0]), rel=0.001)
        assert row.perimeter_m == pytest.approx(geod.geometry_length(shapely.boundary(degrees)), rel=0.001)


def test_meters_and_pixels_of_tolerance_mean_the_same_outlines(labels_path: Path, tmp_path: Path) -> None:
    for name, written in (("a", "1.5px"), ("b", "0.75m")):
        vectorize(labels_path, tmp_path / f"{name}.gpkg", legend=LEGEND, config=VectorConfig(simplify=written))
    one, two = (pyogrio.read_dataframe(tmp_path / f"{n}.gpkg", layer=n) for n in "ab")
    points = [int(shapely.get_num_coordinates(f.geometry).sum()) for f in (one, two)]
    assert points[0] == pytest.approx(points[1], rel=0.02)


def test_meters_without_crs_are_refused(tmp_path: Path) -> None:
    labels = write_raster(tmp_path / "labels.tif", smooth_labels(16)[None], crs=None)
    for options in ({"simplify": "2m"}, {"sieve": "2m2"}):
        with pytest.raises(ConfigError, match="give it in pixels"):
            vectorize(labels, tmp_path / "out.gpkg", legend=LEGEND, config=VectorConfig(**options))
    assert [p.name for p in tmp_path.iterdir()] == ["labels.tif"]


@pytest.mark.parametrize("written", ["2", "m", "-1px", "2 m2", "1e400px", "two px"])
def test_a_length_needs_a_number_and_a_unit(written: str) -> None:
    with pytest.raises(ConfigError):
        Quantity.parse(written, ("px", "m"))


@pytest.mark.parametrize(
    "options",
    [
        {"connectivity": 6},
        {"opening": -1},
        {"workers": 0},
        {"max_vertices": 1},
        {"style": "css"},
        {"min_hole_m2": -1},
        {"sieve": "3m"},
    ],
)
def test_settings_that_cannot_be_used_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        VectorConfig(**options)


def test_quantities_are_read_with_spaces_and_signs() -> None:
    assert Quantity.parse(" 20 m² ", ("px", "m2")) == Quantity(20, "m2")
    assert str(Quantity.parse("1.50PX", ("px",))) == "1.5px"
    assert Quantity(8, "m2").in_pixels(2.0) == 2
    assert Quantity(8, "m").in_pixels(2.0) == 4
