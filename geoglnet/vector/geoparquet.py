"""GeoParquet 1.1: row groups streamed from a GeoPackage, with a ``bbox`` column that readers filter by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyogrio
import shapely
from pyarrow import parquet
from pyproj import CRS

from geoglnet.output import unwritable
from geoglnet.vector.naming import plain_name
from geoglnet.vector.writer import Layer, errors_named

_GEOMETRY, _BOUNDS = "geometry", "bbox"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_ROWS_PER_GROUP = 50_000


def write_geoparquet(source_path: Path, part_path: Path, layer: Layer, num_polygons: int) -> None:
    """Make a GeoParquet file from a finished GeoPackage, and read its footer back; holds one row group.

    Args:
        source_path: GeoPackage with the one layer.
        part_path: file to make.
        layer: what the polygons have in common.
        num_polygons: that the GeoPackage holds.

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
            writer.add_key_value_metadata({"geo": json.dumps(_metadata(layer, total))})
    with _errors_named(layer.path), part_path.open("rb") as file:
        found = parquet.read_metadata(file).num_rows
        if found != num_polygons:
            raise pyarrow.ArrowInvalid(f"{found} of {num_polygons} polygons reached the file")


def _schema(source: Any, geometry_name: str) -> Any:
    fields = [pyarrow.field(f.name, f.type, f.nullable) for f in source if f.name != geometry_name]
    bounds = pyarrow.struct([pyarrow.field(side, pyarrow.float64(), nullable=False) for side in _SIDES])
    return pyarrow.schema([*fields, pyarrow.field(_GEOMETRY, pyarrow.binary()), pyarrow.field(_BOUNDS, bounds)])


def _with_bounds(batch: Any, geometry_name: str) -> tuple[Any, Any]:
    schema = _schema(batch.schema, geometry_name)
    wkb = batch.column(geometry_name).cast(pyarrow.binary())
    sides = shapely.bounds(shapely.from_wkb(wkb.to_numpy(zero_copy_only=False)))
    bounds = pyarrow.StructArray.from_arrays([*map(pyarrow.array, sides.T)], fields=[*schema.field(_BOUNDS).type])
    columns = [batch.column(name) for name in batch.schema.names if name != geometry_name]
    return pyarrow.Table.from_arrays([*columns, wkb, bounds], schema=schema), np.r_[sides[:, :2].min(0), sides[:, 2:].max(0)]


def _metadata(layer: Layer, bounds: Any) -> dict[str, Any]:
    """The ``geo`` key of GeoParquet 1.1.0."""
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
    with errors_named(path):
        try:
            yield
        except (OSError, pyarrow.ArrowException) as error:
            raise unwritable(path, error) from error
