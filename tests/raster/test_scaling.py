"""From raster values to 0–255."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoglnet.bands import BandRule, Bands, ValueRange
from geoglnet.config import ScalingRule
from geoglnet.errors import ConfigError
from geoglnet.raster.scaling import (
    BandSample,
    BandScaling,
    Scaling,
    choose_band_scaling,
    choose_scaling,
    find_collar,
    find_sentinel,
    negative_reflectance,
    scaling_from_dict,
)


def test_8_bit_values_are_taken_as_they_are_without_a_copy() -> None:
    image = np.arange(256, dtype=np.uint8)
    assert choose_scaling(image, "uint8").apply(image) is image


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_values_within_0_to_255_are_taken_as_they_are(dtype: str) -> None:
    values = np.array([0, 3, 255], dtype=dtype)
    scaling = choose_scaling(values, dtype)
    assert scaling.is_identity
    assert scaling.apply(values).tolist() == [0, 3, 255]


def test_floats_from_0_to_1_are_multiplied_by_255() -> None:
    values = np.array([0, 0.2, 1], dtype=np.float32)
    assert choose_scaling(values, "float32").apply(values).tolist() == [0, 51, 255]


def fractions(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).beta(2, 5, 20_000).astype(np.float32)


@pytest.mark.parametrize("share", [0.0001, 0.009])
@pytest.mark.parametrize("glint", [1.02, 1.9])
def test_a_glint_above_1_leaves_fractions_fractions(share: float, glint: float) -> None:
    values = fractions()
    values[: max(1, int(share * values.size))] = glint
    scaling = choose_scaling(values, "float32")
    assert (scaling.low, scaling.high, scaling.doubt) == (0, 1, "")
    assert scaling.apply(np.array([0.2, glint], np.float32)).tolist() == [51, 255]
    values[1000:5000] = -0.02  # too much was taken away for the haze
    assert choose_scaling(values, "float32").high == 1


def test_fractions_and_many_values_above_1_are_stretched() -> None:
    values = fractions()
    values[:600] = np.linspace(1, 1.8, 600)
    assert "percentile" in choose_scaling(values, "float32").description


def test_values_far_above_1_are_clipped_with_a_warning() -> None:
    values = fractions()
    values[:5] = 65535
    scaling = choose_scaling(values, "float32")
    assert (scaling.low, scaling.high) == (0, 1)
    assert "scaling=" in scaling.doubt
    assert "65535" in scaling.doubt


def test_a_collar_of_zeros_makes_no_fractions_of_8_bit_values() -> None:
    values = np.concatenate([np.zeros(99_000), np.random.default_rng(0).integers(1, 256, 1000)]).astype(np.float32)
    assert choose_scaling(values, "float32").is_identity


def test_percent_is_read_as_percent_with_a_warning_and_whole_numbers_are_not() -> None:
    values = fractions() * 100
    scaling = choose_scaling(values, "float32")
    assert (scaling.low, scaling.high) == (0, 100)
    assert "percent" in scaling.doubt
    values[:20] = 103.5
    assert choose_scaling(values, "float32").high == 100
    whole = choose_scaling(np.rint(values), "float32")
    assert (whole.is_identity, whole.doubt) == (True, "")


def test_dark_integers_are_doubted() -> None:
    scaling = choose_scaling(np.array([3, 180], np.uint16), "uint16")
    assert scaling.is_identity
    assert "uint16 values of 3 to 180 are taken as 8-bit ones" in scaling.doubt


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_a_value_that_stands_for_none_is_found(dtype: str) -> None:
    values = np.arange(2, 255, dtype=dtype).repeat(40)
    assert find_sentinel(values) is None
    for sentinel in (-9999, -32768):
        assert find_sentinel(np.append(values, np.full(300, sentinel, dtype))) == sentinel
        assert find_sentinel(np.append(values, np.array([sentinel], dtype))) is None, "once is an accident"
    deep = np.linspace(-9999, 0, 5000).astype(dtype)
    assert find_sentinel(np.append(deep, np.full(300, -9999, dtype))) is None, "a sea is as deep as it is"


def test_the_largest_negative_float_stands_for_none() -> None:
    values = np.append(fractions(), np.full(300, np.finfo(np.float32).min, np.float32))
    assert find_sentinel(values) == np.finfo(np.float32).min
    assert find_sentinel(np.empty(0)) is None


def test_a_side_of_one_value_in_all_bands_is_a_collar() -> None:
    values = np.random.default_rng(0).random((3, 60, 80))
    valid = np.ones((60, 80), bool)
    assert find_collar(values, valid) is None
    values[:, :, -5:] = 0.25
    assert find_collar(values, valid) == 0.25
    values[1, :, -5:] = 0.5
    assert find_collar(values, valid) is None, "a color"
    values[1, :, -5:], valid[:, -5:] = 0.25, False
    assert find_collar(values, valid) is None, "known already"


def test_integers_0_and_1_are_not_fractions() -> None:
    values = np.array([0, 1], dtype=np.uint16)
    assert choose_scaling(values, "uint16").apply(values).tolist() == [0, 1]


def test_other_values_are_stretched_between_their_2nd_and_98th_percentile() -> None:
    values = np.arange(0, 10_001, dtype=np.uint16)
    scaling = choose_scaling(values, "uint16")
    assert (scaling.low, scaling.high) == (200, 9800)
    assert scaling.apply(np.array([0, 200, 5000, 9800, 60000], np.uint16)).tolist() == [0, 0, 128, 255, 255]
    assert str(scaling) == "values 200 to 9800 read as 0 to 255 (2nd to 98th percentile of 0 to 10000)"


def test_only_a_contrast_that_the_model_was_not_trained_on_counts_as_stretched() -> None:
    wide = np.linspace(500, 9000, 1000)
    assert choose_scaling(wide.astype(np.uint16), "uint16").is_stretched
    assert choose_scaling(wide + 0.5, "float32").is_stretched
    assert not choose_scaling(wide.astype(np.uint16), "uint16", ScalingRule.STRETCH).is_stretched
    assert not choose_scaling(np.linspace(0, 1, 1000), "float32").is_stretched


def test_a_constant_scene_is_black_and_divides_by_nothing() -> None:
    values = np.full(50, 1234, np.uint16)
    assert choose_scaling(values, "uint16").apply(values).max() == 0


def test_a_scene_without_valid_values_has_a_scaling() -> None:
    assert choose_scaling(np.full(5, np.nan, np.float32), "float32").is_identity


def test_values_that_are_not_finite_become_numbers() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0.5], np.float32)
    assert Scaling(0, 1).apply(values).tolist() == [0, 255, 0, 128]


@pytest.mark.parametrize(("low", "high"), [(5, 5), (6, 5), (float("nan"), 1), (0, float("inf"))])
def test_a_scaling_needs_two_ends(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="low end below its high end"):
        Scaling(low, high)


@given(st.lists(st.integers(-30_000, 30_000), min_size=1, max_size=50), st.integers(0, 49))
@settings(max_examples=50)
def test_scaling_keeps_the_order_of_values(values: list[int], position: int) -> None:
    array = np.sort(np.array(values, dtype=np.int16))
    scaled = choose_scaling(array, "int16").apply(array)
    assert (np.diff(scaled.astype(int)) >= 0).all()
    assert scaled.dtype == np.uint8


def chosen(rule: BandRule, *samples: BandSample) -> BandScaling:
    return choose_band_scaling(samples, Bands(tuple(f"b{i}" for i in range(len(samples))), scaling=rule))


def test_every_band_keeps_the_precision_of_its_sensor() -> None:
    twelve_bits = np.arange(4096, dtype=np.uint16)
    scaled = chosen(ValueRange(0, 4095), BandSample(twelve_bits)).apply(twelve_bits[None])
    assert scaled.dtype == np.float32
    assert np.unique(scaled).size == 4096
    assert (scaled[0, 0], scaled[0, -1]) == (0, 255)


def test_reflectance_is_what_the_raster_s_scale_and_offset_say() -> None:
    values = np.array([1000, 6000, 11000], np.uint16)
    scaling = chosen(ScalingRule.REFLECTANCE, BandSample(values, 1e-4, -0.1))
    assert scaling.apply(values[None]).round(3).tolist() == [[0, 127.5, 255]]
    assert "after the raster's scale 0.0001 and offset -0.1" in str(scaling)
    assert scaling.doubts == ()


@pytest.mark.parametrize(
    ("factor", "dtype", "words"), [(1, "float32", ""), (100, "float32", "percent"), (10_000, "uint16", "10000")]
)
def test_the_unit_of_reflectance_without_a_scale_is_found_and_a_guess_is_a_warning(factor: int, dtype: str, words: str) -> None:
    values = fractions()
    values[:3] = 1.3  # glints
    stored = (values * factor).astype(dtype)
    scaling = chosen(ScalingRule.REFLECTANCE, BandSample(stored))
    assert np.abs(scaling.apply(stored[None])[0] / 255 - values).max() < 2e-4
    assert words in "".join(scaling.doubts)
    assert bool(scaling.doubts) == bool(words)


def test_a_dark_band_is_taken_in_the_unit_of_the_others() -> None:
    dark, bright = fractions() * np.float32(1.2), fractions(1) * 100
    scaling = chosen(ScalingRule.REFLECTANCE, BandSample(dark), BandSample(bright))
    assert [part.high for part in scaling.scalings] == [100, 100]


def test_percentiles_are_each_band_s_own() -> None:
    low, high = np.arange(0, 101, dtype=np.float32), np.arange(5000, 5101, dtype=np.float32)
    scaling = chosen(ScalingRule.PERCENTILES, BandSample(low), BandSample(high))
    assert [(part.low, part.high) for part in scaling.scalings] == [(2, 98), (5002, 5098)]
    assert "all values are 7" in chosen(ScalingRule.PERCENTILES, BandSample(np.full(9, 7.0))).doubts[0]


def test_a_range_in_another_unit_is_doubted() -> None:
    feet = np.linspace(900, 1000, 50)
    (doubt,) = chosen(ValueRange(0, 30), BandSample(feet)).doubts
    assert doubt == "b0: 100% of the values lie outside of 0 to 30, they are 900 to 1000; is it another unit?"
    assert chosen(ValueRange(270, 310), BandSample(feet, 0.3048)).doubts == ()


def test_negative_reflectance_is_kept_and_described_where_it_prevails() -> None:
    values = np.array([-0.02, 0.1, 0.2, 0.3], np.float32)
    scaling = chosen(ScalingRule.REFLECTANCE, BandSample(values))
    assert scaling.apply(values[None])[0, 0] == pytest.approx(-5.1, abs=1e-3)
    assert scaling.doubts == ()

    def negative(*samples: BandSample) -> str:
        bands = Bands(tuple(f"b{i}" for i in range(len(samples))), scaling=ScalingRule.REFLECTANCE)
        return negative_reflectance(samples, choose_band_scaling(samples, bands), bands)

    water, land = BandSample(values - np.float32(0.3)), BandSample(values)
    assert negative(land) == negative(water, land, land) == "", "infrared of a sea may be negative"
    assert negative(BandSample(np.full(9, -0.01))) == "", "so may all of it, slightly"
    assert "% of the reflectance is negative (it is -0.32 to" in negative(water)
    stored = BandSample(np.arange(100, 800, dtype=np.uint16), 1e-4, -0.1)
    assert negative(stored) == "100% of the reflectance is negative (it is -0.09 to -0.0201 with scale 0.0001 and offset -0.1)"


@pytest.mark.parametrize("scale", [0.0, -1e-4, float("nan")])
def test_a_scale_that_turns_dark_into_bright_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match=r"band b0 has scale .* must be positive"):
        chosen(ScalingRule.REFLECTANCE, BandSample(np.arange(5.0), scale))


def test_values_without_a_number_are_lost_and_glints_are_bounded() -> None:
    scaling = BandScaling(("a", "b"), (Scaling(0, 1), Scaling(0, 255)), (None, -9999.0))
    values = np.array([[np.nan, np.inf, 0.5, 1e9], [1, 2, -9999, 4]], np.float64)
    scaled = scaling.apply(values)
    assert np.isnan(scaled).tolist() == [[True, True, False, False], [False, False, True, False]]
    assert (scaled[0, 2], scaled[0, 3]) == (127.5, 5 * 255)


def test_a_stored_scaling_comes_back() -> None:
    for scaling in (Scaling(2, 9, "why"), BandScaling(("a",), (Scaling(0, 1, "why", "doubt"),), (-9999.0,))):
        assert scaling_from_dict(json.loads(json.dumps(asdict(scaling)))) == scaling
