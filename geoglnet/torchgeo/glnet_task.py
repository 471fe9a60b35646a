"""GLNetTask: a GLNet as a task of TorchGeo, for Lightning's Trainer and TorchGeo's command line.

It is the :class:`~geoglnet.training.task.StageTask` that ``geoglnet train`` trains with, in the manner of TorchGeo: built
from plain arguments, fed with TorchGeo's batches, and with TorchGeo's metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from geoglnet.bands import RGB
from geoglnet.config import ModelConfig, Stage, from_plain, to_plain
from geoglnet.datasets.regions import RegionBatch
from geoglnet.errors import ConfigError
from geoglnet.legend import NO_CLASS
from geoglnet.losses import focal_loss
from geoglnet.models.backbone import load_backbone_weights
from geoglnet.models.checkpoint import save_checkpoint
from geoglnet.models.checks import check_finite
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network, PatchBatch, build_network
from geoglnet.models.shipped import model_path
from geoglnet.output import OutputFile
from geoglnet.plain import shortened
from geoglnet.torchgeo.global_local import GlobalLocalDataset, region_batch
from geoglnet.training.devices import UnwrappedDDP
from geoglnet.training.stages import model_after, part_of, stages_of, take_parts
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import RECIPES, OptimConfig, alone
from geoglnet.types import StrPath

if TYPE_CHECKING:
    from torchgeo.trainers import BaseTask
else:
    try:
        from torchgeo.tasks import BaseTask
    except ModuleNotFoundError:  # TorchGeo 0.8
        from torchgeo.trainers import BaseTask

_KEY = "geoglnet"  # of what Lightning's checkpoints hold beside weights
_MOST_FIGURES = 10  # an epoch, as TorchGeo's tasks
_WHOLE_TRAINING = "all"


class GLNetTask(StageTask, BaseTask):
    """Train a GLNet, or one of its baselines, on batches of a :class:`~geoglnet.torchgeo.GlobalLocalDataset`.

    What an epoch is, the sampler says; batch size, precision and devices are the Trainer's and DataLoader's. Bands, legend
    and sizes of regions are the dataset's: the task finds it in the DataLoader, and normalizes by its mean and std. After
    training, :meth:`save` writes a checkpoint that ``geoglnet predict`` reads.

    Logged are ``train_loss`` (of the stage), ``val_loss`` and ``test_loss`` (focal loss of what is predicted), and
    ``val_MulticlassAccuracy``, ``val_MulticlassJaccardIndex`` (over all pixels, as of TorchGeo's tasks) and ``val_mean_iou``
    (mean over classes).

    On several devices the Trainer needs ``strategy=UnwrappedDDP()`` (of ``geoglnet.training.devices``), whose processes end
    with the fit: the callback :class:`GLNetCheckpoint` saves the model before.

    Args:
        num_classes: of the dataset's legend.
        in_channels: number of the dataset's bands.
        bands: their names where they are not red, green and blue, in the dataset's order; pretrained weights go by name.
        backbone: as of :class:`~geoglnet.config.ModelConfig`.
        model: its other settings, as of ``[model]`` in a configuration file: ``{"sharing": "bidirectional"}``.
        stage: what is trained. ``"all"``: the stages of ``geoglnet train`` one after another (global branch, local branch and
            f_agg, refined global branch where sharing is bidirectional); the Trainer's epochs are divided among them in
            proportion to ``global_steps``, ``local_steps`` and ``bidirectional_steps`` of ``optim``. ``"joint"``: both
            branches at once. ``"global"``, ``"local"``, ``"bidirectional"``: one stage, for which ``weights`` has what the
            stages before it left.
        weights: checkpoint, or shipped model, whose parts are taken to begin with.
        optim: settings as of ``[optim]``: rates, losses, ``ema_decay``, ``backbone_weights``; its numbers of steps are
            proportions here, and ``batch_size``, ``devices``, ``precision`` and ``workers`` are not used.
        name: of the model, in its checkpoint.

    Raises:
        ConfigError: settings that no network or optimizer can have, or a stage that this network has not.
        CheckpointError: ``weights`` or ``backbone_weights`` do not fit.
    """

    loss_name = "train_loss"
    ignore = ("weights",)

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        bands: list[str] | None = None,
        backbone: str = "resnet50",
        model: dict[str, Any] | None = None,
        stage: str = _WHOLE_TRAINING,
        weights: str | None = None,
        optim: dict[str, Any] | None = None,
        name: str = "glnet",
    ) -> None:
        if stage not in (choices := (_WHOLE_TRAINING, *(one.value for one in Stage))):
            raise ConfigError(f"stage = {shortened(stage)} is not one of {', '.join(choices)}")
        self._weights, self._asked_stage, self._model_name = weights, stage, name
        self._bands = RGB if bands is None else tuple(bands)
        count = in_channels if bands is None else len(bands)
        self._model_settings = {"num_classes": num_classes, "in_channels": count, "backbone": backbone} | (model or {})
        chosen = dict(optim or {})
        self._optim_settings = from_plain(OptimConfig, RECIPES.get(str(chosen.get("recipe", "paper")), {}) | chosen)
        self.manifest: Manifest | None = None
        # Past StageTask, which takes a network: TorchGeo's class keeps the arguments, and calls the methods below.
        super(StageTask, self).__init__()

    def configure_models(self) -> None:
        """Build the network, take over weights, and begin its first stage."""
        settings = self._model_settings
        config = from_plain(ModelConfig, settings | alone(str(settings.get("architecture", ""))))
        network = build_network(config)
        source = self._optim_settings.backbone_weights
        if self._weights is not None:
            take_parts(network, model_path(self._weights))
        elif source:
            for backbone in network.backbones():
                load_backbone_weights(backbone, source, self._bands)
        first = stages_of(config, self._optim_settings)[0] if self._asked_stage == _WHOLE_TRAINING else Stage(self._asked_stage)
        self._begin(network, first)

    def configure_losses(self) -> None:
        """Choose the loss of logits; the regularization of the local branch is added to it."""
        self.criterion: Callable[[Tensor, Tensor], Tensor] = partial(focal_loss, gamma=self.optim.gamma, ignore_value=NO_CLASS)

    def configure_metrics(self) -> None:
        """Make the metrics of validation and test, over the labeled pixels of whole regions."""
        options: dict[str, Any] = {"num_classes": self.network.config.num_classes, "ignore_index": NO_CLASS}
        metrics = MetricCollection(
            {
                "MulticlassAccuracy": MulticlassAccuracy(average="micro", **options),
                "MulticlassJaccardIndex": MulticlassJaccardIndex(average="micro", **options),
                "mean_iou": MulticlassJaccardIndex(average="macro", **options),
            }
        )
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")

    @property
    def model(self) -> Network:
        """The network."""
        return self.network

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Stages of a fit, in order."""
        if self._asked_stage != _WHOLE_TRAINING:
            return (Stage(self._asked_stage),)
        return stages_of(self.network.config, self.optim)

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Segment the regions of a batch at full resolution: patches are blended, the overview fills what they leave.

        Args:
            batch: of :func:`~geoglnet.torchgeo.collate`.

        Returns:
            ``(B, num_classes, h, w)`` probabilities.
        """
        whole = self._normalized(batch)
        return _blended(whole, *self._logits(whole))

    def on_fit_start(self) -> None:
        """Check what this task needs of the Trainer.

        Raises:
            ConfigError: a strategy that expects one backward pass a step.
        """
        if isinstance(self.trainer.strategy, DDPStrategy) and not isinstance(self.trainer.strategy, UnwrappedDDP):
            raise ConfigError("a step has several backward passes: use Trainer(strategy=UnwrappedDDP()) on several devices")
        self.train()  # Lightning keeps modes as it finds them, and those of frozen parts must be set

    def configure_optimizers(self) -> Any:
        """Make the optimizer of the present stage, with its schedule over the stage's epochs."""
        stages, ends, per_epoch = self.stages, *self._schedule()
        number = stages.index(self.stage)
        self.steps = per_epoch * (ends[number] - (ends[number - 1] if number else 0))
        return super().configure_optimizers()

    def on_train_epoch_start(self) -> None:
        """Go on to the next stage where this epoch is one of its."""
        ends, _ = self._schedule()
        stage = self.stages[sum(self.current_epoch >= end for end in ends[:-1])]
        if stage is not self.stage:
            self.finish()
            self._begin(self.network, stage)
            self.to(self.device).train()
            self.trainer.strategy.setup_optimizers(self.trainer)
        self._meet(self.trainer.train_dataloader, is_training=True)

    def training_step(self, batch: Any, batch_index: int) -> None:
        """Take one step of the optimizer on a batch of regions."""
        super().training_step(self._normalized(batch), batch_index)

    def on_train_end(self) -> None:
        """Leave the moving average in the network, where one was kept."""
        self.finish()

    def on_validation_start(self) -> None:
        self._meet(self.trainer.val_dataloaders)

    def on_test_start(self) -> None:
        self._meet(self.trainer.test_dataloaders)

    def on_predict_start(self) -> None:
        self._meet(self.trainer.predict_dataloaders)

    def validation_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> None:
        """Log loss and metrics of a batch, and, to loggers that take figures, what it looks like."""
        prediction = self._scored(batch, "val", self.val_metrics)
        add_figure = getattr(getattr(self.logger, "experiment", None), "add_figure", None)
        dataset = next(_datasets(self.trainer.val_dataloaders), None)
        if add_figure is not None and dataset is not None and batch_index < _MOST_FIGURES:
            sample = {"image": batch["image"][0].cpu(), "mask": batch["mask"][0].cpu(), "prediction": prediction[0].cpu()}
            add_figure(f"image/{batch_index}", dataset.plot(sample), global_step=self.global_step)

    def test_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> None:
        """Log loss and metrics of a batch."""
        self._scored(batch, "test", self.test_metrics)

    def predict_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Segment a batch.

        Returns:
            ``probabilities`` ``(B, num_classes, h, w)``, ``prediction`` ``(B, h, w)``, and ``bounds`` and ``transform`` of the
            batch: where they lie.
        """
        probabilities = self(batch)
        place = {key: batch.get(key) for key in ("bounds", "transform")}
        return {"probabilities": probabilities, "prediction": probabilities.argmax(dim=1), **place}

    def save(self, path: StrPath, *, overwrite: bool = False) -> None:
        """Write what was trained to a checkpoint that ``geoglnet predict`` and ``geoglnet.load_model`` read.

        After a stage that others follow, it is the part of the network that has been trained: the global branch alone, say.

        Args:
            path: ``.safetensors`` file.
            overwrite: replace an existing file.

        Raises:
            ConfigError: nothing was trained or loaded yet.
            CheckpointError: the network has NaN or infinite values.
            OutputExistsError: the file exists.
        """
        if self.manifest is None:
            raise ConfigError("nothing to save: train or load the task first, which tells it bands and legend of the dataset")
        model = model_after(self.network.config, self.stage)
        is_whole = model == self.network.config
        network = self._current if is_whole else part_of(self._current, model)
        # In float32 where a later stage goes on from it.
        save_checkpoint(path, network, self._described(self.manifest, model), half=is_whole, overwrite=overwrite)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the stage, and what the dataset said, to Lightning's checkpoint."""
        manifest = None if self.manifest is None else self.manifest.to_dict()
        checkpoint[_KEY] = {"stage": self.stage.value, "done": self.done, "manifest": manifest}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what :meth:`on_save_checkpoint` added."""
        kept = checkpoint.get(_KEY, {})
        if kept.get("manifest"):
            self.manifest = Manifest.from_dict(kept["manifest"])
        stage = Stage(kept.get("stage", self.stage.value))
        if stage is not self.stage:
            self._begin(self.network, stage)
        self.done = int(kept.get("done", 0))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        # StageTask's batches move themselves; TorchGeo's are dictionaries, in 0.8 with objects that have no device.
        for value in batch.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                check_finite(value)
        return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}

    @property
    def _current(self) -> Network:
        """The network, with its averaged weights where these are kept."""
        return self.network if self.average is None else cast(Network, self.average.module)

    def _begin(self, network: Network, stage: Stage) -> None:
        network.to(memory_format=torch.channels_last)
        network.begin(stage)
        self.prepare(network, stage, self._optim_settings, 1)  # steps are known when the Trainer is

    def _schedule(self) -> tuple[list[int], int]:
        """Compute the epochs at which stages end, and the steps of an epoch.

        Raises:
            ConfigError: there is no end, or there are fewer epochs than stages.
        """
        self.trainer.fit_loop.setup_data()  # or the steps of an epoch are not counted yet
        stages, total, per_epoch = self.stages, self.trainer.estimated_stepping_batches, self.trainer.num_training_batches
        if math.isinf(total) or math.isinf(per_epoch):
            if len(stages) > 1 or self.optim.cosine:
                raise ConfigError("stages and schedules need an end: use Trainer(max_epochs=…) or Trainer(max_steps=…)")
            return [1], 1
        per_epoch = max(1, int(per_epoch))
        epochs = -(-int(total) // per_epoch)
        if epochs < len(stages):
            names = ", ".join(stage.value for stage in stages)
            raise ConfigError(f"{epochs} epochs cannot be divided among stages {names}; take {len(stages)}, or name one stage")
        optim = self.optim
        amounts = {Stage.GLOBAL: optim.global_steps, Stage.BIDIRECTIONAL: optim.bidirectional_steps}
        steps = [amounts.get(stage, optim.local_steps) for stage in stages]
        ends: list[int] = []
        for number in range(len(stages)):
            end = round(epochs * sum(steps[: number + 1]) / sum(steps))
            least = (ends[-1] if ends else 0) + 1
            ends.append(min(max(end, least), epochs - (len(stages) - 1 - number)))
        return ends, per_epoch

    def _meet(self, loaders: Any, *, is_training: bool = False) -> None:
        """Learn bands, legend and sizes from the dataset that is loaded.

        Raises:
            ConfigError: there is no GlobalLocalDataset, its bands or classes are not the network's, or its samples are not
                those of the stage.
        """
        dataset = next(_datasets(loaders), None)
        if dataset is None:
            if self.manifest is None:
                raise ConfigError("GLNetTask takes batches of a GlobalLocalDataset: wrap the dataset, and collate_fn=collate")
            return
        if self._bands not in (RGB, dataset.bands.names):
            raise ConfigError(f"bands of the task are {', '.join(self._bands)}, those of the dataset {dataset.bands}")
        if is_training or self.manifest is None:
            self.manifest = self._described(dataset, self.network.config)
        if is_training and dataset.sample_config.coarse_to_fine:
            raise ConfigError("coarse_to_fine belongs to the samples of geoglnet train; train with it, or leave it out")
        if is_training and Stage.BIDIRECTIONAL in self.stages and dataset.sample_config.patches_per_region:
            raise ConfigError(
                "the bidirectional stage merges the patches of whole regions: use SampleConfig(patches_per_region=0)"
            )

    def _described(self, source: GlobalLocalDataset | Manifest, model: ModelConfig) -> Manifest:
        """Describe the checkpoint of a network that was trained on a dataset, or of a part of it."""
        if isinstance(source, Manifest):
            resolution_m, training = source.resolution_m, source.training
        else:
            resolution_m = source.resolution_m
            training = {
                "optim": to_plain(self.optim),
                "sample": to_plain(source.sample_config),
                "augment": to_plain(source.augment),
                "dataset": type(source.dataset).__name__,
            }
        return Manifest(
            name=self._model_name,
            model=model,
            region=source.region,
            legend=source.legend,
            resolution_m=resolution_m,
            resolution_range_m=(0.0, 1e9),
            assumed_pixel_size_m=resolution_m,
            bands=source.bands,
            training=training,
            version=version("geoglnet"),
        )

    def _normalized(self, batch: Mapping[str, Any]) -> RegionBatch:
        if self.manifest is None:
            raise ConfigError("the task knows no bands yet; train it, or load a checkpoint of Lightning")
        bands, device = self.manifest.bands, batch["image"].device
        mean, std = (torch.tensor(values, device=device).reshape(-1, 1, 1) for values in (bands.mean, bands.std))
        return region_batch(batch).normalized(mean, std)

    def _logits(self, whole: RegionBatch) -> tuple[Tensor | None, Tensor | None]:
        """Compute final logits of the patches, and logits of the overviews, as far as the present stage has trained them."""
        network = self._current
        parts = [PatchBatch(part.patches, part.footprints, part.overview_index) for part, *_ in self._parts(whole)]
        maps = network.training_maps(self.stage, whole.overviews, parts)
        overviews = None if maps is None else maps.logits
        if self.stage is Stage.GLOBAL:
            return None, overviews
        patches = [network.segment(*part[:2], maps, part.overview_index).final for part in parts]
        return torch.cat(patches), overviews

    def _scored(self, batch: Mapping[str, Any], split: str, metrics: MetricCollection) -> Tensor:
        """Log the loss and the metrics of a batch, and return its labels, ``(B, h, w)``."""
        whole = self._normalized(batch)
        patches, overviews = self._logits(whole)
        if patches is not None:
            loss = self.criterion(patches, whole.patch_labels)
        elif overviews is not None:
            loss = self.criterion(overviews, whole.overview_labels)
        prediction = _blended(whole, patches, overviews).argmax(dim=1)
        metrics(prediction, batch["mask"])
        size = len(prediction)
        self.log(f"{split}_loss", loss, batch_size=size)
        self.log_dict(metrics, batch_size=size)
        return prediction

    def _focal(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.criterion(logits, labels)


class GLNetCheckpoint(Callback):
    """Write the model of a :class:`GLNetTask` when a fit is over; for Lightning's command line.

    Args:
        path: ``.safetensors`` file.
        overwrite: replace an existing file.
    """

    def __init__(self, path: str, overwrite: bool = False) -> None:
        self.file = OutputFile(Path(path), overwrite)  # what cannot be written is said before the training

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the checkpoint, in one process."""
        if trainer.is_global_zero and isinstance(pl_module, GLNetTask):
            pl_module.save(self.file.path, overwrite=self.file.overwrite)


def _datasets(loaders: Any) -> Iterator[GlobalLocalDataset]:
    """Yield the region datasets that loaders, in lists and tables as Lightning takes them, load from."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    for loader in loaders if isinstance(loaders, Sequence) else (loaders,):
        if isinstance(loader, (Mapping, Sequence)):
            yield from _datasets(loader)
        elif isinstance(dataset := getattr(loader, "dataset", None), GlobalLocalDataset):
            yield dataset


def _blended(whole: RegionBatch, patches: Tensor | None, overviews: Tensor | None) -> Tensor:
    """Blend probabilities of patches, with weights that fall toward their edges; overviews fill what patches leave."""
    shape = whole.overview_labels.shape[-2:]
    logits = overviews if patches is None else patches
    if logits is None:
        raise ConfigError("a network that sees neither overviews nor patches has no probabilities")
    if overviews is None:
        ground = torch.full((len(whole.overviews), logits.shape[1], *shape), 1 / logits.shape[1], device=logits.device)
    else:
        ground = F.interpolate(overviews.float(), size=shape, mode="bilinear", align_corners=False).softmax(dim=1)
    if patches is None:
        return ground
    size = whole.patch_labels.shape[-2:]
    total, weight = torch.zeros_like(ground), torch.zeros_like(ground[:, :1])
    ramps = [torch.minimum(torch.arange(n) + 0.5, n - torch.arange(n) - 0.5) / n for n in size]
    ramp = torch.outer(*ramps).to(ground.device)
    corners = (whole.footprints[:, :2].cpu().double() * torch.tensor(shape)).round().long().tolist()
    for one, index, (top, left) in zip(patches, whole.overview_index.tolist(), corners, strict=True):
        whole_patch = F.interpolate(one[None].float(), size=size, mode="bilinear", align_corners=False)[0].softmax(dim=0)
        place = slice(top, top + size[0]), slice(left, left + size[1])
        total[index, :, *place] += whole_patch * ramp
        weight[index, :, *place] += ramp
    return torch.where(weight > 0, total / weight.clamp(min=1e-12), ground)
