"""Memory of a device, estimated without it, and what happens where it is too small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoglnet.config import ModelConfig, RegionConfig
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import Blank
from geoglnet.models.demand import LiveBytes
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import build_network
from geoglnet.prediction import memory
from geoglnet.prediction.memory import enlarged, fitting_batch, region_bytes, with_batch
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.raster.scene import Pixels
from geoglnet.types import Shape

META = torch.device("meta")
CONFIG = PredictConfig()


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    model = ModelConfig(2, "resnet18", pyramid_channels=8, smooth_channels=4)
    legend = Legend(("background", "roof"), ((0, 0, 0), (255, 0, 0)))
    return Manifest("small", model, RegionConfig(160, 64, 64, 16, 48), legend, 0.5, (0.1, 1.0), 0.5)


class Allocator(LiveBytes):
    """A GPU of so many bytes."""

    def __init__(self, budget: int) -> None:
        super().__init__()
        self.budget = budget

    def _hold(self, tensor: torch.Tensor) -> None:
        super()._hold(tensor)
        if self.now > self.budget:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def segmented(manifest: Manifest, batch_size: int, budget: int) -> RegionSegmenter:
    with Blank():
        network = build_network(manifest.model).eval().for_inference()
    config = PredictConfig(batch_size=batch_size, precision="float32")
    segmenter = RegionSegmenter(network, manifest, config, device=META)
    side = manifest.region.region_size
    pixels = Pixels(np.zeros((3, side, side), np.uint8), np.ones((side, side), bool))
    with Allocator(budget):
        segmenter.probabilities(Plan(Shape(side, side), manifest.region).region(0, 0), pixels)
    return segmenter


@pytest.mark.slow
def test_more_patches_larger_regions_and_longer_numbers_take_more_memory(manifest: Manifest) -> None:
    least = region_bytes(manifest, CONFIG, 1)
    assert region_bytes(manifest, CONFIG, 4) > least
    assert region_bytes(enlarged(manifest, 2), CONFIG, 1) > least
    assert region_bytes(manifest, replace(CONFIG, precision="bfloat16"), 4) < region_bytes(manifest, CONFIG, 4)


def test_the_batch_is_halved_until_a_small_gpu_can_take_it_and_a_smaller_one_is_refused(manifest: Manifest) -> None:
    with Blank():
        weights = sum(tensor.nbytes for tensor in build_network(manifest.model).for_inference().state_dict().values())
    budget = region_bytes(manifest, CONFIG, 4) - weights
    assert segmented(manifest, 9, budget).batch_size == 4
    with pytest.raises(ConfigError, match="no memory left for a single patch"):
        segmented(manifest, 9, budget // 8)


def test_a_gpu_is_begun_with_the_batch_that_fits(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "region_bytes", lambda manifest, config, batch_size: 1_000_000 * batch_size)
    assert fitting_batch(manifest, CONFIG, None) == 9  # all patches of a region
    assert fitting_batch(manifest, CONFIG, 5_000_000) == 4  # with a quarter to spare
    assert fitting_batch(manifest, CONFIG, 4_999_999) == 2
    assert fitting_batch(manifest, CONFIG, 1) == 1
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10_000_000)
    assert with_batch(CONFIG, manifest, torch.device("cuda")).batch_size == 8
    assert with_batch(CONFIG, manifest, torch.device("cpu")).batch_size is None
    assert with_batch(replace(CONFIG, batch_size=3), manifest, torch.device("cuda")).batch_size == 3
