"""A family of networks as a stranger would add one: this file, and one line in ``geoglnet.config.ARCHITECTURES``."""

from __future__ import annotations

from torch import Tensor, nn

from geoglnet.config import ModelConfig
from geoglnet.models.network import Network, PatchLogits, RegionMaps


class Pixelwise(Network):
    """Tells classes apart by the color of a pixel and of its neighbors alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.layers = nn.Sequential(
            nn.Conv2d(config.in_channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, config.num_classes, 1)
        )

    def segment(
        self, patches: Tensor, footprints: Tensor, maps: RegionMaps | None = None, overview_index: Tensor | None = None
    ) -> PatchLogits:
        return PatchLogits(s_loc=self.layers(patches))
