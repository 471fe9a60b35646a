"""Scores of label maps: one confusion matrix, from which everything else follows (paper §4: IoU per class, mIoU)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from geoglnet.errors import ConfigError
from geoglnet.legend import Legend


@dataclass(slots=True)
class ConfusionMatrix:
    """Counts of (true class, segmented class) pixels, summed over any number of label maps.

    Pixels whose truth carries no class are left out; labelled pixels that were segmented as nothing count as misses.

    Args:
        legend: classes of truth and segmentation.
    """

    legend: Legend
    counts: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.legend.num_classes, self.legend.num_classes + 1), dtype=np.int64)

    def update(self, truth: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        """Count a pair of label maps of the same shape.

        Raises:
            ConfigError: the shapes differ.
        """
        if truth.shape != labels.shape:
            raise ConfigError(f"truth is {truth.shape}, labels are {labels.shape}; compare maps of one grid")
        num = self.legend.num_classes
        known = truth < num
        rows, cols = truth[known].astype(np.int64), np.minimum(labels[known], num).astype(np.int64)
        self.counts += np.bincount(rows * (num + 1) + cols, minlength=num * (num + 1)).reshape(num, num + 1)

    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union per class; NaN for a class that neither truth nor segmentation has."""
        hits = np.diagonal(self.counts).astype(np.float64)
        union = self.counts.sum(1) + self.counts[:, :-1].sum(0) - hits
        quotients: npt.NDArray[np.float64] = np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)
        return quotients

    def mean_iou(self) -> float:
        """Mean IoU over the classes that polygons are made of and that occur (a background class doesn't count)."""
        values = self.iou()[list(self.legend.polygon_values)]
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    def to_dict(self) -> dict[str, float]:
        """IoU by class name, and ``mean_iou``; classes that do not occur are left out."""
        named = zip(self.legend.names, self.iou(), strict=True)
        return {name: float(value) for name, value in named if np.isfinite(value)} | {"mean_iou": self.mean_iou()}
