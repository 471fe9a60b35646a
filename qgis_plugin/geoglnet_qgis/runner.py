"""Runs the program: reads its events, cancels it, and never leaves it or its children behind."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import IO

from .environment import private_folder
from .events import Event, parse_event

POLL_S = 0.1
GRACE_S = 15.0  # between asking the program to stop and ending it by force; a step of the network takes seconds on a slow CPU
DRAIN_S = 2.0  # for what a finished program still had to say; a grandchild may hold its pipes open
MAX_LINE = 1 << 20
KEPT_LINES = 20
IS_WINDOWS = sys.platform == "win32"


@dataclass
class Outcome:
    """How a run ended.

    Args:
        code: exit code; negative is a signal's number.
        done: the closing event of a run that succeeded.
        error: the event of one that failed.
        stderr: last lines on standard error.
        strange: last lines on standard output that are no events.
        was_canceled: the user stopped it.
    """

    code: int = 0
    done: Event | None = None
    error: Event | None = None
    stderr: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    strange: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    was_canceled: bool = False

    @property
    def is_success(self) -> bool:
        return self.code == 0 and self.done is not None and self.error is None and not self.was_canceled

    def explanation(self) -> str:
        """Write one sentence about a run that did not succeed."""
        if self.was_canceled:
            return "canceled"
        if self.error is not None and self.error.message:
            return self.error.message
        if self.code < 0:
            return f"geoglnet was ended by {_signal_name(-self.code)}; did memory run out?{self._last_words()}"
        if self.code == 0:
            return f"geoglnet ended without saying that it is done; is it another program?{self._last_words()}"
        return f"geoglnet failed with exit code {self.code}{self._last_words()}"

    def _last_words(self) -> str:
        said = [line for line in (*self.strange, *self.stderr) if line.strip()]
        return f" Its last words: {said[-1].strip()[:500]}" if said else ""


def run_program(
    words: Sequence[str],
    environment: Mapping[str, str],
    receive: Callable[[Event], None],
    is_canceled: Callable[[], bool] = lambda: False,
    *,
    hear: Callable[[str], None] = lambda line: None,
    grace_s: float = GRACE_S,
) -> Outcome:
    """Run the program and wait until it and all its children have ended.

    Args:
        words: program and arguments; no shell sees them.
        environment: all of the child's variables.
        receive: called with every event, in the calling thread.
        is_canceled: asked ten times a second.
        hear: called with other lines: standard error, and what is no event on standard output.
        grace_s: seconds that a canceled program has to clean up.

    Raises:
        OSError: the program cannot be started.
        ProtocolError: it speaks another version; it is ended.
    """
    outcome = Outcome()
    child = _Child(words, environment)
    try:
        for stream, line in child.iter_lines(is_canceled, grace_s):
            event = parse_event(line) if stream == "stdout" else None
            if event is not None:
                _note(outcome, event)
                receive(event)
            else:
                (outcome.strange if stream == "stdout" else outcome.stderr).append(line)
                hear(line)
    finally:
        outcome.code = child.close()
    outcome.was_canceled = child.was_asked_to_stop
    return outcome


def _note(outcome: Outcome, event: Event) -> None:
    if event.kind == "done":
        outcome.done = event
    elif event.kind == "error":
        outcome.error = event


class _Child:
    """A process, the group that it leads, and two threads that read what it says.

    Its standard input stays open and is never written to: where QGIS dies, the system closes it, and the program stops.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.was_asked_to_stop = False
        self._deadline = float("inf")
        self._lines: queue.Queue[tuple[str, str | None]] = queue.Queue(maxsize=1000)
        with ExitStack() as started:
            folder = started.enter_context(private_folder())
            self._process = subprocess.Popen(
                list(words),
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **_own_group(),
            )
            self._folder = started.pop_all()  # left by close()
        pipes = {"stdout": self._process.stdout, "stderr": self._process.stderr}
        self._readers = [threading.Thread(target=self._read, args=pipe, daemon=True) for pipe in pipes.items()]
        for reader in self._readers:
            reader.start()

    def iter_lines(self, is_canceled: Callable[[], bool], grace_s: float) -> Iterator[tuple[str, str]]:
        """Yield lines by stream until both streams end, the process has ended, or the time is up."""
        num_open = len(self._readers)
        while num_open and not self._is_over():
            if not self.was_asked_to_stop and is_canceled():
                self.interrupt()
                self._deadline = time.monotonic() + grace_s
            try:
                stream, line = self._lines.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if line is None:
                num_open -= 1
            else:
                yield stream, line

    def interrupt(self) -> None:
        """Ask the program to clean up and leave: like Ctrl-C; on Windows, which has none for a program without console, by the
        end of its input."""
        self.was_asked_to_stop = True
        if self._process.poll() is not None:
            return
        if IS_WINDOWS:
            self._close(self._process.stdin)
        else:
            self._process.send_signal(signal.SIGINT)

    def close(self) -> int:
        """End what still runs of the whole group, and return the exit code."""
        with suppress(subprocess.TimeoutExpired):  # ended by force below
            self._process.wait(timeout=0 if self._is_over() else DRAIN_S)
        if self._process.poll() is None or self._is_read():
            _kill_group(self._process)  # only then: the number of a group that has gone may be another's by now
        code = self._process.wait()
        until = time.monotonic() + DRAIN_S
        while self._is_read() and time.monotonic() < until:
            self._discard_line()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            self._close(pipe)
        self._folder.close()
        return code

    def _is_over(self) -> bool:
        now = time.monotonic()
        if self._process.poll() is not None:
            self._deadline = min(self._deadline, now + DRAIN_S)
        return now >= self._deadline

    def _is_read(self) -> bool:
        """Return whether a pipe still has a writer or unread data."""
        return any(reader.is_alive() for reader in self._readers)

    def _discard_line(self) -> None:
        with suppress(queue.Empty):
            self._lines.get(timeout=0.01)

    def _read(self, stream: str, pipe: IO[bytes]) -> None:
        with suppress(OSError, ValueError):  # closed while it was read
            for line in iter(lambda: pipe.readline(MAX_LINE), b""):
                self._lines.put((stream, line.decode("utf-8", errors="replace").rstrip("\r\n")))
        self._lines.put((stream, None))

    @staticmethod
    def _close(pipe: IO[bytes] | None) -> None:
        with suppress(OSError):  # its other end is gone
            if pipe is not None:
                pipe.close()


def _own_group() -> dict[str, object]:
    if IS_WINDOWS:
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything that it started."""
    if IS_WINDOWS:
        if process.poll() is None:
            taskkill = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "taskkill.exe")
            subprocess.run([taskkill, "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
        return
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says so of a group of zombies
        os.killpg(process.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
