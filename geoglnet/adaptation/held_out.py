"""Adapt a model to a scene: divide what was drawn by place, train, choose how far to go, compare, keep the better one."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.windows import Window

from geoglnet.adaptation.adapt_config import AdaptConfig, training_of
from geoglnet.adaptation.attempt import AdaptTask, Attempt, attempt, counted
from geoglnet.adaptation.drawn import DrawingRules, Drawn, read_drawn
from geoglnet.adaptation.pages import Comparison, write_adaptation
from geoglnet.adaptation.polygon_choice import choose_polygons
from geoglnet.adaptation.squares import CHOOSE, LEARN, NOTHING, SCORE, Squares, divide, everything, folds
from geoglnet.adaptation.tally import Change, Crop, Tally, changes, crops_of, joined
from geoglnet.datasets.sources import RastersSource
from geoglnet.errors import DatasetError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.models.shipped import model_path
from geoglnet.output import OutputFile, refuse_inputs
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.source import Source
from geoglnet.progress import Progress, Rule, SilentProgress
from geoglnet.raster.scene import Scene
from geoglnet.training.devices import quiet_lightning
from geoglnet.training.fit import make_manifest
from geoglnet.training.pictures import as_rgb
from geoglnet.training.runlog import forget_losses, run_folder
from geoglnet.training.score_sheet import check_report
from geoglnet.types import Bounds, Labels, StrPath

_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an adaptation ended.

    Args:
        manifest: of the model that was written.
        is_better: whether that is the new one.
        reason: why, in words.
        changes: each measure before and after, on what was held out.
        before: counts of the old model.
        after: of the new one.
        steps: of the optimizer.
        start_share: of the old weights in the new ones.
        facts: what was done, for the report.
    """

    manifest: Manifest
    is_better: bool
    reason: str
    changes: dict[str, Change]
    before: Tally
    after: Tally
    steps: int
    start_share: float
    facts: dict[str, Any]


@quiet_lightning()
def adapt(
    model: StrPath,
    source: Source,
    polygons_path: Path,
    checkpoint_path: Path,
    *,
    area_path: Path | None = None,
    legend: Legend | None = None,
    config: AdaptConfig | None = None,
    predicting: PredictConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Adapt a model to what was drawn on a scene, and keep it if it is better on what was held out.

    What was drawn is divided into squares, and about a quarter of it is held out. The model's weights are trained on a part of
    the rest, with the global branch and the statistics of batch normalization frozen; another part decides how much of the old
    weights is averaged in. The new model is kept if its IoU rises, and neither boundary F1 nor polygon F1 falls beyond
    chance; else the file holds the old one. An adaptation that is killed begins anew.

    Memory: the scene around what was drawn, up to the model's ``sample.cache_mb``, and a step's activations.

    Args:
        model: shipped name or checkpoint.
        source: the scene.
        polygons_path: vector file of polygons, strokes or points on it.
        checkpoint_path: ``.safetensors`` file to write; the report goes beside it, into a folder that ends in ``.run``.
        area_path: vector file of what was looked at: inside it, what is not drawn is background.
        legend: classes of the new model; the model's own when left out.
        config: of the adaptation.
        predicting: how the scene is read, and the device.
        overwrite: replace existing files.
        progress: receives stages, steps and rules.

    Raises:
        DatasetError: the files cannot be used, or too little was drawn.
        LegendError: classes that the model lacks.
        CheckpointError: the model cannot be used.
        SceneError: the scene cannot be read.
        OutputExistsError: the checkpoint or report exists.
        Canceled: it was interrupted.
    """
    progress, predicting, config = progress or SilentProgress(), predicting or PredictConfig(), config or AdaptConfig()
    path = model_path(str(model))
    file = OutputFile(checkpoint_path, overwrite)
    inputs = [("the model", path), ("the polygons", polygons_path), *(("the scene", name) for name in source.iter_files())]
    refuse_inputs([file], [*inputs, *([("the area", area_path)] if area_path is not None else [])])
    check_report(run_folder(checkpoint_path), overwrite=overwrite)
    network, manifest = load_checkpoint(path)
    if predicting.resolution_m is not None:
        manifest = replace(manifest, resolution_m=predicting.resolution_m)
    with ExitStack() as stack:
        stack.enter_context(file.claimed())
        scene = stack.enter_context(source.open_for(manifest, predicting, progress))
        drawn = _read(scene, polygons_path, area_path, legend or manifest.legend, manifest, config, progress)
        described = RastersSource(images=source.name, polygons=polygons_path.name, area=area_path.name if area_path else "")
        training = training_of(manifest, drawn.legend, config, described, checkpoint_path.stem)
        window = _window_around(drawn, scene)
        folder = run_folder(checkpoint_path)
        job = AdaptTask(
            network,
            manifest,
            drawn.legend,
            scene,
            drawn,
            window,
            training,
            config,
            predicting,
            progress,
            folder,
            model_digest(path),
        )
        forget_losses(folder)
        made = _cross_validated(job) if config.cross_validate else _held_out(job)
        outcome = _judged(job, made)
        if outcome.is_better and config.is_refit and not config.cross_validate:
            made = replace(made, attempt=_refitted(job, made))
        save_checkpoint(file, made.attempt.network if outcome.is_better else network, outcome.manifest)
        write_adaptation(folder, outcome.facts, made.panels, drawn.legend, overwrite=True)
    return outcome


def _read(
    scene: Scene,
    path: Path,
    area_path: Path | None,
    legend: Legend,
    manifest: Manifest,
    config: AdaptConfig,
    progress: Progress,
) -> Drawn:
    """Read what was drawn, and say how it was read."""
    unit = math.sqrt(abs(scene.transform.determinant))
    around, radius = config.around_px(manifest.resolution_m), config.radius_px(manifest.resolution_m)
    rules = DrawingRules(config.class_field, config.layer, around * unit, radius * unit)
    drawn = read_drawn(path, area_path, scene.crs, _bounds_of(scene), legend, rules, progress)
    count = int((drawn.polygons.values != NO_CLASS).sum())
    if count < 2:
        raise DatasetError(f"{path} has {count} polygon on the scene; draw at least 2, better 20, spread over the scene")
    near = "" if area_path else f", up to {around * manifest.resolution_m:.3g} m around it"
    progress.log(Rule(f"{count} drawn: {'; '.join(drawn.described)}{near}"))
    present = set(np.unique(drawn.polygons.values[drawn.polygons.values != NO_CLASS]).tolist())
    fewest = 1 if legend.background is None else 0
    if len(present) <= fewest:
        raise DatasetError(f"{path} has only the class {legend.names[min(present)]!r}; draw some of another class too")
    return drawn


def measure(
    model: StrPath,
    source: Source,
    polygons_path: Path,
    *,
    area_path: Path | None = None,
    config: AdaptConfig | None = None,
    predicting: PredictConfig | None = None,
    progress: Progress | None = None,
) -> Tally:
    """Score a model on all that was drawn on a scene, square by square, as :func:`adapt` scores what it holds out."""
    progress, predicting, config = progress or SilentProgress(), predicting or PredictConfig(), config or AdaptConfig()
    network, manifest = load_checkpoint(model_path(str(model)))
    with source.open_for(manifest, predicting, progress) as scene:
        drawn = _read(scene, polygons_path, area_path, manifest.legend, manifest, config, progress)
        window = _window_around(drawn, scene)
        described = RastersSource(images=source.name, polygons=polygons_path.name)
        training = training_of(manifest, drawn.legend, config, described, manifest.name)
        nowhere = Path()
        job = AdaptTask(
            network, manifest, drawn.legend, scene, drawn, window, training, config, predicting, progress, nowhere, ""
        )
        squares = everything(drawn, scene.transform, window)
        return _base(job, squares)[1]


def _bounds_of(scene: Scene) -> Bounds:
    corners = np.array([scene.transform @ (x, y) for x in (0, scene.shape.width) for y in (0, scene.shape.height)])
    (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
    return float(left), float(bottom), float(right), float(top)


def _window_around(drawn: Drawn, scene: Scene) -> Window:
    """Find the pixels of the scene around everything that is known."""
    left, bottom, right, top = shapely.total_bounds(drawn.known.geometries)
    ends = np.array([~scene.transform @ (x, y) for x in (left, right) for y in (bottom, top)])
    (col, row), (last_col, last_row) = ends.min(axis=0), ends.max(axis=0)
    first = max(0, math.floor(row)), max(0, math.floor(col))
    last = min(scene.shape.height, math.ceil(last_row)), min(scene.shape.width, math.ceil(last_col))
    return Window(col_off=first[1], row_off=first[0], width=last[1] - first[1], height=last[0] - first[0])


@dataclass(frozen=True, slots=True)
class Made:
    """A new network, and what both networks have right on what it did not see."""

    attempt: Attempt
    before: Tally
    after: Tally
    panels: list[Comparison]
    squares: Squares
    how: str


def _held_out(job: AdaptTask) -> Made:
    """Adapt on a part of what was drawn, and compare on another part."""
    squares = divide(job.drawn, job.scene.transform, job.window, job.config.seed)
    meters = squares.side * job.manifest.resolution_m
    parts = ", ".join(
        f"{len(squares.of_role(role))} {word}"
        for role, word in ((LEARN, "to learn from"), (CHOOSE, "to choose by"), (SCORE, "held out"))
    )
    how = f"squares of {meters:.3g} m: {parts}"
    job.progress.log(Rule(how))
    crops, before, old = _base(job, squares)
    tried = _tried(job, squares, job.seconds_left)
    after, new = counted(job, tried.network, replace(job.new_manifest, polygons=tried.polygons), crops)
    return Made(tried, before, after, _panels(job, crops, old, new), squares, how)


def _cross_validated(job: AdaptTask) -> Made:
    """Adapt several times, each time without another part, and once with everything."""
    parts = folds(job.drawn, job.scene.transform, job.window, _FOLDS, job.config.seed)
    meters = parts[0].side * job.manifest.resolution_m
    how = f"each third of the squares of {meters:.3g} m is held out once; the model that is kept learned from all"
    job.progress.log(Rule(how))
    befores: list[Tally] = []
    afters: list[Tally] = []
    panels: list[Comparison] = []
    steps = 0
    for number, squares in enumerate(parts):
        crops, before, old = _base(job, squares)
        tried = _tried(job, squares, job.seconds_left / (_FOLDS + 1 - number), steps)
        after, new = counted(job, tried.network, replace(job.new_manifest, polygons=tried.polygons), crops)
        befores, afters, steps = [*befores, before], [*afters, after], tried.steps
        panels += _panels(job, crops, old, new)
    whole = replace(parts[0], roles=np.where(parts[0].roles == SCORE, np.uint8(LEARN), parts[0].roles))
    last = _tried(job, whole, job.seconds_left, steps)
    return Made(last, joined(befores), joined(afters), panels, parts[0], how)


def _refitted(job: AdaptTask, made: Made) -> Attempt:
    """Train once more as the model that was found better, with what was held out too: scores are of the other one."""
    job.progress.log(Rule("the model that is kept learns from what was held out too; the scores are of the one that did not"))
    roles = np.where(made.squares.roles == NOTHING, np.uint8(NOTHING), np.uint8(LEARN))
    share = replace(job, config=replace(job.config, share=made.attempt.share))
    return _tried(share, replace(made.squares, roles=roles), job.seconds_left, made.attempt.steps)


def _tried(job: AdaptTask, squares: Squares, seconds: float, steps: int = 0) -> Attempt:
    """Make an attempt, and choose the settings of its polygons."""
    made = attempt(job, squares, seconds, steps)
    return replace(made, polygons=choose_polygons(job, made.network, squares))


def _base(job: AdaptTask, squares: Squares) -> tuple[list[Crop], Tally, list[Labels]]:
    """Count what the old model has right on what is held out."""
    crops = crops_of(job.drawn, squares, squares.of_role(SCORE), job.scene.transform, job.scene.shape)
    before, old = counted(job, job.network, job.manifest, crops)
    return crops, before, old


def _panels(job: AdaptTask, crops: list[Crop], old: list[Labels], new: list[Labels]) -> list[Comparison]:
    """Keep the pictures of squares: the scene, the truth, and what both models make of it."""
    made = []
    for crop, first, second in zip(crops, old, new, strict=True):
        inner = crop.inner
        truth = crop.truth[inner]
        known = truth != NO_CLASS
        image = as_rgb(job.scene.read_window(crop.square).image, job.manifest.bands)
        counts = [int((labels[inner] != truth)[known].sum()) for labels in (first, second)]
        name = f"rows {int(crop.square.row_off)}, columns {int(crop.square.col_off)}"
        made.append(Comparison(name, image, truth, first[inner], second[inner], counts[0], counts[1], int(known.sum())))
    return made


def _judged(job: AdaptTask, made: Made) -> Outcome:
    """Decide which model is kept, say why, and describe it."""
    found = changes(made.before, made.after, job.config.seed)
    is_better, reason = verdict(found)
    if job.config.is_forced and not is_better:
        is_better, reason = True, f"{reason}: but not, as the new one is asked for whatever its scores are"
    classes = {
        when: {
            name: {cls: _number(v) for cls, v in zip(job.legend.names, values, strict=True)}
            for name, values in counts.per_class().items()
        }
        for when, counts in (("before", made.before), ("after", made.after))
    }
    facts: dict[str, Any] = {
        "model": job.manifest.name,
        "name": job.training.name,
        "is_better": is_better,
        "reason": reason,
        "division": made.how,
        "drawn": list(job.drawn.described),
        "squares_scored": len(made.before),
        "measures": {name: change.to_dict() for name, change in found.items()},
        "classes": classes,
        "steps": made.attempt.steps,
        "start_share": made.attempt.share,
        "polygons": dict(made.attempt.polygons),
        "seconds": round(job.seconds_spent, 1),
        "seconds_training": round(made.attempt.seconds, 1),
    }
    job.progress.log(Rule(reason))
    manifest = job.manifest
    if is_better:
        trained = replace(job.training, optim=replace(job.training.optim, local_steps=made.attempt.steps))
        manifest = make_manifest(trained)
        kept = {"adapted_from": f"{job.manifest.name} {job.digest[:16]}", "start_share": made.attempt.share}
        sources = [*job.manifest.training.get("sources", []), *manifest.training["sources"]]
        manifest = replace(
            manifest,
            resolution_m=job.manifest.resolution_m,
            temperature=job.manifest.temperature,
            polygons=made.attempt.polygons,
            training={**manifest.training, **kept, "sources": sources},
            metrics={"adaptation": facts},
            version=version("geoglnet"),
        )
    return Outcome(manifest, is_better, reason, found, made.before, made.after, made.attempt.steps, made.attempt.share, facts)


def verdict(found: dict[str, Change]) -> tuple[bool, str]:
    """Decide whether the new model is better: IoU rises, and no measure falls beyond chance."""
    words = {"iou": "IoU", "boundary_f1": "boundary F1", "polygon_f1": "polygon F1"}
    iou = found["iou"]
    shown = f"IoU {iou.before:.3f} → {iou.after:.3f} (± {iou.gain_sd:.3f})"
    fallen = [words[name] for name, change in found.items() if change.is_worse]
    if not iou.gain > 0:
        return False, f"not better on what was held out: {shown}; the old model is kept"
    if fallen:
        change = found[next(name for name, word in words.items() if word == fallen[0])]
        return False, (
            f"{shown}, but {fallen[0]} falls from {change.before:.3f} to {change.after:.3f} (± {change.gain_sd:.3f}), which is "
            "beyond chance; the old model is kept"
        )
    return True, f"better on what was held out: {shown}; the new model is kept"


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
