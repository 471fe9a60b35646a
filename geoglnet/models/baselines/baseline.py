"""A network in a branch's place: trained, stored, evaluated and predicted with as a branch alone is."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from geoglnet.config import ModelConfig
from geoglnet.errors import ConfigError
from geoglnet.models.baselines.fcn8s import FCN8s
from geoglnet.models.baselines.icnet import ICNet
from geoglnet.models.baselines.library import LibraryNetwork
from geoglnet.models.baselines.segnet import SegNet
from geoglnet.models.branch import Branch, FeatureMaps, SharedMaps

OWN: dict[str, type[FCN8s | SegNet | ICNet]] = {"fcn8s": FCN8s, "segnet": SegNet, "icnet": ICNet}
POOLS_EVERYTHING = ("deeplabv3plus",)
"""Architectures that normalize a map of one pixel per image, which says nothing of a batch of one."""


LIBRARY_STRIDE = 32
"""Sides that every encoder of the library takes are multiples of it."""


class Baseline(Branch):
    """A baseline where a GLNet has a branch.

    It has a backbone, so that pretrained weights and learning rates reach it as they reach a branch's; what follows the
    backbone has no levels that could be shared.

    Args:
        config: architecture, backbone, bands and classes.

    Raises:
        ConfigError: unknown backbone, or segmentation-models-pytorch is not installed.
    """

    def __init__(self, config: ModelConfig) -> None:
        nn.Module.__init__(self)  # none of a branch's own parts
        self.architecture = config.architecture
        if config.architecture in OWN:
            network: Any = OWN[config.architecture](config.num_classes, config.in_channels)
        else:
            network = LibraryNetwork(config)
        self.backbone, self.head = network.backbone, network.head
        self.stride = 1 if config.architecture in OWN else LIBRARY_STRIDE

    def forward(self, image: Tensor, shared: SharedMaps | None = None) -> FeatureMaps:
        """``(B, C, h, w)`` normalized image → logits ``(B, num_classes, h, w)`` (ICNet's at 1/4), which are its last map too.

        Raises:
            ConfigError: a batch of one image while training a network that cannot learn from it.
        """
        if self.training and len(image) == 1 and self.architecture in POOLS_EVERYTHING:
            raise ConfigError(
                f"{self.architecture} normalizes over a batch and cannot be trained on single images; "
                "set optim.batch_size to 2 or more, and optim.patches_at_once to a divisor of the patches of a batch"
            )
        height, width = image.shape[-2:]
        filled = F.pad(image, (0, -width % self.stride, 0, -height % self.stride))  # with the mean color
        logits: Tensor = self.head(image, self.backbone(filled))
        return FeatureMaps((), (), (), (), logits, logits)  # type: ignore[arg-type]  # no levels


def build_branch(config: ModelConfig, shared_levels: tuple[int, ...] = ()) -> Branch:
    """A branch, or the baseline in its place."""
    return Branch(config, shared_levels) if config.has_pyramid else Baseline(config)
