"""A stage that stays with what the old model says where nothing is known (learning without forgetting, Li and Hoiem 2016)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from geoglnet.config import Stage
from geoglnet.datasets.regions import RegionBatch
from geoglnet.legend import NO_CLASS
from geoglnet.models.network import Network, PatchLogits, RegionMaps
from geoglnet.training.task import PatchLosses, StageTask
from geoglnet.training.train_config import OptimConfig


class KeepingTask(StageTask):
    """Adds the divergence from the old model's probabilities where nothing is labeled; above a frozen global branch.

    Args:
        network: changed in place.
        stage: which part is trained.
        optim: losses and optimizer.
        steps: how many steps the stage has.
        teacher: the old model, in evaluation mode; it costs a pass forward per patch.
        weight: of the divergence.
    """

    def __init__(self, network: Network, stage: Stage, optim: OptimConfig, steps: int, teacher: Network, weight: float) -> None:
        super().__init__(network, stage, optim, steps)
        # In a list, so that Lightning neither trains it nor counts it as a part.
        self._teacher, self._weight = [teacher], weight

    def losses_of(self, logits: PatchLogits, part: RegionBatch, maps: RegionMaps | None) -> PatchLosses:
        losses = super().losses_of(logits, part, maps)
        if self.stage is not Stage.LOCAL:
            return losses
        final = logits.final
        unknown = F.interpolate((part.patch_labels == NO_CLASS)[:, None].float(), size=final.shape[-2:])[:, 0]
        with torch.no_grad():  # the global branch is frozen: its maps are the old model's too
            old = self._teacher[0].segment(part.patches, part.footprints, maps, part.overview_index).final
        distance = F.kl_div(final.log_softmax(1), old.log_softmax(1), log_target=True, reduction="none").sum(1)
        kept = self._weight * (distance * unknown).sum() / unknown.sum().clamp(min=1)
        return PatchLosses(losses.focal, kept if losses.fmreg is None else losses.fmreg + kept)
