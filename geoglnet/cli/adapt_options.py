"""Options of ``adapt``: what was drawn, how the scene is read, how long it may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from geoglnet.cli.options import bands_option, device_option, nodata_option, option, path_option, scale_option, with_option
from geoglnet.cli.predict_options import METERS

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def _names(ctx: click.Context, param: click.Parameter, text: str | None) -> list[str] | None:
    names = None if text is None else [name.strip() for name in text.split(",")]
    if names is not None and not all(names):
        raise click.BadParameter(f"{text!r} is not a list of class names, as in background,road,water", ctx, param)
    return names


_OPTIONS = (
    path_option(
        "--area", "area_path", group="Labels", help="Polygons of what was looked at: inside, what is not drawn is background."
    ),
    option(
        "--class-field",
        group="Labels",
        default="",
        metavar="FIELD",
        help="Field that names the class.  [default: found by name and values]",
    ),
    option(
        "--legend",
        group="Labels",
        callback=_names,
        metavar="NAMES",
        help="Classes of the new model, as in background,road,water. Those that MODEL has keep what it knows of them.",
    ),
    option(
        "--around",
        "around_m",
        group="Labels",
        type=METERS,
        metavar="M",
        help="Meters around what was drawn within which all else is background, without --area.  [default: 15 pixels]",
    ),
    option(
        "--radius",
        "radius_m",
        group="Labels",
        type=METERS,
        metavar="M",
        help="Radius of points, and half the width of strokes.  [default: 4 pixels]",
    ),
    option(
        "--cross-validate",
        group="Labels",
        is_flag=True,
        help="Score by leaving out one third after the other, where all lies in one place; takes four times as long.",
    ),
    bands_option,
    with_option,
    scale_option,
    nodata_option,
    option(
        "--pixel-size",
        "assumed_pixel_size_m",
        group="Input values",
        type=METERS,
        metavar="M",
        help="Meters per pixel of a scene without a CRS.",
    ),
    option(
        "--resolution",
        "resolution_m",
        group="Input values",
        type=METERS,
        metavar="M",
        help="Meters per pixel at which the model runs.  [default: the model's own]",
    ),
    option(
        "--minutes",
        group="Run",
        type=METERS,
        default=10.0,
        show_default=True,
        metavar="N",
        help="Most time that it may take, about.",
    ),
    option(
        "--seed",
        group="Run",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Of the division and of samples.",
    ),
    device_option,
)
READING = ("bands", "nodata", "assumed_pixel_size_m", "resolution_m", "device")
"""Options that say how the scene is read, by the names of :class:`~geoglnet.prediction.predict_config.PredictConfig`."""


def adapt_options(function: FunctionT) -> FunctionT:
    """Add the options, which the function receives by the names of :func:`geoglnet.adapt`."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function
