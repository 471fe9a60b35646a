"""Polygons into a GeoPackage that QGIS opens styled."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError, FieldError, GeometryError

from geoglnet.errors import OutputError
from geoglnet.legend import Legend
from geoglnet.types import StrPath
from geoglnet.vector.records import PolygonRecords
from geoglnet.vector.style import qml, sld

GEOMETRY_COLUMN = "geom"
WRITE_ERRORS = (DataSourceError, DataLayerError, FieldError, GeometryError, sqlite3.Error)

_BYTES_PER_WRITE = 32_000_000
_RESERVED_NAMES = ("gpkg_", "rtree_", "sqlite_", "layer_styles")
_STYLES_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))
"""
_REGISTER_STYLES = (
    "INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', 'layer_styles')"
)
# QGIS looks styles up with empty strings for catalog and schema, not with NULL.
_ADD_STYLE = """
INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, styleQML, styleSLD,
    useAsDefault, description, owner) VALUES ('', '', ?, ?, ?, ?, ?, 1, 'classes of the legend', '')
"""


@dataclass(frozen=True, slots=True)
class Layer:
    """What all polygons of a file have in common.

    Args:
        path: what the file will be called, for the layer's name and for messages.
        legend: class names and colours.
        crs_wkt: CRS of the geometries; ``None`` when there is none.
        geometry_type: ``"Polygon"`` or ``"MultiPolygon"``.
        scene: name of the scene that was segmented; null when unknown.
        model: name and hash of the model; null when unknown.
        statistics: names of further columns.
    """

    path: Path
    legend: Legend
    crs_wkt: str | None
    geometry_type: str = "Polygon"
    scene: str | None = None
    model: str | None = None
    statistics: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's stem, unless GeoPackage reserves that name."""
        return layer_name(self.path)

    def columns(self, records: PolygonRecords) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]]:
        """Values of every field, and where they are null (NaN is null by itself)."""
        count = len(records)
        whole = records.part_of == 0
        return {
            "class_id": (records.class_id, None),
            "class_name": (np.array(self.legend.names, dtype=object)[records.class_id], None),
            "area_m2": (records.area_m2, None),
            "perimeter_m": (records.perimeter_m, None),
            "confidence": (records.confidence, None),
            "part_of": (records.part_of.astype(np.int32), whole),
            "scene": (np.full(count, self.scene, dtype=object), np.full(count, self.scene is None)),
            "model": (np.full(count, self.model, dtype=object), np.full(count, self.model is None)),
            **{name: (records.statistics[name], None) for name in self.statistics},
        }


def layer_name(path: StrPath) -> str:
    """Name of the layer in a file: its stem, unless GeoPackage reserves that name."""
    stem = Path(path).stem
    return f"polygons_{stem}" if stem.lower().startswith(_RESERVED_NAMES) else stem


@dataclass(slots=True)
class GeoPackageWriter:
    """Writes polygons in large batches; use it as a context manager.

    The layer exists (empty, with its fields and its style) as soon as the writer is entered. GDAL inserts into the spatial
    index once per batch when the batch is committed, which is quicker than building the index from the finished table.

    Args:
        part_path: file to make; must not exist.
        layer: what all polygons have in common.
        is_final: whether people open this file; else it gets neither style nor spatial index.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """

    part_path: Path
    layer: Layer
    is_final: bool = True
    num_written: int = 0
    _waiting: list[PolygonRecords] = field(default_factory=list)
    _num_bytes: int = 0

    def __enter__(self) -> Self:
        self._append(PolygonRecords.empty(self.layer.statistics), is_first=True)
        if self.is_final:
            with errors_named(self.layer.path):
                self._add_style()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._flush()
            with errors_named(self.layer.path):
                self._check_count()

    def write(self, records: PolygonRecords) -> None:
        """Take in polygons; they reach the file when enough have come together."""
        if len(records) == 0:
            return
        self._waiting.append(records)
        self._num_bytes += sum(map(len, records.wkb))
        if self._num_bytes >= _BYTES_PER_WRITE:
            self._flush()

    def join_parts(self, same_parts: Mapping[int, int]) -> None:
        """Give parts one number that proved to be of one polygon after they had been written.

        Args:
            same_parts: number to replace → number of the same polygon, which may itself be replaced.
        """
        self._flush()
        changes = [(_last(same_parts, number), number) for number in same_parts]
        with errors_named(self.layer.path), closing(sqlite3.connect(self.part_path)) as database, database:
            database.executemany(f"UPDATE {_quoted(self.layer.name)} SET part_of = ? WHERE part_of = ?", changes)

    def _flush(self) -> None:
        waiting, self._waiting, self._num_bytes = self._waiting, [], 0
        if waiting:
            records = PolygonRecords.concatenate(waiting)
            self._append(records)
            self.num_written += len(records)

    def _append(self, records: PolygonRecords, *, is_first: bool = False) -> None:
        columns = self.layer.columns(records)
        if is_first:
            # QGIS 3.22 warns about GeoPackages newer than 1.2, GDAL's default since 3.11 is 1.4.
            layer_options = {"GEOMETRY_NAME": GEOMETRY_COLUMN, "SPATIAL_INDEX": "YES" if self.is_final else "NO"}
            options: dict[str, Any] = {"dataset_options": {"VERSION": "1.2"}, "layer_options": layer_options}
        else:
            options = {"append": True}
            columns = {name: column for name, column in columns.items() if not _is_null(*column)}  # unnamed fields are null
        with errors_named(self.layer.path), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
            pyogrio.raw.write(
                self.part_path,
                geometry=records.wkb,
                field_data=[values for values, _ in columns.values()],
                field_mask=[is_null for _, is_null in columns.values()],
                fields=list(columns),
                layer=self.layer.name,
                driver="GPKG",
                geometry_type=self.layer.geometry_type,
                crs=self.layer.crs_wkt,
                **options,
            )

    def _add_style(self) -> None:
        legend, name = self.layer.legend, self.layer.name
        style = (name, GEOMETRY_COLUMN, "geoglnet", qml(legend), sld(legend, name))
        with closing(sqlite3.connect(self.part_path)) as database, database:
            database.execute(_STYLES_TABLE)
            database.execute(_REGISTER_STYLES)
            database.execute(_ADD_STYLE, style)

    def _check_count(self) -> None:
        with closing(sqlite3.connect(self.part_path)) as database:
            found = database.execute(f"SELECT count(*) FROM {_quoted(self.layer.name)}").fetchone()[0]
        if found != self.num_written:
            raise OutputError(
                f"{self.layer.path} holds {found} of {self.num_written} polygons; the disk may be full or failing"
            )


def _is_null(values: npt.NDArray[Any], is_null: npt.NDArray[np.bool_] | None) -> bool:
    """Whether a column has no value at all."""
    if is_null is not None:
        return bool(is_null.all())
    return values.dtype.kind == "f" and bool(np.isnan(values).all())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _last(same_parts: Mapping[int, int], number: int) -> int:
    while number in same_parts:
        number = same_parts[number]
    return number


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Errors of GDAL's and SQLite's writing as ours, naming the file that people asked for."""
    try:
        yield
    except WRITE_ERRORS as error:
        reason = " ".join(str(error).split())
        raise OutputError(f"{path} cannot be written ({reason}); free some space, or choose another output") from error
