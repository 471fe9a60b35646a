"""Plans: windows that fit into each other, and patches that matter."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from geoglnet.config import RegionConfig
from geoglnet.prediction.blender import ZoneBuffer
from geoglnet.prediction.plan import Plan, overlap, shifted
from geoglnet.types import Shape

SMALL = RegionConfig(region_size=64, overview_size=32, patch_size=32, patch_overlap=8, margin=16)
shapes = st.builds(Shape, st.integers(1, 300), st.integers(1, 300))


def inside(inner: Window, outer: Window) -> bool:
    return bool(overlap(inner, outer) == inner)


@given(shapes)
@settings(max_examples=50)
def test_core_lies_in_reach_and_reach_in_region(shape: Shape) -> None:
    for planned in Plan(shape, SMALL).iter_regions():
        assert inside(planned.core, planned.reach)
        assert inside(planned.reach, planned.window)
        assert planned.window.row_off + planned.window.height <= shape.height
        assert planned.window.col_off + planned.window.width <= shape.width


@given(shapes)
@settings(max_examples=50)
def test_patches_cover_the_reach_and_all_meet_it(shape: Shape) -> None:
    for planned in Plan(shape, SMALL).iter_regions():
        covered = np.zeros(planned.shape, bool)
        for patch in planned.patches:
            covered[patch.window.toslices()] = True
            kept = overlap(patch.window, planned.reach_in_region)
            assert kept.width > 0
            assert kept.height > 0
        assert covered[planned.reach_in_region.toslices()].all()


@given(shapes)
@settings(max_examples=50)
def test_patches_are_counted_without_listing_them(shape: Shape) -> None:
    plan = Plan(shape, SMALL)
    assert plan.num_patches == sum(len(planned.patches) for planned in plan.iter_regions())


@given(st.integers(300, 1500), st.sampled_from([SMALL, RegionConfig(80, 32, 32, 4, 16), RegionConfig(96, 32, 96, 0, 16)]))
@settings(max_examples=40)
def test_patches_of_a_long_scene_are_counted_at_its_ends_and_once_between(length: int, config: RegionConfig) -> None:
    for shape in (Shape(40, length), Shape(length, 40)):
        plan = Plan(shape, config)
        assert plan.num_patches == sum(planned.num_patches for planned in plan.iter_regions())


def test_a_trillion_patches_are_planned_in_no_time() -> None:
    """A degree of a world raster read at a fifth of a meter."""
    plan = Plan(Shape(2 * 10**8, 4 * 10**8), RegionConfig())
    started = time.process_time()
    assert plan.num_patches > 4e11
    assert time.process_time() - started < 2


def test_a_scene_is_planned_without_listing_its_regions() -> None:
    plan = Plan(Shape(1_000_000, 1_000_000), RegionConfig())
    assert len(plan) == 489 * 489
    assert plan.num_patches > 36 * 488**2
    assert next(plan.iter_regions()).window == Window(col_off=0, row_off=0, width=2448, height=2448)


def test_the_paper_sized_scene_is_one_region_of_thirty_six_patches() -> None:
    plan = Plan(Shape(2448, 2448), RegionConfig())
    (planned,) = plan.iter_regions()
    assert len(planned.patches) == 36
    assert planned.core == planned.window == planned.reach


def test_moving_a_window_keeps_its_size() -> None:
    moved = shifted(Window(col_off=5, row_off=7, width=3, height=4), -7, 2)
    assert moved == Window(col_off=7, row_off=0, width=3, height=4)


def test_the_buffer_takes_memory_for_one_region_and_disk_for_one_row() -> None:
    plan = Plan(Shape(200, 400), SMALL)
    with ZoneBuffer(plan, 2) as buffer:
        for planned in plan.iter_regions():
            core, below = planned.core, int(planned.reach.height - planned.core.height)
            if planned.row:
                assert buffer.from_above(planned, torch.device("cpu")).shape == (2, 8, core.width)
            buffer.put(planned, None, torch.zeros(2, below, int(core.width)) if below else None)
        strip = buffer._strip
        assert strip is not None
        strip.seek(0, 2)
        assert strip.tell() == 2 * SMALL.blend_size * 400 * 4


@pytest.mark.parametrize("shape", [Shape(64, 500), Shape(20, 20)])
def test_a_single_row_of_regions_needs_no_file(shape: Shape) -> None:
    with ZoneBuffer(Plan(shape, SMALL), 2) as buffer:
        assert buffer._strip is None
