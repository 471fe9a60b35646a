"""Rows of one layer of a vector file: geometries as they are written, one column, CRS and numbers to name them by."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Sequence
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
from geoglnet.raster.environment import one_line
from geoglnet.raster.files import DRIVERS_VARIABLE, allowed_drivers, is_remote, silenced
from geoglnet.types import StrPath
from geoglnet.vector.naming import plain_name

READ_ERRORS = (DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError, GDALCRSError)
_PARQUET_SUFFIXES = (".parquet", ".geoparquet", ".pq")
_OWN_DRIVERS = ("GPKG", "GeoJSON", "FlatGeobuf")
_HEAD_SIZE = 1024
_LON_LAT = "OGC:CRS84"  # what GeoParquet means where it names no CRS
_FLAT_KINDS = {"Point", "MultiPoint", "LineString", "MultiLineString", "CircularString", "CompoundCurve", "MultiCurve"}


@dataclass(frozen=True, slots=True)
class Features:
    """Rows of a layer.

    Args:
        name: file and layer, for messages.
        wkb: ``(n,)`` bytes, ``None`` where a row has no geometry.
        numbers: ``(n,)`` what its file calls each row.
        column: ``(n,)`` values; ``None`` when no column was asked for.
        crs: of the coordinates; ``None`` when the file names none.
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
        layer: its name; the first one that may hold polygons when left out.
        progress: told which layer is read when there are several and none was named.

    Raises:
        DatasetError: no such file, layer or column, or not a vector file; or a kind of file that must not be read.
    """
    if not is_remote(path) and not Path(path).exists():
        raise DatasetError(f"{path} does not exist; check the path")
    if is_parquet(path):
        return _read_parquet(Path(path), column)
    _check_driver(path)
    try:
        with silenced(Warning):  # GDAL's remarks on single rows
            return _read_layer(path, column, layer, progress)
    except READ_ERRORS as error:
        raise DatasetError(
            f"{path} is not a vector file that GDAL can read ({one_line(error)}); give a GeoPackage or GeoJSON"
        ) from error


def _check_driver(path: StrPath) -> None:
    """Refuse, where drivers are restricted, a file that is not by its first bytes what one of the allowed ones reads.

    GDAL cannot be told by pyogrio which drivers it may try. GeoPackage, GeoJSON and FlatGeobuf, in which we write, are always
    among them, as GeoParquet is, which is read without GDAL; none of them names other files.
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
            f"{path} is no local file of the vector drivers that {DRIVERS_VARIABLE} allows ({', '.join(kinds)}, and GeoParquet)"
        )


def _is_of_driver(head: bytes, driver: str) -> bool:
    if driver == "GPKG":
        return head.startswith(b"SQLite format 3\0") and head[68:72] in (b"GPKG", b"GP10", b"GP11")
    if driver == "GeoJSON":
        # GDAL takes for its VRT what has that word anywhere at its beginning.
        return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{") and b"<OGR" not in head
    return head.startswith(b"fgb" if driver == "FlatGeobuf" else b"\0\0\x27\x0a")


def spatial_layers(path: StrPath) -> tuple[str, ...]:
    """Names of the layers that have geometries; a GeoPackage's table of styles has none."""
    return tuple(name for name, _ in _spatial_kinds(path))


def first_layer(path: StrPath) -> str | None:
    """The layer that is read where none is named: the first one that may hold polygons, else the first with geometries."""
    kinds = _spatial_kinds(path)
    solid = [name for name, kind in kinds if not _FLAT_KINDS & {*kind.split()}]
    return next(iter([*solid, *(name for name, _ in kinds)]), None)


def _spatial_kinds(path: StrPath) -> list[tuple[str, str]]:
    with plain_name(path) as plain:
        return [(name, kind) for name, kind in pyogrio.list_layers(plain) if kind is not None]


def is_parquet(path: StrPath) -> bool:
    """Whether a local file is GeoParquet, which is read without GDAL: few builds of GDAL have the driver."""
    if is_remote(path):
        return False
    if Path(path).suffix.lower() in _PARQUET_SUFFIXES:
        return True
    try:
        with Path(path).open("rb") as file:
            return Path(path).is_file() and file.read(4) == b"PAR1"
    except OSError:  # a folder, or what may not be read: GDAL says what it thinks of it
        return False


def _read_layer(path: StrPath, column: str | None, wanted: str | None, progress: Progress) -> Features:
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
        meta, numbers, wkb, fields = _read_rows(path, layer, None)
    values = None if column is None else fields[[*meta["fields"]].index(column)]
    crs = _crs(meta["crs"], path)
    name = os.fspath(path) if len(layers) == 1 else f"{path}, layer {layer!r}"
    return Features(name, wkb, np.asarray(numbers, np.int64), values, crs)


def _read_rows(path: StrPath, layer: str | None, columns: Sequence[str] | None) -> tuple[Any, Any, Any, Any]:
    with plain_name(path) as plain:
        meta, numbers, wkb, fields = pyogrio.raw.read(plain, layer=layer, columns=columns, return_fids=True)
    return meta, numbers, wkb, fields


def _check_column(path: StrPath, column: str, columns: Sequence[str]) -> None:
    if column not in columns:
        known = suggestion(column, tuple(columns)) if len(columns) else "; the layer has no columns"
        raise DatasetError(f"{path} has no column {column!r}{known}")


def _read_parquet(path: Path, column: str | None) -> Features:
    """Rows of a GeoParquet file, read without GDAL."""
    try:
        with path.open("rb") as opened:  # a name would be parsed as a URL
            file = parquet.ParquetFile(opened)
            geo = json.loads((file.metadata.metadata or {}).get(b"geo", b"{}"))
            primary = geo["primary_column"]
            facts, names = geo["columns"][primary], file.schema_arrow.names
            if column is not None:
                _check_column(path, column, [name for name in names if name not in geo["columns"]])
            table = file.read(columns=[primary] if column is None else [primary, column])
    except DatasetError:
        raise
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{path} is not a Parquet file that can be read ({one_line(error)}); fetch it again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} is Parquet without the metadata of GeoParquet; write it with geopandas or ogr2ogr, or give a GeoPackage"
        ) from error
    geometries = table.column(primary)
    if facts.get("encoding", "WKB").upper() == "WKB":
        wkb = np.array(geometries.cast(pyarrow.large_binary()).to_pylist(), object)
    else:  # an encoding of GeoArrow's, which geopandas knows
        with path.open("rb") as opened:
            frame = geopandas.read_parquet(opened, columns=[primary])
        wkb = np.asarray(shapely.to_wkb(frame.geometry.to_numpy()), object)
    values = None if column is None else table.column(column).to_pandas().to_numpy()
    crs = _crs(facts.get("crs", _LON_LAT), path)
    return Features(os.fspath(path), wkb, np.arange(len(wkb)), values, crs)


def _crs(definition: Any, path: StrPath) -> CRS | None:
    if definition is None:
        return None
    try:
        return parsed(CRS.from_user_input(definition))
    except CRSError as error:
        raise DatasetError(f"{path} has a CRS that PROJ does not know ({one_line(error)}); write one into a copy") from error
