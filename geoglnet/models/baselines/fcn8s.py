"""FCN-8s on VGG16 (Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from geoglnet.config import ModelConfig
from geoglnet.models.backbone import fit_stem
from geoglnet.models.baselines.baseline import Baseline

PADDING = 100
"""Zeros around the image, so that the 7 × 7 fc6 gives a score even for the smallest one (the paper's own way)."""


class Pools(NamedTuple):
    """Maps at 1/8 and 1/16, and fc7's at 1/32."""

    pool3: Tensor
    pool4: Tensor
    fc7: Tensor


class VGG16(nn.Module):
    """torchvision's VGG16 with its fully connected layers as convolutions, under torchvision's names."""

    ENDS = (17, 24, 31)  # after pool3, pool4 and pool5

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.name = "vgg16"
        self.features = torchvision.models.vgg16(weights=None).features
        self.classifier = nn.Sequential(
            nn.Conv2d(512, 4096, kernel_size=7),
            nn.ReLU(inplace=True),
            nn.Dropout2d(),
            nn.Conv2d(4096, 4096, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Dropout2d(),
        )
        if in_channels != 3:
            fit_stem(self, in_channels)
        self.features[0].padding = (PADDING, PADDING)

    def forward(self, image: Tensor) -> Pools:
        """``(B, C, h, w)`` → the maps that are scored."""
        first, second, third = self.ENDS
        pool3 = self.features[:first](image)
        pool4 = self.features[first:second](pool3)
        return Pools(pool3, pool4, self.classifier(self.features[second:third](pool4)))


class Skips(nn.Module):
    """Scores of three maps, each upsampled by 2 and added to the next finer one, cropped where the paper's release crops."""

    OFFSETS = (5, 9, 31)  # of pool4 and pool3 in what is upsampled onto them, and of the image in the last map

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.score_fc7 = nn.Conv2d(4096, num_classes, kernel_size=1)
        self.score_pool4 = nn.Conv2d(512, num_classes, kernel_size=1)
        self.score_pool3 = nn.Conv2d(256, num_classes, kernel_size=1)
        self.up_fc7 = _upsampling(num_classes, 2)
        self.up_pool4 = _upsampling(num_classes, 2)
        self.up_pool3 = _upsampling(num_classes, 8)
        for score in (self.score_fc7, self.score_pool4, self.score_pool3):
            # As published: random scores made nothing better or faster there.
            nn.init.zeros_(score.weight)
            nn.init.zeros_(score.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, image: Tensor, pools: Pools) -> Tensor:
        """Maps → ``(B, num_classes, h, w)`` logits."""
        at_pool4, at_pool3, at_image = self.OFFSETS
        coarse = self.up_fc7(self.score_fc7(pools.fc7))
        middle = self.up_pool4(coarse + _cropped(self.score_pool4(pools.pool4), at_pool4, coarse))
        fine = self.up_pool3(middle + _cropped(self.score_pool3(pools.pool3), at_pool3, middle))
        return _cropped(fine, at_image, image)


class FCN8s(Baseline):
    """An FCN-8s; 134 million parameters, nearly all of them fc6 and fc7.

    Args:
        config: bands and classes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, VGG16(config.in_channels), Skips(config.num_classes))


def _cropped(whole: Tensor, offset: int, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    return whole[..., offset : offset + height, offset : offset + width]


def _upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Learned upsampling that starts as bilinear interpolation."""
    size = 2 * factor
    conv = nn.ConvTranspose2d(channels, channels, size, stride=factor, bias=False)
    ramp = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
    with torch.no_grad():
        conv.weight.zero_()
        for channel in range(channels):
            conv.weight[channel, channel] = ramp[:, None] * ramp
    return conv
