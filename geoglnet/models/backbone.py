"""Backbones: networks for ImageNet without their classifiers, which give c2…c5, the maps after conv2 to conv5 (paper §4.1).

Layers and module names are torchvision's, so its weight files load as they are. They are built here because ``import
torchvision`` takes as long as ``import torch``; it is imported only for its pretrained weights.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geoglnet.bands import RGB
from geoglnet.config import BACKBONES, suggestion
from geoglnet.errors import CheckpointError, ConfigError
from geoglnet.models.baselines.library import pretrained_encoder
from geoglnet.models.extractors import Extractor, pretrained_state
from geoglnet.models.manifest import read_manifest
from geoglnet.models.pickles import read_pickle
from geoglnet.models.shipped import model_path, shipped_models
from geoglnet.progress import Progress, SilentProgress

Levels = tuple[Tensor, Tensor, Tensor, Tensor]
_BODY = "body."  # where an Extractor keeps its library's network


class BasicBlock(nn.Module):
    """Residual block of the smaller ResNets: two 3 × 3 convolutions (He et al., CVPR 2016)."""

    EXPANSION = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, image: Tensor) -> Tensor:
        """Compute the next map."""
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(image)))))
        rectified: Tensor = self.relu(inner.add_(image if self.downsample is None else self.downsample(image)))
        return rectified


class Bottleneck(nn.Module):
    """Residual block of the larger ResNets: 1 × 1, 3 × 3 and 1 × 1 convolutions.

    The stride is that of the 3 × 3 convolution ("ResNet V1.5"), where the paper strides the first one.
    """

    EXPANSION = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wide = width * self.EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, wide, stride)

    def forward(self, image: Tensor) -> Tensor:
        """Compute the next map."""
        inner = self.relu(self.bn1(self.conv1(image)))
        inner = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(inner)))))
        rectified: Tensor = self.relu(inner.add_(image if self.downsample is None else self.downsample(image)))
        return rectified


def _shortcut(channels: int, wide: int, stride: int) -> nn.Sequential | None:
    """Project a block's input to the shape of its map; ``None`` where it has that shape."""
    if stride == 1 and channels == wide:
        return None
    return nn.Sequential(nn.Conv2d(channels, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))


class ResNet(nn.Module):
    """ResNet of :class:`BasicBlock` or :class:`Bottleneck`.

    Args:
        name: ``"resnet18"``, ``"resnet34"``, ``"resnet50"`` or ``"resnet101"``.
    """

    STAGES: ClassVar[
        dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]]
    ] = {  # kind of block, and how many of them in conv2 to conv5
        "resnet18": (BasicBlock, (2, 2, 2, 2)),
        "resnet34": (BasicBlock, (3, 4, 6, 3)),
        "resnet50": (Bottleneck, (3, 4, 6, 3)),
        "resnet101": (Bottleneck, (3, 4, 23, 3)),
    }

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        block, counts = self.STAGES[name]
        widths = (64, 128, 256, 512)
        self.channels = tuple(width * block.EXPANSION for width in widths)
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        stages, channels = [], 64
        for width, wide, count in zip(widths, self.channels, counts, strict=True):
            first = block(channels, width, 1 if width == 64 else 2)
            stages.append(nn.Sequential(first, *(block(wide, width, 1) for _ in range(count - 1))))
            channels = wide
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        _initialize(self.modules())

    def forward(self, image: Tensor) -> Levels:
        """``(B, C, h, w)`` float image → c2…c5 at 1/4, 1/8, 1/16 and 1/32."""
        c2 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(image)))))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)


class InvertedResidual(nn.Module):
    """Residual block of MobileNetV2: expansion, depthwise convolution, projection without activation (Sandler et al., 2018)."""

    def __init__(self, channels: int, wide: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        layers: list[nn.Module] = [_unit(channels, inner, 1, activation=nn.ReLU6)] if expansion != 1 else []
        layers += [_unit(inner, inner, 3, stride, groups=inner, activation=nn.ReLU6)]
        layers += [nn.Conv2d(inner, wide, 1, bias=False), nn.BatchNorm2d(wide)]
        self.conv = nn.Sequential(*layers)
        self.is_residual = stride == 1 and channels == wide

    def forward(self, image: Tensor) -> Tensor:
        """Compute the next map."""
        inner: Tensor = self.conv(image)
        return image + inner if self.is_residual else inner


class SqueezeExcitation(nn.Module):
    """Gate per channel, computed from the mean of the map (Hu et al., CVPR 2018), with a hard sigmoid."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, image: Tensor) -> Tensor:
        """Compute the next map."""
        gate: Tensor = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(image)))))
        return gate * image


class GatedResidual(nn.Module):
    """Residual block of MobileNetV3: that of MobileNetV2, with a gate after the depthwise convolution (Howard et al., 2019)."""

    def __init__(self, channels: int, row: tuple[int, int, int, bool, bool, int]) -> None:
        super().__init__()
        kernel, inner, wide, is_gated, is_hard_swish, stride = row
        activation = nn.Hardswish if is_hard_swish else nn.ReLU
        layers: list[nn.Module] = [_unit(channels, inner, 1, activation=activation, norm=_norm_v3)] if inner != channels else []
        layers.append(_unit(inner, inner, kernel, stride, groups=inner, activation=activation, norm=_norm_v3))
        if is_gated:
            layers.append(SqueezeExcitation(inner, _multiple_of_8(inner // 4)))
        layers.append(_unit(inner, wide, 1, activation=None, norm=_norm_v3))
        self.block = nn.Sequential(*layers)
        self.is_residual = stride == 1 and channels == wide

    def forward(self, image: Tensor) -> Tensor:
        """Compute the next map."""
        inner: Tensor = self.block(image)
        return inner.add_(image) if self.is_residual else inner


class MobileNet(nn.Module):
    """MobileNetV2 or V3 up to its last residual block at 1/32.

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
        # What would follow is a wide 1 × 1 convolution for the classifier, also at 1/32.
        self.features = nn.Sequential(*(_v2_layers() if name == "mobilenet_v2" else _v3_layers(name)))
        _initialize(self.modules())

    def forward(self, image: Tensor) -> Levels:
        """``(B, C, h, w)`` float image → c2…c5 at 1/4, 1/8, 1/16 and 1/32."""
        maps = []
        for start, end in zip((0, *self.ends), self.ends, strict=False):
            image = self.features[start:end](image)
            maps.append(image)
        return maps[0], maps[1], maps[2], maps[3]


_norm_v3 = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
_V2_ROWS = (  # expansion, channels, blocks, stride of the first: table 2 of the paper
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_V3_ROWS = {  # kernel, expanded channels, channels, gate, hard swish (else ReLU), stride: tables 1 and 2 of the paper
    "mobilenet_v3_small": (
        (3, 16, 16, True, False, 2),
        (3, 72, 24, False, False, 2),
        (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2),
        (5, 240, 40, True, True, 1),
        (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1),
        (5, 144, 48, True, True, 1),
        (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1),
        (5, 576, 96, True, True, 1),
    ),
    "mobilenet_v3_large": (
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    ),
}


def _v2_layers() -> Iterator[nn.Module]:
    yield _unit(3, 32, 3, 2, activation=nn.ReLU6)
    channels = 32
    for expansion, wide, count, stride in _V2_ROWS:
        for number in range(count):
            yield InvertedResidual(channels, wide, stride if number == 0 else 1, expansion)
            channels = wide


def _v3_layers(name: str) -> Iterator[nn.Module]:
    yield _unit(3, 16, 3, 2, activation=nn.Hardswish, norm=_norm_v3)
    channels = 16
    for row in _V3_ROWS[name]:
        yield GatedResidual(channels, row)
        _, _, channels, *_ = row


def _unit(
    channels: int,
    wide: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: Callable[..., nn.Module] | None,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
) -> nn.Sequential:
    """Build a convolution, its batch normalization, and what activates it."""
    conv = nn.Conv2d(channels, wide, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [conv, norm(wide)]
    return nn.Sequential(*layers, *(() if activation is None else (activation(inplace=True),)))


def _multiple_of_8(channels: int) -> int:
    """Round to the nearest multiple of 8, but never down by more than a tenth (as in all MobileNets)."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _initialize(modules: Iterable[nn.Module]) -> None:
    """Draw the weights of convolutions for the variance of their outputs (He et al., ICCV 2015)."""
    for module in modules:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


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


def load_backbone_weights(
    backbone: nn.Module,
    source: str,
    bands: Sequence[str] = RGB,
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> None:
    """Fill a backbone with pretrained weights.

    Where ImageNet's cannot be downloaded, those of a shipped model with the same backbone are taken, which began as ImageNet's.

    Args:
        backbone: changed in place; its ``name`` is the one it was built with.
        source: ``"imagenet"`` (torchvision's) or a name of TorchGeo's, as ``"ResNet50_Weights.SENTINEL2_ALL_MOCO"``, both
            downloaded once; or a file with torchvision's names: safetensors, or a state that torch.save wrote.
        bands: names of the bands; see :func:`fill_backbone`.
        progress: told where the weights come from, when it is not the source.

    Raises:
        CheckpointError: weights are missing, damaged, or cannot be downloaded, lack tensors that the backbone has, or take
            other bands.
        ConfigError: TorchGeo has no such weights.
    """
    theirs: Sequence[str] = RGB
    if source == "imagenet":
        try:
            state = _imagenet_state(str(backbone.name))
        except OSError as error:  # no network, or a proxy that refuses
            state = _shipped_state(str(backbone.name), error, progress)
    elif is_name_of_weights(source):
        # By name: a room above this one, and torchgeo is imported only where it is needed.
        state, theirs = import_module("geoglnet.torchgeo.pretrained").pretrained_state(source, bands)
    else:
        state = _file_state(source)
    fill_backbone(backbone, state, bands, theirs=theirs, source=source)


def is_name_of_weights(source: str) -> bool:
    """Tell whether weights are downloaded by name; a file otherwise.

    >>> is_name_of_weights("ResNet50_Weights.SENTINEL2_ALL_MOCO"), is_name_of_weights("resnet50.pth")
    (True, False)
    """
    return source == "imagenet" or re.fullmatch(r"\w+_Weights\.\w+", source) is not None


def fill_backbone(
    backbone: nn.Module, state: Mapping[str, Tensor], bands: Sequence[str] = RGB, *, theirs: Sequence[str] = RGB, source: str
) -> None:
    """Fill a backbone with weights that were trained on bands of any names.

    In the first convolution, a band that the weights know gets its own, any other the average of all of theirs; where the
    bands are not the same, all are multiplied by (number of their bands) / (number of ours), so that maps keep their size.

    Args:
        backbone: changed in place.
        state: weights by torchvision's names; what the backbone lacks, such as a classifier, is not used.
        bands: names of the backbone's bands.
        theirs: names of the bands that the weights take, in their order.
        source: where they come from, for messages.

    Raises:
        CheckpointError: the weights lack tensors that the backbone has, or take a number of bands that has no names.
    """
    own = backbone.state_dict()
    if all(name.startswith(_BODY) for name in own) and not any(name.startswith(_BODY) for name in state):
        state = {_BODY + name: tensor for name, tensor in state.items()}  # a library's network is inside an Extractor
    # Counts of batches have no effect here (only where momentum is None), and older weight files lack them.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(
            f"{source} lacks {len(missing)} tensors of {backbone.name}, first {missing[0]}; is it another network?"
        )
    stem = next(name for name in own if own[name].ndim == 4)
    count, found = own[stem].shape[1], state[stem].shape[1]
    if found not in (count, len(theirs)):
        raise CheckpointError(f"{source} takes {found} bands, {backbone.name} {count}; use weights for red, green and blue")
    filled = {name: state[name] for name in own if name in state}
    for name, tensor in own.items():  # all that look at the image: a cascade has several
        if tensor.ndim == 4 and tensor.shape[1] == count and state[name].shape[1:2] == (len(theirs),):
            filled[name] = _stem_for(state[name], count, tuple(bands), tuple(theirs))
    with torch.no_grad():
        for name, tensor in filled.items():
            own[name].copy_(tensor.reshape(own[name].shape))  # fully connected layers may be convolutions here


def _stem_for(weights: Tensor, count: int, bands: tuple[str, ...], theirs: tuple[str, ...]) -> Tensor:
    """Make the weights of a first convolution for ``count`` bands of those for other bands."""
    if bands == theirs and count == len(theirs):
        return weights
    average = weights.mean(dim=1)
    names = bands if len(bands) == count else ("",) * count
    parts = [weights[:, theirs.index(name)] if name in theirs else average for name in names]
    return torch.stack(parts, dim=1) * (len(theirs) / count)


def _file_state(source: str) -> dict[str, Tensor]:
    if not Path(source).is_file():
        raise CheckpointError(f"no backbone weights at {source}; give a safetensors file, 'imagenet', or a name of TorchGeo's")
    if Path(source).suffix in (".pth", ".pt"):
        state = read_pickle(source, "a state of weights")
        if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise CheckpointError(f"{source} holds no tensors by name; save a network's state_dict()")
        return state
    try:
        return load_file(source)
    except SafetensorError as error:
        raise CheckpointError(f"{source} is not a safetensors file ({error})") from error


def _imagenet_state(name: str) -> dict[str, Tensor]:
    if "/" in name:
        return pretrained_state(name)
    import torchvision  # slow to import, see above

    if name not in torchvision.models.list_models():
        return pretrained_encoder(name)
    state: dict[str, Tensor] = torchvision.models.get_model(name, weights="DEFAULT").state_dict()
    return state


def _shipped_state(name: str, error: OSError, progress: Progress) -> dict[str, Tensor]:
    """Take a backbone out of a shipped model, where ImageNet's weights cannot be downloaded."""
    reason = " ".join(str(error).split())[:120]
    for model in shipped_models():
        manifest = read_manifest(model_path(model))
        if manifest.model.backbone == name and manifest.bands.names == RGB:
            progress.warn(
                f"ImageNet's weights of {name} cannot be downloaded ({reason}); the backbone of the shipped model {model} is "
                "taken, which began as ImageNet's and was trained on"
            )
            tensors = load_file(model_path(model))
            head = "global_branch.backbone."
            return {key.removeprefix(head): tensor.float() for key, tensor in tensors.items() if key.startswith(head)}
    raise CheckpointError(
        f"ImageNet's weights of {name} cannot be downloaded ({reason}), and no shipped model has that backbone; "
        "connect to the internet once, set backbone = 'mobilenet_v2', or backbone_weights = '…' with a file (or '' for none)"
    ) from error


def fit_stem(backbone: nn.Module, in_channels: int) -> None:
    """Replace the first convolution of a network by one that takes ``in_channels`` bands."""
    path, stem = next((path, m) for path, m in backbone.named_modules() if isinstance(m, nn.Conv2d))
    parent, _, child = path.rpartition(".")
    fitted = copy.deepcopy(stem)
    fitted.in_channels = in_channels
    fitted.weight = nn.Parameter(torch.empty(stem.out_channels, in_channels, *stem.weight.shape[2:]))
    fitted.reset_parameters()
    setattr(backbone.get_submodule(parent), child, fitted)
