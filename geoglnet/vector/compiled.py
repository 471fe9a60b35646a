"""Loops over pixels and points compiled to machine code by numba."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.caching import FunctionCache

_Function = TypeVar("_Function", bound=Callable[..., object])


class _ForgivingCache(FunctionCache):  # type: ignore[misc]
    """numba's cache of machine code on disk, which goes without saving where the disk is full or read-only."""

    def save_overload(self, signature: Any, code: Any) -> None:
        """Save the machine code of one signature, if that is possible."""
        with suppress(OSError):
            super().save_overload(signature, code)


def compiled(function: _Function) -> _Function:
    """Compile a function of arrays and numbers at its first call, and cache its machine code on disk for later processes."""
    machine_code: Any = njit(function)
    with suppress(RuntimeError):  # raised by numba where there is no folder for the cache
        machine_code._cache = _ForgivingCache(function)  # what `cache=True` does, but that ends in an error on a full disk
    return cast(_Function, machine_code)
