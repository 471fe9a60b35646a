"""Writes label and confidence rasters block by block, and reads them back: a full disk is always noticed."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from geoglnet.errors import OutputError, SceneError
from geoglnet.output import unwritable
from geoglnet.raster.failures import num_failed_writes, writing
from geoglnet.raster.files import GDAL_ERRORS, silenced
from geoglnet.raster.gdal import environment, one_line, open_raster
from geoglnet.types import Shape, StrPath

NODATA = 255
MIN_TILE_SIZE, MAX_TILE_SIZE = 16, 512


class LabelWriter:
    """Writer of a tiled uint8 GeoTIFF from aligned blocks of labels, or of confidence as probability × 254.

    Use it as a context manager. Windows begin on multiples of ``core_size`` and end on one, or at the raster's end, so that
    no compressed tile is written twice. Blocks of 255 alone take no space. Memory: GDAL's block cache.

    Args:
        path: file to write, a part path; an existing one is replaced.
        shape: of the whole raster.
        transform: pixel to CRS coordinates.
        crs: coordinate reference system, or ``None``.
        core_size: side of the cores, a multiple of 16.
        dtype: of the values, another one for codes that bytes cannot hold.
        nodata: value of pixels without a class.

    Raises:
        OutputError: the file cannot be made, the disk is full, or a window is not aligned.
    """

    def __init__(
        self,
        path: StrPath,
        shape: Shape,
        *,
        transform: Affine,
        crs: CRS | None,
        core_size: int,
        dtype: str = "uint8",
        nodata: int = NODATA,
    ) -> None:
        self.path = Path(path)
        self.shape = shape
        self.num_valid = 0
        self._tile_size = tile_size(core_size)
        place: dict[str, Any] = {} if transform.is_identity else {"transform": transform}
        self._dtype, self._nodata = np.dtype(dtype), nodata
        profile = (
            _profile(shape, self._tile_size)
            | {"dtype": dtype, "nodata": nodata}
            | place
            | ({} if crs is None else {"crs": crs})
        )
        self._since = num_failed_writes()
        with writing(self.path), silenced(NotGeoreferencedWarning):
            self._dataset = rasterio.open(self.path, "w", **profile)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def write_block(self, window: Window, block: npt.NDArray[Any]) -> None:
        """Write a ``(h, w)`` block of the writer's type; every pixel of the raster is written once.

        Raises:
            OutputError: the disk is full, or the window does not begin and end on tiles.
        """
        self._check(window, block)
        with writing(self.path, since=self._since):
            self._dataset.write(block, 1, window=window)
        self.num_valid += count_valid(block, self._nodata)

    def close(self) -> None:
        """Flush the file and read it back: GDAL may lose blocks on a full disk without an error.

        Raises:
            OutputError: the file on the disk is not what was written.
        """
        with writing(self.path, since=self._since):
            self._dataset.close()
        verify(self.path, self.num_valid, self._nodata)

    def abandon(self) -> None:
        """Close an incomplete file; errors are ignored, because an exception is already under way."""
        try:
            with environment():
                self._dataset.close()
        except GDAL_ERRORS:
            return

    def _check(self, window: Window, block: npt.NDArray[Any]) -> None:
        """Refuse a block of another shape or type than its window, or one that ends inside a tile."""
        if block.shape != (window.height, window.width) or block.dtype != self._dtype:
            raise OutputError(
                f"{self.path.name}: a block of {block.shape} {block.dtype} does not fill {window}; give {self._dtype}"
            )
        ends = ((window.row_off + window.height, self.shape.height), (window.col_off + window.width, self.shape.width))
        starts_aligned = window.row_off % self._tile_size == 0 and window.col_off % self._tile_size == 0
        if not starts_aligned or any(end != last and (end > last or end % self._tile_size) for end, last in ends):
            raise OutputError(f"{self.path.name}: {window} does not consist of whole {self._tile_size} px tiles; use the cores")


def tile_size(core_size: int) -> int:
    """Return the largest power of two from 16 to 512 that divides the cores.

    Raises:
        OutputError: the cores are not a multiple of 16.
    """
    if core_size % MIN_TILE_SIZE:
        raise OutputError(f"cores of {core_size} px cannot be cut into TIFF tiles; use a multiple of {MIN_TILE_SIZE}")
    return min(core_size & -core_size, MAX_TILE_SIZE)  # the lowest bit of a number is its largest power of two


def count_valid(block: npt.NDArray[Any], nodata: int = NODATA) -> int:
    """Count the pixels that are not nodata."""
    return int(np.count_nonzero(block != nodata))


def verify(path: Path, num_valid: int, nodata: int = NODATA) -> None:
    """Prove that all of a raster has reached the disk, with its pyramid levels.

    A lost tile reads as nodata and a damaged one does not decode, so counting valid pixels finds both.

    Args:
        path: the raster.
        num_valid: number of valid pixels that were written.
        nodata: value of the others.

    Raises:
        OutputError: the file is incomplete or damaged.
    """
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # file systems on a network or with quotas report a full disk only now
        found = num_valid_pixels(path, nodata)
        with open_raster(path) as src:
            num_levels = len(src.overviews(1))
        for level in range(num_levels):
            num_valid_pixels(path, nodata, overview_level=level)
    except GDAL_ERRORS as error:
        raise unwritable(path, error) from error
    if found != num_valid:
        lost = f"{num_valid - found} of {num_valid} pixels did not reach the file"
        raise unwritable(path, OutputError(lost))


def num_valid_pixels(path: StrPath, nodata: int = NODATA, **options: Any) -> int:
    """Count the valid pixels of a one-band raster, a row of tiles at a time.

    Args:
        path: of the raster.
        nodata: value of the others.
        options: GDAL open options, such as ``overview_level``.

    Raises:
        SceneError: the raster cannot be read.
    """
    with open_raster(path, **options) as src, environment():
        step = max(src.block_shapes[0][0], MAX_TILE_SIZE)
        rows = [(row, min(step, src.height - row)) for row in range(0, src.height, step)]
        try:
            return sum(count_valid(src.read(1, window=Window(0, row, src.width, height)), nodata) for row, height in rows)
        except GDAL_ERRORS as error:
            raise SceneError(f"{src.name} cannot be read ({one_line(error)}); it is truncated or damaged") from error


def _profile(shape: Shape, tile: int) -> dict[str, Any]:
    """Return rasterio's profile of the file."""
    return {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": shape.height,
        "width": shape.width,
        "nodata": NODATA,
        "tiled": True,
        "blockxsize": tile,
        "blockysize": tile,
        "compress": "DEFLATE",
        "bigtiff": "IF_SAFER",
        "sparse_ok": True,  # tiles of nodata take no space
    }
