"""Bands of a model: which it takes, and how their values reach it."""

from __future__ import annotations

from dataclasses import dataclass

from geoglnet.config import ScalingRule
from geoglnet.errors import ConfigError
from geoglnet.plain import check_text, shortened


@dataclass(frozen=True, slots=True)
class Bands:
    """Names, scaling, mean and std of a model's bands, in order; configurations, checkpoints and scenes share them.

    >>> Bands().names, len(Bands(("nir",), (0.5,), (0.2,)))
    (('red', 'green', 'blue'), 1)

    Args:
        names: STAC common names (``red``, ``nir``) or free words, each once.
        mean: per band, on the 0–1 scale; ImageNet's when left out.
        std: per band, on the 0–1 scale.
        scaling: how raster values are brought to 0–255.

    Raises:
        ConfigError: counts differ, a name repeats or is no text, or a number that no value can be normalized with.
    """

    names: tuple[str, ...] = ("red", "green", "blue")
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scaling: ScalingRule = ScalingRule.BY_TYPE

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.mean) == len(self.std):
            counts = f"{len(self.names)} bands, {len(self.mean)} means, {len(self.std)} stds"
            raise ConfigError(f"{counts}; give one of each per band")
        if not all(1e-6 <= value <= 1e6 for value in self.std) or not all(abs(value) <= 1e6 for value in self.mean):
            raise ConfigError(f"mean = {list(self.mean)} and std = {list(self.std)} must be moderate numbers, std positive")
        if not self.names or len(set(self.names)) != len(self.names):
            raise ConfigError(f"bands = {shortened(list(self.names))} must be at least one, and differ from each other")
        for name in self.names:
            check_text("bands", name)
            if len(name) > 255:
                raise ConfigError(f"bands = {shortened(name)} has {len(name)} characters; use at most 255")

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return ", ".join(self.names)
