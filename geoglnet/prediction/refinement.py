"""Coarse-to-fine (paper §3.3): the global branch finds the foreground of a region, the whole network runs there only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geoglnet.config import Branches
from geoglnet.errors import ConfigError
from geoglnet.models.coarse_to_fine import CoarseToFineConfig, background_of, foreground_place
from geoglnet.models.folding import FoldedGLNet
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from geoglnet.prediction.block import overflow
from geoglnet.prediction.config import PredictConfig
from geoglnet.prediction.plan import PlannedRegion
from geoglnet.prediction.probabilities import RegionSegmenter, Steps
from geoglnet.prediction.upload import Uploaded, upload
from geoglnet.prediction.wanted import Wanted
from geoglnet.types import Place, Shape


class CoarseToFineSegmenter(RegionSegmenter):
    """Segments the part of each region where the global branch sees foreground; the rest is background.

    The part is the rectangle around every cell whose foreground is at all likely, with a margin, grown until foreground and
    background in it are about as large (:class:`CoarseToFineConfig` has the numbers). Its overview is made from it anew, so
    less is lost in decimation. A region without such a cell costs one pass of the global branch and no patch.

    Raises:
        ConfigError: the legend is not of a background and one other class, or the network lacks a branch.
    """

    def __init__(
        self,
        network: GLNet | FoldedGLNet,
        manifest: Manifest,
        config: PredictConfig,
        coarse: CoarseToFineConfig = CoarseToFineConfig(),  # noqa: B008 - a value
    ) -> None:
        super().__init__(network, manifest, config)
        self._background = background_of(manifest.legend)
        self._coarse = coarse
        if manifest.model.branches is not Branches.BOTH:
            raise ConfigError(
                f"coarse-to-fine needs both branches; {manifest.name} has only the {manifest.model.branches.value} one"
            )

    @torch.inference_mode()
    def foreground(self, wanted: Wanted) -> Place | None:
        """Rows and columns of a region that are refined; they depend on the region alone."""
        region = self.manifest.region
        overview = upload(wanted.pixels, self.manifest, self.device).overview(region.overview_shape(wanted.planned.shape))
        likely = 1 - self._see(overview).logits[0].float().softmax(dim=0)[self._background]
        coarse: np.ndarray[tuple[int, int], np.dtype[np.float32]] = likely.cpu().numpy()
        if np.isnan(coarse).any():
            window = wanted.planned.window
            raise overflow(f"the region from column {window.col_off}, row {window.row_off}", self.precision)
        return foreground_place(coarse, wanted.planned.shape, region.patch_size, self._coarse)

    def _blended(self, wanted: Wanted, steps: Steps) -> Tensor:
        total = torch.zeros((self.num_classes, *wanted.shape), device=self.device)
        total[self._background] = 1
        place = self.foreground(wanted)
        part = None if place is None else wanted.narrowed(place)
        if part is not None:
            rows, cols = part.window_in(wanted.window).toslices()
            total[:, rows, cols] = super()._blended(part, steps)
        return total

    def _overview(self, uploaded: Uploaded, planned: PlannedRegion) -> Tensor:
        """The part at the size of a whole region's overview, but never enlarged."""
        size = self.manifest.region.overview_size
        return uploaded.overview(Shape(*(min(size, side) for side in planned.shape)))
