"""Scores by square: IoU, boundary F1 and polygon F1 of label maps, with intervals from resampling the squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from geoglnet.adaptation.drawn import Drawn
from geoglnet.adaptation.squares import Squares
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.metrics import BoundaryScore, ConfusionMatrix, boundaries, mean, near
from geoglnet.prediction.layers import SCALE
from geoglnet.types import Labels, Shape
from geoglnet.vector.cleaning import LARGEST_HOLE, fill_holes, open_labels

TOLERANCE = 3
"""Pixels within which boundaries agree."""
_MATCH_IOU = 0.5
_MARGIN = 64  # pixels around a square in which polygons are followed
_RESAMPLES = 1000
_BEYOND_CHANCE = 1.645  # standard deviations
_FEW, _LEAST_SD = 4, 0.02
"""With fewer squares the resampled ones are too much alike to tell the uncertainty, which is at least this."""
MEASURES = ("iou", "boundary_f1", "polygon_f1")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says about a window.

    Args:
        labels: ``(h, w)`` classes.
        confidence: ``(h, w)`` probability of the class, times 254.
    """

    labels: Labels
    confidence: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PolygonRules:
    """What a model's own settings make of its labels, so that scores are of the polygons that people get.

    Their outlines are left as pixels are: smoother ones overlap with the true ones by nearly as much.

    Args:
        min_px: smallest area, in pixels.
        min_confidence: smallest mean confidence, 0 to 1.
        opening: radius in pixels.
        fill_holes: whether enclosed background is filled.
    """

    min_px: float = 0.0
    min_confidence: float = 0.0
    opening: int = 0
    fill_holes: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any], resolution_m: float) -> PolygonRules:
        """Read them from the settings of polygons that a model brings along."""
        return cls(
            settings.get("min_area_m2", 0.0) / resolution_m**2,
            settings.get("min_confidence", 0.0),
            settings.get("opening", 0),
            settings.get("fill_holes", False),
        )

    def cleaned(self, labels: Labels, background: int | None) -> Labels:
        """Change labels as they are before polygons are traced."""
        cleaned = open_labels(labels, self.opening, background) if self.opening else labels
        cleaned = fill_holes(cleaned, background, LARGEST_HOLE) if self.fill_holes and background is not None else cleaned
        return cleaned.astype(np.uint8, copy=False)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of squares, from which all scores come.

    Args:
        legend: classes.
        confusion: ``(S, K + 1, K + 1)`` pixels by true and segmented class.
        boundary: ``(S, K, 4)`` boundary pixels: true, found, segmented, right.
        polygons: ``(S, K, 3)`` polygons: found, false, missed.
    """

    legend: Legend
    confusion: npt.NDArray[np.int64]
    boundary: npt.NDArray[np.int64]
    polygons: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.confusion)

    def per_class(self, weights: npt.NDArray[np.int64] | None = None) -> dict[str, npt.NDArray[np.float64]]:
        """Compute each measure of each class, NaN where a class does not occur; squares may be counted several times."""
        weights = np.ones(len(self), np.int64) if weights is None else weights
        matrix, boundary = ConfusionMatrix(self.legend), BoundaryScore(self.legend, TOLERANCE)
        matrix.counts = np.tensordot(weights, self.confusion, 1)
        boundary.counts = np.tensordot(weights, self.boundary, 1)
        polygon = polygon_f1(np.tensordot(weights, self.polygons, 1))
        return {"iou": matrix.iou(), "boundary_f1": boundary.f1(), "polygon_f1": polygon}

    def means(self, weights: npt.NDArray[np.int64] | None = None) -> dict[str, float]:
        """Average each measure over the classes that become polygons."""
        shown = list(self.legend.polygon_values)
        return {name: mean(values[shown]) for name, values in self.per_class(weights).items()}


def joined(tallies: Sequence[Tally]) -> Tally:
    """Put the squares of several tallies together."""
    confusion, boundary, polygons = (
        np.concatenate([getattr(t, name) for t in tallies]) for name in ("confusion", "boundary", "polygons")
    )
    return Tally(tallies[0].legend, confusion, boundary, polygons)


@dataclass(frozen=True, slots=True)
class Change:
    """One measure before and after, with its uncertainty.

    Args:
        before: of the old model.
        after: of the new one.
        before_interval: 90 % of the values when squares are drawn anew (bootstrap).
        after_interval: the same of the new one.
        gain_interval: of the difference, square by square.
        gain_sd: standard deviation of the difference.
    """

    before: float
    after: float
    before_interval: tuple[float, float]
    after_interval: tuple[float, float]
    gain_interval: tuple[float, float]
    gain_sd: float

    @property
    def gain(self) -> float:
        """By how much it became better."""
        return self.after - self.before

    @property
    def is_worse(self) -> bool:
        """Tell whether it fell beyond chance: so far that only one in twenty would by chance alone.

        With one standard deviation as the limit, one in three models that were better was given up for a handful of polygons.
        """
        return bool(np.isfinite(self.gain) and self.gain < 0 and self.gain < -_BEYOND_CHANCE * self.gain_sd)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is null."""
        plain = {"before": self.before, "after": self.after, "gain": self.gain, "gain_sd": self.gain_sd}
        intervals = {n: getattr(self, n) for n in ("before_interval", "after_interval", "gain_interval")}
        numbers = {name: round(value, 4) if np.isfinite(value) else None for name, value in plain.items()}
        return numbers | {n: [round(v, 4) if np.isfinite(v) else None for v in pair] for n, pair in intervals.items()}


def changes(before: Tally, after: Tally, seed: int = 0) -> dict[str, Change]:
    """Compare two label maps of the same squares by each measure, averaged over classes."""
    rng, count = np.random.default_rng(seed), len(before)
    draws = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    first, second = before.means(), after.means()
    resampled = [(before.means(weights), after.means(weights)) for weights in draws]
    found = {}
    for name in MEASURES:
        pairs = np.array([(a[name], b[name]) for a, b in resampled])
        gains = pairs[:, 1] - pairs[:, 0]
        spread = float(np.nanstd(gains)) if np.isfinite(gains).any() else float("nan")
        spread = max(spread, _LEAST_SD) if count < _FEW and np.isfinite(spread) else spread
        found[name] = Change(
            first[name], second[name], _interval(pairs[:, 0]), _interval(pairs[:, 1]), _interval(gains), spread
        )
    return found


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, (5, 95))
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Crop:
    """A square with everything that its scores depend on.

    Args:
        cell: row and column of the square.
        square: its pixels on the scene's grid.
        window: the square and its surroundings, on the scene's grid.
        truth: ``(h, w)`` labels of the window.
        instances: ``(h, w)`` numbers of the polygons from 1; 0 elsewhere.
        values: label of each polygon, from number 1 on.
        is_own: whether each polygon's middle lies in the square.
    """

    cell: tuple[int, int]
    square: Window
    window: Window
    truth: Labels
    instances: npt.NDArray[np.int32]
    values: Labels
    is_own: npt.NDArray[np.bool_]

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the square in the window."""
        top, left = int(self.square.row_off - self.window.row_off), int(self.square.col_off - self.window.col_off)
        return slice(top, top + int(self.square.height)), slice(left, left + int(self.square.width))


def crops_of(drawn: Drawn, squares: Squares, cells: Sequence[tuple[int, int]], transform: Affine, shape: Shape) -> list[Crop]:
    """Prepare squares for scoring. Memory: 5 bytes per pixel of the squares and their margins."""
    truth, made = drawn.truth_on(transform), []
    centers = shapely.centroid(drawn.objects)
    cols, rows = (np.array(c) for c in _pixels(transform, shapely.get_x(centers), shapely.get_y(centers)))
    for cell in cells:
        square = squares.square(*cell)
        window = _widened(square, shape)
        placed = window_transform(window, transform)
        size = (int(window.height), int(window.width))
        inside = (rows >= square.row_off) & (rows < square.row_off + square.height)
        inside &= (cols >= square.col_off) & (cols < square.col_off + square.width)
        box = shapely.box(*_bounds(placed, size))
        near_by = np.flatnonzero(shapely.intersects(drawn.objects, box)) if len(drawn.objects) else np.empty(0, np.int64)
        numbered = [(drawn.objects[i], number) for number, i in enumerate(near_by, start=1)]
        instances = np.zeros(size, np.int32)
        if numbered:
            rasterize(numbered, out=instances, transform=placed)
        made.append(
            Crop(cell, square, window, truth.read_labels(window), instances, drawn.object_values[near_by], inside[near_by])
        )
    return made


def tally(crops: Sequence[Crop], answers: Sequence[Answer], legend: Legend, rules: PolygonRules = PolygonRules()) -> Tally:
    """Count what a model has right and wrong in the crops' windows; polygons are those that its settings do not drop."""
    parts = [_counted(crop, answer, legend, rules) for crop, answer in zip(crops, answers, strict=True)]
    confusion, boundary, polygons = (np.stack([part[i] for part in parts]) for i in range(3))
    return Tally(legend, confusion, boundary, polygons)


def _counted(crop: Crop, answer: Answer, legend: Legend, rules: PolygonRules) -> tuple[npt.NDArray[np.int64], ...]:
    """Count one square: pixels, boundary pixels and polygons."""
    labels = answer.labels
    truth = np.where(labels == NO_CLASS, np.uint8(NO_CLASS), crop.truth)  # what the scene does not show
    labels = np.where(truth == NO_CLASS, np.uint8(NO_CLASS), labels)
    matrix = ConfusionMatrix(legend)
    matrix.update(truth[crop.inner], labels[crop.inner])
    boundary = np.zeros((legend.num_classes, 4), np.int64)
    ours, theirs = boundaries(truth), boundaries(labels)
    for value in range(legend.num_classes):
        true, segmented = ours & (truth == value), theirs & (labels == value)
        pairs = ((true, true), (true, near(segmented, TOLERANCE)), (segmented, segmented), (segmented, near(true, TOLERANCE)))
        boundary[value] = [int((a & b)[crop.inner].sum()) for a, b in pairs]
    return matrix.counts, boundary, polygon_counts(crop, answer, legend, rules)


def polygon_counts(crop: Crop, answer: Answer, legend: Legend, rules: PolygonRules) -> npt.NDArray[np.int64]:
    """Count the polygons of one square, ``(K, 3)``: found, false, missed."""
    is_known = (answer.labels != NO_CLASS) & (crop.truth != NO_CLASS)
    labels = rules.cleaned(np.where(is_known, answer.labels, np.uint8(NO_CLASS)), legend.background)
    polygons = np.zeros((legend.num_classes, 3), np.int64)
    for value in legend.polygon_values:
        polygons[value] = _matched(crop, labels == value, answer.confidence, value, rules)
    return polygons


def polygon_f1(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Compute the F1 of ``(K, 3)`` polygons found, false and missed; NaN where there is none to find."""
    found, false, missed = counts.T.astype(np.float64)
    whole = 2 * found + false + missed
    scores: npt.NDArray[np.float64] = np.full_like(whole, np.nan)
    np.divide(2 * found, whole, out=scores, where=(found + missed) > 0)
    return scores


def _matched(
    crop: Crop, segmented: npt.NDArray[np.bool_], confidence: npt.NDArray[np.uint8], value: int, rules: PolygonRules
) -> tuple[int, int, int]:
    """Match connected areas of a class with the true polygons of more than half of their union."""
    from scipy.ndimage import center_of_mass, label  # slow to import

    areas, count = label(segmented)
    sizes = np.bincount(areas.ravel(), minlength=count + 1)
    sums = np.bincount(areas.ravel(), weights=confidence.ravel(), minlength=count + 1)
    is_kept = (sizes >= rules.min_px) & (sums >= rules.min_confidence * SCALE * sizes)
    is_kept[0] = False
    segmented = is_kept[areas]
    areas, count = label(segmented)
    is_true = np.concatenate([[False], crop.values == value])
    true = np.where(is_true[crop.instances], crop.instances, 0)
    pairs, shared = np.unique(true.astype(np.int64) * (count + 1) + areas, return_counts=True)
    numbers, parts = np.divmod(pairs, count + 1)
    true_sizes, area_sizes = np.bincount(true.ravel(), minlength=len(is_true)), np.bincount(areas.ravel(), minlength=count + 1)
    both = (numbers > 0) & (parts > 0)
    union = true_sizes[numbers] + area_sizes[parts] - shared
    # Above one half a match is the only one of both.
    hit = both & (shared > _MATCH_IOU * union)
    own = np.concatenate([[False], crop.is_own]) & is_true & (true_sizes > 0)
    found = int(own[numbers[hit]].sum())
    missed = int(own.sum()) - found
    matched = np.zeros(count + 1, bool)
    matched[parts[hit]] = True
    if count == 0:
        return found, 0, missed
    middles = np.array(center_of_mass(segmented, areas, np.arange(1, count + 1))).reshape(-1, 2)
    rows, cols = crop.inner
    inside = (middles[:, 0] >= rows.start) & (middles[:, 0] < rows.stop)
    inside &= (middles[:, 1] >= cols.start) & (middles[:, 1] < cols.stop)
    return found, int((inside & ~matched[1:]).sum()), missed


def _pixels(transform: Affine, xs: npt.NDArray[np.float64], ys: npt.NDArray[np.float64]) -> tuple[Any, Any]:
    inverse = ~transform
    return inverse.a * xs + inverse.b * ys + inverse.c, inverse.d * xs + inverse.e * ys + inverse.f


def _bounds(transform: Affine, size: tuple[int, int]) -> tuple[float, float, float, float]:
    corners = np.array([transform @ (x, y) for x in (0, size[1]) for y in (0, size[0])])
    (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
    return float(left), float(bottom), float(right), float(top)


def _widened(window: Window, shape: Shape) -> Window:
    top, left = max(0, int(window.row_off) - _MARGIN), max(0, int(window.col_off) - _MARGIN)
    bottom = min(shape[0], int(window.row_off + window.height) + _MARGIN)
    right = min(shape[1], int(window.col_off + window.width) + _MARGIN)
    return Window(col_off=left, row_off=top, width=right - left, height=bottom - top)
