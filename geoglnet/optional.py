"""Libraries that not everybody needs, and the extras that bring them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def needed(library: str, extra: str = "notebook") -> Any:
    """Import an optional library.

    Raises:
        ModuleNotFoundError: it is missing; says how to get it.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        message = f"{library} is not installed; pip install 'geoglnet[{extra}]'"
        raise ModuleNotFoundError(message, name=error.name) from error
