"""How a verb ends: our errors become one line and an exit code; only a bug shows a traceback."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Any, NoReturn

import click

from geoglnet.cli.process import abandon, address_space_limit, check_address_space, explain_limit, unprinted
from geoglnet.cli.terminal import JsonReporter, Reporter, in_options
from geoglnet.errors import Canceled, GeoglnetError, TasksFailedError
from geoglnet.escaping import visible

FAILED, TASKS_FAILED, CANCELED = 1, 4, 130
FEW_OPTIONS, LAST, WIDEST = 8, "Run", 30  # in a help: most options under one heading, the last heading, width of names
_EXPECTED = (GeoglnetError, KeyboardInterrupt, MemoryError, OSError, ImportError, RuntimeError)
_LOAD_TORCH = (
    "predict",
    "work",
    "batch",
    "train",
    "adapt",
    "evaluate",
    "benchmark",
    "export",
    "import-model",
    "import-official",
)
_EXTRAS = {  # library: the extra that brings it
    **dict.fromkeys(("lightning", "matplotlib", "requests", "tensorboard", "torchgeo"), "train"),
    "ray": "ray",
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
}


class Verb(click.Command):
    """A command whose expected errors are one line on stderr (and an ``error`` event with ``--progress json``)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, expose_value=False, callback=_keep, help="Show tracebacks."))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under headings in the order of their first options, "Run" last; a few options need no headings."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        rows = [(getattr(one, "group", LAST), *record) for one in options if (record := one.get_help_record(ctx))]
        if len(rows) <= FEW_OPTIONS:
            rows = [("Options", names, text) for _, names, text in rows]
        width = min(WIDEST, max(len(names) for _, names, _ in rows))  # of all groups, so that their texts stand in one column
        # False sorts before True and sorting is stable: "Run" goes last, the others keep their order.
        for heading in sorted(dict.fromkeys(group for group, _, _ in rows), key=LAST.__eq__):
            with formatter.section(heading):
                formatter.write_dl([(names.ljust(width), text) for group, names, text in rows if group == heading], WIDEST)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # From the words themselves: when parsing fails, --progress may not have been read yet.
        wants_events = "--progress json" in " ".join(args).replace("=", " ")
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if wants_events:
                JsonReporter().failed(error.format_message(), "UsageError")
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; expected errors end in one line and an exit code."""
        try:
            if ctx.info_name in _LOAD_TORCH:
                check_address_space()
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):  # RuntimeErrors both
            raise
        except click.UsageError as error:
            _report(ctx, error.format_message(), "UsageError")
            raise
        except _EXPECTED as error:
            # click's main ends quietly on a broken pipe; a bug should show its traceback.
            if is_broken_pipe(error) or is_bug(error):
                raise
            _end(ctx, error)


def is_broken_pipe(error: BaseException) -> bool:
    """Return whether the reader of stdout has gone (``geoglnet models | head``)."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def is_bug(error: BaseException) -> bool:
    """Return whether an error is a bug: neither ours, nor a missing extra, nor a lack of memory."""
    if isinstance(error, ModuleNotFoundError):
        return (error.name or "").split(".")[0] not in _EXTRAS
    if isinstance(error, (ImportError, RuntimeError)) and not isinstance(error, GeoglnetError):
        # Under ulimit -v any library may fail to load or allocate, in words of its own.
        return address_space_limit() is None and not is_out_of_memory(error)
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; on the CPU torch raises a plain RuntimeError that only its text tells apart."""
    text = str(error) if isinstance(error, RuntimeError) else ""
    return "DefaultCPUAllocator" in text or (isinstance(error, MemoryError) and not isinstance(error, GeoglnetError))


def sentence_of(error: BaseException, command: click.Command | None = None) -> str:
    """Write what a person should read, on one line, in the options of a command."""
    if isinstance(error, (KeyboardInterrupt, Canceled)):
        return "canceled; no half-written file is left"
    if is_out_of_memory(error):
        return "out of memory; close other programs, or use a smaller --batch or another --device" + explain_limit()
    if isinstance(error, (ImportError, RuntimeError)) and not isinstance(error, (GeoglnetError, ModuleNotFoundError)):
        return visible(" ".join(str(error).split())[:200]) + explain_limit()
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"disk full while writing {error.filename or 'an output'}; free some space or choose another folder"
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; pip install 'geoglnet[{_EXTRAS[(error.name or '').split('.')[0]]}]'"
    # args[0] and not str(): a Message still knows its keywords, which become options.
    message = error.args[0] if isinstance(error, GeoglnetError) and error.args else str(error)
    return visible(" ".join(in_options(message, command).split())) or type(error).__name__


def _end(ctx: click.Context, error: BaseException) -> NoReturn:
    if ctx.meta.get("geoglnet.debug"):
        traceback.print_exception(error)
    canceled = isinstance(error, (KeyboardInterrupt, Canceled))
    message = sentence_of(error, ctx.command)
    if isinstance(error, OSError):
        message = unprinted(error) or message
    _report(ctx, message, "Canceled" if canceled else type(error).__name__)
    try:
        click.echo(message.capitalize() if canceled else f"Error: {message}", err=True)
    except OSError:
        abandon(sys.stderr)  # nobody is left to tell
    ctx.exit(CANCELED if canceled else TASKS_FAILED if isinstance(error, TasksFailedError) else FAILED)


def _report(ctx: click.Context, message: str, kind: str) -> None:
    reporter: Reporter | None = ctx.params.get("reporter")
    if reporter is not None:
        reporter.failed(message, kind)


def _keep(ctx: click.Context, _: click.Parameter, is_debug: bool) -> None:
    ctx.meta["geoglnet.debug"] = is_debug
