"""What somebody drew on a scene: polygons, strokes and points with their classes, and where anything is known at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from geoglnet.datasets.truth import LabelPolygons, window_box
from geoglnet.errors import DatasetError, LegendError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.message import Keyword
from geoglnet.progress import Progress
from geoglnet.types import Bounds, Labels, Shape
from geoglnet.vector.marks import field_names, field_values, read_marks
from geoglnet.vector.polygon_reader import is_set, read_polygons

CLASS_FIELDS = ("class_name", "class", "label", "category", "type", "kind")
"""Fields that name a polygon's class, in the order in which they are looked for; the first is ours."""
FLAG_FIELDS = ("approved", "edited", "checked")
"""Fields that say that somebody has looked at a polygon: where one is set anywhere, the other rows are no labels. Of areas with
such a field, those count in which it is set."""
_EMPTY = np.empty(0, object)


@dataclass(frozen=True, slots=True)
class DrawingRules:
    """How what was drawn is read.

    Args:
        class_field: that names the class; found among :data:`CLASS_FIELDS` when empty.
        layer: of the file; the first one with geometries when empty.
        around: distance around what was drawn within which everything else is background, in CRS units.
        radius: of points and of half the width of strokes, in CRS units.
    """

    class_field: str
    layer: str
    around: float
    radius: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """Labels in the CRS of a scene.

    Args:
        polygons: what is drawn, later ones on top; where two classes overlap, nothing is known.
        objects: ``(n,)`` polygons that are whole things, of classes that become polygons: what polygon F1 counts.
        object_values: their labels.
        known: ``(n,)`` polygons outside of which nothing is known.
        legend: classes.
        described: how it was read, in words.
    """

    polygons: LabelPolygons
    objects: npt.NDArray[np.object_]
    object_values: Labels
    known: LabelPolygons
    legend: Legend
    described: tuple[str, ...]

    def parted_on(self, transform: Affine) -> PartedTruth | DrawnTruth:
        """Make labels of any window of a grid, with background between objects that touch where there is a background."""
        truth = self.truth_on(transform)
        is_parted = self.legend.background is not None and len(self.objects) > 1
        return PartedTruth(truth, self.objects, shapely.STRtree(self.objects)) if is_parted else truth

    def truth_on(self, transform: Affine) -> DrawnTruth:
        """Make labels of any window of a grid."""
        fill = NO_CLASS if self.legend.background is None else self.legend.background
        return DrawnTruth(self.polygons, self.known, transform, fill)


@dataclass(frozen=True, slots=True)
class DrawnTruth:
    """Labels of a grid: what is drawn, background around it, and nothing where nobody has looked."""

    polygons: LabelPolygons
    known: LabelPolygons
    transform: Affine
    fill: int

    def read_labels(self, window: Window) -> Labels:
        """Rasterize a window."""
        shape, placed = Shape(int(window.height), int(window.width)), window_transform(window, self.transform)
        is_known = self.known.draw(placed, shape, 0)
        if not is_known.any():
            return np.full(shape, NO_CLASS, np.uint8)
        return np.where(is_known > 0, self.polygons.draw(placed, shape, self.fill), np.uint8(NO_CLASS))


@dataclass(frozen=True, slots=True)
class PartedTruth:
    """Labels with background between objects that touch, so that a network learns to part what is attached.

    Args:
        truth: the labels.
        objects: polygons that are whole things.
        tree: of them.
    """

    truth: DrawnTruth
    objects: npt.NDArray[np.object_]
    tree: shapely.STRtree

    def read_labels(self, window: Window) -> Labels:
        """Rasterize a window."""
        labels = self.truth.read_labels(window)
        placed = window_transform(window, self.truth.transform)
        near_by = self.tree.query(window_box(placed, Shape(*labels.shape)))
        if len(near_by) < 2:
            return labels
        numbers = np.zeros(labels.shape, np.int32)
        rasterize([(self.objects[i], n) for n, i in enumerate(near_by, start=1)], out=numbers, transform=placed)
        gap = np.zeros(labels.shape, bool)
        for axis in (0, 1):
            first, second = (np.moveaxis(numbers, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
            touches = (first != second) & (first > 0) & (second > 0)
            view = np.moveaxis(gap, axis, 0)
            view[:-1] |= touches
            view[1:] |= touches
        return np.where(gap & (labels != NO_CLASS), np.uint8(self.truth.fill), labels)


def read_drawn(
    path: Path,
    area_path: Path | None,
    crs: Any,
    around: Bounds,
    legend: Legend,
    rules: DrawingRules,
    progress: Progress,
) -> Drawn:
    """Read what was drawn on a scene.

    Args:
        path: vector file.
        area_path: vector file of the area that was looked at: outside nothing is known, inside what is not drawn is background.
        crs: of the scene.
        around: bounds of the scene.
        legend: classes of the new model.
        rules: how it is read.
        progress: receives what was skipped and repaired.

    Raises:
        DatasetError: the file cannot be used, or nothing of it lies on the scene.
        LegendError: a class that the legend lacks, or no field that names classes.
    """
    fields = field_names(path, rules.layer or None)
    flag = next((f for f in FLAG_FIELDS if f in fields and any(_flags(path, f, rules.layer))), None)
    field = _class_field(path, fields, legend, rules)
    marks, mark_names, has_polygons = read_marks(path, crs, field, rules.layer or None, flag)
    outlines, names = _EMPTY, None
    if has_polygons:
        found = read_polygons(path, crs, field, layer=rules.layer or None, around=around, flag_column=flag, progress=progress)
        outlines, names = found.geometries, found.class_names
    values = np.concatenate([_values(path, n, len(g), field, legend) for n, g in ((names, outlines), (mark_names, marks))])
    geometries = np.concatenate([outlines, shapely.buffer(marks, rules.radius) if len(marks) else _EMPTY])
    is_on = shapely.intersects(geometries, shapely.box(*around)) if len(geometries) else np.empty(0, bool)
    if not is_on.any():
        raise DatasetError(
            f"nothing of {path} ({len(geometries)} features) lies on the scene; check the places and CRS of both"
        )
    is_object = is_on & (np.arange(len(geometries)) < len(outlines)) & (values != legend.background)
    known, described = _known(area_path, crs, around, geometries[is_on], rules, progress)
    drawn, clash = _with_clashes(geometries[is_on], values[is_on])
    if clash:
        progress.warn(f"{path.name}: {clash} pairs of polygons of different classes overlap; nothing is known where they do")
    told = [f"classes from {field}" if field else f"all of {legend.names[legend.polygon_values[-1]]}", described]
    told += [f"only where {flag} is set"] if flag else []
    return Drawn(drawn, geometries[is_object], values[is_object], known, legend, tuple(told))


def _flags(path: Path, field: str, layer: str) -> npt.NDArray[np.bool_]:
    return is_set(np.array(field_values(path, field, layer or None), object))


def _class_field(path: Path, fields: Sequence[str], legend: Legend, rules: DrawingRules) -> str | None:
    """Choose the field that names classes: the one that is named, or the first whose values are classes of the legend."""
    if rules.class_field:
        return rules.class_field
    for field in (field for field in CLASS_FIELDS if field in fields):
        if {str(value) for value in field_values(path, field, rules.layer or None)} & set(legend.names):
            return field
    candidates = [field for field in fields if field in CLASS_FIELDS]
    if len(legend.polygon_values) == 1 and not candidates:
        return None
    if candidates and len(legend.polygon_values) > 1:
        return candidates[0]  # whose values are refused with their names
    if len(legend.polygon_values) == 1:
        return None
    raise LegendError(
        f"{path}: no field names the class ({', '.join(fields) or 'it has none'}), and the model has "
        f"{', '.join(legend.names)}; name the field with " + Keyword("class_field")
    )


def _values(path: Path, names: Sequence[str] | None, count: int, field: str | None, legend: Legend) -> Labels:
    """Convert class names to labels."""
    if names is None:
        return np.full(count, legend.polygon_values[-1], np.uint8)
    unknown = Counter(name for name in names if name not in legend.names)
    if unknown:
        first, number = unknown.most_common(1)[0]
        raise LegendError(
            f"{path} has the class {first!r} in {field!r} ({number} features), which the model lacks "
            f"({', '.join(legend.names)}); correct it, or list the classes of a new model with " + Keyword("legend")
        )
    return np.array([legend.names.index(name) for name in names], np.uint8)


def _known(
    area_path: Path | None,
    crs: Any,
    around: Bounds,
    geometries: npt.NDArray[np.object_],
    rules: DrawingRules,
    progress: Progress,
) -> tuple[LabelPolygons, str]:
    """Find out where anything is known: in the area that was looked at, or near what was drawn."""
    if area_path is not None:
        flag = next((f for f in FLAG_FIELDS if f in field_names(area_path, None)), None)
        if flag is not None and not any(_flags(area_path, flag, "")):
            raise DatasetError(f"{area_path}: no area is marked as looked at; set {flag!r} where you have looked")
        area = read_polygons(area_path, crs, around=around, flag_column=flag, progress=progress).geometries
        if not len(area) or not shapely.intersects(area, shapely.box(*around)).any():
            raise DatasetError(f"{area_path} lies outside of the scene; check the places and CRS of both")
        return LabelPolygons(area, np.ones(len(area), np.uint8)), (
            f"known inside {area_path.name}" + (f" where {flag} is set" if flag else "")
        )
    near = shapely.buffer(geometries, rules.around)
    return LabelPolygons(near, np.ones(len(near), np.uint8)), "known near what was drawn"


def _with_clashes(geometries: npt.NDArray[np.object_], values: Labels) -> tuple[LabelPolygons, int]:
    """Put what lies in polygons of two classes on top, as unknown."""
    tree = shapely.STRtree(geometries)
    first, second = tree.query(geometries, predicate="intersects")
    is_pair = (first < second) & (values[first] != values[second])
    shared = shapely.intersection(geometries[first[is_pair]], geometries[second[is_pair]])
    shared = shared[shapely.area(shared) > 0]
    labels = np.concatenate([values, np.full(len(shared), NO_CLASS, np.uint8)])
    return LabelPolygons(np.concatenate([geometries, shared]), labels), len(shared)
