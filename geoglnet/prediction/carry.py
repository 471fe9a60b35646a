"""What regions owe to cores that are still to come.

A region gives probabilities to its reach: its core, and the blend zones right of it, below it and at the lower right. Those
zones belong to other cores. Each region takes over what it was left, adds its own, hands on what is not its own, and keeps
its core — so that the part at the lower right reaches its core through either neighbour exactly once:

* what lies right of the core goes to the next region of the row, *with its lower end*;
* what lies below the core — by now including what the region on the left had left there — goes to the region below;
* the rest of the zone below, past the core's right end, is part of the first, and reaches the strip through the neighbour.

A corner pixel thus gets the four contributions of the four regions around it.
"""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import IO, Self

import numpy as np
import torch
from torch import Tensor

from geoglnet.prediction.plan import Plan, PlannedRegion
from geoglnet.types import StrPath


class Carry:
    """Blend zones between one region and the next ones, row by row.

    The zone at the right stays in memory (num_classes · blend width · region side · 4 bytes). The zones below a whole row of
    cores lie in a temporary file (num_classes · blend width · scene width · 4 bytes), as one record per core, read and
    rewritten in place; so memory does not grow with the scene's width.

    Args:
        plan: regions must come in its order.
        num_classes: channels of the probabilities.
        folder: where the temporary file lies; the system's temporary folder when left out.
    """

    def __init__(self, plan: Plan, num_classes: int, folder: StrPath | None = None) -> None:
        self._plan = plan
        self._num_classes = num_classes
        self._right: Tensor | None = None
        self._strip: IO[bytes] | None = None
        if plan.config.blend_size and len(plan.row_edges) > 2:
            self._strip = tempfile.TemporaryFile(dir=folder, prefix="geoglnet-")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._strip is not None:
            self._strip.close()

    def settle(self, planned: PlannedRegion, probabilities: Tensor) -> Tensor:
        """Take over what was left for a region, hand on what is not its own.

        Args:
            planned: the region.
            probabilities: ``(K, h, w)`` float32 over its reach, multiplied by its core weights; changed in place.

        Returns:
            ``(K, h, w)`` view of the core, where probabilities now add up to one.

        Raises:
            OSError: the disk is full.
        """
        height, width = int(planned.core.height), int(planned.core.width)
        if self._right is not None:
            probabilities[:, :, : self._right.shape[2]] += self._right
        above = self._read(planned)
        if above is not None:
            probabilities[:, : above.shape[1], :width] += above.to(probabilities.device)
        reaches_right = probabilities.shape[2] > width
        self._right = probabilities[:, :, width:].clone() if reaches_right else None
        if probabilities.shape[1] > height:
            self._write(planned, probabilities[:, height:, :width])
        return probabilities[:, :height, :width]

    def skip(self) -> None:
        """Pass a region by whose reach is wholly invalid: nobody will look at what it was left, or would have handed on.

        What the strip still holds for it is never seen either: it ends up on the same invalid pixels.
        """
        self._right = None

    def _read(self, planned: PlannedRegion) -> Tensor | None:
        if self._strip is None or planned.row == 0:
            return None
        height = min(self._plan.config.blend_size, self._plan.shape.height - int(planned.core.row_off))
        shape = (self._num_classes, height, int(planned.core.width))
        self._strip.seek(self._offset(planned))
        found = self._strip.read(4 * shape[0] * shape[1] * shape[2])
        values = np.zeros(shape, dtype=np.float32)
        values.ravel()[: len(found) // 4] = np.frombuffer(found, dtype=np.float32)  # short where skipped regions left a hole
        return torch.from_numpy(values)

    def _write(self, planned: PlannedRegion, below: Tensor) -> None:
        if self._strip is not None:
            self._strip.seek(self._offset(planned))
            self._strip.write(below.cpu().contiguous().numpy().data)

    def _offset(self, planned: PlannedRegion) -> int:
        return 4 * self._num_classes * self._plan.config.blend_size * int(planned.core.col_off)
