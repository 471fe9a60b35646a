"""Properties of cores, regions and patches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from geoglnet.config import RegionConfig
from geoglnet.errors import ConfigError
from geoglnet.types import Shape
from geoglnet.windows import core_edges, footprints, iter_cores, patch_offsets, patch_windows, region_window

lengths = st.integers(1, 900)


@st.composite
def region_configs(draw: st.DrawFn) -> RegionConfig:
    core = 16 * draw(st.integers(2, 12))
    margin = draw(st.integers(0, core))
    size = core + 2 * margin
    patch = draw(st.integers(32, size))
    overlap = draw(st.integers(0, patch - -(-patch // 32)))  # finer steps are refused
    overview = draw(st.integers(32, size))
    return RegionConfig(region_size=size, overview_size=overview, patch_size=patch, patch_overlap=overlap, margin=margin)


def test_the_papers_region_has_six_by_six_patches() -> None:
    assert patch_offsets(2448, 500, 50) == (0, 390, 779, 1169, 1558, 1948)
    assert len(patch_windows(Shape(2448, 2448), 500, 50)) == 36


@given(length=lengths, size=st.integers(1, 200), data=st.data())
def test_patches_cover_the_axis_overlap_enough_and_end_flush(length: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    starts = np.array(patch_offsets(length, size, overlap))
    if length <= size:
        assert starts.tolist() == [0]
        return
    assert starts[0] == 0
    assert starts[-1] + size == length
    assert (np.diff(starts) > 0).all()
    assert (starts[:-1] + size - starts[1:] >= overlap).all()


def test_overlap_as_large_as_the_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="overlap 64 px"):
        patch_offsets(100, 64, 64)


@given(height=lengths, width=lengths)
def test_footprints_are_the_windows_as_fractions(height: int, width: int) -> None:
    shape = Shape(height, width)
    windows = patch_windows(shape, 100, 10)
    found = footprints(windows, shape)
    assert found.dtype == np.float32
    assert (found[:, :2] < found[:, 2:]).all()
    assert found[:, :2].min() == 0
    assert found[:, 2:].max() == 1
    rows = found[:, 0] * height
    np.testing.assert_allclose(rows, [w.row_off for w in windows], atol=1e-3)


@given(height=lengths, width=lengths, config=region_configs())
@settings(max_examples=60)
def test_cores_partition_the_scene(height: int, width: int, config: RegionConfig) -> None:
    times_seen = np.zeros((height, width), dtype=np.uint8)
    for core in iter_cores(Shape(height, width), config.region_size, config.margin):
        times_seen[core.toslices()] += 1
    assert (times_seen == 1).all()


@given(length=lengths, config=region_configs())
def test_cores_begin_on_tile_borders_and_the_last_is_no_sliver(length: int, config: RegionConfig) -> None:
    edges = core_edges(length, config.region_size, config.margin)
    widths = np.diff(edges)
    assert all(edge % RegionConfig.TILE_SIZE == 0 for edge in edges[:-1])
    assert (widths[:-1] == config.core_size).all()
    if len(widths) > 1:
        assert config.margin < widths[-1] <= config.core_size + config.margin


@given(length=lengths, config=region_configs())
def test_a_region_holds_its_core_with_the_margin_or_the_scenes_border_around_it(length: int, config: RegionConfig) -> None:
    shape = Shape(length, 10)
    for core in iter_cores(shape, config.region_size, config.margin):
        region = region_window(core, shape, config.region_size, config.margin)
        assert region.row_off >= 0
        assert region.row_off + region.height <= length
        assert region.height == min(config.region_size, length)
        assert region.row_off == 0 or core.row_off - region.row_off >= config.margin
        below = region.row_off + region.height - core.row_off - core.height
        assert below >= config.margin or region.row_off + region.height == length


@given(height=lengths, width=lengths, config=region_configs())
def test_a_scene_no_larger_than_a_region_is_one_region(height: int, width: int, config: RegionConfig) -> None:
    shape = Shape(min(height, config.region_size), min(width, config.region_size))
    cores = list(iter_cores(shape, config.region_size, config.margin))
    whole = Window(col_off=0, row_off=0, width=shape.width, height=shape.height)
    assert cores == [whole]
    assert region_window(cores[0], shape, config.region_size, config.margin) == whole
