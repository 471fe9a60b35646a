"""Converts polygons to the formats in which they are exchanged.

Polygons are written to a GeoPackage first, because only that can be appended to, indexed and corrected afterwards. Other
formats are converted from it in one stream of batches, so that memory does not grow with the number of polygons.
"""

from __future__ import annotations

import json
import mmap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyogrio
import shapely
from pyarrow import parquet
from pyogrio.errors import DataSourceError
from pyproj import CRS

from geoglnet.output import unwritable
from geoglnet.raster.crs import ground_of
from geoglnet.vector.formats import FORMATS
from geoglnet.vector.geopackage import LayerDefinition, errors_named, plain_name

_BATCH_SIZE = 20_000
_NO_FEATURES = '{"type": "FeatureCollection", "features": []}\n'
_GEOMETRY, _BOUNDS = "geometry", "bbox"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_ROWS_PER_GROUP = 50_000


def convert(source_path: Path, part_path: Path, layer: LayerDefinition, num_polygons: int) -> None:
    """Convert a finished GeoPackage to another format, and prove that every polygon has reached the file.

    Args:
        source_path: GeoPackage with one layer.
        part_path: file to make; its suffix says the format.
        layer: definition of the layer.
        num_polygons: number of polygons in the GeoPackage.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    target = FORMATS[part_path.suffix.lower()]
    if not target.driver:
        write_geoparquet(source_path, part_path, layer, num_polygons)
        return
    options = dict(target.options)
    # Without a CRS, coordinates stay as they are: RFC 7946 would have GDAL refuse those that are not longitude and latitude.
    crs = None if target.is_lon_lat and ground_of(layer.crs_wkt).is_placeless else layer.crs_wkt
    if target.is_lon_lat and crs is None:
        options.pop("RFC7946", None)
    with (
        errors_named(layer.path),
        plain_name(source_path) as source_name,
        plain_name(part_path) as part_name,
        pyogrio.open_arrow(source_name, layer=layer.name, batch_size=_BATCH_SIZE, use_pyarrow=False) as (meta, stream),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_arrow(
            stream,
            part_name,
            layer=layer.name,
            driver=target.driver,
            geometry_name=meta["geometry_name"],
            geometry_type=layer.geometry_type,
            crs=crs,
            layer_options=options,
        )
    if target.driver == "GeoJSONSeq" and part_path.stat().st_size == 0:
        # A sequence of no features is a file of no bytes, which nothing recognizes; a collection of none is one line, too.
        part_path.write_text(_NO_FEATURES, encoding="utf-8")

    # GDAL's drivers do not report every failed write of a full disk, so the file is read back.
    with errors_named(layer.path):
        found = _COUNTS.get(target.driver, _count_features)(part_path, num_polygons)
        if found != num_polygons:
            raise DataSourceError(f"{found} of {num_polygons} polygons reached the file")


def _count_features(path: Path, _: int) -> int:
    """Count the features of any file as its driver does, by reading it."""
    with plain_name(path) as name:
        return int(pyogrio.read_info(name, force_feature_count=True)["features"])


def _count_lines(path: Path, _: int) -> int:
    """Count the features of a GeoJSON file without GDAL, which writes one per line and escapes line breaks inside.

    Raises:
        DataSourceError: features have lost a part: what cannot be brought to between -180° and 180° GDAL leaves empty.
    """
    count, num_cut, first, last = 0, 0, b"", b""
    with path.open("rb") as file:
        for line in file:
            last = line.strip(b"\r\n,\x1e")
            first = first or last
            # A lost block leaves zeros, or cuts a line.
            is_feature = last.startswith(b'{ "type": "Feature", ') and last.endswith(b"}") and b"\0" not in last
            count += is_feature
            num_cut += is_feature and last.find(b"[ ]", last.rfind(b'"coordinates":')) > 0
    if last != b"}" and first == b"{":  # a collection ends with the brace that it began with
        return 0
    if num_cut:
        raise DataSourceError(
            f"{num_cut} of {count} polygons reach beyond the longitudes and latitudes that GeoJSON holds; correct the "
            "raster's transform, or write .gpkg"
        )
    return count


def _count_flatgeobuf(path: Path, expected: int) -> int:
    """Count the features of a FlatGeobuf, each of which begins with its size, from the first one to the end of the file.

    Before them lie the magic number (8 bytes), the size of the header (4), the header, and the index: a packed R-tree of nodes
    of 40 bytes, 16 of which have one parent (https://flatgeobuf.org).
    """
    whole = path.stat().st_size
    num_nodes, level = 0, expected  # level by level, from the leaves to the root
    while level:
        num_nodes += level
        level = 0 if level == 1 and num_nodes > 1 else -(-level // 16)
    count = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position = 12 + int.from_bytes(content[8:12], "little") + 40 * num_nodes
        while position + 4 <= whole:
            position += 4 + int.from_bytes(content[position : position + 4], "little")
            count += 1
    return count if position == whole else count - 1  # the last one is cut


_COUNTS = {"FlatGeobuf": _count_flatgeobuf, "GeoJSON": _count_lines, "GeoJSONSeq": _count_lines}
"""``(file, number expected)`` → features that are complete in a finished file, by driver; quicker than reading them all."""


def write_geoparquet(source_path: Path, part_path: Path, layer: LayerDefinition, num_polygons: int) -> None:
    """Convert a finished GeoPackage to GeoParquet, and read its footer back. Memory: one row group of 50 000 polygons.

    Args:
        source_path: GeoPackage with one layer.
        part_path: file to make.
        layer: definition of the layer.
        num_polygons: number of polygons in the GeoPackage.

    Raises:
        OutputError: the file cannot be written.
    """
    with (
        _errors_named(layer.path),
        plain_name(source_path) as name,
        pyogrio.open_arrow(name, layer=layer.name, batch_size=_ROWS_PER_GROUP, use_pyarrow=True) as (meta, reader),
        part_path.open("wb") as file,  # a name would be read as a URL
    ):
        total = np.array([np.inf, np.inf, -np.inf, -np.inf])
        with parquet.ParquetWriter(file, _schema(reader.schema, meta["geometry_name"]), compression="zstd") as writer:
            for batch in reader:
                if batch.num_rows == 0:
                    continue
                table, bounds = _with_bounds(batch, meta["geometry_name"])
                writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
                total[:2], total[2:] = np.minimum(total[:2], bounds[:2]), np.maximum(total[2:], bounds[2:])
            # In the footer, which is written last: only now the bounds of all polygons are known.
            writer.add_key_value_metadata({"geo": json.dumps(_metadata(layer, total))})
    with _errors_named(layer.path), part_path.open("rb") as file:
        found = parquet.read_metadata(file).num_rows
        if found != num_polygons:
            raise pyarrow.ArrowInvalid(f"{found} of {num_polygons} polygons reached the file")


def _schema(source: Any, geometry_name: str) -> Any:
    """Return the columns of GeoParquet: attributes, geometry, and a column of bounds that readers filter by."""
    fields = [pyarrow.field(f.name, f.type, f.nullable) for f in source if f.name != geometry_name]
    bounds = pyarrow.struct([pyarrow.field(side, pyarrow.float64(), nullable=False) for side in _SIDES])
    return pyarrow.schema([*fields, pyarrow.field(_GEOMETRY, pyarrow.binary()), pyarrow.field(_BOUNDS, bounds)])


def _with_bounds(batch: Any, geometry_name: str) -> tuple[Any, Any]:
    """Bring a batch to the schema of GeoParquet; return it as a table, with (left, bottom, right, top) of all of it."""
    schema = _schema(batch.schema, geometry_name)
    wkb = batch.column(geometry_name).cast(pyarrow.binary())
    sides = shapely.bounds(shapely.from_wkb(wkb.to_numpy(zero_copy_only=False)))
    bounds = pyarrow.StructArray.from_arrays([*map(pyarrow.array, sides.T)], fields=[*schema.field(_BOUNDS).type])
    columns = [batch.column(name) for name in batch.schema.names if name != geometry_name]
    return pyarrow.Table.from_arrays([*columns, wkb, bounds], schema=schema), np.r_[sides[:, :2].min(0), sides[:, 2:].max(0)]


def _metadata(layer: LayerDefinition, bounds: Any) -> dict[str, Any]:
    """Make the value of the key ``geo``, as GeoParquet 1.1.0 defines it."""
    covering = {"bbox": {side: [_BOUNDS, side] for side in _SIDES}}
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [layer.geometry_type],
        "crs": None if layer.crs_wkt is None else CRS.from_user_input(layer.crs_wkt).to_json_dict(),
        "covering": covering,
    }
    if np.isfinite(bounds).all():
        column["bbox"] = bounds.tolist()
    return {"version": "1.1.0", "primary_column": _GEOMETRY, "columns": {_GEOMETRY: column}}


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turn errors of writing Parquet into ours, as :func:`errors_named` does with those of GDAL."""
    with errors_named(path):
        try:
            yield
        except (OSError, pyarrow.ArrowException) as error:
            raise unwritable(path, error) from error
