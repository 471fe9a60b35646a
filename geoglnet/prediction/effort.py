"""Which patches of a region run, decided from the global branch's probabilities.

A selection is a pure function of one region: whatever else is computed, in whatever order, the same patches run. Pixels whose
patches don't run take the global branch's probabilities, with the weights that the patches would have had.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from geoglnet.prediction.layers import normalized_entropy
from geoglnet.prediction.plan import PlannedPatch, PlannedRegion

NO_DOUBT = 0.02
"""Mean doubt under which a patch is not worth running, whatever the effort (but for 1)."""


class Selection(Protocol):
    """Chooses patches of a region."""

    @property
    def is_trivial(self) -> bool:
        """Tell whether every patch is chosen anyway, so that nobody need look at probabilities."""

    def __call__(
        self, planned: PlannedRegion, patches: Sequence[PlannedPatch], probabilities: Tensor
    ) -> Sequence[PlannedPatch]:
        """Choose the patches that run, in their order.

        Args:
            planned: the region.
            patches: its patches with a valid pixel that counts.
            probabilities: ``(K, h, w)`` float32 of the global branch over the whole region, at the scale of its logits.
        """


@dataclass(frozen=True, slots=True)
class EveryPatch:
    """Full effort."""

    is_trivial: bool = True

    def __call__(
        self, planned: PlannedRegion, patches: Sequence[PlannedPatch], probabilities: Tensor
    ) -> Sequence[PlannedPatch]:
        return patches


@dataclass(frozen=True, slots=True)
class UnsurePatches:
    """The fewest patches of a region that hold a share of the global branch's doubt about it.

    Doubt is the entropy of the probabilities as a fraction of the largest possible, or, in a legend with a background, the
    probability of any other class where that is larger: foreground is looked at closely. A patch holds the mean of its
    cells'. So no more than this share of the patches run (and one), fewer where the doubt lies in few places, and none whose
    doubt is under :data:`NO_DOUBT`. Shares, because how sure a network is by itself differs between models.

    Args:
        effort: from 0, no patch, to 1, every patch.
        background: label of the legend's background.
    """

    effort: float
    background: int | None = None
    is_trivial: bool = False

    def __call__(
        self, planned: PlannedRegion, patches: Sequence[PlannedPatch], probabilities: Tensor
    ) -> Sequence[PlannedPatch]:
        if self.effort <= 0:
            return ()
        unsure = doubt(probabilities, self.background)
        # One number after another would wait for the device as often; all of them together, once.
        doubts = torch.stack([_under(unsure, planned, patch).mean() for patch in patches]).tolist() if patches else []
        chosen = set(_holding(self.effort, doubts))
        return [patch for index, patch in enumerate(patches) if index in chosen]


def _holding(share: float, doubts: Sequence[float]) -> Iterator[int]:
    """Indexes of the fewest doubts that add up to a share of all, the largest first."""
    # fsum and the index as tie-breaker: the same patches on every machine, whatever the order of summation.
    missing = share * math.fsum(doubts)
    for index in sorted(range(len(doubts)), key=lambda i: (-doubts[i], i)):
        if missing <= 0 or doubts[index] < NO_DOUBT:
            return
        yield index
        missing -= doubts[index]


def choose_selection(effort: float, background: int | None) -> Selection:
    """Choose the selection for an effort from 0 to 1."""
    return EveryPatch() if effort >= 1 else UnsurePatches(effort, background)


def doubt(probabilities: Tensor, background: int | None) -> Tensor:
    """Measure how unsure probabilities ``(K, h, w)`` are, ``(h, w)`` from 0 to 1; see :class:`UnsurePatches`."""
    unsure = normalized_entropy(probabilities)
    return unsure if background is None else torch.maximum(unsure, 1 - probabilities[background])


def _under(cells: Tensor, planned: PlannedRegion, patch: PlannedPatch) -> Tensor:
    """Cut out the cells that a patch touches."""
    (top, bottom), (left, right) = patch.window.toranges()
    rows, cols = cells.shape[0] / planned.shape.height, cells.shape[1] / planned.shape.width
    return cells[math.floor(top * rows) : math.ceil(bottom * rows), math.floor(left * cols) : math.ceil(right * cols)]
