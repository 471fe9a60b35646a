"""Geometries of every kind, read as polygons: repaired, clipped, counted, or refused with their file, layer and feature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow
import pytest
import shapely
from numpy.testing import assert_allclose
from pyarrow import parquet
from pyogrio.raw import write
from shapely import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box

from geoglnet.errors import DatasetError
from geoglnet.progress import RecordedProgress
from geoglnet.vector.polygon_reader import PolygonSet, read_polygons

UTM = "EPSG:32645"
X, Y = 350_000.0, 3_057_000.0
SCENE = (X, Y - 100, X + 100, Y)
SQUARE = box(X + 10, Y - 50, X + 40, Y - 20)
OTHER = box(X + 60, Y - 50, X + 70, Y - 20)


def write_rows(path: Path, rows: list[Any], crs: str | None = UTM, **options: Any) -> Path:
    """Geometries, or their WKB or WKT, as a GeoPackage of any kind of geometry."""
    as_wkb = np.array([shapely.to_wkb(row) if isinstance(row, shapely.Geometry) else row for row in rows], object)
    numbers = np.arange(len(rows))
    write(path, as_wkb, [numbers], ["id"], geometry_type="Unknown", crs=crs, driver="GPKG", **options)
    return path


def from_wkt(path: Path, *rows: str) -> Path:
    """Geometries that only GDAL writes: a VRT of a CSV, whose driver cannot count them or tell an extent."""
    lines = [f'{number},"{row}"' for number, row in enumerate(rows)]
    path.with_suffix(".csv").write_text("\n".join(["id,WKT", *lines]), encoding="utf-8")
    path.write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="{path.stem}"><SrcDataSource relativeToVRT="1">{path.stem}.csv</SrcDataSource>'
        f'<GeometryField encoding="WKT" field="WKT"/><LayerSRS>{UTM}</LayerSRS></OGRVRTLayer></OGRVRTDataSource>',
        encoding="utf-8",
    )
    return path


def read(path: Path, crs: Any = UTM, around: Any = SCENE, **options: Any) -> tuple[PolygonSet, list[str]]:
    progress = RecordedProgress()
    polygons = read_polygons(path, crs, around=around, progress=progress, **options)
    assert shapely.is_valid(polygons.geometries).all()
    assert set(shapely.get_type_id(polygons.geometries)) <= {3, 6}
    return polygons, progress.messages("log")


def test_polygons_inside_collections_are_used(tmp_path: Path) -> None:
    nested = GeometryCollection([GeometryCollection([SQUARE, Point(X, Y)]), MultiPolygon([OTHER])])
    path = write_rows(tmp_path / "a.gpkg", [GeometryCollection([SQUARE, LineString([(X, Y), (X + 9, Y)])]), nested, OTHER])
    polygons, said = read(path)
    assert_allclose(shapely.area(polygons.geometries), [900, 1200, 300])
    assert said == []


def ring(*corners: tuple[float, float]) -> str:
    return "(" + ",".join(f"{X + x} {Y - y}" for x, y in corners) + ")"


def test_surfaces_triangles_and_curves_are_used_for_the_area_under_them(tmp_path: Path) -> None:
    first = f"{X} {Y} 1,{X + 4} {Y} 2,{X} {Y - 8} 3,{X} {Y} 1"
    second = f"{X + 4} {Y} 2,{X + 4} {Y - 8} 3,{X} {Y - 8} 3,{X + 4} {Y} 2"
    wall = f"{X} {Y} 0,{X + 4} {Y} 0,{X + 4} {Y} 9,{X} {Y} 9,{X} {Y} 0"
    circle = f"CIRCULARSTRING{ring((0, 0), (10, 0), (0, 0))}"
    compound = f"COMPOUNDCURVE(CIRCULARSTRING{ring((0, 0), (5, 5), (10, 0))},{ring((10, 0), (0, 0))})"
    path = from_wkt(
        tmp_path / "kinds.vrt",
        f"TIN Z ((({first})),(({second})))",
        f"POLYHEDRALSURFACE Z ((({first})),(({second})),(({wall})))",
        f"TRIANGLE({ring((0, 0), (4, 0), (0, 8), (0, 0))})",
        f"CURVEPOLYGON({circle})",
        f"GEOMETRYCOLLECTION(MULTISURFACE(CURVEPOLYGON({circle}),({ring((20, 0), (30, 0), (30, 9), (20, 0))})))",
        f"GEOMETRYCOLLECTION(CURVEPOLYGON({compound}),TRIANGLE({ring((20, 0), (30, 0), (30, 9), (20, 0))}))",
        f"POLYGON ZM (({X} {Y} 1 2,{X + 4} {Y} 1 2,{X} {Y - 8} 1 2,{X} {Y} 1 2))",
    )
    polygons, said = read(path)
    disc = 25 * np.pi
    assert_allclose(shapely.area(polygons.geometries), [32, 32, 16, disc, disc + 45, disc / 2 + 45, 16], rtol=2e-3)
    assert not shapely.has_z(polygons.geometries).any()
    assert said == []


def test_invalid_and_open_rings_are_repaired_and_counted(tmp_path: Path) -> None:
    bowtie = Polygon([(X, Y), (X + 10, Y - 10), (X + 10, Y), (X, Y - 10)])
    overlapping = MultiPolygon([box(X, Y - 10, X + 10, Y), box(X + 5, Y - 10, X + 15, Y)])
    wide_hole = Polygon(SQUARE.exterior.coords, [box(X + 30, Y - 40, X + 60, Y - 30).exterior.coords])
    path = write_rows(tmp_path / "bad.gpkg", [bowtie, overlapping, wide_hole, SQUARE])
    polygons, said = read(path)
    assert_allclose(shapely.area(polygons.geometries), [50, 150, 900 - 100 + 200, 900])
    assert "3 of 4 features had invalid polygons" in said[0]
    unclosed = from_wkt(tmp_path / "open.vrt", f"POLYGON({ring((0, 0), (4, 0), (0, 8))})", "POLYGON EMPTY", f"POINT({X} {Y})")
    polygons, said = read(unclosed)
    assert_allclose(shapely.area(polygons.geometries), [16])
    assert "1 of 3 features had invalid polygons" in said[0]
    assert "2 of 3 features have no area (points, lines, empty ones) and are skipped" in said[1]


def test_coordinates_that_are_no_numbers_are_refused_with_file_layer_and_feature(tmp_path: Path) -> None:
    bad = f"POLYGON({ring((0, 0), (9, 0), (9, 9), (0, 0))})".replace(f"{X + 9} {Y}", f"nan {Y}")
    with pytest.raises(DatasetError, match=r"nan\.vrt: feature 2 has coordinates that are not numbers"):
        read(from_wkt(tmp_path / "nan.vrt", SQUARE.wkt, bad))
    path = write_rows(tmp_path / "inf.gpkg", [box(X, Y, np.inf, Y + 1)], layer="roofs")
    write_rows(path, [SQUARE], layer="other", append=True)
    with pytest.raises(DatasetError, match=r"inf\.gpkg, layer 'roofs': feature 1 has coordinates that are not numbers"):
        read(path, layer="roofs")
    collected = write_rows(tmp_path / "collected.gpkg", [GeometryCollection([box(X, Y, np.inf, Y + 1)])])
    with pytest.raises(DatasetError, match=r"collected\.gpkg: feature 1 has coordinates that are not numbers"):
        read(collected)


def test_of_several_layers_the_first_that_may_hold_polygons_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "project.gpkg"
    geopandas.GeoDataFrame(geometry=[Point(X, Y)], crs=UTM).to_file(path, layer="wells")
    geopandas.GeoDataFrame(geometry=[SQUARE], crs=UTM).to_file(path, layer="aoi", mode="a")
    geopandas.GeoDataFrame(geometry=[OTHER], crs=UTM).to_file(path, layer="roofs", mode="a")
    polygons, said = read(path)
    assert shapely.equals(polygons.geometries[0], SQUARE)
    assert said == [f"{path} has 3 layers with geometries: 'aoi' is read, not 'wells', 'roofs'"]
    assert read(path, layer="roofs")[1] == []


def test_polygons_of_a_whole_continent_are_clipped_around_the_scene(tmp_path: Path) -> None:
    eurasia, americas, world = box(-10, 5, 180, 78), box(-120, -30, -40, 50), box(-180, -90, 180, 90)
    path = tmp_path / "land.gpkg"
    geopandas.GeoDataFrame({"n": ["Eurasia", "Americas", "World"]}, geometry=[eurasia, americas, world], crs=4326).to_file(path)
    polygons, _ = read(path, class_column="n")
    assert polygons.class_names == ("Eurasia", "World")
    assert shapely.covers(polygons.geometries, box(*SCENE)).all()
    assert np.isfinite(shapely.bounds(polygons.geometries)).all()
    with pytest.raises(DatasetError, match=r"feature 1 extends to where EPSG:32645 has no coordinates; clip it"):
        read(path, around=None)


def test_long_edges_stay_straight_in_their_own_crs(tmp_path: Path) -> None:
    """The parallel of 27.63° runs 28 m from the straight line between its points 1° to the west and to the east."""
    path = tmp_path / "half.gpkg"
    geopandas.GeoDataFrame(geometry=[box(86.5, 20, 88.5, 27.63)], crs=4326).to_file(path)
    scene = geopandas.GeoSeries([Point(87.5, 27.63)], crs=4326).to_crs(UTM).iloc[0].buffer(500)
    (polygon,) = read(path, around=scene.bounds)[0].geometries
    edge = geopandas.GeoSeries([Point(87.5, 27.63)], crs=4326).to_crs(UTM).iloc[0]
    assert polygon.boundary.distance(edge) < 0.02


@pytest.mark.parametrize(
    ("parts", "area"),
    [
        ([box(179, -17, 180, -16), box(-180, -17, -179, -16)], 2),
        ([box(179, -17, 181, -16)], 2),
        ([box(-181, -17, -180, -16)], 1),
        ([box(-180, -90, 180, 90)], None),
    ],
)
@pytest.mark.parametrize("crs", ["EPSG:32760", "EPSG:4326"])
def test_the_antimeridian_is_no_border(tmp_path: Path, parts: list[Polygon], area: float | None, crs: str) -> None:
    path = tmp_path / "fiji.gpkg"
    geopandas.GeoDataFrame(geometry=[MultiPolygon(parts)], crs=4326).to_file(path)
    is_lon_lat = crs == "EPSG:4326"
    scene = (179.0, -17.0, 181.0, -16.0) if is_lon_lat else (700_000.0, 8_100_000.0, 940_000.0, 8_240_000.0)
    (polygon,) = read(path, crs=crs, around=scene)[0].geometries
    square = 1.0 if is_lon_lat else geopandas.GeoSeries([box(178, -17, 179, -16)], crs=4326).to_crs(crs).area[0]
    found = polygon.intersection(box(*scene)).area if is_lon_lat or area is None else polygon.area
    expected = box(*scene).area if area is None else area * square
    assert found == pytest.approx(expected, rel=0.01)


def test_meters_that_are_called_degrees_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bare.geojson"
    plain = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {}, "geometry": SQUARE.__geo_interface__}],
    }
    path.write_text(json.dumps(plain), encoding="utf-8")
    for crs in (UTM, "EPSG:4326"):
        with pytest.raises(
            DatasetError, match=r"feature 0 has the coordinates 350040 .* are not longitude and latitude.*EPSG:4326"
        ):
            read(path, crs=crs)
    assert shapely.equals(read(path, crs=None)[0].geometries[0], SQUARE)


def test_a_crs_of_heights_alone_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "heights.gpkg", [SQUARE], crs="EPSG:5703")
    with pytest.raises(
        DatasetError, match=r"heights\.gpkg has the CRS EPSG:5703, which has heights only and no horizontal axes"
    ):
        read(path)


def overture(path: Path, crs: Any) -> Path:
    """A GeoParquet file as Overture writes it: other name of the geometry, boxes, a second geometry, structs."""
    rows = {"id": ["a", "b"], "class": ["house", "shed"]}
    columns = {"geom": shapely.to_wkb([SQUARE, OTHER]), "middle": shapely.to_wkb([SQUARE.centroid, OTHER.centroid])}
    boxes = [dict(zip(("xmin", "ymin", "xmax", "ymax"), shape.bounds, strict=True)) for shape in (SQUARE, OTHER)]
    table = pyarrow.table(
        rows | {name: pyarrow.array(list(wkb), pyarrow.binary()) for name, wkb in columns.items()} | {"bbox": boxes}
    )
    facts = {"encoding": "WKB", "geometry_types": []} | ({} if crs == "" else {"crs": crs})
    geo = {"version": "1.1.0", "primary_column": "geom", "columns": {"middle": facts, "geom": facts}}
    parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    return path


def test_geoparquet_is_read_without_gdal(tmp_path: Path) -> None:
    projjson = geopandas.GeoSeries([SQUARE], crs=UTM).crs.to_json_dict()
    polygons, _ = read(overture(tmp_path / "overture.parquet", projjson), class_column="class")
    assert polygons.class_names == ("house", "shed")
    assert shapely.equals(polygons.geometries, [SQUARE, OTHER]).all()
    assert shapely.equals(read(overture(tmp_path / "plain.parquet", None), crs=None)[0].geometries[0], SQUARE)
    with pytest.raises(DatasetError, match="has no CRS"):
        read(overture(tmp_path / "plain.parquet", None))
    with pytest.raises(DatasetError, match="not longitude and latitude"):
        read(overture(tmp_path / "silent.parquet", ""))  # without a CRS it is longitude and latitude
    with pytest.raises(DatasetError, match="no column 'klass'; did you mean 'class'"):
        read(tmp_path / "overture.parquet", class_column="klass")
    geopandas.GeoDataFrame(geometry=[SQUARE], crs=UTM).to_parquet(tmp_path / "arrow.bin", geometry_encoding="geoarrow")
    assert shapely.equals(read(tmp_path / "arrow.bin")[0].geometries[0], SQUARE)


def test_parquet_that_is_no_geoparquet_is_refused_in_one_line(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "table.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    for name, words in (("table", "is Parquet without the metadata of GeoParquet"), ("broken", "is not a Parquet file that")):
        with pytest.raises(DatasetError, match=words):
            read(tmp_path / f"{name}.parquet")


WEB = 20_037_508.342789244


@pytest.mark.parametrize("halves", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    ("crs", "bounds", "share"),
    [
        ("EPSG:3857", (-WEB, -WEB, WEB, WEB), 1.0),
        ("EPSG:3857", (-WEB, 0, -WEB + 1e5, 1e5), 1.0),
        ("EPSG:3857", (WEB - 1e5, 0, WEB, 1e5), 1.0),
        ("EPSG:3832", (-WEB, -1e7, WEB, 1e7), 1.0),
        ("EPSG:4269", (-180, -90, 180, 90), 1.0),
        ("EPSG:32660", (7e5, 1e6, 9.5e5, 1.2e6), 1.0),
        ("EPSG:3413", (-4e6, -4e6, 4e6, 4e6), 1.0),
        ("EPSG:3031", (-4e6, -4e6, 4e6, 4e6), 1.0),
        ("ESRI:54009", (-1.8e7, -9e6, 1.8e7, 9e6), 0.7887),
    ],
)
def test_a_mask_of_the_whole_world_covers_every_scene(
    tmp_path: Path, crs: str, bounds: tuple[float, float, float, float], share: float, halves: bool
) -> None:
    rows = [box(-180, -90, 0, 90), box(0, -90, 180, 90)] if halves else [box(-180, -90, 180, 90)]
    polygons = read_polygons(write_rows(tmp_path / "world.gpkg", rows, "EPSG:4326"), crs, around=bounds)
    covered = shapely.intersection(shapely.union_all(polygons.geometries), box(*bounds))
    assert covered.area / box(*bounds).area == pytest.approx(share, abs=1e-5)
