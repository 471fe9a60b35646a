"""Parts of rasters: one tiled GeoTIFF of many blocks, written block by block."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from geoglnet.legend import NO_CLASS
from geoglnet.raster.encoding import block_profile
from geoglnet.raster.failures import num_failed_writes, writing
from geoglnet.raster.gdal import environment
from geoglnet.raster.writer import count_valid, tile_size, verify
from geoglnet.types import Shape


class PartWriter:
    """Writer of a part of a uint8 raster, without a place; nodata is 255. Use it as a context manager.

    Blocks are cores of a plan, or what is left of them where an area ends; each pixel is written once. Where nothing but 255 is
    written there is no file. Memory: GDAL's block cache.

    Args:
        path: file to write.
        shape: of the part, in whole cores.
        num_bands: of the raster.
        core_size: side of the cores, a multiple of 16.

    Raises:
        OutputError: the file cannot be made, or the disk is full.
    """

    def __init__(self, path: Path, shape: Shape, num_bands: int, core_size: int) -> None:
        self.path = path
        self._profile = block_profile(shape, num_bands, tile_size(core_size))
        self._dataset: DatasetWriter | None = None
        self._num_valid = 0
        self._since = num_failed_writes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._dataset is not None and not self._dataset.closed:
            with environment():
                self._dataset.close()  # given up: it is removed with its folder

    def write(self, window: Window, block: npt.NDArray[np.uint8]) -> None:
        """Write a ``(bands, h, w)`` block.

        Raises:
            OutputError: the disk is full.
        """
        num_valid = count_valid(block[0], NO_CLASS)
        if not num_valid:
            return
        with writing(self.path, since=self._since):
            if self._dataset is None:
                self._dataset = rasterio.open(self.path, "w", **self._profile)
            self._dataset.write(block, window=window)
        self._num_valid += num_valid

    def finish(self) -> bool:
        """Flush the file and read it back: GDAL may lose blocks on a full disk without an error.

        Returns:
            Whether there is a file.

        Raises:
            OutputError: the file on the disk is not what was written.
        """
        if self._dataset is None:
            return False
        with writing(self.path, since=self._since):
            self._dataset.close()
        verify(self.path, self._num_valid, NO_CLASS)
        return True
