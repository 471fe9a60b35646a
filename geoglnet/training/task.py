"""One training stage as a Lightning task (paper §3.2.3; the staging is the authors')."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from geoglnet.config import Stage
from geoglnet.datasets.regions import RegionBatch
from geoglnet.errors import CheckpointError, ConfigError
from geoglnet.legend import NO_CLASS
from geoglnet.losses import fmreg_euclidean, fmreg_mean_square, focal_loss
from geoglnet.models.checks import check_finite, trusted
from geoglnet.models.network import Network, PatchBatch, PatchLogits, RegionMaps
from geoglnet.plain import shortened
from geoglnet.training.devices import average_gradients
from geoglnet.training.train_config import OptimConfig, Regularization

_FMREG = {Regularization.EUCLIDEAN: fmreg_euclidean, Regularization.MEAN_SQUARE: fmreg_mean_square}
_GLOBAL_RATE = (Stage.GLOBAL, Stage.BIDIRECTIONAL, Stage.JOINT)
_WARM_UP = 0.05  # share of the steps before the cosine begins to fall


_ANEW = "delete it and start the training anew"


@contextmanager
def _fitting() -> Iterator[None]:
    """Say that a savepoint does not fit, whatever torch says when it is given one that was damaged or changed."""
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the savepoint does not fit the training ({' '.join(str(error).split())[:120]}); {_ANEW}"
        ) from error


class PatchLosses(NamedTuple):
    """Losses of some patches: focal losses added up, and λ times the regularization of x_loc, where there is one."""

    focal: Tensor
    fmreg: Tensor | None


class StageTask(LightningModule):
    """Trains what a :class:`~geoglnet.config.Stage` trains; everything else stays as it is, batch statistics too.

    Patches go through the network ``optim.patches_at_once`` together, and each such part is differentiated before the next is
    looked at; so memory does not grow with the number of patches. Gradients reach a global branch in one backward pass at the
    end, through what gathered at its maps.

    Args:
        network: changed in place.
        stage: which part is trained.
        optim: losses and optimizer.
        steps: how many steps the stage has, for the schedule.

    Raises:
        ConfigError: the network has no branch for the stage.
    """

    loss_name = "loss"
    """Name that the loss of a step is logged by."""

    def __init__(self, network: Network, stage: Stage, optim: OptimConfig, steps: int) -> None:
        super().__init__()
        self.prepare(network, stage, optim, steps)

    def prepare(self, network: Network, stage: Stage, optim: OptimConfig, steps: int) -> None:
        """Make ready for a stage, with no step done; arguments as of the class.

        Raises:
            ConfigError: the network has no branch for the stage.
        """
        # Lightning's own loop knows one backward pass a step; here there is one per part of the patches.
        self.automatic_optimization = False
        self.network = network
        self.stage = stage
        self.optim = optim
        self.steps = steps
        self.done = 0
        self.average = MovingAverage(network, optim.ema_decay) if optim.ema_decay else None
        self._restored: dict[str, Any] | None = None
        if not network.trained_parts(stage):
            kind = f"branches = {network.config.branches.value!r}, sharing = {network.config.sharing.value!r}"
            raise ConfigError(f"a network with {kind} has no {stage.value} stage")
        # Only the stage's parts learn; without gradients elsewhere the frozen branch keeps no graph.
        network.requires_grad_(False)
        trained = list(self._trained_parameters())
        if not trained:
            raise ConfigError(f"the {stage.value} stage has nothing to train: frozen = {list(optim.frozen)}; leave some out")
        for parameter in trained:
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained; what is frozen keeps its batch statistics."""
        super().train(mode)
        for name, part in self.network.named_children():
            part.train(mode and name in self._trained_parts())
        frozen = [backbone for backbone in self.network.backbones() if "backbone" in self.optim.frozen]
        if "statistics" in self.optim.frozen:
            frozen += [part for part in self.network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        for part in frozen:
            part.eval()
        return self

    def training_step(self, batch: RegionBatch, batch_index: int) -> None:
        """Take one step of the optimizer on a batch, and of the schedule and the moving average after it."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        with trusted():  # the batch was checked where it came from
            loss = self.differentiate(batch)
        average_gradients(self._trained_parameters())
        optimizer.step()
        schedule: Any = self.lr_schedulers()
        if schedule is not None:
            schedule.step()
        if self.average is not None:
            self.average.take(self.network, self.done)
        self.done += 1
        self.log(self.loss_name, loss)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, besides the samples."""
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        return {
            "done": self.done,
            "network": self.network.state_dict(),
            "optimizer": optimizer.optimizer.state_dict(),  # Lightning wraps the optimizer
            "schedule": {} if schedule is None else schedule.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            # For networks that draw while they learn (dropout, on a CPU); samples have generators of their own.
            "random": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state` once the trainer has made the optimizer.

        Raises:
            CheckpointError: it is not the state of such a stage.
        """
        done = state.get("done")
        if type(done) is not int or not 0 <= done <= self.steps:
            raise CheckpointError(f"the savepoint counts {shortened(done)} of {self.steps} steps; {_ANEW}")
        self.done, self._restored = done, state
        with _fitting():
            self.network.load_state_dict(state["network"])

    def on_train_start(self) -> None:
        """Take over what the trainer has just made anew."""
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        with _fitting():
            optimizer.optimizer.load_state_dict(state["optimizer"])
            # torch compares numbers of parameters only; moments of other shapes would fail in the middle of a step.
            for parameter, moments in optimizer.optimizer.state.items():
                if any(
                    value.ndim and value.shape != parameter.shape for value in moments.values() if isinstance(value, Tensor)
                ):
                    raise ValueError("moments of other weights")
            if schedule is not None:
                schedule.load_state_dict(state["schedule"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            torch.set_rng_state(state["random"])

    def finish(self) -> None:
        """Leave the moving average in the network, where one was kept."""
        if self.average is not None:
            self.network.load_state_dict(self.average.module.state_dict())

    def differentiate(self, batch: RegionBatch) -> Tensor:
        """Compute the loss of a batch, its gradients added to those of the trained parameters.

        Losses are means over all labeled pixels (and over all patches) of the batch, however it is taken apart.
        """
        batches = (PatchBatch(part.patches, part.footprints, part.overview_index) for part, *_ in self._parts(batch))
        maps = self.network.training_maps(self.stage, batch.overviews, batches)
        total = torch.zeros((), device=batch.overviews.device)
        if self.stage is Stage.GLOBAL and maps is not None:
            loss = self.overview_loss(batch, maps)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        # Each part of the patches is differentiated at once and its graph freed; what they say to the global maps gathers at
        # copies and goes through the global branch in one backward pass. Memory does not grow with the number of patches.
        held = None if maps is None else _held(maps)
        for part, labeled, share in self._parts(batch):
            losses = self.patch_losses(part, held)
            # Weighted by labeled pixels, the parts' means add up to the mean over the batch, however it was cut.
            total += self._backward(labeled * losses.focal, None if losses.fmreg is None else share * losses.fmreg)
        if maps is not None and held is not None and self.stage in _GLOBAL_RATE:
            loss = self.overview_loss(batch, maps)
            _backward_through(maps, held, loss)
            total += loss.detach()
        return total

    def overview_loss(self, batch: RegionBatch, maps: RegionMaps) -> Tensor:
        """Focal loss of s_glb."""
        return self._focal(maps.logits, batch.overview_labels)

    def patch_losses(self, part: RegionBatch, maps: RegionMaps | None) -> PatchLosses:
        """Losses of patches. In the bidirectional stage the local branch is frozen: no s_loc, no regularization."""
        return self.losses_of(self.network.segment(part.patches, part.footprints, maps, part.overview_index), part, maps)

    def losses_of(self, logits: PatchLogits, part: RegionBatch, maps: RegionMaps | None) -> PatchLosses:
        """Losses of logits of patches."""
        trains_local = self.stage is not Stage.BIDIRECTIONAL
        scored = (logits.s_loc if trains_local else None, logits.s_agg)
        focal = [self._focal(s, part.patch_labels) for s in scored if s is not None]
        if logits.x_loc is None or logits.x_glb is None or not self.optim.lambda_fmreg or not trains_local:
            return PatchLosses(torch.stack(focal).sum(), None)
        distance = _FMREG[self.optim.fmreg](logits.x_loc, logits.x_glb)
        return PatchLosses(torch.stack(focal).sum(), self.optim.lambda_fmreg * distance)

    def _backward(self, focal: Tensor, fmreg: Tensor | None) -> Tensor:
        """Gradients of a part's losses. The regularization must not reach the global branch, not even through shared maps."""
        if fmreg is not None and self.stage is Stage.JOINT:
            # Twice through the local branch: the penalty must not draw x_glb toward x_loc (paper §3.2.3), not even through
            # the maps that the global branch shared.
            focal.backward(retain_graph=True)  # type: ignore[no-untyped-call]
            fmreg.backward(inputs=self.network.regularized_parameters())  # type: ignore[no-untyped-call]
            return focal.detach() + fmreg.detach()
        loss = focal if fmreg is None else focal + fmreg
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def configure_optimizers(self) -> Any:
        """AdamW (Adam without weight decay) at the stage's learning rate, constant or along a cosine."""
        rate = self.optim.global_learning_rate if self.stage in _GLOBAL_RATE else self.optim.local_learning_rate
        backbone = {id(p) for part in self.network.backbones() for p in part.parameters()}
        groups = [
            {"params": [p for p in self._trained_parameters() if id(p) not in backbone], "lr": rate},
            {
                "params": [p for p in self._trained_parameters() if id(p) in backbone],
                "lr": rate * self.optim.backbone_rate_factor,
            },
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.optim.weight_decay, fused=True)
        if not self.optim.cosine:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._cosine)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: RegionBatch, device: torch.device, dataloader_idx: int) -> RegionBatch:
        for images in (batch.overviews, batch.patches):  # here, on the host: on a GPU every look would wait for it
            check_finite(images)
        return batch.to(device)

    def _parts(self, batch: RegionBatch) -> Iterator[tuple[RegionBatch, Tensor, float]]:
        """Patches in parts, each with its share of the labeled pixels (a number on the device) and of the patches."""
        count, size = len(batch.patches), self.optim.patches_at_once
        labeled = (batch.patch_labels != NO_CLASS).flatten(1).sum(dim=1)
        total = labeled.sum().clamp(min=1)
        for start in range(0, count, size):
            chosen = slice(start, start + size)
            part = batch.part(chosen)
            yield part, labeled[chosen].sum() / total, len(part.patches) / count

    def _focal(self, logits: Tensor, labels: Tensor) -> Tensor:
        return focal_loss(logits, labels, self.optim.gamma, NO_CLASS)

    def _trained_parts(self) -> list[str]:
        """Name the children that learn: those of the stage, without the branches that are frozen."""
        return [
            name for name in self.network.trained_parts(self.stage) if name.removesuffix("_branch") not in self.optim.frozen
        ]

    def _trained_parameters(self) -> Iterator[nn.Parameter]:
        still = {id(p) for part in self.network.backbones() for p in part.parameters() if "backbone" in self.optim.frozen}
        for name in self._trained_parts():
            yield from (p for p in self.network.get_submodule(name).parameters() if id(p) not in still)

    def _cosine(self, step: int) -> float:
        warm_up = max(1, round(_WARM_UP * self.steps))
        if step < warm_up:
            return (step + 1) / warm_up  # above 0 from the first step on
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, self.steps - warm_up))))


class MovingAverage(AveragedModel):
    """Moving average of a network's weights and batch statistics.

    Torch's own asks the device in every step how many there have been.

    Args:
        network: copied.
        decay: of the average, per step.
    """

    def __init__(self, network: Network, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def take(self, network: Network, done: int) -> None:
        """Move by one step; the average is short at first: in a short stage the initial weights would keep a share otherwise.

        Args:
            network: after the step.
            done: how many steps there were before.
        """
        # As TensorFlow's ExponentialMovingAverage with num_updates.
        decay = min(self._decay, (1 + done) / (10 + done)) if done else 0.0
        pairs = [
            (own, new.detach())
            for own, new in zip(_tensors_of(self.module), _tensors_of(network), strict=True)
            if own.numel()  # as foreach_lerp wants it
        ]
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in floats], [new for _, new in floats], 1 - decay)
        for own, new in pairs:
            if not own.is_floating_point():  # how many batches there were
                own.copy_(own * decay + new * (1 - decay))
        self.n_averaged += 1


def _tensors_of(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _held(maps: RegionMaps) -> RegionMaps:
    """Copy maps without the graph behind them; where there was one, the copies gather gradients themselves."""
    # By identity: the bidirectional network's first and refined maps may be the same tensors, and must stay so.
    leaves = {id(m): m.detach().requires_grad_(m.requires_grad) for m in _tensors(maps)}
    held: RegionMaps = _replaced(maps, leaves)
    return held


def _replaced(value: Any, leaves: Mapping[int, Tensor]) -> Any:
    """Rebuild maps, dataclasses and tuples of tensors, of other tensors; what was one tensor in two places stays one."""
    if isinstance(value, Tensor):
        return leaves[id(value)]
    if isinstance(value, tuple):
        return tuple(_replaced(part, leaves) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{field.name: _replaced(getattr(value, field.name), leaves) for field in fields(value)})
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of maps, each once, in the order of their fields."""
    found: dict[int, Tensor] = {}
    waiting = [value]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, Tensor):
            found.setdefault(id(part), part)
        elif isinstance(part, tuple):
            waiting[:0] = part
        elif is_dataclass(part):
            waiting[:0] = [getattr(part, field.name) for field in fields(part)]
    yield from found.values()


def _backward_through(maps: RegionMaps, held: RegionMaps, loss: Tensor) -> None:
    """Gradients of a loss on the maps, and of what gathered at the held ones, into the branch that made the maps."""
    pairs = [(m, h.grad) for m, h in zip(_tensors(maps), _tensors(held), strict=True) if h.grad is not None]
    # The loss begins with a gradient of 1 (None), each map with the one that its copies gathered.
    torch.autograd.backward([loss, *(m for m, _ in pairs)], [None, *(grad for _, grad in pairs)])
