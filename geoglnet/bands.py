"""Bands of a model: which it takes, and how their values reach it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from geoglnet.config import ScalingRule, from_plain, suggestion
from geoglnet.errors import ConfigError
from geoglnet.plain import check_text, checked, shortened

RGB = ("red", "green", "blue")
_IMAGENET = {"red": (0.485, 0.229), "green": (0.456, 0.224), "blue": (0.406, 0.225)}  # mean and std
_JOINT = (ScalingRule.BY_TYPE, ScalingRule.STRETCH)
_RULES = ", ".join(rule.value for rule in ScalingRule) + " or {range = [low, high]}"


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Rule by which values from ``low`` to ``high`` are brought to 0–1, in the unit that the raster's scale and offset give.

    >>> ValueRange(0, 30)
    ValueRange(low=0, high=30)

    Raises:
        ConfigError: ``low`` is not below ``high``.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -1e30 <= self.low < self.high <= 1e30:
            raise ConfigError(f"range = [{self.low:g}, {self.high:g}] must have a low end below its high end")


BandRule: TypeAlias = ScalingRule | ValueRange


@dataclass(frozen=True, slots=True)
class Bands:
    """Names, scaling, mean and std of a model's bands, in order; configurations, checkpoints and scenes share them.

    >>> Bands().names, len(Bands(("nir",), (0.5,), (0.2,)))
    (('red', 'green', 'blue'), 1)
    >>> Bands(("red", "height"), scaling=(ScalingRule.AS_IS, ValueRange(0, 30))).is_measured
    False

    Args:
        names: STAC common names (``red``, ``nir``) or free words, each once.
        mean: per band, on the 0–1 scale. Left out together with ``std``: ImageNet's for red, green and blue of 8 bits, and
            measured on the training scenes for all others.
        std: per band, on the 0–1 scale.
        scaling: how raster values are brought to 0–255: one rule for all bands, or one per band.

    Raises:
        ConfigError: counts differ, a name repeats or is no text, a number that no value can be normalized with, or a rule for
            all bands beside rules of single ones.
    """

    names: tuple[str, ...] = RGB
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scaling: BandRule | tuple[BandRule, ...] = ScalingRule.BY_TYPE

    def __post_init__(self) -> None:
        self._check_names()
        if isinstance(self.scaling, tuple):
            if len(self.scaling) != len(self.names):
                raise ConfigError(f"{len(self.names)} bands, {len(self.scaling)} rules in scaling; give one of each per band")
            if len(set(self.scaling)) == 1:  # equal bands have one form, whichever way they were written
                object.__setattr__(self, "scaling", self.scaling[0])
            elif joint := [rule.value for rule in self.rules if rule in _JOINT and isinstance(rule, ScalingRule)]:
                raise ConfigError(
                    f"scaling = {joint[0]!r} is a rule for all bands together; of single bands use "
                    + _RULES.replace("by_type, stretch, ", "")
                )
        if not self.mean and not self.std and self.is_8bit and set(self.names) <= _IMAGENET.keys():
            object.__setattr__(self, "mean", tuple(_IMAGENET[name][0] for name in self.names))
            object.__setattr__(self, "std", tuple(_IMAGENET[name][1] for name in self.names))
        if self.mean or self.std:
            self._check_moments()

    def _check_names(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ConfigError(f"bands = {shortened(list(self.names))} must be at least one, and differ from each other")
        for name in self.names:
            check_text("bands", name)
            if len(name) > 255:
                raise ConfigError(f"bands = {shortened(name)} has {len(name)} characters; use at most 255")

    def _check_moments(self) -> None:
        if not len(self.names) == len(self.mean) == len(self.std):
            counts = f"{len(self.names)} bands, {len(self.mean)} means, {len(self.std)} stds"
            raise ConfigError(f"{counts}; give one of each per band, or leave out both means and stds")
        if not all(1e-6 <= value <= 1e6 for value in self.std) or not all(abs(value) <= 1e6 for value in self.mean):
            raise ConfigError(f"mean = {list(self.mean)} and std = {list(self.std)} must be moderate numbers, std positive")

    @property
    def rules(self) -> tuple[BandRule, ...]:
        """Rule of each band."""
        return self.scaling if isinstance(self.scaling, tuple) else (self.scaling,) * len(self.names)

    @property
    def joint_rule(self) -> ScalingRule | None:
        """Rule that scales all bands together; ``None`` where each is scaled for itself."""
        return self.scaling if isinstance(self.scaling, ScalingRule) and self.scaling in _JOINT else None

    @property
    def is_8bit(self) -> bool:
        """Whether values reach the network in 256 steps, all bands scaled together; else in float32."""
        return self.joint_rule is not None

    @property
    def is_measured(self) -> bool:
        """Whether mean and std are known."""
        return bool(self.mean)

    @property
    def rgb(self) -> tuple[int, int, int] | None:
        """Indices of the red, green and blue bands; ``None`` where one is missing."""
        if not set(self.names) >= set(RGB):
            return None
        red, green, blue = map(self.names.index, RGB)
        return red, green, blue

    @property
    def described_scaling(self) -> str:
        """Rules in words: ``reflectance``, or ``red as_is, height range 0 to 30``."""
        words = [f"range {r.low:g} to {r.high:g}" if isinstance(r, ValueRange) else r.value for r in self.rules]
        if not isinstance(self.scaling, tuple):
            return words[0]
        return ", ".join(f"{name} {word}" for name, word in zip(self.names, words, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON and TOML; mean and std are left out where they are not known."""
        plain: dict[str, Any] = {"names": list(self.names)}
        if self.is_measured:
            plain |= {"mean": list(self.mean), "std": list(self.std)}
        rules = [{"range": [r.low, r.high]} if isinstance(r, ValueRange) else r.value for r in self.rules]
        is_one = not isinstance(self.scaling, tuple)
        return plain | {"scaling": rules[0] if is_one else dict(zip(self.names, rules, strict=True))}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Bands:
        """Inverse of :meth:`to_dict`.

        Raises:
            ConfigError: an unknown key or rule, a band without a rule, or what the class itself refuses.
        """
        if isinstance(plain, Mapping) and "scaling" in plain:
            names = checked("bands.names", plain.get("names", RGB), tuple[str, ...])
            plain = {**plain, "scaling": _scaling_from_plain(plain["scaling"], names)}
        return from_plain(cls, plain)

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return ", ".join(self.names)


def _scaling_from_plain(plain: Any, names: tuple[str, ...]) -> BandRule | tuple[BandRule, ...]:
    """Read one rule for all bands, or a table of one per band."""
    # A table of one list is a range for all bands; a band may be called "range", but its rule is no list.
    if not isinstance(plain, Mapping) or (set(plain) == {"range"} and isinstance(plain["range"], (list, tuple))):
        return _rule_from_plain("scaling", plain)
    for name in plain:
        if name not in names:
            raise ConfigError(f"scaling has a rule for {shortened(name)}, which is no band{suggestion(str(name), names)}")
    missing = [name for name in names if name not in plain]
    if missing:
        raise ConfigError(f"scaling has no rule for {', '.join(missing)}; give one for each of {', '.join(names)}")
    return tuple(_rule_from_plain(f"scaling.{name}", plain[name]) for name in names)


def _rule_from_plain(key: str, plain: Any) -> BandRule:
    if isinstance(plain, (ScalingRule, ValueRange)):
        return plain
    if isinstance(plain, Mapping) and set(plain) == {"range"}:
        low, high = checked(f"{key}.range", plain["range"], tuple[float, float])
        return ValueRange(low, high)
    if not isinstance(plain, str) or plain not in {rule.value for rule in ScalingRule}:
        raise ConfigError(f"{key} = {shortened(plain)} is not one of {_RULES}")
    return ScalingRule(plain)
