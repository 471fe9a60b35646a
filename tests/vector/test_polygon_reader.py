"""Polygons read as labels."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow
import pytest
import shapely
from pyarrow import parquet
from rasterio.crs import CRS

from geoglnet.errors import DatasetError
from geoglnet.vector.polygon_reader import read_polygons

SQUARE = shapely.box(500000, 4600000, 500010, 4600010)


def write_layer(path: Path, geometries: list[Any], crs: str | None = "EPSG:32633", **columns: Any) -> Path:
    geopandas.GeoDataFrame(columns, geometry=geometries, crs=crs).to_file(path, layer="any name", engine="pyogrio")
    return path


def test_polygons_come_in_the_crs_asked_for(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "truth.gpkg", [SQUARE], kind=["roof"])
    found = read_polygons(path, CRS.from_epsg(4326), "kind")
    assert len(found) == 1
    assert found.class_names == ("roof",)
    assert found.geometries[0].centroid.x == pytest.approx(15, abs=0.01)
    assert found.geometries[0].centroid.y == pytest.approx(41.55, abs=0.01)
    same = read_polygons(path, "EPSG:32633")
    assert same.class_names is None
    assert shapely.equals(same.geometries[0], SQUARE)


def test_without_a_crs_coordinates_are_taken_as_they_are(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "truth.gpkg", [SQUARE])
    assert shapely.equals(read_polygons(path, None).geometries[0], SQUARE)


def test_points_empty_and_missing_geometries_are_passed_over(tmp_path: Path) -> None:
    geometries = [shapely.Point(1, 2), SQUARE, None, shapely.Polygon(), shapely.MultiPolygon([SQUARE])]
    path = write_layer(tmp_path / "truth.geojson", geometries, kind=list("abcde"))
    found = read_polygons(path, None, "kind")
    assert found.class_names == ("b", "e")
    assert np.isin(shapely.get_type_id(found.geometries), [3, 6]).all()


def test_lists_of_truth_values_are_named_where_they_are_read_and_nowhere_else(tmp_path: Path) -> None:
    rows = [{"type": "Feature", "geometry": None, "properties": {"kind": value}} for value in ([True, False], None)]
    path = tmp_path / "lists.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": rows}))
    with pytest.raises(DatasetError, match="holds no polygons"):
        read_polygons(path, None)
    with pytest.raises(DatasetError, match=r"column 'kind' cannot be read|holds no polygons"):
        read_polygons(path, None, "kind")


def test_height_is_dropped(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "truth.gpkg", [shapely.force_3d(SQUARE, 7)])
    assert not shapely.has_z(read_polygons(path, None).geometries).any()


def test_numbers_name_classes_without_a_decimal_point(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "truth.gpkg", [SQUARE] * 2, code=[3.0, 4.0])
    assert read_polygons(path, None, "code").class_names == ("3", "4")


def test_bad_files_are_told_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no polygons here")
    points = write_layer(tmp_path / "points.gpkg", [shapely.Point(0, 0)])
    empty = write_layer(tmp_path / "empty.gpkg", [])
    bare = write_layer(tmp_path / "bare.geojson", [SQUARE]).rename(tmp_path / "bare2.geojson")
    named = write_layer(tmp_path / "named.gpkg", [SQUARE, SQUARE], landuse=["farm", None])
    for path, column, words in [
        (tmp_path / "none.gpkg", None, "does not exist"),
        (text, None, "is not a vector file"),
        (points, None, "holds no polygons"),
        (empty, None, "holds no polygons"),
        (bare, "kind", "no columns"),
        (named, "land_use", "did you mean 'landuse'"),
        (named, "landuse", "1 of 2 polygons have no 'landuse'"),
    ]:
        with pytest.raises(DatasetError, match=words) as caught:
            read_polygons(path, None, column)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "word", "column"),
    [
        ("a.csv", b"roof", "kind"),
        ("a.csv", b"kind", None),
        ("a.gpkg", b"roof", "kind"),
        ("a.gpkg", b"any name", None),
        ("a.fgb", b"kind", None),
        ("a.geojson", b"roof", "kind"),
    ],
)
def test_text_that_is_not_in_utf_8_is_told_in_one_line(tmp_path: Path, name: str, word: bytes, column: str | None) -> None:
    path = tmp_path / name
    if path.suffix == ".csv":
        path.write_text(f'WKT,kind\n"{SQUARE.wkt}",roof\n')
    else:
        write_layer(path, [SQUARE], kind=["roof"])
    assert len(read_polygons(path, None, column)) == 1
    content = path.read_bytes()
    assert word in content
    path.write_bytes(
        content.replace(b"any name", b"any n\xffme") if word == b"name" else content.replace(word, word[:-1] + b"\xff")
    )
    with pytest.raises(DatasetError, match=rf"{name} holds text that is not in UTF-8 .*write it anew") as caught:
        read_polygons(path, None, column)
    assert "\n" not in str(caught.value)


GEO: dict[str, Any] = {"primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB", "crs": None}}}


@pytest.mark.parametrize(
    ("geometry", "geo", "words"),
    [
        (1, GEO, "not a Parquet file that can be read"),
        (SQUARE.wkb, GEO | {"columns": {"geometry": 7}}, "without the metadata of GeoParquet"),
        (SQUARE.wkb, GEO | {"columns": {"geometry": {"encoding": 7}}}, "without the metadata of GeoParquet"),
        (SQUARE.wkb, GEO | {"columns": {"geometry": {"encoding": "polygon"}}}, "without the metadata of GeoParquet"),
        (SQUARE.wkb, {"primary_column": "none", "columns": {"none": {}}}, "without the metadata of GeoParquet"),
        (SQUARE.wkb, [GEO], "without the metadata of GeoParquet"),
        (SQUARE.wkb, GEO, ""),
    ],
)
def test_geoparquet_of_wrong_kinds_is_told_in_one_line(tmp_path: Path, geometry: Any, geo: Any, words: str) -> None:
    table = pyarrow.table({"geometry": [geometry], "kind": ["roof"]}).replace_schema_metadata({"geo": json.dumps(geo)})
    parquet.write_table(table, tmp_path / "a.parquet")
    if not words:
        assert read_polygons(tmp_path / "a.parquet", None, "kind").class_names == ("roof",)
        return
    with pytest.raises(DatasetError, match=words) as caught:
        read_polygons(tmp_path / "a.parquet", None, "kind")
    assert "\n" not in str(caught.value)


def test_a_file_without_crs_cannot_be_reprojected(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="crs"):
        path = write_layer(tmp_path / "truth.gpkg", [SQUARE], crs=None)
    with pytest.raises(DatasetError, match="has no CRS"):
        read_polygons(path, "EPSG:4326")


def test_vector_drivers_can_be_narrowed_for_files_of_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what a file is, whatever its name says; what names other files or servers is none of them."""
    own = [write_layer(tmp_path / f"a.{suffix}", [SQUARE]) for suffix in ("gpkg", "fgb", "geojson")]
    geopandas.GeoDataFrame(geometry=[SQUARE], crs="EPSG:32633").to_parquet(tmp_path / "a.parquet")
    shape = write_layer(tmp_path / "a.shp", [SQUARE])
    source = f"<SrcDataSource>{own[0]}</SrcDataSource><SrcLayer>any name</SrcLayer>"
    vrt = f'<OGRVRTDataSource><OGRVRTLayer name="any name">{source}</OGRVRTLayer></OGRVRTDataSource>'
    others = {"a.vrt": vrt, "b.geojson": vrt, "c.geojson": f"{{ {vrt} }}", "d.csv": "a,WKT\n1,POINT (0 0)\n"}
    for name, text in others.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(own[0], "a.gpkg")
    assert len(read_polygons(tmp_path / "a.vrt", None)) == 1
    monkeypatch.setenv("GEOGLNET_DRIVERS", "GTiff")
    for path in (*own, tmp_path / "a.parquet"):
        assert len(read_polygons(path, None)) == 1
    virtual = (f"/vsizip/{tmp_path}/a.zip/a.gpkg", "/vsicurl/http://127.0.0.1:9/a.gpkg", "https://127.0.0.1:9/a.geojson")
    for path in (shape, *(tmp_path / name for name in (*others, "a.zip")), *virtual):
        with pytest.raises(
            DatasetError, match=r"vector drivers that GEOGLNET_DRIVERS allows \(GPKG, GeoJSON, FlatGeobuf"
        ) as caught:
            read_polygons(path, None)
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("GEOGLNET_DRIVERS", "GTiff, ESRI Shapefile")
    assert len(read_polygons(shape, None)) == 1


@pytest.mark.parametrize("column", [None, "kind"])
def test_a_crs_that_is_not_in_utf_8_is_told_in_one_line(tmp_path: Path, column: str | None) -> None:
    path = tmp_path / "areas.fgb"
    frame = geopandas.GeoDataFrame({"kind": [1]}, geometry=[shapely.box(5e5, 4e6, 5e5 + 10, 4e6 + 10)], crs="EPSG:6344+5703")
    frame.to_file(path)
    path.write_bytes(path.read_bytes().replace(b"Vertical Datum 1988", b"Vertical Datum 198\xff"))
    with pytest.raises(DatasetError, match=r"areas\.fgb has a CRS whose text is not in UTF-8; give a copy another"):
        read_polygons(path, CRS.from_epsg(32615), class_column=column)
