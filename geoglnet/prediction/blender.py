"""Blend the probabilities of overlapping regions, core by core.

A region contributes weighted probabilities to its reach: its core, and the blend zones right of it, below it and at the lower
right, which belong to other cores. A core is the sum of the contributions of four regions, always in this order: its own and
the left neighbor's; the upper neighbor's and the upper left one's; then both sums. Each contribution is a pure function of its
region, so it makes no difference to a single bit whether it was buffered or is computed again, because this process began in
the middle of the scene.
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

from geoglnet.models.transfers import to_device
from geoglnet.prediction.area import Area
from geoglnet.prediction.blocks import Download, PendingBlock, computed_layers, download, empty_layers
from geoglnet.prediction.layers import Layer, winners
from geoglnet.prediction.plan import BlockWork, Plan, PlannedRegion, Zone, overlap, shifted
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.progress import Progress
from geoglnet.raster.scene import Pixels
from geoglnet.types import Shape, StrPath


class ZoneBuffer:
    """Buffers the blend zones that a region contributes to its neighbors until those are processed.

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
        if plan.config.blend_size and len(plan.row_edges) > 2:  # a single row of cores has nothing below it
            self._strip = tempfile.TemporaryFile(dir=folder, prefix="geoglnet-")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._strip is not None:
            self._strip.close()

    def from_left(self, planned: PlannedRegion) -> Tensor | None:
        """Return the left neighbor's contribution to a region's core and to the zone below it.

        Returns:
            ``(K, h, w)``, or ``None`` when it is nothing.

        Raises:
            KeyError: the left neighbor was not the last region that was put.
        """
        if self._right is None or self._right[:2] != (planned.row, planned.col - 1):
            raise KeyError((planned.row, planned.col - 1))
        return self._right[2]

    def from_above(self, planned: PlannedRegion, device: torch.device) -> Tensor | None:
        """Read the contribution of the upper neighbor, and of the one left of it, to a region's core.

        Returns:
            ``(K, h, w)``, or ``None`` when it is nothing.

        Raises:
            KeyError: the upper neighbor was not put.
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
        # Copied, because torch warns of memory that it may not write to.
        values.ravel()[:] = np.frombuffer(self._strip.read(values.nbytes), dtype=np.float32)
        return to_device(torch.from_numpy(values), device)

    def put(self, planned: PlannedRegion, right: Tensor | None, below: Tensor | None) -> None:
        """Buffer the contributions of a region.

        Args:
            planned: the region; regions come in the plan's order.
            right: to the core right of it and to the zone below that; ``None`` when it is nothing.
            below: to the core below it, with the left neighbor's part; ``None`` when it is nothing.

        Raises:
            OSError: the disk is full.
        """
        # A copy: a view would keep the probabilities of the whole region on the device.
        self._right = planned.row, planned.col, None if right is None else right.clone()
        self._flush()
        if below is not None and self._strip is not None:
            self._unwritten = planned, download(below)
        self._rows_below[planned.col] = planned.row, below is not None

    def _flush(self) -> None:
        """Write the zone below the last region: one region late, so that its copy from a GPU has arrived meanwhile."""
        if self._unwritten is not None and self._strip is not None:
            planned, below = self._unwritten
            self._unwritten = None
            self._strip.seek(self._offset(planned))
            self._strip.write(below.numpy().data)

    def _offset(self, planned: PlannedRegion) -> int:
        # A record lies where its core does in the row: it is read by the core below, whose own record then replaces it.
        return 4 * self._num_classes * self._plan.config.blend_size * int(planned.core.col_off)


@dataclass(frozen=True, slots=True)
class _Region:
    """A region that was read; ``visible`` is ``(h, w)`` bool: valid pixels inside the area."""

    planned: PlannedRegion
    pixels: Pixels
    visible: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Blender:
    """Computes blocks in the plan's order; its only state is the buffer between them.

    Args:
        plan: of the scene.
        area: the part of it that is predicted.
        segmenter: the network.
        buffer: contributions to cores that are still to come.
        layers: what to compute of every pixel.
        progress: receives every patch of the blocks' own regions.
    """

    plan: Plan
    area: Area
    segmenter: RegionSegmenter
    buffer: ZoneBuffer
    layers: tuple[Layer, ...]
    progress: Progress

    @torch.inference_mode()
    def blended(self, work: BlockWork, reads: Sequence[Pixels]) -> PendingBlock:
        """Compute the next block.

        Args:
            work: what the block needs.
            reads: pixels of ``work.reads``.
        """
        own, *others = (self._region(planned, pixels) for planned, pixels in zip(work.reads, reads, strict=True))
        total = self._contribution(own, work.planned.reach, self.progress)
        if total is None:  # nothing of the reach is visible, so what neighbors contribute to it would not be seen either
            self.progress.advance(self.segmenter.num_steps(work.planned))
            self.buffer.put(work.planned, None, None)
            return self._pending(work.planned, None, None, None)
        core = own.visible[work.planned.core_in_region.toslices()]
        agreement = _Agreement(to_device(torch.from_numpy(core), total.device))
        height, width = core.shape
        # Always in this order: sums of floating-point numbers depend on it.
        for term in (self._from_left(work, others), self._from_above(work, others)):
            if term is not None:
                # Before the sum: which class would each side have chosen without the other?
                agreement.compare(total[:, :height, :width], term[:, :height])
                total[:, : term.shape[1], : term.shape[2]] += term
        self.buffer.put(work.planned, _rest(total[:, :, width:]), _rest(total[:, height:, :width]))
        agreement.count_overflows(total[:, :height, :width])
        return self._pending(work.planned, total[:, :height, :width], agreement.visible, agreement.counts())

    def _region(self, planned: PlannedRegion, pixels: Pixels) -> _Region:
        inside = self.area.inside(planned.window)
        return _Region(planned, pixels, pixels.valid if inside is None else pixels.valid & inside)

    def _contribution(self, region: _Region, window: Window, progress: Progress | None = None) -> Tensor | None:
        """Compute a region's weighted probabilities ``(K, h, w)`` for a part of its reach; none where nothing is visible."""
        planned = region.planned
        in_region = shifted(window, -int(planned.window.row_off), -int(planned.window.col_off))
        if not region.visible[in_region.toslices()].any():
            return None
        weighted = self.segmenter.probabilities(planned, region.pixels, window, region.visible, progress)
        in_reach = shifted(window, -int(planned.reach.row_off), -int(planned.reach.col_off)).toslices()
        rows, cols = (
            to_device(torch.from_numpy(weights[part]), weighted.device)
            for weights, part in zip(self.plan.core_weights(planned), in_reach, strict=True)
        )
        return weighted.mul_(rows[:, None]).mul_(cols)  # in place: another copy would be the largest array of all

    def _from_left(self, work: BlockWork, others: Sequence[_Region]) -> Tensor | None:
        if work.left is not None:
            return self._zone(work.left, others)
        return self.buffer.from_left(work.planned) if work.has_left else None

    def _from_above(self, work: BlockWork, others: Sequence[_Region]) -> Tensor | None:
        if work.above is None:
            return self.buffer.from_above(work.planned, self.segmenter.device) if work.has_above else None
        # Above and corner are summed first, as the buffer would have summed them: any other order gives other last bits.
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
        return self._contribution(next(region for region in others if region.planned == zone.planned), zone.window)

    def _pending(
        self, planned: PlannedRegion, core: Tensor | None, visible: Tensor | None, counts: Download | None
    ) -> PendingBlock:
        """Make the block, cut to the area, from the final probabilities in ``core``."""
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
        # On the device: a number that Python looked at would wait for the GPU at every block.
        self._counts = torch.zeros(3, dtype=torch.int64, device=visible.device)

    def compare(self, own: Tensor, other: Tensor) -> None:
        """Count where ``(K, h, w)`` and a part of it at the upper left, both in proportion to probabilities, disagree."""
        rows, cols = other.shape[1:]
        seen = self.visible[:rows, :cols]
        differs = winners(own[:, :rows, :cols]) != winners(other)
        self._counts[:2] += torch.stack([seen.sum(), (seen & differs).sum()])

    def count_overflows(self, core: Tensor) -> None:
        """Count pixels whose final probabilities ``(K, h, w)`` are NaN: one logit that overflows makes all of them so."""
        self._counts[2] = (core[0].isnan() & self.visible).sum()

    def counts(self) -> Download:
        return download(self._counts)


def _rest(values: Tensor) -> Tensor | None:
    return values if values.numel() else None
