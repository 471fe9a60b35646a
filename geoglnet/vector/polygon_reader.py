"""Reads the polygons of users' vector files.

Polygons are taken out of geometries of any kind. Invalid ones are repaired and features without an area are skipped, both
counted in the log; an error about an unusable feature names its file, layer and number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError, ProjError

from geoglnet.errors import DatasetError, MemoryLimitError, SceneNotFoundError
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.crs import are_one_place, crs_label
from geoglnet.types import Bounds, StrPath
from geoglnet.vector.features import Features, first_layer, read_features, rings_of
from geoglnet.vector.geopackage import plain_name
from geoglnet.vector.reprojection import beyond_degrees, reproject
from geoglnet.vector.rings import Geometries

_POLYGON_TYPES = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
_FLAT_TYPES = (
    shapely.GeometryType.POINT,
    shapely.GeometryType.LINESTRING,
    shapely.GeometryType.LINEARRING,
    shapely.GeometryType.MULTIPOINT,
    shapely.GeometryType.MULTILINESTRING,
)
_NO = ("", "0", "0.0", "false", "f", "no", "n")
_NO_POLYGON = shapely.Polygon()
_FLAT = 1e-9  # width of a ring as a fraction of its length, up to which it is a line
_PARQUET = ".parquet"
_GROWTH = 3.0  # size of a row in memory to its size in the file: geometries become objects


@dataclass(frozen=True, slots=True)
class PolygonSet:
    """Polygons of a vector file, with the names of their classes.

    Args:
        geometries: ``(n,)`` valid polygons and multipolygons, two-dimensional, none empty.
        class_names: one name per geometry; ``None`` when no column was requested.
        crs: CRS of the file; ``None`` when it names none.
    """

    geometries: Geometries
    class_names: tuple[str, ...] | None = None
    crs: CRS | None = None

    def __len__(self) -> int:
        return len(self.geometries)


def read_polygons(
    path: StrPath,
    crs: Any,
    class_column: str | None = None,
    *,
    layer: str | None = None,
    around: Bounds | None = None,
    flag_column: str | None = None,
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> PolygonSet:
    """Read the polygons of one layer of a file, whatever kinds of geometries they come in.

    Args:
        path: anything GDAL reads as vector (GeoPackage, GeoJSON, FlatGeobuf, Shapefile, …), or GeoParquet.
        crs: CRS to reproject them to (rasterio's, pyproj's, ``"EPSG:4326"``); ``None`` keeps the coordinates.
        class_column: field that names each polygon's class; ``None`` when they are all of one class.
        layer: name of the layer; left out, the first one that may hold polygons.
        around: (left, bottom, right, top) in ``crs`` of the scene they are for. Far outside of its area a CRS has no
            coordinates, so larger polygons are clipped generously around it first, and there may be none left.
        flag_column: field in which a row must have a value that is true; the others are left out.
        progress: receives which layer is read, and how many features were repaired or skipped.

    Raises:
        DatasetError: no such file, layer or column, not a vector file, no polygons, no CRS, no class in some row, or
            coordinates that cannot be used.
    """
    features = read_features(path, class_column, layer, progress)
    geometries = _valid_polygons(features, progress)
    rows = np.flatnonzero(~shapely.is_empty(geometries))
    if flag_column is not None:
        rows = rows[is_set(read_features(path, flag_column, layer, SilentProgress()).column)[rows]]
    if len(rows) == 0:
        described = f" ({len(geometries)} features without an area)" if len(geometries) else ""
        raise DatasetError(f"{features.name} holds no polygons{described}; give a layer with at least one")
    if passed_over := len(geometries) - len(rows):
        progress.log(
            f"{features.name}: {passed_over} of {len(geometries)} features have no area (points, lines, empty ones) "
            "and are skipped"
        )
    names = None if features.column is None else _class_names(features.column[rows], class_column, path)
    geometries = geometries[rows]
    if crs is not None:
        geometries = _in_crs(geometries, features.numbers[rows], features, crs, around, path)
        kept = ~shapely.is_empty(geometries)
        geometries = geometries[kept]
        names = None if names is None else tuple(np.array(names, object)[kept])
    return PolygonSet(geometries, names, features.crs)


def is_set(column: npt.NDArray[Any] | None) -> npt.NDArray[np.bool_]:
    """Tell which values of a field of flags are true: not missing, not 0, and no word for no."""
    values = [] if column is None else column.tolist()
    return np.array([v is not None and v == v and str(v).strip().lower() not in _NO for v in values], bool)


def _valid_polygons(features: Features, progress: Progress) -> Geometries:
    """Take the polygons out of all features: ``(n,)`` valid polygons or multipolygons, empty where a row has no area."""
    with np.errstate(invalid="ignore"):  # NaN and infinity are searched for below
        geometries: Geometries = shapely.from_wkb(features.wkb, on_invalid="ignore")
    # GEOS reads most of them, at once; what it cannot read, or reads as a collection or a curve, is parsed one by one.
    kinds = shapely.get_type_id(geometries)
    is_missing = np.array([wkb is None for wkb in features.wkb], bool)
    is_other = ~is_missing & ~np.isin(kinds, (*_POLYGON_TYPES, *_FLAT_TYPES))
    geometries[~np.isin(kinds, _POLYGON_TYPES)] = _NO_POLYGON
    is_deep = shapely.get_coordinate_dimension(geometries) > 2
    geometries[is_deep] = shapely.force_2d(geometries[is_deep])
    repaired = np.zeros(len(geometries), bool)
    for row in np.flatnonzero(is_other):
        geometries[row], repaired[row] = _assembled(features, int(row))
    _check_finite(geometries, features)
    invalid = ~shapely.is_valid(geometries)
    geometries[invalid] = _mended(geometries[invalid])
    if count := int((invalid | repaired).sum()):
        progress.log(
            f"{features.name}: {count} of {len(geometries)} features had invalid polygons "
            "(rings that cross, touch or stay open) and were repaired"
        )
    return geometries


def _mended(geometries: Geometries) -> Geometries:
    """Make polygons valid: they cover what is filled when each is drawn; empty where that has no area."""
    mended = np.empty(len(geometries), object)
    for row, geometry in enumerate(geometries):
        parts = shapely.get_parts(shapely.make_valid(shapely.get_parts(geometry)))
        parts = shapely.get_parts(parts)  # a polygon's remedy may be a collection with multipolygons in it
        mended[row] = shapely.union_all(parts[shapely.get_dimensions(parts) == 2])
    mended[~np.isin(shapely.get_type_id(mended), _POLYGON_TYPES)] = _NO_POLYGON
    return mended


def _assembled(features: Features, row: int) -> tuple[shapely.Geometry, bool]:
    """Unite the polygons inside a geometry of another kind; return also whether one of them had to be repaired."""
    try:
        several = rings_of(features.wkb[row])
    except ValueError as error:
        raise DatasetError(f"{_named(features, row)} cannot be read ({error}); remove or correct it") from error
    if not all(np.isfinite(ring).all() for rings in several for ring in rings):
        raise _not_finite(features, row)
    is_open = any(len(ring) and (ring[0] != ring[-1]).any() for rings in several for ring in rings)
    drawn = [rings for rings in several if rings and _encloses(rings[0])]
    parts = np.array([shapely.Polygon(rings[0], [hole for hole in rings[1:] if _encloses(hole)]) for rings in drawn], object)
    invalid = ~shapely.is_valid(parts)
    parts[invalid] = _mended(parts[invalid])
    return shapely.union_all(parts) if len(parts) > 1 else next(iter(parts), _NO_POLYGON), bool(is_open or invalid.any())


def _encloses(ring: npt.NDArray[np.float64]) -> bool:
    """Return whether a ring has an area; the wall of a building, seen from above, has none."""
    steps = ring - ring[:1]
    size = np.hypot(*steps.T)
    if len(ring) < 3 or size.max() == 0:
        return False
    # Some point must lie off the line from the first point to the furthest one (cross product).
    x, y = steps[np.argmax(size)]
    return bool((np.abs(steps[:, 0] * y - steps[:, 1] * x) > _FLAT * size.max() ** 2).any())


def _check_finite(geometries: Geometries, features: Features) -> None:
    """Refuse coordinates that are NaN or infinite."""
    points, index = shapely.get_coordinates(geometries, return_index=True)
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise _not_finite(features, int(index[np.argmax(bad)]))


def _not_finite(features: Features, row: int) -> DatasetError:
    """Make the error about coordinates that are NaN or infinite."""
    return DatasetError(f"{_named(features, row)} has coordinates that are not numbers; correct or remove it")


def _named(features: Features, row: int) -> str:
    """Name a feature in a message."""
    return f"{features.name}: feature {features.numbers[row]}"


def _class_names(column: npt.NDArray[Any], name: str | None, path: StrPath) -> tuple[str, ...]:
    """Convert a column to class names; every row must have one."""
    values = column.tolist()
    missing = sum(value is None or value != value for value in values)
    if missing:
        raise DatasetError(f"{path}: {missing} of {len(values)} polygons have no {name!r}; fill it in or remove them")
    # A column of integers with gaps elsewhere arrives as floats: class 3.0 is class 3.
    return tuple(str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values)


def _in_crs(
    geometries: Geometries, numbers: npt.NDArray[np.int64], features: Features, crs: Any, around: Bounds | None, path: StrPath
) -> Geometries:
    """Reproject polygons from the CRS of their file, after checking that it can be theirs."""
    if features.crs is None:
        raise DatasetError(
            f"{path} has no CRS; write one into it (ogr2ogr -a_srs EPSG:… on a copy), or use a scene without CRS"
        )
    if len(features.crs.axis_info) == 1:
        raise DatasetError(
            f"{features.name} has the CRS {crs_label(features.crs)}, which has heights only and no horizontal axes; "
            "write the right one into a copy (ogr2ogr -a_srs EPSG:…)"
        )
    if (place := beyond_degrees(geometries, features.crs)) is not None:
        row, (x, y) = place
        raise DatasetError(
            f"{features.name}: feature {numbers[row]} has the coordinates {x:g} {y:g}, which are not longitude and latitude, "
            f"but its CRS is {crs_label(features.crs)}; write the right one into a copy (ogr2ogr -a_srs EPSG:…)"
        )
    try:
        target = CRS.from_user_input(crs)
        moved = reproject(geometries, features.crs, target, around, is_same=are_one_place(features.crs, target))
    except (CRSError, ProjError) as error:
        raise DatasetError(
            f"{path} cannot be reprojected from {crs_label(features.crs)} to {crs_label(crs)}, which are not of the same body "
            "or plane; give polygons in the scene's CRS"
        ) from error
    lost = np.flatnonzero(~np.isfinite(shapely.bounds(moved)).all(axis=1) & ~shapely.is_empty(moved))
    if len(lost):
        raise DatasetError(
            f"{features.name}: feature {numbers[lost[0]]} extends to where {crs_label(target)} has no coordinates; "
            "clip it to the surroundings of the scene"
        )
    # Valid polygons may cross themselves in another CRS. Those that were only copied (compared by identity) cannot.
    changed = np.flatnonzero([after is not before for after, before in zip(moved, geometries, strict=True)])
    invalid = changed[~shapely.is_valid(moved[changed])]
    moved[invalid] = _mended(moved[invalid])
    return moved


def read_frame(path: StrPath, *, limit_mb: float, bounds: Bounds | None = None) -> geopandas.GeoDataFrame:
    """Read the polygons of a file that :func:`~geoglnet.vector.polygonizer.vectorize` wrote, or those that touch some bounds.

    Args:
        path: GeoPackage, FlatGeobuf, GeoJSON or GeoParquet.
        limit_mb: most megabytes that they may take, estimated from the file's size before they are read.
        bounds: (left, bottom, right, top) in the file's CRS.

    Raises:
        SceneNotFoundError: no such file.
        MemoryLimitError: they would take more than the limit.
    """
    path = Path(path)
    if not path.exists():
        raise SceneNotFoundError(f"{path} does not exist; check whether it was moved")
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
    """Count the polygons of a file, or those that touch some bounds; reads their bounds only, of GeoParquet the rows.

    Raises:
        SceneNotFoundError: no such file.
        MemoryLimitError: a GeoParquet file's rows would take more than the limit.
    """
    if Path(path).suffix == _PARQUET or not Path(path).exists():
        return len(read_frame(path, limit_mb=limit_mb, bounds=bounds))
    return _count(Path(path), bounds)


def _share(path: Path, bounds: Bounds | None) -> float:
    """Return the fraction of a file's polygons that touch some bounds."""
    if bounds is None or path.suffix == _PARQUET:
        return 1.0
    return _count(path, bounds) / max(1, _count(path, None))


def _count(path: Path, bounds: Bounds | None) -> int:
    """Count polygons with GDAL."""
    if bounds is None:
        with plain_name(path) as name:
            facts: dict[str, Any] = pyogrio.read_info(name, layer=first_layer(path), force_feature_count=True)
        return int(facts["features"])
    with plain_name(path) as name:
        return len(pyogrio.read_bounds(name, layer=first_layer(path), bbox=bounds)[0])
