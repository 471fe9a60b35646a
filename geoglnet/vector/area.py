"""Areas on the ground in square metres, whatever the CRS.

A square in degrees is not an area and a square metre of web-mercator is 0.55 m² at 42° N. All coordinates of a batch go
through one vectorised transformation to an equal-area projection of WGS 84, where the planar area is the ellipsoidal one:
for geographic CRSs a cylindrical one, in which edges along parallels and meridians stay straight (a pixel's edge follows
the parallel, not the geodesic); for all others the azimuthal one centred on the polygons.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from geoglnet.vector.tracing import Geometries

_LONG_EDGE_M = 25_000.0  # a straight edge this long bends by 0.04 % of its square's area in another projection


def geodesic_areas(geometries: Geometries, crs: Any) -> npt.NDArray[np.float64]:
    """Ellipsoidal areas of polygons that lie near each other (one scene).

    Args:
        geometries: ``(n,)`` polygons or multipolygons.
        crs: what pyproj takes for a CRS, rasterio's included; ``None`` when there is none.

    Returns:
        ``(n,)`` float64 square metres; NaN without a CRS, and for geometries outside the CRS's domain.
    """
    areas = np.full(len(geometries), np.nan)
    if crs is None or len(geometries) == 0:
        return areas
    try:
        source = _parsed(crs if isinstance(crs, str) else crs.to_wkt())
        lon, lat = _centre(geometries, source)
        transformer = _equal_area_transformer(source, lon, 0.0 if source.is_geographic else lat)
    except (CRSError, ProjError):
        return areas

    def apply(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    areas[:] = shapely.area(shapely.transform(_with_short_edges(geometries, source), apply))
    areas[~np.isfinite(areas)] = np.nan
    return areas


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
