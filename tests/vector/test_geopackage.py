"""GeoPackages that QGIS opens styled, from the rows to the whole tool."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from pyproj import CRS
from rasterio.transform import Affine

from geoglnet.errors import ConfigError, LegendError, OutputError, OutputExistsError, SceneError, SceneNotFoundError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress, SilentProgress
from geoglnet.raster.class_table import ClassTable
from geoglnet.vector import geopackage
from geoglnet.vector.geopackage import LayerDefinition, layer_name, write_geopackage
from geoglnet.vector.polygonizer import VectorConfig, vectorize
from geoglnet.vector.rings import to_wkb
from geoglnet.vector.rows import PolygonRecords
from geoglnet.vector.style import outline_color, qml, sld

LEGEND = Legend(("background", "roof", 'grass & "trees" <5 m'), ((0, 0, 0), (250, 100, 0), (0, 160, 40)), background=0)
FIELDS = ("class_id", "class_name", "area_m2", "perimeter_m", "confidence", "part_of", "scene", "model")
UTM = Affine(0.5, 0, 300000, 0, -0.5, 4600000)


def write_labels(path: Path, values: np.ndarray, **profile: Any) -> Path:
    profile = {"crs": "EPSG:32645", "transform": UTM} | profile
    height, width = values.shape
    with rasterio.open(path, "w", driver="GTiff", count=1, height=height, width=width, dtype=values.dtype, **profile) as dst:
        dst.write(values, 1)
    return path


@pytest.fixture
def labels_path(tmp_path: Path) -> Path:
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[2:12, 3:23] = 1
    labels[20:30, 10:50] = 2
    labels[22:26, 12:20] = 1
    return write_labels(tmp_path / "labels.tif", labels)


def read_layer(path: Path) -> Any:
    return pyogrio.read_dataframe(path, layer=path.stem)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def test_polygons_carry_class_area_and_confidence(labels_path: Path, tmp_path: Path) -> None:
    confidence = write_labels(tmp_path / "confidence.tif", np.full((40, 60), 127, dtype=np.uint8))
    vector_path = tmp_path / "out.gpkg"
    count = vectorize(labels_path, vector_path, legend=LEGEND, confidence_path=confidence, config=VectorConfig(tile_size=16))
    frame = read_layer(vector_path).sort_values("area_m2")
    assert count == len(frame) == 3
    assert frame.crs == CRS("EPSG:32645")
    assert frame.geometry.is_valid.all()
    assert frame.geom_type.eq("Polygon").all()
    assert list(frame.columns) == [*FIELDS, "geometry"]
    assert frame.dtypes[["class_id", "area_m2", "confidence"]].astype(str).tolist() == ["int32", "float64", "float64"]
    assert frame.class_name.tolist() == ["roof", "roof", 'grass & "trees" <5 m']
    np.testing.assert_allclose(frame.area_m2, [32 / 4, 200 / 4, 368 / 4], rtol=0.005)
    np.testing.assert_allclose(frame.confidence, 0.5)


def test_confidence_is_null_without_a_raster_and_area_without_a_crs(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.tif", np.ones((3, 3), dtype=np.uint8), crs=None)
    progress = RecordedProgress()
    assert vectorize(labels, tmp_path / "out.gpkg", legend=LEGEND, progress=progress) == 1
    assert rows(tmp_path / "out.gpkg", "SELECT area_m2, confidence FROM out") == [(None, None)]
    assert read_layer(tmp_path / "out.gpkg").crs is None
    assert "no CRS" in progress.messages("log")[0]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_polygons_of_bare_labels_lie_where_qgis_draws_them(tmp_path: Path) -> None:
    values = np.zeros((4, 6), dtype=np.uint8)
    values[1, 2:5] = 1
    labels = write_labels(tmp_path / "labels.tif", values, crs=None, transform=Affine.identity())
    vectorize(labels, tmp_path / "out.gpkg", legend=LEGEND)
    assert tuple(read_layer(tmp_path / "out.gpkg").total_bounds) == (2, -2, 5, -1)


def test_the_layer_is_version_1_2_indexed_and_brings_its_style(labels_path: Path, tmp_path: Path) -> None:
    vector_path = tmp_path / "my out.gpkg"
    vectorize(labels_path, vector_path, legend=LEGEND)
    assert rows(vector_path, "PRAGMA user_version") == [(10200,)]
    assert rows(vector_path, 'SELECT count(*) FROM "rtree_my out_geom"') == [(3,)]
    contents = rows(vector_path, "SELECT table_name, data_type FROM gpkg_contents")
    assert contents == [("my out", "features"), ("layer_styles", "attributes")]
    (style,) = rows(
        vector_path,
        "SELECT f_table_catalog, f_table_schema, f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles",
    )
    assert style[:5] == ("", "", "my out", "geom", 1)
    assert style[5].startswith("<!DOCTYPE qgis")
    assert "".join(style[5].split()).count("<symboltype=") == len(ClassTable.of(LEGEND).entries())


def test_a_raster_without_polygons_is_an_empty_styled_layer(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.tif", np.full((5, 5), 255, dtype=np.uint8))
    assert vectorize(labels, tmp_path / "out.gpkg", legend=LEGEND) == 0
    frame = read_layer(tmp_path / "out.gpkg")
    assert len(frame) == 0
    assert frame.crs == CRS("EPSG:32645")
    assert set(FIELDS) < set(frame.columns)
    assert rows(tmp_path / "out.gpkg", "SELECT count(*) FROM layer_styles") == [(1,)]


def square(i: int) -> PolygonRecords:
    wkb = to_wkb(np.array([shapely.box(i, 0, i + 1, 1)], dtype=object))
    return PolygonRecords(wkb, np.ones(1, np.int32), *np.full((3, 1), float(i)), np.array([i]))


def test_batches_are_written_in_order_and_parts_get_their_last_number(tmp_path: Path) -> None:
    path = tmp_path / "out.gpkg"
    layer = LayerDefinition(path, ClassTable.of(LEGEND), "EPSG:32645")
    assert write_geopackage(path, layer, map(square, range(7)), {4: 3, 3: 1}) == 7
    assert rows(path, "SELECT part_of FROM out ORDER BY fid") == [(None,), (1,), (2,), (1,), (1,), (5,), (6,)]
    assert rows(path, "SELECT area_m2 FROM out ORDER BY fid") == [(float(i),) for i in range(7)]
    assert rows(path, "SELECT count(*) FROM rtree_out_geom") == [(7,)]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM gpkg_spatial_ref_sys WHERE srs_id = 32645", "names a row of gpkg_spatial_ref_sys that is missing"),
        ("DELETE FROM gpkg_ogr_contents", "holds 3 of 3 polygons, and counts none"),
        ("DELETE FROM rtree_out_geom_rowid WHERE rowid = 2", "holds 2 of 3 polygons"),
        ("PRAGMA application_id = 0", "not a GeoPackage"),
        ("PRAGMA user_version = 0", "not a GeoPackage"),
        ("UPDATE gpkg_contents SET min_x = NULL", "lacks the layer's extent"),
        ("DROP TRIGGER trigger_delete_feature_count_out", "lacks the triggers that count features"),
    ],
)
def test_a_geopackage_that_lost_a_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, words: str
) -> None:
    def lose(*arguments: Any) -> None:
        write(*arguments)
        with closing(sqlite3.connect(tmp_path / "out.gpkg")) as database, database:
            database.execute(damage)

    write = geopackage._write_stream
    monkeypatch.setattr(geopackage, "_write_stream", lose)
    with pytest.raises(OutputError, match=words):
        write_geopackage(
            tmp_path / "out.gpkg",
            LayerDefinition(tmp_path / "out.gpkg", ClassTable.of(LEGEND), "EPSG:32645"),
            map(square, range(3)),
            {},
        )


def test_an_error_among_the_rows_is_that_error(tmp_path: Path) -> None:
    def rows_that_end() -> Iterator[PolygonRecords]:
        yield square(1)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        write_geopackage(
            tmp_path / "out.gpkg", LayerDefinition(tmp_path / "out.gpkg", ClassTable.of(LEGEND), None), rows_that_end(), {}
        )


def test_options_of_gdal_are_left_as_they_were(tmp_path: Path) -> None:
    name = "OGR_GPKG_MAX_RAM_USAGE_RTREE"
    pyogrio.set_gdal_config_options({name: "123456"})
    try:
        write_geopackage(
            tmp_path / "out.gpkg", LayerDefinition(tmp_path / "out.gpkg", ClassTable.of(LEGEND), None), [square(1)], {}
        )
        assert pyogrio.get_gdal_config_option(name) == 123456
    finally:
        pyogrio.set_gdal_config_options({name: None})


def test_small_polygons_can_be_dropped(labels_path: Path, tmp_path: Path) -> None:
    assert vectorize(labels_path, tmp_path / "out.gpkg", legend=LEGEND, config=VectorConfig(min_area_m2=10)) == 2
    unknown = write_labels(tmp_path / "unknown.tif", np.ones((3, 3), dtype=np.uint8), crs=None)
    with pytest.raises(SceneError, match="min_area_m2"):
        vectorize(unknown, tmp_path / "other.gpkg", legend=LEGEND, config=VectorConfig(min_area_m2=10))


def test_progress_counts_tiles(labels_path: Path, tmp_path: Path) -> None:
    progress = RecordedProgress()
    vectorize(labels_path, tmp_path / "out.gpkg", legend=LEGEND, config=VectorConfig(tile_size=16), progress=progress)
    assert progress.events[0] == {"event": "plan", "stage": "polygons", "total": 12, "unit": "tiles"}
    assert sum(event["event"] == "progress" for event in progress.events) == 12


def test_a_raster_without_legend_gets_numbered_classes(labels_path: Path, tmp_path: Path) -> None:
    progress = RecordedProgress()
    assert vectorize(labels_path, tmp_path / "out.gpkg", progress=progress) == 3
    assert set(read_layer(tmp_path / "out.gpkg").class_name) == {"class 1", "class 2"}
    assert "values 1, 2 become classes, 0 is background" in progress.messages("log")[0]


def test_colors_of_a_foreign_color_table_are_kept(labels_path: Path, tmp_path: Path) -> None:
    with rasterio.open(labels_path, "r+") as dst:
        dst.write_colormap(1, {1: (10, 20, 30, 255), 2: (40, 50, 60, 255)})
    vectorize(labels_path, tmp_path / "out.gpkg")
    assert "10,20,30,153" in rows(tmp_path / "out.gpkg", "SELECT styleQML FROM layer_styles")[0][0]


def test_values_that_the_legend_lacks_are_told(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.tif", np.array([[1, 9]], dtype=np.uint8))
    progress = RecordedProgress()
    assert vectorize(labels, tmp_path / "out.gpkg", legend=LEGEND, progress=progress) == 2
    assert "holds the value 9, which the legend (3 classes) lacks" in progress.messages("warning")[0]
    assert list(read_layer(tmp_path / "out.gpkg").class_name) == ["roof", "class 9"]
    assert "class 9" in rows(tmp_path / "out.gpkg", "SELECT styleQML FROM layer_styles")[0][0]


def test_what_a_legend_declares_to_be_none_makes_no_polygons(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.tif", np.array([[0, 1, 255]], dtype=np.uint8))
    assert vectorize(labels, tmp_path / "out.gpkg", legend=LEGEND) == 1  # its ignore_value is 255


def test_bad_arguments_leave_no_file(labels_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"use \.gpkg"):
        vectorize(labels_path, tmp_path / "out.shp")
    with pytest.raises(SceneNotFoundError):
        vectorize(tmp_path / "none.tif", tmp_path / "out.gpkg")
    with pytest.raises(OutputError, match="does not exist"):
        vectorize(labels_path, tmp_path / "none" / "out.gpkg")
    with pytest.raises(ConfigError, match="tile_size"):
        VectorConfig(tile_size=0)
    with pytest.raises(ConfigError, match="min_area_m2"):
        VectorConfig(min_area_m2=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.tif"]


def test_an_existing_file_is_kept_unless_told_otherwise(labels_path: Path, tmp_path: Path) -> None:
    vectorize(labels_path, tmp_path / "out.gpkg", legend=LEGEND)
    with pytest.raises(OutputExistsError):
        vectorize(labels_path, tmp_path / "out.gpkg", legend=LEGEND)
    assert vectorize(labels_path, tmp_path / "out.gpkg", legend=LEGEND, overwrite=True) == 3


def test_canceling_leaves_no_file(labels_path: Path, tmp_path: Path) -> None:
    class Impatient(SilentProgress):
        def advance(self, amount: int = 1, **figures: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vectorize(labels_path, tmp_path / "out.gpkg", legend=LEGEND, progress=Impatient())
    assert [path.name for path in tmp_path.iterdir()] == ["labels.tif"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="file size limits are POSIX")
@pytest.mark.parametrize("limit", [4096, 200_000, 400_000])
def test_a_disk_that_fills_up_is_one_line_and_leaves_no_file(tmp_path: Path, limit: int) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (120, 120), dtype=np.uint8)
    labels = write_labels(tmp_path / "labels.tif", noise)
    script = f"""
        import resource, signal
        from geoglnet.errors import OutputError
        from geoglnet.vector.polygonizer import vectorize
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            vectorize({str(labels)!r}, {str(tmp_path / "out.gpkg")!r})
        except OutputError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert "out.gpkg cannot be written" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["labels.tif"]


def test_names_that_geopackage_reserves_are_not_used_for_layers(labels_path: Path, tmp_path: Path) -> None:
    assert layer_name("a/scene 1.gpkg") == "scene 1"
    assert layer_name("layer_styles.gpkg") == "polygons_layer_styles"
    vectorize(labels_path, tmp_path / "gpkg_contents.gpkg", legend=LEGEND)
    assert len(pyogrio.read_dataframe(tmp_path / "gpkg_contents.gpkg", layer="polygons_gpkg_contents")) == 3


def test_style_has_a_category_per_polygon_class_with_translucent_fill() -> None:
    root = ElementTree.fromstring(qml(ClassTable.of(LEGEND).entries()).partition("\n")[2])
    assert [c.get("value") for c in root.iter("category")] == ["roof", 'grass & "trees" <5 m']
    options = {o.get("name"): o.get("value") for o in root.iter("Option")}
    assert options["color"] == "0,160,40,153"
    assert options["outline_color"] == "0,88,22,255"
    assert outline_color((250, 100, 0)) == (138, 55, 0)


def test_sld_has_a_rule_per_polygon_class() -> None:
    se = "{http://www.opengis.net/se}"
    root = ElementTree.fromstring(sld(ClassTable.of(LEGEND).entries(), "out"))
    assert [rule.findtext(f"{se}Name") for rule in root.iter(f"{se}Rule")] == ["roof", 'grass & "trees" <5 m']
    assert [p.text for p in root.iter(f"{se}SvgParameter") if p.get("name") == "fill"] == ["#fa6400", "#00a028"]


def test_only_the_classes_that_are_asked_for_become_polygons(labels_path: Path, tmp_path: Path) -> None:
    every = vectorize(labels_path, tmp_path / "all.gpkg", legend=LEGEND)
    whole = read_layer(tmp_path / "all.gpkg")
    for word in ("roof", "1"):
        count = vectorize(labels_path, tmp_path / f"{word}.gpkg", legend=LEGEND, config=VectorConfig(classes=(word,)))
        some = read_layer(tmp_path / f"{word}.gpkg")
        assert 0 < count < every
        assert some.geometry.tolist() == whole[whole["class_name"] == "roof"].geometry.tolist()
        (style,) = rows(tmp_path / f"{word}.gpkg", "SELECT styleQML FROM layer_styles")
        assert "grass" not in style[0]


@pytest.mark.parametrize(
    ("word", "message"),
    [("rof", "no class is called 'rof'; did you mean 'roof'"), ("background", "'background' is no class that becomes")],
)
def test_classes_that_make_no_polygons_are_refused(labels_path: Path, tmp_path: Path, word: str, message: str) -> None:
    with pytest.raises(LegendError, match=message):
        vectorize(labels_path, tmp_path / "out.gpkg", legend=LEGEND, config=VectorConfig(classes=(word,)))
    assert not (tmp_path / "out.gpkg").exists()
