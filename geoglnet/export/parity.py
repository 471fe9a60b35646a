"""How far an exported model is from the network that it was made of, on images that are drawn for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from geoglnet.export.region_graph import planned_region
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.raster.scene import Pixels

Values = npt.NDArray[np.float32]
LEAST_EQUAL = {"float32": 0.9999, "float16": 0.99}
"""Share of equal labels below which an exported model is refused, by precision."""
_SURE = 1e-6  # probabilities whose logarithms are compared: float32 keeps less of smaller ones


@dataclass(frozen=True, slots=True)
class Parity:
    """What differs between two classifications of the same images.

    Args:
        equal_labels: share of pixels of the same class.
        probability_error: largest difference of a probability.
        logit_error: largest difference of a logit, counted from the first class's, where probabilities are not near 0.
    """

    equal_labels: float
    probability_error: float
    logit_error: float

    def __str__(self) -> str:
        return (
            f"{self.equal_labels:.4%} of the labels equal, probabilities within {self.probability_error:.1e}, "
            f"logits within {self.logit_error:.1e}"
        )


def compared(found: Values, wanted: Values) -> Parity:
    """Compare probabilities ``(B, K, h, w)``."""
    equal = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
    is_sure = (np.minimum(found, wanted) > _SURE) & (np.minimum(found, wanted)[:, :1] > _SURE)
    found_logits, wanted_logits = (np.log(np.maximum(p, _SURE)) for p in (found, wanted))
    errors = np.abs((found_logits - found_logits[:, :1]) - (wanted_logits - wanted_logits[:, :1]))[is_sure]
    return Parity(equal, float(np.abs(found - wanted).max()), float(errors.max(initial=0.0)))


def parity(
    network: Network, manifest: Manifest, side: int, run: Callable[[Values], Values], *, batch: int | None, seed: int = 0
) -> Parity:
    """Compare an exported model with the predictor's own probabilities of the same region.

    Args:
        network: as it was loaded.
        manifest: of the network.
        side: of the region.
        run: the exported model: ``(B, C, side, side)`` values from 0 to 1 → ``(B, K, side, side)`` probabilities.
        batch: images that it takes at a time; ``None`` for any number.
        seed: of the images.
    """
    count = batch or 2  # two, so that a batch is seen to be one
    images = drawn_images(count, len(manifest.bands), side, seed)
    segmenter = RegionSegmenter(network.for_inference(), manifest, PredictConfig(device="cpu", precision="float32"))
    planned, valid = planned_region(manifest, side), np.ones((side, side), dtype=bool)
    bytes_in = images if manifest.bands.is_8bit else images.astype(np.float32)
    wanted = [segmenter.probabilities(planned, Pixels(image, valid)).numpy() for image in bytes_in]
    return compared(run(images.astype(np.float32) / np.float32(255)), np.stack(wanted))


def drawn_images(count: int, bands: int, side: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Draw images with structure at every scale, as imagery has, by noise from coarse to fine.

    Returns:
        ``(count, bands, side, side)`` uint8.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, bands, side, side)
    for cells in (4, 16, 64, 256):
        gray = torch.randn(count, 1, cells, cells, generator=generator)
        colors = gray + 0.3 * torch.randn(count, bands, cells, cells, generator=generator)
        total += F.interpolate(colors, size=(side, side), mode="bilinear", align_corners=False)
    bright = (127 + 40 * total).clamp(0, 255).to(torch.uint8)
    return np.asarray(bright.numpy())
