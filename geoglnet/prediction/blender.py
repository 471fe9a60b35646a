"""Blend the probabilities of overlapping regions, core by core.

A region gives probabilities to its reach: its core, and the blend zones right of it, below it and at the lower right. Those
zones belong to other cores. A core is the sum of what four regions give to it, always in this order: its own and the left
neighbor's; the upper neighbor's and the upper left one's; then both sums. Each term is a pure function of its region, so it
makes no difference to a single bit whether it was kept here or is computed again because the run began in the middle.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window
from torch import Tensor

from geoglnet.prediction.area import Area
from geoglnet.prediction.blocks import Download, PendingBlock, computed_layers, download, empty_layers
from geoglnet.prediction.layers import Layer, winners
from geoglnet.prediction.plan import BlockWork, Plan, PlannedRegion, Zone, overlap, shifted
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.progress import Progress
from geoglnet.raster.scene import Pixels
from geoglnet.types import Shape, StrPath


class Carry:
    """Blend zones between one region and the next ones, row by row.

    The zone at the right stays on the device (num_classes · blend width · region side · 4 bytes). The zones below a whole
    row of cores lie in a temporary file (num_classes · blend width · scene width · 4 bytes), as one record per core, read and
    rewritten in place; so memory does not grow with the scene's width.

    Args:
        plan: regions come in its order, though some may be left out.
        num_classes: channels of the probabilities.
        folder: where the temporary file lies; the system's temporary folder when left out.
    """

    def __init__(self, plan: Plan, num_classes: int, folder: StrPath | None = None) -> None:
        self._plan = plan
        self._num_classes = num_classes
        self._right: tuple[int, int, Tensor | None] | None = None
        self._rows_below: dict[int, tuple[int, bool]] = {}  # column: row of the record, whether there is anything in it
        self._unwritten: tuple[PlannedRegion, Download] | None = None
        self._strip: IO[bytes] | None = None
        if plan.config.blend_size and len(plan.row_edges) > 2:
            self._strip = tempfile.TemporaryFile(dir=folder, prefix="geoglnet-")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._strip is not None:
            self._strip.close()

    def left_of(self, planned: PlannedRegion) -> Tensor | None:
        """What the left neighbor gives to a region's core and to the zone below it; ``None`` when that is nothing.

        Raises:
            KeyError: the left neighbor was not the last region that came.
        """
        if self._right is None or self._right[:2] != (planned.row, planned.col - 1):
            raise KeyError((planned.row, planned.col - 1))
        return self._right[2]

    def above(self, planned: PlannedRegion, device: torch.device) -> Tensor | None:
        """What the upper neighbor, and the one left of it, give to a region's core; ``None`` when that is nothing.

        Raises:
            KeyError: they did not come.
            OSError: the file cannot be read.
        """
        row, is_filled = self._rows_below.get(planned.col, (-1, False))
        if row != planned.row - 1:
            raise KeyError((planned.row - 1, planned.col))
        if not is_filled or self._strip is None:
            return None
        self._flush()
        height = min(self._plan.config.blend_size, self._plan.shape.height - int(planned.core.row_off))
        values = np.empty((self._num_classes, height, int(planned.core.width)), dtype=np.float32)
        self._strip.seek(self._offset(planned))
        values.ravel()[:] = np.frombuffer(self._strip.read(values.nbytes), dtype=np.float32)
        return torch.from_numpy(values).to(device)

    def hand_on(self, planned: PlannedRegion, right: Tensor | None, below: Tensor | None) -> None:
        """Keep what a region gives to the cores right of it (with the corner) and below it (with its left neighbor's part).

        Raises:
            OSError: the disk is full.
        """
        self._right = planned.row, planned.col, None if right is None else right.clone()
        self._flush()
        if below is not None and self._strip is not None:
            self._unwritten = planned, download(below)
        self._rows_below[planned.col] = planned.row, below is not None

    def _flush(self) -> None:
        """Write the zone below the region before: on a GPU it has arrived by now."""
        if self._unwritten is not None and self._strip is not None:
            planned, below = self._unwritten
            self._unwritten = None
            self._strip.seek(self._offset(planned))
            self._strip.write(below.numpy().data)

    def _offset(self, planned: PlannedRegion) -> int:
        return 4 * self._num_classes * self._plan.config.blend_size * int(planned.core.col_off)


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
            layers = empty_layers(self.layers, shape, self.segmenter.manifest.legend)
        else:
            rows, cols = shifted(window, -int(planned.core.row_off), -int(planned.core.col_off)).toslices()
            layers = computed_layers(self.layers, core[:, rows, cols], visible[rows, cols])
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
