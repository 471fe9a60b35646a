"""The report of an adaptation: scores before and after with their intervals, and pictures, as JSON, PNG and a page."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geoglnet.errors import OutputError
from geoglnet.escaping import figure_text
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.output import OutputFile, unwritable
from geoglnet.training.pictures import Image, colored
from geoglnet.types import Labels

ADAPTATION_JSON, SHEET, PAGE = "adaptation.json", "report.png", "report.html"
WORDS = {"iou": "IoU", "boundary_f1": "boundary F1", "polygon_f1": "polygon F1"}
_MOST_PANELS = 4
_RIGHTED, _SPOILT, _STILL = (np.array(c, np.uint8) for c in ((30, 140, 60), (200, 30, 30), (240, 170, 60)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One square that was held out.

    Args:
        name: where it is.
        image: ``(h, w, 3)`` uint8.
        truth: ``(h, w)`` labels.
        before: labels of the old model.
        after: of the new one.
        wrong_before: known pixels that the old model has wrong.
        wrong_after: that the new one has wrong.
        known: how many are known.
    """

    name: str
    image: Image
    truth: Labels
    before: Labels
    after: Labels
    wrong_before: int
    wrong_after: int
    known: int


def write_adaptation(
    folder: Path, facts: Mapping[str, Any], panels: Sequence[Comparison], legend: Legend, *, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write ``adaptation.json``, ``report.png`` and ``report.html`` into a folder, which is made.

    Raises:
        OutputExistsError: a file exists.
        OutputError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; give another name of the model")
    targets = [OutputFile(folder / name, overwrite) for name in (ADAPTATION_JSON, SHEET, PAGE)]
    with targets[0] as part:
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    with targets[1] as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        draw_adaptation(facts, panels, legend).savefig(part, dpi=100, facecolor="white", format="png")
    with targets[2] as part:
        part.write_text(page(facts), encoding="utf-8")
    return tuple(target.path for target in targets)


def table_rows(facts: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Tabulate measure, class, before, after, and the interval of the gain (of the mean over classes)."""
    rows = []
    for name, word in WORDS.items():
        change = facts["measures"][name]
        rows.append((word, "mean", *_pair(change["before"], change["after"]), _interval(change["gain_interval"])))
        first, second = (facts["classes"][when][name] for when in ("before", "after"))
        if len(first) > 2:
            rows += [(word, label, *_pair(first[label], second[label]), "") for label in first]
    return rows


def page(facts: Mapping[str, Any]) -> str:
    """Write the report as a page, which shows the sheet beside it."""
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table_rows(facts))
    told = "".join(f"<li>{html.escape(str(text))}</li>" for text in (*facts["drawn"], facts["division"]))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(facts["name"])}</title>
<style>body {{ font: 15px sans-serif; margin: 2em; max-width: 75em }} td, th {{ padding: .2em .8em; text-align: left }}
img {{ max-width: 100% }}</style></head>
<body><h1>{html.escape(facts["model"])} → {html.escape(facts["name"])}</h1>
<p><b>{html.escape(facts["reason"])}</b></p>
<table><tr><th>measure</th><th>class</th><th>before</th><th>after</th><th>gain, 90 % interval</th></tr>{cells}</table>
<ul>{told}<li>{facts["steps"]} steps, share of the old weights {facts["start_share"]:g}, {facts["seconds"]:.0f} s</li></ul>
<img src="{SHEET}" alt="scene, truth, before, after and changes of the squares that were held out"></body></html>
"""


def draw_adaptation(facts: Mapping[str, Any], panels: Sequence[Comparison], legend: Legend) -> Figure:
    """Draw scores, and the squares that changed most and those that are worst."""
    shown = _chosen(panels)
    heights = [2.8, *([3.0] * len(shown))]
    figure = Figure(figsize=(15, sum(heights) + 0.6), layout="constrained")
    figure.suptitle(figure_text(f"{facts['model']} → {facts['name']}"), fontsize=13)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_measures(parts[0].subplots(1, 1), facts)
    for part, (why, panel) in zip(parts[1:], shown, strict=True):
        rate = [f"{100 * wrong / max(1, panel.known):.0f}" for wrong in (panel.wrong_before, panel.wrong_after)]
        title = f"{why}: {panel.name}, {rate[0]} % → {rate[1]} % of known pixels wrong"
        part.suptitle(title, fontsize=9, x=0.01, ha="left")
        pictures = {
            "scene": panel.image,
            "truth": colored(panel.truth, legend),
            "before": colored(panel.before, legend),
            "after": colored(panel.after, legend),
            "changes": _compared(panel),
        }
        for axes, (name, picture) in zip(part.subplots(1, len(pictures)), pictures.items(), strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(name, fontsize=8)
            axes.set_axis_off()
    return figure


def _draw_measures(axes: Axes, facts: Mapping[str, Any]) -> None:
    for place, name in enumerate(reversed(WORDS)):
        change = facts["measures"][name]
        for offset, when, color in ((0.17, "before", "#888888"), (-0.17, "after", "#1f6fb4")):
            value, (low, high) = change[when], change[f"{when}_interval"]
            if value is None:
                continue
            axes.barh(place + offset, value, 0.3, color=color)
            if low is not None:
                axes.plot([low, high], [place + offset] * 2, color="black", linewidth=1.2)
            axes.text(0.005, place + offset, f"{value:.3f}", va="center", fontsize=8, color="white")
    axes.set_yticks(range(len(WORDS)), list(reversed(WORDS.values())))
    told = "mean over classes, on what was held out (lines: 90 % of resampled squares)"
    colors = "changes below: green now right, red now wrong, orange still wrong"
    axes.set(xlim=(0, 1), title=f"{facts['reason']}\n{told}; {colors}")
    axes.title.set_fontsize(10)
    for place, (when, color) in enumerate((("after", "#1f6fb4"), ("before", "#888888"))):
        axes.text(0.99, 0.04 + 0.1 * place, when, color=color, transform=axes.transAxes, ha="right", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _chosen(panels: Sequence[Comparison]) -> list[tuple[str, Comparison]]:
    """Choose the square that gained most, the one that lost most, and the worst ones."""
    known = [panel for panel in panels if panel.known]
    if not known:
        return []
    gains = sorted(known, key=lambda p: (p.wrong_after - p.wrong_before) / p.known)
    chosen = [("best gain", gains[0])]
    if gains[-1] is not gains[0]:
        chosen.append(("least gain", gains[-1]))
    worst = sorted(known, key=lambda p: -p.wrong_after)
    chosen += [("worst", panel) for panel in worst if all(panel is not other for _, other in chosen)]
    return chosen[:_MOST_PANELS]


def _compared(panel: Comparison) -> Image:
    """Color what became right, what became wrong, and what is still wrong."""
    known = panel.truth != NO_CLASS
    first, second = (labels == panel.truth for labels in (panel.before, panel.after))
    picture = np.full((*panel.truth.shape, 3), 90, np.uint8)
    picture[known] = 235
    for where, color in ((~first & second, _RIGHTED), (first & ~second, _SPOILT), (~first & ~second, _STILL)):
        picture[known & where] = color
    return picture


def _pair(before: float | None, after: float | None) -> tuple[str, str]:
    first, second = ("–" if value is None else f"{value:.3f}" for value in (before, after))
    return first, second


def _interval(pair: Sequence[float | None]) -> str:
    low, high = pair
    return "" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"
