"""Optional libraries, and the extras that install them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def needed(library: str, extra: str = "notebook") -> Any:
    """Import an optional library.

    Raises:
        ModuleNotFoundError: it is missing; the message says how to install it.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        message = f"{library} is not installed; pip install 'geoglnet[{extra}]'"
        raise ModuleNotFoundError(message, name=error.name) from error
