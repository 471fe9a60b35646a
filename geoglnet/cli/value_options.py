"""Options of what the values of a raster mean, for ``vectorize``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from geoglnet.cli.options import option, path_option

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_NAMES = ("band", "breaks", "argmax", "instances", "parts", "class_of", "background", "whole_numbers")


def _breaks(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, ...]:
    try:
        return () if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} are not numbers with commas between, as in 0,10,20", ctx, param) from error


def _background(ctx: click.Context, param: click.Parameter, text: str | None) -> int | str | None:
    if text is None or text == "none":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither a code nor none", ctx, param) from error


_GROUP = "Values"
_OPTIONS = (
    option("--band", group=_GROUP, type=click.IntRange(min=1), metavar="N", help="Band to read of a raster with several."),
    path_option(
        "--legend",
        group=_GROUP,
        help="Names and colors of the codes: a CSV (code,name,color), a QML or SLD of QGIS, our TOML, or a label raster.  "
        "[default: the raster's own]",
    ),
    option(
        "--background",
        group=_GROUP,
        callback=_background,
        metavar="CODE|none",
        help="Code that makes no polygons; none: every code makes some.  [default: by the legend; 0 without one]",
    ),
    option(
        "--instances",
        group=_GROUP,
        is_flag=True,
        help="Every value is one object and becomes one row, however many parts it has.",
    ),
    option("--parts", group=_GROUP, is_flag=True, help="With --instances: a row for each connected part."),
    path_option(
        "--class-of",
        group=_GROUP,
        help="With --instances: label raster; every object gets the class that most of its pixels have.",
    ),
    option(
        "--breaks",
        group=_GROUP,
        callback=_breaks,
        metavar="VALUES",
        help="Make classes of quantities: 0.5 gives what is 0.5 or more, 0,10,20 three classes. What is lower is background.",
    ),
    option(
        "--argmax",
        group=_GROUP,
        is_flag=True,
        help="The bands are probabilities of classes: the largest wins, and is the confidence.",
    ),
    option(
        "--whole-numbers",
        group=_GROUP,
        is_flag=True,
        help="Read a raster of floating-point numbers as codes; all of them must be whole.",
    ),
)


def value_options(function: FunctionT) -> FunctionT:
    """Add the options; the function receives ``legend`` and, of all others, ``values``."""

    @functools.wraps(function)
    def gathered(**arguments: Any) -> Any:
        from geoglnet.vector.values import RasterValues

        values = RasterValues(**{name: arguments.pop(name) for name in _NAMES})
        return function(**arguments, values=values)

    for add in reversed(_OPTIONS):
        gathered = add(gathered)
    return gathered  # type: ignore[return-value]
