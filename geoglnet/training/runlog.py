"""The log of a run: losses of every step as CSV, and TensorBoard events with pictures of what each branch sees."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from geoglnet.bands import Bands
from geoglnet.config import Stage
from geoglnet.datasets.regions import RegionBatch
from geoglnet.errors import OutputError
from geoglnet.legend import Legend
from geoglnet.message import Keyword
from geoglnet.models.network import Network, PatchBatch, RegionMaps
from geoglnet.training.pictures import Image, as_rgb, colored, side_by_side
from geoglnet.training.task import StageTask

LOSSES_CSV = "losses.csv"
NUM_PICTURES = 8  # per stage
_PATCHES_AT_ONCE = 4
_COLUMNS = ("stage", "step", "loss")


@dataclass(frozen=True, slots=True)
class LossPoint:
    """The loss of one step.

    Args:
        stage: of training.
        step: counted from 0 in each stage.
        loss: its value.
    """

    stage: str
    step: int
    loss: float


def run_folder(checkpoint_path: Path) -> Path:
    """Name the folder of a run's log and report: ``<checkpoint>.run`` beside the checkpoint."""
    return checkpoint_path.with_suffix(".run")


def forget_losses(folder: Path) -> None:
    """Begin a run anew: what an earlier one logged under the same name goes."""
    (folder / LOSSES_CSV).unlink(missing_ok=True)


def read_losses(folder: Path) -> list[LossPoint]:
    """Losses of a run; none when it has not begun."""
    path = folder / LOSSES_CSV
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as opened:
        return [LossPoint(row["stage"], int(row["step"]), float(row["loss"])) for row in csv.DictReader(opened)]


@dataclass(frozen=True, slots=True)
class Specimen:
    """A held-out region that is looked at again and again, with all of its patches.

    Args:
        batch: of one region, normalized.
        picture: ``(h, w, 3)`` the region as people see it, at the size of its labels.
        legend: classes.
    """

    batch: RegionBatch
    picture: Image
    legend: Legend

    def panel(self, labels: Mapping[str, Image]) -> Image:
        """Scene, truth, and what each branch makes of it, side by side."""
        truth = self.batch.overview_labels[0].cpu().numpy()
        return side_by_side([self.picture, *(colored(part, self.legend) for part in (truth, *labels.values()))])


def specimen(batch: RegionBatch, bands: Bands, legend: Legend) -> Specimen:
    """Make a specimen of a batch of one region; its picture is the patches put back in place."""
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (bands.mean, bands.std))
    image = _pasted(batch, batch.patches * std + mean) * 255
    values = image.clamp(0, 255).round().to(torch.uint8) if bands.is_8bit else image
    return Specimen(batch, as_rgb(values.cpu().numpy(), bands), legend)


class RunLog(Callback):
    """Writes the log of a stage; what an interrupted run had logged past the step it resumes from is dropped.

    Args:
        folder: of the run.
        stage: of training.
        specimens: regions for TensorBoard's pictures.
    """

    def __init__(self, folder: Path, stage: Stage, specimens: list[Specimen]) -> None:
        self.folder = folder
        self.stage = stage
        self.specimens = specimens
        self._events: SummaryWriter | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the log at the task's step."""
        if not trainer.is_global_zero:
            return
        with self._errors_named():
            self._begin(pl_module)

    def _begin(self, pl_module: lightning.LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        order = [stage.value for stage in Stage]
        mine = order.index(self.stage.value)
        step = _done(pl_module)
        # Steps that stay, by stage: all of earlier ones, of this one those before the resumption, none of later ones.
        before = {stage: 0 if order.index(stage) > mine else step if stage == order[mine] else math.inf for stage in order}
        kept = [point for point in read_losses(self.folder) if point.step < before[point.stage]]
        self._write([_COLUMNS, *((p.stage, p.step, p.loss) for p in kept)], "w")
        # purge_step hides what an interrupted run had logged from this step on.
        self._events = SummaryWriter(str(self.folder / self.stage.value), purge_step=step or None)
        self._draw(pl_module, step)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log a step, and now and then the pictures."""
        if self._events is None:
            return
        with self._errors_named():
            self._log(trainer, pl_module, self._events)

    def _log(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, events: SummaryWriter) -> None:
        step = _done(pl_module)
        loss = float(trainer.callback_metrics["loss"])
        self._write([(self.stage.value, step - 1, f"{loss:.6g}")], "a")  # counts from 0
        for name, value in trainer.callback_metrics.items():
            events.add_scalar(name, float(value), step)
        every = max(1, pl_module.steps // NUM_PICTURES) if isinstance(pl_module, StageTask) else 1
        if step % every == 0:
            self._draw(pl_module, step)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException) -> None:
        with suppress(OutputError):  # the exception says why
            self._close()

    def _close(self) -> None:
        if self._events is not None:
            with self._errors_named():
                self._events.close()

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(
                f"{self.folder} cannot be written ({reason}); make it writable and continue with " + Keyword("resume", True)
            ) from error

    def _write(self, rows: Sequence[Sequence[Any]], mode: str) -> None:
        """Rows of losses; the file is closed at once, so that a run that is killed leaves them all."""
        with (self.folder / LOSSES_CSV).open(mode, newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows(rows)

    def _draw(self, module: lightning.LightningModule, step: int) -> None:
        network: Any = module.network
        for number, one in enumerate(self.specimens):
            panel = one.panel(branch_labels(network, one.batch.to(module.device)))
            if self._events is not None:
                self._events.add_image(f"scene, truth, s_glb, s_loc, s_agg/{number}", panel, step, dataformats="HWC")


def _done(module: lightning.LightningModule) -> int:
    """Steps of the stage so far, those before a resumption too."""
    return module.done if isinstance(module, StageTask) else 0


@torch.no_grad()
def branch_labels(network: Network, batch: RegionBatch) -> dict[str, Image]:
    """Labels of a batch of one region by s_glb, s_loc and s_agg, as far as the network has them; its mode is kept.

    Patches are not blended: where two overlap, the last one counts.
    """
    # Per module: train() on the whole would also wake the batch statistics of a frozen branch.
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        batches = (PatchBatch(part.patches, part.footprints, part.overview_index) for part in _parts(batch))
        maps = network.complete_maps(batch.overviews, batches)
        found = {} if maps is None else {"s_glb": _resized(maps.logits, batch.overview_labels.shape[-2:])[0]}
        if network.sees_patches:
            found |= _patch_labels(network, batch, maps)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return {name: labels.to(torch.uint8).cpu().numpy() for name, labels in found.items()}


def _patch_labels(network: Network, batch: RegionBatch, maps: RegionMaps | None) -> dict[str, Tensor]:
    named: dict[str, list[Tensor]] = {"s_loc": [], "s_agg": []}
    for part in _parts(batch):
        logits = network.segment(part.patches, part.footprints, maps, part.overview_index)
        for name, values in (("s_loc", logits.s_loc), ("s_agg", logits.s_agg)):
            if values is not None:
                named[name].append(_resized(values, part.patches.shape[-2:]))
    return {name: _pasted(batch, torch.cat(parts)[:, None])[0] for name, parts in named.items() if parts}


def _parts(batch: RegionBatch) -> Iterator[RegionBatch]:
    for start in range(0, len(batch.patches), _PATCHES_AT_ONCE):
        yield batch.part(slice(start, start + _PATCHES_AT_ONCE))


def _resized(logits: Tensor, size: Any) -> Tensor:
    full = F.interpolate(logits.float(), size=tuple(size), mode="bilinear", align_corners=False)
    return full.argmax(dim=1)


def _pasted(batch: RegionBatch, patches: Tensor) -> Tensor:
    """``(C, h, w)`` of the region from ``(n, C, h2, w2)`` patches."""
    height, width = batch.overview_labels.shape[-2:]
    whole = patches.new_zeros((patches.shape[1], height, width))
    sides = np.array([height, width])
    for patch, footprint in zip(patches, batch.footprints.cpu().numpy(), strict=True):
        row, col = np.round(footprint[:2] * sides).astype(int)
        whole[:, row : row + patch.shape[-2], col : col + patch.shape[-1]] = patch
    return whole
