"""What the paper's baselines have in common: a backbone and a head, and one image in, logits out.

They see patches ("patch inference"), or overviews, which may be regions at their full size ("global inference").
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from geoglnet.config import ModelConfig
from geoglnet.errors import ConfigError
from geoglnet.models.checks import check_footprints, check_image
from geoglnet.models.network import Network, PatchLogits, RegionLogits, RegionMaps


class Baseline(Network):
    """A network of one encoder and one decoder.

    Args:
        config: architecture, backbone, bands and classes.
        backbone: image → maps, so that pretrained weights and learning rates reach it as they reach a GLNet's.
        head: image and maps → logits.
        stride: sides of images are filled up to its multiples.
        pools_everything: whether it normalizes a map of one pixel per image, which says nothing of a batch of one.
    """

    def __init__(
        self, config: ModelConfig, backbone: nn.Module, head: nn.Module, *, stride: int = 1, pools_everything: bool = False
    ) -> None:
        super().__init__(config)
        self.backbone, self.head = backbone, head
        self.stride, self.pools_everything = stride, pools_everything

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, h, w)`` normalized image → logits ``(B, num_classes, h, w)`` (ICNet's at 1/4).

        Raises:
            ConfigError: a batch of one image while training a network that cannot learn from it.
        """
        if self.training and len(image) == 1 and self.pools_everything:
            raise ConfigError(
                f"{self.config.architecture} normalizes over a batch and cannot be trained on single images; "
                "set optim.batch_size to 2 or more, and optim.patches_at_once to a divisor of the patches of a batch"
            )
        height, width = image.shape[-2:]
        filled = F.pad(image, (0, -width % self.stride, 0, -height % self.stride))  # with the mean color
        logits: Tensor = self.head(image, self.backbone(filled))
        return logits

    def see(self, overviews: Tensor) -> RegionMaps:
        """Segment whole regions; see :meth:`Network.see`."""
        if not self.sees_overviews:
            return super().see(overviews)
        check_image(overviews, self.config.in_channels)
        return RegionLogits(self(overviews))

    def segment(
        self, patches: Tensor, footprints: Tensor, maps: RegionMaps | None = None, overview_index: Tensor | None = None
    ) -> PatchLogits:
        """Segment patches, wherever they lie; see :meth:`Network.segment`."""
        if not self.sees_patches:
            return super().segment(patches, footprints, maps, overview_index)
        check_image(patches, self.config.in_channels)
        check_footprints(footprints, patches.shape[0])
        return PatchLogits(s_loc=self(patches))

    @property
    def needs_whole_images(self) -> bool:
        return True

    def backbones(self) -> Iterator[nn.Module]:
        """Yield the encoder."""
        yield self.backbone
