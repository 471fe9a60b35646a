"""Rasters as lazy xarray views; the only place that uses rioxarray, which the extra ``xarray`` brings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from geoglnet.types import StrPath


def open_lazily(path: StrPath) -> Any:
    """A raster as an :class:`xarray.DataArray` that reads pixels where they are asked for; nodata stays 255.

    Raises:
        ModuleNotFoundError: rioxarray is not installed; says how to get it.
    """
    try:
        rioxarray = import_module("rioxarray")
    except ModuleNotFoundError as error:
        message = "rioxarray is not installed; pip install 'geoglnet[xarray]'"
        raise ModuleNotFoundError(message, name=error.name) from error
    return rioxarray.open_rasterio(path, masked=False, cache=False)
