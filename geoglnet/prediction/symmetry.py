"""The eight symmetries of the square (D4), for test-time augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Turn:
    """One symmetry: rows and columns exchanged first, if they are, then flips.

    Args:
        transposes: whether rows and columns are exchanged.
        flips_rows: whether the image is turned upside down.
        flips_cols: whether left and right are exchanged.
    """

    transposes: bool = False
    flips_rows: bool = False
    flips_cols: bool = False

    def apply(self, image: Tensor) -> Tensor:
        """``(…, h, w)`` turned."""
        turned = image.transpose(-2, -1) if self.transposes else image
        return torch.flip(turned, self._axes) if self._axes else turned

    def undo(self, image: Tensor) -> Tensor:
        """What :meth:`apply` was given, from what it returned."""
        turned = torch.flip(image, self._axes) if self._axes else image
        return turned.transpose(-2, -1) if self.transposes else turned

    def footprints(self, footprints: Tensor) -> Tensor:
        """``(n, 4)`` fractions (top, left, bottom, right) of the turned region."""
        top, left, bottom, right = footprints.unbind(dim=1)
        if self.transposes:
            top, left, bottom, right = left, top, right, bottom
        if self.flips_rows:
            top, bottom = 1 - bottom, 1 - top
        if self.flips_cols:
            left, right = 1 - right, 1 - left
        return torch.stack([top, left, bottom, right], dim=1)

    @property
    def _axes(self) -> list[int]:
        return [axis for axis, flips in ((-2, self.flips_rows), (-1, self.flips_cols)) if flips]


AS_IT_IS = (Turn(),)
D4 = tuple(Turn(*choice) for choice in product((False, True), repeat=3))
