"""Coarse-to-fine prediction: no foreground, no patch; where there is some, the labels of the whole network on that part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window
from torch import Tensor

from geoglnet.config import Branches
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import PatchLogits, RegionLogits, RegionMaps
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import ArraySink, predict_scene
from geoglnet.prediction.segmenter import CoarseToFineSegmenter
from geoglnet.raster.scene import ArrayScene, Pixels
from geoglnet.types import Shape
from tests.stubs import SMALL, StubNetwork, manifest_of

CONFIG = PredictConfig(device="cpu", coarse_to_fine=True)
LEGEND = Legend(("ground", "roof"), ((0, 0, 0), (255, 0, 0)), background=0)


class Roofs(StubNetwork):
    """Roof where the second band is brighter than the first."""

    def see(self, overviews: Tensor) -> RegionMaps:
        self.overviews.append(overviews)
        return RegionLogits(8 * overviews[:, :2])

    def segment(self, *arguments: Any) -> PatchLogits:
        return PatchLogits(s_loc=super().segment(*arguments).final[:, :2])


def manifest(branches: Branches = Branches.BOTH) -> Manifest:
    return replace(manifest_of(SMALL, branches, classes=2), legend=LEGEND)


def scene_of(roofs: npt.NDArray[np.bool_]) -> ArrayScene:
    image = np.full((3, *roofs.shape), 128, np.uint8)
    image[0], image[1] = np.where(roofs, 40, 220), np.where(roofs, 220, 40)
    return ArrayScene(image)


def predicted(scene: ArrayScene, network: Roofs, config: PredictConfig = CONFIG) -> npt.NDArray[np.uint8]:
    labels = ArraySink(scene.shape)
    predict_scene(scene, network, manifest(), labels, None, config)
    return labels.array


def test_regions_without_foreground_cost_no_patch() -> None:
    network = Roofs(manifest().model)
    labels = predicted(scene_of(np.zeros((150, 150), bool)), network)
    assert (labels == 0).all()
    assert not network.patches
    assert len(network.overviews) == len(Plan(Shape(150, 150), SMALL))


@settings(max_examples=40)
@given(data=st.data(), height=st.integers(40, 180), width=st.integers(40, 180))
def test_foreground_that_the_global_branch_sees_gets_the_labels_it_gets_in_full(
    data: st.DataObject, height: int, width: int
) -> None:
    roofs = np.zeros((height, width), bool)
    for _ in range(data.draw(st.integers(0, 3))):
        row, col = data.draw(st.integers(0, height - 20)), data.draw(st.integers(0, width - 20))
        roofs[row : row + data.draw(st.integers(9, 20)), col : col + data.draw(st.integers(9, 20))] = True
    coarse, full = Roofs(manifest().model), Roofs(manifest().model)
    labels = predicted(scene_of(roofs), coarse)
    np.testing.assert_array_equal(labels, predicted(scene_of(roofs), full, PredictConfig(device="cpu")))
    np.testing.assert_array_equal(labels == 1, roofs)


def test_one_house_in_a_large_region_needs_few_patches_and_an_overview_of_its_own() -> None:
    roofs = np.zeros((64, 64), bool)
    roofs[40:52, 44:56] = True
    coarse, full = Roofs(manifest().model), Roofs(manifest().model)
    predicted(scene_of(roofs), coarse, replace(CONFIG))
    predicted(scene_of(roofs), full, PredictConfig(device="cpu"))
    assert sum(map(len, coarse.patches)) <= sum(map(len, full.patches))
    first, second = coarse.overviews
    assert first.shape[-2:] == (32, 32)
    assert (second[0, 1] > second[0, 0]).float().mean() > (first[0, 1] > first[0, 0]).float().mean()


def test_a_part_of_the_region_is_given_what_the_whole_is_given() -> None:
    roofs = np.zeros((64, 64), bool)
    roofs[10:30, 20:50] = True
    scene, segmenter = scene_of(roofs), CoarseToFineSegmenter(Roofs(manifest().model), manifest(), CONFIG)
    planned = Plan(scene.shape, SMALL).region(0, 0)
    pixels = Pixels(scene.image, np.ones((64, 64), bool))
    whole = segmenter.probabilities(planned, pixels)
    part = segmenter.probabilities(planned, pixels, Window(col_off=16, row_off=5, width=20, height=33))
    np.testing.assert_allclose(part.numpy(), whole[:, 5:38, 16:36].numpy(), atol=1e-6)
    assert np.allclose(whole.sum(dim=0).numpy(), 1, atol=1e-5)


def test_legends_and_networks_that_have_no_coarse_mask_are_refused() -> None:
    three = manifest_of(SMALL)
    with pytest.raises(ConfigError, match="background and one class"):
        CoarseToFineSegmenter(StubNetwork(three.model), three, CONFIG)
    alone = manifest(Branches.LOCAL)
    with pytest.raises(ConfigError, match="needs both branches"):
        CoarseToFineSegmenter(Roofs(alone.model), alone, CONFIG)
