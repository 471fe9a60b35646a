"""Training: configuration and data folder in, checkpoint out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from geoglnet.config import Branches, Sharing, Stage, to_plain
from geoglnet.datasets.loading import RegionLoader
from geoglnet.datasets.reader import PairReader, open_dataset, open_specimens
from geoglnet.datasets.samplers import RegionDataset
from geoglnet.datasets.sources import source_files
from geoglnet.errors import CheckpointError, ConfigError, OutputExistsError
from geoglnet.filenames import check_filename
from geoglnet.message import Keyword
from geoglnet.models.backbone import is_name_of_weights, load_backbone_weights
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.manifest import Manifest, read_manifest
from geoglnet.models.network import Network, build_network
from geoglnet.models.shipped import model_path
from geoglnet.models.transfer import blend, transfer
from geoglnet.output import OutputFile, refuse_inputs
from geoglnet.prediction.device import check_training_capacity, resolve_device
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.gdal import local_files
from geoglnet.training.devices import quiet_lightning, settled_precision
from geoglnet.training.runlog import RunLog, Specimen, forget_losses, read_losses, run_folder, specimen
from geoglnet.training.savepoint import Savepoint, Saving, check_savepoint, read_savepoint, savepoint_path
from geoglnet.training.score_sheet import check_report, write_report
from geoglnet.training.scoring import score
from geoglnet.training.stages import StageRun, part_of, run_stage, stages_of, take_parts
from geoglnet.training.train_config import TrainConfig
from geoglnet.types import Shape

NUM_SPECIMENS = 2


@dataclass(frozen=True, slots=True)
class Start:
    """Where a training begins.

    Args:
        global_branch_from: checkpoint whose global branch is taken instead of training one.
        branches_from: checkpoint whose global and local branch, and f_agg, are taken instead of training them.
        resume: go on from what a training with the same checkpoint and configuration left: its savepoint, or the trained
            network where only its scores are missing.
    """

    global_branch_from: Path | None = None
    branches_from: Path | None = None
    resume: bool = False

    def path_for(self, stage: Stage) -> Path | None:
        """Find the checkpoint that stands for a stage, if one does."""
        if stage is Stage.BIDIRECTIONAL:
            return None
        return self.branches_from or (self.global_branch_from if stage is Stage.GLOBAL else None)


@quiet_lightning()
def fit(
    config: TrainConfig,
    folder: Path,
    checkpoint_path: Path,
    *,
    start: Start = Start(),
    overwrite: bool = False,
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> Manifest:
    """Train a network stage by stage, and score it on the validation scenes.

    The stages are the global branch, the local branch above it and, where sharing is bidirectional, the refined global branch
    above both (or, ``is_joint``, both branches at once). What an earlier stage left is kept beside the checkpoint, as
    ``<checkpoint>.global.safetensors`` (the paper's global-only baseline) and ``<checkpoint>.local.safetensors`` (𝒢 → ℒ): a
    later training can start from there. Every ``optim.save_every_s`` seconds a savepoint is written, from which a training
    that was cut off goes on as if nothing had been (``<checkpoint>.resume.pt``, gone in the end). The log (losses, TensorBoard
    events with pictures) and the report of the scores lie in ``<checkpoint>.run``.

    Memory: decoded scenes up to ``sample.cache_mb`` (4 bytes per pixel at the model's resolution); a step costs ``batch_size``
    regions' pixels, their overviews' activations, and those of ``patches_at_once`` patches.

    Args:
        config: what to train and how.
        folder: data folder that the configuration's patterns start from.
        checkpoint_path: ``.safetensors`` file to write.
        start: where to begin; from nothing when left out.
        overwrite: replace existing files.
        progress: receiver of plans, steps and losses.

    Returns:
        The manifest written.

    Raises:
        DatasetError: training data are missing or cannot be used.
        CheckpointError: a checkpoint or savepoint to go on from, or the backbone weights, do not fit.
        ConfigError: nothing would be trained.
        OutputExistsError: the checkpoint exists, or a savepoint that nobody asked to go on from.
        CapacityError: a baseline whose images the device is too small for; it says which it can take.
        Canceled: it was interrupted.
    """
    check_filename(checkpoint_path)  # names of other files are made from it
    _check_start(config, start)
    config = _settled(config, progress)
    saved_path = savepoint_path(checkpoint_path)
    is_unscored = _is_unscored(checkpoint_path, config)
    if is_unscored and not (start.resume or overwrite):
        raise _interrupted(checkpoint_path)
    is_trained = start.resume and is_unscored
    file = OutputFile(checkpoint_path, overwrite or (start.resume and _is_finished(checkpoint_path, config)))
    saved = None if is_trained else _saved(saved_path, config, start, overwrite)
    # All stages but the last leave a file: its network is the checkpoint itself.
    trained = [stage for stage in stages_of(config.model, config.optim)[:-1] if start.path_for(stage) is None]
    kept = {stage: OutputFile(stage_path(checkpoint_path, stage), overwrite or start.resume) for stage in trained}
    refuse_inputs([file, *kept.values()], _inputs(config, folder, start))
    check_report(run_folder(checkpoint_path), overwrite=overwrite or start.resume)
    with ExitStack() as stack:
        for output in (file, *kept.values()):
            stack.enter_context(output.claimed())
        if is_trained:
            manifest = read_manifest(checkpoint_path)
        else:
            network, manifest = _train(config, folder, start, saved, kept, checkpoint_path, progress)
            save_checkpoint(file, network, manifest)  # first: nothing is lost if scoring fails
            file.overwrite = True  # the file of a moment ago, written again with its scores
        if config.validation:
            network, _ = load_checkpoint(checkpoint_path)  # as everybody will load it: weights rounded to half precision
            evaluation = score(network, manifest, config.validation, folder, progress=progress)
            run = run_folder(checkpoint_path)
            write_report(run, config.name, evaluation, read_losses(run), overwrite=True)
            manifest = replace(manifest, metrics=evaluation.to_dict())
            save_checkpoint(file, network, manifest)  # with its scores last: one without them is resumed
        saved_path.unlink(missing_ok=True)  # last: whatever ends the run, it can be resumed
    return manifest


def _settled(config: TrainConfig, progress: Progress) -> TrainConfig:
    """Choose what the configuration leaves to the machine and weights depend on: savepoints and models keep the choice."""
    asked, precision = config.optim.precision, settled_precision(config.optim.precision, resolve_device("auto"))
    if asked == precision:
        return config
    why = "the device has" if precision == "bf16-mixed" else "the device has no"
    progress.log(f"trains in {precision} (optim.precision = {asked}): {why} instructions for bfloat16")
    return replace(config, optim=replace(config.optim, precision=precision))


def _train(
    config: TrainConfig,
    folder: Path,
    start: Start,
    saved: Savepoint | None,
    kept: Mapping[Stage, OutputFile],
    checkpoint_path: Path,
    progress: Progress,
) -> tuple[Network, Manifest]:
    """Train a network stage by stage, from nothing or a savepoint; keep what earlier stages left."""
    saved_path = savepoint_path(checkpoint_path)
    if saved is None:
        saved_path.unlink(missing_ok=True)
    # After the outputs are claimed and before anything draws: the same seed builds the same weights.
    torch.manual_seed(config.optim.seed)
    network = _build_network(config, folder, progress)
    source, taken = config.optim.start_from, {}
    if source:
        taken = start_from(network, config, progress)
    check_training_capacity(network, *_images_of(config), resolve_device("auto"))
    dataset = _open_dataset(config, folder, progress)
    # Savepoints keep what was asked for, models what came of it.
    asked, config = config, replace(config, bands=dataset.bands)
    manifest = make_manifest(config)
    run, specimens = run_folder(checkpoint_path), _open_specimens(config, folder, manifest)
    if saved is None:
        forget_losses(run)
    for stage in stages_of(config.model, config.optim):
        if saved is not None and saved.stage is not stage:
            continue  # it was over; the savepoint holds the whole network
        path = start.path_for(stage)
        if path is not None and saved is None:
            take_parts(network, path, network.trained_parts(stage))
            continue
        keepers = Saving(saved_path, asked, stage), RunLog(run, stage, specimens)
        # What the refined branch of the model knows is not replaced by a copy of its global branch.
        is_prepared = any(name.startswith("refined_branch.") for name in taken)
        run_stage(network, StageRun(stage, config, manifest, saved, keepers, is_prepared), dataset, progress)
        if stage in kept:
            _keep_stage(kept[stage], network, stage, config)
        saved = None
    blend(network, taken, config.optim.start_share)
    return network, manifest


def start_from(network: Network, config: TrainConfig, progress: Progress) -> dict[str, Tensor]:
    """Fill a network with the weights of the model that a configuration starts from.

    Returns:
        The weights that are wholly the model's, by name: a copy, to average with in the end.

    Raises:
        CheckpointError: the model has another architecture.
        ModelNotFoundError: there is no such model.
    """
    source = config.optim.start_from
    trained, theirs = load_checkpoint(model_path(source))
    whole = transfer(network, config.legend, config.bands.names, trained, theirs, source)
    new = [name for name in config.legend.names if name not in theirs.legend.names]
    progress.log(
        f"start from {theirs.name}"
        + (f"; classes that it does not know: {', '.join(new)}" if new else "")
        + (f"; frozen: {', '.join(config.optim.frozen)}" if config.optim.frozen else "")
    )
    return {name: tensor.clone() for name, tensor in network.state_dict().items() if name in whole}


def _check_start(config: TrainConfig, start: Start) -> None:
    """Refuse a training with nothing to train, or whose frozen branch would stay random.

    Raises:
        ConfigError: so it is.
    """
    optim = config.optim
    given = start.branches_from or start.global_branch_from
    if optim.start_from and given is not None:
        raise ConfigError(f"start from {optim.start_from}, or take branches from {given}, but not both")
    if not any(start.path_for(stage) is None for stage in stages_of(config.model, optim)):
        if given is None:
            raise ConfigError(f"nothing to train: frozen = {list(optim.frozen)} leaves no stage; leave some out")
        raise ConfigError(
            f"nothing to train: all branches are taken from {given}, and sharing = {config.model.sharing.value!r} has no "
            "further stage; set sharing = 'bidirectional', or train on from that model with "
            + Keyword("start_from", str(given))
        )
    if {"global", "local", "backbone"} & set(optim.frozen) and not optim.start_from and given is None:
        raise ConfigError(f"frozen = {list(optim.frozen)} would stay random; name the model to start from with from = '…'")


def _saved(path: Path, config: TrainConfig, start: Start, overwrite: bool) -> Savepoint | None:
    """Read the savepoint to go on from, if that was asked for; one that nobody asked about is not silently thrown away."""
    if start.resume:
        return read_savepoint(path, config)
    if path.exists() and not overwrite:
        raise _interrupted(path)
    if path.exists():
        check_savepoint(path)
    return None


def _interrupted(path: Path) -> OutputExistsError:
    """Say how to go on where an interrupted training left a file."""
    return OutputExistsError(
        f"{path}: a training was interrupted here; pass "
        + (Keyword("resume", True) + " to continue it, or " + Keyword("overwrite", True) + " to start over")
    )


def _is_unscored(checkpoint_path: Path, config: TrainConfig) -> bool:
    """Tell whether a checkpoint was written by the training that is resumed, which was cut off while it was scored."""
    saved_path = savepoint_path(checkpoint_path)
    if not config.validation or not checkpoint_path.is_file():
        return False
    # A savepoint that is newer belongs to another training, which was to replace this checkpoint.
    if saved_path.is_file() and saved_path.stat().st_mtime_ns > checkpoint_path.stat().st_mtime_ns:
        return False
    found = _found_manifest(checkpoint_path)
    return found is not None and not found.metrics and _describes(found, config)


def _is_finished(checkpoint_path: Path, config: TrainConfig) -> bool:
    """Tell whether a checkpoint was written by the training that is resumed, which was cut off at its very end."""
    if _is_unscored(checkpoint_path, config):
        return True
    if not (savepoint_path(checkpoint_path).is_file() and checkpoint_path.is_file()):
        return False
    found = _found_manifest(checkpoint_path)
    return found is not None and _describes(found, config)


def _found_manifest(checkpoint_path: Path) -> Manifest | None:
    try:
        return read_manifest(checkpoint_path)
    except CheckpointError:
        return None


def _describes(found: Manifest, config: TrainConfig) -> bool:
    """Tell whether a manifest is the one that a configuration makes, scores apart."""
    if not config.bands.is_measured:
        if len(config.bands) != len(found.bands):
            return False
        config = replace(config, bands=replace(config.bands, mean=found.bands.mean, std=found.bands.std))  # as measured then
    plain = replace(found, metrics={}).to_dict()
    return json.dumps(plain, default=str) == json.dumps(make_manifest(config).to_dict(), default=str)


def _inputs(config: TrainConfig, folder: Path, start: Start) -> Iterator[tuple[str, Path]]:
    """List what a training reads, so that no output replaces it."""
    for path in (start.global_branch_from, start.branches_from):
        if path is not None:
            yield "the checkpoint to start from", path
    if config.optim.start_from:
        yield "the model to start from", model_path(config.optim.start_from)
    if config.optim.backbone_weights and not is_name_of_weights(config.optim.backbone_weights):
        yield "the file of the backbone's weights", folder / config.optim.backbone_weights
    for what, sources in (("a training file", config.train), ("a validation file", config.validation)):
        # The files behind a VRT too: they are what is read.
        paths = (path for source in sources for path in source_files(source, folder))
        yield from ((what, found) for path in paths for found in (local_files(path) if path.suffix == ".vrt" else (path,)))


def make_manifest(config: TrainConfig) -> Manifest:
    """Describe the checkpoint of a configuration."""
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
        bands=config.bands,
        training={
            **config.data,
            "resolution_m": config.resolution_m,
            **settings,
            "sources": [to_plain(source) for source in config.train],
        },
        version=version("geoglnet"),
    )


def _open_dataset(config: TrainConfig, folder: Path, progress: Progress) -> RegionDataset:
    return open_dataset(config.train, _reader(config, folder, progress), config.region, config.sample, config.augment)


def _reader(config: TrainConfig, folder: Path, progress: Progress) -> PairReader:
    return PairReader(folder, config.legend, config.resolution_m, progress, config.sample.skip_corrupt, config.bands)


def _open_specimens(config: TrainConfig, folder: Path, manifest: Manifest) -> list[Specimen]:
    if not config.validation:
        return []
    reader = _reader(config, folder, SilentProgress())
    dataset = open_specimens(config.validation, reader, config.region, config.sample, NUM_SPECIMENS)
    loader = RegionLoader(dataset, 1, 0, manifest.bands)
    return [specimen(batch, manifest.bands, config.legend) for batch in loader]


def _build_network(config: TrainConfig, folder: Path, progress: Progress) -> Network:
    network = build_network(config.model)
    source = config.optim.backbone_weights
    if source:
        path = source if is_name_of_weights(source) else str(folder / source)
        for backbone in network.backbones():
            load_backbone_weights(backbone, path, config.bands.names, progress)
    return network


def _images_of(config: TrainConfig) -> tuple[tuple[int, int], int]:
    """Sides of the overviews and patches of training regions, and how many of what a lone branch sees go through it at once."""
    sample, optim = config.sample, config.optim
    overview = config.region.overview_shape(Shape(sample.region_size, sample.region_size)).height
    batch = optim.batch_size // optim.devices
    if config.model.branches is Branches.LOCAL and sample.patches_per_region:
        # A lone local branch sees the patches of all regions of the step.
        batch *= sample.patches_per_region
    is_local = config.model.branches is Branches.LOCAL
    return (overview, sample.patch_size), min(batch, optim.patches_at_once) if is_local else batch


def stage_path(checkpoint_path: Path, stage: Stage) -> Path:
    """Name the file for the network that a stage left, when it is not the last one."""
    return checkpoint_path.with_suffix(f".{stage.value}{checkpoint_path.suffix}")


def _keep_stage(file: OutputFile, network: Network, stage: Stage, config: TrainConfig) -> None:
    """Save what a stage left as a network of its own."""
    kept = global_only(config) if stage is Stage.GLOBAL else one_way(config)
    part = part_of(network, kept.model)
    # In float32: a later training may go on from it.
    save_checkpoint(file, part, make_manifest(kept), half=False)


def one_way(config: TrainConfig) -> TrainConfig:
    """Configure the same with sharing from the global to the local branch only (paper Table 2, last row but one)."""
    return replace(config, model=replace(config.model, sharing=Sharing.GLOBAL_TO_LOCAL), name=f"{config.name}-one-way")


def global_only(config: TrainConfig) -> TrainConfig:
    """Configure the same for the global branch alone (paper Table 2, first rows)."""
    return _alone(config, Branches.GLOBAL)


def local_only(config: TrainConfig) -> TrainConfig:
    """Configure the same for the local branch alone."""
    return _alone(config, Branches.LOCAL)


def _alone(config: TrainConfig, branches: Branches) -> TrainConfig:
    model = replace(config.model, branches=branches, sharing=Sharing.NONE, aggregate=False)
    return replace(config, model=model, name=f"{config.name}-{branches.value}")
