"""Turns traced polygons into rows of a vector layer: transforms them to the CRS, measures them, drops small ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from affine import Affine

from geoglnet.types import Floats, Shape
from geoglnet.vector.measures import geodesic_areas, ground_measures
from geoglnet.vector.pieces import Polygons
from geoglnet.vector.reshaping import regularize
from geoglnet.vector.rings import Geometries, Outlines, Rings, to_wkb, together
from geoglnet.vector.tracing import MAX_CONFIDENCE

_POLYGONS_AT_ONCE = 20_000  # bounds memory: a checkerboard has a million in one tile, and every step makes a copy


@dataclass(frozen=True, slots=True)
class PolygonRecords:
    """Rows of the layer.

    Args:
        wkb: ``(n,)`` geometries in the raster's CRS, Arrow's large binary.
        class_id: ``(n,)`` int64 codes.
        area_m2: ``(n,)`` float64, NaN becomes null.
        perimeter_m: ``(n,)`` float64, NaN becomes null.
        confidence: ``(n,)`` float64 0–1, NaN becomes null.
        part_of: ``(n,)`` int64, 0 becomes null.
        statistics: further columns by name, ``(n,)`` float64 each.
    """

    wkb: pa.LargeBinaryArray
    class_id: npt.NDArray[np.int64]
    area_m2: Floats
    perimeter_m: Floats
    confidence: Floats
    part_of: npt.NDArray[np.int64]
    statistics: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.wkb)

    @classmethod
    def empty(cls, statistics: Sequence[str] = ()) -> PolygonRecords:
        """Make a table without rows."""
        nothing = np.empty(0, dtype=np.float64)
        columns = (nothing.astype(np.int64), nothing, nothing, nothing, nothing.astype(np.int64))
        return cls(pa.array([], pa.large_binary()), *columns, dict.fromkeys(statistics, nothing))

    @classmethod
    def concatenate(cls, several: Sequence[PolygonRecords]) -> PolygonRecords:
        """Join several tables into one."""
        numbers = ("class_id", "area_m2", "perimeter_m", "confidence", "part_of")
        plain = {name: np.concatenate([getattr(r, name) for r in several]) for name in numbers}
        statistics = {name: np.concatenate([r.statistics[name] for r in several]) for name in several[0].statistics}
        return cls(pa.concat_arrays([r.wkb for r in several]), **plain, statistics=statistics)

    @classmethod
    def of(cls, geometries: npt.NDArray[np.object_], class_id: npt.NDArray[np.int64], crs_wkt: str | None) -> PolygonRecords:
        """Make rows of polygons that were not traced: measured, without confidence.

        Args:
            geometries: ``(n,)`` polygons or multipolygons in the CRS.
            class_id: ``(n,)`` codes.
            crs_wkt: their CRS; ``None`` when there is none.
        """
        areas, perimeters = ground_measures(geometries, crs_wkt)
        unknown, whole = np.full(len(geometries), np.nan), np.zeros(len(geometries), dtype=np.int64)
        return cls(to_wkb(geometries), class_id, areas, perimeters, unknown, whole)


@dataclass(frozen=True, slots=True)
class FinishingRules:
    """Steps from traced polygons to rows.

    Args:
        transform: pixel to CRS coordinates.
        crs_wkt: the CRS; ``None`` when there is none.
        shape: of the raster.
        pixel_size: width and height of a pixel on the ground, or in any unit where that is unknown.
        regularize: straight walls and right angles.
        min_area_m2: polygons smaller than this are dropped; parts of cut ones are not.
        min_hole_m2: holes smaller than this are closed.
        min_confidence: polygons whose mean confidence is below this are dropped; parts of cut ones are not.
        is_multi: write multipolygons.
        classes: codes of the polygons that are kept; ``None`` keeps all.
    """

    transform: Affine
    crs_wkt: str | None
    shape: Shape
    pixel_size: tuple[float, float] = (1.0, 1.0)
    regularize: bool = False
    min_area_m2: float = 0.0
    min_hole_m2: float = 0.0
    min_confidence: float = 0.0
    is_multi: bool = False
    classes: frozenset[int] | None = None

    @property
    def reshapes(self) -> bool:
        """Whether outlines change beyond their transformation to the CRS."""
        return self.regularize or self.min_hole_m2 > 0 or self.is_multi


def finish(polygons: Polygons, rules: FinishingRules) -> PolygonRecords:
    """Make the rows of traced polygons, in their order.

    Args:
        polygons: in pixel coordinates of the raster.
        rules: steps to take.
    """
    starts = range(0, len(polygons), _POLYGONS_AT_ONCE)
    rows = [_finish(polygons[start : start + _POLYGONS_AT_ONCE], rules) for start in starts]
    return PolygonRecords.concatenate(rows) if rows else PolygonRecords.empty()


def _finish(polygons: Polygons, rules: FinishingRules) -> PolygonRecords:
    """Make the rows of as many polygons as are processed at once."""
    # The usual case stays with flat arrays: building shapely objects would take most of the time.
    if isinstance(polygons.outlines, Rings) and not rules.reshapes:
        return _records(_rings_to_crs(polygons.outlines, rules.transform), polygons, rules)
    geometries = polygons.geometries
    # Regularized in pixels, before the CRS, where walls are known to be a staircase of steps of one pixel; holes are closed in
    # the CRS, where areas are known.
    if rules.regularize:
        geometries = _regularized(geometries, polygons.part_of == 0, rules)
    geometries = to_crs(geometries, rules.transform)
    if rules.min_hole_m2 > 0:
        geometries = _with_small_holes_closed(geometries, rules)
    if rules.is_multi:
        parts, index = shapely.get_parts(geometries, return_index=True)
        geometries = shapely.multipolygons(parts, indices=index)
    return _records(geometries, polygons, rules)


def _records(outlines: Outlines, polygons: Polygons, rules: FinishingRules) -> PolygonRecords:
    """Measure polygons whose outlines are final, and drop the small and the doubtful ones."""
    areas, perimeters = ground_measures(outlines, rules.crs_wkt)
    confidence = mean_confidence(polygons.totals)
    # Not `areas >= …`: what has no area on the ground (NaN) is kept. So are parts, whose whole may be large enough.
    is_kept = ~((areas < rules.min_area_m2) | (confidence < rules.min_confidence)) | (polygons.part_of > 0)
    if rules.classes is not None:
        is_kept &= np.isin(polygons.class_id, list(rules.classes))
    kept = outlines if is_kept.all() else outlines[is_kept]
    return PolygonRecords(
        to_wkb(kept),
        polygons.class_id[is_kept],
        areas[is_kept],
        perimeters[is_kept],
        confidence[is_kept],
        polygons.part_of[is_kept],
    )


def mean_confidence(totals: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Compute the mean probability, 0–1, of ``(n, 3)`` totals; NaN where none is known."""
    _, total, known = totals.T
    confidence = np.full(len(totals), np.nan)
    np.divide(total, known * MAX_CONFIDENCE, out=confidence, where=known > 0)
    return confidence


def to_crs(geometries: Geometries, transform: Affine) -> Geometries:
    """Transform geometries from pixel coordinates to the CRS."""
    moved: Geometries = shapely.transform(geometries, lambda points: _points_to_crs(points, transform))
    return moved


def _rings_to_crs(rings: Rings, transform: Affine) -> Rings:
    return Rings(_points_to_crs(rings.points, transform), rings.lengths, rings.polygon)


def _points_to_crs(points: npt.NDArray[np.float64], transform: Affine) -> npt.NDArray[np.float64]:
    """Transform ``(n, 2)`` pixel coordinates to the CRS."""
    a, b, c, d, e, f = tuple(transform)[:6]
    x, y = points.T
    # In the order of terms of GDALApplyGeoTransform, so that coordinates equal those of GDAL's polygonize bit for bit.
    return np.column_stack([c + x * a + y * b, f + x * d + y * e])


def _regularized(geometries: Geometries, is_whole: npt.NDArray[np.bool_], rules: FinishingRules) -> Geometries:
    """Regularize the whole polygons that the raster's border does not cut; where it does, the walls are not known."""
    left, top, right, bottom = shapely.bounds(geometries).T
    is_inside = (left > 0) & (top > 0) & (right < rules.shape.width) & (bottom < rules.shape.height)
    chosen = is_whole & is_inside
    size = np.array(rules.pixel_size)
    # Pixels need not be square on the ground (degrees), and right angles are only right where both axes have one unit.
    on_ground = shapely.transform(geometries[chosen], lambda points: points * size)
    tolerance = float(np.sqrt(size.prod()))
    regular = np.array([regularize(geometry, tolerance) for geometry in on_ground], dtype=object)
    finished = geometries.copy()
    if len(regular):
        finished[chosen] = shapely.transform(regular, lambda points: points / size)
    return finished


def _with_small_holes_closed(geometries: Geometries, rules: FinishingRules) -> Geometries:
    """Close the holes that are smaller on the ground than ``rules.min_hole_m2``."""
    parts, geometry = shapely.get_parts(geometries, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    # The first ring of a part is its shell. All holes of all polygons are measured together.
    is_hole = np.append(False, part[1:] == part[:-1])
    is_kept = np.ones(len(rings), dtype=bool)
    areas = geodesic_areas(shapely.polygons(rings[is_hole]), rules.crs_wkt)
    is_kept[is_hole] = ~(areas < rules.min_hole_m2)
    if is_kept.all():
        return geometries
    return together(shapely.polygons(rings[is_kept], indices=part[is_kept]), geometry)
