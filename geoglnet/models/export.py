"""A network with the places of the patches built in: what can be exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geoglnet.errors import ConfigError
from geoglnet.models.checks import check_footprints
from geoglnet.models.crops import Crops
from geoglnet.models.folding import FoldedGLNet
from geoglnet.models.sharing import Footprint


class RegionNetwork(nn.Module):
    """A folded network for regions of one shape, as a plain function of tensors.

    ``torch.export.export(RegionNetwork(network.fold(), footprints), (overview, patches))`` traces it: positions are numbers
    that it holds, and nothing in it depends on values.

    Args:
        network: folded; with both branches.
        footprints: ``(n, 4)`` of the patches of a region, see :func:`geoglnet.windows.footprints`.

    Raises:
        ConfigError: footprints outside the region, or a network that takes no overview.
    """

    def __init__(self, network: FoldedGLNet, footprints: Tensor) -> None:
        super().__init__()
        if network.global_branch is None:
            raise ConfigError("a network with only a local branch knows no regions; export its patches' network instead")
        check_footprints(footprints, len(footprints))
        self.network = network
        self.register_buffer("footprints", footprints.float())
        self._places: list[Footprint] = footprints.tolist()

    def forward(self, overview: Tensor, patches: Tensor) -> Tensor:
        """``(1, C, h1, w1)`` overview and ``(n, C, h2, w2)`` patches → ``(n, num_classes, ⌈h2/4⌉, ⌈w2/4⌉)`` final logits."""
        crops = Crops(torch.as_tensor(self.footprints), None, self.network.geometry)
        return self.network.all_logits(overview, patches, crops, self._places)
