"""The plugin's runner stays with a program to its end, whatever it does, and leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from geoglnet_qgis import runner
from geoglnet_qgis.environment import clean_environment
from geoglnet_qgis.events import Event, ProtocolError
from geoglnet_qgis.runner import Outcome, run_program

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins for the program are POSIX scripts")
PLUGIN = Path(runner.__file__).parents[1]
PATIENCE_S = 60.0
HEADER = """
import json, os, signal, subprocess, sys, threading, time
def say(event, **fields):
    print(json.dumps({"v": 1, "event": event, **fields}), flush=True)
"""


class Run:
    """Runs a script as the program; keeps the events."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.heard: list[str] = []

    def words(self, script: str) -> list[str]:
        path = self.folder / "program.py"
        path.write_text(HEADER + textwrap.dedent(script), encoding="utf-8")
        return [sys.executable, str(path)]

    def __call__(self, script: str, is_canceled: Callable[[], bool] = lambda: False, grace_s: float = 20.0) -> Outcome:
        return run_program(
            self.words(script),
            clean_environment(os.environ),
            self.events.append,
            is_canceled,
            hear=self.heard.append,
            grace_s=grace_s,
        )

    def has_said(self, text: str) -> bool:
        return any(text in event.message for event in self.events)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def wait_until_gone(pid: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while is_running(pid):
        assert time.monotonic() < until, f"process {pid} still runs"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_a_run_that_succeeds_gives_its_events_in_order(run: Run) -> None:
    outcome = run("say('plan', stage='s', total=1); say('progress', fraction=1); say('done', outputs={'labels': 'ü.tif'})")
    assert outcome.is_success
    assert [event.kind for event in run.events] == ["plan", "progress", "done"]
    assert outcome.done is not None
    assert outcome.done.fields["outputs"] == {"labels": "ü.tif"}


def test_an_error_event_is_the_explanation(run: Run) -> None:
    outcome = run("say('error', message='the disk is full', kind='OutputError'); sys.exit(1)")
    assert not outcome.is_success
    assert outcome.explanation() == "the disk is full"


def test_a_crash_is_explained_by_its_last_words(run: Run) -> None:
    outcome = run("raise ImportError('DLL load failed')")
    assert outcome.code == 1
    assert "DLL load failed" in outcome.explanation()


def test_a_program_killed_by_the_system_is_explained(run: Run) -> None:
    assert "SIGKILL; did memory run out?" in run("os.kill(os.getpid(), signal.SIGKILL)").explanation()


def test_a_program_that_prints_rubbish_is_not_taken_for_geoglnet(run: Run) -> None:
    outcome = run(r"sys.stdout.buffer.write(b'\xff\xfe rubbish\n' * 100 + b'[]\n{\"event\": 1}\n')")
    assert not outcome.is_success
    assert "another program" in outcome.explanation()
    assert not run.events


def test_what_libraries_print_does_not_disturb_a_run(run: Run) -> None:
    outcome = run("print('Downloading 100 %'); print('a warning', file=sys.stderr); say('done', outputs={})")
    assert outcome.is_success
    assert {"Downloading 100 %", "a warning"} <= set(run.heard)


def test_another_protocol_ends_the_program(run: Run) -> None:
    with pytest.raises(ProtocolError, match="upgrade this plugin"):
        run("print(json.dumps({'v': 2, 'event': 'plan', 'pid': os.getpid()}), flush=True); time.sleep(1000)")


def test_a_flood_on_standard_error_blocks_nothing(run: Run) -> None:
    assert run("sys.stderr.write('x' * 5_000_000 + '\\n' * 1000); say('done', outputs={})").is_success


def test_a_program_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(OSError, match="nowhere"):
        run_program(["/nowhere/geoglnet"], {}, lambda event: None)


def test_cancel_lets_the_program_clean_up(run: Run) -> None:
    outcome = run(
        """
        try:
            say('log', message='ready')
            time.sleep(1000)
        except KeyboardInterrupt:
            say('log', message='cleaned up'); sys.exit(130)
        """,
        is_canceled=lambda: run.has_said("ready"),
    )
    assert outcome.was_canceled
    assert outcome.code == 130
    assert outcome.explanation() == "canceled"
    assert run.has_said("cleaned up")


def test_cancel_on_windows_is_the_end_of_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
        say('log', message='ready')
        sys.stdin.read()
        say('log', message='cleaned up'); sys.exit(130)
        """
    monkeypatch.setattr(runner, "_own_group", lambda: {"start_new_session": True})
    monkeypatch.setattr(runner, "IS_WINDOWS", True)
    outcome = run(script, is_canceled=lambda: run.has_said("ready"))
    assert (outcome.code, outcome.was_canceled) == (130, True)


def test_windows_ends_a_tree_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(runner, "IS_WINDOWS", True)
    monkeypatch.setattr(runner.subprocess, "run", lambda words, **_: calls.append(words))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        runner._kill_group(process)
        process.communicate(b"\n")
    assert calls[0][0].endswith("taskkill.exe")
    assert calls[0][1:] == ["/F", "/T", "/PID", str(process.pid)]


def test_a_program_that_does_not_listen_is_ended_with_all_its_children(run: Run) -> None:
    outcome = run(
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])
        say('log', message=f'{os.getpid()} {child.pid}')
        while True:
            print('rubbish', flush=True)
        """,
        is_canceled=lambda: bool(run.events),
        grace_s=0.5,
    )
    assert outcome.was_canceled
    for pid in run.events[0].message.split():
        wait_until_gone(int(pid))


def test_a_grandchild_that_holds_the_pipes_does_not_hold_up_the_end(run: Run) -> None:
    outcome = run(
        """
        child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])
        say('log', message=str(child.pid))
        say('done', outputs={})
        """
    )
    assert outcome.is_success
    wait_until_gone(int(run.events[0].message))


def test_the_program_learns_that_its_parent_was_killed(run: Run) -> None:
    words = run.words("say('log', message=str(os.getpid())); sys.stdin.read()")
    parent = (
        "import sys; sys.path.insert(0, sys.argv[1]); from geoglnet_qgis.runner import run_program;"
        "import os; run_program(sys.argv[2:], os.environ, lambda event: print(event.message, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", parent, str(PLUGIN), *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_running(pid)
        process.send_signal(signal.SIGKILL)
    wait_until_gone(pid)
