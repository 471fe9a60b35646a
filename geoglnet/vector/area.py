"""Areas and lengths on the ground in metres, whatever the CRS.

A square in degrees is not an area and a square metre of web-mercator is 0.55 m² at 42° N. All coordinates of a batch go
through one vectorised transformation to an equal-area projection of WGS 84, where the planar area is the ellipsoidal one:
for geographic CRSs a cylindrical one, in which edges along parallels and meridians stay straight (a pixel's edge follows
the parallel, not the geodesic); for all others the azimuthal one centred on the polygons, which near its centre keeps
lengths too. Lengths in degrees follow from the ellipsoid's radii of curvature.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError, ProjError

from geoglnet.vector.tracing import Geometries

_LONG_EDGE_M = 25_000.0  # a straight edge this long bends by 0.04 % of its square's area in another projection


_WGS84 = Geod(ellps="WGS84")

Metres = npt.NDArray[np.float64]


def ground_measures(geometries: Geometries, crs: Any) -> tuple[Metres, Metres]:
    """Ellipsoidal areas and perimeters of polygons that lie near each other (one scene).

    Args:
        geometries: ``(n,)`` polygons or multipolygons.
        crs: what pyproj takes for a CRS, rasterio's included; ``None`` when there is none.

    Returns:
        ``(n,)`` float64 square metres and ``(n,)`` float64 metres (holes' borders count); NaN without a CRS, and for
        geometries outside the CRS's domain.
    """
    unknown = np.full(len(geometries), np.nan)
    if crs is None or len(geometries) == 0:
        return unknown, unknown.copy()
    try:
        source = _parsed(crs if isinstance(crs, str) else crs.to_wkt())
        projected = _equal_area(geometries, source)
    except (CRSError, ProjError):
        return unknown, unknown.copy()
    lengths = _length_of_degrees(geometries, source) if source.is_geographic else shapely.length(projected)
    areas = shapely.area(projected)
    is_unknown = ~(np.isfinite(areas) & np.isfinite(lengths))
    areas[is_unknown] = lengths[is_unknown] = np.nan
    return areas, lengths


def geodesic_areas(geometries: Geometries, crs: Any) -> Metres:
    """The areas of :func:`ground_measures`."""
    return ground_measures(geometries, crs)[0]


def _equal_area(geometries: Geometries, source: CRS) -> Geometries:
    lon, lat = _centre(geometries, source)
    transformer = _equal_area_transformer(source, lon, 0.0 if source.is_geographic else lat)

    def apply(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    projected: Geometries = shapely.transform(_with_short_edges(geometries, source), apply)
    return projected


def _length_of_degrees(geometries: Geometries, source: CRS) -> Metres:
    """Lengths of borders in longitude and latitude: steps along meridian and parallel at the middle of every edge."""
    unit = float(source.axis_info[0].unit_conversion_factor)  # radians
    points, index = shapely.get_coordinates(geometries, return_index=True)
    rings = shapely.get_rings(geometries)
    ends = np.cumsum(shapely.get_num_coordinates(rings))
    lon, lat = (points * unit).T
    middle = (lat[1:] + lat[:-1]) / 2
    flattened = 1 - _WGS84.es * np.sin(middle) ** 2
    north = _WGS84.a * (1 - _WGS84.es) / flattened**1.5 * np.diff(lat)
    east = _WGS84.a / np.sqrt(flattened) * np.cos(middle) * np.diff(lon)
    steps = np.append(np.hypot(north, east), 0.0)
    steps[ends - 1] = 0.0  # from one ring to the next
    return np.bincount(index, weights=steps, minlength=len(geometries)).astype(np.float64)


@lru_cache(maxsize=16)
def _parsed(definition: str) -> CRS:
    return CRS.from_user_input(definition)


@lru_cache(maxsize=16)
def _to_degrees(source: CRS) -> Transformer:
    return Transformer.from_crs(source, "EPSG:4326", always_xy=True)


@lru_cache(maxsize=64)
def _equal_area_transformer(source: CRS, lon: float, lat: float) -> Transformer:
    kind = "+proj=cea" if source.is_geographic else f"+proj=laea +lat_0={lat}"
    return Transformer.from_crs(source, f"{kind} +lon_0={lon} +datum=WGS84 +units=m +type=crs", always_xy=True)


def _centre(geometries: Geometries, source: CRS) -> tuple[float, float]:
    """Longitude and latitude of the middle, in whole degrees so that few projections are ever built."""
    west, south, east, north = shapely.total_bounds(geometries)
    lon, lat = _to_degrees(source).transform((west + east) / 2, (south + north) / 2, errcheck=True)
    return float(round(lon)), float(round(lat))


def _with_short_edges(geometries: Geometries, source: CRS) -> Geometries:
    """Points added on the long edges of large polygons, which other projections bend."""
    if source.is_geographic:
        return geometries
    longest = _LONG_EDGE_M / float(source.axis_info[0].unit_conversion_factor)
    west, south, east, north = shapely.bounds(geometries).T
    is_large = np.maximum(east - west, north - south) > longest
    if not is_large.any():
        return geometries
    short = geometries.copy()
    short[is_large] = shapely.segmentize(geometries[is_large], longest)
    return short
