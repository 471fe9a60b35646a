"""Augmentation: image and labels together, nothing invented, all of it from the given generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from geoglnet.bands import Bands, ValueRange
from geoglnet.config import ScalingRule
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


def recolored_by_torchvision(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    factor = lambda spread: float(np.exp(rng.uniform(-spread, spread)))  # noqa: E731 - the draws, in their order
    image = TF.adjust_brightness(image, factor(0.6 * strength))
    image = TF.adjust_contrast(image, factor(0.6 * strength))
    image = TF.adjust_saturation(image, factor(0.8 * strength))
    gains = torch.from_numpy(np.exp(rng.normal(0, 0.15 * strength, size=(3, 1, 1))).astype(np.float32))
    image = TF.adjust_gamma((image * gains).clamp(0, 1), factor(0.5 * strength))
    return TF.gaussian_blur(image, [5, 5], [float(rng.uniform(0.3, 1.5))]) if rng.random() / strength < 0.3 else image


def test_colors_blur_turns_and_sizes_equal_torchvisions() -> None:
    image = torch.rand(3, 33, 48, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, 3, (33, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    num_blurred = num_plain = 0
    for seed in range(40):
        rng, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
        ours, expected = recolor(image, 0.7, rng), recolored_by_torchvision(image, 0.7, theirs)
        is_noisy = rng.bit_generator.state != theirs.bit_generator.state  # noise draws more numbers, and is ours alone
        num_blurred, num_plain = num_blurred + (not is_noisy), num_plain + is_noisy
        assert is_noisy or torch.allclose(ours, expected, rtol=0, atol=5e-7)  # blur adds up in another order
        turned, turned_labels = turn(image, labels, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        flipped = (TF.horizontal_flip(image), TF.horizontal_flip(labels)) if rng.random() < 0.5 else (image, labels)
        degrees = 90 * int(rng.integers(4))
        assert torch.equal(turned, TF.rotate(flipped[0], degrees, expand=True))
        assert torch.equal(turned_labels, TF.rotate(flipped[1][None], degrees, expand=True)[0])
    assert num_blurred > 10
    assert num_plain > 5
    for size in [(64, 20), (20, 30), (33, 48), (70, 90)]:
        resized, resized_labels = resample(image, labels, size)
        assert torch.equal(resized, TF.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True))
        assert torch.equal(resized_labels, TF.resize(labels[None], list(size), InterpolationMode.NEAREST_EXACT)[0])


MULTISPECTRAL = Bands(
    ("nir", "red", "green", "blue", "height"),
    (0.3, 0.1, 0.1, 0.1, 0.2),
    (0.1, 0.03, 0.03, 0.03, 0.2),
    (*(ScalingRule.REFLECTANCE,) * 4, ValueRange(0, 30)),
)


def test_other_bands_are_recolored_around_their_own_means_and_heights_are_left_alone() -> None:
    noise = torch.randn(5, 24, 24, generator=torch.Generator().manual_seed(0))
    image = torch.tensor(MULTISPECTRAL.mean)[:, None, None] + noise * torch.tensor(MULTISPECTRAL.std)[:, None, None]
    image[0, 3, 3] = 1.6  # a glint stays one
    changed = [recolor(image, 0.5, np.random.default_rng(seed), MULTISPECTRAL) for seed in range(30)]
    assert all(torch.isfinite(out).all() and out.shape == image.shape for out in changed)
    assert not any(torch.equal(out[:4], image[:4]) for out in changed)
    assert any(torch.equal(out[4], image[4]) for out in changed), "neither blurred nor noisy"
    assert max(float(out[0].max()) for out in changed) > 1
    means = torch.stack([out.mean(dim=(1, 2)) for out in changed])[:, :4]
    ratio = means / torch.tensor(MULTISPECTRAL.mean[:4])
    assert (ratio > 0.4).all()
    assert (ratio < 2.5).all()


def test_saturation_is_a_matter_of_the_colors_alone() -> None:
    gray = torch.full((2, 8, 8), 0.4)
    bands = Bands(("pan", "nir"), (0.4, 0.4), (0.2, 0.2))
    assert recolor(gray, 0.8, np.random.default_rng(1), bands).shape == (2, 8, 8)
    assert recolor(gray, 0.8, np.random.default_rng(1), bands).max() <= 1
