"""Baselines of segmentation-models-pytorch: U-Net, PSPNet, DeepLabv3+, SegFormer, UPerNet on any of its encoders."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor, nn

from geoglnet.config import ModelConfig, suggestion
from geoglnet.errors import ConfigError
from geoglnet.models.baselines.baseline import Baseline
from geoglnet.models.extractors import check_timm_name

AS_PUBLISHED = {"pspnet": {"encoder_depth": 5}, "upernet": {"decoder_channels": 512}}
"""Where the library is not as published: its PSPNet takes a backbone's first stages only, its UPerNet is half as wide."""

OUTPUT_STRIDES = {"pspnet": 8}
"""Dilated instead of strided, where the library leaves that to its user."""

POOL_EVERYTHING = ("deeplabv3plus",)
"""Normalize a map of one pixel per image."""

STRIDE = 32
"""Sides that every encoder of the library takes are multiples of it."""


class LibraryDecoder(nn.Module):
    """The library's decoder and head."""

    def __init__(self, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.decoder, self.segmentation_head = decoder, head

    def forward(self, image: Tensor, maps: list[Tensor]) -> Tensor:
        """Maps → ``(B, num_classes, h, w)`` logits."""
        logits: Tensor = self.segmentation_head(self.decoder(maps))
        # Without what Baseline has filled the image up with, to a multiple of the stride.
        return logits[..., : image.shape[-2], : image.shape[-1]]


class LibraryNetwork(Baseline):
    """One of the library's networks; the encoder's tensors have the names that torchvision gives them.

    Args:
        config: architecture, encoder (``backbone``), bands and classes.

    Raises:
        ConfigError: the library is not installed, or has no such encoder, or the encoder does not fit the architecture.
    """

    def __init__(self, config: ModelConfig) -> None:
        library = _library()
        known = tuple(library.encoders.get_encoder_names())
        if config.backbone.startswith("tu-"):
            check_timm_name(config.backbone.removeprefix("tu-"))
        elif config.backbone not in known:
            raise ConfigError(
                f"segmentation-models-pytorch has no encoder {config.backbone!r}{suggestion(config.backbone, known)}"
            )
        sizes = {"in_channels": config.in_channels, "classes": config.num_classes} | AS_PUBLISHED.get(config.architecture, {})
        try:
            whole = library.create_model(config.architecture, config.backbone, encoder_weights=None, **sizes)
            if config.architecture in OUTPUT_STRIDES:
                whole.encoder.make_dilated(OUTPUT_STRIDES[config.architecture])
        except (
            AssertionError,
            AttributeError,
            KeyError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:  # as it comes from timm
            raise ConfigError(f"{config.architecture} cannot be built on {config.backbone!r}: {error}") from error
        # load_backbone_weights finds a backbone's weights by its name.
        whole.encoder.name = config.backbone
        head = LibraryDecoder(whole.decoder, whole.segmentation_head)
        pools_everything = config.architecture in POOL_EVERYTHING
        super().__init__(config, whole.encoder, head, stride=STRIDE, pools_everything=pools_everything)


def pretrained_encoder(name: str) -> dict[str, Tensor]:
    """Fetch the library's own ImageNet weights of an encoder (downloaded once).

    Raises:
        ConfigError: the library has no such encoder, or no ImageNet weights of it.
    """
    try:
        state: dict[str, Tensor] = _library().encoders.get_encoder(name, weights="imagenet").state_dict()
    except KeyError as error:
        raise ConfigError(
            f"there are no ImageNet weights of {name!r}; set optim.backbone_weights = '' for random ones"
        ) from error
    return state


def _library() -> Any:
    try:
        return import_module("segmentation_models_pytorch")  # an extra, and slow to import
    except ModuleNotFoundError as error:
        raise ConfigError("this architecture needs segmentation-models-pytorch; pip install 'geoglnet[baselines]'") from error
