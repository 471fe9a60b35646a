"""Figures 1, 7 and 8 from our own runs, the paper's points beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geoglnet.paper.sheet import Line

Image = npt.NDArray[np.uint8]
_RED, _BLUE, _GRAY = "#c0392b", "#2c6fbb", "#7f8c8d"


def draw_scatter(title: str, lines: Sequence[Line], convention: str, sizes: Mapping[str, float]) -> Figure:
    """Draw score against memory: ours filled, the paper's hollow, GLNets red as in the paper.

    Args:
        title: of the figure.
        lines: systems; those without a score or memory are left out.
        convention: which score.
        sizes: scale annotations by system name (Figs. 1(b) and 1(c)).
    """
    published = [line for line in lines if line.row.miou is not None and line.row.memory_mb is not None]
    # Two panels: the paper's memory is that of a whole process on another GPU, and not on our scale.
    panels = 2 if published else 1
    figure = Figure(figsize=(6.2 * panels, 4.8), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    points = [(line, line.memory["memory_mb"], line.miou(convention)) for line in lines if line.memory]
    device = next((line.memory["device"] for line in lines if line.memory), "")
    families = list(dict.fromkeys(_family(line) for line in lines))
    # One palette for both panels, so that a method keeps its color.
    palette = dict(zip(families, _colors(len(families)), strict=True))
    scales = {name: f"×{scale:.2g}" for name, scale in sizes.items()}
    _scatter(axes[0], points, {line.system.name: line.system.title for line in lines} | scales, palette)
    axes[0].set(title="here", xlabel=f"memory of one region, MB ({device})", ylabel="score, %")
    if published:
        titles = {line.system.name: line.row.title for line in published}
        _scatter(axes[1], [(line, line.row.memory_mb, line.row.miou) for line in published], titles, palette)
        axes[1].set(title="the paper", xlabel="memory of the process, MB (GPU)", ylabel="mIoU, %")
    figure.suptitle(title)
    return figure


def _scatter(
    axis: Axes,
    points: Sequence[tuple[Line, float | None, float | None]],
    labels: Mapping[str, str],
    palette: Mapping[str, str],
) -> None:
    # By score, so that each label can give way to the points above it.
    known = sorted(((line, x, y) for line, x, y in points if x is not None and y is not None), key=lambda point: point[2])
    widest, tallest = (max(values, default=1.0) - min(values, default=0.0) for values in _axes_of(known))
    for number, (line, x, y) in enumerate(known):
        # A point within the label's extent, in shares of the axes' spans: the label then goes below its own point.
        is_crowded = any(abs(a - x) < 0.12 * widest and 0 < b - y < 0.05 * tallest for _, a, b in known[number + 1 :])
        color = _RED if _is_glnet(line) else palette[_family(line)]
        axis.scatter([x], [y], color=color, s=55, zorder=3)
        label = labels[line.system.name]
        axis.annotate(label, (x, y), xytext=(6, -13 if is_crowded else 5), textcoords="offset points", fontsize=8, color=color)
    # Figs. 1(b) and 1(c) join the sizes of one method by a line.
    for family in palette:
        swept = sorted((x, y) for line, x, y in known if _family(line) == family and line.system.size)
        if len(swept) > 1:
            axis.plot(*zip(*swept, strict=True), color=palette[family], linewidth=1, label=family)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    axis.margins(x=0.28, y=0.12)  # room for the labels right of the last points
    axis.grid(alpha=0.3)


def _axes_of(points: Sequence[tuple[Line, float, float]]) -> tuple[list[float], list[float]]:
    return [x for _, x, _ in points], [y for _, _, y in points]


def _family(line: Line) -> str:
    return line.system.title.partition(",")[0] if line.system.size else line.system.name


def _is_glnet(line: Line) -> bool:
    return "GLNet" in line.system.title


def _colors(count: int) -> list[str]:
    palette = ["#2c6fbb", "#2a9d5c", "#8e5ea2", "#e08e0b", "#16a0a0", "#7f5539", "#5d6d7e", "#b8860b", "#3b3b98", "#6a994e"]
    return [palette[i % len(palette)] for i in range(count)]


def draw_balance(title: str, before: Sequence[float], after: Sequence[float]) -> Figure:
    """Draw Fig. 8 (1): how many regions have which ratio of foreground to background, before and after the box."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axis = figure.subplots()
    bins = np.linspace(0, 2, 21).tolist()
    for values, color, label in ((before, _BLUE, "whole regions"), (after, _RED, "inside the box")):
        axis.hist(np.clip(values, 0, 2), bins, color=color, alpha=0.6, label=f"{label}, median {np.median(values):.2f}")
    # Balance, which the box is relaxed toward (§3.3, footnote 1).
    axis.axvline(1, color=_GRAY, linewidth=1, linestyle="--")
    axis.set(title=title, xlabel="foreground : background (2 and more in the last bar)", ylabel="regions")
    axis.legend()
    return figure


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture of a row of Fig. 7, ``(h, w, 3)`` uint8."""

    title: str
    image: Image


def draw_panels(title: str, panels: Sequence[Panel], zooms: Sequence[tuple[slice, slice]]) -> Figure:
    """Draw Fig. 7: a column per system, the whole above and zoomed-in places below.

    Args:
        title: of the figure.
        panels: pictures of one scene, all of one size.
        zooms: rows and columns of what is enlarged; framed above.
    """
    rows = 1 + len(zooms)
    figure = Figure(figsize=(2.5 * len(panels), 2.55 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, len(panels), squeeze=False)
    for number, (panel, column) in enumerate(zip(panels, axes.T, strict=True), 1):
        column[0].imshow(panel.image)
        column[0].autoscale(enable=False)  # a frame at the edge must not widen the picture
        column[0].set_title(f"({number}) {panel.title}", fontsize=9)
        for name, (row_slice, col_slice), axis in zip("abcdef", zooms, column[1:], strict=False):
            axis.imshow(panel.image[row_slice, col_slice], interpolation="nearest")
            _frame(column[0], row_slice, col_slice, name)
            if number == 1:
                axis.set_ylabel(f"({name})")
        for axis in column:
            axis.set(xticks=[], yticks=[])
    figure.suptitle(title)
    return figure


def _frame(axis: Axes, rows: slice, cols: slice, name: str) -> None:
    xs = [cols.start, cols.stop, cols.stop, cols.start, cols.start]
    ys = [rows.start, rows.start, rows.stop, rows.stop, rows.start]
    axis.plot(xs, ys, color=_RED, linewidth=1.4)
    axis.annotate(f"({name})", (cols.start, rows.start), color=_RED, fontsize=8, xytext=(2, -9), textcoords="offset points")
