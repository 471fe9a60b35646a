"""Figures of pictures and polygons, with matplotlib (the extra ``notebook``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from geoglnet.escaping import figure_text
from geoglnet.optional import needed

if TYPE_CHECKING:
    import pandas
    from geopandas import GeoDataFrame
    from matplotlib.axes import Axes

    from geoglnet.raster.picture import Picture

PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Tol's, told apart by most eyes


def new_axes(width: float = 9.0, height: float = 6.5) -> Axes:
    """Make the axes of a new figure, sized in inches."""
    needed("matplotlib")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def draw_picture(axes: Axes, picture: Picture, opacity: float = 1.0) -> None:
    """Draw a picture at its coordinates; degrees get the aspect of their latitude."""
    left, bottom, right, top = picture.bounds
    # "nearest": colors of neighboring classes must not mix to the color of a third.
    axes.imshow(picture.image, extent=(left, right, bottom, top), alpha=opacity, interpolation="nearest")
    # A degree of longitude spans cos(latitude) times the meters of a degree of latitude.
    is_degrees = picture.crs is not None and picture.crs.is_geographic
    axes.set_aspect(1 / math.cos(math.radians((bottom + top) / 2)) if is_degrees else 1.0)
    # Northings have seven digits, which matplotlib would write as an offset and a power of ten.
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.tick_params(labelsize=8)


def draw_polygons(axes: Axes, polygons: GeoDataFrame, colors: Mapping[str, str]) -> None:
    """Draw polygons filled with the colors of their classes."""
    for number, (name, part) in enumerate(polygons.groupby("class_name")):
        color = colors.get(str(name), PALETTE[number % len(PALETTE)])
        part.plot(ax=axes, facecolor=(color, 0.5), edgecolor=color, linewidth=0.8)


def draw_legend(axes: Axes, colors: Mapping[str, str]) -> None:
    """Draw the class names beside their colors."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=color, label=figure_text(name)) for name, color in colors.items()]
    if patches:
        axes.legend(handles=patches, loc="upper right", framealpha=0.85)


def draw_losses(axes: Axes, losses: pandas.DataFrame) -> None:
    """Draw the losses of a training as one curve per stage, with a running mean."""
    # losses.csv counts the steps of each stage from 0; the curves follow each other.
    start = 0
    for stage in losses["stage"].unique():
        values = losses.loc[losses["stage"] == stage, "loss"].reset_index(drop=True)
        steps = values.index + start
        line = axes.plot(steps, values, linewidth=0.7, alpha=0.4)[0]
        mean = values.rolling(max(1, len(values) // 20), min_periods=1).mean()
        axes.plot(steps, mean, color=line.get_color(), label=f"{stage} stage")
        start += len(values)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
