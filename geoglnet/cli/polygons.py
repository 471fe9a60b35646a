"""Options for polygons, the same for ``vectorize`` and for ``predict --vector``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from geoglnet.cli.options import path_option
from geoglnet.errors import ConfigError
from geoglnet.vector.config import Quantity

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def _quantity(*units: str) -> Callable[[click.Context, click.Parameter, str | None], Quantity | None]:
    def parse(ctx: click.Context, param: click.Parameter, written: str | None) -> Quantity | None:
        try:
            return None if written is None else Quantity.parse(written, units)
        except ConfigError as error:
            raise click.BadParameter(str(error), ctx, param) from error

    return parse


_AREA = click.FloatRange(min=0)
_OPTIONS = (
    click.option(
        "--simplify", callback=_quantity("px", "m"), metavar="1.5m|2px", help="Fewer vertices; neighbors keep shared borders."
    ),
    click.option("--smooth", is_flag=True, help="Round corners; neighbors keep shared borders. Goes well with --simplify."),
    click.option("--regularize", is_flag=True, help="Straight walls and right angles, where they fit: for buildings."),
    click.option("--min-area", "min_area_m2", type=_AREA, default=0.0, metavar="M2", help="Drop smaller polygons."),
    click.option("--min-hole", "min_hole_m2", type=_AREA, default=0.0, metavar="M2", help="Close smaller holes."),
    click.option(
        "--connectivity",
        type=click.Choice(["4", "8"]),
        default="4",
        show_default=True,
        callback=lambda _ctx, _param, number: int(number),
        help="8 joins areas that touch at a corner.",
    ),
    click.option(
        "--sieve",
        callback=_quantity("px", "m2"),
        metavar="50px|20m2",
        help="Give smaller areas to the neighbor with the longest border.",
    ),
    click.option("--fill-holes", is_flag=True, help="Fill background that one class encloses, up to 256 px across."),
    click.option(
        "--opening",
        type=click.IntRange(0, 64),
        default=0,
        metavar="PX",
        help="Remove parts of a class that are thinner than twice this and one.",
    ),
    click.option(
        "--max-vertices",
        type=click.IntRange(min=4),
        default=2_000_000,
        show_default=True,
        help="Of polygons that are open at a time; the largest is cut beyond it.",
    ),
    path_option("--statistics", "statistics_path", help="Raster whose mean, stdev, min and max become attributes."),
    click.option("--style", type=click.Choice(["qml", "sld"]), help="Write the legend's style beside the polygons."),
    click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that trace polygons."),
)
_NAMES = (
    "simplify",
    "smooth",
    "regularize",
    "min_area_m2",
    "min_hole_m2",
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
    """Adds the options; the function is given ``vector_config``."""

    @functools.wraps(function)
    def gathered(**given: Any) -> Any:
        from geoglnet.vector.config import VectorConfig

        config = VectorConfig(**{name: given.pop(name) for name in _NAMES})
        return function(**given, vector_config=config)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]
