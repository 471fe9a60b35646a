"""Small untrained networks, and regions for them."""

from __future__ import annotations

import torch
from torch import Tensor

from geoglnet.config import ModelConfig
from geoglnet.models.glnet import GLNet
from geoglnet.types import Shape
from geoglnet.windows import footprints, patch_windows


def small(**changes: object) -> GLNet:
    """The same random weights every time, with biases and scales that a conversion must not forget."""
    torch.manual_seed(0)
    plain = {"num_classes": 3, "backbone": "mobilenet_v2", "pyramid_channels": 8, "smooth_channels": 4} | changes
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
