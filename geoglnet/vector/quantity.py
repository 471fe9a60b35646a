"""A number with its unit, as people write it: ``2px``, ``1.5m``, ``20m2``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Self

from geoglnet.errors import ConfigError

_WRITTEN = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*(px|m2|m²|m)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A length or an area, in pixels of the raster or on the ground.

    Args:
        value: not negative.
        unit: ``"px"`` (pixel sides of a length, pixels of an area), ``"m"`` or ``"m2"``.

    Raises:
        ConfigError: a negative or infinite value.
    """

    value: float
    unit: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0):
            raise ConfigError(f"{self.value:g}{self.unit} must be zero or more")

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    @classmethod
    def parse(cls, written: Quantity | str, units: tuple[str, ...]) -> Self:
        """Read ``2px``.

        Args:
            written: the text, or a quantity, which is only checked.
            units: those that make sense here.

        Raises:
            ConfigError: it is no number with one of these units.
        """
        found = _WRITTEN.fullmatch(str(written))
        unit = found[2].lower().replace("²", "2") if found else ""
        if found is None or unit not in units:
            examples = " or ".join(f"2{unit}" for unit in units)
            raise ConfigError(f"{str(written)!r} must be a number with a unit: write {examples}")
        return cls(float(found[1]), unit)

    def in_pixels(self, pixel_size_m: float | None, reason: str = "no CRS") -> float:
        """The same quantity in pixels (of area, if it is one).

        Args:
            pixel_size_m: side of a pixel on the ground; ``None`` where it is unknown.
            reason: why it is unknown: what the raster has.

        Raises:
            ConfigError: it is in metres, and the pixel size is unknown.
        """
        if self.unit == "px":
            return self.value
        if pixel_size_m is None:
            raise ConfigError(f"{self} cannot be brought to pixels: the raster has {reason}; give it in pixels (px)")
        return self.value / (pixel_size_m if self.unit == "m" else pixel_size_m**2)
