"""Opens rasters as lazy xarray views; the only module that uses rioxarray, which the extra ``xarray`` installs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from geoglnet.errors import MemoryLimitError
from geoglnet.optional import needed
from geoglnet.types import StrPath


def open_lazily(path: StrPath, limit_mb: float | None = None) -> Any:
    """Open a raster as an :class:`xarray.DataArray` that reads pixels on access; nodata stays 255.

    Args:
        path: the raster.
        limit_mb: most megabytes that a single read may take; no limit when left out.

    Raises:
        ModuleNotFoundError: rioxarray is not installed; the message says how to install it.
    """
    opened = needed("rioxarray", "xarray").open_rasterio(path, masked=False, cache=False)
    return opened if limit_mb is None else _guarded(opened, str(path), limit_mb)


def _guarded(opened: Any, name: str, limit_mb: float) -> Any:
    """Wrap a DataArray so that the size of each read is checked before it is made."""
    xarray = import_module("xarray")
    indexing, backends = xarray.core.indexing, xarray.backends
    reader = Reader(opened, name, limit_mb)

    class GuardedArray(backends.BackendArray):  # type: ignore[misc, name-defined]  # xarray is an extra
        """Adapter for xarray's lazy indexing, which calls ``Reader.read`` with the parts that are needed."""

        shape, dtype = opened.shape, opened.dtype

        def __getitem__(self, key: Any) -> Any:
            support = indexing.IndexingSupport.BASIC
            return indexing.explicit_indexing_adapter(key, self.shape, support, reader.read)

    variable = xarray.Variable(opened.dims, indexing.LazilyIndexedArray(GuardedArray()), opened.attrs, opened.encoding)
    return xarray.DataArray(variable, coords=opened.coords, name=opened.name)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads parts of a raster up to a size.

    Args:
        opened: lazy DataArray.
        name: name of the file, for messages.
        limit_mb: most megabytes that a single read may take.
    """

    opened: Any
    name: str
    limit_mb: float

    def read(self, key: tuple[int | slice, ...]) -> Any:
        """Read the pixels of a basic index.

        Raises:
            MemoryLimitError: they would take more than the limit.
        """
        part = self.opened[key]
        size_mb = part.size * part.dtype.itemsize / 1e6
        if size_mb > self.limit_mb:
            raise MemoryLimitError(
                f"{self.name}: {size_mb:,.0f} MB would be read at once, more than limit_mb = {self.limit_mb:g}; take a part, "
                "as in labels[0, :2000, :2000] or labels[0, ::16, ::16], or give a higher limit_mb"
            )
        return np.asarray(part.values) if part.size else np.empty(part.shape, part.dtype)  # rioxarray fails on nothing
