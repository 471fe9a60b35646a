"""One training stage as a Lightning task (paper §3.2.3; the staging is the authors')."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from geoglnet.config import Branches, Stage
from geoglnet.datasets.regions import RegionBatch
from geoglnet.errors import ConfigError
from geoglnet.legend import NO_CLASS
from geoglnet.losses import fmreg_euclidean, fmreg_mean_square, focal_loss
from geoglnet.models.branch import Branch
from geoglnet.models.glnet import GLNet
from geoglnet.training.config import OptimConfig, Regularisation

_FMREG = {Regularisation.EUCLIDEAN: fmreg_euclidean, Regularisation.MEAN_SQUARE: fmreg_mean_square}
_WARM_UP = 0.05  # share of the steps before the cosine begins to fall


class StageTask(LightningModule):
    """Trains the global branch, or the local branch and f_agg above a frozen global branch.

    Args:
        network: changed in place.
        stage: which part is trained; the rest stays frozen, batch statistics too.
        optim: losses and optimiser.
        steps: how many steps the stage has, for the schedule.

    Raises:
        ConfigError: the network has no branch for the stage.
    """

    def __init__(self, network: GLNet, stage: Stage, optim: OptimConfig, steps: int) -> None:
        super().__init__()
        branch = network.global_branch if stage is Stage.GLOBAL else network.local_branch
        if branch is None:
            raise ConfigError(f"a network with branches = {network.config.branches.value!r} has no {stage.value} stage")
        self.network = network
        self.stage = stage
        self.optim = optim
        self.steps = steps
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        for parameter in self._trained_parameters():
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained; a frozen global branch keeps its batch statistics."""
        super().train(mode)
        if self.stage is Stage.LOCAL and self.network.global_branch is not None:
            self.network.global_branch.eval()
        return self

    def training_step(self, batch: RegionBatch, batch_index: int) -> Tensor:
        loss = self._global_loss(batch) if self.stage is Stage.GLOBAL else self._local_loss(batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW (Adam without weight decay) at the stage's learning rate, constant or along a cosine."""
        rate = self.optim.global_learning_rate if self.stage is Stage.GLOBAL else self.optim.local_learning_rate
        backbone = {id(p) for part in self._trained_parts() if isinstance(part, Branch) for p in part.backbone.parameters()}
        groups = [
            {"params": [p for p in self._trained_parameters() if id(p) not in backbone], "lr": rate},
            {
                "params": [p for p in self._trained_parameters() if id(p) in backbone],
                "lr": rate * self.optim.backbone_rate_factor,
            },
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.optim.weight_decay)
        if not self.optim.cosine:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._cosine)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: RegionBatch, device: torch.device, dataloader_idx: int) -> RegionBatch:
        return batch.to(device)

    def _global_loss(self, batch: RegionBatch) -> Tensor:
        return self._focal(self.network.see(batch.overviews).logits, batch.overview_labels)

    def _local_loss(self, batch: RegionBatch) -> Tensor:
        with torch.no_grad():
            maps = None if self.network.config.branches is Branches.LOCAL else self.network.see(batch.overviews)
        logits = self.network.segment(batch.patches, batch.footprints, maps, batch.overview_index)
        loss = self._focal(logits.s_loc, batch.patch_labels)
        if logits.s_agg is not None:
            loss = loss + self._focal(logits.s_agg, batch.patch_labels)
        if logits.x_glb is not None and self.optim.lambda_fmreg:
            loss = loss + self.optim.lambda_fmreg * _FMREG[self.optim.fmreg](logits.x_loc, logits.x_glb)
        return loss

    def _focal(self, logits: Tensor, labels: Tensor) -> Tensor:
        return focal_loss(logits, labels, self.optim.gamma, NO_CLASS)

    def _trained_parts(self) -> list[nn.Module]:
        network = self.network
        parts = [network.global_branch] if self.stage is Stage.GLOBAL else [network.local_branch, network.f_agg]
        return [part for part in parts if part is not None]

    def _trained_parameters(self) -> Iterator[nn.Parameter]:
        for part in self._trained_parts():
            yield from part.parameters()

    def _cosine(self, step: int) -> float:
        warm_up = max(1, round(_WARM_UP * self.steps))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, self.steps - warm_up))))
