"""Loops over pixels and points as machine code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.caching import FunctionCache

_Function = TypeVar("_Function", bound=Callable[..., object])


class _ForgivingCache(FunctionCache):  # type: ignore[misc]
    """Keeps machine code on disk where there is room for it."""

    def save_overload(self, signature: Any, code: Any) -> None:
        with suppress(OSError):
            super().save_overload(signature, code)


def compiled(function: _Function) -> _Function:
    """A function of arrays and numbers as machine code: made at its first call, then kept on disk for later processes."""
    machine_code: Any = njit(function)
    with suppress(RuntimeError):  # numba's way of saying that there is no folder to keep it in
        machine_code._cache = _ForgivingCache(function)  # what `cache=True` does, but that ends in an error on a full disk
    return cast(_Function, machine_code)
