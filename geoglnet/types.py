"""Types shared by every floor: sizes, paths and arrays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:  # not needed to name a path
    import numpy as np
    import numpy.typing as npt

StrPath: TypeAlias = str | os.PathLike[str]
Place: TypeAlias = tuple[slice, slice]
"""Rows and columns of a rectangle of pixels."""
Bounds: TypeAlias = tuple[float, float, float, float]
"""(left, bottom, right, top) in the units of a CRS."""
Labels: TypeAlias = "npt.NDArray[np.uint8]"
"""``(h, w)`` class numbers, 255 where there is none."""
BandValues: TypeAlias = "npt.NDArray[np.uint8] | npt.NDArray[np.float32]"
"""``(C, …)`` values of bands on the scale of 0 to 255: whole ones for 8-bit models, unrounded ones for all others."""
Ints: TypeAlias = "npt.NDArray[np.intp]"
Floats: TypeAlias = "npt.NDArray[np.float64]"


class Shape(NamedTuple):
    """Size of a raster or array in pixels, rows first."""

    height: int
    width: int
