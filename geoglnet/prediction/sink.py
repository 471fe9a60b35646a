"""Where finished blocks go: a port, and its in-memory adapter."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geoglnet.types import Shape

Block = npt.NDArray[np.uint8]


class Sink(Protocol):
    """Receiver of finished blocks: every pixel of the scene once, in windows that begin on multiples of the core size."""

    def write_block(self, window: Window, block: Block) -> None:
        """Take a ``(h, w)`` uint8 block."""


class ArraySink:
    """Sink that keeps the whole raster in memory; for tests and small scenes.

    Args:
        shape: of the scene.
    """

    def __init__(self, shape: Shape) -> None:
        self.array: Block = np.full(shape, 255, dtype=np.uint8)

    def write_block(self, window: Window, block: Block) -> None:
        self.array[window.toslices()] = block
