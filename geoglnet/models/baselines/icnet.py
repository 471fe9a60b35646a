"""ICNet (Zhao et al.: ICNet for Real-Time Semantic Segmentation on High-Resolution Images, ECCV 2018).

A cascade of three resolutions: a quarter of the image goes through all of a PSPNet50 whose layers are half as wide (what the
paper's compression leaves), half of it through the first stages only, all of it through three strided convolutions. The
auxiliary losses of the coarser resolutions are left out: every system here has one loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from geoglnet.config import ModelConfig
from geoglnet.models.baselines.baseline import Baseline
from geoglnet.models.branch import resize

BINS = (1, 2, 3, 6)  # pyramid pooling of PSPNet (Zhao et al., CVPR 2017)
NAME = "resnet50_half"


class Cascade(NamedTuple):
    """Maps of the quarter, the half and the whole image, at 1/32, 1/16 and 1/8 of it."""

    quarter: Tensor
    half: Tensor
    whole: Tensor


class CascadeEncoder(nn.Module):
    """The three resolutions' encoders; the quarter goes on from the half's map."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.name = NAME
        self.stem = nn.Sequential(_unit(in_channels, 32, 3, 2), _unit(32, 32, 3), _unit(32, 64, 3))
        self.stage2 = _stage(64, 32, 128, 3)
        self.stage3_first = DilatedBottleneck(128, 64, 256, stride=2)
        self.stage3_rest = nn.Sequential(*(DilatedBottleneck(256, 64, 256) for _ in range(3)))
        # Dilated instead of strided, as in PSPNet: the quarter's map stays at 1/8 of it, 1/32 of the image.
        self.stage4 = _stage(256, 128, 512, 6, dilation=2)
        self.stage5 = _stage(512, 256, 1024, 3, dilation=4)
        self.narrow = _unit(1024, 256, 1)
        self.whole = nn.Sequential(_unit(in_channels, 32, 3, 2), _unit(32, 32, 3, 2), _unit(32, 64, 3, 2))

    def forward(self, image: Tensor) -> Cascade:
        """``(B, C, h, w)`` → maps of the three resolutions."""
        halved = F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
        half = self.stage3_first(self.stage2(F.max_pool2d(self.stem(halved), 3, 2, 1)))
        # The first stages are shared: the quarter goes on from the half's map, shrunk, and is not encoded itself.
        smaller = [max(1, side // 2) for side in half.shape[-2:]]
        deep = self.stage5(self.stage4(self.stage3_rest(F.interpolate(half, size=smaller, mode="bilinear"))))
        pooled = [resize(F.adaptive_avg_pool2d(deep, bins), deep) for bins in BINS]
        return Cascade(self.narrow(sum(pooled, deep)), half, self.whole(image))  # added up, where PSPNet concatenates


class Fusion(nn.Module):
    """Cascade feature fusion: the coarse map, enlarged and dilated, plus the finer one."""

    def __init__(self, coarse_channels: int, fine_channels: int) -> None:
        super().__init__()
        self.coarse = _unit(coarse_channels, 128, 3, dilation=2, is_last=True)
        self.fine = _unit(fine_channels, 128, 1, is_last=True)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Both maps → one of the finer one's size."""
        return F.relu(self.coarse(resize(coarse, fine)) + self.fine(fine))


class CascadeHead(nn.Module):
    """Two fusions, doubling, classifier; the rest is upsampling."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fuse_half = Fusion(256, 256)
        self.fuse_whole = Fusion(128, 64)
        self.classify = nn.Conv2d(128, num_classes, kernel_size=1)

    def forward(self, image: Tensor, maps: Cascade) -> Tensor:
        """Maps → ``(B, num_classes, h/4, w/4)`` logits."""
        fused = self.fuse_whole(self.fuse_half(maps.quarter, maps.half), maps.whole)
        logits: Tensor = self.classify(F.interpolate(fused, scale_factor=2, mode="bilinear", align_corners=False))
        return logits


class ICNet(Baseline):
    """An ICNet; 6.7 million parameters.

    Args:
        config: bands and classes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, CascadeEncoder(config.in_channels), CascadeHead(config.num_classes))


class DilatedBottleneck(nn.Module):
    """Residual block: 1 × 1, 3 × 3 (strided or dilated), 1 × 1."""

    def __init__(self, channels: int, inner: int, wide: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _unit(channels, inner, 1, stride), _unit(inner, inner, 3, dilation=dilation), _unit(inner, wide, 1, is_last=True)
        )
        is_same = channels == wide and stride == 1
        self.shortcut = nn.Identity() if is_same else _unit(channels, wide, 1, stride, is_last=True)

    def forward(self, image: Tensor) -> Tensor:
        """Compute the next map."""
        return F.relu(self.body(image) + self.shortcut(image))


def _stage(channels: int, inner: int, wide: int, count: int, dilation: int = 1) -> nn.Sequential:
    first = DilatedBottleneck(channels, inner, wide, dilation=dilation)
    return nn.Sequential(first, *(DilatedBottleneck(wide, inner, wide, dilation=dilation) for _ in range(count - 1)))


def _unit(channels: int, wide: int, size: int, stride: int = 1, dilation: int = 1, is_last: bool = False) -> nn.Sequential:
    """Convolution and batch normalization, rectified unless something is added first."""
    conv = nn.Conv2d(channels, wide, size, stride, padding=dilation * (size // 2), dilation=dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    layers = [conv, nn.BatchNorm2d(wide)]
    return nn.Sequential(*layers) if is_last else nn.Sequential(*layers, nn.ReLU(inplace=True))
