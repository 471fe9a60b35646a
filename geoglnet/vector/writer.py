"""Polygons into a GeoPackage that QGIS opens styled."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FieldError, GeometryError

from geoglnet.errors import ConfigError, OutputError
from geoglnet.legend import Legend
from geoglnet.types import StrPath
from geoglnet.vector.style import qml, sld
from geoglnet.vector.tracing import Geometries

SUFFIXES = (".gpkg",)
FIELDS = ("class_id", "class_name", "area_m2", "confidence")
GEOMETRY_COLUMN = "geom"

_POINTS_PER_WRITE = 400_000
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
class PolygonRecords:
    """Rows of the layer.

    Args:
        geometries: ``(n,)`` polygons.
        class_id: ``(n,)`` labels of the legend.
        area_m2: ``(n,)`` float64, NaN becomes null.
        confidence: ``(n,)`` float64 0–1, NaN becomes null; ``None`` leaves the column null.
    """

    geometries: Geometries
    class_id: npt.NDArray[np.int32]
    area_m2: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.geometries)


def check_suffix(path: StrPath) -> None:
    """Refuse a vector file in a format that is not written here.

    Raises:
        ConfigError: the suffix is not one of :data:`SUFFIXES`.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"{Path(path).name}: polygons are not written as {suffix or 'a file without suffix'!r}; use {', '.join(SUFFIXES)}"
        )


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
        path: what the file will be called, for the layer's name and for messages.
        legend: class names and colours.
        crs_wkt: CRS of the geometries; ``None`` when there is none.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """

    part_path: Path
    path: Path
    legend: Legend
    crs_wkt: str | None
    num_written: int = 0
    _waiting: list[PolygonRecords] = field(default_factory=list)
    _num_points: int = 0

    def __enter__(self) -> Self:
        nothing = np.empty(0, dtype=np.float64)
        self._append(PolygonRecords(np.empty(0, dtype=object), nothing.astype(np.int32), nothing), is_first=True)
        with self._errors_named():
            self._add_style()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._flush()
            with self._errors_named():
                self._check_count()

    def write(self, records: PolygonRecords) -> None:
        """Take in polygons; they reach the file when enough have come together."""
        if len(records) == 0:
            return
        self._waiting.append(records)
        self._num_points += int(shapely.get_num_coordinates(records.geometries).sum())
        if self._num_points >= _POINTS_PER_WRITE:
            self._flush()

    def _flush(self) -> None:
        for records in self._joined():
            self._append(records)
            self.num_written += len(records)
        self._num_points = 0

    def _joined(self) -> Iterator[PolygonRecords]:
        waiting, self._waiting = self._waiting, []
        if waiting:
            confidence = None if waiting[0].confidence is None else np.concatenate([r.confidence for r in waiting])
            yield PolygonRecords(
                np.concatenate([r.geometries for r in waiting]),
                np.concatenate([r.class_id for r in waiting]),
                np.concatenate([r.area_m2 for r in waiting]),
                confidence,
            )

    def _append(self, records: PolygonRecords, *, is_first: bool = False) -> None:
        names = np.array(self.legend.names, dtype=object)[records.class_id]
        confidence = np.full(len(records), np.nan) if records.confidence is None else records.confidence
        options: dict[str, Any] = {"append": True}
        if is_first:
            # QGIS 3.22 warns about GeoPackages newer than 1.2, GDAL's default since 3.11 is 1.4.
            options = {"dataset_options": {"VERSION": "1.2"}, "layer_options": {"GEOMETRY_NAME": GEOMETRY_COLUMN}}
        with self._errors_named(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
            pyogrio.raw.write(
                self.part_path,
                geometry=shapely.to_wkb(records.geometries),
                field_data=[records.class_id.astype(np.int32), names, records.area_m2, confidence],
                fields=list(FIELDS),
                layer=layer_name(self.path),
                driver="GPKG",
                geometry_type="Polygon",
                crs=self.crs_wkt,
                **options,
            )

    def _add_style(self) -> None:
        layer = layer_name(self.path)
        style = (layer, GEOMETRY_COLUMN, "geoglnet", qml(self.legend), sld(self.legend, layer))
        with closing(sqlite3.connect(self.part_path)) as database, database:
            database.execute(_STYLES_TABLE)
            database.execute(_REGISTER_STYLES)
            database.execute(_ADD_STYLE, style)

    def _check_count(self) -> None:
        quoted = layer_name(self.path).replace('"', '""')
        with closing(sqlite3.connect(self.part_path)) as database:
            found = database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0]
        if found != self.num_written:
            raise OutputError(f"{self.path} holds {found} of {self.num_written} polygons; the disk may be full or failing")

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except (DataSourceError, DataLayerError, FieldError, GeometryError, sqlite3.Error) as error:
            reason = " ".join(str(error).split())
            raise OutputError(f"{self.path} cannot be written ({reason}); free some space, or choose another output") from error
