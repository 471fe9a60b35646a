"""Options of ``predict`` that say how, gathered into one :class:`~geoglnet.prediction.config.PredictConfig`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from geoglnet.cli.options import bands_option, batch_option, device_option, nodata_option, path_option

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def _scale(ctx: click.Context, param: click.Parameter, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    if ends and ends[0] >= ends[1]:
        raise click.BadParameter(f"{ends[0]:g} is not below {ends[1]:g}", ctx, param)
    return ends


_METERS = click.FloatRange(min=0, min_open=True)
_OPTIONS = (
    device_option,
    batch_option,
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        default="float32",
        show_default=True,
        help="Of the network.",
    ),
    click.option(
        "--effort",
        type=click.FloatRange(0, 1),
        default=1.0,
        show_default=True,
        metavar="0..1",
        help="Below 1, at most this share of the patches: where the global branch is unsure.",
    ),
    click.option(
        "--coarse-to-fine",
        is_flag=True,
        help="Find the foreground first, run the network there only; for a background and one class.",
    ),
    click.option("--tta", "augment", is_flag=True, help="Average the eight ways to turn a square; eight times the cost."),
    click.option(
        "--resolution",
        "resolution_m",
        type=_METERS,
        metavar="M",
        help="Meters per pixel to segment at.  [default: the model's]",
    ),
    click.option(
        "--pixel-size",
        "assumed_pixel_size_m",
        type=_METERS,
        metavar="M",
        help="Meters per pixel of a scene without CRS.",
    ),
    click.option("--bounds", nargs=4, type=float, metavar="LEFT BOTTOM RIGHT TOP", help="Only this part, in the scene's CRS."),
    path_option("--mask", "mask_path", help="Polygons outside of which there is no class."),
    click.option("--scale", nargs=2, type=float, callback=_scale, metavar="MIN MAX", help="Values that become 0 and 255."),
    nodata_option,
    bands_option,
    click.option(
        "--readers",
        "num_readers",
        type=click.IntRange(min=1),
        default=2,
        show_default=True,
        help="Threads that read ahead.",
    ),
)
_NAMES = (
    "device",
    "batch_size",
    "precision",
    "effort",
    "coarse_to_fine",
    "augment",
    "resolution_m",
    "assumed_pixel_size_m",
    "bounds",
    "mask_path",
    "scale",
    "nodata",
    "bands",
    "num_readers",
)


def config_options(function: FunctionT) -> FunctionT:
    """Adds the options; the function is given ``config``."""

    @functools.wraps(function)
    def gathered(**given: Any) -> Any:
        config = _config(**{name: given.pop(name) for name in _NAMES})
        return function(**given, config=config)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]


def _config(scale: tuple[float, float] | None, **chosen: Any) -> Any:
    from geoglnet.prediction.config import PredictConfig
    from geoglnet.raster.scaling import Scaling

    return PredictConfig(scaling=Scaling(*scale, "given with --scale") if scale else None, **chosen)
