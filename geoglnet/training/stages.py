"""The stages of a training, and how one of them is run (paper §4.1; the staging is the authors')."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from geoglnet.config import Branches, ModelConfig, Sharing, Stage
from geoglnet.datasets.loading import RegionLoader
from geoglnet.datasets.samplers import RegionDataset
from geoglnet.errors import CheckpointError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network, build_network
from geoglnet.prediction.device import resolve_device
from geoglnet.progress import Progress
from geoglnet.training.devices import Precision, UnwrappedDDP, check_devices, relayed, settled_precision
from geoglnet.training.focus import GlobalFocus
from geoglnet.training.savepoint import Savepoint
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import OptimConfig, TrainConfig


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage of one training.

    Args:
        stage: which.
        config: of the training.
        manifest: of the network.
        saved: what the stage goes on from, if it was cut off.
        keepers: callbacks that write savepoints and logs.
        task_of: makes the task of network, stage, settings and number of steps.
        is_prepared: whether the network has been where the stage begins before, so that nothing is made anew for it.
    """

    stage: Stage
    config: TrainConfig
    manifest: Manifest
    saved: Savepoint | None = None
    keepers: Sequence[Callback] = ()
    is_prepared: bool = False
    task_of: Callable[[Network, Stage, OptimConfig, int], StageTask] = StageTask

    @property
    def steps(self) -> int:
        """Count the stage's steps."""
        optim = self.config.optim
        if self.stage is Stage.BIDIRECTIONAL:
            return optim.bidirectional_steps
        return optim.global_steps if self.stage is Stage.GLOBAL else optim.local_steps


def stages_of(model: ModelConfig, optim: OptimConfig) -> tuple[Stage, ...]:
    """List the stages that a network goes through, in order; those of a frozen branch are left out."""
    frozen = {stage for stage in (Stage.GLOBAL, Stage.LOCAL) if stage.value in optim.frozen}
    if model.branches is not Branches.BOTH:
        only = Stage.GLOBAL if model.branches is Branches.GLOBAL else Stage.LOCAL
        return () if only in frozen else (only,)
    # With one branch frozen, both at once is the other alone.
    is_joint = optim.is_joint and not frozen
    first = (Stage.JOINT,) if is_joint else tuple(stage for stage in (Stage.GLOBAL, Stage.LOCAL) if stage not in frozen)
    return (*first, Stage.BIDIRECTIONAL) if model.sharing is Sharing.BIDIRECTIONAL else first


def model_after(model: ModelConfig, stage: Stage) -> ModelConfig:
    """Configure the part of a network that a stage leaves trained: a network of its own."""
    if model.branches is not Branches.BOTH or stage is Stage.BIDIRECTIONAL:
        return model
    if stage is Stage.GLOBAL:
        return replace(model, branches=Branches.GLOBAL, sharing=Sharing.NONE, aggregate=False)
    is_whole = model.sharing is not Sharing.BIDIRECTIONAL
    return model if is_whole else replace(model, sharing=Sharing.GLOBAL_TO_LOCAL)


def part_of(network: Network, model: ModelConfig) -> Network:
    """Copy a part of a network into one of its own."""
    part, whole = build_network(model), network.state_dict()
    part.load_state_dict({name: whole[name] for name in part.state_dict()})
    return part


def take_parts(network: Network, path: Path, parts: Sequence[str] | None = None) -> None:
    """Take over the weights of some parts from a checkpoint, or, left out, of all that both have.

    Raises:
        CheckpointError: it lacks one, or has another architecture.
    """
    trained, _ = load_checkpoint(path)
    if parts is None:
        theirs = dict(trained.named_children())
        parts = [name for name, _ in network.named_children() if name in theirs]
        if not parts:
            raise CheckpointError(f"{path} has none of {', '.join(name for name, _ in network.named_children())} to begin with")
    for part, name in ((part, part.replace("_", " ")) for part in parts):
        found = getattr(trained, part, None)
        if found is None:
            raise CheckpointError(f"{path} has no {name} to go on from")
        try:
            network.get_submodule(part).load_state_dict(found.state_dict())
        except RuntimeError as error:
            raise CheckpointError(f"the {name} of {path} has another architecture than the configuration") from error


def run_stage(network: Network, run: StageRun, dataset: RegionDataset, progress: Progress) -> None:
    """Run one stage of training, or what is left of it; changes the network in place.

    Raises:
        ConfigError: more devices are asked for than there are.
        DatasetError: samples cannot be made.
    """
    optim, task = run.config.optim, _task(network, run)
    check_devices(optim.devices)
    _prepare(dataset, network, run)
    # A resumed stage goes on with the samples that it has not seen: each is a function of seed and number alone.
    dataset.first = task.done * optim.batch_size
    dataset.length = run.steps * optim.batch_size - dataset.first
    with relayed(progress) if optim.devices > 1 else nullcontext(progress) as told:
        size = optim.batch_size // optim.devices
        loader = RegionLoader(dataset, size, optim.workers, run.manifest.bands, told)
        precision = settled_precision(optim.precision, resolve_device("auto"))
        trainer = _trainer(optim, precision, run.steps - task.done, [StepReporter(told, run.stage), *run.keepers])
        with nullcontext() if precision == "32-true" else strided_depthwise_in_float32(network):
            trainer.fit(task.train(), loader)  # the trainer keeps modes as it finds them, and the frozen branch's must be set
    task.finish()


class _Float32Conv2d(nn.Conv2d):
    """A convolution that autocast leaves in float32 on CPUs."""

    def forward(self, maps: Tensor) -> Tensor:
        if maps.device.type != "cpu":
            return super().forward(maps)
        with torch.autocast("cpu", enabled=False):
            return super().forward(maps.float())


@contextmanager
def strided_depthwise_in_float32(network: Network) -> Iterator[None]:
    """Keep autocast away from strided depthwise convolutions: on CPUs their backward pass in bfloat16 takes 8 times as long."""
    convolutions = [
        m for m in network.modules() if type(m) is nn.Conv2d and m.groups == m.in_channels > 1 and m.stride > (1, 1)
    ]
    # Their class changes and not they: state dicts, copies for averages and other processes see nothing of it.
    for convolution in convolutions:
        convolution.__class__ = _Float32Conv2d
    try:
        yield
    finally:
        for convolution in convolutions:
            convolution.__class__ = nn.Conv2d


def _task(network: Network, run: StageRun) -> StageTask:
    network.to(memory_format=torch.channels_last)
    if run.saved is None and not run.is_prepared:
        network.begin(run.stage)  # before the task copies the network for its moving average
    task = run.task_of(network, run.stage, run.config.optim, run.steps)
    if run.saved is not None:
        task.restore(run.saved.state)
    return task


def _prepare(dataset: RegionDataset, network: Network, run: StageRun) -> None:
    """Samples as the stage needs them."""
    # Every stage draws samples of its own.
    dataset.seed = run.config.optim.seed + list(Stage).index(run.stage)
    dataset.has_patches = run.stage is not Stage.GLOBAL
    if run.stage is Stage.BIDIRECTIONAL:
        dataset.sample = replace(run.config.sample, patches_per_region=0)  # what is merged must cover the region
    # Not in the global stage: that branch has to find the foreground in whole regions first (§3.3).
    if run.config.sample.coarse_to_fine and run.stage in (Stage.LOCAL, Stage.BIDIRECTIONAL):
        dataset.focus = GlobalFocus.of(network, run.manifest, dataset)


def _trainer(optim: OptimConfig, precision: Precision, steps: int, callbacks: list[Callback]) -> lightning.Trainer:
    return lightning.Trainer(
        max_steps=steps,
        precision=precision,
        callbacks=callbacks,
        devices=optim.devices,
        strategy=UnwrappedDDP() if optim.devices > 1 else "auto",
        use_distributed_sampler=False,  # the loader shares samples itself
        # Callbacks of ours write losses and savepoints; Lightning would write into the folder it is started in.
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


class StepReporter(Callback):
    """Forwards steps and losses to a :class:`Progress`."""

    def __init__(self, progress: Progress, stage: Stage) -> None:
        self.progress = progress
        self.stage = stage

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Announce the stage, with what was done of it before."""
        if isinstance(pl_module, StageTask) and trainer.is_global_zero:
            self.progress.plan(f"{self.stage.value} stage", pl_module.steps, "steps")
            if pl_module.done:
                self.progress.advance(pl_module.done)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell of a step and its loss."""
        if trainer.is_global_zero:
            self.progress.advance(loss=float(trainer.callback_metrics["loss"]))
