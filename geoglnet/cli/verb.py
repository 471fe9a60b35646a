"""How a verb ends: our errors become one line and an exit code; only a bug shows a traceback."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Any, NoReturn

import click

from geoglnet.cli.terminal import JsonReporter, Reporter
from geoglnet.errors import Cancelled, GeoglnetError
from geoglnet.escaping import visible

FAILED, CANCELLED = 1, 130
_EXPECTED = (GeoglnetError, KeyboardInterrupt, MemoryError, OSError, ModuleNotFoundError)
_EXTRAS = dict.fromkeys(("lightning", "matplotlib", "tensorboard", "torchgeo"), "train")  # library: the extra that brings it


class Verb(click.Command):
    """A command whose expected errors are one line on stderr (and an ``error`` event with ``--progress json``)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, expose_value=False, callback=_keep, help="Show tracebacks."))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        wants_events = "--progress json" in " ".join(args).replace("=", " ")
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if wants_events:
                JsonReporter().failed(error.format_message(), "UsageError")
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; what may go wrong outside our power ends in one line."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _report(ctx, error.format_message(), "UsageError")
            raise
        except _EXPECTED as error:
            if is_broken_pipe(error) or is_bug(error):
                raise
            _end(ctx, error)


def is_broken_pipe(error: BaseException) -> bool:
    """Whether the reader of our stdout has gone (``geoglnet models | head``)."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def is_bug(error: BaseException) -> bool:
    """Whether a module is missing that no extra would have brought."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in _EXTRAS


def sentence_of(error: BaseException) -> str:
    """What a person should read, on one line."""
    if isinstance(error, (KeyboardInterrupt, Cancelled)):
        return "cancelled; no half-written file is left"
    if isinstance(error, MemoryError):
        return "out of memory; close other programs, or use a smaller --batch or another --device"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"disk full while writing {error.filename or 'an output'}; free some space or choose another folder"
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; pip install 'geoglnet[{_EXTRAS[(error.name or '').split('.')[0]]}]'"
    return visible(" ".join(str(error).split())) or type(error).__name__


def _end(ctx: click.Context, error: BaseException) -> NoReturn:
    if ctx.meta.get("geoglnet.debug"):
        traceback.print_exception(error)
    cancelled = isinstance(error, (KeyboardInterrupt, Cancelled))
    message = sentence_of(error)
    _report(ctx, message, "Cancelled" if cancelled else type(error).__name__)
    try:
        click.echo(message.capitalize() if cancelled else f"Error: {message}", err=True)
    except BrokenPipeError:
        os._exit(CANCELLED if cancelled else FAILED)  # nobody is left to tell
    ctx.exit(CANCELLED if cancelled else FAILED)


def _report(ctx: click.Context, message: str, kind: str) -> None:
    reporter: Reporter | None = ctx.params.get("reporter")
    if reporter is not None:
        try:
            reporter.failed(message, kind)
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - the interpreter flushes it at exit


def _keep(ctx: click.Context, _: click.Parameter, is_debug: bool) -> None:
    ctx.meta["geoglnet.debug"] = is_debug
