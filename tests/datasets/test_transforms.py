"""Augmentation: image and labels together, nothing invented, all of it from the given generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoglnet.datasets.transforms import AugmentConfig, recolor, resample, turn
from geoglnet.errors import ConfigError


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_turning_keeps_image_and_labels_together(seed: int) -> None:
    labels = torch.arange(36).reshape(6, 6)
    image, turned = turn(labels[None].float(), labels, np.random.default_rng(seed))
    assert torch.equal(image[0].long(), turned)
    assert sorted(turned.flatten().tolist()) == list(range(36))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), strength=st.floats(0, 1))
def test_recolored_images_stay_between_0_and_1(seed: int, strength: float) -> None:
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))
    out = recolor(image, strength, np.random.default_rng(seed))
    assert out.shape == image.shape
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.isfinite(out).all()


def test_resampling_invents_no_label() -> None:
    labels = torch.randint(0, 3, (31, 47), dtype=torch.uint8)
    image, scaled = resample(torch.rand(3, 31, 47), labels, (64, 20))
    assert image.shape[1:] == scaled.shape == (64, 20)
    assert set(scaled.unique().tolist()) <= {0, 1, 2}


def test_all_eight_symmetries_of_the_square_are_drawn() -> None:
    labels = torch.arange(9, dtype=torch.uint8).reshape(3, 3)
    drawn = {
        tuple(turn(labels[None].float(), labels, np.random.default_rng(seed))[1].flatten().tolist()) for seed in range(100)
    }
    assert len(drawn) == 8


def test_the_same_generator_draws_the_same_colors_whatever_torch_did_before() -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    first = [recolor(image, 0.7, np.random.default_rng(seed)) for seed in range(12)]
    torch.rand(7)
    second = [recolor(image, 0.7, np.random.default_rng(seed)) for seed in range(12)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("plain", [{"scale_min": 0.0}, {"scale_min": 2.0}, {"color": 1.5}])
def test_augmentation_that_cannot_be_drawn_is_refused(plain: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(plain))):
        AugmentConfig(**plain)
