"""Scales the values of a raster to the 0–255 that networks are trained on, by a rule that can be printed.

8-bit models take all bands scaled together and rounded (:class:`Scaling`), others each band for itself, in float32
(:class:`BandScaling`). The ends are chosen from a sample of the values. Thresholds below are the lessons of real scenes:
fractions that exceed 1 at a glint, percent, 8-bit values stored as 16-bit ones, undeclared nodata values, collars of zeros
around a rotated scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from geoglnet.bands import Bands, ValueRange
from geoglnet.config import ScalingRule
from geoglnet.errors import ConfigError
from geoglnet.message import Keyword
from geoglnet.raster.band_names import common_name

PERCENTILES = (2.0, 98.0)
DIM = 10.0  # 98th percentile that 8-bit values and percent exceed
HAZE = 0.1  # of full reflectance: how far below 0 dark pixels may lie after atmospheric correction
GLINT_SHARE = 0.01  # of the values that are not 0: how many may lie outside of the range of all others
SENTINELS = (-9999, -99999, -999, -32768, -32767, -2147483648, -1e20, 1e20, -3.4028234663852886e38, 3.4028234663852886e38)
"""Values that commonly stand for "no value"."""
_SENTINEL_SHARE = 0.0005  # of all values: fewer are noise, a collar has more
_APART = 0.02  # of the spread of all other values: how far from them a collar's value is at least
_CLIP = (-1.0, 5.0)  # times the range, of what is not rounded: a glint stays one and cannot outweigh its surroundings
_MOST_OUTSIDE = 0.5  # of a band's values, beyond which its rule is doubted
_SHADOW = -0.02  # reflectance of dark pixels after too much was taken away for the air
_FULL_REFLECTANCE = 10_000  # of integers without scale, as most products store it


@dataclass(frozen=True, slots=True)
class Scaling:
    """Linear stretch of raster values to 0–255; values outside are clipped.

    Args:
        low: value that becomes 0.
        high: value that becomes 255.
        description: reason for these values, for the log.
        doubt: warning about what else the values might be, and what to do then; empty where the rule is certain.
        is_stretched: whether the contrast is the scene's own, which a model that was trained on 8-bit values as they are does
            not know: its mean color would stand out beside such pixels.

    Raises:
        ConfigError: ``high`` is not above ``low``, or one of them is not finite.
    """

    low: float = 0.0
    high: float = 255.0
    description: str = "given by the caller"
    doubt: str = ""
    is_stretched: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"scaling from {self.low:g} to {self.high:g} must have a low end below its high end")

    @property
    def doubts(self) -> tuple[str, ...]:
        """Warnings, each with the way out."""
        return (self.doubt,) if self.doubt else ()

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


@dataclass(frozen=True, slots=True)
class BandScaling:
    """Linear scaling of each band for itself, to float32 on the 0–255 scale: nothing is rounded, little is clipped.

    Args:
        names: of the bands, in order.
        scalings: of each.
        missing: value of each that stands for none, where there is one.
    """

    names: tuple[str, ...]
    scalings: tuple[Scaling, ...]
    missing: tuple[float | None, ...] = ()

    def apply(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Scale a ``(C, ...)`` array of any real type; values that are not finite, or stand for none, become NaN.

        Memory: the float32 copy, 4 bytes per value.
        """
        with np.errstate(over="ignore"):  # float64 beyond float32, of pixels without a value
            scaled = image.astype(np.float32)
        missing = self.missing or (None,) * len(scaled)
        for band, source, scaling, none in zip(scaled, image, self.scalings, missing, strict=True):
            is_lost = ~np.isfinite(band)
            if none is not None:
                is_lost |= source == np.asarray(none).astype(np.result_type(source.dtype, np.float32))
            band -= np.float32(scaling.low)
            band *= np.float32(255 / (scaling.high - scaling.low))
            band[is_lost] = np.nan
        return np.clip(scaled, 255 * _CLIP[0], 255 * _CLIP[1], out=scaled)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Warnings about what the values of single bands might be, each with the way out."""
        doubts = self._grouped([scaling.doubt for scaling in self.scalings])
        return tuple(f"{names}: " + doubt for doubt, names in doubts.items() if doubt)

    def _grouped(self, words: Sequence[str]) -> dict[str, str]:
        """Gather the names of the bands of which the same is said, by what is said."""
        named: dict[str, list[str]] = {}
        for band, word in zip(self.names, words, strict=True):
            named.setdefault(word, []).append(band)
        return {word: ", ".join(bands) for word, bands in named.items()}

    def __str__(self) -> str:
        rules = self._grouped([str(scaling) for scaling in self.scalings])
        lost = [
            f"{name} {none:.10g} is no value" for name, none in zip(self.names, self.missing, strict=False) if none is not None
        ]
        return "; ".join([*(f"{names}: {rule}" for rule, names in rules.items()), *lost])


def scaling_from_dict(plain: Mapping[str, Any]) -> Scaling | BandScaling:
    """Restore a scaling from the dictionary that :func:`dataclasses.asdict` makes of it.

    Raises:
        ConfigError: ends that are not in order.
        TypeError: another dictionary.
    """
    if "scalings" not in plain:
        return Scaling(**plain)
    return BandScaling(tuple(plain["names"]), tuple(Scaling(**part) for part in plain["scalings"]), tuple(plain["missing"]))


def same_for_all(scaling: Scaling, bands: Bands) -> Scaling | BandScaling:
    """Return a scaling that the user gave as the bands' model takes it: for all bands together, or the same for each."""
    return scaling if bands.is_8bit else BandScaling(bands.names, (scaling,) * len(bands))


@dataclass(frozen=True, slots=True)
class BandSample:
    """Sample of the values of one band, and what its raster says about them.

    Args:
        values: valid values, any shape; may be empty.
        scale: of the raster: what a value is multiplied by,
        offset: and what is added to it then.
    """

    values: npt.NDArray[Any]
    scale: float = 1.0
    offset: float = 0.0

    @property
    def finite(self) -> npt.NDArray[Any]:
        finite: npt.NDArray[Any] = self.values[np.isfinite(self.values)]
        return finite

    @property
    def is_scaled(self) -> bool:
        """Whether the raster has a scale or an offset."""
        return (self.scale, self.offset) != (1, 0)

    def between(self, low: float, high: float, description: str) -> Scaling:
        """Make the scaling whose ends are physical values, after scale and offset; doubted where most values lie outside."""
        if self.is_scaled:
            description += f", after the raster's scale {self.scale:g} and offset {self.offset:g}"
        ends = ((low - self.offset) / self.scale, (high - self.offset) / self.scale)
        scaling, finite = Scaling(*ends, description), self.finite
        outside = float(np.mean((finite < scaling.low) | (finite > scaling.high))) if finite.size else 0.0
        if outside <= _MOST_OUTSIDE and finite.size:
            return scaling
        found = f"{outside:.0%} of the values lie outside of {scaling.low:g} to {scaling.high:g}, they are "
        doubt = found + f"{finite.min():g} to {finite.max():g}; is it another unit?" if finite.size else "no valid value found"
        return Scaling(*ends, description, doubt)


def choose_band_scaling(samples: Sequence[BandSample], bands: Bands) -> BandScaling:
    """Choose the scaling of each band by its own rule.

    Args:
        samples: of each band.
        bands: of the model, with their rules; none for all bands together.

    Raises:
        ConfigError: a raster's scale is not positive.
    """
    for name, sample in zip(bands.names, samples, strict=True):
        if not sample.scale > 0 or not np.isfinite([sample.scale, sample.offset]).all():
            raise ConfigError(
                f"band {name} has scale {sample.scale:g} and offset {sample.offset:g}; the scale must be positive, "
                "correct it with gdal_edit.py -scale"
            )
    # One unit for all bands without a scale: a dark band alone would be taken for another.
    unscaled = [
        sample.finite.ravel()
        for sample, rule in zip(samples, bands.rules, strict=True)
        if rule is ScalingRule.REFLECTANCE and not sample.is_scaled
    ]
    full, unit, doubt = _unit_of(np.concatenate(unscaled)) if unscaled else (1.0, "", "")
    scalings = []
    for sample, rule in zip(samples, bands.rules, strict=True):
        if isinstance(rule, ValueRange):
            scalings.append(sample.between(rule.low, rule.high, f"range {rule.low:g} to {rule.high:g}"))
        elif rule is ScalingRule.AS_IS:
            scalings.append(BandSample(sample.values).between(0, 255, "as they are"))
        elif rule is ScalingRule.PERCENTILES:
            scalings.append(_of_percentiles(sample.finite))
        elif sample.is_scaled:
            scalings.append(sample.between(0, 1, "reflectance"))
        else:
            made = sample.between(0, full, f"reflectance, {unit}")
            scalings.append(Scaling(made.low, made.high, made.description, made.doubt or doubt))
    return BandScaling(bands.names, tuple(scalings))


def negative_reflectance(samples: Sequence[BandSample], scaling: BandScaling, bands: Bands) -> str:
    """Describe reflectance that is mostly negative, over all bands together; an empty text where it is not.

    Water and shadows are slightly negative after atmospheric correction, above all in infrared; a wrong offset, or values that
    are no reflectance, such as decibels, are so nearly everywhere.

    Args:
        samples: of each band.
        scaling: chosen for them.
        bands: of the model, with their rules.
    """
    values = [
        (sample.finite.ravel() - chosen.low) / (chosen.high - chosen.low)
        for sample, chosen, rule in zip(samples, scaling.scalings, bands.rules, strict=True)
        if rule is ScalingRule.REFLECTANCE
    ]
    physical = np.concatenate(values) if values else np.empty(0)
    if not physical.size or np.mean(physical < _SHADOW) <= _MOST_OUTSIDE:
        return ""
    units = {f" with scale {s.scale:g} and offset {s.offset:g}" if s.is_scaled else " without a scale" for s in samples}
    ends = f"{physical.min():.3g} to {physical.max():.3g}{units.pop() if len(units) == 1 else ''}"
    return f"{np.mean(physical < 0):.0%} of the reflectance is negative (it is {ends})"


def _of_percentiles(finite: npt.NDArray[Any]) -> Scaling:
    if not finite.size:
        return Scaling(description="no valid value found", doubt="no valid value found")
    scaling = _stretched(finite)
    if finite.min() < finite.max():
        return scaling
    return Scaling(scaling.low, scaling.high, scaling.description, f"all values are {finite.min():g}")


def _unit_of(finite: npt.NDArray[Any]) -> tuple[float, str, str]:
    """Find the number that stands for a reflectance of 1 where the raster has no scale; its name, and a doubt."""
    if not finite.size:
        return 1.0, "from 0 to 1", ""
    bright, name = float(np.percentile(finite, PERCENTILES[1])), finite.dtype.name
    way_out = "; if that is wrong, give the raster its scale and offset (gdal_edit.py -scale S -offset O) or set "
    is_float = np.issubdtype(finite.dtype, np.floating)
    if is_float and bright <= 1.6:  # snow, glints and slopes toward the sun reach this far
        return 1.0, "from 0 to 1", ""
    full, unit = (255.0, "8 bits") if name == "uint8" else (float(_FULL_REFLECTANCE), f"times {_FULL_REFLECTANCE}")
    if is_float and bright <= 160:
        full, unit = 100.0, "in percent"
    guess = f"{name} values of {finite.min():g} to {finite.max():g} without a scale are taken as reflectance {unit}"
    return full, unit, guess + way_out + Keyword("scaling")


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
        return Scaling(description="no valid value found", doubt="no valid value found")
    if rule is ScalingRule.STRETCH:
        return _stretched(finite)  # as the model's training scenes were
    if np.issubdtype(dtype, np.floating):
        return _of_floats(finite, np.dtype(dtype).name)
    least, most = float(finite.min()), float(finite.max())
    if least >= 0 and most <= 255:
        return Scaling(
            description=f"{np.dtype(dtype).name} within 0 to 255",
            doubt=f"{np.dtype(dtype).name} values of {least:g} to {most:g} are taken as 8-bit ones; "
            "if the scene is merely dark, set its black and white values with " + Keyword("scaling"),
        )
    return replace(_stretched(finite), is_stretched=True)


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


def stands_apart(collar: float, others: npt.NDArray[Any]) -> bool:
    """Return whether the value of a collar is 0 or an end of its type, and no other value is near it.

    Water, shadow and snow come close to such a value in some band somewhere; what a program filled a frame with stands alone.

    Args:
        collar: value of all bands along a side of the scene.
        others: valid values of all other pixels, any shape.
    """
    ends = (np.iinfo(others.dtype).min, np.iinfo(others.dtype).max) if np.issubdtype(others.dtype, np.integer) else ()
    finite = others[np.isfinite(others)].astype(np.float64)
    if collar not in (0, *ends) or not finite.size:
        return False
    low, high = np.percentile(finite, PERCENTILES)
    return bool(np.abs(finite - collar).min() > _APART * (high - low) > 0)


def is_expected(value: float, bands: Bands, units: Sequence[tuple[float, float]]) -> bool:
    """Return whether a value of all bands lies in the ranges that their rules name, and none is a color: ground of height 0.

    Of colors it does not count: a range from 0 on says nothing about the collar of an orthophoto.

    Args:
        value: as stored.
        bands: of a model, with its rules.
        units: scale and offset of every band.
    """
    return all(
        isinstance(rule, ValueRange) and not common_name(name) and rule.low <= value * scale + offset <= rule.high
        for name, rule, (scale, offset) in zip(bands.names, bands.rules, units, strict=True)
    )


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
    return replace(_stretched(finite), is_stretched=True)


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
