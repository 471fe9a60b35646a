"""A network as one function of an image: normalization, overview, patches and blending inside."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoglnet.errors import ConfigError
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network
from geoglnet.prediction.plan import Plan, PlannedRegion
from geoglnet.types import Shape
from geoglnet.windows import footprints


class RegionGraph(nn.Module):
    """A region in, class probabilities out, as :class:`~geoglnet.prediction.segmenter.RegionSegmenter` computes them.

    Whoever calls it needs to know nothing of overviews and patches. ``torch.export.export(RegionGraph(…), (image,))`` traces
    it: positions, weights and the matrices that decimate are numbers that it holds, and nothing in it depends on values.

    Memory: all patches of a region go through the network together, nine of 448 px with the shipped models: 0.8 GB.

    Args:
        network: in the form that it predicts with (:meth:`~geoglnet.models.network.Network.for_inference`).
        manifest: of the network.
        side: of the region, at most that of the model.
        dtype: that the network computes in; images and probabilities are float32.

    Raises:
        ConfigError: a network that is blended as the authors do, or no side of a region.
    """

    def __init__(self, network: Network, manifest: Manifest, side: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if network.sums_logits:
            raise ConfigError(
                "compat = 'official' is blended by sums of logits, which no exported model is; train the network anew"
            )
        self.network, self.temperature = network, manifest.temperature
        self.dtype = torch.float32
        if dtype is not torch.float32 and not network.prepare(dtype):
            network.to(dtype)
            self.dtype = dtype
        self.planned = planned_region(manifest, side)
        self.places = footprints([patch.window for patch in self.planned.patches], self.planned.shape).tolist()
        rows, cols = self.planned.patch_weights(network.ring_size)
        self.register_buffer("row_weights", torch.from_numpy(rows))
        self.register_buffer("col_weights", torch.from_numpy(cols))
        self.register_buffer("mean", torch.tensor(manifest.bands.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(manifest.bands.std)[:, None, None])
        # Decimation is linear, so torch's own, done to the unit matrix, is the matrix that does it: no operation of the graph
        # has to agree with torch about antialiasing.
        small = manifest.region.overview_shape(self.planned.shape)
        unit = torch.eye(side)[None, None]
        by_rows = F.interpolate(unit, size=(small.height, side), mode="bilinear", align_corners=False, antialias=True)
        self.register_buffer("decimation", by_rows[0, 0])

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, side, side)`` values from 0 to 1 → ``(B, num_classes, side, side)`` probabilities, both float32."""
        normalized = (image - cast(Tensor, self.mean)) / cast(Tensor, self.std)
        overviews = None
        if self.network.sees_overviews:
            matrix = cast(Tensor, self.decimation)
            overviews = (matrix @ normalized @ matrix.T).to(self.dtype)
        if not self.network.sees_patches:
            return self._probabilities(self.network.see(cast(Tensor, overviews)).logits, self.planned.shape)
        windows = [patch.window for patch in self.planned.patches]
        patches = torch.cat([normalized[(..., *window.toslices())] for window in windows]).to(self.dtype)
        logits = self.network.region_logits(overviews, patches, self.places)
        probabilities = self._probabilities(logits, self.planned.patch_shape)
        return self._blended(probabilities.view(len(windows), image.shape[0], *probabilities.shape[1:]))

    def _probabilities(self, logits: Tensor, shape: Shape) -> Tensor:
        full = F.interpolate(logits.float(), size=tuple(shape), mode="bilinear", align_corners=False)
        return (full if self.temperature == 1 else full / self.temperature).softmax(dim=1)

    def _blended(self, probabilities: Tensor) -> Tensor:
        """``(n, B, K, h, w)`` of all patches → ``(B, K, side, side)``: weighted, and added up along rows and then columns."""
        side, row_weights, col_weights = self.planned.shape, cast(Tensor, self.row_weights), cast(Tensor, self.col_weights)
        lines: dict[int, tuple[int, Tensor]] = {}
        for patch, values in zip(self.planned.patches, probabilities.unbind(), strict=True):
            left, top = int(patch.window.col_off), int(patch.window.row_off)
            wide = F.pad(values * col_weights[patch.col], (left, side.width - left - int(patch.window.width)))
            lines[patch.row] = (top, lines[patch.row][1] + wide if patch.row in lines else wide)
        total = None
        for row, (top, line) in lines.items():
            tall = F.pad(line * row_weights[row][:, None], (0, 0, top, side.height - top - line.shape[-2]))
            total = tall if total is None else total + tall
        return cast(Tensor, total)


def planned_region(manifest: Manifest, side: int) -> PlannedRegion:
    """Plan a square region that stands alone.

    Raises:
        ConfigError: larger than the model's regions, or too small for its overview.
    """
    most = manifest.region.region_size
    if not 32 <= side <= most:
        raise ConfigError(f"size {side} must be from 32 to {most}, the region that {manifest.name} was trained for")
    return Plan(Shape(side, side), manifest.region).region(0, 0)
