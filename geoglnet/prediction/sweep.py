"""From the pixels of regions to finished blocks, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window
from torch import Tensor

from geoglnet.prediction.area import Area
from geoglnet.prediction.block import Layer, PendingBlock, empty_layers, quantised_layers, winners
from geoglnet.prediction.carry import Carry
from geoglnet.prediction.download import Download, download
from geoglnet.prediction.plan import Plan, PlannedRegion, overlap, shifted
from geoglnet.prediction.probabilities import RegionSegmenter
from geoglnet.prediction.work import BlockWork, Zone
from geoglnet.progress import Progress
from geoglnet.raster.scene import Pixels
from geoglnet.types import Shape


@dataclass(frozen=True, slots=True)
class _Region:
    """A region that was read; ``visible`` is ``(h, w)`` bool, where somebody will look."""

    planned: PlannedRegion
    pixels: Pixels
    visible: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Computes blocks; holds nothing but the carry between them.

    Args:
        plan: of the scene.
        area: what of it is wanted.
        segmenter: the network.
        carry: what regions gave to cores that are still to come.
        layers: what to know of every pixel.
        progress: told of every patch of the blocks' own regions.
    """

    plan: Plan
    area: Area
    segmenter: RegionSegmenter
    carry: Carry
    layers: tuple[Layer, ...]
    progress: Progress

    @torch.inference_mode()
    def finished(self, work: BlockWork, reads: Sequence[Pixels]) -> PendingBlock:
        """The next block.

        Args:
            work: what the block needs.
            reads: pixels of ``work.reads``.
        """
        own, *others = (self._region(planned, pixels) for planned, pixels in zip(work.reads, reads, strict=True))
        given = self._given(own, work.planned.reach, self.progress)
        if given is None:
            self.progress.advance(self.segmenter.num_steps(work.planned))
            self.carry.hand_on(work.planned, None, None)
            return self._pending(work.planned, None, None, None)
        core = own.visible[work.planned.core_in_region.toslices()]
        agreement = _Agreement(torch.from_numpy(core).to(given.device))
        height, width = core.shape
        for term in (self._from_left(work, others), self._from_above(work, others)):
            if term is not None:
                agreement.compare(given[:, :height, :width], term[:, :height])
                given[:, : term.shape[1], : term.shape[2]] += term
        self.carry.hand_on(work.planned, _rest(given[:, :, width:]), _rest(given[:, height:, :width]))
        agreement.look_at(given[:, :height, :width])
        return self._pending(work.planned, given[:, :height, :width], agreement.visible, agreement.counts())

    def _region(self, planned: PlannedRegion, pixels: Pixels) -> _Region:
        wanted = self.area.wanted(planned.window)
        return _Region(planned, pixels, pixels.valid if wanted is None else pixels.valid & wanted)

    def _given(self, region: _Region, window: Window, progress: Progress | None = None) -> Tensor | None:
        """What a region gives to a part of its reach: ``(K, h, w)`` weighted probabilities; nothing where nobody looks."""
        planned = region.planned
        in_region = shifted(window, -int(planned.window.row_off), -int(planned.window.col_off))
        if not region.visible[in_region.toslices()].any():
            return None
        given = self.segmenter.probabilities(planned, region.pixels, window, region.visible, progress)
        in_reach = shifted(window, -int(planned.reach.row_off), -int(planned.reach.col_off)).toslices()
        rows, cols = (
            torch.from_numpy(weights[part]).to(given.device)
            for weights, part in zip(self.plan.core_weights(planned), in_reach, strict=True)
        )
        return given.mul_(rows[:, None]).mul_(cols)

    def _from_left(self, work: BlockWork, others: Sequence[_Region]) -> Tensor | None:
        if work.left is not None:
            return self._zone(work.left, others)
        return self.carry.left_of(work.planned) if work.has_left else None

    def _from_above(self, work: BlockWork, others: Sequence[_Region]) -> Tensor | None:
        if work.above is None:
            return self.carry.above(work.planned, self.segmenter.device) if work.has_above else None
        above = self._zone(work.above, others)
        corner = None if work.corner is None else self._zone(work.corner, others)
        if corner is None:
            return above
        if above is None:
            shape = (len(corner), int(work.above.window.height), int(work.above.window.width))
            above = torch.zeros(shape, device=corner.device)
        above[:, : corner.shape[1], : corner.shape[2]] += corner
        return above

    def _zone(self, zone: Zone, others: Sequence[_Region]) -> Tensor | None:
        return self._given(next(region for region in others if region.planned == zone.planned), zone.window)

    def _pending(
        self, planned: PlannedRegion, core: Tensor | None, visible: Tensor | None, counts: Download | None
    ) -> PendingBlock:
        """The block, cut to the area; ``core`` holds the final probabilities."""
        window = overlap(planned.core, self.area.window)
        shape = Shape(int(window.height), int(window.width))
        if core is None or visible is None:
            layers = empty_layers(self.layers, shape, self.segmenter.num_classes)
        else:
            rows, cols = shifted(window, -int(planned.core.row_off), -int(planned.core.col_off)).toslices()
            layers = quantised_layers(self.layers, core[:, rows, cols], visible[rows, cols])
        return PendingBlock(planned.row, planned.col, window, layers, counts, self.segmenter.precision)


class _Agreement:
    """Counts where two regions would have chosen different classes, and where there is nothing to choose from.

    Args:
        visible: ``(h, w)`` bool over a core.
    """

    def __init__(self, visible: Tensor) -> None:
        self.visible = visible
        self._counts = torch.zeros(3, dtype=torch.int64, device=visible.device)

    def compare(self, own: Tensor, other: Tensor) -> None:
        """``(K, h, w)`` and a part of it at the upper left, both in proportion to probabilities."""
        rows, cols = other.shape[1:]
        seen = self.visible[:rows, :cols]
        differs = winners(own[:, :rows, :cols]) != winners(other)
        self._counts[:2] += torch.stack([seen.sum(), (seen & differs).sum()])

    def look_at(self, core: Tensor) -> None:
        """``(K, h, w)`` final probabilities: one logit that overflows makes those of all classes not a number."""
        self._counts[2] = (core[0].isnan() & self.visible).sum()

    def counts(self) -> Download:
        return download(self._counts)


def _rest(values: Tensor) -> Tensor | None:
    return values if values.numel() else None
