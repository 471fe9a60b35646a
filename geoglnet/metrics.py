"""Scores of label maps: the confusion matrix with IoU per class and mIoU (paper §4), and the F1 of boundaries.

Conventions differ between data sets; :class:`ConfusionMatrix` has them all, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from geoglnet.errors import ConfigError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.types import Labels

ISIC_THRESHOLD = 0.65
"""IoU below which an image of the ISIC 2018 challenge scores nothing (paper footnote 6)."""


@dataclass(slots=True)
class ConfusionMatrix:
    """Counts of (true class, segmented class) pixels, summed over any number of label maps.

    Labeled pixels that were segmented as no class count as misses. The last row holds pixels whose truth has no class; they
    count only with ``counting_unlabeled``.

    Args:
        legend: classes of truth and segmentation.
    """

    legend: Legend
    counts: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        size = self.legend.num_classes + 1
        self.counts = np.zeros((size, size), dtype=np.int64)

    def update(self, truth: Labels, labels: Labels) -> None:
        """Count a pair of label maps.

        Args:
            truth: ``(h, w)`` uint8 true labels.
            labels: ``(h, w)`` uint8 labels to score.

        Raises:
            ConfigError: the shapes differ.
        """
        _check_shapes(truth, labels)
        num = self.legend.num_classes
        # Everything that is no class (255) shares the last row and column; one bincount counts all pairs.
        rows, cols = (np.minimum(values.ravel(), num).astype(np.int64) for values in (truth, labels))
        self.counts += np.bincount(rows * (num + 1) + cols, minlength=(num + 1) ** 2).reshape(num + 1, num + 1)

    def iou(self, counting_unlabeled: bool = False) -> npt.NDArray[np.float64]:
        """Compute the intersection over union per class; NaN for a class that neither truth nor segmentation has.

        Args:
            counting_unlabeled: count classes segmented where the truth has none as errors, as the authors' code does.

        Returns:
            ``(K,)`` float64.
        """
        num = self.legend.num_classes
        hits = np.diagonal(self.counts)[:num].astype(np.float64)
        segmented = self.counts[: num + counting_unlabeled, :num].sum(0)
        union = self.counts[:num].sum(1) + segmented - hits
        quotients: npt.NDArray[np.float64] = np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)
        return quotients

    def mean_iou(self, counting_unlabeled: bool = False) -> float:
        """Average the IoU over the classes that become polygons and that occur; a background class does not count."""
        return mean(self.iou(counting_unlabeled)[list(self.legend.polygon_values)])

    def accuracy(self) -> float:
        """Compute the fraction of labeled pixels that were segmented as their class; NaN when nothing is labeled."""
        labeled = self.counts[:-1].sum()
        return float(np.diagonal(self.counts)[:-1].sum() / labeled) if labeled else float("nan")

    def image_iou(self, threshold: float = 0.0) -> float:
        """Compute the mean IoU of one image: 1 where truth and segmentation are both empty, NaN without labels.

        Args:
            threshold: IoU below which the image scores 0.
        """
        value = self.mean_iou()
        if not self.counts[:-1].any():
            return float("nan")
        value = 1.0 if np.isnan(value) else value  # no class but the background, in truth and segmentation
        return value if value >= threshold else 0.0

    def to_dict(self) -> dict[str, float]:
        """Return the IoU by class name, and ``mean_iou``; classes that do not occur are left out."""
        named = zip(self.legend.names, self.iou(), strict=True)
        return {name: float(value) for name, value in named if np.isfinite(value)} | {"mean_iou": self.mean_iou()}


def summed(legend: Legend, matrices: Sequence[ConfusionMatrix]) -> ConfusionMatrix:
    """Add the counts of all images to one matrix, as the paper scores a data set."""
    total = ConfusionMatrix(legend)
    for matrix in matrices:
        total.counts += matrix.counts
    return total


def conventions(legend: Legend, matrices: Sequence[ConfusionMatrix]) -> dict[str, float]:
    """Score a set of images under each convention in use; undefined scores are left out.

    ``mean_iou``: all pixels in one matrix, classes without the background (so that it is Inria's building IoU for a legend of
    background and building), unlabeled pixels ignored (the DeepGlobe challenge). ``mean_iou_unlabeled_counted``: the same,
    with classes segmented on unlabeled pixels as errors (the GLNet authors). ``mean_iou_with_background``: all classes.
    ``accuracy``: of pixels. ``image_iou`` and ``image_iou_65``: mean over images, as it is and 0 below 0.65 (ISIC 2018); an
    image with nothing to find and nothing found scores 1.
    """
    total = summed(legend, matrices)
    scores = {
        "mean_iou": total.mean_iou(),
        "mean_iou_unlabeled_counted": total.mean_iou(counting_unlabeled=True),
        "mean_iou_with_background": mean(total.iou()),
        "accuracy": total.accuracy(),
        "image_iou": mean(np.array([matrix.image_iou() for matrix in matrices])),
        "image_iou_65": mean(np.array([matrix.image_iou(ISIC_THRESHOLD) for matrix in matrices])),
    }
    return {name: value for name, value in scores.items() if np.isfinite(value)}


def mean(values: npt.NDArray[np.float64]) -> float:
    """Average the values that are not NaN; NaN where there is none."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


@dataclass(slots=True)
class BoundaryScore:
    """Agreement of boundaries (boundary F1, Csurka et al. 2013): fractions of boundary pixels that lie near the other's.

    A boundary pixel of a class has a neighbor (of four) of another class; unlabeled and invalid neighbors do not count.

    Args:
        legend: classes of truth and segmentation.
        tolerance: distance in pixels up to which boundaries agree.

    Raises:
        ConfigError: the tolerance is negative.
    """

    legend: Legend
    tolerance: int = 3
    counts: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ConfigError(f"boundary tolerance {self.tolerance} px must be 0 or more")
        self.counts = np.zeros((self.legend.num_classes, 4), dtype=np.int64)

    @property
    def margin(self) -> int:
        """Pixels around a strip that its score depends on."""
        return self.tolerance + 1

    def update(self, truth: Labels, labels: Labels, rows: slice = slice(None)) -> None:
        """Count a pair of label maps; of a strip with its margin, only ``rows``.

        Args:
            truth: ``(h, w)`` uint8 true labels.
            labels: ``(h, w)`` uint8 labels to score.
            rows: rows that count; the others are margin.

        Raises:
            ConfigError: the shapes differ.
        """
        _check_shapes(truth, labels)
        # Without this, the edge of the labeled area would count as a boundary of the segmentation.
        labels = np.where(truth == NO_CLASS, np.uint8(NO_CLASS), labels)
        ours, theirs = boundaries(truth), boundaries(labels)
        for value in range(self.legend.num_classes):
            true, segmented = ours & (truth == value), theirs & (labels == value)
            near_true, near_segmented = near(true, self.tolerance), near(segmented, self.tolerance)
            pairs = ((true, true), (true, near_segmented), (segmented, segmented), (segmented, near_true))
            self.counts[value] += [int((first & second)[rows].sum()) for first, second in pairs]

    def f1(self) -> npt.NDArray[np.float64]:
        """Compute F1 per class, ``(K,)``; NaN for a class without any boundary."""
        # Columns in the order of `pairs` above: true boundary pixels, those found, segmented ones, those that are right.
        true, found, segmented, right = self.counts.T.astype(np.float64)
        recall, precision = (np.divide(a, b, out=np.zeros_like(a), where=b > 0) for a, b in ((found, true), (right, segmented)))
        both = precision + recall
        f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
        return np.where(true + segmented > 0, f1, np.nan)

    def mean_f1(self) -> float:
        """Average F1 over the classes that become polygons and that have a boundary."""
        return mean(self.f1()[list(self.legend.polygon_values)])


def boundaries(labels: Labels) -> npt.NDArray[np.bool_]:
    """Find the pixels with a class that have a neighbor (of four) of another class, ``(h, w)`` bool."""
    found = np.zeros(labels.shape, bool)
    known = labels != NO_CLASS
    for axis in (0, 1):
        first, second = (np.moveaxis(labels, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        differs = (first != second) & (first != NO_CLASS) & (second != NO_CLASS)
        view = np.moveaxis(found, axis, 0)
        view[:-1] |= differs
        view[1:] |= differs
    both: npt.NDArray[np.bool_] = found & known
    return both


def near(points: npt.NDArray[np.bool_], distance: int) -> npt.NDArray[np.bool_]:
    """Find the pixels at most ``distance`` (Euclidean) from a point; cheap where points are few.

    Args:
        points: ``(h, w)`` bool.
        distance: in pixels.
    """
    # A disk is stamped around every point: boundaries are lines, and a distance transform of the whole map costs more.
    found = np.zeros(points.shape, bool)
    rows, cols = np.nonzero(points)
    reach = range(-distance, distance + 1)
    for down, right in ((r, c) for r in reach for c in reach if r * r + c * c <= distance * distance):
        r, c = rows + down, cols + right
        inside = (r >= 0) & (r < points.shape[0]) & (c >= 0) & (c < points.shape[1])
        found[r[inside], c[inside]] = True
    return found


def _check_shapes(truth: Labels, labels: Labels) -> None:
    """Refuse label maps of different shapes."""
    if truth.shape != labels.shape:
        raise ConfigError(f"truth is {truth.shape}, labels are {labels.shape}; compare maps of the same grid")
