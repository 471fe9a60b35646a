"""Polygons from any vector file, as training labels or as truth to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from pyproj.exceptions import CRSError, ProjError

from geoglnet.config import suggestion
from geoglnet.errors import DatasetError
from geoglnet.types import StrPath
from geoglnet.vector.rings import Geometries

_POLYGON_TYPES = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


@dataclass(frozen=True, slots=True)
class LabelPolygons:
    """Polygons and what they are.

    Args:
        geometries: ``(n,)`` polygons and multipolygons, two-dimensional, none empty.
        class_names: one name per geometry; ``None`` when no column was asked for.
    """

    geometries: Geometries
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.geometries)


def read_polygons(path: StrPath, crs: Any, class_column: str | None = None, *, layer: str | None = None) -> LabelPolygons:
    """Read the polygons of one layer of a file; points and lines are passed over.

    Args:
        path: anything GDAL reads as vector: GeoPackage, GeoJSON, FlatGeobuf, Shapefile, …
        crs: CRS to bring them to (rasterio's, pyproj's, ``"EPSG:4326"``); ``None`` takes the coordinates as they are.
        class_column: field that names each polygon's class; ``None`` when they are all of one class.
        layer: its name; the first spatial one when left out.

    Raises:
        DatasetError: no such file, layer or column, not a vector file, no polygons, no CRS, or no class in some row.
    """
    if "://" not in str(path) and not str(path).startswith("/vsi") and not Path(path).exists():
        raise DatasetError(f"{path} does not exist; check the path")
    try:
        frame = _read_frame(path, class_column, layer)
    except (DataSourceError, DataLayerError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DatasetError(
            f"{path} is not a vector file that GDAL can read ({reason}); give a GeoPackage or GeoJSON"
        ) from error
    frame = frame[_is_polygon(frame.geometry.values)]
    if len(frame) == 0:
        raise DatasetError(f"{path} holds no polygons; give a layer with at least one")
    names = None if class_column is None else _class_names(frame[class_column], path)
    return LabelPolygons(shapely.force_2d(np.asarray(_in_crs(frame, crs, path).geometry.values)), names)


def spatial_layers(path: StrPath) -> tuple[str, ...]:
    """Names of the layers that have geometries; a GeoPackage's table of styles has none."""
    return tuple(name for name, kind in pyogrio.list_layers(path) if kind is not None)


def first_layer(path: StrPath) -> str | None:
    """The layer that is read where none is named."""
    return next(iter(spatial_layers(path)), None)


def _read_frame(path: StrPath, class_column: str | None, wanted: str | None) -> geopandas.GeoDataFrame:
    layers = spatial_layers(path)
    if not layers:
        raise DatasetError(f"{path} has no spatial layer; give a file with polygons")
    if wanted is not None and wanted not in layers:
        raise DatasetError(f"{path} has no spatial layer {wanted!r}{suggestion(wanted, layers)}")
    layer = wanted or layers[0]
    columns = tuple(pyogrio.read_info(path, layer=layer)["fields"])
    if class_column is not None and class_column not in columns:
        known = suggestion(class_column, columns) if columns else "; the layer has no columns"
        raise DatasetError(f"{path} has no column {class_column!r}{known}")
    return pyogrio.read_dataframe(path, layer=layer, columns=[] if class_column is None else [class_column])


def _is_polygon(geometries: Any) -> Any:
    kinds = shapely.get_type_id(np.asarray(geometries))
    return np.isin(kinds, _POLYGON_TYPES) & ~shapely.is_empty(np.asarray(geometries))


def _class_names(column: Any, path: StrPath) -> tuple[str, ...]:
    missing = int(column.isna().sum())
    if missing:
        raise DatasetError(f"{path}: {missing} of {len(column)} polygons have no {column.name!r}; fill it in or remove them")
    # A column of integers with gaps elsewhere arrives as floats: class 3.0 is class 3.
    return tuple(str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in column.tolist())


def _in_crs(frame: geopandas.GeoDataFrame, crs: Any, path: StrPath) -> geopandas.GeoDataFrame:
    if crs is None:
        return frame
    if frame.crs is None:
        raise DatasetError(
            f"{path} has no CRS; write one into it (ogr2ogr -a_srs EPSG:… on a copy), or use a scene without CRS"
        )
    try:
        return frame.to_crs(CRS.from_user_input(crs))
    except (CRSError, ProjError) as error:
        raise DatasetError(f"{path} cannot be brought from {frame.crs.name} to {crs} ({error})") from error
