"""Weights add up to one, fade where they should, and nowhere else."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geoglnet.blending import axis_weights, core_reach, core_weights, least_overlap
from geoglnet.windows import patch_offsets


@given(length=st.integers(1, 700), size=st.integers(1, 150), ramp=st.integers(0, 200), data=st.data())
def test_patch_weights_add_up_to_one_however_many_patches_overlap(
    length: int, size: int, ramp: int, data: st.DataObject
) -> None:
    starts = patch_offsets(length, size, data.draw(st.integers(0, size - 1)))
    size = min(size, length)
    weights = axis_weights(starts, size, length, ramp)
    total = np.zeros(length)
    for start, row in zip(starts, weights, strict=True):
        total[start : start + size] += row
    assert weights.shape == (len(starts), size)
    assert weights.dtype == np.float32
    assert weights.min() >= 0
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_patch_weights_rise_linearly_at_interior_edges_and_stay_one_at_the_regions_border() -> None:
    weights = axis_weights((0, 90, 180), 100, 280, 10)
    rise = (np.arange(10) + 0.5) / 10
    np.testing.assert_allclose(weights[0], [*np.ones(90), *rise[::-1]], atol=1e-6)
    np.testing.assert_allclose(weights[1], [*rise, *np.ones(80), *rise[::-1]], atol=1e-6)
    np.testing.assert_allclose(weights[2], [*rise, *np.ones(90)], atol=1e-6)


def test_a_single_patch_weighs_one_everywhere() -> None:
    assert axis_weights((0,), 7, 7, 7).tolist() == [[1.0] * 7]


@given(length=st.integers(2, 700), size=st.integers(2, 150), data=st.data())
def test_weights_are_small_at_interior_edges_when_the_ramp_is_the_overlap(length: int, size: int, data: st.DataObject) -> None:
    starts = patch_offsets(length, size, data.draw(st.integers(0, size - 1)))
    size = min(size, length)
    ramp = least_overlap(starts, size)
    weights = axis_weights(starts, size, length, ramp)
    if ramp >= 1:
        assert (weights[1:, 0] <= 0.5 + 1e-6).all()
        assert (weights[:-1, -1] <= 0.5 + 1e-6).all()
    if 8 <= ramp <= size // 2:
        assert (weights[1:, 0] < 0.1).all()


def test_least_overlap_is_that_of_the_closest_neighbors() -> None:
    assert least_overlap((0, 390, 779), 500) == 110
    assert least_overlap((0,), 500) == 500


@st.composite
def core_borders(draw: st.DrawFn) -> tuple[tuple[int, ...], int]:
    """Cores of one width and a last one of any width, and a blend zone no wider than a whole core."""
    core, count, last = draw(st.integers(1, 80)), draw(st.integers(0, 6)), draw(st.integers(1, 120))
    edges = (*range(0, core * count + 1, core), core * count + last)
    return edges, draw(st.integers(0, core))


@given(core_borders())
@settings(max_examples=200)
def test_core_weights_are_a_partition_of_unity_with_any_last_core(case: tuple[tuple[int, ...], int]) -> None:
    edges, blend = case
    total = np.zeros(edges[-1])
    for index in range(len(edges) - 1):
        start, stop = core_reach(edges, index, blend)
        total[start:stop] += core_weights(edges, index, blend)
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(core_borders())
def test_pixels_before_a_border_are_final_once_the_core_before_it_is_done(case: tuple[tuple[int, ...], int]) -> None:
    edges, blend = case
    for index, (border, _) in enumerate(pairwise(edges)):
        assert core_reach(edges, index, blend)[0] == border


def test_a_core_fades_over_the_zone_that_begins_on_its_border() -> None:
    first, second = core_weights((0, 6, 12), 0, 4), core_weights((0, 6, 12), 1, 4)
    assert first.tolist() == [1, 1, 1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125]
    assert second.tolist() == [0.125, 0.375, 0.625, 0.875, 1, 1]


@given(size=st.integers(20, 60), ring=st.integers(0, 6), extra=st.integers(1, 8), count=st.integers(1, 5))
def test_a_ring_has_no_weight_inside_the_region_and_weights_still_add_up(size: int, ring: int, extra: int, count: int) -> None:
    overlap = 2 * ring + extra
    starts = tuple(i * (size - overlap) for i in range(count))
    length = starts[-1] + size
    weights = axis_weights(starts, size, length, extra, ring)
    total = np.zeros(length)
    for start, row in zip(starts, weights, strict=True):
        total[start : start + size] += row
        assert start == 0 or not row[:ring].any()
        assert start + size == length or not row[size - ring :].any()
    np.testing.assert_allclose(total, 1, atol=1e-6)
