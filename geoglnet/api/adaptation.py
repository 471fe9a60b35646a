"""``geoglnet.adapt``: a model, a scene and some polygons in, a model that knows the scene out. Needs ``geoglnet[train]``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoglnet.api.bars import watched
from geoglnet.api.model import Model, load_model, path_of
from geoglnet.api.report import Report
from geoglnet.errors import ConfigError

if TYPE_CHECKING:
    from pandas import DataFrame

    from geoglnet.adaptation.held_out import Outcome
    from geoglnet.legend import Legend
    from geoglnet.prediction.predict_config import PredictConfig
    from geoglnet.progress import Progress
    from geoglnet.types import StrPath


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What :func:`adapt` left: a model, by how much it is better, and a report.

    >>> import geoglnet
    >>> adapted = geoglnet.adapt("mine.safetensors", "scene.tif", "drawn.gpkg", "other.safetensors", minutes=1)
    >>> adapted.model().name == ("other" if adapted.is_better else "mine")
    True

    Args:
        checkpoint_path: the model: the new one where it is better, else the old one under this name.
        run_path: folder with ``report.html``, ``report.png``, ``adaptation.json`` and ``losses.csv``.
        is_better: whether it is the new one.
        outcome: counts and intervals.

    Raises:
        CheckpointError: the checkpoint has been damaged since.
    """

    checkpoint_path: Path
    run_path: Path
    is_better: bool
    outcome: Outcome

    def model(self) -> Model:
        """Load the model, to predict with."""
        return load_model(self.checkpoint_path)

    def table(self) -> DataFrame:
        """Tabulate each measure of each class before and after, on what was held out; NaN where a class does not occur."""
        import pandas

        sides = {"before": self.outcome.before, "after": self.outcome.after}
        rows = [
            {"measure": name, "class": label, "when": when, "value": value}
            for when, counts in sides.items()
            for name, values in counts.per_class().items()
            for label, value in zip(counts.legend.names, values, strict=True)
        ]
        frame = pandas.DataFrame(rows).pivot_table(
            index=["measure", "class"], columns="when", values="value", sort=False, dropna=False
        )
        return frame[["before", "after"]]

    @property
    def report(self) -> Report:
        """Report what was found, with 90 % intervals of the gains."""
        facts: dict[str, Any] = {"kept": "the new model" if self.is_better else "the old model", "why": self.outcome.reason}
        for name, change in self.outcome.changes.items():
            low, high = change.gain_interval
            facts[name] = f"{change.before:.3f} → {change.after:.3f} ({low:+.3f} to {high:+.3f})"
        title = f"Adapted {self.outcome.facts['model']} to {self.checkpoint_path.stem}"
        return Report(title, facts | {"checkpoint": str(self.checkpoint_path), "run": str(self.run_path)})


def adapt(
    model: StrPath | Model,
    scene: StrPath | Sequence[StrPath],
    polygons_path: StrPath,
    checkpoint_path: StrPath,
    *,
    area_path: StrPath | None = None,
    class_field: str = "",
    legend: Legend | Sequence[str] | None = None,
    minutes: float = 10.0,
    around_m: float = 0.0,
    radius_m: float = 0.0,
    cross_validate: bool = False,
    seed: int = 0,
    beside: Mapping[str, StrPath] | None = None,
    config: PredictConfig | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Adaptation:
    """Adapt a model to a scene on which some polygons were drawn or corrected, and say by how much it is better.

    >>> import geoglnet
    >>> adapted = geoglnet.adapt("mine.safetensors", "scene.tif", "drawn.gpkg", "new.safetensors", minutes=1)
    >>> adapted.table().columns.tolist()
    ['before', 'after']

    What was drawn is divided by place, and about a quarter of it is held out. The new model is kept where its IoU there is
    higher and neither boundary F1 nor polygon F1 falls beyond chance; else the file holds the old one.

    Memory: the scene around what was drawn (up to 1 GB), and the activations of four patches. An adaptation that is killed
    begins anew.

    Args:
        model: name of a shipped model, a ``.safetensors`` file, or what :func:`load_model` returned.
        scene: raster, or several that make one mosaic.
        polygons_path: vector file of polygons, or of strokes and points, in any CRS. Where a field ``approved``, ``edited`` or
            ``checked`` is set somewhere, only those features count.
        checkpoint_path: ``.safetensors`` file to write; the report goes beside it, into a folder that ends in ``.run``.
        area_path: vector file of what was looked at: inside it, what is not drawn is background. Left out, only what lies
            within ``around_m`` of something drawn is known.
        class_field: field that names the class; found by its name and values when left out.
        legend: classes of the new model, or their names; the model's own when left out. Classes of the same name keep what the
            model knows of them.
        minutes: most time, about; fewer steps are taken where they would take longer.
        around_m: distance around what was drawn, in meters; 15 pixels of the model when 0.
        radius_m: of points and of half the width of strokes, in meters; 4 pixels of the model when 0.
        cross_validate: score by leaving out one third after the other, where all lies in one place. Takes four times as long.
        seed: of the division and of samples.
        beside: other rasters of the same place, by the name of the model's band that is read from each.
        config: how the scene is read, as in :func:`predict`: bands, scaling, nodata, resolution, device.
        settings: others of ``AdaptConfig``, such as ``{"optim": {"local_learning_rate": 3e-4}}``.
        overwrite: replace existing files.
        progress: receiver of stages and steps; bars when left out.

    Returns:
        Checkpoint, report, scores before and after.

    Raises:
        DatasetError: the files cannot be used, too little was drawn, or all of it lies in one place.
        LegendError: the polygons have a class that the model lacks, or no field that names classes.
        ConfigError: a setting that cannot be used.
        ResolutionError: the scene's pixels are much too large for the model.
        BandsError: the scene has not the model's bands.
        OutputExistsError: the checkpoint or its report exists.
        Canceled: it was interrupted.
        ModuleNotFoundError: the extra ``train`` is not installed.
    """
    from geoglnet.api.training import check_extra

    check_extra()
    from geoglnet.adaptation.adapt_config import AdaptConfig
    from geoglnet.adaptation.held_out import adapt as tool
    from geoglnet.prediction.source import Source
    from geoglnet.training.runlog import run_folder

    chosen: dict[str, Any] = {
        "class_field": class_field,
        "minutes": minutes,
        "around_m": around_m,
        "radius_m": radius_m,
        "cross_validate": cross_validate,
        "seed": seed,
    }
    try:
        adapting = AdaptConfig(**chosen, **(settings or {}))
    except TypeError as error:
        raise ConfigError(f"settings = {sorted(settings or {})}: {error}") from error
    checkpoint = Path(checkpoint_path)
    with watched(progress) as recorder:
        outcome = tool(
            path_of(model),
            Source.of(scene, beside),
            Path(polygons_path),
            checkpoint,
            area_path=None if area_path is None else Path(area_path),
            legend=_legend(legend, path_of(model)),
            config=adapting,
            predicting=config,
            overwrite=overwrite,
            progress=recorder,
        )
    return Adaptation(checkpoint, run_folder(checkpoint), outcome.is_better, outcome)


def _legend(given: Legend | Sequence[str] | None, model: str) -> Legend | None:
    """Make a legend of names: colors are the model's for its classes, and as different as can be for others."""
    from geoglnet.legend import Legend, distinct_colors
    from geoglnet.models.description import describe_model
    from geoglnet.models.shipped import model_path

    if given is None or isinstance(given, Legend):
        return given
    theirs = describe_model(model_path(os.fspath(model))).legend
    known = dict(zip(theirs.names, theirs.colors, strict=True))
    colors = [known.get(name, fresh) for name, fresh in zip(given, distinct_colors(len(given)), strict=True)]
    background = list(given).index("background") if "background" in given else None
    return Legend(tuple(given), tuple(colors), background=background)
