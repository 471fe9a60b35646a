"""From the numbers in a raster to the 0–255 that networks are trained on, by a rule that can be printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoglnet.config import ScalingRule
from geoglnet.errors import ConfigError

PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Linear stretch of raster values to 0–255; values outside are clipped.

    Args:
        low: value that becomes 0.
        high: value that becomes 255.
        description: why these values, for the log.

    Raises:
        ConfigError: ``high`` is not above ``low``, or one of them is not finite.
    """

    low: float = 0.0
    high: float = 255.0
    description: str = "given by the caller"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"scaling from {self.low:g} to {self.high:g} must have a low end below its high end")

    @property
    def is_identity(self) -> bool:
        return self.low == 0 and self.high == 255

    def apply(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Stretch an array of any real type; values that are not finite become 0."""
        if image.dtype == np.uint8 and self.is_identity:
            return image
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
    """The rule for a raster of ``dtype``, from a sample of its valid values.

    8-bit rasters and rasters whose values lie in 0–255 are taken as they are; floats in 0–1 are multiplied by 255; all
    others are stretched between their 2nd and 98th percentiles, all bands together so that colours keep their balance; so is
    everything under :attr:`ScalingRule.STRETCH`.

    Args:
        values: valid values of all bands, any shape; may be empty.
        dtype: number type of the raster.
        rule: the model's.
    """
    if np.dtype(dtype) == np.uint8 and rule is ScalingRule.BY_TYPE:
        return AS_IS
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Scaling(description="no valid value found")
    if rule is ScalingRule.STRETCH:
        return _stretched(finite)
    least, most = float(finite.min()), float(finite.max())
    if np.issubdtype(dtype, np.floating) and least >= 0 and most <= 1:
        return Scaling(0, 1, "fractions")
    if least >= 0 and most <= 255:
        return Scaling(description=f"{np.dtype(dtype).name} within 0 to 255")
    return _stretched(finite)


def _stretched(finite: npt.NDArray[Any]) -> Scaling:
    least, most = float(finite.min()), float(finite.max())
    low, high = (float(p) for p in np.percentile(finite, PERCENTILES))
    if not low < high:
        low, high = least, max(most, least + 1)
    return Scaling(low, high, f"2nd to 98th percentile of {least:g} to {most:g}")
