"""Options for polygons, the same for ``vectorize`` and for ``predict --vector``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from geoglnet.cli.options import option, path_option
from geoglnet.errors import ConfigError
from geoglnet.vector.settings import Quantity

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def _quantity(*units: str) -> Callable[[click.Context, click.Parameter, str | None], Quantity | None]:
    def parse(ctx: click.Context, param: click.Parameter, written: str | None) -> Quantity | None:
        try:
            return None if written is None else Quantity.parse(written, units)
        except ConfigError as error:
            raise click.BadParameter(str(error), ctx, param) from error

    return parse


def _listed(_ctx: click.Context, _param: click.Parameter, written: str | None) -> tuple[str, ...] | None:
    return None if written is None else tuple(word.strip() for word in written.split(",") if word.strip())


_AREA = click.FloatRange(min=0)
_OPTIONS = (
    option(
        "--simplify",
        group="Polygons",
        callback=_quantity("px", "m"),
        metavar="DISTANCE",
        help="Simplify outlines by up to this distance (1.5px, 2m); neighbors keep their shared borders.",
    ),
    option(
        "--smooth/--no-smooth",
        group="Polygons",
        default=None,
        help="Round the corners; neighbors keep their shared borders. Best together with --simplify.",
    ),
    option(
        "--regularize/--no-regularize",
        group="Polygons",
        default=None,
        help="Straighten walls and square corners (buildings).",
    ),
    option("--min-area", "min_area_m2", group="Polygons", type=_AREA, metavar="M2", help="Drop smaller polygons."),
    option("--min-hole", "min_hole_m2", group="Polygons", type=_AREA, metavar="M2", help="Fill smaller holes."),
    option(
        "--min-confidence",
        group="Polygons",
        type=click.FloatRange(0, 1),
        metavar="P",
        help="Drop polygons whose mean confidence is lower, 0 to 1.",
    ),
    option(
        "--connectivity",
        group="Polygons",
        type=click.Choice(["4", "8"]),
        default="4",
        show_default=True,
        callback=lambda _ctx, _param, number: int(number),
        help="8 joins pixels that touch only at a corner.",
    ),
    option(
        "--sieve",
        group="Polygons",
        callback=_quantity("px", "m2"),
        metavar="AREA",
        help="Merge smaller areas (50px, 20m2) into the neighbor with the longest shared border.",
    ),
    option(
        "--fill-holes/--no-fill-holes",
        group="Polygons",
        default=None,
        help="Fill background enclosed by one class, up to 256 px wide.",
    ),
    option(
        "--opening",
        group="Polygons",
        type=click.IntRange(0, 64),
        metavar="PX",
        help="Remove parts of a class that are narrower than 2 PX + 1 pixels (morphological opening).",
    ),
    option(
        "--max-vertices",
        group="Polygons",
        type=click.IntRange(min=4),
        default=2_000_000,
        show_default=True,
        metavar="N",
        help="Vertices of unfinished polygons held in memory; beyond it the largest polygon is cut.",
    ),
    option(
        "--classes",
        group="Polygons",
        callback=_listed,
        metavar="NAMES",
        help="Only these classes become polygons: names or codes, with commas between.",
    ),
    path_option(
        "--statistics",
        "statistics_path",
        group="Polygons",
        help="Raster whose mean, stdev, min and max within each polygon become attributes.",
    ),
    option(
        "--style",
        group="Polygons",
        type=click.Choice(["qml", "sld"]),
        help="Write the style into a file beside the polygons.",
    ),
    option(
        "--workers",
        group="Polygons",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Processes that trace polygons.",
    ),
)
_NAMES = (
    "simplify",
    "smooth",
    "regularize",
    "min_area_m2",
    "min_hole_m2",
    "min_confidence",
    "classes",
    "connectivity",
    "sieve",
    "fill_holes",
    "opening",
    "max_vertices",
    "statistics_path",
    "style",
    "workers",
)


def polygon_options(function: FunctionT) -> FunctionT:
    """Add the options; the function receives those that were used, and those that have a default, as ``polygon_settings``."""

    @functools.wraps(function)
    def gathered(**arguments: Any) -> Any:
        settings = {name: arguments.pop(name) for name in _NAMES}
        return function(**arguments, polygon_settings={name: value for name, value in settings.items() if value is not None})

    # The option that is added last comes first in the help, as with decorators.
    for add in reversed(_OPTIONS):
        gathered = add(gathered)
    return gathered  # type: ignore[return-value]
