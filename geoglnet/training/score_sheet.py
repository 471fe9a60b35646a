"""Reports: scores as JSON and CSV, and one PNG sheet with curves, scores per class, confusion and the worst regions."""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from geoglnet.errors import OutputError
from geoglnet.escaping import csv_cell, figure_text
from geoglnet.legend import Legend
from geoglnet.output import OutputFile, unwritable
from geoglnet.training.pictures import colored, errors
from geoglnet.training.runlog import LossPoint
from geoglnet.training.scoring import Evaluation, WorstRegion

SCORES_JSON, SCORES_CSV, SHEET = "scores.json", "scores.csv", "report.png"
MOST_REGIONS = 4
_WIDTH = 13.0  # inches


def write_report(
    folder: Path, title: str, evaluation: Evaluation, losses: Sequence[LossPoint] = (), *, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write ``scores.json``, ``scores.csv`` (a row per scene) and ``report.png`` into a folder, which is made.

    Args:
        folder: where.
        title: of the sheet.
        evaluation: what to report.
        losses: curves of the training, when there was one.
        overwrite: replace existing files.

    Returns:
        The files.

    Raises:
        OutputExistsError: a file exists.
        OutputError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    targets = [OutputFile(folder / name, overwrite) for name in (SCORES_JSON, SCORES_CSV, SHEET)]
    scores = evaluation.to_dict()
    with targets[0] as part:
        part.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    with targets[1] as part:
        write_table(part, scores)
    with targets[2] as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a name in a script that the font lacks
        draw_sheet(title, evaluation, losses).savefig(part, dpi=100, facecolor="white")
    return tuple(target.path for target in targets)


def check_report(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that no report can be written into, before the work that ends with one.

    Raises:
        OutputExistsError: one of its files exists, and ``overwrite`` is false.
        OutputError: a file cannot be written there, or the folder is a file.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder} is a file; give a folder")
    if folder.is_dir():
        for name in (SCORES_JSON, SCORES_CSV, SHEET):
            OutputFile(folder / name, overwrite)  # made for its checks


def write_table(path: Path, scores: Mapping[str, Any]) -> None:
    """Write a CSV row per scene and one for all together, with the same columns."""
    rows = {**scores["scenes"], "all": {**scores["total"], **scores["conventions"]}}
    # A scene without a class has no score of it.
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, ["scene", *map(csv_cell, columns)])
        writer.writeheader()
        writer.writerows(
            {"scene": csv_cell(name), **{csv_cell(key): f"{value:.6f}" for key, value in row.items()}}
            for name, row in rows.items()
        )


def draw_sheet(title: str, evaluation: Evaluation, losses: Sequence[LossPoint] = ()) -> Figure:
    """Draw the sheet as a matplotlib figure, made without pyplot so that nothing is kept."""
    worst = evaluation.worst_regions(MOST_REGIONS)
    heights = [3.6, *([2.9] * len(worst))]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.7), layout="constrained")
    figure.suptitle(figure_text(title), fontsize=13)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_scores(parts[0], evaluation, losses)
    for part, region in zip(parts[1:], worst, strict=True):
        _draw_region(part, region, evaluation.legend)
    return figure


def _draw_scores(figure: SubFigure, evaluation: Evaluation, losses: Sequence[LossPoint]) -> None:
    axes = figure.subplots(1, 3 if losses else 2, squeeze=False)[0]
    if losses:
        _draw_curves(axes[0], losses)
    _draw_classes(axes[-2], evaluation)
    _draw_confusion(axes[-1], evaluation)


def _draw_curves(axes: Axes, losses: Sequence[LossPoint]) -> None:
    start = 0
    for stage in dict.fromkeys(point.stage for point in losses):
        values = np.array([point.loss for point in losses if point.stage == stage])
        steps = start + np.arange(len(values))
        line = axes.plot(steps, values, linewidth=0.6, alpha=0.35)[0]
        size = max(1, len(values) // 25)
        smooth = np.convolve(values, np.ones(size) / size, mode="valid")
        # A running mean of the steps up to each: "valid" has none before a whole window.
        axes.plot(steps[size - 1 :], smooth, color=line.get_color(), label=stage)
        start += len(values)
    axes.set(title="loss", xlabel="step")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_classes(axes: Axes, evaluation: Evaluation) -> None:
    legend, values = evaluation.legend, evaluation.total.iou()
    places = np.arange(legend.num_classes)[::-1]
    edges = np.array(legend.colors) / 255
    axes.barh(places, np.nan_to_num(values), color=edges, edgecolor="black", linewidth=0.6)
    for place, value in zip(places, values, strict=True):
        text = "does not occur" if np.isnan(value) else f"{value:.3f}"
        axes.text(np.nan_to_num(value) + 0.01, place, text, va="center", fontsize=8)
    scores = evaluation.conventions
    lines = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items()]
    axes.set(title=f"IoU per class; {lines[0] if lines else ''}", xlim=(0, 1.15), xlabel="\n".join(_pairs(lines[1:])))
    axes.set_yticks(places, [figure_text(name) for name in legend.names])
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.label.set_fontsize(8)


def _draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    # The last row and column are pixels without a class.
    counts = evaluation.total.counts[:-1, :-1].astype(float)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros_like(counts), where=rows > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names, places = [figure_text(name) for name in evaluation.legend.names], range(len(evaluation.legend.names))
    # In the cells of more than 12 classes numbers would overlap.
    for row, col in ((r, c) for r in places for c in places if rows[r, 0] and len(names) <= 12):
        shade = "white" if shares[row, col] > 0.5 else "black"
        axes.text(col, row, f"{100 * shares[row, col]:.0f}", ha="center", va="center", fontsize=8, color=shade)
    axes.set_xticks(places, names, rotation=35, ha="right")
    axes.set_yticks(places, names)
    axes.set(title="% of each true class", ylabel="truth", xlabel="segmented")


def _draw_region(figure: SubFigure, region: WorstRegion, legend: Legend) -> None:
    picture = region.picture
    images = (picture.image, colored(picture.truth, legend), colored(picture.labels, legend))
    shown = {"scene": images[0], "truth": images[1], "segmented": images[2], "errors": errors(picture.truth, picture.labels)}
    figure.suptitle(figure_text(region.described), fontsize=9, x=0.01, ha="left")
    for axes, (name, image) in zip(figure.subplots(1, 4), shown.items(), strict=True):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(name, fontsize=8)
        axes.set_axis_off()


def _pairs(lines: Sequence[str]) -> list[str]:
    return [" · ".join(lines[i : i + 2]) for i in range(0, len(lines), 2)]
