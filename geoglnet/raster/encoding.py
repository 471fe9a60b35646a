"""Encodes blocks as GeoTIFFs in memory: GDAL compresses and Python writes, so that no error of the disk is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.io import MemoryFile

from geoglnet.legend import NO_CLASS
from geoglnet.raster.gdal import environment
from geoglnet.types import Shape

TILE_SIZE = 512
# Without meaning: rasterio warns of rasters without a transform, and warnings cannot be silenced in one thread alone.
_ANYWHERE = Affine.scale(2, -2)


def encoded(layer: npt.NDArray[np.uint8]) -> bytes:
    """Encode a ``(bands, h, w)`` uint8 array as a compressed GeoTIFF without a place; nodata is 255.

    Memory: the array once more, compressed.
    """
    shape = Shape(*layer.shape[1:])
    profile = block_profile(shape, len(layer), TILE_SIZE if min(shape) >= TILE_SIZE else None)
    with environment(), MemoryFile() as memory:
        with memory.open(**profile) as dst:
            dst.write(layer)
        return bytes(memory.getbuffer())


def block_profile(shape: Shape, num_bands: int, tile: int | None) -> dict[str, Any]:
    """Return rasterio's profile of blocks and of parts: written once, read once or twice.

    Args:
        shape: of the raster.
        num_bands: of the raster.
        tile: side of its tiles; strips of rows when left out.
    """
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": num_bands,
        "height": shape.height,
        "width": shape.width,
        "nodata": NO_CLASS,
        "transform": _ANYWHERE,
        "compress": "DEFLATE",
        "zlevel": 1,
        "interleave": "BAND",
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
    }
    return profile if tile is None else profile | {"tiled": True, "blockxsize": tile, "blockysize": tile}
