"""Words shared by every floor: sizes and paths."""

from __future__ import annotations

import os
from typing import NamedTuple, TypeAlias

StrPath: TypeAlias = str | os.PathLike[str]
Place: TypeAlias = tuple[slice, slice]
"""Rows and columns of a rectangle of pixels."""


class Shape(NamedTuple):
    """Size of a raster or array in pixels, rows first."""

    height: int
    width: int
