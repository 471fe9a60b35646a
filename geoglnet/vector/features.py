"""Reads the features of vector files, and polygons from geometries of any kind.

GEOS reads neither triangles nor surfaces made of them, refuses rings that are left open, and keeps curves as curves. The parser
here takes from WKB everything that has an area: curves become straight steps of four degrees, as in GDAL.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyarrow
import pyogrio
import shapely
from pyarrow import parquet
from pyogrio.errors import CRSError as GDALCRSError
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError
from pyproj import CRS
from pyproj.exceptions import CRSError

from geoglnet.config import suggestion
from geoglnet.errors import DatasetError
from geoglnet.progress import Progress
from geoglnet.raster.crs import parsed
from geoglnet.raster.files import DRIVERS_VARIABLE, allowed_drivers, is_remote, silenced
from geoglnet.raster.gdal import one_line
from geoglnet.types import StrPath
from geoglnet.vector.geopackage import plain_name

Points = npt.NDArray[np.float64]
Rings = list[Points]

_Z, _M, _SRID = 0x80000000, 0x40000000, 0x20000000  # flags of the extended form; the standard adds 1000, 2000 or 3000
_POINT, _LINE, _POLYGON, _ARCS, _COMPOUND, _CURVE_POLYGON, _TRIANGLE = 1, 2, 3, 8, 9, 10, 17
_COLLECTIONS = {4, 5, 6, 7, 11, 12, 15, 16}  # of points, lines, polygons, anything, curves, surfaces; of faces, of triangles
_DEEPEST = 32
_ARC_STEP = math.radians(4)
READ_ERRORS = (DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError, GDALCRSError)
_PARQUET_SUFFIXES = (".parquet", ".geoparquet", ".pq")
_OWN_DRIVERS = ("GPKG", "GeoJSON", "FlatGeobuf")
_HEAD_SIZE = 1024
_LON_LAT = "OGC:CRS84"  # what GeoParquet means where it names no CRS
_FLAT_KINDS = {"Point", "MultiPoint", "LineString", "MultiLineString", "CircularString", "CompoundCurve", "MultiCurve"}


def rings_of(wkb: bytes) -> list[Rings]:
    """Read the polygons of a geometry, each as its outer ring and its holes, ``(n, 2)`` points as they are written.

    Raises:
        ValueError: the bytes are no geometry.
    """
    parser = _Parser(wkb)
    try:
        return parser.geometry(0)[0]
    except struct.error as error:
        raise ValueError("it ends too early") from error


@dataclass(slots=True)
class _Parser:
    """Parser of well-known binary, in ISO's form and in PostGIS's extended one; ``at`` is the next byte to read."""

    wkb: bytes
    at: int = 0

    def geometry(self, depth: int) -> tuple[list[Rings], Points]:
        """Read the geometry that begins here: its polygons, or the points of its line.

        Lines matter as parts of curve polygons, whose rings are geometries of their own.
        """
        order, kind, num_axes = self._header()
        nothing = np.empty((0, 2))
        if depth > _DEEPEST:  # a collection of collections without end would exhaust the stack
            raise ValueError("it is nested too deeply")
        if kind == _POINT:
            self.at += 8 * num_axes
            return [], nothing
        if kind in (_LINE, _ARCS):
            points = self._points(order, num_axes)
            return [], _straightened(points) if kind == _ARCS else points
        count = self._number(order)
        if kind in (_POLYGON, _TRIANGLE):
            return [[self._points(order, num_axes) for _ in range(count)]], nothing
        children = (self.geometry(depth + 1) for _ in range(count))
        if kind == _CURVE_POLYGON:
            return [[line for _, line in children]], nothing
        if kind == _COMPOUND:
            return [], np.concatenate([nothing, *(line for _, line in children)])
        if kind in _COLLECTIONS:
            return [polygon for polygons, _ in children for polygon in polygons], nothing
        raise ValueError(f"its geometry type {kind} is unknown")

    def _header(self) -> tuple[str, int, int]:
        """Read byte order, kind and number of coordinates per point."""
        order = "<" if self.wkb[self.at : self.at + 1] == b"\x01" else ">"
        self.at += 1
        code = self._number(order)
        if code & _SRID:
            self.at += 4
        thousands, kind = divmod(code & 0x0FFFFFFF, 1000)
        return order, kind, 2 + bool(code & _Z or thousands in (1, 3)) + bool(code & _M or thousands in (2, 3))

    def _number(self, order: str) -> int:
        """Read an unsigned 32-bit integer."""
        (number,) = struct.unpack_from(f"{order}I", self.wkb, self.at)
        self.at += 4
        return int(number)

    def _points(self, order: str, num_axes: int) -> Points:
        """Read points, ``(n, 2)``; heights and measures are dropped."""
        count = self._number(order)
        # Checked before numpy takes memory: a damaged count may be anything up to 2³².
        if self.at + 8 * count * num_axes > len(self.wkb):
            raise ValueError("it ends too early")
        numbers = np.frombuffer(self.wkb, f"{order}f8", count * num_axes, self.at)
        self.at += numbers.nbytes
        return numbers.reshape(count, num_axes)[:, :2].astype(np.float64)


def _straightened(points: Points) -> Points:
    """Turn a circular string into a line; every second point lies on the arc between its neighbors."""
    parts = [points[:1]]
    for start, middle, end in zip(points[:-2:2], points[1:-1:2], points[2::2], strict=True):
        parts += [_arc(start, middle, end), end[None]]
    return np.concatenate(parts)


def _arc(start: Points, middle: Points, end: Points) -> Points:
    """Compute the points between the ends of an arc, without them; the middle alone where all three lie on a line."""
    center, turn = _circle(start, middle, end)
    if center is None:
        return middle[None]
    first = math.atan2(*(start - center)[::-1])
    angles = first + np.linspace(0, turn, math.ceil(abs(turn) / _ARC_STEP) + 1)[1:-1]
    radius = math.hypot(*(start - center))
    return np.asarray(center + radius * np.column_stack([np.cos(angles), np.sin(angles)]))


def _circle(start: Points, middle: Points, end: Points) -> tuple[Points | None, float]:
    """Compute the center of an arc and its angle in radians, positive to the left; no center where the points lie on a line."""
    if (start == end).all():  # a whole circle: the middle lies opposite
        return (start + middle) / 2, 2 * math.pi
    # The circumcenter of the three points, relative to the first.
    (bx, by), (cx, cy) = middle - start, end - start
    twice_area = 2 * (bx * cy - by * cx)
    if twice_area == 0 or not math.isfinite(twice_area):
        return None, 0.0
    b, c = bx * bx + by * by, cx * cx + cy * cy
    center = start + np.array([cy * b - by * c, bx * c - cx * b]) / twice_area
    first, last = (math.atan2(*(point - center)[::-1]) for point in (start, end))
    return center, (last - first) % (2 * math.pi) - (2 * math.pi if twice_area < 0 else 0.0)


@dataclass(frozen=True, slots=True)
class Features:
    """Rows of a layer.

    Args:
        name: file and layer, for messages.
        wkb: ``(n,)`` bytes, ``None`` where a row has no geometry.
        numbers: ``(n,)`` feature numbers (FID) in the file.
        column: ``(n,)`` values; ``None`` when no column was requested.
        crs: CRS of the coordinates; ``None`` when the file names none.
    """

    name: str
    wkb: npt.NDArray[np.object_]
    numbers: npt.NDArray[np.int64]
    column: npt.NDArray[Any] | None
    crs: CRS | None


def read_features(path: StrPath, column: str | None, layer: str | None, progress: Progress) -> Features:
    """Read all rows of one layer.

    Args:
        path: anything GDAL reads as vector, or GeoParquet.
        column: field to read beside the geometries.
        layer: name of the layer; left out, the first one that may hold polygons.
        progress: receives which layer is read when there are several and none was named.

    Raises:
        DatasetError: no such file, layer or column, or not a vector file; or a driver that is not allowed.
    """
    if not is_remote(path) and not Path(path).exists():
        raise DatasetError(f"{path} does not exist; check the path")
    if is_parquet(path):
        return _read_parquet(Path(path), column)
    _check_driver(path)
    try:
        with silenced(Warning):  # GDAL's remarks on single rows
            return _read_layer(path, column, layer, progress)
    except UnicodeDecodeError as error:  # names of layers and columns, and values
        raise DatasetError(f"{path} holds text that is not in UTF-8 ({error}); write it anew in UTF-8") from error
    except UnboundLocalError as error:  # what pyogrio makes of a CRS with other bytes
        raise DatasetError(f"{path} has a CRS whose text is not in UTF-8; give a copy another with ogr2ogr -a_srs") from error
    except READ_ERRORS as error:
        raise DatasetError(
            f"{path} is not a vector file that GDAL can read ({one_line(error)}); give a GeoPackage or GeoJSON"
        ) from error


def _check_driver(path: StrPath) -> None:
    """Refuse a file whose first bytes are of no allowed driver, if drivers are restricted.

    pyogrio cannot restrict the drivers that GDAL tries. GeoPackage, GeoJSON and FlatGeobuf, which we write, are always allowed,
    as is GeoParquet, which is read without GDAL; none of them refers to other files.
    """
    allowed = allowed_drivers()
    if allowed is None:
        return
    head = b""
    if not is_remote(path) and Path(path).is_file():
        with Path(path).open("rb") as file:
            head = file.read(_HEAD_SIZE)
    kinds = [name for name in (*_OWN_DRIVERS, "ESRI Shapefile") if name in allowed or name in _OWN_DRIVERS]
    if not any(_is_of_driver(head, name) for name in kinds):
        raise DatasetError(
            f"{path} is not a local file of the vector drivers that {DRIVERS_VARIABLE} allows "
            f"({', '.join(kinds)}, and GeoParquet)"
        )


def _is_of_driver(head: bytes, driver: str) -> bool:
    """Recognize the first bytes of a file."""
    if driver == "GPKG":
        return head.startswith(b"SQLite format 3\0") and head[68:72] in (b"GPKG", b"GP10", b"GP11")  # SQLite's application id
    if driver == "GeoJSON":
        # GDAL opens a file with "<OGR" anywhere near its beginning as a VRT, which may name any other file.
        return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{") and b"<OGR" not in head
    return head.startswith(b"fgb" if driver == "FlatGeobuf" else b"\0\0\x27\x0a")


def spatial_layers(path: StrPath) -> tuple[str, ...]:
    """List the layers that have geometries; a GeoPackage's table of styles has none."""
    return tuple(name for name, _ in _spatial_kinds(path))


def first_layer(path: StrPath) -> str | None:
    """Choose the layer to read where none is named: the first one that may hold polygons, else the first with geometries."""
    kinds = _spatial_kinds(path)
    solid = [name for name, kind in kinds if not _FLAT_KINDS & {*kind.split()}]
    return next(iter([*solid, *(name for name, _ in kinds)]), None)


def _spatial_kinds(path: StrPath) -> list[tuple[str, str]]:
    """List the layers that have geometries, with the type of these."""
    with plain_name(path) as plain:
        return [(name, kind) for name, kind in pyogrio.list_layers(plain) if kind is not None]


def is_parquet(path: StrPath) -> bool:
    """Recognize a local GeoParquet file, which is read without GDAL: few builds of GDAL have the driver."""
    if is_remote(path):
        return False
    if Path(path).suffix.lower() in _PARQUET_SUFFIXES:
        return True
    try:
        with Path(path).open("rb") as file:
            return Path(path).is_file() and file.read(4) == b"PAR1"
    except OSError:  # a folder, or a file without permission: GDAL's message says so
        return False


def _read_layer(path: StrPath, column: str | None, wanted: str | None, progress: Progress) -> Features:
    """Read one layer with GDAL."""
    layers = spatial_layers(path)
    if not layers:
        raise DatasetError(f"{path} has no spatial layer; give a file with polygons")
    if wanted is not None and wanted not in layers:
        raise DatasetError(f"{path} has no spatial layer {wanted!r}{suggestion(wanted, layers)}")
    layer = wanted or first_layer(path)
    if wanted is None and len(layers) > 1:
        others = ", ".join(repr(name) for name in layers if name != layer)
        progress.log(f"{path} has {len(layers)} layers with geometries: {layer!r} is read, not {others}")
    with plain_name(path) as plain:
        columns = tuple(pyogrio.read_info(plain, layer=layer)["fields"])
    if column is not None:
        _check_column(path, column, columns)
    meta, numbers, wkb, fields = _read_rows(path, layer, [] if column is None else [column])
    if len(wkb) and len(columns) and not any(wkb):
        # A driver that makes geometries from a column (OGR VRT, CSV) makes none when that column is left out.
        with suppress(DatasetError):  # columns that cannot be read make no geometries
            meta, numbers, wkb, fields = _read_rows(path, layer, None)
    values = None if column is None else fields[[*meta["fields"]].index(column)]
    crs = _crs(meta["crs"], path)
    name = os.fspath(path) if len(layers) == 1 else f"{path}, layer {layer!r}"
    return Features(name, wkb, np.asarray(numbers, np.int64), values, crs)


def _read_rows(path: StrPath, layer: str | None, columns: Sequence[str] | None) -> tuple[Any, Any, Any, Any]:
    """Read metadata, feature numbers, geometries as WKB, and columns (``None``: all of them)."""
    with plain_name(path) as plain:
        try:
            meta, numbers, wkb, fields = pyogrio.raw.read(plain, layer=layer, columns=columns, return_fids=True)
        except UnicodeDecodeError:  # a ValueError that has a reason of its own
            raise
        except ValueError as error:  # pyogrio's, of a column of lists of truth values
            shown = f"column {columns[0]!r}" if columns else "columns"
            raise DatasetError(
                f"{path}: {shown} cannot be read ({one_line(error)}); give a copy with numbers or text in it"
            ) from error
    return meta, numbers, wkb, fields


def _check_column(path: StrPath, column: str, columns: Sequence[str]) -> None:
    """Refuse a column that the layer lacks."""
    if column not in columns:
        known = suggestion(column, tuple(columns)) if len(columns) else "; the layer has no columns"
        raise DatasetError(f"{path} has no column {column!r}{known}")


def _read_parquet(path: Path, column: str | None) -> Features:
    """Read a GeoParquet file without GDAL."""
    try:
        wkb, values, crs = _parquet_columns(path, column)
    except DatasetError:
        raise
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{path} is not a Parquet file that can be read ({one_line(error)}); fetch it again") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # JSON of another kind, or none
        raise DatasetError(
            f"{path} is Parquet without the metadata of GeoParquet; write it with geopandas or ogr2ogr, or give a GeoPackage"
        ) from error
    return Features(os.fspath(path), wkb, np.arange(len(wkb)), values, _crs(crs, path))


def _parquet_columns(path: Path, column: str | None) -> tuple[npt.NDArray[np.object_], npt.NDArray[Any] | None, Any]:
    """Read geometries as WKB, the values of a column, and what the file calls its CRS."""
    with path.open("rb") as opened:  # a name would be parsed as a URL
        file = parquet.ParquetFile(opened)
        geo = json.loads((file.metadata.metadata or {}).get(b"geo", b"{}"))
        primary = geo["primary_column"]
        facts, names = geo["columns"][primary], file.schema_arrow.names
        if column is not None:
            _check_column(path, column, [name for name in names if name not in geo["columns"]])
        table = file.read(columns=[primary] if column is None else [primary, column])
    geometries = table.column(primary)
    if facts.get("encoding", "WKB").upper() == "WKB":
        wkb = np.array(geometries.cast(pyarrow.large_binary()).to_pylist(), object)
    else:  # an encoding of GeoArrow's, which geopandas knows
        with path.open("rb") as opened:
            frame = geopandas.read_parquet(opened, columns=[primary])
        wkb = np.asarray(shapely.to_wkb(frame.geometry.to_numpy()), object)
    return wkb, None if column is None else table.column(column).to_pandas().to_numpy(), facts.get("crs", _LON_LAT)


def _crs(definition: Any, path: StrPath) -> CRS | None:
    """Parse the CRS of a file."""
    if definition is None:
        return None
    try:
        return parsed(CRS.from_user_input(definition))
    except CRSError as error:
        raise DatasetError(f"{path} has a CRS that PROJ does not know ({one_line(error)}); write one into a copy") from error
