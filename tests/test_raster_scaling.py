"""From raster values to 0–255."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoglnet.errors import ConfigError
from geoglnet.raster.scaling import Scaling, choose_scaling


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


def test_integers_0_and_1_are_not_fractions() -> None:
    values = np.array([0, 1], dtype=np.uint16)
    assert choose_scaling(values, "uint16").apply(values).tolist() == [0, 1]


def test_other_values_are_stretched_between_their_2nd_and_98th_percentile() -> None:
    values = np.arange(0, 10_001, dtype=np.uint16)
    scaling = choose_scaling(values, "uint16")
    assert (scaling.low, scaling.high) == (200, 9800)
    assert scaling.apply(np.array([0, 200, 5000, 9800, 60000], np.uint16)).tolist() == [0, 0, 128, 255, 255]
    assert str(scaling) == "values 200 to 9800 read as 0 to 255 (2nd to 98th percentile of 0 to 10000)"


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
