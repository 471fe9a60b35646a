"""Statistics of another raster inside every polygon, weighted by the fraction of each pixel that is inside.

Needs exactextract (the extra ``statistics``), so this module is imported only when statistics are requested.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pandas
import shapely
from affine import Affine
from exactextract import exact_extract
from exactextract.feature import GeoPandasFeatureSource
from exactextract.raster import RasterSource
from pyproj.exceptions import CRSError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geoglnet.errors import SceneError
from geoglnet.raster.band_choice import check_real
from geoglnet.raster.crs import are_one_place, crs_label
from geoglnet.raster.failures import check_filled, reading
from geoglnet.raster.gdal import open_raster
from geoglnet.raster.grid import georeference, is_rotated
from geoglnet.types import Shape
from geoglnet.vector.rings import Geometries
from geoglnet.vector.rows import PolygonRecords

OPERATIONS = ("mean", "stdev", "min", "max")
_MOST_CELLS = 30_000_000  # pixels under one polygon; exactextract would cut larger ones itself, see _in_pieces
_PIECE_SIDE = 4096

Table = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of one raster.

    Args:
        path: of the raster.
        num_bands: of the raster.
        crs_wkt: of the polygons; the raster's own has been compared with it.
    """

    path: Path
    num_bands: int
    crs_wkt: str | None

    @classmethod
    def of(cls, path: Path, crs_wkt: str | None) -> Statistics:
        """Open the raster once to check it and to count its bands.

        Raises:
            SceneError: it cannot be read, is rotated, or has another horizontal CRS than the polygons.
        """
        with open_raster(path) as src:
            if not _is_same(src, crs_wkt):
                raise SceneError(
                    f"{path} is in {crs_label(src.crs)}, the labels are in {crs_label(crs_wkt)}; warp it first (gdalwarp)"
                )
            if is_rotated(src.transform, Shape(*src.shape)):
                raise SceneError(f"{path} is rotated; warp it first (gdalwarp)")
            check_real(src, src.indexes)
            return cls(path, src.count, crs_wkt)

    @property
    def names(self) -> tuple[str, ...]:
        """Columns: ``band1_mean`` and so on."""
        return tuple(f"band{band}_{name}" for band in range(1, self.num_bands + 1) for name in OPERATIONS)

    def added_to(self, records: PolygonRecords) -> PolygonRecords:
        """Return the same rows with the raster's statistics; NaN where no pixel has a value.

        Raises:
            SceneError: the raster is damaged, or gone.
        """
        if len(records) == 0:
            return replace(records, statistics=PolygonRecords.empty(self.names).statistics)
        geometries = shapely.from_wkb(records.wkb.to_numpy(zero_copy_only=False))
        with open_raster(self.path) as src, reading(src):
            columns = _columns(geometries, src)
        return replace(records, statistics=dict(zip(self.names, columns.T, strict=True)))


class _Band(RasterSource):  # type: ignore[misc]
    """A band of an open dataset for exactextract, north up.

    exactextract's own source refuses rasters that are rotated by a rounding error, and crashes on those whose rows run north.
    """

    def __init__(self, src: DatasetReader, band: int) -> None:
        super().__init__()
        self.set_name(f"band{band}")
        self._src, self._band = src, band
        self._scale, self._offset = src.scales[band - 1], src.offsets[band - 1]
        self._is_scaled = (self._scale, self._offset) != (1.0, 0.0)

    def res(self) -> tuple[float, float]:
        """Return width and height of a pixel."""
        left, bottom, right, top = self.extent()
        return (right - left) / self._src.width, (top - bottom) / self._src.height

    def extent(self) -> tuple[float, float, float, float]:
        """Return left, bottom, right, top."""
        return _extent(self._src)

    def nodata_value(self) -> float | int | None:
        """Return the value of pixels without one, as exactextract compares it: before scaling there is none."""
        nodata = self._src.nodatavals[self._band - 1]
        if nodata is None or self._is_scaled:
            return None
        return nodata if self._src.dtypes[self._band - 1].startswith("float") else int(nodata)

    def read_window(self, x0: int, y0: int, nx: int, ny: int) -> Any:
        """Read ``(ny, nx)`` values, masked where there is none, from a window of the raster as if it were north up."""
        # A raster whose columns run west or rows run north is read from its other end, and turned.
        a, e = self._src.transform.a, georeference(self._src).transform.e
        first_col = x0 if a > 0 else self._src.width - x0 - nx
        first_row = y0 if e < 0 else self._src.height - y0 - ny
        window = Window(first_col, first_row, nx, ny)
        values = self._src.read(self._band, window=window, masked=True)
        check_filled(self._src, [self._band], window, np.ma.getdata(values)[None])
        values = values[:: 1 if e < 0 else -1, :: 1 if a > 0 else -1]
        if self._is_scaled:
            values = values.astype(np.float64) if np.issubdtype(values.dtype, np.integer) else values
            values = values * self._scale + self._offset
        return values if np.ma.getmask(values) is not np.ma.nomask else np.ascontiguousarray(values.data)


class _Polygons(GeoPandasFeatureSource):  # type: ignore[misc]
    """Polygons for exactextract, without a CRS: it has been compared before, and there may be none."""

    def __init__(self, geometries: Geometries) -> None:
        super().__init__(geopandas.GeoDataFrame(geometry=geometries))

    def srs_wkt(self) -> None:
        """Return no CRS."""


def _is_same(src: DatasetReader, crs_wkt: str | None) -> bool:
    """Compare the horizontal CRS of a raster with that of the polygons."""
    if georeference(src).crs is None or crs_wkt is None:
        return georeference(src).crs is None and crs_wkt is None
    try:
        return are_one_place(georeference(src).crs, crs_wkt)
    except CRSError:
        return False


def _extent(src: DatasetReader) -> tuple[float, float, float, float]:
    """Return left, bottom, right, top; where rows run south, bit for bit the same as ``src.bounds``."""
    a, _, c, _, e, f = georeference(src).transform[:6]
    xs, ys = (c, c + a * src.width), (f, f + e * src.height)
    return min(xs), min(ys), max(xs), max(ys)


def _columns(geometries: Geometries, src: DatasetReader) -> Table:
    """Extract the statistics of polygons, ``(n, bands · 4)``."""
    bands = [_Band(src, band) for band in range(1, src.count + 1)]
    safe = _without_rings_outside(geometries, _extent(src))
    is_large = _num_cells(safe, src) > _MOST_CELLS
    columns = np.full((len(safe), src.count * len(OPERATIONS)), np.nan)
    is_small = ~is_large & ~shapely.is_empty(safe)
    if is_small.any():
        columns[is_small] = _extracted(safe[is_small], bands, OPERATIONS)
    for index in np.flatnonzero(is_large):
        columns[index] = _in_pieces(safe[index], src, bands)
    return columns


def _extracted(geometries: Geometries, bands: list[_Band], operations: tuple[str, ...]) -> Table:
    """Run exactextract; return ``(n, bands · operations)``, all operations of a band side by side."""
    table: pandas.DataFrame = exact_extract(
        bands, _Polygons(geometries), list(operations), output="pandas", max_cells_in_memory=2 * _MOST_CELLS
    )
    # exactextract prefixes its columns with the band's name only where there are several bands.
    names = [f"band{b}_{name}" if len(bands) > 1 else name for b in range(1, len(bands) + 1) for name in operations]
    return np.asarray(table[names].to_numpy(dtype=np.float64, na_value=np.nan))


def _without_rings_outside(geometries: Geometries, extent: tuple[float, float, float, float]) -> Geometries:
    """Remove the rings that lie outside of the raster: they do not matter, and exactextract crashes on them.

    It allocates, for every ring, a grid of the pixels under the ring's box, and writes past the end of an empty grid. Polygons
    whose every ring reaches into the raster stay as they are; those without such a ring become empty.
    """
    left, bottom, right, top = extent
    west, south, east, north = shapely.bounds(geometries).T
    reaches_past = (west < left) | (south < bottom) | (east > right) | (north > top)
    if not reaches_past.any():
        return geometries
    safe = geometries.copy()
    for index in np.flatnonzero(reaches_past):
        parts = shapely.get_parts(geometries[index])
        rings, part = shapely.get_rings(parts, return_index=True)
        west, south, east, north = shapely.bounds(rings).T
        is_inside = (west < right) & (south < top) & (east > left) & (north > bottom)
        if is_inside.all():
            continue
        is_shell = np.append(True, part[1:] != part[:-1])  # the first ring of a part
        is_inside &= is_inside[is_shell][part]  # a hole goes with its shell
        kept = [
            shapely.polygons(shells[0], holes=shells[1:])
            for p in range(len(parts))
            if len(shells := rings[is_inside & (part == p)])
        ]
        safe[index] = shapely.multipolygons(kept) if kept else shapely.Polygon()
    return safe


def _num_cells(geometries: Geometries, src: DatasetReader) -> Table:
    """Estimate the number of pixels under each polygon's box."""
    left, bottom, right, top = _extent(src)
    west, south, east, north = shapely.bounds(geometries).T
    width = np.minimum(east, right) - np.maximum(west, left)
    height = np.minimum(north, top) - np.maximum(south, bottom)
    return np.asarray(np.nan_to_num(width * height * src.width * src.height / ((right - left) * (top - bottom))))


def _in_pieces(geometry: shapely.Geometry, src: DatasetReader, bands: list[_Band]) -> Table:
    """Combine the statistics of a polygon over very many pixels from those of its pieces.

    exactextract would divide its grid itself but not the polygon, so that rings lie outside of the parts and crash it.

    Returns:
        ``(bands · 4,)`` float64.
    """
    left, bottom, right, top = _extent(src)
    step = Affine.scale((right - left) / src.width * _PIECE_SIDE, (top - bottom) / src.height * _PIECE_SIDE)
    west, south, east, north = shapely.bounds(geometry)
    xs = _edges(max(west, left), min(east, right), left, step.a)
    ys = _edges(max(south, bottom), min(north, top), bottom, step.e)
    valid = geometry if shapely.is_valid(geometry) else shapely.make_valid(geometry)
    boxes = shapely.box(*(side.ravel() for side in (*np.meshgrid(xs[:-1], ys[:-1]), *np.meshgrid(xs[1:], ys[1:]))))
    pieces = _polygons_of(shapely.intersection(valid, boxes))
    operations = ("count", "mean", "variance", "min", "max")
    parts = _extracted(pieces, bands, operations).reshape(len(pieces), len(bands), len(operations))
    count, mean, variance, low, high = np.moveaxis(parts, -1, 0)
    # Pieces without a valid pixel have weight 0, but NaN · 0 would spoil the sums. The variance of the whole is that within the
    # pieces plus that of their means (law of total variance).
    mean, variance = np.nan_to_num(mean), np.nan_to_num(variance)
    total = count.sum(axis=0)
    with np.errstate(invalid="ignore"):
        whole = (count * mean).sum(axis=0) / total
        spread = np.sqrt((count * (variance + (mean - whole) ** 2)).sum(axis=0) / total)
    columns: Table = np.stack([whole, spread, np.fmin.reduce(low), np.fmax.reduce(high)], axis=-1)
    return columns.ravel()


def _edges(first: float, last: float, origin: float, step: float) -> Table:
    """Return the lines of a grid from at or before ``first`` to at or after ``last``."""
    begin, end = np.floor((first - origin) / step), np.ceil((last - origin) / step)
    return np.asarray(origin + np.arange(begin, end + 1) * step)


def _polygons_of(geometries: Geometries) -> Geometries:
    """List the polygons inside geometries one by one; the lines and points where borders only touch are left out."""
    parts = shapely.get_parts(shapely.get_parts(geometries))
    found: Geometries = parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)]
    return found
