"""Backbones: torchvision networks that give c2…c5, the maps after conv2 to conv5 (paper §4.1).

Module names are torchvision's, so its weight files load as they are.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geoglnet.config import BACKBONES, suggestion
from geoglnet.errors import CheckpointError, ConfigError
from geoglnet.models.baselines.library import pretrained_encoder
from geoglnet.models.extractors import Extractor, pretrained_state

Levels = tuple[Tensor, Tensor, Tensor, Tensor]


class ResNet(nn.Module):
    """torchvision ResNet without its classifier.

    Args:
        name: ``"resnet18"``, ``"resnet34"``, ``"resnet50"`` or ``"resnet101"``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
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


class MobileNet(nn.Module):
    """torchvision MobileNet up to its last inverted residual block at 1/32.

    Ours, not the paper's: the shipped models must be small and quick on a CPU.

    Args:
        name: ``"mobilenet_v2"``, ``"mobilenet_v3_small"`` or ``"mobilenet_v3_large"``.
    """

    ENDS: ClassVar = {  # blocks up to each stride, and their channels
        "mobilenet_v2": ((4, 7, 14, 18), (24, 32, 96, 320)),
        "mobilenet_v3_small": ((2, 4, 9, 12), (16, 24, 48, 96)),
        "mobilenet_v3_large": ((4, 7, 13, 16), (24, 40, 112, 160)),
    }

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.ends, self.channels = self.ENDS[name]
        # What follows is a wide 1 × 1 convolution for the classifier, also at 1/32.
        self.features = torchvision.models.get_model(name, weights=None).features[: self.ends[-1]]

    def forward(self, image: Tensor) -> Levels:
        """``(B, C, h, w)`` float image → c2…c5 at 1/4, 1/8, 1/16 and 1/32."""
        maps = []
        for start, end in zip((0, *self.ends), self.ends, strict=False):
            image = self.features[start:end](image)
            maps.append(image)
        return maps[0], maps[1], maps[2], maps[3]


Backbone = ResNet | MobileNet | Extractor


def build_backbone(name: str, in_channels: int = 3) -> Backbone:
    """Build a backbone with random weights.

    Args:
        name: as in :class:`~geoglnet.config.ModelConfig`.
        in_channels: bands; the first convolution is replaced where they are not three.

    Raises:
        ConfigError: unknown name.
    """
    if "/" not in name and name not in BACKBONES:
        raise ConfigError(f"unknown backbone {name!r}{suggestion(name, BACKBONES)}")
    kind = Extractor if "/" in name else ResNet if name.startswith("resnet") else MobileNet
    backbone = kind(name)
    if in_channels != 3:
        fit_stem(backbone, in_channels)
    return backbone


def load_backbone_weights(backbone: nn.Module, source: str) -> None:
    """Fill a backbone with ImageNet weights.

    Args:
        backbone: changed in place; its ``name`` is the one it was built with. With other than three bands, the first
            convolution takes the color average per band.
        source: ``"imagenet"`` (torchvision's, downloaded once) or a safetensors file with torchvision's names.

    Raises:
        CheckpointError: the file is missing or not safetensors, or lacks tensors that the backbone has.
    """
    state = _imagenet_state(str(backbone.name)) if source == "imagenet" else _file_state(source)
    own = backbone.state_dict()
    # Counts of batches have no effect here (only where momentum is None), and older weight files lack them.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(
            f"{source} lacks {len(missing)} tensors of {backbone.name}, first {missing[0]}; is it another network?"
        )
    stem = next(name for name in own if own[name].ndim == 4)
    if own[stem].shape != state[stem].shape:
        # Scaled by 3 / bands: a gray image excites the stem as much, however many bands it has.
        state[stem] = state[stem].mean(1, keepdim=True).expand_as(own[stem]) * (3 / own[stem].shape[1])
    with torch.no_grad():
        for name, tensor in own.items():
            if name in state:
                tensor.copy_(state[name].reshape(tensor.shape))  # fully connected layers may be convolutions here


def _file_state(source: str) -> dict[str, Tensor]:
    if not Path(source).is_file():
        raise CheckpointError(f"no backbone weights at {source}; give a safetensors file or 'imagenet'")
    try:
        return load_file(source)
    except SafetensorError as error:
        raise CheckpointError(f"{source} is not a safetensors file ({error})") from error


def _imagenet_state(name: str) -> dict[str, Tensor]:
    if "/" in name:
        return pretrained_state(name)
    if name not in torchvision.models.list_models():
        return pretrained_encoder(name)
    state: dict[str, Tensor] = torchvision.models.get_model(name, weights="DEFAULT").state_dict()
    return state


def fit_stem(backbone: nn.Module, in_channels: int) -> None:
    """Replace the first convolution of a network by one that takes ``in_channels`` bands."""
    path, stem = next((path, m) for path, m in backbone.named_modules() if isinstance(m, nn.Conv2d))
    parent, _, child = path.rpartition(".")
    fitted = copy.deepcopy(stem)
    fitted.in_channels = in_channels
    fitted.weight = nn.Parameter(torch.empty(stem.out_channels, in_channels, *stem.weight.shape[2:]))
    fitted.reset_parameters()
    setattr(backbone.get_submodule(parent), child, fitted)
