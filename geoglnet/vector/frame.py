"""Polygons that were written, as a GeoDataFrame: as many as fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import pyogrio

from geoglnet.errors import MemoryLimitError, SceneNotFoundError
from geoglnet.types import Bounds, StrPath
from geoglnet.vector.features import first_layer
from geoglnet.vector.naming import plain_name

_PARQUET = ".parquet"
_GROWTH = 3.0  # a row in memory beside the same row in a file: geometries are objects there


def read_frame(path: StrPath, *, limit_mb: float, bounds: Bounds | None = None) -> geopandas.GeoDataFrame:
    """All polygons of a file that :func:`~geoglnet.vector.vectorize.vectorize` wrote, or those that touch some bounds.

    Args:
        path: GeoPackage, FlatGeobuf, GeoJSON or GeoParquet.
        limit_mb: megabytes that they may take, as estimated before they are read.
        bounds: (left, bottom, right, top) in the file's CRS.

    Raises:
        SceneNotFoundError: no such file.
        MemoryLimitError: they would take more than the limit.
    """
    path = Path(path)
    if not path.exists():
        raise SceneNotFoundError(f"{path} does not exist; was it moved?")
    size_mb = _GROWTH * path.stat().st_size / 1e6
    if size_mb > limit_mb:
        size_mb *= _share(path, bounds)
    if size_mb > limit_mb:
        raise MemoryLimitError(
            f"{path}: the polygons would take about {size_mb:,.0f} MB, more than limit_mb = {limit_mb:g}; "
            "give bounds = (left, bottom, right, top), or a higher limit_mb"
        )
    if path.suffix == _PARQUET:
        with path.open("rb") as file:  # a name would be read as a URL
            return geopandas.read_parquet(file, bbox=bounds) if bounds else geopandas.read_parquet(file)
    with plain_name(path) as name:
        return geopandas.read_file(name, layer=first_layer(path), bbox=bounds, engine="pyogrio")


def count_polygons(path: StrPath, *, limit_mb: float, bounds: Bounds | None = None) -> int:
    """How many polygons a file has, or how many of them touch some bounds; reads their boxes, of GeoParquet the rows.

    Raises:
        SceneNotFoundError: no such file.
        MemoryLimitError: a GeoParquet file's rows would take more than the limit.
    """
    if Path(path).suffix == _PARQUET or not Path(path).exists():
        return len(read_frame(path, limit_mb=limit_mb, bounds=bounds))
    return _count(Path(path), bounds)


def _share(path: Path, bounds: Bounds | None) -> float:
    if bounds is None or path.suffix == _PARQUET:
        return 1.0
    return _count(path, bounds) / max(1, _count(path, None))


def _count(path: Path, bounds: Bounds | None) -> int:
    if bounds is None:
        with plain_name(path) as name:
            facts: dict[str, Any] = pyogrio.read_info(name, layer=first_layer(path), force_feature_count=True)
        return int(facts["features"])
    with plain_name(path) as name:
        return len(pyogrio.read_bounds(name, layer=first_layer(path), bbox=bounds)[0])
