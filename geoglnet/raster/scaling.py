"""Scales the values of a raster to the 0–255 that networks are trained on, by a rule that can be printed.

The rule is chosen from a sample of the values. Thresholds below are the lessons of real scenes: fractions that exceed 1 at a
glint, percent, 8-bit values stored as 16-bit ones, undeclared nodata values, collars of zeros around a rotated scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoglnet.config import ScalingRule
from geoglnet.errors import ConfigError
from geoglnet.message import Keyword

PERCENTILES = (2.0, 98.0)
DIM = 10.0  # 98th percentile that 8-bit values and percent exceed
HAZE = 0.1  # of full reflectance: how far below 0 dark pixels may lie after atmospheric correction
GLINT_SHARE = 0.01  # of the values that are not 0: how many may lie outside of the range of all others
SENTINELS = (-9999, -99999, -999, -32768, -32767, -2147483648, -1e20, 1e20, -3.4028234663852886e38, 3.4028234663852886e38)
"""Values that commonly stand for "no value"."""
_SENTINEL_SHARE = 0.0005  # of all values: fewer are noise, a collar has more


@dataclass(frozen=True, slots=True)
class Scaling:
    """Linear stretch of raster values to 0–255; values outside are clipped.

    Args:
        low: value that becomes 0.
        high: value that becomes 255.
        description: reason for these values, for the log.
        doubt: warning about what else the values might be, and what to do then; empty where the rule is certain.

    Raises:
        ConfigError: ``high`` is not above ``low``, or one of them is not finite.
    """

    low: float = 0.0
    high: float = 255.0
    description: str = "given by the caller"
    doubt: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"scaling from {self.low:g} to {self.high:g} must have a low end below its high end")

    @property
    def is_identity(self) -> bool:
        """Whether 0 to 255 stay as they are."""
        return self.low == 0 and self.high == 255

    def apply(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Stretch an array of any real type; values that are not finite become 0."""
        if image.dtype == np.uint8 and self.is_identity:
            return image
        # In place, in float32: one copy, of four bytes a value, whatever the type.
        stretched = image.astype(np.float32)
        stretched -= np.float32(self.low)
        stretched *= np.float32(255 / (self.high - self.low))
        np.nan_to_num(stretched, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
        np.clip(stretched, 0, 255, out=stretched)
        return np.rint(stretched, out=stretched).astype(np.uint8)

    def __str__(self) -> str:
        return f"values {self.low:g} to {self.high:g} read as 0 to 255 ({self.description})"


AS_IS = Scaling(description="8-bit values")


def choose_scaling(values: npt.NDArray[Any], dtype: str | np.dtype[Any], rule: ScalingRule = ScalingRule.BY_TYPE) -> Scaling:
    """Choose the scaling of a raster of ``dtype`` from a sample of its valid values.

    8-bit rasters and rasters whose values lie in 0–255 are taken as they are; floats in 0–1 are multiplied by 255, those in
    0–100 that are not all integers are percent; all others are stretched between their 2nd and 98th percentiles, all bands
    together so that colors keep their balance; so is everything under :attr:`ScalingRule.STRETCH`. A hundredth of the values
    does not count, so that a glint changes nothing.

    Args:
        values: valid values of all bands, any shape; may be empty.
        dtype: number type of the raster.
        rule: rule of the model.
    """
    if np.dtype(dtype) == np.uint8 and rule is ScalingRule.BY_TYPE:
        return AS_IS
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Scaling(description="no valid value found")
    if rule is ScalingRule.STRETCH:
        return _stretched(finite)
    if np.issubdtype(dtype, np.floating):
        return _of_floats(finite, np.dtype(dtype).name)
    least, most = float(finite.min()), float(finite.max())
    if least >= 0 and most <= 255:
        return Scaling(
            description=f"{np.dtype(dtype).name} within 0 to 255",
            doubt=f"{np.dtype(dtype).name} values of {least:g} to {most:g} are taken as 8-bit ones; "
            "if the scene is merely dark, set its black and white values with " + Keyword("scaling"),
        )
    return _stretched(finite)


def find_sentinel(values: npt.NDArray[Any]) -> float | None:
    """Find an undeclared nodata value: one of :data:`SENTINELS` that is frequent and far from all other values.

    Args:
        values: sample of values that the raster declares valid, any shape.

    Returns:
        The value; ``None`` where there is none.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return None
    for end in (finite.min(), finite.max()):
        if not np.isclose(float(end), SENTINELS, rtol=1e-6, atol=0).any():
            continue
        others = finite[finite != end].astype(np.float64)
        is_often = finite.size - others.size >= max(2, _SENTINEL_SHARE * finite.size)
        if not (is_often and others.size):
            continue
        # Further from the nearest other value than the others are from each other: -9999 in a terrain of -12000 to 0 is none.
        distance = np.abs(others - float(end)).min()
        if distance > others.max() - others.min():
            return float(end)
    return None


def find_collar(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> float | None:
    """Find a value that all bands have along at least half of one side of a scene: perhaps a collar without nodata value.

    Args:
        values: ``(C, h, w)`` sample of a whole scene.
        valid: ``(h, w)`` bool.

    Returns:
        The value; ``None`` where there is none.
    """
    even = valid & (values == values[:1]).all(axis=0)
    for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        along = values[0][side][even[side]]
        if not along.size:
            continue
        found, counts = np.unique(along, return_counts=True)
        if 2 * counts.max() >= max(16, valid[side].size):  # at least 8 pixels: in a tiny scene it happens by chance
            return float(found[counts.argmax()])
    return None


def _of_floats(finite: npt.NDArray[Any], name: str) -> Scaling:
    """Choose the scaling of floating-point values: fractions, percent, 8-bit values, or a stretch, in this order."""
    least, most = float(finite.min()), float(finite.max())
    if least >= 0 and most <= 1:
        return Scaling(0, 1, "fractions")
    outside = f"{least:g} to {most:g} are clipped; if these are not fractions, set the scene's black and white values with "
    if _are_nearly_within(finite, 1):
        share = float(np.mean((finite < 0) | (finite > 1)))
        is_clear = least >= -1 and most <= 2  # glints and haze of reflectance reach this far
        doubt = f"{1 - share:.2%} of the values lie within 0 to 1, the others of {outside}" + Keyword("scaling")
        return Scaling(0, 1, f"fractions; {share:.2g} of the values are outside and clipped", "" if is_clear else doubt)
    is_whole, bright = bool((finite == np.rint(finite)).all()), float(np.percentile(finite, PERCENTILES[1]))
    if not is_whole and most <= 200 and bright > DIM and _are_nearly_within(finite, 100):
        return Scaling(
            0,
            100,
            f"percent, from {least:g} to {most:g}",
            f"{name} values of {least:g} to {most:g} are taken as percent; if they are not, set the scene's black and white "
            "values with " + Keyword("scaling") + " (0 and 255 for 8-bit values)",
        )
    if least >= 0 and most <= 255 and (is_whole or bright > DIM):
        return Scaling(description=f"{name} within 0 to 255")
    return _stretched(finite)


def _are_nearly_within(finite: npt.NDArray[Any], most: float) -> bool:
    """Return whether values lie from 0 to ``most``, except for glints and overcorrected haze."""
    counted = finite[finite != 0]  # exact zeros are mostly a collar, which would outnumber the rest
    is_past = (counted < -HAZE * most) | (counted > most)
    return bool(counted.size and np.mean(is_past) <= GLINT_SHARE and np.median(counted) > 0)


def _stretched(finite: npt.NDArray[Any]) -> Scaling:
    """Stretch values between their percentiles."""
    least, most = float(finite.min()), float(finite.max())
    low, high = (float(p) for p in np.percentile(finite, PERCENTILES))
    if not low < high:  # nearly all values are equal
        low, high = least, max(most, least + 1)
    return Scaling(low, high, f"2nd to 98th percentile of {least:g} to {most:g}")
