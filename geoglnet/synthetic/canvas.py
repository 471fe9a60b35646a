"""Canvas of a generated scene: color and height of every pixel, the light on them, and the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from geoglnet.synthetic.appearance import Appearance
from geoglnet.synthetic.noise import Field, fractal_noise, smooth_noise
from geoglnet.types import Shape

SKY_LIGHT = 0.42  # fraction of the light on level ground that comes from the whole sky; most of it reaches shadows too
SHADOW_LIGHT = 0.36
SHADOW_TINT = (0.92, 0.98, 1.12)  # red, green, blue: the sky lights it
HAZE = (188, 194, 200)

Slices = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Canvas:
    """Color (H, W, 3) 0–255 as lit by the sun, height (H, W) in meters, and noises that painters share."""

    image: npt.NDArray[np.float32]
    height: Field
    broad: Field
    fine: Field
    grain: Field
    pixel_size: float

    @classmethod
    def blank(cls, rng: np.random.Generator, shape: Shape, pixel_size: float) -> Canvas:
        """Make an empty canvas; ``broad`` has features of some 20 m, ``fine`` of 0.5 to 2 m, ``grain`` of a pixel."""
        broad = fractal_noise(rng, shape, 40 / pixel_size, 4)
        fine = fractal_noise(rng, shape, 2.4 / pixel_size, 3)
        grain = rng.standard_normal(shape, dtype=np.float32)
        return cls(np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32), broad, fine, grain, pixel_size)

    @property
    def shape(self) -> Shape:
        """Size in pixels."""
        return Shape(*self.height.shape)

    def around(self, x: float, y: float, radius: float) -> Slices | None:
        """Find the pixels of the square around a point in meters; return ``None`` when it is outside."""
        top, bottom = ((y + d) / self.pixel_size for d in (-radius, radius))
        left, right = ((x + d) / self.pixel_size for d in (-radius, radius))
        rows = slice(max(0, math.floor(top)), min(self.shape.height, math.ceil(bottom)))
        cols = slice(max(0, math.floor(left)), min(self.shape.width, math.ceil(right)))
        return (rows, cols) if rows.start < rows.stop and cols.start < cols.stop else None

    def coordinates(self, place: Slices) -> tuple[Field, Field]:
        """Return x and y in meters of the pixel centers, as a row ``(1, w)`` and a column ``(h, 1)`` to broadcast."""
        rows, cols = place
        x = (np.arange(cols.start, cols.stop, dtype=np.float32) + 0.5) * np.float32(self.pixel_size)
        y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * np.float32(self.pixel_size)
        return x[None], y[:, None]


def lit(look: Appearance, slope_x: Field | float, slope_y: Field | float) -> Field:
    """Compute the brightness of a surface with these slopes, relative to level ground in the same sun (Lambert)."""
    toward_x, toward_y, up = look.sun
    cosine = (up - slope_x * toward_x - slope_y * toward_y) / np.sqrt(1 + np.square(slope_x) + np.square(slope_y))
    # Divided by the sun's height, so that level ground has a brightness of 1.
    return np.asarray(SKY_LIGHT + (1 - SKY_LIGHT) * np.maximum(cosine, 0) / up, np.float32)


def cast_shadows(canvas: Canvas, look: Appearance) -> None:
    """Darken the pixels in the shadow of something higher."""
    toward_x, toward_y, up = look.sun
    flat = math.hypot(toward_x, toward_y)
    fall = canvas.pixel_size * up / flat  # meters that a ray of the sun sinks over a pixel's width
    # Height of the shadow over every pixel: heights on the way to the sun, lowered by the fall of its rays over that distance.
    # The whole image is shifted step by step, until the highest object casts no shadow any more.
    roof = np.full(canvas.shape, -1, np.float32)
    for step in range(1, math.ceil(float(canvas.height.max()) / fall) + 1):
        _raise(roof, canvas.height, round(step * toward_x / flat), round(step * toward_y / flat), step * fall)
    depth = np.clip((roof - canvas.height - 0.15) / 0.3, 0, 1)
    depth = ndimage.gaussian_filter(depth, 0.18 / canvas.pixel_size)
    for band, tint in enumerate(SHADOW_TINT):
        canvas.image[..., band] *= 1 - depth * (1 - SHADOW_LIGHT * tint)


def _raise(roof: Field, height: Field, right: int, down: int, drop: float) -> None:
    """Set ``roof[p] = max(roof[p], height[p + (down, right)] - drop)`` where that pixel exists."""
    to_rows, from_rows = _shifted(height.shape[0], down)
    to_cols, from_cols = _shifted(height.shape[1], right)
    target = roof[to_rows, to_cols]
    np.maximum(target, height[from_rows, from_cols] - np.float32(drop), out=target)


def _shifted(length: int, by: int) -> tuple[slice, slice]:
    """Return slices of an axis and of the same axis shifted, as far as they overlap."""
    if abs(by) >= length:
        return slice(0, 0), slice(0, 0)
    return (slice(0, length - by), slice(by, length)) if by >= 0 else (slice(-by, length), slice(0, length + by))


def photograph(canvas: Canvas, look: Appearance, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Photograph the canvas through haze, lens and sensor, as ``(3, H, W)`` uint8."""
    # In the order of the light: colors, exposure and vignette, haze, the lens's blur, the sensor's noise.
    vignette = 1 + np.float32(0.03) * smooth_noise(rng, canvas.shape, 150 / canvas.pixel_size)
    image = np.empty((3, *canvas.shape), np.uint8)
    # Luma of Rec. 601, rounded.
    gray = canvas.image @ np.array([0.3, 0.59, 0.11], np.float32)
    for band in range(3):
        layer = gray + np.float32(look.saturation) * (canvas.image[..., band] - gray)
        layer *= vignette * np.float32(look.gain)
        layer += np.float32(look.haze) * (np.float32(HAZE[band]) - layer)
        layer = ndimage.gaussian_filter(layer, max(look.blur_m / canvas.pixel_size, 0.45), output=np.float32)
        layer += np.float32(look.noise) * rng.standard_normal(canvas.shape, dtype=np.float32)
        image[band] = np.clip(layer, 0, 255)
    return image
