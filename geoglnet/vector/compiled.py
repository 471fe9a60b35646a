"""Loops over pixels and points as machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """A function of arrays and numbers as machine code: made at its first call, then kept on disk for later processes."""
    try:
        return cast(_Function, njit(cache=True)(function))
    except RuntimeError:  # numba's way of saying that there is no folder to keep it in
        return cast(_Function, njit(function))
