"""Areas in square meters, compared with geodesics on the ellipsoid."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from pyproj import Geod, Transformer
from rasterio.crs import CRS

from geoglnet.vector.measures import geodesic_areas, ground_measures


def geodesic_truth(polygon: shapely.Polygon, crs: str) -> float:
    """Area between geodesics through points so dense that the edges' shape no longer matters."""
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    dense = shapely.segmentize(polygon, polygon.length / 2000)
    degrees = shapely.transform(dense, lambda points: np.column_stack(to_degrees.transform(*points.T)))
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(degrees)[0])


def square_at(lon: float, lat: float, size: float, crs: str) -> shapely.Polygon:
    to_crs = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    return shapely.box(
        *np.sort(np.array([to_crs.transform(lon, lat), to_crs.transform(lon + size, lat + size)]), axis=0).ravel()
    )


@pytest.mark.parametrize("size", [0.0001, 0.01, 1.0])
@pytest.mark.parametrize(
    ("crs", "lon", "lat"),
    [("EPSG:3857", 13, 42), ("EPSG:4326", 13, 42), ("EPSG:32633", 13, 42), ("EPSG:2263", -74, 40.7), ("EPSG:3413", 12, 78)],
)
def test_area_is_within_a_ten_thousandth_of_the_geodesic_one(crs: str, lon: float, lat: float, size: float) -> None:
    polygon = square_at(lon, lat, size, crs)
    (area,) = geodesic_areas(np.array([polygon], dtype=object), CRS.from_string(crs))
    assert area == pytest.approx(geodesic_truth(polygon, crs), rel=1e-4)


def test_polygons_wider_than_the_earth_cost_no_memory() -> None:
    polygon = shapely.box(0, 0, 1e16, 1e16)  # 8e11 points, were its edges cut into short ones
    areas, lengths = ground_measures(np.array([polygon], dtype=object), "EPSG:32633")
    assert areas.shape == lengths.shape == (1,)


def test_a_meter_of_web_mercator_at_42_degrees_is_not_a_meter() -> None:
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(13, 42)
    (area,) = geodesic_areas(np.array([shapely.box(x, y, x + 100, y + 100)], dtype=object), "EPSG:3857")
    assert area == pytest.approx(100 * 100 * np.cos(np.radians(42)) ** 2, rel=0.005)


def test_polygons_across_the_antimeridian_keep_their_area() -> None:
    center = Transformer.from_crs("EPSG:4326", "EPSG:32601", always_xy=True).transform(180, -17)
    polygon = shapely.Point(center).buffer(5000).envelope
    (area,) = geodesic_areas(np.array([polygon], dtype=object), "EPSG:32601")
    assert area == pytest.approx(1e8, rel=0.005)


def test_a_polygon_around_the_pole_keeps_its_area() -> None:
    (area,) = geodesic_areas(np.array([shapely.box(-1000, -1000, 1000, 1000)], dtype=object), "EPSG:3413")
    scale = (1 + np.sin(np.radians(70))) / 2  # true scale is at 70° N
    assert area == pytest.approx(4e6 / scale**2, rel=0.005)


def test_holes_are_subtracted() -> None:
    square = shapely.box(500000, 4600000, 500100, 4600100)
    holed = square - shapely.box(500010, 4600010, 500060, 4600060)
    full, ring = geodesic_areas(np.array([square, holed], dtype=object), "EPSG:32633")
    assert ring / full == pytest.approx(0.75, rel=1e-6)


def test_area_is_unknown_without_a_crs() -> None:
    squares = np.array([shapely.box(0, 0, 1, 1)] * 2, dtype=object)
    assert np.isnan(geodesic_areas(squares, None)).all()
    assert np.isnan(geodesic_areas(squares, 'LOCAL_CS["drawing",UNIT["unknown",1]]')).all()
    assert geodesic_areas(squares[:0], "EPSG:4326").shape == (0,)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:4326", "EPSG:32633", "EPSG:3413"])
@pytest.mark.parametrize("size", [0.001, 0.3, 3.0])
def test_perimeters_are_geodesic_near_and_far(crs: str, size: float) -> None:
    lat = 78 if crs == "EPSG:3413" else 42
    polygon = square_at(13, lat, size, crs)
    _, (perimeter,) = ground_measures(np.array([polygon], dtype=object), crs)
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    dense = shapely.segmentize(polygon, polygon.length / 2000)
    degrees = shapely.transform(dense, lambda points: np.column_stack(to_degrees.transform(*points.T)))
    assert perimeter == pytest.approx(Geod(ellps="WGS84").geometry_length(degrees.exterior), rel=2e-3)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:4326", "EPSG:32633"])
def test_polygons_measured_together_over_80_km_are_those_measured_one_by_one(crs: str) -> None:
    west, south, *_ = square_at(13, 42, 0.001, crs).bounds
    *_, east, north = square_at(13.8, 42.6, 0.001, crs).bounds
    rng, size = np.random.default_rng(0), (east - west) / 400
    corners = np.column_stack([rng.uniform(west, east - size, 200), rng.uniform(south, north - size, 200)])
    squares = np.array([shapely.box(x, y, x + size, y + size) for x, y in corners], dtype=object)
    together, lengths = ground_measures(squares, crs)
    for square, area, length in zip(squares, together, lengths, strict=True):
        (alone,), (around,) = ground_measures(np.array([square], dtype=object), crs)
        assert area == pytest.approx(geodesic_truth(square, crs), rel=2e-5)
        assert (area, length) == (pytest.approx(alone, rel=2e-5), pytest.approx(around, rel=2e-5))
