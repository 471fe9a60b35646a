"""Grids: the shape, transform and CRS that windows refer to; and the georeference of rasters, usable or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError
from rasterio.io import DatasetReader
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from geoglnet.errors import ConfigError, ResolutionError
from geoglnet.progress import Progress
from geoglnet.raster.crs import WGS84, ground_of, parsed
from geoglnet.raster.files import GDAL_ERRORS, short_name
from geoglnet.types import Shape

# Columns and *negative* rows, where QGIS draws a raster without georeference. Rows as positive numbers would put polygons
# upside down, above the picture that they were traced on.
BARE_TRANSFORM = Affine(1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
_LARGEST_NUMBER = 1e150  # squares of larger numbers, and of their inverses, overflow or underflow
_LEAST_STEPS = 1000  # a pixel must span as many spacings of floating-point numbers of its coordinates' size
_LEAST_RATIO = 1e-6  # of a pixel's area to that of a square on its longer side
NATIVE_TOLERANCE = 0.05
LEAST_READ_SIZE = 64
MOST_INTERPOLATED = 4.0  # pixels of a model across one of the raster; with more, what the model looks for is not visible
_SCALE_TOLERANCE = 0.01  # of a size: the scale of a projection changes it by as much
TURN_TOLERANCE = 0.01  # of a pixel: a rotation that moves no pixel further is a rounding error of whoever wrote the file


@dataclass(frozen=True, slots=True)
class Georeference:
    """Transform and CRS of a raster, as far as they can be used.

    Args:
        transform: pixel to CRS coordinates; :data:`BARE_TRANSFORM` for a raster that has no place.
        crs: coordinate reference system; ``None`` without one, and always for a raster that has no place.
        remark: what the raster has instead of a usable transform; empty when it has one, or nothing at all.
    """

    transform: Affine
    crs: CRS | None
    remark: str = ""

    def warn(self, name: str, progress: Progress) -> None:
        """Warn when the raster has a georeference that cannot be used.

        Args:
            name: of the raster.
            progress: receives the warning.
        """
        if self.remark:
            progress.warn(f"{short_name(name)} {self.remark}; it is read without georeference, in pixels")


def georeference(dataset: DatasetReader) -> Georeference:
    """Read the georeference of an open raster; a CRS without a usable transform does not count."""
    transform = dataset.transform
    beside = f" (its CRS, {dataset.crs.to_string()[:60]}, is not used)" if dataset.crs is not None else ""
    if not transform.is_identity:
        if is_usable(transform, Shape(dataset.height, dataset.width)):
            return Georeference(transform, dataset.crs)
        numbers = ", ".join(f"{number:g}" for number in transform.to_gdal())
        return Georeference(BARE_TRANSFORM, None, f"has the unusable geotransform {numbers}{beside}")
    # Control points and polynomials would do as georeference, but only after warping, on a grid that the user should choose.
    has_gcps = True
    with suppress(UnicodeDecodeError):  # of the points' CRS
        has_gcps = bool(dataset.gcps[0])
    if has_gcps:
        way_out = "use them with gdalwarp"
        return Georeference(BARE_TRANSFORM, None, f"has ground control points but no transform ({way_out})")
    if dataset.tags(ns="RPC"):  # rpcs would take them for numbers
        way_out = "use them with gdalwarp -rpc"
        return Georeference(BARE_TRANSFORM, None, f"has rational polynomial coefficients (RPC) but no transform ({way_out})")
    return Georeference(BARE_TRANSFORM, None, f"has no transform{beside}" if beside else "")


def is_usable(transform: Affine, shape: Shape) -> bool:
    """Return whether neighboring pixels of a raster get different coordinates, and pixels an area.

    Some drivers and broken writers give zeros, NaN, denormal numbers or parallel axes.
    """
    numbers = tuple(transform)[:6]
    if not all(math.isfinite(number) and abs(number) < _LARGEST_NUMBER for number in numbers):
        return False
    sides = math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)
    # Far from the origin, small pixels vanish between two floating-point numbers.
    corners = [transform @ corner for corner in ((0, 0), (shape.width, 0), (0, shape.height), (shape.width, shape.height))]
    furthest = max(abs(number) for corner in corners for number in corner)
    if min(sides) < max(1 / _LARGEST_NUMBER, _LEAST_STEPS * math.ulp(furthest)):
        return False
    return abs(transform.determinant) >= _LEAST_RATIO * max(sides) ** 2


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid over a raster, with the same bounds and a pixel size of its own.

    Args:
        native_shape: pixels of the raster.
        shape: pixels of the grid.
        transform: grid pixel to CRS coordinates.
        crs: coordinate reference system.
        pixel_size_m: ground size of a grid pixel at the center.
    """

    native_shape: Shape
    shape: Shape
    transform: Affine
    crs: CRS | None
    pixel_size_m: float | None

    @property
    def decimation(self) -> float:
        """Raster pixels per grid pixel, along the axis with fewer."""
        return min(n / g for n, g in zip(self.native_shape, self.shape, strict=True))

    @property
    def native_pixel_size_m(self) -> float | None:
        """Ground size of a raster pixel at the center."""
        if self.pixel_size_m is None:
            return None
        return self.pixel_size_m * math.sqrt(math.prod(self.shape) / math.prod(self.native_shape))

    @property
    def resampling(self) -> Resampling:
        """Average where the grid is coarser than the raster, bilinear where it is finer."""
        if self.shape == self.native_shape:
            return Resampling.nearest
        return Resampling.average if self.decimation > 1 else Resampling.bilinear

    def readable(self, window: Window) -> Window:
        """Enlarge a small window so that GDAL resamples it.

        GDAL copies pixels where a window has, in whole pixels, as many in the raster as on the grid; with ratios more than
        5 % from 1 that happens only to small windows.

        Returns:
            A window inside the grid that contains ``window``.
        """
        if self.shape == self.native_shape:
            return window
        col_off = min(window.col_off, max(0, self.shape.width - LEAST_READ_SIZE))
        row_off = min(window.row_off, max(0, self.shape.height - LEAST_READ_SIZE))
        width = max(window.col_off + window.width - col_off, min(LEAST_READ_SIZE, self.shape.width))
        height = max(window.row_off + window.height - row_off, min(LEAST_READ_SIZE, self.shape.height))
        return Window(col_off=col_off, row_off=row_off, width=width, height=height)

    def source_window(self, window: Window, source_shape: Shape) -> Window:
        """Convert a window of the grid to raster pixels, with fractions; ``source_shape`` may be that of a pyramid level."""
        row_factor, col_factor = (s / g for s, g in zip(source_shape, self.shape, strict=True))
        return Window(
            col_off=window.col_off * col_factor,
            row_off=window.row_off * row_factor,
            width=window.width * col_factor,
            height=window.height * row_factor,
        )

    def pyramid_level(self, factors: Sequence[int]) -> str | None:
        """Choose GDAL's ``OVERVIEW_LEVEL`` to average from: the coarsest with at least 2 × 2 pixels to one of the grid.

        GDAL itself chooses per window, and might choose differently for two windows that overlap.

        Args:
            factors: decimation factors of the raster's pyramid levels.

        Returns:
            The option's value; ``None`` where nothing is to be averaged.
        """
        if self.shape == self.native_shape or not factors:
            return None
        enough = [level for level, factor in enumerate(factors) if factor <= self.decimation / 2]
        return f"{max(enough, key=lambda level: factors[level])}only" if enough else "NONE"


def is_rotated(transform: Affine, shape: Shape) -> bool:
    """Return whether rows and columns of a raster are rotated in its CRS by more than a rounding error at the far corner."""
    a, b, _, d, e, _ = transform[:6]
    off = max(abs(b) * shape.height, abs(d) * shape.width)
    return bool(off > TURN_TOLERANCE * min(abs(a), abs(e)))


def ground_pixel_size(crs: CRS | None, transform: Affine, shape: Shape) -> tuple[float, float] | None:
    """Measure the geodesic width and height in meters of the pixel at a raster's center.

    On another body they are geodesic on its ellipsoid; in a plane that lies nowhere they are the plane's.

    Returns:
        Width and height; ``None`` where meters are unknown, see :func:`~geoglnet.raster.crs.ground_of`.
    """
    if crs is None:
        return None
    # The scale of a projection, and the length of a degree, vary across a scene: the center is right on average.
    col, row = shape.width / 2, shape.height / 2
    points = [transform @ point for point in ((col, row), (col + 1, row), (col, row + 1))]
    try:
        lons, lats = transform_points(crs, CRS.from_epsg(4326), *zip(*points, strict=True))
    except (CRSError, *GDAL_ERRORS):
        sizes = _sizes_elsewhere(crs, points)
    else:
        _, _, sizes = WGS84.inv([lons[0]] * 2, [lats[0]] * 2, lons[1:], lats[1:])
    width, height = (float(size) for size in sizes)
    return (width, height) if all(math.isfinite(s) and s > 0 for s in (width, height)) else None


def _sizes_elsewhere(crs: CRS, points: Sequence[tuple[float, float]]) -> Sequence[float]:
    """Measure two steps, from the first of three points to the others, where there is no way to the Earth."""
    ground = ground_of(crs)
    x, y = zip(*points, strict=True)
    if ground.unit_m is not None:
        return [math.hypot(x[i] - x[0], y[i] - y[0]) * ground.unit_m for i in (1, 2)]
    if ground.degrees is None or ground.ellipsoid is None:
        return math.nan, math.nan
    lons, lats = Transformer.from_crs(parsed(crs), ground.degrees, always_xy=True).transform(x, y)
    sizes: Sequence[float] = ground.ellipsoid.inv([lons[0]] * 2, [lats[0]] * 2, lons[1:], lats[1:])[2]
    return sizes


def pixel_size_m(size: tuple[float, float] | None) -> float | None:
    """Return the side of the square that has a ground pixel's area."""
    return None if size is None else math.sqrt(size[0] * size[1])


def check_interpolated(name: str, native_m: float | None, resolution_m: float | None, way_out: str = "") -> None:
    """Refuse to read a raster at a resolution that its pixels are much too large for.

    Args:
        name: name of the raster, for the message.
        native_m: size of its pixels in meters; ``None`` where that is unknown.
        resolution_m: size to read it at; ``None`` for its own.
        way_out: end of the message: what the user can do.

    Raises:
        ResolutionError: its pixels are more than :data:`MOST_INTERPOLATED` times as large; the error holds their size.
    """
    if native_m is None or resolution_m is None or native_m <= MOST_INTERPOLATED * (1 + _SCALE_TOLERANCE) * resolution_m:
        return
    message = (
        f"{name} has {described_m(native_m)} pixels, {native_m / resolution_m:,.3g} times the {resolution_m:g} m that it is to "
        f"be read at (at most {MOST_INTERPOLATED:g} times are interpolated)"
    )
    raise ResolutionError(f"{message}; {way_out}" if way_out else message, native_m)


def described_m(meters: float) -> str:
    """Write a size of pixels with its unit, as people do."""
    return f"{meters / 1000:,.3g} km" if meters >= 1000 else f"{meters:.3g} m"


def choose_grid(
    dataset: DatasetReader,
    resolution_m: float | None,
    assumed_pixel_size_m: float | None,
    progress: Progress,
    *,
    is_strict: bool = False,
) -> Grid:
    """Choose the grid of ``resolution_m`` over a raster; the raster's own where that is within 5 %.

    Args:
        dataset: the raster.
        resolution_m: ground pixel size of the grid; ``None`` for the raster's own.
        assumed_pixel_size_m: pixel size of a raster without CRS.
        progress: receives the rules that were applied.
        is_strict: refuse a raster that is much too coarse.

    Raises:
        ConfigError: the resolution is not positive.
        ResolutionError: ``is_strict``, and the raster is much too coarse for it.
    """
    for name, meters in (("resolution_m", resolution_m), ("assumed_pixel_size_m", assumed_pixel_size_m)):
        if meters is not None and not (math.isfinite(meters) and meters > 0):
            raise ConfigError(f"{name} = {meters} must be a size in meters above 0")
    native_shape = Shape(dataset.height, dataset.width)
    place = georeference(dataset)
    place.warn(dataset.name, progress)
    crs = place.crs
    ground = ground_pixel_size(crs, place.transform, native_shape)
    size = ground or (None if assumed_pixel_size_m is None else (assumed_pixel_size_m, assumed_pixel_size_m))
    if is_strict:
        check_interpolated(short_name(dataset.name), pixel_size_m(size), resolution_m)
    shape = native_shape if size is None or resolution_m is None else _shape_at(native_shape, size, resolution_m)
    for line in _rules(dataset, crs, ground, assumed_pixel_size_m, None if shape == native_shape else resolution_m):
        progress.log(line)
    transform = place.transform @ Affine.scale(native_shape.width / shape.width, native_shape.height / shape.height)
    return Grid(native_shape, shape, transform, crs, pixel_size_m(ground_pixel_size(crs, transform, shape)))


def _shape_at(native: Shape, size: tuple[float, float], resolution_m: float) -> Shape:
    """Return the shape of a grid of a resolution over a raster whose pixels are ``size`` (width, height) meters."""
    ratios = (size[1] / resolution_m, size[0] / resolution_m)
    if all(abs(ratio - 1) <= NATIVE_TOLERANCE for ratio in ratios):
        return native
    return Shape(*(max(1, round(n * ratio)) for n, ratio in zip(native, ratios, strict=True)))


def _rules(
    dataset: DatasetReader,
    crs: CRS | None,
    ground: tuple[float, float] | None,
    assumed_m: float | None,
    resampled_to_m: float | None,
) -> list[str]:
    """Describe the choices of a grid for the log, one line each."""
    lines = []
    if ground is None:
        size = "" if assumed_m is None else f"; pixels taken as {assumed_m:g} m"
        reason = "" if crs is None else f" ({ground_of(crs).reason or 'it lies outside of its domain'})"
        lines.append(f"no {'CRS' if crs is None else 'ground size from the CRS'}{reason}: works in pixels{size}")
    elif crs is not None and not (crs.is_geographic or crs.is_projected) and (rule := ground_of(crs).rule):
        lines.append(rule)
    if resampled_to_m is not None:
        native_m = pixel_size_m(ground) or assumed_m
        lines.append(f"{_described(dataset, crs, native_m)} read at {resampled_to_m:g} m")
    return lines


def _described(dataset: DatasetReader, crs: CRS | None, native_m: float | None) -> str:
    """Describe a raster's pixels, in the CRS and on the ground where these differ."""
    if crs is None or not crs.is_projected or native_m is None:
        return f"{native_m:.3g} m pixels"
    # Web-mercator's meters are 0.7 of a meter on the ground at 45°: the file's own number alone would mislead.
    nominal = math.sqrt(abs(dataset.transform.determinant)) * crs.linear_units_factor[1]
    ground = "" if abs(nominal / native_m - 1) < 0.01 else f" ({native_m:.3g} m on the ground)"
    return f"{nominal:.3g} m pixels{ground}"
