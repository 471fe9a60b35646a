"""Reads points and lines that somebody drew as labels, and what fields a layer has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from pyproj import Transformer

from geoglnet.errors import DatasetError
from geoglnet.progress import SilentProgress
from geoglnet.raster.crs import are_one_place
from geoglnet.types import StrPath
from geoglnet.vector.features import Features, first_layer, is_parquet, read_features
from geoglnet.vector.geopackage import plain_name
from geoglnet.vector.polygon_reader import is_set
from geoglnet.vector.rings import Geometries

_MARKS = (
    shapely.GeometryType.POINT,
    shapely.GeometryType.MULTIPOINT,
    shapely.GeometryType.LINESTRING,
    shapely.GeometryType.MULTILINESTRING,
)


def field_names(path: StrPath, layer: str | None = None) -> tuple[str, ...]:
    """List the fields of a layer; of GeoParquet none, because a look at its columns would read them."""
    if is_parquet(path):
        return ()
    read_features(path, None, layer, SilentProgress())  # raises in our words what is wrong with the file
    with plain_name(path) as plain:
        return tuple(pyogrio.read_info(plain, layer=layer or first_layer(path))["fields"])


def field_values(path: StrPath, field: str, layer: str | None = None) -> list[Any]:
    """Read the values of a field, one per row."""
    column = read_features(path, field, layer, SilentProgress()).column
    return [] if column is None else column.tolist()


def read_marks(
    path: StrPath, crs: Any, class_column: str | None, layer: str | None, flag_column: str | None = None
) -> tuple[Geometries, tuple[str, ...] | None, bool]:
    """Read the points and lines of a layer.

    Args:
        path: anything GDAL reads as vector.
        crs: CRS to reproject them to; ``None`` keeps the coordinates.
        class_column: field that names each one's class.
        layer: name of the layer; the first with geometries when left out.
        flag_column: field in which a row must have a value that is true.

    Returns:
        ``(n,)`` points and lines, their class names where a column was named, and whether the layer holds anything else.

    Raises:
        DatasetError: the file cannot be used, or a mark has no class.
    """
    features = read_features(path, class_column, layer, SilentProgress())
    with np.errstate(invalid="ignore"):
        geometries: Geometries = shapely.from_wkb(features.wkb, on_invalid="ignore")
    is_mark = np.isin(shapely.get_type_id(geometries), _MARKS) & ~shapely.is_empty(geometries)
    has_others = bool((~is_mark & np.array([wkb is not None for wkb in features.wkb], bool)).any())
    if flag_column is not None:
        is_mark &= is_set(read_features(path, flag_column, layer, SilentProgress()).column)
    rows = np.flatnonzero(is_mark)
    marks = _moved(geometries[rows], features, crs, path)
    if features.column is None:
        return marks, None, has_others
    values = features.column[rows].tolist()
    if missing := sum(value is None or value != value for value in values):
        raise DatasetError(f"{path}: {missing} of {len(values)} points and lines have no {class_column!r}; fill it in")
    return marks, tuple(str(value) for value in values), has_others


def _moved(marks: Geometries, features: Features, crs: Any, path: StrPath) -> Geometries:
    """Reproject marks point by point: they are small."""
    if crs is None or not len(marks):
        return marks
    if features.crs is None:
        raise DatasetError(f"{path} has no CRS; write one into it (ogr2ogr -a_srs EPSG:… on a copy)")
    if are_one_place(features.crs, crs):
        return marks
    to_target = Transformer.from_crs(features.crs, crs, always_xy=True)
    moved: npt.NDArray[np.object_] = shapely.transform(marks, lambda xy: np.column_stack(to_target.transform(*xy.T)))
    return moved
