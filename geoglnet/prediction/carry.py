"""What regions give to cores other than their own, kept until those come.

A region gives probabilities to its reach: its core, and the blend zones right of it, below it and at the lower right. Those
zones belong to other cores. A core is the sum of what four regions give to it, always in this order: its own and the left
neighbour's; the upper neighbour's and the upper left one's; then both sums. Each term is a pure function of its region, so it
makes no difference to a single bit whether it was kept here or is computed again because the run began in the middle.
"""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import IO, Self

import numpy as np
import torch
from torch import Tensor

from geoglnet.prediction.download import Download, download
from geoglnet.prediction.plan import Plan, PlannedRegion
from geoglnet.types import StrPath


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
        """What the left neighbour gives to a region's core and to the zone below it; ``None`` when that is nothing.

        Raises:
            KeyError: the left neighbour was not the last region that came.
        """
        if self._right is None or self._right[:2] != (planned.row, planned.col - 1):
            raise KeyError((planned.row, planned.col - 1))
        return self._right[2]

    def above(self, planned: PlannedRegion, device: torch.device) -> Tensor | None:
        """What the upper neighbour, and the one left of it, give to a region's core; ``None`` when that is nothing.

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
        """Keep what a region gives to the cores right of it (with the corner) and below it (with its left neighbour's part).

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
