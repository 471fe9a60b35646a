"""Patch selection and test-time augmentation: pure functions of a region, with the weights adding up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from geoglnet.config import ModelConfig, RegionConfig
from geoglnet.legend import Legend
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from geoglnet.prediction.effort import EveryPatch, UnsurePatches, choose_selection, doubt, normalized_entropy
from geoglnet.prediction.plan import Plan, PlannedPatch, PlannedRegion
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.region import D4, Turn
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.raster.scene import Pixels
from geoglnet.types import Shape
from geoglnet.windows import footprints
from tests.networks import small

SMALL = RegionConfig(region_size=64, overview_size=64, patch_size=32, patch_overlap=8, margin=16)
PLAN = Plan(Shape(64, 64), SMALL)


@dataclass
class Chosen:
    """Patches of the left column only."""

    is_trivial: bool = False

    def __call__(
        self, planned: PlannedRegion, patches: Sequence[PlannedPatch], probabilities: Tensor
    ) -> Sequence[PlannedPatch]:
        return [patch for patch in patches if patch.col == 0]


@pytest.fixture(scope="module")
def network() -> GLNet:
    return small(num_classes=2)


def manifest(background: int | None = None) -> Manifest:
    legend = Legend(("ground", "roof"), ((0, 0, 0), (255, 0, 0)), background=background)
    model = ModelConfig(2, "mobilenet_v2", pyramid_channels=8, smooth_channels=4)
    return Manifest("tiny", model, SMALL, legend, 1.0, (0.5, 2.0), 1.0)


def pixels(seed: int = 0) -> Pixels:
    image = np.random.default_rng(seed).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    return Pixels(image, np.ones((64, 64), bool))


def probabilities_of(network: GLNet, select: Any = None, read: Pixels | None = None, **config: Any) -> Tensor:
    settings = PredictConfig(device="cpu", **config)
    return RegionSegmenter(network, manifest(), settings, select).probabilities(PLAN.region(0, 0), read or pixels())


def test_no_effort_gives_the_global_branch_and_no_patch_runs(network: GLNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "segment", lambda *_: pytest.fail("a patch ran"))
    found = probabilities_of(network, effort=0.0)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(64, 64))


def test_patches_that_do_not_run_leave_their_weights_to_the_global_branch(network: GLNet) -> None:
    every, none, some = (
        probabilities_of(network, EveryPatch()),
        probabilities_of(network, effort=0.0),
        probabilities_of(network, Chosen()),
    )
    torch.testing.assert_close(some[:, :, :16], every[:, :, :16])
    torch.testing.assert_close(some[:, :, 32:], none[:, :, 32:])
    torch.testing.assert_close(some.sum(dim=0), torch.ones(64, 64))


def test_what_a_pixel_gets_does_not_depend_on_the_part_that_is_asked_for(network: GLNet) -> None:
    plan = Plan(Shape(64, 150), SMALL)
    planned = plan.region(0, 1)
    segmenter = RegionSegmenter(network, manifest(), PredictConfig(device="cpu"), Chosen())
    whole = segmenter.probabilities(planned, pixels())
    part = type(planned.reach)(planned.reach.col_off + 32, planned.reach.row_off + 5, 8, 40)
    found = segmenter.probabilities(planned, pixels(), part)
    assert torch.equal(found, whole[:, 5:45, 32:40])


def test_the_fewest_patches_that_hold_the_share_of_the_doubt_run() -> None:
    planned = PLAN.region(0, 0)
    one_corner = torch.zeros(2, 16, 16)
    one_corner[0] = 1
    one_corner[:, :4, :4] = 0.5
    for effort in (0.1, 0.5, 0.99):
        chosen = UnsurePatches(effort)(planned, planned.patches, one_corner)
        assert [(patch.row, patch.col) for patch in chosen] == [(0, 0)]
    everywhere = torch.full((2, 16, 16), 0.5)
    counts = [len(UnsurePatches(effort)(planned, planned.patches, everywhere)) for effort in (0, 0.1, 0.5, 0.9)]
    assert counts == [0, 1, 5, 9]
    sure = torch.tensor([0.999, 0.001])[:, None, None].expand(2, 16, 16)
    assert not UnsurePatches(0.99)(planned, planned.patches, sure)
    assert choose_selection(1.0, None).is_trivial
    assert not choose_selection(0.99, None).is_trivial


@given(seed=st.integers(0, 2**31), efforts=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)))
def test_more_effort_runs_the_same_patches_and_more_but_no_more_than_its_share(seed: int, efforts: tuple[float, float]) -> None:
    planned = PLAN.region(0, 0)
    roofs = torch.rand(16, 16, generator=torch.Generator().manual_seed(seed))
    less, more = (
        [(p.row, p.col) for p in UnsurePatches(e, 0)(planned, planned.patches, torch.stack([1 - roofs, roofs]))]
        for e in sorted(efforts)
    )
    assert set(less) <= set(more)
    assert len(more) <= max(efforts) * len(planned.patches) + 1


def test_foreground_is_looked_at_even_where_the_global_branch_is_sure() -> None:
    sure = torch.tensor([0.01, 0.99])[:, None, None].expand(2, 4, 4)
    assert doubt(sure, None).max() < 0.1
    assert doubt(sure, 0).min() == pytest.approx(0.99)
    assert doubt(sure.flip(0), 0).max() < 0.1


@given(st.integers(2, 9))
def test_entropy_is_zero_for_the_sure_and_one_for_the_clueless(num_classes: int) -> None:
    sure = torch.eye(num_classes)[:, :1, None]
    assert float(normalized_entropy(sure)) == 0
    even = torch.full((num_classes, 1, 1), 1 / num_classes)
    assert float(normalized_entropy(even)) == pytest.approx(1)


@pytest.mark.parametrize("turn", D4)
def test_turns_are_undone_and_footprints_turn_with_the_image(turn: Turn) -> None:
    image = torch.arange(2 * 30 * 40.0).reshape(2, 30, 40)
    assert torch.equal(turn.undo(turn.apply(image)), image)
    windows = [patch.window for patch in Plan(Shape(30, 40), RegionConfig(64, 64, 32, 8, 16)).region(0, 0).patches]
    places = torch.from_numpy(turn.footprints(footprints(windows, Shape(30, 40))))
    turned = turn.apply(image)
    height, width = turned.shape[1:]
    for window, place in zip(windows, places, strict=True):
        top, left, bottom, right = (place * torch.tensor([height, width, height, width])).round().int().tolist()
        assert torch.equal(turned[:, top:bottom, left:right], turn.apply(image[(slice(None), *window.toslices())]))


def test_there_are_eight_different_turns() -> None:
    image = torch.arange(9.0).reshape(3, 3)
    assert len({tuple(turn.apply(image).flatten().tolist()) for turn in D4}) == 8


def test_augmented_probabilities_turn_with_the_scene(network: GLNet) -> None:
    read, turn = pixels(), D4[5]
    turned = Pixels(np.ascontiguousarray(turn.apply(torch.from_numpy(read.image)).numpy()), read.valid)
    found = probabilities_of(network, augment=True)
    torch.testing.assert_close(probabilities_of(network, augment=True, read=turned), turn.apply(found), atol=1e-4, rtol=0)
    assert not torch.allclose(probabilities_of(network), found, atol=1e-3)


def test_memory_is_tried_again_with_half_the_batch_when_even_the_overview_was_too_much(
    network: GLNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = RegionSegmenter(network, manifest(), PredictConfig(device="cpu", batch_size=8))
    see, failures = segmenter.network.see, [1, 1]

    def fail_twice(overview: Tensor) -> Any:
        if failures:
            failures.pop()
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return see(overview)

    monkeypatch.setattr(segmenter.network, "see", fail_twice)
    found = segmenter.probabilities(PLAN.region(0, 0), pixels())
    assert segmenter.batch_size == 2
    torch.testing.assert_close(found.sum(dim=0), torch.ones(64, 64))
    assert cast(int, found.shape[0]) == 2
