"""Coarse-to-fine: from the global branch's mask to the part of a region that is refined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoglnet.errors import ConfigError
from geoglnet.models.coarse_to_fine import (
    CoarseToFineConfig,
    foreground_place,
    foreground_ratio,
    relaxed_place,
    tight_place,
    without_specks,
)
from geoglnet.types import Place, Shape


def ellipse(shape: Shape, center: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    rows, cols = np.ogrid[: shape.height, : shape.width]
    return ((rows - center[0]) / radii[0]) ** 2 + ((cols - center[1]) / radii[1]) ** 2 <= 1


def area(place: Place) -> int:
    return (place[0].stop - place[0].start) * (place[1].stop - place[1].start)


shapes = st.builds(Shape, st.integers(40, 900), st.integers(40, 900))


@given(shape=shapes, data=st.data())
def test_a_relaxed_part_has_about_as_much_foreground_as_background_where_there_is_room(
    shape: Shape, data: st.DataObject
) -> None:
    radii = tuple(data.draw(st.floats(8, side / 4)) for side in shape)
    center = tuple(data.draw(st.floats(r, side - r)) for r, side in zip(radii, shape, strict=True))
    mask = ellipse(shape, center, radii)
    tight = tight_place(mask, shape)
    relaxed = relaxed_place(tight, mask.sum(), shape)
    assert all(a.start <= b.start and a.stop >= b.stop for a, b in zip(relaxed, tight, strict=True))
    assert 0.8 < foreground_ratio(mask, relaxed) < 1.25


def test_an_ellipse_is_relaxed_by_a_quarter() -> None:
    shape = Shape(1000, 1000)
    mask = ellipse(shape, (500, 500), (100, 200))
    tight = tight_place(mask, shape)
    assert math.sqrt(area(relaxed_place(tight, mask.sum(), shape)) / area(tight)) == pytest.approx(1.25, abs=0.02)


@given(shape=shapes, data=st.data(), least=st.integers(1, 300))
def test_parts_lie_inside_the_region_and_are_at_least_a_patch(shape: Shape, data: st.DataObject, least: int) -> None:
    cells = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    seed = data.draw(st.integers(0, 2**16))
    probabilities = np.random.default_rng(seed).random(cells, dtype=np.float32) ** 4
    config = CoarseToFineConfig(threshold=0.5, margin=data.draw(st.integers(0, 50)), least_cells=data.draw(st.integers(1, 3)))
    place = foreground_place(probabilities, shape, least, config)
    mask = without_specks(probabilities >= 0.5, config.least_cells)
    assert (place is None) == (not mask.any())
    if place is not None:
        for side, length in zip(place, shape, strict=True):
            assert 0 <= side.start < side.stop <= length
            assert side.stop - side.start >= min(least, length)
        inside = tight_place(mask, shape)
        assert all(a.start <= b.start and a.stop >= b.stop for a, b in zip(place, inside, strict=True))


def test_specks_are_dropped_and_touching_cells_kept() -> None:
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[4, 4] = mask[5, 5] = True
    kept = without_specks(mask, 2)
    assert not kept[0, 0]
    assert kept[4, 4]
    assert kept[5, 5]
    assert without_specks(mask, 1).sum() == 3


def test_large_foreground_is_not_relaxed_past_the_region() -> None:
    shape = Shape(100, 100)
    assert relaxed_place((slice(0, 100), slice(0, 90)), 8500, shape) == (slice(0, 100), slice(0, 100))
    assert foreground_ratio(np.ones((3, 3), bool)) == math.inf


@pytest.mark.parametrize("values", [{"threshold": 0.0}, {"threshold": 1.0}, {"margin": -1}, {"least_cells": 0}])
def test_settings_that_make_no_part_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="coarse-to-fine"):
        CoarseToFineConfig(**values)
