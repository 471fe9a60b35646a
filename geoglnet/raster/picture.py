"""Pictures of rasters to look at: decimated, colored, georeferenced. Memory depends on the picture's size alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import array_bounds
from rasterio.warp import calculate_default_transform, reproject
from rasterio.windows import Window, from_bounds
from rasterio.windows import transform as window_transform

from geoglnet.errors import ConfigError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.raster.crs import ground_of
from geoglnet.raster.failures import reading
from geoglnet.raster.gdal import environment, open_raster
from geoglnet.raster.grid import georeference
from geoglnet.raster.mosaic import mosaic_of
from geoglnet.raster.scene import open_scene
from geoglnet.types import Bounds, Shape, StrPath

WEB_MERCATOR = CRS.from_epsg(3857)
OPAQUE = 255


@dataclass(frozen=True, slots=True)
class Picture:
    """A colored picture of a raster, or of a part of it.

    Args:
        image: ``(h, w, 4)`` uint8 red, green, blue, opacity.
        transform: pixel to CRS coordinates.
        crs: coordinate reference system; ``None`` for pixel coordinates.
    """

    image: npt.NDArray[np.uint8]
    transform: Affine
    crs: CRS | None

    @property
    def bounds(self) -> Bounds:
        """(left, bottom, right, top) in the CRS."""
        left, bottom, right, top = array_bounds(*self.image.shape[:2], self.transform)
        return left, bottom, right, top

    def in_web_mercator(self) -> Picture:
        """Warp the picture to the grid of web maps; return it unchanged where it has no place on the Earth."""
        if not ground_of(self.crs).is_earth:
            return self
        height, width = self.image.shape[:2]
        transform, new_width, new_height = calculate_default_transform(self.crs, WEB_MERCATOR, width, height, *self.bounds)
        bands = np.zeros((4, new_height, new_width), np.uint8)  # transparent where nothing is warped to
        with environment():
            reproject(
                np.moveaxis(self.image, -1, 0),
                bands,
                src_transform=self.transform,
                src_crs=self.crs,
                dst_transform=transform,
                dst_crs=WEB_MERCATOR,
                resampling=Resampling.nearest,  # colors of classes do not mix
            )
        return Picture(np.ascontiguousarray(np.moveaxis(bands, 0, -1)), transform, WEB_MERCATOR)


def scene_picture(paths: Sequence[StrPath], *, size: int, bounds: Bounds | None = None) -> Picture:
    """Draw a scene as a model sees it (bands by color, scaled to 8 bits), decimated; transparent where it is invalid.

    Args:
        paths: one raster, or several on one grid.
        size: most pixels of the picture's longer side.
        bounds: (left, bottom, right, top) of the part to show, in the scene's CRS; all of it when left out.

    Raises:
        SceneError: it cannot be read.
        ConfigError: the bounds lie outside.
    """
    # Opened twice: the size of the part says at which resolution the scene is to be opened, and GDAL then reads from the
    # pyramid level that fits.
    path = paths[0] if len(paths) == 1 else mosaic_of(paths)
    with open_scene(path) as native:
        part = _window(native.transform, native.shape, bounds, native.name)
        factor = max(1.0, max(part.width, part.height) / size)
        pixel_size_m = native.native_pixel_size_m or 1.0
    with open_scene(path, resolution_m=factor * pixel_size_m, assumed_pixel_size_m=pixel_size_m) as scene:
        window = _window(scene.transform, scene.shape, bounds, scene.name)
        pixels = scene.read_window(window)
        rgb = pixels.image if len(pixels.image) == 3 else pixels.image[:1].repeat(3, axis=0)
        image = np.concatenate([rgb, (pixels.valid * np.uint8(OPAQUE))[None]])
        return Picture(np.ascontiguousarray(np.moveaxis(image, 0, -1)), window_transform(window, scene.transform), scene.crs)


def labels_picture(path: StrPath, legend: Legend, *, size: int, bounds: Bounds | None = None) -> Picture:
    """Draw labels in the legend's colors, decimated; transparent where there is no class, or the background.

    Args:
        path: label raster.
        legend: names and colors of its values.
        size: most pixels of the picture's longer side.
        bounds: (left, bottom, right, top) of the part to show, in the raster's CRS; all of it when left out.

    Raises:
        SceneError: it cannot be read.
        ConfigError: the bounds lie outside.
    """
    with open_raster(path) as src, reading(src):
        place = georeference(src)
        transform = place.transform
        window = _window(transform, Shape(src.height, src.width), bounds, str(path))
        factor = max(1.0, max(window.width, window.height) / size)
        shape = Shape(math.ceil(window.height / factor), math.ceil(window.width / factor))
        labels = src.read(1, window=window, out_shape=shape, resampling=Resampling.nearest)
        scale = Affine.scale(window.width / shape.width, window.height / shape.height)
        return Picture(_colors(legend)[labels], window_transform(window, transform) @ scale, place.crs)


def _colors(legend: Legend) -> npt.NDArray[np.uint8]:
    """Return the color and opacity of each value, ``(256, 4)``."""
    table = np.zeros((NO_CLASS + 1, 4), np.uint8)
    for value in legend.polygon_values:
        table[value] = (*legend.colors[value], OPAQUE)
    return table


def _window(transform: Affine, shape: Shape, bounds: Bounds | None, name: str) -> Window:
    """Return the window of whole pixels that bounds touch."""
    whole = Window(col_off=0, row_off=0, width=shape.width, height=shape.height)
    if bounds is None:
        return whole
    wanted = from_bounds(*bounds, transform)
    first_col, first_row = max(0, math.floor(wanted.col_off)), max(0, math.floor(wanted.row_off))
    last_col = min(shape.width, math.ceil(wanted.col_off + wanted.width))
    last_row = min(shape.height, math.ceil(wanted.row_off + wanted.height))
    if last_col <= first_col or last_row <= first_row:
        raise ConfigError(f"bounds {bounds} lie outside of {name}; give left, bottom, right, top in its CRS")
    return Window(col_off=first_col, row_off=first_row, width=last_col - first_col, height=last_row - first_row)
