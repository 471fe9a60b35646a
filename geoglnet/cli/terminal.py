"""Adapters of the Progress port: a line that a person watches, or JSON events that a program reads."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

import click

from geoglnet.cli.process import abandon
from geoglnet.errors import OutputError
from geoglnet.escaping import encodable, visible
from geoglnet.message import Keyword, Message
from geoglnet.progress import Progress, Rule

PROTOCOL_VERSION = 1
MINUTE_S, MOST_COLUMNS = 60.0, 160  # of a log
INTERVAL_S = 0.1  # a terminal, or the program that reads events, gains nothing from more
BAR_WIDTH = 24


class Reporter(Progress, Protocol):
    """A Progress that also learns how the run ended."""

    def done(self, sentence: str, outputs: Mapping[str, Any]) -> None:
        """Report success: ``sentence`` is for people, ``outputs`` (paths and counts) for programs."""

    def failed(self, message: str, kind: str) -> None:
        """Report an error, which the caller also writes to stderr."""


@dataclass(slots=True)
class StageProgress:
    """How far the current stage has come."""

    name: str = ""
    total: int = 0
    unit: str = ""
    count: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    shown: float = 0.0

    def advance(self, amount: int, figures: Mapping[str, float]) -> None:
        self.count += amount
        self.figures.update(figures)

    @property
    def fraction(self) -> float:
        return min(1.0, self.count / self.total) if self.total > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimate the time to the stage's end by its rate; ``None`` before its first step."""
        elapsed = time.monotonic() - self.started
        return elapsed * max(0, self.total - self.count) / self.count if self.count else None

    def is_due(self, interval_s: float = 0.0) -> bool:
        """Return whether it is time to show the stage again; the end is always shown, unless a longer interval is given."""
        now = time.monotonic()
        is_over = self.count == self.total and not interval_s
        if now - max(self.shown, self.started if interval_s else 0.0) < (interval_s or INTERVAL_S) and not is_over:
            return False
        self.shown = now
        return True

    def describe(self, width: int) -> str:
        """Write one line of at most ``width`` columns: name, bar, share, count, rate, time left, figures."""
        filled = round(self.fraction * BAR_WIDTH)
        bar = "█" * filled + "·" * (BAR_WIDTH - filled)
        elapsed = max(time.monotonic() - self.started, 1e-9)
        parts = [f"{self.name} {bar} {self.fraction:4.0%}", f"{self.count}/{self.total} {self.unit}"]
        if self.count:
            rate = self.count / elapsed
            parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
            parts.append(
                f"{clock((self.total - self.count) / rate)} left" if self.count < self.total else f"in {clock(elapsed)}"
            )
        parts += [f"{name} {value:.4g}" for name, value in self.figures.items()]
        # A line that wraps could not be rewritten: a carriage return goes back in its last row only.
        return "  ".join(parts)[:width]


def clock(seconds: float) -> str:
    """Format a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def count_of(number: int, noun: str) -> str:
    """Write ``1 polygon``, ``2 polygons``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def in_options(message: str, command: click.Command | None) -> str:
    """Write a message of the library in the words of the command line: keywords become the options of ``command``."""
    if command is None or not isinstance(message, Message):
        return str(message)
    # The last of an option's names is the long one.
    options = {param.name: param.opts[-1] for param in command.params if isinstance(param, click.Option)}

    def spell(keyword: Keyword) -> str:
        # predict names its options by the output (--labels), its keywords by the path (labels_path).
        option = options.get(keyword.name) or options.get(keyword.name.removesuffix("_path"))
        if option is None or keyword.value in (None, True):
            return option or str(keyword)
        # 15 digits are those that a float always keeps; 17 would write 0.1 as 0.10000000000000001.
        return f"{option} {keyword.value:.15g}" if isinstance(keyword.value, float) else f"{option} {keyword.value}"

    return message.spelled(spell)


def _print(text: str, stream: TextIO, end: str = "\n") -> OSError | None:
    """Print a line of progress; return the error if the stream cannot be written, because the run should go on."""
    try:
        # A pipe is buffered: without a flush its reader would get events in lumps, long after they happened.
        print(text, end=end, file=stream, flush=True)
    except OSError as error:
        abandon(stream)
        return error
    return None


@dataclass(slots=True)
class QuietReporter:
    """Warnings and the closing line, on stderr, for ``--progress none``; in pipes and logs also rules that decide results."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    tells_rules: bool = False
    command: click.Command | None = None
    stage: StageProgress = field(default_factory=StageProgress)

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        self.stage = StageProgress(stage, total, unit)

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.stage.advance(amount, figures)
        # A line a minute in logs and pipes: hours of silence look like a program that hangs.
        if self.tells_rules and self.stage.is_due(MINUTE_S):
            _print(self.stage.describe(MOST_COLUMNS), self.stream)

    def log(self, message: str) -> None:
        if self.tells_rules and isinstance(message, Rule):
            _print(f"Note: {visible(in_options(message, self.command))}", self.stream)

    def warn(self, message: str) -> None:
        _print(f"Warning: {visible(in_options(message, self.command))}", self.stream)

    def done(self, sentence: str, outputs: Mapping[str, Any]) -> None:
        _print(visible(sentence), self.stream)

    def failed(self, message: str, kind: str) -> None: ...


@dataclass(slots=True)
class TerminalReporter:
    """One line on stderr that is rewritten in place; log lines scroll above it."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    stage: StageProgress = field(default_factory=StageProgress)
    command: click.Command | None = None

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        self._finish_line()
        self.stage = StageProgress(stage, total, unit)
        self._show()

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.stage.advance(amount, figures)
        if self.stage.is_due():
            self._show()

    def log(self, message: str) -> None:
        self._print_above(in_options(message, self.command))

    def warn(self, message: str) -> None:
        self._print_above(f"Warning: {in_options(message, self.command)}")

    def done(self, sentence: str, outputs: Mapping[str, Any]) -> None:
        self._finish_line()
        _print(visible(sentence), self.stream)

    def failed(self, message: str, kind: str) -> None:
        self._finish_line()

    def _show(self) -> None:
        if self.stage.total > 0:
            # One less: some terminals wrap a line as soon as its last column is written.
            width = shutil.get_terminal_size().columns - 1
            # To the first column, and erase the line (ECMA-48 EL 2): what follows may be shorter.
            _print(f"\r\x1b[2K{self.stage.describe(width)}", self.stream, end="")

    def _print_above(self, line: str) -> None:
        _print(f"\r\x1b[2K{visible(line)}", self.stream)
        self._show()

    def _finish_line(self) -> None:
        if self.stage.total > 0:
            self._show()
            _print("", self.stream)
        self.stage = StageProgress()


@dataclass(slots=True)
class JsonReporter:
    """Events as JSON lines on stdout: ``{"v": 1, "event": "plan|progress|log|warning|error|done", …}``."""

    stream: TextIO = field(default_factory=lambda: sys.stdout)
    stage: StageProgress = field(default_factory=StageProgress)
    command: click.Command | None = None
    lost: OSError | None = None

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        self.stage = StageProgress(stage, total, unit)
        self._emit("plan", stage=stage, total=total, unit=unit, **figures)

    def advance(self, amount: int = 1, **figures: float) -> None:
        stage = self.stage
        stage.advance(amount, figures)
        if stage.is_due():
            place = {"stage": stage.name, "done": stage.count, "total": stage.total, "fraction": round(stage.fraction, 4)}
            left = stage.seconds_left
            more = {} if left is None else {"seconds_left": round(left, 1)}
            self._emit("progress", **place, figures=stage.figures, **more)

    def log(self, message: str) -> None:
        self._emit("log", message=visible(in_options(message, self.command)))

    def warn(self, message: str) -> None:
        self._emit("warning", message=visible(in_options(message, self.command)))

    def done(self, sentence: str, outputs: Mapping[str, Any]) -> None:
        self._emit("done", message=visible(sentence), outputs=_encodable(outputs))
        if self.lost is not None and self.lost.errno != errno.EPIPE:  # a reader that has left needs no telling
            raise OutputError(f"the outputs are complete, but standard output cannot be written: {self.lost.strerror}")

    def failed(self, message: str, kind: str) -> None:
        self._emit("error", message=visible(message), kind=kind)

    def _emit(self, event: str, **facts: Any) -> None:
        # After the first failure nothing is printed any more; done() reports it, for the run goes on.
        self.lost = self.lost or _print(json.dumps({"v": PROTOCOL_VERSION, "event": event, **facts}, default=str), self.stream)


def _encodable(value: Any) -> Any:
    """Convert a tree of outputs to what any JSON parser takes."""
    if isinstance(value, Mapping):
        return {encodable(str(key)): _encodable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float)) else encodable(str(value))


def reporter_for(mode: str, command: click.Command) -> Reporter:
    """Make the adapter for ``--progress``: ``auto`` draws in a terminal, and says little elsewhere."""
    if mode == "json":
        return JsonReporter(command=command)
    if mode == "auto" and sys.stderr.isatty():
        return TerminalReporter(command=command)
    return QuietReporter(tells_rules=mode == "auto", command=command)
