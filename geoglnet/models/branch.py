"""A branch: backbone and FPN (paper §3.2.1). Global and local branches have equal backbones and separate weights."""

from __future__ import annotations

from torch import Tensor, nn

from geoglnet.config import ModelConfig
from geoglnet.models.backbone import build_backbone
from geoglnet.models.pyramid import FeatureMaps, Pyramid, SharedMaps


class Branch(nn.Module):
    """Backbone and FPN of one branch.

    Args:
        config: architecture.
        shared_levels: levels at which the FPN takes the other branch's maps.
    """

    def __init__(self, config: ModelConfig, shared_levels: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.backbone = build_backbone(config.backbone, config.in_channels)
        widths = (config.pyramid_channels, config.smooth_channels, config.num_classes)
        self.pyramid = Pyramid(self.backbone.channels, *widths, shared_levels)

    def forward(self, image: Tensor, shared: SharedMaps | None = None) -> FeatureMaps:
        """``(B, C, h, w)`` normalised image → this branch's maps."""
        maps: FeatureMaps = self.pyramid(self.backbone(image), shared)
        return maps

    def start_from(self, other: Branch) -> None:
        """Become what another branch is: its weights, and nothing made of the shared maps yet."""
        self.backbone.load_state_dict(other.backbone.state_dict())
        self.pyramid.start_from(other.pyramid)
