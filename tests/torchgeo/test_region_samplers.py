"""Samplers of regions: every labeled pixel is reached, borders are not favored or avoided, and all follows from the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from shapely import Polygon, box
from torch.utils.data import DataLoader
from torchgeo.datasets import GeoDataset, stack_samples
from torchgeo.samplers import GeoSampler, Units

from geoglnet.errors import ConfigError, DatasetError
from geoglnet.torchgeo import BalancedRegionSampler, GriddedRegionSampler, RandomRegionSampler, RegionGeoSampler
from geoglnet.torchgeo.adapter import resolved

pytestmark = pytest.mark.smoke

Box = tuple[int, int, int, int]


class Drawn(GeoDataset):
    """A GeoDataset of any boxes (left, bottom, right, top); its labels are ``labels`` from the upper left corner of all."""

    def __init__(self, boxes: Sequence[Box], res: float = 1.0, labels: Any = None) -> None:
        days = pd.date_range("2020-01-01", periods=len(boxes))
        index = pd.IntervalIndex.from_arrays(days, days + pd.Timedelta(hours=1), closed="both", name="datetime")
        geometry = [box(*np.array(b) * res) for b in boxes]
        self.index = geopandas.GeoDataFrame({"filepath": ["a"] * len(boxes)}, index=index, geometry=geometry, crs=32736)
        self._res = (res, res)
        self.labels = labels

    def __getitem__(self, index: Any) -> dict[str, Any]:
        x, y, _ = resolved(self, index)
        left, _, _, top = self.index.total_bounds
        rows = slice(round((top - y.stop) / self.res[1]), round((top - y.start) / self.res[1]))
        cols = slice(round((x.start - left) / self.res[0]), round((x.stop - left) / self.res[0]))
        mask = np.zeros((rows.stop - rows.start, cols.stop - cols.start)) if self.labels is None else self.labels[rows, cols]
        return {"mask": torch.from_numpy(np.array(mask)).long()}


def pixels(place: Any, res: float = 1.0) -> tuple[int, int, int, int]:
    """Left, bottom, right and top of a query in pixels, which are whole."""
    values = [v / res for v in (place[0].start, place[1].start, place[0].stop, place[1].stop)]
    assert np.allclose(values, np.round(values))
    return tuple(round(v) for v in values)  # type: ignore[return-value]


sides = st.integers(1, 60)
some_boxes = st.lists(
    st.tuples(st.integers(-50, 50), st.integers(-50, 50), sides, sides).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])),
    min_size=1,
    max_size=3,
)


@given(boxes=some_boxes, height=st.integers(1, 40), width=st.integers(1, 40), res=st.sampled_from([1.0, 0.3, 10.0]))
@settings(max_examples=60)
def test_gridded_regions_cover_every_pixel(boxes: list[Box], height: int, width: int, res: float) -> None:
    dataset = Drawn(boxes, res)
    for stride in (None, max(1, min(height, width) // 2)):
        sampler = GriddedRegionSampler(dataset, (height, width), stride=stride)
        places = list(sampler)
        assert len(places) == len(sampler)
        seen = np.zeros((300, 300), bool)
        for place in places:
            left, bottom, right, top = (v + 120 for v in pixels(place, res))
            assert (top - bottom, right - left) == (height, width)
            seen[bottom:top, left:right] = True
        for left, bottom, right, top in boxes:
            assert seen[bottom + 120 : top + 120, left + 120 : right + 120].all()


def test_gridded_regions_cover_an_area_of_interest_and_no_more_than_it_needs() -> None:
    triangle = Polygon([(0, 0), (100, 0), (0, 100)])
    places = list(GriddedRegionSampler(Drawn([(0, 0, 100, 100)]), 25, roi=triangle))
    boxes = [box(*pixels(place)) for place in places]
    assert triangle.difference(geopandas.GeoSeries(boxes).union_all()).area == pytest.approx(0)
    assert all(triangle.intersection(b).area > 0 for b in boxes)
    assert len(places) == 10  # of 16


def chi_square(counts: Counter[int], places: int, draws: int) -> float:
    return sum((counts[place] - draws / places) ** 2 / (draws / places) for place in range(places))


def test_random_regions_begin_at_every_place_equally_often_at_borders_too() -> None:
    sampler = RandomRegionSampler(Drawn([(0, 0, 20, 30)]), 8, length=10_000, generator=1)
    found = [pixels(place) for place in sampler]
    for axis, places in ((0, 13), (1, 23)):
        counts = Counter(place[axis] for place in found)
        assert set(counts) == set(range(places))  # the first and the last too
        assert chi_square(counts, places, 10_000) < chi2.ppf(0.999, places - 1)


small_sides = st.integers(1, 6)


@given(height=small_sides, width=small_sides, size=st.tuples(small_sides, small_sides), seed=st.integers(0, 2**32))
@settings(max_examples=12)
def test_every_place_in_an_entry_is_drawn_and_no_other(height: int, width: int, size: tuple[int, int], seed: int) -> None:
    sampler = RandomRegionSampler(Drawn([(0, 0, width, height)]), size, length=1200, generator=seed)
    found = {pixels(place)[:2] for place in sampler}
    bottoms, lefts = (
        range(min(0, side - part), max(0, side - part) + 1) for side, part in zip((height, width), size, strict=True)
    )
    assert found == {(left, bottom) for left in lefts for bottom in bottoms}  # 36 of them at most, each 33 times on average


def test_places_of_several_entries_are_drawn_by_area_and_evenly_in_each() -> None:
    boxes = [(0, 0, 12, 16), (100, 50, 132, 56), (200, 0, 204, 4)]  # the last is smaller than a region
    found = Counter(pixels(place)[:2] for place in RandomRegionSampler(Drawn(boxes), (6, 8), length=10_000, generator=5))
    area = sum((right - left) * (top - bottom) for left, bottom, right, top in boxes)
    expected = {}
    for left, bottom, right, top in boxes:
        slack_x, slack_y = right - left - 8, top - bottom - 6
        starts = [
            (left + x, bottom + y)
            for x in range(min(0, slack_x), max(0, slack_x) + 1)
            for y in range(min(0, slack_y), max(0, slack_y) + 1)
        ]
        expected |= dict.fromkeys(starts, 10_000 * (right - left) * (top - bottom) / area / len(starts))
    assert set(found) == set(expected)
    statistic = sum((found[start] - mean) ** 2 / mean for start, mean in expected.items())
    assert statistic < chi2.ppf(0.999, len(expected) - 1)


@given(
    labels=st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).choice([0, 1, 2, 255], (5, 6)).astype(np.uint8)),
    size=st.tuples(small_sides, small_sides),
    fraction=st.sampled_from([0.0, 0.5, 0.9]),
)
@settings(max_examples=8)
def test_balanced_regions_reach_every_labeled_pixel(labels: Any, size: tuple[int, int], fraction: float) -> None:
    dataset = Drawn([(0, 0, 6, 5)], labels=labels)
    sampler = BalancedRegionSampler(dataset, size, length=4000, balanced_fraction=fraction, generator=1)
    assert set(sampler.places) == set(np.unique(labels).tolist()) - {255}
    seen = np.zeros((5, 6), bool)
    for left, bottom, right, top in {pixels(place) for place in sampler}:
        seen[max(0, 5 - top) : 5 - bottom, max(0, left) : right] = True
    assert seen[labels != 255].all()


def test_what_is_not_balanced_is_as_even_as_random_regions() -> None:
    labels = np.kron(np.array([[0, 1], [1, 1]], np.uint8), np.ones((10, 10), np.uint8))
    sampler = BalancedRegionSampler(Drawn([(0, 0, 20, 20)], labels=labels), 8, length=10_000, balanced_fraction=0, generator=3)
    found = Counter(pixels(place)[:2] for place in sampler)
    assert len(found) == 13 * 13
    assert sum((count - 10_000 / 169) ** 2 / (10_000 / 169) for count in found.values()) < chi2.ppf(0.999, 168)


@given(height=sides, width=sides, size=st.tuples(sides, sides), stride=sides)
@settings(max_examples=30)
def test_gridded_regions_are_flush_with_all_borders_and_no_farther_apart_than_the_stride(
    height: int, width: int, size: tuple[int, int], stride: int
) -> None:
    places = [pixels(place) for place in GriddedRegionSampler(Drawn([(0, 0, width, height)]), size, stride=stride)]
    for axis, (side, part) in enumerate(((width, size[1]), (height, size[0]))):
        starts = sorted({place[axis] for place in places})
        if side <= part:  # one region, in the upper left corner
            assert starts == [0 if axis == 0 else height - part]
            continue
        assert (starts[0], starts[-1]) == (0, side - part)
        assert max(np.diff(starts), default=0) <= stride
        assert len(starts) == -(-(side - part) // stride) + 1  # the fewest


@given(corner=st.tuples(st.integers(0, 40), st.integers(0, 40)), extent=st.tuples(sides, sides), seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_regions_of_an_area_of_interest_meet_it(corner: tuple[int, int], extent: tuple[int, int], seed: int) -> None:
    left, bottom = corner
    area = box(left, bottom, min(64, left + extent[0]), min(64, bottom + extent[1]))
    dataset = Drawn([(0, 0, 64, 64)], labels=np.zeros((64, 64), np.uint8))
    for kind, options in (
        (RandomRegionSampler, {"length": 10}),
        (GriddedRegionSampler, {}),
        (BalancedRegionSampler, {"length": 10}),
    ):
        for place in kind(dataset, 16, roi=area, generator=seed, **options):
            assert area.intersection(box(*pixels(place))).area > 0


def test_entries_are_drawn_by_area_and_small_ones_too() -> None:
    boxes = [(0, 0, 30, 30), (100, 100, 110, 130)]
    found = [pixels(place) for place in RandomRegionSampler(Drawn(boxes), 16, length=4000, generator=2)]
    share = np.mean([left > 50 for left, *_ in found])
    assert share == pytest.approx(0.25, abs=0.03)
    assert all(left <= 100 and right >= 110 for left, _, right, _ in found if left > 50)


def test_balanced_regions_hold_a_pixel_of_a_class_drawn_uniformly_anywhere_in_them() -> None:
    labels = np.zeros((96, 96), np.uint8)
    labels[40, 40] = 1  # one pixel of 9216
    labels[:, 90:] = 255
    sampler = BalancedRegionSampler(Drawn([(0, 0, 96, 96)], labels=labels), 16, length=4000, balanced_fraction=0.5, generator=3)
    assert {value: len(places) for value, places in sampler.places.items()} == {0: 36, 1: 1}
    found = [pixels(place) for place in sampler]
    around = [(left, 96 - top) for left, bottom, right, top in found if left <= 40 < right and 96 - top <= 40 < 96 - bottom]
    assert len(around) / 4000 == pytest.approx(0.25, abs=0.05)
    assert all(left >= 0 and right <= 96 and bottom >= 0 and top <= 96 for left, bottom, right, top in found)
    rare = BalancedRegionSampler(
        sampler_dataset(labels), 16, length=10_000, balanced_fraction=1.0, ignore=(0, 255), generator=4
    )
    for axis in (0, 1):
        inside = Counter(40 - (place[0] if axis == 0 else 96 - place[3]) for place in map(pixels, rare))
        assert chi_square(inside, 16, 10_000) < chi2.ppf(0.999, 15)
    with pytest.raises(DatasetError, match="no pixel of the dataset is labeled"):
        BalancedRegionSampler(sampler_dataset(labels), 16, ignore=(0, 1, 255))


def sampler_dataset(labels: Any) -> Drawn:
    return Drawn([(0, 0, 96, 96)], labels=labels)


def samplers(**options: Any) -> list[RegionGeoSampler]:
    dataset = Drawn([(0, 0, 64, 64), (80, 0, 150, 50)], labels=np.zeros((64, 150)))
    return [
        RandomRegionSampler(dataset, 16, length=9, **options),
        GriddedRegionSampler(dataset, 20, shuffle=True, **options),
        BalancedRegionSampler(dataset, 16, length=9, **options),
    ]


def test_an_epoch_follows_from_the_seed_and_differs_from_the_next() -> None:
    for one, other, third in zip(samplers(generator=7), samplers(generator=7), samplers(generator=8), strict=True):
        assert isinstance(one, GeoSampler)
        first, second = list(one), list(one)
        assert first != second
        assert [list(other), list(other)] == [first, second]
        assert list(third) != first
        other.set_epoch(0)
        assert list(other) == first
    for make in (lambda: torch.Generator().manual_seed(4), lambda: np.random.default_rng(4)):
        assert list(samplers(generator=make())[0]) == list(samplers(generator=make())[0])


@given(seed=st.integers(0, 2**62), epoch=st.integers(0, 1000))
@settings(max_examples=15)
def test_nothing_but_the_seed_and_the_epochs_number_matters(seed: int, epoch: int) -> None:
    expected = []
    for sampler in samplers(generator=seed):
        sampler.set_epoch(epoch)
        expected.append(list(sampler))
    torch.rand(3), np.random.rand(3)  # noqa: NPY002 - the global generators are what must not matter
    for sampler, places in zip(samplers(generator=seed), expected, strict=True):
        sampler.set_epoch(epoch + 1)
        list(sampler)
        sampler.set_epoch(epoch)
        assert list(sampler) == places
        assert [place.seed for place in places] == [(seed, epoch, number) for number in range(len(places))]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_an_epoch_and_take_as_many_steps(processes: int) -> None:
    shares = [samplers(generator=7, num_replicas=processes, rank=rank) for rank in range(processes)]
    for whole, *parts in zip(samplers(generator=7), *shares, strict=True):
        dealt = [list(part) for part in parts]
        assert {len(part) for part in dealt} == {-(-len(whole) // processes)}
        together = [place for step in zip(*dealt, strict=True) for place in step]
        assert together[: len(whole)] == list(whole)
        seeds = [place.seed for place in together]
        assert len(set(seeds)) == len(seeds)


def test_sizes_are_in_pixels_or_in_units_of_the_crs() -> None:
    dataset = Drawn([(0, 0, 100, 100)], res=0.5)
    for sampler in (RandomRegionSampler(dataset, 20, length=3), RandomRegionSampler(dataset, 10.0, length=3, units=Units.CRS)):
        assert {(x.stop - x.start, y.stop - y.start) for x, y, _ in sampler} == {(10.0, 10.0)}
    assert len(RandomRegionSampler(dataset, 20)) == 25
    with pytest.raises(ConfigError, match=r"size 0\.1 is less than a pixel"):
        RandomRegionSampler(dataset, 0.1, units=Units.CRS)
    with pytest.raises(ConfigError, match="rank = 2 must be from 0 to below num_replicas = 2"):
        RandomRegionSampler(dataset, 20, num_replicas=2, rank=2)


def test_a_span_of_time_and_an_area_narrow_the_index() -> None:
    dataset = Drawn([(0, 0, 50, 50), (0, 0, 50, 50)])
    day = pd.Interval(pd.Timestamp("2020-01-02"), pd.Timestamp("2020-01-03"), closed="both")
    for _, _, time in GriddedRegionSampler(dataset, 20, toi=day):
        assert (time.start, time.stop) == (pd.Timestamp("2020-01-02"), pd.Timestamp("2020-01-02 01:00"))
    with pytest.raises(DatasetError, match="no entry of the dataset's index lies in roi and toi"):
        RandomRegionSampler(dataset, 20, roi=box(200, 200, 300, 300))


def test_any_dataset_and_loader_take_the_queries() -> None:
    dataset = Drawn([(0, 0, 64, 64)], labels=np.arange(64 * 64).reshape(64, 64))
    batches = list(DataLoader(dataset, 2, sampler=GriddedRegionSampler(dataset, 32), collate_fn=stack_samples))
    assert [tuple(batch["mask"].shape) for batch in batches] == [(2, 32, 32), (2, 32, 32)]
    assert len(torch.cat([batch["mask"] for batch in batches]).unique()) == 64 * 64
