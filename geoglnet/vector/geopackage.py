"""Writes polygons to a GeoPackage that QGIS opens styled.

GDAL writes the rows, in one transaction; styles and corrections of cut polygons are added with SQLite, and what matters is read
back, because GDAL does not report every write that a full disk refuses.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError, FieldError, GeometryError

from geoglnet.escaping import sql_name, storable
from geoglnet.existing import layer_name
from geoglnet.legend import Color
from geoglnet.output import unwritable
from geoglnet.raster.class_table import ClassTable
from geoglnet.raster.files import is_remote
from geoglnet.types import StrPath
from geoglnet.vector.objects import ObjectSurvey
from geoglnet.vector.rows import PolygonRecords
from geoglnet.vector.style import qml, sld
from geoglnet.vector.tracing import NO_CODE

_PARSED = re.compile(r"[!;?\x00-\x1f]|^//")  # in names that pyogrio parses as URLs, or archives with a member
GEOMETRY_COLUMN = "geom"
OBJECT_COLUMN = "object_id"
_MAPPED_BYTES = 128 * 2**20
_APPLICATION_ID = 0x47504B47  # "GPKG"
WRITE_ERRORS = (DataSourceError, DataLayerError, FieldError, GeometryError, sqlite3.Error)
# The index is made when all polygons have come, which takes a third of the time of adding them one by one, and without a
# second file beside this one. GDAL would hold up to a tenth of the machine's memory for it.
_INDEX_OPTIONS = {"OGR_GPKG_ALLOW_THREADED_RTREE": "NO", "OGR_GPKG_MAX_RAM_USAGE_RTREE": "100000000"}
# The triggers of the spatial index name them, though they call them only where a geometry or its number changes.
_TRIGGER_FUNCTIONS = ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY")
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


@contextmanager
def plain_name(path: StrPath) -> Iterator[str]:
    """Provide a name that pyogrio takes for this file and nothing else, as long as the context lasts.

    It is the absolute path, unless pyogrio would parse that: then it is a symbolic link in a temporary folder. URLs, GDAL's
    virtual paths, and Windows' names with a drive stay as they are.
    """
    name = os.fspath(path)
    whole = Path(name).absolute()
    if is_remote(name):
        yield name
    elif os.name == "nt" or not _PARSED.search(str(whole)):
        yield str(whole)
    else:
        with tempfile.TemporaryDirectory(prefix="geoglnet-") as folder:
            if not _PARSED.search(whole.name):
                Path(folder, "at").symlink_to(whole.parent, target_is_directory=True)
                yield str(Path(folder, "at", whole.name))
                return
            # Shapefiles and others consist of several files: all that begin with the name's stem.
            for beside in whole.parent.iterdir():
                if beside.name.startswith(whole.stem):
                    Path(folder, f"named{beside.name.removeprefix(whole.stem)}").symlink_to(beside)
            yield str(Path(folder, f"named{whole.suffix}"))


@dataclass(frozen=True, slots=True)
class LayerDefinition:
    """Definition of the layer that polygons are written to: name, columns, CRS, and values that are the same in all rows.

    Args:
        path: final path of the file, for the layer's name and for messages.
        classes: names and colors of codes.
        crs_wkt: CRS of the geometries; ``None`` when there is none.
        geometry_type: ``"Polygon"`` or ``"MultiPolygon"``.
        scene: name of the scene that was segmented; null when unknown.
        model: name and hash of the model; null when unknown.
        statistics: names of further columns, all float64.
        is_wide: whether codes may need more than 32 bits with a sign.
        survey: where rows are objects, their classes, if they have some; ``None`` where codes are classes.
    """

    path: Path
    classes: ClassTable
    crs_wkt: str | None
    geometry_type: str = "Polygon"
    scene: str | None = None
    model: str | None = None
    statistics: tuple[str, ...] = ()
    is_wide: bool = False
    survey: ObjectSurvey | None = None

    @property
    def name(self) -> str:
        """See :func:`geoglnet.existing.layer_name`."""
        return layer_name(self.path)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of all columns."""
        types = {
            **({} if self.survey is None else {OBJECT_COLUMN: pa.int64()}),
            "class_id": pa.int64() if self.is_wide else pa.int32(),
            "class_name": pa.string(),
            "area_m2": pa.float64(),
            "perimeter_m": pa.float64(),
            "confidence": pa.float64(),
            "part_of": pa.int32(),
            "scene": pa.string(),
            "model": pa.string(),
            **dict.fromkeys(self.statistics, pa.float64()),
            GEOMETRY_COLUMN: pa.large_binary(),
        }
        return pa.schema(list(types.items()))

    def batch(self, records: PolygonRecords) -> pa.RecordBatch:
        """Convert rows to a batch with the columns of :attr:`schema`; NaN becomes null."""
        count, types = len(records), self.schema
        columns = [
            *([] if self.survey is None else [pa.array(records.class_id)]),
            *self._class_columns(self.codes_of(records), types.field("class_id").type),
            *(pa.array(values, from_pandas=True) for values in (records.area_m2, records.perimeter_m, records.confidence)),
            pa.array(records.part_of.astype(np.int32), mask=records.part_of == 0),
            *(pa.repeat(pa.scalar(text and storable(text), pa.string()), count) for text in (self.scene, self.model)),
            *(pa.array(records.statistics[name], from_pandas=True) for name in self.statistics),
            records.wkb,
        ]
        return pa.record_batch(columns, schema=types)

    def entries(self, found: Collection[int]) -> list[tuple[str, Color]]:
        """List the classes that a style shows; none where objects have none."""
        return [] if self.survey is not None and not len(self.survey.objects) else self.classes.entries(found)

    def qml(self, found: Collection[int]) -> str:
        """Write the style for QGIS, with a form for correcting the polygons."""
        classes = self.entries(found)
        names = self.classes.shown(found) if classes else {}
        return qml(classes, columns=self.schema.names, names=names)

    def _class_columns(self, codes: npt.NDArray[np.int64], code_type: pa.DataType) -> tuple[pa.Array, pa.Array]:
        """Make the columns of codes and of their names, null where an object has no class."""
        found, position = np.unique(codes, return_inverse=True)
        named = [None if code == NO_CODE else storable(self.classes.name_of(code)) for code in found.tolist()]
        is_none = codes == NO_CODE
        column = pa.array(np.where(is_none, 0, codes), code_type, mask=is_none)
        return column, pa.array(named, pa.string()).take(pa.array(position))

    def codes_of(self, records: PolygonRecords) -> npt.NDArray[np.int64]:
        """Return the class of every row; ``NO_CODE`` where an object has none."""
        return records.class_id if self.survey is None else self.survey.classes_of(records.class_id)


def write_geopackage(
    part_path: Path,
    layer: LayerDefinition,
    several: Iterable[PolygonRecords],
    same_parts: Mapping[int, int],
    *,
    found: Collection[int] = (),
    is_final: bool = True,
) -> int:
    """Write polygons as they come, in one transaction; the spatial index is built from all of them at the end.

    Args:
        part_path: file to make; must not exist.
        layer: definition of the layer.
        several: rows, in batches of any size.
        same_parts: number of a cut polygon → smaller number of the same polygon, which may itself be replaced; read after the
            last row, because it is complete only then.
        found: codes that occur, for the style; read after the last row, too.
        is_final: whether this file is the output; a temporary one gets neither style nor spatial index.

    Returns:
        Number of polygons.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    batches = _Batches(layer, several)
    with errors_named(layer.path):
        try:
            _write_stream(part_path, layer, batches, is_final)
        except (*WRITE_ERRORS, RuntimeError):  # the latter is pyogrio's, when the rows end in an error
            if batches.error is None:
                raise
        if batches.error is None:
            with closing(sqlite3.connect(part_path)) as database, database:
                _join_parts(database, layer, same_parts)
                if is_final:
                    _add_style(database, layer, found)
            _check(part_path, layer, batches.num_written, is_final)
    if batches.error is not None:
        raise batches.error
    return batches.num_written


@dataclass(slots=True)
class _Batches:
    """Rows as an Arrow stream that keeps the error of whoever computes them: Arrow would pass on its text only.

    Args:
        layer: definition of the layer.
        several: rows.
        num_written: number of rows so far.
        error: exception that ended the rows early.
    """

    layer: LayerDefinition
    several: Iterable[PolygonRecords]
    num_written: int = 0
    error: BaseException | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        with self:  # sees the exception, which still ends the stream
            for records in self.several:
                if len(records):
                    yield self.layer.batch(records)
                    self.num_written += len(records)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not GeneratorExit:  # raised here when the writer stops reading, because the disk is full
            self.error = error


def _write_stream(part_path: Path, layer: LayerDefinition, batches: _Batches, is_indexed: bool) -> None:
    """Write all rows with GDAL, in one transaction."""
    with warnings.catch_warnings(), _index_options(), plain_name(part_path) as name:
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.raw.write_arrow(
            pa.RecordBatchReader.from_batches(layer.schema, iter(batches)),
            name,
            layer=layer.name,
            driver="GPKG",
            geometry_name=GEOMETRY_COLUMN,
            geometry_type=layer.geometry_type,
            crs=layer.crs_wkt,
            # QGIS 3.22 warns about GeoPackages newer than 1.2, GDAL's default since 3.11 is 1.4.
            dataset_options={"VERSION": "1.2"},
            layer_options={"GEOMETRY_NAME": GEOMETRY_COLUMN, "SPATIAL_INDEX": "YES" if is_indexed else "NO"},
        )


@contextmanager
def _index_options() -> Iterator[None]:
    """Set GDAL's options of the spatial index, which are global, for as long as the context lasts."""
    before = {name: pyogrio.get_gdal_config_option(name) for name in _INDEX_OPTIONS}
    pyogrio.set_gdal_config_options(_INDEX_OPTIONS)
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(before)


def _join_parts(database: sqlite3.Connection, layer: LayerDefinition, same_parts: Mapping[int, int]) -> None:
    """Give the same number to parts that turned out to be of one polygon after they had been written."""
    changes = [(_last(same_parts, number), number) for number in same_parts]
    # SQLite compiles the triggers of the spatial index with the update, and refuses it if a function in them is unknown.
    for name in _TRIGGER_FUNCTIONS:
        database.create_function(name, 1, _not_called)
    database.executemany(f"UPDATE {sql_name(layer.name)} SET part_of = ? WHERE part_of = ?", changes)


def _not_called(geometry: bytes) -> None:
    """Stand for a function that SQLite must know but does not call."""
    raise NotImplementedError("geometries do not change here")


def _last(same_parts: Mapping[int, int], number: int) -> int:
    """Follow replacements to the number that is not replaced."""
    while number in same_parts:
        number = same_parts[number]
    return number


def _add_style(database: sqlite3.Connection, layer: LayerDefinition, found: Collection[int]) -> None:
    """Add the table that QGIS reads default styles from."""
    database.execute(_STYLES_TABLE)
    database.execute(_REGISTER_STYLES)
    database.execute(
        _ADD_STYLE, (layer.name, GEOMETRY_COLUMN, "geoglnet", layer.qml(found), sld(layer.entries(found), layer.name))
    )


def _check(part_path: Path, layer: LayerDefinition, num_written: int, is_final: bool) -> None:
    """Read the file back: number of rows, index, structure of the database, registration as a GeoPackage.

    Raises:
        sqlite3.DatabaseError: a write has failed without being reported.
    """
    tables = [layer.name, *([f"rtree_{layer.name}_{GEOMETRY_COLUMN}_rowid"] if is_final else [])]
    with closing(sqlite3.connect(part_path)) as database:
        # A mapped file takes half the time, but counts as memory of this process as far as it has been read.
        database.execute(f"PRAGMA mmap_size = {min(part_path.stat().st_size, _MAPPED_BYTES)}")
        found = min(database.execute(f"SELECT count(*) FROM {sql_name(table)}").fetchone()[0] for table in tables)
        damage = database.execute("PRAGMA integrity_check(1)").fetchone()[0] if is_final else "ok"
        said = database.execute("SELECT feature_count FROM gpkg_ogr_contents WHERE table_name = ?", [layer.name]).fetchone()
        lacks = database.execute("PRAGMA foreign_key_check").fetchone()  # a CRS, whose row GDAL inserts and does not look after
        (kind,), (version,) = (database.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
        lost = _lost_beside(database, layer, num_written) if is_final else ""
    counted = "none" if said is None else said[0] or 0  # older GDALs leave the count of an empty layer open
    if found != num_written or counted != num_written:
        raise sqlite3.DatabaseError(f"it holds {found} of {num_written} polygons, and counts {counted}")
    if lacks is not None:
        raise sqlite3.DatabaseError(f"{lacks[0]} names a row of {lacks[2]} that is missing")
    if damage != "ok" or kind != _APPLICATION_ID or not version:
        raise sqlite3.DatabaseError(damage if damage != "ok" else "it is not a GeoPackage")
    if lost:
        raise sqlite3.DatabaseError(f"it lacks {lost}")


def _lost_beside(database: sqlite3.Connection, layer: LayerDefinition, num_written: int) -> str:
    """Name the first thing missing that programs need to zoom to a layer, edit it or draw it, or return ""."""
    query = "SELECT count(*) FROM gpkg_contents WHERE table_name = ? AND (min_x + min_y + max_x + max_y IS NOT NULL OR ? = 0)"
    if database.execute(query, [layer.name, num_written]).fetchone() != (1,):
        return "the layer's extent"
    names = [f"trigger_{change}_feature_count_{layer.name}" for change in ("insert", "delete")]
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name IN (?, ?)"
    if database.execute(query, names).fetchone() != (len(names),):
        return "the triggers that count features"
    # A page that was lost is zeros, at which a text ends; the structure of the database does not depend on it.
    query = "SELECT count(*) FROM layer_styles WHERE styleQML LIKE '%</qgis>%' AND styleSLD LIKE '%StyledLayerDescriptor>%'"
    return "" if database.execute(query).fetchone() == (1,) else "its style"


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Turn errors of GDAL's and SQLite's writing into ours, which name the final file instead of its part.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        yield
    except WRITE_ERRORS as error:
        raise unwritable(path, error) from error
