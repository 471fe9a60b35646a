"""Augmentation, drawn once per region before overview and patches are cut, so that all of them are changed alike.

The arithmetic is that of ``torchvision.transforms.v2``: to the bit, and blur to rounding. Only torch is imported: every worker
that loads regions would import torchvision anew, for seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geoglnet.bands import RGB, Bands, ValueRange
from geoglnet.errors import ConfigError


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Strength of augmentation; all off is ``AugmentConfig(False, 1, 1, 0)``.

    Args:
        d4: flips and quarter turns, the symmetries of the square.
        scale_min: smallest ground size of a pixel, relative to the model's resolution.
        scale_max: largest.
        color: strength from 0 to 1 of brightness, contrast, saturation, per-band gain, gamma, blur and noise. Saturation is of
            red, green and blue alone; bands with a fixed range, such as heights, keep their values but for blur and noise.

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
        image, labels = image.flip(-1), labels.flip(-1)
    turns = int(rng.integers(4))
    return image.rot90(turns, (-2, -1)), labels.rot90(turns, (-2, -1))


def recolor(image: Tensor, strength: float, rng: np.random.Generator, bands: Bands = Bands()) -> Tensor:  # noqa: B008 - frozen
    """Imitate another camera, light and season.

    Args:
        image: ``(C, h, w)`` float 0–1.
        strength: 0 leaves the image as it is.
        rng: source of randomness.
        bands: what the image's bands are, with their mean and std.

    Returns:
        ``(C, h, w)`` float 0–1; beyond that where the values of other than 8-bit models were.
    """
    if strength == 0:
        return image
    if not (bands.is_8bit and bands.names == RGB):
        return _recolor_bands(image, strength, rng, bands)
    # Gains of single bands instead of a change of hue, whose color space costs more than all the rest together.
    image = image.mul(_factor(rng, 0.6 * strength)).clamp_(0, 1)  # brightness
    image = _blend(image, _gray(image).mean(), _factor(rng, 0.6 * strength))  # contrast
    image = _blend(image, _gray(image), _factor(rng, 0.8 * strength))  # saturation
    gains = torch.from_numpy(np.exp(rng.normal(0, 0.15 * strength, size=(3, 1, 1))).astype(np.float32))
    image = (image * gains).clamp(0, 1).pow(_factor(rng, 0.5 * strength))  # gamma
    return _blur_or_noise(image, strength, rng)


def _recolor_bands(image: Tensor, strength: float, rng: np.random.Generator, bands: Bands) -> Tensor:
    """Recolor any bands, each around its own mean: reflectance uses a small part of 0 to 1, in which fixed steps are large."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (bands.mean, bands.std))
    # Factors in the order of :func:`recolor`: brightness, contrast, saturation, gains, gamma.
    brightness, contrast = _factor(rng, 0.6 * strength), _factor(rng, 0.6 * strength)
    saturation = _factor(rng, 0.8 * strength)
    gains = torch.from_numpy(np.exp(rng.normal(0, 0.15 * strength, size=(len(bands), 1, 1))).astype(np.float32))
    gamma = _factor(rng, 0.5 * strength)
    changed = image * brightness
    center = changed.mean(dim=(1, 2), keepdim=True)
    changed = (changed - center) * contrast + center
    if bands.rgb is not None:
        colors = changed[list(bands.rgb)]
        gray = (colors * torch.tensor((0.299, 0.587, 0.114))[:, None, None]).sum(dim=0, keepdim=True)
        changed[list(bands.rgb)] = (colors - gray) * saturation + gray
    changed = changed * gains
    around = mean.clamp(min=1e-3)
    changed = torch.where(changed > 0, around * (changed.clamp(min=0) / around) ** gamma, changed)
    # A height of 3 m is 3 m in any light.
    is_fixed = torch.tensor([isinstance(rule, ValueRange) for rule in bands.rules])[:, None, None]
    image = torch.where(is_fixed, image, changed)
    spread = std / (sum(Bands().std) / 3)  # noise is as strong, beside what the band shows, as in a photograph
    changed = _blur_or_noise(image, strength, rng, spread)
    return changed.clamp(0, 1) if bands.is_8bit else changed


def resample(image: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resample image (bilinear, antialiased) and labels (nearest) to another size."""
    if image.shape[-2:] == size:
        return image, labels
    scaled = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    return scaled, resample_labels(labels, size)


def resample_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample ``(h, w)`` labels (nearest) to another size."""
    return labels if labels.shape == size else F.interpolate(labels[None, None], size, mode="nearest-exact")[0, 0]


def _factor(rng: np.random.Generator, spread: float) -> float:
    """Draw a factor around 1, log-uniform, so that its effect and the inverse are equally likely."""
    return float(np.exp(rng.uniform(-spread, spread)))


def _gray(image: Tensor) -> Tensor:
    """Weigh red, green and blue as the eye does (ITU-R BT.601); ``(1, h, w)``."""
    red, green, blue = image.unbind()
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)[None]


def _blend(image: Tensor, other: Tensor, factor: float) -> Tensor:
    """Move an image away from another one (factor above 1) or toward it, within 0 to 1."""
    return image.mul(factor).add_(other, alpha=1 - factor).clamp_(0, 1)


def _blur_or_noise(image: Tensor, strength: float, rng: np.random.Generator, spread: Tensor | None = None) -> Tensor:
    """Blur the image, or add noise, or leave it unchanged; ``spread``, ``(C, 1, 1)``, is how strong noise is in each band."""
    choice = rng.random() / max(strength, 1e-6)
    if choice < 0.3:
        return _blurred(image, sigma=float(rng.uniform(0.3, 1.5)))
    if choice < 0.6:
        seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
        noise = torch.randn(image.shape, generator=seed) * float(rng.uniform(0.01, 0.05))
        return (image + noise).clamp(0, 1) if spread is None else image + noise * spread
    return image


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian, cut off after two pixels."""
    size = 5
    limit = (size - 1) / (2 * math.sqrt(2))  # places divided by √2: the exponent is -(x / σ)² / 2
    line = torch.linspace(-limit, limit, size).div(sigma).pow(2).neg().softmax(0)
    rows, cols = image.shape[-2:]
    padded = F.pad(image[None], [size // 2] * 4, mode="reflect")[0]
    # Along one axis and then along the other, by shifted sums: a sixth of the time of a convolution of 5 × 5 per band.
    weights = [float(weight) for weight in line]
    across = padded[..., :cols] * weights[0]
    for shift, weight in enumerate(weights[1:], 1):
        across.add_(padded[..., shift : shift + cols], alpha=weight)
    blurred = across[:, :rows] * weights[0]
    for shift, weight in enumerate(weights[1:], 1):
        blurred.add_(across[:, shift : shift + rows], alpha=weight)
    return blurred
