"""Areas and perimeters on the ground.

A square degree is no unit of area, and a square meter of web-mercator is 0.55 m² at 42° N. Polygons that lie near each other
(one tile of a scene) are measured in the plane and corrected by the scale of the CRS at their middle: the ellipsoid's metric,
sampled on a grid over all of them and fitted by a quadric; across 100 km it errs by a few millionths.

Where they lie further apart, all coordinates go through one vectorized transformation to an equal-area projection of WGS 84,
where the planar area is the ellipsoidal one: for geographic CRSs a cylindrical one, in which edges along parallels and
meridians stay straight (a pixel's edge follows the parallel, not the geodesic); for all others the azimuthal one centered on
the polygons, which near its center keeps lengths too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError, ProjError

from geoglnet.raster.crs import WGS84, Ground, ground_of, parsed
from geoglnet.vector.rings import Geometries, Outlines, Rings, as_geometries

_LONG_EDGE_M = 25_000.0  # a straight edge this long bends by 0.04 % of its square's area in another projection

_LARGEST_M = 1e8  # what is wider is nowhere on Earth; its points would only fill the memory
_NEAR_M = 100_000.0  # across which the quadric is exact enough
_GRID = np.linspace(-1.0, 1.0, 4)
_CONFORMAL = 1e-6  # directions whose scales differ by less than this are measured alike, which is far quicker
_LARGEST_LATITUDE = 85.0  # beyond it longitudes converge too fast

Meters = npt.NDArray[np.float64]


def ground_measures(geometries: Outlines, crs: Any) -> tuple[Meters, Meters]:
    """Measure the ellipsoidal areas and perimeters of polygons of one scene.

    Args:
        geometries: ``(n,)`` polygons or multipolygons, or the rings of polygons.
        crs: anything that pyproj accepts as a CRS, rasterio's included; ``None`` when there is none.

    Returns:
        ``(n,)`` float64 square meters and ``(n,)`` float64 meters (holes' borders count); NaN where meters are unknown, see
        :func:`~geoglnet.raster.crs.ground_of`, and for geometries outside the CRS's domain.
    """
    unknown = np.full(len(geometries), np.nan)
    ground = ground_of(crs)
    if not ground.is_measured or len(geometries) == 0:
        return unknown, unknown.copy()
    if ground.unit_m is not None:  # a plane that lies nowhere on an ellipsoid: nothing to correct
        _, areas, lengths = _in_plane(geometries)
        return areas * ground.unit_m**2, lengths * ground.unit_m
    try:
        source = parsed(crs)
        metric = _local_metric(_total_bounds(geometries), source, ground)
        if metric is not None:
            return _measured_near(geometries, metric)
        geometries = as_geometries(geometries)
        projected = _equal_area(geometries, source, ground)
    except (CRSError, ProjError):
        return unknown, unknown.copy()
    lengths = _length_of_degrees(geometries, source, ground) if source.is_geographic else shapely.length(projected)
    areas = shapely.area(projected)
    is_unknown = ~(np.isfinite(areas) & np.isfinite(lengths))
    areas[is_unknown] = lengths[is_unknown] = np.nan
    return areas, lengths


def geodesic_areas(geometries: Geometries, crs: Any) -> Meters:
    """Measure areas alone, see :func:`ground_measures`."""
    return ground_measures(geometries, crs)[0]


@dataclass(frozen=True, slots=True)
class _Metric:
    """The ellipsoid's metric tensor in a CRS's coordinates, each of its three entries a quadric of the place.

    A step (x, y) in the CRS is √(xx · x² + yy · y² + 2 · xy · x · y) meters long, and an area grows by √(xx · yy − xy²)
    (the first fundamental form of the surface).

    Args:
        middle: ``(2,)`` middle of the place that it is fitted for.
        half: ``(2,)`` half of its width and height.
        coefficients: ``(6, 3)`` of the quadrics of xx, yy and xy.
    """

    middle: Meters
    half: Meters
    coefficients: Meters

    def at(self, points: Meters) -> Meters:
        """Evaluate the metric, ``(n, 3)``, at ``(n, 2)`` points."""
        return np.asarray(_quadric((points - self.middle) / self.half) @ self.coefficients)


def _quadric(points: Meters) -> Meters:
    """Return the six terms of a quadric, ``(n, 6)``, at ``(n, 2)`` points from -1 to 1."""
    u, v = points.T
    return np.column_stack([np.ones_like(u), u, v, u * u, u * v, v * v])


def _local_metric(bounds: Meters, source: CRS, ground: Ground) -> _Metric | None:
    """Fit the metric around some polygons; return ``None`` where they reach too far, or too near a pole."""
    low, high = bounds[:2], bounds[2:]
    # A single point has no extent to sample: at least as much as coordinates of this size can resolve.
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-9 * np.abs(high).max() + 1e-12)
    places = np.array([(u, v) for u in _GRID for v in _GRID])
    # Central differences: a step to either side of every sample along x and along y, in one transformation.
    step = half * 1e-3
    points = middle + places * half
    along_x, along_y = np.diag(step)
    sampled = np.concatenate([points - along_x, points + along_x, points - along_y, points + along_y])
    lon, lat = (np.asarray(side).reshape(4, -1) for side in _to_degrees(source, ground.degrees).transform(*sampled.T))
    if not np.isfinite(lon + lat).all() or np.abs(lat).max() > _LARGEST_LATITUDE:
        return None
    east_x, north_x = _on_ground(lon[:2], lat[:2], ground.ellipsoid or WGS84)
    east_y, north_y = _on_ground(lon[2:], lat[2:], ground.ellipsoid or WGS84)
    steps_x, steps_y = 2 * step
    metric = np.column_stack(
        [
            (east_x**2 + north_x**2) / steps_x**2,
            (east_y**2 + north_y**2) / steps_y**2,
            (east_x * east_y + north_x * north_y) / (steps_x * steps_y),
        ]
    )
    if (2 * half * np.sqrt(metric[:, :2].max(axis=0))).max() > _NEAR_M:
        return None
    return _Metric(middle, half, np.linalg.lstsq(_quadric(places), metric, rcond=None)[0])


def _on_ground(lon: Meters, lat: Meters, ellipsoid: Geod) -> tuple[Meters, Meters]:
    """Return meters to the east and to the north between two rows of places, a short way apart.

    With the radii of curvature of the ellipsoid: N = a / √(1 − e² sin² φ) along the parallel (times cos φ), and
    M = a (1 − e²) / (1 − e² sin² φ)^1.5 along the meridian.
    """
    middle = np.radians(lat.mean(axis=0))
    flattened = 1 - ellipsoid.es * np.sin(middle) ** 2
    difference = (lon[1] - lon[0] + 180) % 360 - 180  # the short way across the antimeridian
    east = ellipsoid.a / np.sqrt(flattened) * np.cos(middle) * np.radians(difference)
    return east, ellipsoid.a * (1 - ellipsoid.es) / flattened**1.5 * np.radians(lat[1] - lat[0])


def _total_bounds(geometries: Outlines) -> Meters:
    """Return (left, bottom, right, top) of all outlines together."""
    if isinstance(geometries, Rings):
        x, y = geometries.points.T
        return np.array([x.min(), y.min(), x.max(), y.max()])
    total: Meters = shapely.total_bounds(geometries)
    return total


def _in_plane(geometries: Outlines) -> tuple[Meters, Meters, Meters]:
    """Measure bounds ``(n, 4)``, areas and lengths ``(n,)`` in the units of the coordinates."""
    if isinstance(geometries, Rings):
        return geometries.measures()
    return shapely.bounds(geometries), shapely.area(geometries), shapely.length(geometries)


def _measured_near(geometries: Outlines, metric: _Metric) -> tuple[Meters, Meters]:
    """Measure polygons in the plane, and correct each by the metric at the middle of its bounds."""
    bounds, areas, lengths = _in_plane(geometries)
    west, south, east, north = bounds.T
    xx, yy, xy = metric.at(np.column_stack([(west + east) / 2, (south + north) / 2])).T
    with np.errstate(invalid="ignore"):  # where the CRS folds over there is no area
        areas = areas * np.sqrt(xx * yy - xy**2)
    # Half the difference of the metric's eigenvalues: 0 where the scale is the same in all directions, as in UTM.
    if (np.hypot((xx - yy) / 2, xy) < _CONFORMAL * (xx + yy)).all():
        return areas, lengths * np.sqrt((xx + yy) / 2)
    steps, index = _steps(as_geometries(geometries))
    x, y = steps.T
    lengths = np.sqrt(xx[index] * x**2 + yy[index] * y**2 + 2 * xy[index] * x * y)
    return areas, np.bincount(index, weights=lengths, minlength=len(geometries)).astype(np.float64)


def _steps(geometries: Geometries) -> tuple[Meters, npt.NDArray[np.intp]]:
    """Return the step from every point to the next one of its ring, zero at a ring's end, and the geometry of each."""
    points, index = shapely.get_coordinates(geometries, return_index=True)
    steps = np.zeros_like(points)
    steps[:-1] = np.diff(points, axis=0)
    steps[np.cumsum(shapely.get_num_coordinates(shapely.get_rings(geometries))) - 1] = 0.0
    return steps, index


def _equal_area(geometries: Geometries, source: CRS, ground: Ground) -> Geometries:
    """Project polygons to an equal-area projection centered on them."""
    lon, lat = _center(geometries, source, ground)
    transformer = _equal_area_transformer(source, ground, lon, 0.0 if source.is_geographic else lat)

    def apply(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    projected: Geometries = shapely.transform(_with_short_edges(geometries, source), apply)
    return projected


def _length_of_degrees(geometries: Geometries, source: CRS, ground: Ground) -> Meters:
    """Measure borders in longitude and latitude: steps along meridian and parallel at the middle of every edge."""
    ellipsoid, unit = ground.ellipsoid or WGS84, float(source.axis_info[0].unit_conversion_factor)  # radians
    steps, index = _steps(geometries)
    along_lon, along_lat = (steps * unit).T
    middle = shapely.get_coordinates(geometries)[:, 1] * unit + along_lat / 2
    flattened = 1 - ellipsoid.es * np.sin(middle) ** 2
    north = ellipsoid.a * (1 - ellipsoid.es) / flattened**1.5 * along_lat
    east = ellipsoid.a / np.sqrt(flattened) * np.cos(middle) * along_lon
    return np.bincount(index, weights=np.hypot(north, east), minlength=len(geometries)).astype(np.float64)


@lru_cache(maxsize=16)
def _to_degrees(source: CRS, degrees: CRS | None) -> Transformer:
    """Build the transformer to longitude and latitude, once per CRS: that takes longer than measuring a tile."""
    return Transformer.from_crs(source, degrees, always_xy=True)


@lru_cache(maxsize=64)
def _equal_area_transformer(source: CRS, ground: Ground, lon: float, lat: float) -> Transformer:
    """Build the transformer to an equal-area projection with its center at a place."""
    kind = "+proj=cea" if source.is_geographic else f"+proj=laea +lat_0={lat}"
    ellipsoid = ground.ellipsoid or WGS84
    datum = "+datum=WGS84" if ground.is_earth else f"+a={ellipsoid.a!r} +b={ellipsoid.b!r}"
    return Transformer.from_crs(source, f"{kind} +lon_0={lon} {datum} +units=m +type=crs", always_xy=True)


def _center(geometries: Geometries, source: CRS, ground: Ground) -> tuple[float, float]:
    """Return longitude and latitude of the middle, in whole degrees so that few projections are ever built."""
    west, south, east, north = shapely.total_bounds(geometries)
    lon, lat = _to_degrees(source, ground.degrees).transform((west + east) / 2, (south + north) / 2, errcheck=True)
    return float(round(lon)), float(round(lat))


def _with_short_edges(geometries: Geometries, source: CRS) -> Geometries:
    """Add points on the long edges of large polygons, which other projections bend."""
    if source.is_geographic:
        return geometries
    longest = _LONG_EDGE_M / float(source.axis_info[0].unit_conversion_factor)
    west, south, east, north = shapely.bounds(geometries).T
    extent = np.maximum(east - west, north - south)
    is_large = (extent > longest) & (extent < longest * _LARGEST_M / _LONG_EDGE_M)
    if not is_large.any():
        return geometries
    short = geometries.copy()
    short[is_large] = shapely.segmentize(geometries[is_large], longest)
    return short
