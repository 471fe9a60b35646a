"""SegNet on VGG16 (Badrinarayanan, Kendall, Cipolla: SegNet, TPAMI 2017): upsampling by the places of the maxima."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
import torchvision
from torch import Size, Tensor, nn

from geoglnet.config import ModelConfig
from geoglnet.models.backbone import fit_stem
from geoglnet.models.baselines.baseline import Baseline


class Encoded(NamedTuple):
    """The deepest map, and of every pooling, in order, the places of the maxima and the size before it."""

    deepest: Tensor
    places: list[Tensor]
    sizes: list[Size]


class Encoder(nn.Module):
    """torchvision's VGG16 with batch normalization, up to its last pooling, under torchvision's names."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.name = "vgg16_bn"
        self.features = torchvision.models.vgg16_bn(weights=None).features
        if in_channels != 3:
            fit_stem(self, in_channels)

    def forward(self, image: Tensor) -> Encoded:
        """``(B, C, h, w)`` → a map at 1/32 and what undoes its poolings."""
        places, sizes = [], []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                sizes.append(image.shape[-2:])
                image, where = F.max_pool2d(image, 2, 2, return_indices=True)
                places.append(where)
            else:
                image = layer(image)
        return Encoded(image, places, sizes)


class Decoder(nn.Module):
    """The encoder's mirror image: unpooling, then as many convolutions; the last one gives the logits."""

    WIDTHS = ((512, 512, 512, 512), (512, 512, 512, 256), (256, 256, 256, 128), (128, 128, 64))

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_stage(widths) for widths in self.WIDTHS)
        self.last = nn.Sequential(_stage((64, 64)), nn.Conv2d(64, num_classes, kernel_size=3, padding=1))

    def forward(self, image: Tensor, encoded: Encoded) -> Tensor:
        """Decode to ``(B, num_classes, h, w)`` logits."""
        hidden, places, sizes = encoded
        for stage in (*self.stages, self.last):
            # Pooling drops the last row of an odd side; the size before it says whether there was one.
            hidden = stage(F.max_unpool2d(hidden, places.pop(), (2, 2), (2, 2), output_size=sizes.pop()))
        return hidden


class SegNet(Baseline):
    """A SegNet; 29.4 million parameters.

    Args:
        config: bands and classes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, Encoder(config.in_channels), Decoder(config.num_classes))


def _stage(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Conv2d(narrow, wide, kernel_size=3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(*layers)
