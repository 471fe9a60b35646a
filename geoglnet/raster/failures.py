"""Detects failed reads: GDAL 3.10 and rasterio do not report some failures, and return zeros instead of pixels."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geoglnet.errors import SceneError
from geoglnet.raster.files import GDAL_ERRORS, short_name
from geoglnet.raster.gdal import environment, unreadable

_POOLED = {"VRT", "STACIT"}  # drivers that open parts through GDAL's pool, and fill in those that cannot be opened
_CHECKED_ROWS = 16
_failed_indexes: set[str] = set()


@contextmanager
def reading(dataset: DatasetReader, window: Window | None = None, name: str = "") -> Iterator[None]:
    """Set GDAL up for reading an open raster within the context, and raise every failure as one of ours.

    Args:
        dataset: raster that is read within the context.
        window: place that is read, for the message.
        name: name of the raster for messages, if it has another than the dataset's.

    Raises:
        SceneError: it cannot be read; or it is a tile index of which a tile could not be read before in this process.
    """
    is_index = dataset.driver == "GTI"
    if is_index and dataset.name in _failed_indexes:
        raise SceneError(
            f"{name or short_name(dataset.name)} cannot be read any more in this process: GDAL returns zeros for a tile that "
            "it failed to open once; restart Python"
        )
    listening: AbstractContextManager[list[str]] = _gdal_errors().heard() if is_index else nullcontext([])
    with environment(dataset.name), listening as errors:
        try:
            yield
        except GDAL_ERRORS as error:
            if is_index:
                _failed_indexes.add(dataset.name)
            raise unreadable(dataset, window, error, name) from error
    if errors:  # the read seemed to succeed
        _failed_indexes.add(dataset.name)
        raise unreadable(dataset, window, RasterioError(errors[0]), name)


def check_filled(dataset: DatasetReader, bands: Sequence[int], window: Window, values: npt.NDArray[Any]) -> None:
    """Refuse pixels of a VRT that GDAL has filled in because it could not open their part; within :func:`reading`.

    GDAL 3.10 does not report a part that it failed to open before, for this VRT or, once it has read a VRT within a VRT, for an
    earlier one: the read fails without a message, which rasterio takes for success. A checksum of the same pixels fails with a
    message. It is taken of every 16th of the rows in which pixels hold GDAL's fill value, which takes far less time than
    reading them, however many parts there are; parts of fewer rows may be missed.

    Args:
        dataset: the raster.
        bands: 1-based band numbers.
        window: place that was read.
        values: ``(bands, h, w)`` values that were read, resampled or not.

    Raises:
        RasterioError: a part in the window cannot be read.
    """
    if dataset.driver not in _POOLED:
        return
    height, first_col = values.shape[1], math.floor(window.col_off)
    width = min(dataset.width, math.ceil(window.col_off + window.width)) - first_col
    for band, found in zip(bands, values, strict=True):
        nodata = dataset.nodatavals[band - 1]
        fill = 0 if nodata is None else nodata
        is_filled = np.isnan(found) if np.isnan(fill) else found == fill
        for row in np.flatnonzero(is_filled.any(axis=1))[::_CHECKED_ROWS]:
            source_row = int(window.row_off + (row + 0.5) * window.height / height)
            try:
                dataset.checksum(band, window=Window(first_col, source_row, width, 1))
            except GDAL_ERRORS:
                what = "GDAL could not open one of its parts there, now or before in this process"
                raise RasterioError(f"{what}; if they can be opened again, restart Python") from None


class _GdalErrors(logging.Filter):
    """Errors that GDAL signals in a thread, taken from rasterio's log; rasterio raises one only where a whole read fails.

    For a tile of an index that cannot be opened, GDAL 3.10 signals an error once, and returns zeros.
    """

    def __init__(self) -> None:
        super().__init__()
        self._here = threading.local()
        self._rasterio = logging.getLogger("rasterio")
        # The level is lowered so that messages reach the filter, which passes on those that the user's level lets through.
        for logger in (logging.getLogger(f"rasterio.{module}") for module in ("_err", "_env")):
            logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
            logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Collect the message of an error; return whether the record is to be logged."""
        messages = getattr(self._here, "messages", None)
        if messages is not None and record.levelno == logging.INFO:  # rasterio logs GDAL's errors as INFO, its warnings as such
            messages.append(str(record.args[-1]) if isinstance(record.args, tuple) else record.getMessage())
        return self._rasterio.isEnabledFor(record.levelno)

    @contextmanager
    def heard(self) -> Iterator[list[str]]:
        """Collect the messages of this thread until the context ends."""
        messages: list[str] = []
        self._here.messages = messages
        try:
            yield messages
        finally:
            self._here.messages = None


@cache
def _gdal_errors() -> _GdalErrors:
    """Install the filter, once and only when a tile index is read."""
    return _GdalErrors()
