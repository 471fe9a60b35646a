"""The index of a batch: a row for every scene, as stac-geoparquet, and those that are done as a STAC ItemCollection."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import shapely
from shapely.geometry import shape

from geoglnet.output import OutputFile
from geoglnet.prediction.layers import VECTOR

ITEMS_SUFFIX = ".items.json"
_STAC = "1.0.0"
_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".gpkg": "application/geopackage+sqlite3",
    ".geojson": "application/geo+json",
    ".parquet": "application/vnd.apache.parquet",
    ".fgb": "application/vnd.flatgeobuf",
}


@dataclass(frozen=True, slots=True)
class SceneRow:
    """What became of a scene.

    Args:
        id: of the scene.
        scenes: what was opened.
        status: ``done`` or ``failed``.
        error: why it failed, in one line.
        kind: of the error.
        seconds: that it took.
        paths: of the outputs, by output.
        num_polygons: how many polygons, if some were asked for.
        footprint: GeoJSON in degrees; ``None`` without a CRS, or if it failed.
        finished: when, in UTC.
        request: identity of what was asked for.
    """

    id: str
    scenes: tuple[str, ...]
    status: str
    error: str
    kind: str
    seconds: float
    paths: Mapping[str, Path]
    num_polygons: int | None = None
    footprint: Mapping[str, Any] | None = None
    finished: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))
    request: str = ""

    @property
    def is_done(self) -> bool:
        """Whether all outputs are there."""
        return self.status == "done"

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        paths = {name: str(path) for name, path in self.paths.items()}
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {"paths": paths, "scenes": list(self.scenes)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> SceneRow:
        """Inverse of :meth:`to_dict`."""
        paths = {name: Path(path) for name, path in plain["paths"].items()}
        return cls(**{**plain, "paths": paths, "scenes": tuple(plain["scenes"])})


def write_index(path: Path, rows: Sequence[SceneRow], sources: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the rows as stac-geoparquet, and the items of those that are done as ``<name>.items.json``.

    Args:
        path: of the index; replaced if it exists.
        rows: in the catalog's order.
        sources: STAC items of scenes that were listed as such, by id: items take their time.

    Raises:
        OutputError: it cannot be written.
    """
    items = [_item(row, sources.get(row.id, {}), path.parent) for row in rows]
    done = [item for item, row in zip(items, rows, strict=True) if row.is_done]
    with OutputFile(path.with_suffix(ITEMS_SUFFIX), overwrite=True) as part_path:
        part_path.write_text(json.dumps({"type": "FeatureCollection", "features": done}, indent=1), encoding="utf-8")
    table = _table(rows, items)
    with OutputFile(path, overwrite=True) as part_path, part_path.open("wb") as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")


def read_index(path: Path, request: str) -> dict[str, SceneRow]:
    """Read the rows of an earlier index that were made as is asked for now, by id; none if there is no such file."""
    try:
        with path.open("rb") as file:
            table = pyarrow.parquet.read_table(file, columns=["row"])
    except (OSError, pyarrow.ArrowException):
        return {}
    rows = [SceneRow.from_dict(json.loads(text)) for text in table["row"].to_pylist()]
    return {row.id: row for row in rows if row.request == request}


def _item(row: SceneRow, source: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the STAC item of a row; assets are named relative to the index."""
    geometry = None if row.footprint is None else shape(row.footprint)
    properties = source.get("properties") or {}
    when = properties.get("datetime") or source.get("datetime") or row.finished
    assets = {
        name: {
            "href": Path(os.path.relpath(path, folder)).as_posix(),
            "type": _TYPES.get(path.suffix.lower(), "application/octet-stream"),
            "roles": ["data"],
            "title": "polygons" if name == VECTOR else name,
        }
        for name, path in row.paths.items()
    }
    links = [{"rel": "derived_from", "href": name} for name in row.scenes if name]
    known = {"num_polygons": row.num_polygons} if row.num_polygons is not None else {}
    return {
        "type": "Feature",
        "stac_version": _STAC,
        "stac_extensions": [],
        "id": row.id,
        "geometry": None if row.footprint is None else dict(row.footprint),
        **({} if geometry is None else {"bbox": list(geometry.bounds)}),
        "properties": {"datetime": str(when), "created": row.finished, **known},
        "links": links,
        "assets": assets,
    }


def _table(rows: Sequence[SceneRow], items: Sequence[Mapping[str, Any]]) -> Any:
    geometries = [None if row.footprint is None else shape(row.footprint) for row in rows]
    sides = ("xmin", "ymin", "xmax", "ymax")
    names = list(dict.fromkeys(name for row in rows for name in row.paths))
    columns: dict[str, Any] = {
        "id": _texts(row.id for row in rows),
        "status": _texts(row.status for row in rows),
        "error": _texts(row.error for row in rows),
        "kind": _texts(row.kind for row in rows),
        "seconds": pyarrow.array([row.seconds for row in rows], pyarrow.float64()),
        "num_polygons": pyarrow.array([row.num_polygons for row in rows], pyarrow.int64()),
        "scene": _texts(row.scenes[0] for row in rows),
        **{f"{name}_path": _texts(row.paths.get(name) for row in rows) for name in names},
        "type": _texts("Feature" for _ in rows),
        "stac_version": pyarrow.array([_STAC] * len(rows), pyarrow.string()),
        "stac_extensions": pyarrow.array([[]] * len(rows), pyarrow.list_(pyarrow.string())),
        "datetime": pyarrow.array([_time(item["properties"]["datetime"]) for item in items], pyarrow.timestamp("us", tz="UTC")),
        "created": pyarrow.array([_time(row.finished) for row in rows], pyarrow.timestamp("us", tz="UTC")),
        "links": pyarrow.array([item["links"] for item in items], pyarrow.list_(_struct("rel", "href"))),
        "assets": _assets(items, names),
        "bbox": pyarrow.array(
            [None if one is None else dict(zip(sides, one.bounds, strict=True)) for one in geometries],
            pyarrow.struct([(side, pyarrow.float64()) for side in sides]),
        ),
        "row": pyarrow.array([json.dumps(row.to_dict()) for row in rows], pyarrow.string()),
        "geometry": pyarrow.array([None if one is None else shapely.to_wkb(one) for one in geometries], pyarrow.binary()),
    }
    covering = {"bbox": {side: ["bbox", side] for side in sides}}
    column = {"encoding": "WKB", "geometry_types": ["Polygon"], "covering": covering}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return pyarrow.table(columns).replace_schema_metadata({"geo": json.dumps(geo)})


def _texts(values: Iterable[object]) -> Any:
    """Make a column of texts; what is empty or missing is null."""
    return pyarrow.array([str(value) if value else None for value in values], pyarrow.string())


def _struct(*names: str) -> Any:
    return pyarrow.struct([(name, pyarrow.string()) for name in names])


def _assets(items: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Any:
    """Make the column of assets: a struct with one for each output."""
    fields = [("href", pyarrow.string()), ("type", pyarrow.string()), ("roles", pyarrow.list_(pyarrow.string()))]
    one = pyarrow.struct([*fields, ("title", pyarrow.string())])
    kind = pyarrow.struct([(name, one) for name in names]) if names else pyarrow.struct([("labels", one)])
    return pyarrow.array([item["assets"] for item in items], kind)


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return datetime.now(UTC)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
