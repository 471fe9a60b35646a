"""Options that several verbs share; an option is the API's parameter with dashes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from geoglnet.cli.environment import stop_on_stdin_eof
from geoglnet.cli.terminal import reporter_for

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _bands(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    numbers = [part.strip() for part in text.split(",")]
    if not all(number.isdecimal() and int(number) >= 1 for number in numbers):
        raise click.BadParameter(f"{text!r} is not a list of band numbers; count from 1, as in 1,2,3", ctx, param)
    return tuple(int(number) for number in numbers)


def _batch(ctx: click.Context, param: click.Parameter, text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither auto nor a number of patches from 1", ctx, param)
    return int(text)


def _device(ctx: click.Context, param: click.Parameter, text: str) -> str:
    if not _DEVICE.fullmatch(text):
        raise click.BadParameter(f"{text!r} is not a device; use auto, cpu, cuda, cuda:0 (a number) or mps", ctx, param)
    return text


def _start_watch(ctx: click.Context, param: click.Parameter, is_wanted: bool) -> None:
    if is_wanted and not ctx.resilient_parsing:
        stop_on_stdin_eof()


def progress_options(function: FunctionT) -> FunctionT:
    """``--progress`` (given to the verb as ``reporter``) and ``--stop-on-stdin-eof``."""
    function = click.option(
        "--stop-on-stdin-eof",
        is_flag=True,
        expose_value=False,
        callback=_start_watch,
        help="Stop when standard input closes: the program that started this one is gone.",
    )(function)
    return click.option(
        "--progress",
        "reporter",
        type=click.Choice(["auto", "json", "none"]),
        default="auto",
        show_default=True,
        callback=lambda _ctx, _param, mode: reporter_for(mode),
        is_eager=True,
        help="auto: a line on a terminal, warnings in a pipe. json: events on stdout, one per line.",
    )(function)


def path_option(*names: str, help: str, required: bool = False) -> Callable[[FunctionT], FunctionT]:
    """An option that names a file to write or to read; the tool checks it."""
    return click.option(*names, type=click.Path(path_type=Path), metavar="FILE", help=help, required=required)


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
bands_option = click.option(
    "--bands", callback=_bands, metavar="1,2,3", help="Bands that are red, green, blue.  [default: by color]"
)
nodata_option = click.option(
    "--nodata", type=float, metavar="VALUE", help="Value that is none, where the scene does not say so itself."
)
device_option = click.option(
    "--device", callback=_device, default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."
)
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Where the configuration's patterns start.  [default: here]",
)
batch_option = click.option(
    "--batch",
    "batch_size",
    callback=_batch,
    default="auto",
    show_default=True,
    metavar="auto|N",
    help="Patches per step; halved by itself where a GPU's memory is too small.",
)
