"""Detects failed reads and writes: GDAL 3.10 and rasterio do not report some failures.

For pixels that cannot be read they may return zeros. After a write that failed they may go on, and leave a file that opens
and decodes but has wrong pixels in its pyramid levels, or no layout.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geoglnet.errors import SceneError
from geoglnet.output import unwritable
from geoglnet.raster.files import GDAL_ERRORS, short_name
from geoglnet.raster.gdal import environment, unreadable

_POOLED = {"VRT", "STACIT"}  # drivers that open parts through GDAL's pool, and fill in those that cannot be opened
_CHECKED_ROWS = 16
_WRITE_ERRORS: tuple[type[Exception], ...] = (*GDAL_ERRORS, SystemError)  # rasterio's when GDAL gives no reason
_TIFF_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, use_errno=True)
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


@contextmanager
def writing(path: Path, *, size: int = 0, since: int | None = None) -> Iterator[None]:
    """Set GDAL up for writing a raster, and raise every write that failed as an error of ours.

    A failure is raised by all threads that write rasters at that moment: GDAL may write the blocks of one thread in another.

    Args:
        path: file that is written within the context, or its part.
        size: bytes that it will take.
        since: :func:`num_failed_writes` when the file was begun; now when left out.

    Raises:
        OutputError: a write failed.
    """
    failed = _failed_writes()
    since = len(failed.numbers) if since is None else since
    listening: AbstractContextManager[list[str]] = nullcontext([]) if failed.are_known else _gdal_errors().heard()
    with environment(), listening as errors:
        try:
            yield
        except _WRITE_ERRORS as error:
            raise unwritable(path, failed.error(since) or error, size) from error
    if cause := failed.error(since) or (RasterioError(errors[0]) if errors else None):
        raise unwritable(path, cause, size) from cause


def num_failed_writes() -> int:
    """Count the writes of rasters that have failed in this process."""
    return len(_failed_writes().numbers)


class _FailedWrites:
    """Error numbers of the writes of TIFF files that failed, in all threads of this process.

    GDAL reports them to libtiff's own error handler, which prints on stderr, and a write from its buffer to nothing else. This
    handler replaces it: it prints nothing and keeps the numbers.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._handler = _TIFF_HANDLER(self._keep)
        self._others: list[Any] = []
        for library in _libtiffs():
            library.TIFFSetErrorHandler.restype = _TIFF_HANDLER
            self._others.append(library.TIFFSetErrorHandler(self._handler))

    @property
    def are_known(self) -> bool:
        """Whether libtiff was found; otherwise only the errors that GDAL signals are known."""
        return bool(self._others)

    def error(self, since: int) -> OSError | None:
        """Return the first failure after the first ``since`` ones, or ``None``."""
        numbers = self.numbers[since : since + 1]
        return OSError(numbers[0], os.strerror(numbers[0])) if numbers else None

    def _keep(self, module: bytes | None, text: bytes | None, arguments: int | None) -> None:
        if module == b"_tiffWriteProc":
            self.numbers.append(ctypes.get_errno() or errno.EIO)
        elif module is None or not module.startswith(b"_tiff"):  # not GDAL's: the library may have other users
            for other in filter(None, self._others):
                other(module, text, arguments)


def _libtiffs() -> Iterator[ctypes.CDLL]:
    """Yield the libtiff that rasterio's GDAL uses: of its wheel, else of the system."""
    package = Path(rasterio.__file__).parent
    beside = [*(package.parent / "rasterio.libs").glob("*tiff*"), *(package / ".dylibs").glob("*tiff*")]
    for name in map(str, beside) if beside else ("libtiff.so.6", "libtiff.so.5", "libtiff.6.dylib", "tiff.dll"):
        try:
            library = ctypes.CDLL(name, mode=getattr(os, "RTLD_NOLOAD", 0) | ctypes.DEFAULT_MODE)
        except OSError:  # it is not the one that is loaded
            continue
        if hasattr(library, "TIFFSetErrorHandler"):
            yield library


@cache
def _failed_writes() -> _FailedWrites:
    return _FailedWrites()


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
