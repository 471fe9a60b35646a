"""Options that several verbs share; an option is the API's parameter with dashes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from geoglnet.cli.process import stop_on_stdin_eof
from geoglnet.cli.terminal import reporter_for

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _bands(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    if not all(int(part) >= 1 if part.isdecimal() else any(map(str.isalpha, part)) for part in parts):
        message = f"{text!r} are neither band names (nir,red,green) nor numbers from 1 (3,2,1) nor a preset (BGR)"
        raise click.BadParameter(message, ctx, param)
    return text


def _beside(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not name.strip() or not path:
            raise click.BadParameter(f"{text!r} is not NAME=FILE, as in height=dsm.tif", ctx, param)
        if name.strip() in found:
            raise click.BadParameter(f"band {name.strip()!r} is given twice; give one raster for it", ctx, param)
        found[name.strip()] = path
    return found


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
    # Shell completion parses options too, and must not start a thread.
    if is_wanted and not ctx.resilient_parsing:
        stop_on_stdin_eof()


def _scale(ctx: click.Context, param: click.Parameter, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    if ends and ends[0] >= ends[1]:
        raise click.BadParameter(f"{ends[0]:g} is not below {ends[1]:g}", ctx, param)
    return ends


class Option(click.Option):
    """An option that stands under a heading of its verb's help."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


def option(*names: str, group: str, **attributes: Any) -> Callable[[FunctionT], FunctionT]:
    """Add an option that stands under the heading ``group`` of its verb's help."""
    return click.option(*names, cls=Option, group=group, **attributes)


def path_option(*names: str, group: str, help: str, required: bool = False) -> Callable[[FunctionT], FunctionT]:
    """Add an option that names a file to write or to read; the tool checks it."""
    return option(*names, group=group, type=click.Path(path_type=Path), metavar="FILE", help=help, required=required)


def progress_options(function: FunctionT) -> FunctionT:
    """Add ``--progress``, which the verb receives as ``reporter``, and ``--stop-on-stdin-eof``."""
    function = option(
        "--stop-on-stdin-eof",
        group="Run",
        is_flag=True,
        expose_value=False,
        # While options are read: torch loads for seconds, in which the parent may end already.
        callback=_start_watch,
        help="Stop when standard input closes, as it does when the program that started this one ends.",
    )(function)
    return option(
        "--progress",
        "reporter",
        group="Run",
        type=click.Choice(["auto", "json", "none"]),
        default="auto",
        show_default=True,
        callback=lambda ctx, _param, mode: reporter_for(mode, ctx.command),
        is_eager=True,
        help="auto: a progress line in a terminal, warnings elsewhere. json: one event per line on stdout.",
    )(function)


overwrite_option = option("--overwrite", group="Outputs", is_flag=True, help="Replace existing outputs.")
uncertain_option = path_option(
    "--uncertain",
    group="Outputs",
    help="Write the ten squares in which the model is least certain (.gpkg): where to look, and to label, first.",
)
json_option = option("--json", "as_json", group="Outputs", is_flag=True, help="Print JSON.")
bands_option = option(
    "--bands",
    group="Input values",
    callback=_bands,
    metavar="BANDS",
    help="Bands of the scene that the model's are, in its order: names (nir,red,green) or numbers from 1 (4,1,2); or what the "
    "scene's bands are: RGB, BGR, RGBN, BGRN or gray.  [default: found by name]",
)
with_option = option(
    "--with",
    "beside",
    group="Input values",
    multiple=True,
    callback=_beside,
    metavar="NAME=FILE",
    help="Read one of the model's bands from another raster of the same place, of any CRS and resolution, as in "
    "height=dsm.tif. Repeat it for more bands.",
)
scale_option = option(
    "--scale",
    "scaling",
    group="Input values",
    nargs=2,
    type=float,
    callback=_scale,
    metavar="MIN MAX",
    help="Map MIN..MAX to the model's 0..255 input range.",
)
nodata_option = option(
    "--nodata",
    group="Input values",
    type=float,
    metavar="VALUE",
    help="Nodata value of a scene that declares none.",
)
device_option = option(
    "--device",
    group="Run",
    callback=_device,
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="Where the network runs: auto, cpu, cuda, cuda:N or mps.",
)
data_option = option(
    "--data",
    group="Data",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Folder that the file patterns in CONFIG.toml are relative to.  [default: the current folder]",
)
batch_option = option(
    "--batch",
    "batch_size",
    group="Run",
    callback=_batch,
    default="auto",
    show_default=True,
    metavar="N|auto",
    help="Patches per step of the network; halved automatically when a GPU runs out of memory.",
)
