"""``geoglnet.train`` and ``geoglnet.evaluate``: labeled scenes in, a model or its scores out. Need ``geoglnet[train]``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoglnet.api.bars import watched
from geoglnet.api.model import Model, load_model, path_of
from geoglnet.api.report import Report
from geoglnet.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from geoglnet.models.manifest import Manifest
    from geoglnet.prediction.predict_config import PredictConfig
    from geoglnet.progress import Progress
    from geoglnet.training.scoring import Evaluation
    from geoglnet.training.train_config import TrainConfig
    from geoglnet.types import StrPath


@dataclass(frozen=True, slots=True)
class Training:
    """What :func:`train` left: a checkpoint, its log and its scores.

    >>> import geoglnet
    >>> trained = geoglnet.train("mine.toml", "mine.safetensors", overwrite=True)
    >>> trained.losses().columns.tolist()
    ['stage', 'step', 'loss']
    >>> geoglnet.predict("scene.tif", "mine.tif", model=trained.model()).model
    'mine'

    Args:
        checkpoint_path: the model.
        run_path: folder with ``losses.csv``, TensorBoard events, and ``scores.json``, ``scores.csv``, ``report.png`` where
            there are held-out scenes.
        manifest: what the model says about itself, scores included.

    Raises:
        CheckpointError: the checkpoint has been damaged since.
    """

    checkpoint_path: Path
    run_path: Path
    manifest: Manifest

    def model(self) -> Model:
        """Load the trained model, to predict with."""
        return load_model(self.checkpoint_path)

    def losses(self) -> DataFrame:
        """Read the loss of every step: ``stage, step, loss``."""
        import pandas

        return pandas.read_csv(self.run_path / "losses.csv")

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the losses, stage after stage."""
        from geoglnet.api.figures import draw_losses, new_axes

        axes = new_axes(8, 4) if ax is None else ax
        draw_losses(axes, self.losses())
        return axes

    @property
    def scores(self) -> Mapping[str, Any]:
        """Scores on the held-out scenes, per scene and in total; empty where there are none."""
        return self.manifest.metrics

    @property
    def report(self) -> Report:
        """Report what was trained, and its scores on the held-out scenes."""
        total = self.manifest.metrics.get("total", {})
        scores = {f"IoU {name}" if name in self.manifest.legend.names else name: f"{v:.3f}" for name, v in total.items()}
        facts = {"classes": ", ".join(self.manifest.legend.names), "steps": len(self.losses())} | scores
        return Report(
            f"Trained {self.manifest.name}", facts | {"checkpoint": str(self.checkpoint_path), "run": str(self.run_path)}
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """What :func:`evaluate` found.

    >>> import geoglnet
    >>> scores = geoglnet.evaluate("mine.safetensors", "mine.toml")
    >>> 0 <= scores.mean_iou <= 1
    True
    >>> scores.table().index.name
    'scene'

    Args:
        model: its name.
        evaluation: confusion matrices per scene, boundaries, worst regions.

    Raises:
        OutputExistsError: :meth:`save` would replace a file.
    """

    model: str
    evaluation: Evaluation

    @property
    def mean_iou(self) -> float:
        """Mean intersection over union of the classes, of all pixels together, 0 to 1."""
        return float(self.evaluation.total.to_dict()["mean_iou"])

    def table(self) -> DataFrame:
        """Tabulate IoU per class, mean IoU and boundary F1: a row per scene and one for all; NaN for absent classes."""
        import pandas

        scores = self.evaluation.to_dict()
        rows = {**scores["scenes"], "all": {**scores["total"], **scores["conventions"]}}
        return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("scene")

    def plot(self) -> Figure:
        """Draw the scores per class, the confusion matrix, and the worst regions beside their truth."""
        from matplotlib import pyplot

        from geoglnet.training.score_sheet import draw_sheet

        del pyplot  # imported so that notebooks know how to show a figure
        return draw_sheet(self._title, self.evaluation)

    def save(self, folder: StrPath, *, overwrite: bool = False) -> tuple[Path, ...]:
        """Write ``scores.json``, ``scores.csv`` and ``report.png``."""
        from geoglnet.training.score_sheet import write_report

        return write_report(Path(folder), self._title, self.evaluation, overwrite=overwrite)

    @property
    def _title(self) -> str:
        return f"{self.model}: {len(self.evaluation.scenes)} held-out scenes"

    @property
    def report(self) -> Report:
        """Report the whole under each convention in use."""
        facts: dict[str, Any] = {f"IoU {name}": f"{value:.3f}" for name, value in self.evaluation.total.to_dict().items()}
        facts["mean IoU"] = facts.pop("IoU mean_iou")
        facts |= {name.replace("_", " "): f"{value:.3f}" for name, value in self.evaluation.conventions.items()}
        return Report(f"{self.model} on {', '.join(self.evaluation.scenes)}", facts)


def train(
    config: StrPath | TrainConfig,
    checkpoint_path: StrPath,
    *,
    folder: StrPath = ".",
    overrides: Mapping[str, Any] | None = None,
    start_from: StrPath | None = None,
    global_branch_from: StrPath | None = None,
    branches_from: StrPath | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Training:
    """Train GLNet stage by stage, and score it on held-out scenes.

    >>> import geoglnet
    >>> trained = geoglnet.train("mine.toml", "short.safetensors", overrides={"optim.global_steps": 1})
    >>> sorted(path.name for path in trained.run_path.iterdir())
    ['global', 'local', 'losses.csv', 'report.png', 'scores.csv', 'scores.json']

    A training that was cut off goes on with ``resume=True``, and ends with the same weights. Memory: decoded scenes up to
    ``sample.cache_mb``, a batch of regions, and the activations of ``optim.patches_at_once`` patches.

    Args:
        config: TOML file (``examples/configs`` has some), or the same as an object.
        checkpoint_path: ``.safetensors`` file to write; the log goes beside it, into a folder that ends in ``.run``.
        folder: where the configuration's patterns start.
        overrides: values by dotted key that win over the file, such as ``{"optim.global_steps": 100}``.
        start_from: shipped model or checkpoint that every stage starts from; the configuration may leave out whatever the
            model says (architecture, bands, sizes, classes), and the recipe is ``"adapt"`` where it names none.
        global_branch_from: shipped model or checkpoint whose global branch is taken instead of training one.
        branches_from: model whose branches and f_agg are taken: only what comes after is trained.
        resume: go on where a training of the same checkpoint was cut off.
        overwrite: replace an existing checkpoint.
        progress: receiver of steps and losses; bars when left out.

    Returns:
        Checkpoint, log, scores.

    Raises:
        ConfigError: a setting that cannot be used, or an unknown one (the nearest known is suggested).
        DatasetError: training data are missing or cannot be used.
        CheckpointError: a checkpoint to go on from does not fit.
        OutputExistsError: the checkpoint exists, or a training was cut off there.
        Canceled: it was interrupted.
        ModuleNotFoundError: the extra ``train`` is not installed.
    """
    check_extra()
    from geoglnet.models.shipped import model_path
    from geoglnet.output import OutputFile, refuse_inputs
    from geoglnet.training.fit import Start, fit
    from geoglnet.training.runlog import run_folder
    from geoglnet.training.train_config import read_config

    if isinstance(config, (str, os.PathLike)):
        # fit refuses to replace the files that a configuration names; it does not know the configuration's own file.
        refuse_inputs([OutputFile(checkpoint_path, overwrite or resume)], [("the configuration", config)])
        overrides = {**(overrides or {}), **({} if start_from is None else {"optim.start_from": os.fspath(start_from)})}
    elif overrides:
        raise ConfigError("overrides are for a configuration file; of an object, use dataclasses.replace")
    elif start_from is not None:
        raise ConfigError("start_from is for a configuration file; of an object, replace optim.start_from")
    first, both = (None if path is None else model_path(os.fspath(path)) for path in (global_branch_from, branches_from))
    start = Start(first, both, resume)
    checkpoint = Path(checkpoint_path)
    with watched(progress) as recorder:
        settings = read_config(Path(config), overrides, recorder) if isinstance(config, (str, os.PathLike)) else config
        manifest = fit(settings, Path(folder), checkpoint, start=start, overwrite=overwrite, progress=recorder)
    return Training(checkpoint, run_folder(checkpoint), manifest)


def evaluate(
    model: StrPath | Model,
    config: StrPath,
    *,
    folder: StrPath = ".",
    split: str = "",
    predict_config: PredictConfig | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score a model on the held-out scenes of a configuration.

    >>> import geoglnet
    >>> print(geoglnet.evaluate("mine.safetensors", "mine.toml").report.title)
    mine on held_out.tif

    Memory is that of :func:`predict`: scenes are scored block by block.

    Args:
        model: name of a shipped model, a ``.safetensors`` file, or what :func:`load_model` returned.
        config: TOML file whose ``[[validation]]`` sources and legend are used.
        folder: where its patterns start.
        split: split of published data sets to score on, such as ``"test"``.
        predict_config: device, batch size, precision.
        progress: receiver of steps; bars when left out.

    Returns:
        Scores per class and scene under each convention in use, 0 to 1, and the worst regions.

    Raises:
        ConfigError: the model's legend is not the configuration's, or no source has splits.
        DatasetError: there is no validation source, or its files cannot be used.
        ModelNotFoundError: no such model.
        ModuleNotFoundError: the extra ``train`` is not installed.
    """
    check_extra()
    from geoglnet.training.scoring import evaluate as score

    with watched(progress) as recorder:
        evaluation = score(path_of(model), Path(config), Path(folder), split=split, config=predict_config, progress=recorder)
    name = model.name if isinstance(model, Model) else Path(model).stem
    return Scores(name, evaluation)


def check_extra() -> None:
    """Refuse to go on without the extra ``train``, in words that name it."""
    from geoglnet.optional import needed

    # Before the callers' imports, so that the error names the extra to install and not a module deep inside.
    for library in ("lightning", "matplotlib", "requests", "tensorboard", "torchgeo"):
        needed(library, "train")
