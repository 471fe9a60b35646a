"""Training: configuration and data folder in, checkpoint out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from geoglnet.config import Branches, Sharing, Stage, to_plain
from geoglnet.datasets.loading import RegionLoader
from geoglnet.datasets.reader import PairReader, open_dataset, open_specimens
from geoglnet.datasets.samplers import RegionDataset
from geoglnet.errors import CheckpointError, ConfigError
from geoglnet.models.backbone import load_backbone_weights
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from geoglnet.progress import Progress, SilentProgress
from geoglnet.training.config import OptimConfig, TrainConfig
from geoglnet.training.evaluate import score
from geoglnet.training.focus import GlobalFocus
from geoglnet.training.report import write_report
from geoglnet.training.runlog import RunLog, Specimen, forget_losses, read_losses, run_folder, specimen
from geoglnet.training.task import TRAINED_PARTS, StageTask
from geoglnet.types import OutputFile

NUM_SPECIMENS = 2


class _Report(Callback):
    """Forwards steps and losses to a :class:`Progress`."""

    def __init__(self, progress: Progress, stage: Stage) -> None:
        self.progress = progress
        self.stage = stage

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.progress.plan(f"{self.stage.value} stage", int(trainer.max_steps), "steps")

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.progress.advance(loss=float(trainer.callback_metrics["loss"]))


def fit(
    config: TrainConfig,
    folder: Path,
    checkpoint_path: Path,
    *,
    global_branch_from: Path | None = None,
    branches_from: Path | None = None,
    overwrite: bool = False,
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> Manifest:
    """Train a network stage by stage, and score it on the validation scenes.

    The stages are the global branch, the local branch above it and, where sharing is bidirectional, the refined global branch
    above both (or, ``is_joint``, both branches at once). What an earlier stage left is kept beside the checkpoint, as
    ``<checkpoint>.global.safetensors`` (the paper's global-only baseline) and ``<checkpoint>.local.safetensors`` (𝒢 → ℒ): a
    training that was cut off goes on from there. The log (losses, TensorBoard events with pictures) and the report of the
    scores lie in ``<checkpoint>.run``.

    Memory: decoded scenes up to ``sample.cache_mb`` (4 bytes per pixel at the model's resolution); a step costs ``batch_size``
    regions' pixels, their overviews' activations, and those of ``patches_at_once`` patches.

    Args:
        config: what to train and how.
        folder: data folder that the configuration's patterns start from.
        checkpoint_path: ``.safetensors`` file to write.
        global_branch_from: checkpoint whose global branch is taken instead of training one.
        branches_from: checkpoint whose global and local branch, and f_agg, are taken instead of training them.
        overwrite: replace existing files.
        progress: receiver of plans, steps and losses.

    Returns:
        The manifest written.

    Raises:
        DatasetError: training data are missing or cannot be used.
        CheckpointError: a checkpoint to go on from, or the backbone weights, do not fit.
        OutputExistsError: the checkpoint exists.
    """
    OutputFile(checkpoint_path, overwrite)
    torch.manual_seed(config.optim.seed)
    network = _build_network(config, folder)
    manifest = make_manifest(config)
    dataset = _open_dataset(config, folder, progress)
    run, specimens = run_folder(checkpoint_path), _open_specimens(config, folder, manifest)
    forget_losses(run)
    for stage in stages_of(config):
        path = branches_from or (global_branch_from if stage is Stage.GLOBAL else None)
        if path is not None and stage is not Stage.BIDIRECTIONAL:
            _take(network, path, TRAINED_PARTS[stage])
        else:
            run_stage(network, stage, config, dataset, progress, RunLog(run, stage, specimens))
            _keep_stage(checkpoint_path, network, stage, config)
    save_checkpoint(checkpoint_path, network, manifest, overwrite=overwrite)  # first: nothing is lost if scoring fails
    if config.validation:
        evaluation = score(network, manifest, config.validation, folder, progress=progress)
        manifest = replace(manifest, metrics=evaluation.to_dict())
        save_checkpoint(checkpoint_path, network, manifest, overwrite=True)
        write_report(run, config.name, evaluation, read_losses(run), overwrite=True)
    return manifest


def stages_of(config: TrainConfig) -> tuple[Stage, ...]:
    """The stages that a configuration's network goes through, in order."""
    if config.model.branches is not Branches.BOTH:
        return (Stage.GLOBAL if config.model.branches is Branches.GLOBAL else Stage.LOCAL,)
    first = (Stage.JOINT,) if config.optim.is_joint else (Stage.GLOBAL, Stage.LOCAL)
    return (*first, Stage.BIDIRECTIONAL) if config.model.sharing is Sharing.BIDIRECTIONAL else first


def run_stage(
    network: GLNet, stage: Stage, config: TrainConfig, dataset: RegionDataset, progress: Progress, *logs: Callback
) -> None:
    """One stage of training; changes the network in place."""
    optim, steps = config.optim, _steps(config.optim, stage)
    dataset.length, dataset.seed = steps * optim.batch_size, optim.seed + list(Stage).index(stage)
    if stage is Stage.BIDIRECTIONAL:
        dataset.sample = replace(config.sample, patches_per_region=0)  # what is merged must cover the region
        _start_refining(network)
    manifest = make_manifest(config)
    if config.sample.coarse_to_fine and stage in (Stage.LOCAL, Stage.BIDIRECTIONAL):
        dataset.focus = GlobalFocus.of(network, manifest, dataset)
    loader = RegionLoader(dataset, optim.batch_size, optim.workers, manifest.mean, manifest.std, progress)
    callbacks: list[Callback] = [_Report(progress, stage), *logs]
    if optim.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=optim.ema_decay))
    trainer = lightning.Trainer(
        max_steps=steps,
        precision=optim.precision,
        callbacks=callbacks,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    network.to(memory_format=torch.channels_last)
    task = StageTask(network, stage, optim, steps)
    trainer.fit(task.train(), loader)  # the trainer keeps modes as it finds them, and the frozen branch's must be set


def _steps(optim: OptimConfig, stage: Stage) -> int:
    if stage is Stage.BIDIRECTIONAL:
        return optim.bidirectional_steps
    return optim.global_steps if stage is Stage.GLOBAL else optim.local_steps


def _start_refining(network: GLNet) -> None:
    if network.refined_branch is None or network.global_branch is None:
        raise ConfigError("only a network with bidirectional sharing has a branch to refine")
    network.refined_branch.start_from(network.global_branch)


def make_manifest(config: TrainConfig) -> Manifest:
    """What the checkpoint of a configuration says about itself."""
    assumed = config.assumed_pixel_size_m or config.resolution_m
    settings = {name: to_plain(getattr(config, name)) for name in ("optim", "sample", "augment")}
    return Manifest(
        name=config.name,
        model=config.model,
        region=config.region,
        legend=config.legend,
        resolution_m=config.segment_resolution_m or config.resolution_m,
        resolution_range_m=config.resolution_range_m,
        assumed_pixel_size_m=assumed,
        training={
            **config.data,
            "resolution_m": config.resolution_m,
            **settings,
            "sources": [to_plain(source) for source in config.train],
        },
        version=version("geoglnet"),
    )


def _open_dataset(config: TrainConfig, folder: Path, progress: Progress) -> RegionDataset:
    reader = PairReader(folder, config.legend, config.resolution_m, progress, config.sample.skip_corrupt)
    return open_dataset(config.train, reader, config.region, config.sample, config.augment)


def _open_specimens(config: TrainConfig, folder: Path, manifest: Manifest) -> list[Specimen]:
    if not config.validation:
        return []
    reader = PairReader(folder, config.legend, config.resolution_m, SilentProgress(), config.sample.skip_corrupt)
    dataset = open_specimens(config.validation, reader, config.region, config.sample, NUM_SPECIMENS)
    loader = RegionLoader(dataset, 1, 0, manifest.mean, manifest.std)
    return [specimen(batch, loader.mean, loader.std, config.legend) for batch in loader]


def _build_network(config: TrainConfig, folder: Path) -> GLNet:
    network = GLNet(config.model)
    source = config.optim.backbone_weights
    if source:
        path = source if source == "imagenet" else str(folder / source)
        for branch in (network.global_branch, network.local_branch):
            if branch is not None:
                load_backbone_weights(branch.backbone, path)
    return network


def _take(network: GLNet, path: Path, parts: Sequence[str]) -> None:
    trained, _ = load_checkpoint(path)
    for part, name in ((part, part.replace("_", " ")) for part in parts):
        ours, theirs = getattr(network, part), getattr(trained, part)
        if ours is not None and theirs is None:
            raise CheckpointError(f"{path} has no {name} to go on from")
        try:
            if ours is not None:
                ours.load_state_dict(theirs.state_dict())
        except RuntimeError as error:
            raise CheckpointError(f"the {name} of {path} has another architecture than the configuration") from error


def _keep_stage(checkpoint_path: Path, network: GLNet, stage: Stage, config: TrainConfig) -> None:
    """What a stage left, when it is not the last one, as a network of its own."""
    if stage is stages_of(config)[-1]:
        return
    kept = global_only(config) if stage is Stage.GLOBAL else one_way(config)
    part = GLNet(kept.model)
    part.load_state_dict({name: network.state_dict()[name] for name in part.state_dict()})
    path = checkpoint_path.with_suffix(f".{stage.value}{checkpoint_path.suffix}")
    save_checkpoint(path, part, make_manifest(kept), half=False, overwrite=True)


def one_way(config: TrainConfig) -> TrainConfig:
    """The same configuration with sharing from the global to the local branch only (paper Table 2, last row but one)."""
    return replace(config, model=replace(config.model, sharing=Sharing.GLOBAL_TO_LOCAL), name=f"{config.name}-one-way")


def global_only(config: TrainConfig) -> TrainConfig:
    """The same configuration for the global branch alone (paper Table 2, first rows)."""
    return _alone(config, Branches.GLOBAL)


def local_only(config: TrainConfig) -> TrainConfig:
    """The same configuration for the local branch alone."""
    return _alone(config, Branches.LOCAL)


def _alone(config: TrainConfig, branches: Branches) -> TrainConfig:
    model = replace(config.model, branches=branches, sharing=Sharing.NONE, aggregate=False)
    return replace(config, model=model, name=f"{config.name}-{branches.value}")
