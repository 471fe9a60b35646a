"""Where a raster lies, as far as it says so in a way that can be used."""

from __future__ import annotations

import math
from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from geoglnet.progress import Progress
from geoglnet.raster.files import short_name
from geoglnet.types import Shape

# Columns and *negative* rows, where QGIS draws a raster without a place. Rows that count downwards as positive numbers would
# put polygons upside down, above the picture that they were traced on.
BARE_TRANSFORM = Affine(1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
_LARGEST_NUMBER = 1e150  # squares of larger numbers, and of their inverses, are no numbers any more
_LEAST_STEPS = 1000  # a pixel must span as many of the steps that a coordinate of its size can make
_LEAST_RATIO = 1e-6  # of a pixel's area to that of a square on its longer side


@dataclass(frozen=True, slots=True)
class Placement:
    """Pixel to coordinates, and what the coordinates mean.

    Args:
        transform: pixel to coordinates; :data:`BARE_TRANSFORM` of a raster that has no place.
        crs: coordinate reference system; ``None`` without one, and always for a raster that has no place.
        remark: why the raster has no place although it says something about it; empty when it has one, or says nothing.
    """

    transform: Affine
    crs: CRS | None
    remark: str = ""

    def tell(self, name: str, progress: Progress) -> None:
        """Warn when the raster says something about its place that cannot be used."""
        if self.remark:
            progress.warn(f"{short_name(name)} {self.remark}; it is read without georeference, in pixels")


def placement(dataset: DatasetReader) -> Placement:
    """Where an open raster lies; one whose transform places no pixel lies nowhere, whatever its CRS."""
    transform = dataset.transform
    beside = f" (its CRS, {dataset.crs.to_string()[:60]}, is not used)" if dataset.crs is not None else ""
    if not transform.is_identity:
        if is_usable(transform, Shape(dataset.height, dataset.width)):
            return Placement(transform, dataset.crs)
        numbers = ", ".join(f"{number:g}" for number in transform.to_gdal())
        return Placement(BARE_TRANSFORM, None, f"has the geotransform {numbers}, which places no pixel{beside}")
    if dataset.gcps[0]:
        way_out = "gdalwarp makes a raster with coordinates from them"
        return Placement(BARE_TRANSFORM, None, f"has ground control points but no transform ({way_out})")
    if dataset.rpcs is not None:
        way_out = "gdalwarp -rpc makes a raster with coordinates from them"
        return Placement(BARE_TRANSFORM, None, f"has rational polynomial coefficients (RPC) but no transform ({way_out})")
    return Placement(BARE_TRANSFORM, None, f"has no transform{beside}" if beside else "")


def is_usable(transform: Affine, shape: Shape) -> bool:
    """Whether neighboring pixels of a raster get different coordinates, and pixels an area.

    Zeros, numbers that are none, denormal ones, and axes that are parallel are what some drivers and broken writers give.
    """
    numbers = tuple(transform)[:6]
    if not all(math.isfinite(number) and abs(number) < _LARGEST_NUMBER for number in numbers):
        return False
    sides = math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)
    corners = [transform @ corner for corner in ((0, 0), (shape.width, 0), (0, shape.height), (shape.width, shape.height))]
    furthest = max(abs(number) for corner in corners for number in corner)
    if min(sides) < max(1 / _LARGEST_NUMBER, _LEAST_STEPS * math.ulp(furthest)):
        return False
    return abs(transform.determinant) >= _LEAST_RATIO * max(sides) ** 2
