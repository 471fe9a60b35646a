"""What a training that was cut off goes on from: all of a stage's state, written at intervals, whole or not at all."""

from __future__ import annotations

import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from geoglnet.config import Stage, to_plain
from geoglnet.errors import CheckpointError, OutputError
from geoglnet.message import Keyword
from geoglnet.models.pickles import read_pickle
from geoglnet.output import OutputFile, unwritable
from geoglnet.plain import shortened
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import CHANGING_NO_WEIGHT, TrainConfig

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Savepoint:
    """A stage, and its task's state.

    Args:
        stage: that was being trained; those before it are over.
        state: see :meth:`StageTask.state`.
    """

    stage: Stage
    state: dict[str, Any]


def savepoint_path(checkpoint_path: Path) -> Path:
    """Name a training's savepoint: beside the checkpoint that it will write."""
    return checkpoint_path.with_suffix(".resume.pt")


def write_savepoint(path: Path, config: TrainConfig, savepoint: Savepoint) -> None:
    """Write a savepoint; the one before stands until this one is on the disk.

    Raises:
        OutputError: it cannot be written.
    """
    plain = {"format": FORMAT, "config": _text(config), "stage": savepoint.stage.value, "state": savepoint.state}
    with OutputFile(path, overwrite=True) as part_path, part_path.open("wb") as file:
        try:
            torch.save(plain, file)
        except RuntimeError as error:  # torch's own word for a write that came to nothing
            raise unwritable(path, error) from error


def read_savepoint(path: Path, config: TrainConfig) -> Savepoint:
    """Read a savepoint of a training with the same configuration. Nothing in it is executed.

    Raises:
        CheckpointError: there is none, it is damaged, or it belongs to another configuration (the difference is named).
    """
    if not path.is_file():
        raise CheckpointError(f"nothing to resume: no {path}; start the training without " + Keyword("resume", True))
    plain = read_pickle(path, "a whole savepoint")
    try:
        stage, state = Stage(plain["stage"]), plain["state"]
        difference = _difference(json.loads(plain["config"]), json.loads(_text(config)))
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a whole savepoint; delete it and start the training anew") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is not a whole savepoint; delete it and start the training anew")
    if difference:
        raise CheckpointError(
            f"{path} belongs to another configuration: {difference}; resume with that one, or start over with "
            + Keyword("overwrite", True)
        )
    return Savepoint(stage, state)


def check_savepoint(path: Path) -> None:
    """Refuse to throw away a file that is not a savepoint, though it has the name of one.

    Raises:
        OutputError: it is none.
    """
    # torch.save writes zip archives since version 1.6.
    if not zipfile.is_zipfile(path):
        raise OutputError(f"{path} is not a savepoint of a training; move it away, or choose another checkpoint")


class Saving(Callback):
    """Writes a savepoint every so many seconds, after a step.

    Args:
        path: of the savepoint.
        config: of the training.
        stage: that is being trained.
    """

    def __init__(self, path: Path, config: TrainConfig, stage: Stage) -> None:
        self.path, self.config, self.stage = path, config, stage
        self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time, but not after the last step."""
        # One process writes: gradients are averaged, so that the weights are the same in all.
        if not trainer.is_global_zero or time.monotonic() - self._last < self.config.optim.save_every_s:
            return
        if isinstance(pl_module, StageTask) and pl_module.done < pl_module.steps:
            write_savepoint(self.path, self.config, Savepoint(self.stage, pl_module.state()))
        self._last = time.monotonic()


def _text(config: TrainConfig) -> str:
    parts = {name: to_plain(getattr(config, name)) for name in ("model", "region", "sample", "augment", "optim")}
    sources = [to_plain(source) for source in config.train]
    whole = {name: getattr(config, name) for name in ("name", "resolution_m")}
    plain = whole | {"legend": config.legend.to_dict(), "train": sources, "bands": config.bands.to_dict()}
    return json.dumps(plain | parts, sort_keys=True, default=str)


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the first value that differs, in words; empty when none does."""
    ours, theirs = dict(_leaves(now)), dict(_leaves(before))
    unheeded = {f"optim.{name}" for name in CHANGING_NO_WEIGHT}
    for key in sorted((ours.keys() | theirs.keys()) - unheeded):
        if ours.get(key) != theirs.get(key):
            return f"{key} was {shortened(theirs.get(key, 'not there'))} and is {shortened(ours.get(key, 'not there'))}"
    return ""


def _leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in _leaves(part, f"{key}.{name}" if key else name)]
    if isinstance(value, list):
        return [leaf for index, part in enumerate(value) for leaf in _leaves(part, f"{key}[{index}]")]
    return [(key, value)]
