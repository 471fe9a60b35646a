"""Predict a scene of any size: regions in, finished blocks out (DESIGN §2).

Memory does not grow with the scene. With K classes and regions of side R it is, in bytes, 4 · K · R² for the probabilities of
a region, 4 · R² for the region as it was read, 12 · R² for it normalised, 17 · R² while labels are chosen, and the network's
own (see :class:`~geoglnet.prediction.probabilities.RegionSegmenter`). What blends into the next row of regions lies on disk
(:class:`~geoglnet.prediction.carry.Carry`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geoglnet.config import Branches
from geoglnet.legend import NO_CLASS
from geoglnet.models.folding import FoldedGLNet, fold
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from geoglnet.prediction.carry import Carry
from geoglnet.prediction.config import PredictConfig
from geoglnet.prediction.plan import Plan, PlannedRegion
from geoglnet.prediction.probabilities import RegionSegmenter
from geoglnet.prediction.sink import Block, Sink
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.scene import Pixels, Scene

__all__ = ["PredictConfig", "predict_scene"]

CONFIDENCE_SCALE = 254


def predict_scene(
    scene: Scene,
    network: GLNet,
    manifest: Manifest,
    labels: Sink,
    confidence: Sink | None = None,
    config: PredictConfig | None = None,
    progress: Progress | None = None,
) -> None:
    """Segment a scene at the resolution it is opened at.

    Regions are computed row by row; their probabilities are blended, the argmax is taken once, and each core is written as
    soon as nothing more can change it. Regions without a valid pixel never reach the network.

    Args:
        scene: what to read.
        network: moved to the device and put into evaluation mode.
        manifest: of the network.
        labels: receives class indices, 255 where the scene is invalid.
        confidence: receives the chosen class's probability times 254, 255 where the scene is invalid.
        config: device, batch size, precision.
        progress: told of every patch (of every region, when the network has only a global branch).

    Raises:
        ConfigError: the device is not there, or its memory is too small.
        BandsError: the scene has not the model's bands.
        SceneError: the scene cannot be read.
        OSError: the disk is full.
        Cancelled: ``progress`` said so.
    """
    config, progress = config or PredictConfig(), progress or SilentProgress()
    plan = Plan(scene.shape, manifest.region)
    segmenter = RegionSegmenter(_ready(network), manifest, config)
    _announce(plan, segmenter, progress)
    with Carry(plan, manifest.model.num_classes, config.spool_folder) as carry, torch.inference_mode():
        blocks = _Blocks(plan, segmenter, carry, progress)
        for planned, pixels in _iter_pixels(scene, plan):
            chosen, certainty = blocks.finished(planned, pixels)
            labels.write_block(planned.core, chosen)
            if confidence is not None:
                confidence.write_block(planned.core, certainty)


def _ready(network: GLNet) -> GLNet | FoldedGLNet:
    """The network's folded form, when there is something to fold."""
    is_foldable = isinstance(network, GLNet) and network.config.branches is not Branches.GLOBAL
    return fold(network) if is_foldable else network


def _announce(plan: Plan, segmenter: RegionSegmenter, progress: Progress) -> None:
    if segmenter.sees_only:
        progress.plan("segment", len(plan), "regions")
    else:
        progress.plan("segment", plan.num_patches, "patches")


def _iter_pixels(scene: Scene, plan: Plan) -> Iterator[tuple[PlannedRegion, Pixels]]:
    for planned in plan.iter_regions():
        yield planned, scene.read_window(planned.window)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """From the pixels of one region after the other to finished blocks; holds nothing but the carry between them."""

    plan: Plan
    segmenter: RegionSegmenter
    carry: Carry
    progress: Progress

    def finished(self, planned: PlannedRegion, pixels: Pixels) -> tuple[Block, Block]:
        """Labels and confidence of a core."""
        valid = pixels.valid[planned.core_in_region.toslices()]
        if not pixels.valid[planned.reach_in_region.toslices()].any():
            self.carry.skip()
            self.progress.advance(self.segmenter.num_steps(planned))
            nothing = np.full(valid.shape, NO_CLASS, dtype=np.uint8)
            return nothing, nothing
        certainty, labels = self._settled(planned, pixels).max(dim=0)
        invalid = ~torch.from_numpy(valid).to(labels.device)
        steps = certainty.mul_(CONFIDENCE_SCALE).round_().clamp_(0, CONFIDENCE_SCALE)
        return _block(labels, invalid), _block(steps, invalid)

    def _settled(self, planned: PlannedRegion, pixels: Pixels) -> Tensor:
        """Final probabilities of a core."""
        probabilities = self.segmenter.probabilities(planned, pixels, progress=self.progress)
        rows, cols = (torch.from_numpy(weights).to(probabilities.device) for weights in self.plan.core_weights(planned))
        return self.carry.settle(planned, probabilities.mul_(rows[:, None]).mul_(cols))


def _block(values: Tensor, invalid: Tensor) -> Block:
    block: Block = values.to(torch.uint8).masked_fill_(invalid, NO_CLASS).cpu().numpy()
    return block
