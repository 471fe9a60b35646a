"""Backbones: torchvision networks that give c2…c5, the maps after conv2 to conv5 (paper §4.1).

Module names are torchvision's, so its weight files load as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geoglnet.config import BACKBONES, suggestion
from geoglnet.errors import CheckpointError, ConfigError

Levels = tuple[Tensor, Tensor, Tensor, Tensor]


class ResNet(nn.Module):
    """torchvision ResNet without its classifier.

    Args:
        name: ``"resnet18"``, ``"resnet34"`` or ``"resnet50"``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        whole = torchvision.models.get_model(name, weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4
        deepest = whole.fc.in_features
        self.channels = (deepest // 8, deepest // 4, deepest // 2, deepest)

    def forward(self, image: Tensor) -> Levels:
        """``(B, C, h, w)`` float image → c2…c5 at 1/4, 1/8, 1/16 and 1/32."""
        c2 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(image)))))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)


class MobileNetV2(nn.Module):
    """torchvision MobileNetV2 up to its last inverted residual block (320 channels at 1/32).

    Ours, not the paper's: the shipped models must be small and quick on a CPU.
    """

    ENDS = (4, 7, 14, 18)  # blocks up to each stride: 24, 32, 96 and 320 channels

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.mobilenet_v2(weights=None).features[: self.ENDS[-1]]
        self.channels = (24, 32, 96, 320)

    def forward(self, image: Tensor) -> Levels:
        """``(B, C, h, w)`` float image → c2…c5 at 1/4, 1/8, 1/16 and 1/32."""
        maps = []
        for start, end in zip((0, *self.ENDS), self.ENDS, strict=False):
            image = self.features[start:end](image)
            maps.append(image)
        return maps[0], maps[1], maps[2], maps[3]


Backbone = ResNet | MobileNetV2

_BUILDERS: dict[str, Callable[[], Backbone]] = {
    "resnet18": lambda: ResNet("resnet18"),
    "resnet34": lambda: ResNet("resnet34"),
    "resnet50": lambda: ResNet("resnet50"),
    "mobilenet_v2": MobileNetV2,
}


def build_backbone(name: str, in_channels: int = 3) -> Backbone:
    """A backbone with random weights.

    Raises:
        ConfigError: unknown name.
    """
    if name not in _BUILDERS:
        raise ConfigError(f"unknown backbone {name!r}{suggestion(name, BACKBONES)}")
    backbone = _BUILDERS[name]()
    if in_channels != 3:
        _replace_stem(backbone, in_channels)
    return backbone


def load_backbone_weights(backbone: Backbone, source: str) -> None:
    """Fill a backbone with ImageNet weights.

    Args:
        backbone: changed in place. With other than three bands, the first convolution takes the colour average per band.
        source: ``"imagenet"`` (torchvision's, downloaded once) or a safetensors file with torchvision's names.

    Raises:
        CheckpointError: the file is missing or not safetensors, or lacks tensors that the backbone has.
    """
    state = _imagenet_state(backbone) if source == "imagenet" else _file_state(source)
    own = backbone.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(
            f"{source} lacks {len(missing)} tensors of {type(backbone).__name__}, first {missing[0]}; is it another network?"
        )
    stem = next(name for name in own if own[name].ndim == 4)
    if own[stem].shape != state[stem].shape:
        state[stem] = state[stem].mean(1, keepdim=True).expand_as(own[stem]) * (3 / own[stem].shape[1])
    with torch.no_grad():
        for name, tensor in own.items():
            if name in state:
                tensor.copy_(state[name])


def _file_state(source: str) -> dict[str, Tensor]:
    if not Path(source).is_file():
        raise CheckpointError(f"no backbone weights at {source}; give a safetensors file or 'imagenet'")
    try:
        return load_file(source)
    except SafetensorError as error:
        raise CheckpointError(f"{source} is not a safetensors file ({error})") from error


def _imagenet_state(backbone: Backbone) -> dict[str, Tensor]:
    depth = {(1, 64): "resnet18", (2, 64): "resnet34", (2, 256): "resnet50"}
    name = "mobilenet_v2" if isinstance(backbone, MobileNetV2) else depth[len(backbone.layer1) - 1, backbone.channels[0]]
    state: dict[str, Tensor] = torchvision.models.get_model(name, weights="DEFAULT").state_dict()
    return state


def _replace_stem(backbone: Backbone, in_channels: int) -> None:
    stem = backbone.conv1 if isinstance(backbone, ResNet) else backbone.features[0][0]
    fitted = nn.Conv2d(in_channels, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False)
    if isinstance(backbone, ResNet):
        backbone.conv1 = fitted
    else:
        backbone.features[0][0] = fitted
