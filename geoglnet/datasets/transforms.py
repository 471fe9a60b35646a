"""Augmentation, drawn once per region before overview and patches are cut, so that all of them are changed alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from geoglnet.errors import ConfigError


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Strength of augmentation; all off is ``AugmentConfig(False, 1, 1, 0)``.

    Args:
        d4: flips and quarter turns, the symmetries of the square.
        scale_min: smallest ground size of a pixel, relative to the model's resolution.
        scale_max: largest.
        color: strength from 0 to 1 of brightness, contrast, saturation, per-band gain, gamma, blur and noise.

    Raises:
        ConfigError: scales not positive and ordered, or strength out of range.
    """

    d4: bool = True
    scale_min: float = 0.75
    scale_max: float = 1.33
    color: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.scale_min <= self.scale_max:
            raise ConfigError(f"scale_min {self.scale_min} and scale_max {self.scale_max} must be positive and in order")
        if self.scale_min < 1 / 64 or self.scale_max > 64:
            raise ConfigError(f"scale_min {self.scale_min} and scale_max {self.scale_max} must be from 1/64 to 64")
        if not 0 <= self.color <= 1:
            raise ConfigError(f"color {self.color} must be from 0 to 1")

    def draw_scale(self, rng: np.random.Generator) -> float:
        """Draw a scale, log-uniform between the limits."""
        return float(np.exp(rng.uniform(np.log(self.scale_min), np.log(self.scale_max))))


def turn(image: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Apply one of the eight symmetries of the square (D4), the same to image and labels."""
    # A flip and four quarter turns make all eight.
    if rng.random() < 0.5:
        image, labels = TF.horizontal_flip(image), TF.horizontal_flip(labels)
    degrees = 90 * int(rng.integers(4))
    return TF.rotate(image, degrees, expand=True), TF.rotate(labels[None], degrees, expand=True)[0]


def recolor(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Imitate another camera, light and season.

    Args:
        image: ``(3, h, w)`` float 0–1.
        strength: 0 leaves the image as it is.
        rng: source of randomness.

    Returns:
        ``(3, h, w)`` float 0–1.
    """
    if strength == 0:
        return image
    # Gains of single bands instead of a change of hue, whose color space costs more than all the rest together.
    image = TF.adjust_brightness(image, _factor(rng, 0.6 * strength))
    image = TF.adjust_contrast(image, _factor(rng, 0.6 * strength))
    image = TF.adjust_saturation(image, _factor(rng, 0.8 * strength))
    gains = torch.from_numpy(np.exp(rng.normal(0, 0.15 * strength, size=(3, 1, 1))).astype(np.float32))
    image = TF.adjust_gamma((image * gains).clamp(0, 1), _factor(rng, 0.5 * strength))
    return _blur_or_noise(image, strength, rng)


def resample(image: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resample image (bilinear, antialiased) and labels (nearest) to another size."""
    if image.shape[-2:] == size:
        return image, labels
    scaled = TF.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)
    return scaled, resample_labels(labels, size)


def resample_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample ``(h, w)`` labels (nearest) to another size."""
    return labels if labels.shape == size else TF.resize(labels[None], list(size), InterpolationMode.NEAREST_EXACT)[0]


def _factor(rng: np.random.Generator, spread: float) -> float:
    """Draw a factor around 1, log-uniform, so that its effect and the inverse are equally likely."""
    return float(np.exp(rng.uniform(-spread, spread)))


def _blur_or_noise(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Blur the image, or add noise, or leave it unchanged."""
    choice = rng.random() / max(strength, 1e-6)
    if choice < 0.3:
        blurred: Tensor = TF.gaussian_blur(image, [5, 5], [float(rng.uniform(0.3, 1.5))])
        return blurred
    if choice < 0.6:
        seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
        return (image + torch.randn(image.shape, generator=seed) * float(rng.uniform(0.01, 0.05))).clamp(0, 1)
    return image
