"""Small rasters of every kind, for tests."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

UTM = "EPSG:32736"
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def noise(bands: int, height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """An image without structure, 1 to 254, so that 0 and 255 are free for nodata."""
    return np.random.default_rng(seed).integers(1, 255, (bands, height, width), dtype=np.uint8)


def write_raster(
    path: Path,
    image: npt.NDArray[Any],
    *,
    crs: str | None = UTM,
    transform: Affine | None = None,
    pixel_size: float = 0.5,
    valid: npt.NDArray[np.bool_] | None = None,
    alpha: npt.NDArray[Any] | None = None,
    **profile: Any,
) -> Path:
    """Write a small GeoTIFF (or another driver's file) and return its path.

    Args:
        path: where; GDAL's driver by ``driver=``, GTiff when left out.
        image: ``(C, H, W)`` of any dtype.
        crs: coordinate reference system; ``None`` leaves transform and CRS out.
        transform: pixel to CRS; by default ``pixel_size`` units in UTM zone 36S.
        pixel_size: see ``transform``.
        valid: ``(H, W)`` written as the dataset's own mask.
        alpha: ``(H, W)`` appended as alpha band.
        profile: the rest of rasterio's profile (``nodata``, ``blockxsize``, ``compress``, …).
    """
    layers = image if alpha is None else np.concatenate([image, alpha[None].astype(image.dtype)])
    if transform is None:
        transform = Affine.translation(500_000, 9_000_000) @ Affine.scale(pixel_size, -pixel_size)
    options: dict[str, Any] = {"driver": "GTiff", "dtype": layers.dtype}
    options |= dict(zip(("count", "height", "width"), layers.shape, strict=True))
    if profile.get("driver", "GTiff") == "GTiff":
        options |= {"tiled": True, "blockxsize": 64, "blockysize": 64}
    if crs is not None:
        options |= {"crs": crs, "transform": transform}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **(options | profile)) as dst:
            dst.write(layers)
            if alpha is not None:
                dst.colorinterp = (*RGB[: len(image)], ColorInterp.alpha)
            if valid is not None:
                dst.write_mask(valid)
    return path
