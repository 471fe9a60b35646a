"""Options of ``predict`` that say how, gathered into one :class:`~geoglnet.prediction.predict_config.PredictConfig`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from geoglnet.cli.options import bands_option, batch_option, device_option, nodata_option, option, path_option, scale_option

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


METERS = click.FloatRange(min=0, min_open=True)
_OPTIONS = (
    option(
        "--resolution",
        "resolution_m",
        group="Model",
        type=METERS,
        metavar="M",
        help="Meters per pixel at which the model runs.  [default: the model's own]",
    ),
    option(
        "--effort",
        group="Model",
        type=click.FloatRange(0, 1),
        default=1.0,
        show_default=True,
        metavar="0..1",
        help="Below 1, run at most this share of the patches: those where the global branch is least certain.",
    ),
    option(
        "--coarse-to-fine",
        group="Model",
        is_flag=True,
        help="Find the foreground first and run the network only there. For models of a background and one class.",
    ),
    option(
        "--tta",
        "augment",
        group="Model",
        is_flag=True,
        help="Average the predictions of all eight rotations and reflections, at eight times the cost.",
    ),
    option(
        "--bounds",
        group="Area",
        nargs=4,
        type=float,
        metavar="LEFT BOTTOM RIGHT TOP",
        help="Predict only this rectangle, in the scene's CRS.",
    ),
    path_option("--mask", "mask_path", group="Area", help="Predict only inside these polygons."),
    bands_option,
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
    device_option,
    batch_option,
    option(
        "--precision",
        group="Run",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        metavar="TYPE",
        help="Number type of the network: float32, bfloat16, float16, or auto: bfloat16 on CPUs with AMX for models that "
        "lose nothing by it.",
    ),
    option(
        "--readers",
        "num_readers",
        group="Run",
        type=click.IntRange(min=1),
        default=2,
        show_default=True,
        metavar="N",
        help="Threads that read the scene ahead of the network.",
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
    "scaling",
    "nodata",
    "bands",
    "num_readers",
)


def config_options(function: FunctionT) -> FunctionT:
    """Add the options; the function receives them as ``config``."""

    @functools.wraps(function)
    def gathered(**arguments: Any) -> Any:
        config = _config(**{name: arguments.pop(name) for name in _NAMES})
        return function(**arguments, config=config)

    for add in reversed(_OPTIONS):
        gathered = add(gathered)
    return gathered  # type: ignore[return-value]


def _config(scaling: tuple[float, float] | None, **chosen: Any) -> Any:
    from geoglnet.prediction.predict_config import PredictConfig
    from geoglnet.raster.scaling import Scaling

    return PredictConfig(scaling=Scaling(*scaling, "given with --scale") if scaling else None, **chosen)
