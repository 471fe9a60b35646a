"""Pixels on their way into the network: what stands where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rasterio.windows import Window

from geoglnet.config import ModelConfig, RegionConfig
from geoglnet.legend import Legend
from geoglnet.models.manifest import Manifest
from geoglnet.prediction.region import Uploaded, upload
from geoglnet.raster.scene import Pixels

SIDE = 203  # no multiple of a square
CPU = torch.device("cpu")
LEGEND = Legend(("ground", "roof"), ((0, 0, 0), (255, 0, 0)), background=0)
MANIFEST = Manifest("toy", ModelConfig(num_classes=2), RegionConfig(), LEGEND, 1.0, (0.5, 2.0), 1.0)


def ramp() -> np.ndarray:
    """Three bands that grow by half a value per column."""
    return np.broadcast_to(np.arange(SIDE) // 2 + 60, (3, SIDE, SIDE)).astype(np.uint8)


def uploaded(valid: np.ndarray, is_stretched: bool) -> Uploaded:
    image = np.where(valid, ramp(), 0).astype(np.uint8)
    return upload(Pixels(image, valid, is_stretched), MANIFEST, CPU)


def network_sees(pixels: Uploaded) -> torch.Tensor:
    """``(3, SIDE, SIDE)``, on the scale of 0 to 255 again."""
    return pixels.patches([Window(0, 0, SIDE, SIDE)])[0] * pixels.std + pixels.mean


@pytest.fixture
def framed() -> np.ndarray:
    valid = np.zeros((SIDE, SIDE), bool)
    valid[50:-50, 50:-50] = True
    return valid


def test_a_frame_is_the_models_mean_color(framed: np.ndarray) -> None:
    pixels = uploaded(framed, is_stretched=False)
    expected = torch.where(torch.from_numpy(framed), torch.from_numpy(ramp()), pixels.mean)
    torch.testing.assert_close(network_sees(pixels), expected)


def test_a_frame_around_a_stretched_scene_continues_it(framed: np.ndarray) -> None:
    seen, expected = network_sees(uploaded(framed, is_stretched=True)), torch.from_numpy(ramp()).float()
    torch.testing.assert_close(seen[:, framed], expected[:, framed])
    # A step beside the border the colors are those of the border, and far away nothing is darker or brighter than the scene.
    torch.testing.assert_close(seen[:, 100, 46], expected[:, 100, 50], atol=4, rtol=0)
    torch.testing.assert_close(seen[:, 46, 60:140], expected[:, 50, 60:140], atol=4, rtol=0)
    assert seen.min() >= expected[:, framed].min() - 1
    assert seen.max() <= expected[:, framed].max() + 1


def test_a_stretched_region_of_a_single_pixel_has_its_color_everywhere() -> None:
    valid = np.zeros((SIDE, SIDE), bool)
    valid[10, 20] = True
    seen = network_sees(uploaded(valid, is_stretched=True))
    assert (seen - 70).abs().max() <= 1
