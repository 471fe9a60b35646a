"""Small untrained networks, and regions for them."""

from __future__ import annotations

from itertools import pairwise
from unittest import mock

import torch
from torch import Tensor, nn

from geoglnet.config import ModelConfig
from geoglnet.models import branch
from geoglnet.models.glnet import GLNet
from geoglnet.types import Shape
from geoglnet.windows import footprints, patch_windows


class FewConvolutions(nn.Module):
    """A backbone of five convolutions, for tests of what a GLNet does with the maps of its backbone, whichever that is."""

    channels = (6, 8, 10, 12)

    def __init__(self, name: str, in_channels: int = 3) -> None:
        super().__init__()
        self.name = name
        widths = (in_channels, 6, *self.channels)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, out, 3, stride=2, padding=1), nn.BatchNorm2d(out), nn.ReLU())
            for wide, out in pairwise(widths)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``(B, C, h, w)`` float image → c2…c5 at 1/4, 1/8, 1/16 and 1/32."""
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return tuple(maps[2:])


def small(backbone: str | None = None, **changes: object) -> GLNet:
    """The same random weights every time, with biases and scales that a conversion must not forget.

    Without the name of a backbone it has five convolutions, and cannot be loaded from a checkpoint.
    """
    torch.manual_seed(0)
    plain = {"num_classes": 3, "pyramid_channels": 8, "smooth_channels": 4, "backbone": backbone or "mobilenet_v2"} | changes
    with mock.patch.object(branch, "build_backbone", branch.build_backbone if backbone else FewConvolutions):
        network = GLNet(ModelConfig(**plain)).eval()
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1 and name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
        elif parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return network


def region_of(shape: Shape, seed: int = 0, patch_size: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """A 64 px overview, all patches, and their footprints."""
    generator = torch.Generator().manual_seed(seed)
    windows = patch_windows(shape, patch_size, 16)
    image = torch.randn(1, 3, *shape, generator=generator)
    patches = torch.cat([image[(..., *window.toslices())] for window in windows])
    return torch.randn(1, 3, 64, 64, generator=generator), patches, torch.from_numpy(footprints(windows, shape))
