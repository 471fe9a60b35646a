"""Blocks are pure functions of scene, model and options, whatever else is computed, in any batch, by any number of threads."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pytest
import shapely
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

import geoglnet
from geoglnet.config import Branches, RegionConfig, Sharing
from geoglnet.errors import ConfigError
from geoglnet.models.glnet import GLNet
from geoglnet.prediction.area import Area, choose_area
from geoglnet.prediction.layers import LABELS, LAYERS, winners
from geoglnet.prediction.plan import AllBlocks, Plan, iter_work, rectangle
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor
from geoglnet.progress import RecordedProgress
from geoglnet.raster.scene import ArrayScene, open_scene
from geoglnet.types import Shape
from tests.networks import small
from tests.rasters import noise, write_raster
from tests.stubs import CPU, SMALL, StubNetwork, manifest_of, random_scene, region_configs, scenes, untiled

EVERY_LAYER = tuple(LAYERS.values())
Arrays = dict[str, npt.NDArray[np.uint8]]


@pytest.fixture(scope="module")
def network() -> GLNet:
    return small()


def computed(
    scene: ArrayScene, network: Any, region: RegionConfig = SMALL, blocks: Any = None, area: Area | None = None, **config: Any
) -> Arrays:
    """All layers of the scene; 7 where no block was computed."""
    manifest = manifest_of(region)
    predictor = Predictor(network, manifest, PredictConfig(device="cpu", **{"batch_size": 9} | config))
    arrays = {layer.name: np.full((len(layer.bands(manifest.legend)), *scene.shape), 7, np.uint8) for layer in EVERY_LAYER}
    for pending in predictor.iter_blocks(scene, EVERY_LAYER, blocks=blocks, area=area):
        block = pending.resolve()
        for layer, values in block.layers.items():
            arrays[layer][(slice(None), *block.window.toslices())] = values
    return arrays


def assert_equal(found: Arrays, expected: Arrays, window: tuple[slice, slice] = (slice(None), slice(None))) -> None:
    for layer in LAYERS:
        np.testing.assert_array_equal(found[layer][(slice(None), *window)], expected[layer][(slice(None), *window)])


def with_hole(height: int = 150, width: int = 117) -> ArrayScene:
    """A scene with a hole that lies across block lines, and a corner without anything."""
    valid = np.ones((height, width), bool)
    valid[20:70, 40:80] = valid[-30:, :50] = False
    return ArrayScene(random_scene(height, width).image, valid)


@pytest.fixture(scope="module")
def whole(network: GLNet) -> Arrays:
    """All layers of :func:`with_hole`, which nobody changes."""
    return computed(with_hole(), network)


def test_any_subset_of_blocks_is_the_same_as_in_the_whole(network: GLNet, whole: Arrays) -> None:
    scene = with_hole()
    plan = Plan(scene.shape, SMALL)
    places = [(r, c) for r in range(len(plan.row_edges) - 1) for c in range(len(plan.col_edges) - 1)]
    chance = np.random.default_rng(0)
    subsets: list[Collection[tuple[int, int]]] = [{place} for place in places[::6]]
    subsets += [{place for place in places if chance.random() < 0.5} for _ in range(2)]
    subsets += [places[7:], {(row, col) for row, col in places if col in (1, 2)}]
    for subset in subsets:
        found = computed(scene, network, blocks=subset)
        for row, col in subset:
            assert_equal(found, whole, plan.region(row, col).core.toslices())


@given(scene=scenes(), config=region_configs(), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_subsets_of_any_scene_are_right_for_a_network_that_looks_at_pixels(
    scene: ArrayScene, config: RegionConfig, seed: int
) -> None:
    manifest = manifest_of(config)
    chance, plan = np.random.default_rng(seed), Plan(scene.shape, config)
    chosen = {(w.planned.row, w.planned.col) for w in iter_work(plan, AllBlocks()) if chance.random() < 0.4}
    found = computed(scene, StubNetwork(manifest.model), config, chosen)[LABELS.name][0]
    expected, _ = untiled(scene, manifest)
    for row, col in chosen:
        core = plan.region(row, col).core.toslices()
        np.testing.assert_array_equal(found[core], expected[core])


def test_batch_and_readers_change_no_byte() -> None:
    scene, network = with_hole(100, 84), small("mobilenet_v2")
    expected = computed(scene, network)
    for options in ({"batch_size": 1}, {"batch_size": 8}, {"num_readers": 1}, {"num_readers": 4}):
        assert_equal(computed(scene, network, **options), expected)


@pytest.mark.parametrize("options", [{"effort": 0.6}, {"augment": True}, {"batch_size": 3}])
def test_halves_are_the_same_as_the_whole_whatever_the_options(network: GLNet, options: dict[str, Any]) -> None:
    scene = with_hole(84, 84)
    whole = computed(scene, network, **options)
    for window in (rectangle(0, 45, 0, 84), rectangle(45, 84, 0, 84), rectangle(0, 84, 50, 84)):
        part = computed(scene, network, area=Area(scene.shape, window), **options)
        assert_equal(part, whole, window.toslices())
        assert (part[LABELS.name] == 7).sum() == 84 * 84 - window.width * window.height


def test_work_names_what_is_missing_of_the_neighbors() -> None:
    plan = Plan(Shape(96, 96), SMALL)
    whole = list(iter_work(plan, AllBlocks()))
    assert all(len(work.reads) == 1 for work in whole)
    (alone,) = iter_work(plan, {(1, 1)})
    assert [(r.row, r.col) for r in alone.reads] == [(1, 1), (1, 0), (0, 1), (0, 0)]
    first, second, *_ = iter_work(plan, {(1, 1), (1, 2), (2, 1), (2, 2)})
    assert [(r.row, r.col) for r in second.reads] == [(1, 2), (0, 2), (0, 1)]
    assert first.corner is not None
    assert (first.corner.window.height, first.corner.window.width) == (SMALL.blend_size, SMALL.blend_size)


def test_below_a_block_that_was_computed_no_upper_neighbor_is_read_again() -> None:
    plan = Plan(Shape(200, 200), SMALL)
    task = {(row, col) for row in (1, 2, 3) for col in (1, 2, 3)}
    reads = {(w.planned.row, w.planned.col): [(r.row, r.col) for r in w.reads] for w in iter_work(plan, task)}
    assert reads[2, 1] == [(2, 1), (2, 0)]
    assert reads[2, 2] == [(2, 2)]
    assert sum(map(len, reads.values())) == 18


def test_layers_agree_with_each_other(whole: Arrays) -> None:
    labels, sure, unsure = (whole[name][0] for name in ("labels", "confidence", "entropy"))
    probabilities = whole["probabilities"]
    valid = labels != 255
    np.testing.assert_array_equal(sure[valid], probabilities.max(axis=0)[valid])
    assert (np.take_along_axis(probabilities, labels[None] % 3, axis=0)[0] == sure)[valid].all()
    p = probabilities[:, valid] / probabilities[:, valid].sum(axis=0)
    entropy = -(p * np.log(np.maximum(p, 1e-9))).sum(axis=0) / np.log(3)
    assert np.abs(unsure[valid] / 254 - entropy).max() < 0.02
    for layer in whole.values():
        assert (layer[:, ~valid] == 255).all()
        assert (layer[:, valid] != 255).all()


@given(seed=st.integers(0, 2**31), classes=st.integers(1, 9))
def test_the_winner_is_the_first_of_the_largest(seed: int, classes: int) -> None:
    ties = torch.randint(0, 4, (classes, 9, 13), generator=torch.Generator().manual_seed(seed)) / 4
    found = winners(ties)
    assert found.dtype is torch.uint8
    assert torch.equal(found.long(), torch.from_numpy(ties.numpy().argmax(axis=0)))


def test_regions_that_agree_are_counted_as_agreeing(network: GLNet) -> None:
    scene, manifest = random_scene(150, 117), manifest_of(SMALL)
    overlaps = [
        pending.resolve().overlap for pending in Predictor(StubNetwork(manifest.model), manifest, CPU).iter_blocks(scene)
    ]
    assert sum(o.num_differing for o in overlaps) == 0
    blend = SMALL.blend_size
    assert sum(o.num_compared for o in overlaps) == 4 * blend * 117 + 3 * blend * 150
    different = [p.resolve().overlap for p in Predictor(network, manifest, CPU).iter_blocks(scene)]
    assert sum(o.num_differing for o in different) > 0


def test_bounds_are_whole_pixels_of_the_scene() -> None:
    transform = Affine.translation(1000, 2000) @ Affine.scale(0.5, -0.5)
    scene = ArrayScene(random_scene(80, 60).image, transform=transform)
    assert choose_area(scene, (1000, 1960, 1030, 2000), None).is_everything
    assert choose_area(scene, (1005.1, 1990, 1009.9, 1999.9), None).window == Window(10, 0, 10, 20)
    assert choose_area(scene, (0, 0, 1001, 9999), None).window == Window(0, 0, 2, 80)
    with pytest.raises(ConfigError, match="outside of array, which spans 1000 1960 1030 2000"):
        choose_area(scene, (0, 0, 1, 1), None)


@given(st.integers(0, 79), st.integers(1, 80), st.integers(0, 59), st.integers(1, 60))
def test_bounds_on_pixel_borders_are_those_pixels(top: int, bottom: int, left: int, right: int) -> None:
    if top >= bottom or left >= right:
        return
    transform = Affine.translation(500_000.37, 9_000_000.11) @ Affine.scale(0.17, -0.17)
    scene = ArrayScene(np.zeros((3, 80, 60), np.uint8), transform=transform)
    (west, north), (east, south) = transform @ (left, top), transform @ (right, bottom)
    assert choose_area(scene, (west, south, east, north), None).window == rectangle(top, bottom, left, right)


@pytest.fixture
def mask_path(tmp_path: Path) -> Path:
    """A triangle in the scene below, in another CRS than its."""
    triangle = shapely.Polygon([(500_010, 8_999_995), (500_040, 8_999_960), (500_010, 8_999_960)])
    geopandas.GeoDataFrame(geometry=[triangle], crs="EPSG:32736").to_crs(4326).to_file(tmp_path / "mask.gpkg")
    return tmp_path / "mask.gpkg"


def test_a_mask_cuts_to_polygons_in_any_crs_and_nothing_inside_changes(network: GLNet, mask_path: Path, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", noise(3, 100, 100), pixel_size=0.5)
    with open_scene(path) as scene:
        predictor = Predictor(network, manifest_of(SMALL), PredictConfig(device="cpu", mask_path=mask_path))
        area = choose_area(scene, None, mask_path)
        masked, whole = (np.full(scene.shape, 9, np.uint8) for _ in range(2))
        for pending in predictor.iter_blocks(scene, area=area):
            block = pending.resolve()
            masked[block.window.toslices()] = block.labels
        everything = Area(scene.shape, rectangle(0, 100, 0, 100))
        for pending in predictor.iter_blocks(scene, area=everything):
            block = pending.resolve()
            whole[block.window.toslices()] = block.labels
    (top, bottom), (left, right) = area.window.toranges()
    assert abs(top - 10) <= 1 and abs(left - 20) <= 1 and abs(bottom - 80) <= 1 and abs(right - 80) <= 1  # noqa: PT018
    inside = masked < 3
    np.testing.assert_array_equal(masked[inside], whole[inside])
    assert abs(int(inside.sum()) - 60 * 70 / 2) < 80
    assert set(np.unique(masked)) <= {0, 1, 2, 9, 255}


def test_blocks_come_one_by_one_through_the_api(scene_path: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    blocks = {
        (block.row, block.col): block
        for block in geoglnet.iter_blocks(scene_path, model=str(tiny_model_path), layers=("labels", "entropy"), config=CPU)
    }
    some = geoglnet.iter_blocks(scene_path, model=str(tiny_model_path), blocks={(1, 2)}, config=CPU)
    (alone,) = some
    np.testing.assert_array_equal(alone.labels, blocks[1, 2].labels)
    assert sum(block.window.width * block.window.height for block in blocks.values()) == 80 * 120


def test_progress_counts_the_patches_of_the_chosen_blocks_only() -> None:
    manifest, progress = manifest_of(SMALL), RecordedProgress()
    predictor = Predictor(StubNetwork(manifest.model), manifest, CPU)
    for pending in predictor.iter_blocks(random_scene(150, 117), blocks={(2, 2), (3, 0)}, progress=progress):
        pending.resolve()
    plan, *steps = progress.events
    assert sum(step["amount"] for step in steps) == plan["total"] == 2 * 9


@pytest.mark.parametrize("branches", [Branches.GLOBAL, Branches.LOCAL])
def test_one_branch_alone_is_pure_too(branches: Branches) -> None:
    manifest, scene = manifest_of(SMALL, branches), with_hole()
    predictor = Predictor(small(branches=branches, sharing=Sharing.NONE, aggregate=False), manifest, CPU)
    whole = {(b.row, b.col): b for b in (p.resolve() for p in predictor.iter_blocks(scene))}
    (alone,) = (p.resolve() for p in predictor.iter_blocks(scene, blocks={(1, 1)}))
    np.testing.assert_array_equal(alone.labels, whole[1, 1].labels)


def test_a_mask_of_the_whole_world_is_everything_and_one_far_away_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", noise(3, 100, 100), pixel_size=0.5, crs="EPSG:32645")
    places = {"world": (-180, -90, 180, 90), "far": (-120, -30, -100, 50), "a quarter turn away": (-3.1, -1, -2.9, 1)}
    for name, place in ((name, shapely.box(*bounds)) for name, bounds in places.items()):
        geopandas.GeoDataFrame(geometry=[place], crs=4326).to_file(tmp_path / f"{name}.gpkg")
    with open_scene(path) as scene:
        everything = choose_area(scene, None, tmp_path / "world.gpkg").inside(rectangle(0, 100, 0, 100))
        assert everything is not None
        assert everything.all()
        for name in ("far", "a quarter turn away"):  # where UTM has no coordinates
            with pytest.raises(ConfigError, match=rf"polygons of .*{name}\.gpkg lie outside of"):
                choose_area(scene, None, tmp_path / f"{name}.gpkg")
