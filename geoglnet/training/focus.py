"""Coarse-to-fine in training (paper §3.3): samples narrowed to what the frozen global branch takes for foreground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geoglnet.bands import Bands
from geoglnet.datasets.samplers import RegionDataset
from geoglnet.errors import ConfigError
from geoglnet.models.coarse_to_fine import CoarseToFineConfig, background_of, foreground_place
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network
from geoglnet.types import Place, Shape

JITTER = 0.15  # how far an edge moves, as a share of the side


@dataclass(frozen=True, slots=True)
class GlobalFocus:
    """Where a global branch sees foreground, with edges moved at random so that training meets imperfect ones too.

    It runs where samples are prepared, on the CPU, with weights of its own.

    Args:
        network: trained; sees overviews.
        bands: mean and std of the images that it is given.
        overview_shape: that regions are decimated to.
        patch_size: least side of a part.
        background: label of the background.
    """

    network: Network
    bands: Bands
    overview_shape: Shape
    patch_size: int
    background: int

    @classmethod
    def of(cls, network: Network, manifest: Manifest, dataset: RegionDataset) -> GlobalFocus:
        """Make the focus of a network whose global stage is over.

        Raises:
            ConfigError: the legend is not of a background and one class, or there is no global branch.
        """
        if not network.sees_overviews:
            raise ConfigError("coarse-to-fine training needs a global branch")
        size = dataset.sample.region_size
        return cls(
            network=network.overviews_only().cpu().eval(),
            bands=manifest.bands,
            overview_shape=dataset.region.overview_shape(Shape(size, size)),
            patch_size=dataset.sample.patch_size,
            background=background_of(manifest.legend),
        )

    @torch.no_grad()
    def place(self, image: Tensor, rng: np.random.Generator) -> Place | None:
        """Find the part of a sample; as :meth:`geoglnet.datasets.samplers.Focus.place`."""
        # Decimated as predict does it (prediction.region): boxes in training should be those of inference.
        overview = F.interpolate(image[None], size=self.overview_shape, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.bands.mean, self.bands.std))
        probabilities = self.network.see((overview - mean) / std).logits.softmax(dim=1)[0]
        shape = Shape(image.shape[-2], image.shape[-1])
        foreground = (1 - probabilities[self.background]).numpy()
        place = foreground_place(foreground, shape, self.patch_size, CoarseToFineConfig())
        # The branch's own box, not one around the truth: what it misses is missing in prediction too (§3.3).
        return None if place is None else jittered(place, shape, self.patch_size, rng)


def jittered(place: Place, shape: Shape, least_size: int, rng: np.random.Generator) -> Place:
    """Move a rectangle's edges at random, still inside the region and no smaller than ``least_size``."""
    rows, cols = (_jittered(side, length, least_size, rng) for side, length in zip(place, shape, strict=True))
    return rows, cols


def _jittered(side: slice, limit: int, least: int, rng: np.random.Generator) -> slice:
    reach = JITTER * (side.stop - side.start)
    start, stop = (edge + rng.uniform(-reach, reach) for edge in (side.start, side.stop))
    length = min(limit, max(least, round(stop - start)))
    first = min(max(round(start), 0), limit - length)
    return slice(first, first + length)
