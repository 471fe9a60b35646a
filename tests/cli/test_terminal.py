"""What the adapters of the Progress port write, and where."""

from __future__ import annotations

import io
import json
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoglnet.cli import terminal
from geoglnet.cli.terminal import (
    JsonReporter,
    QuietReporter,
    Reporter,
    StageProgress,
    TerminalReporter,
    clock,
    count_of,
    in_options,
    reporter_for,
)
from geoglnet.message import Keyword

COMMAND = click.Command(
    "predict",
    params=[
        click.Option(["--overwrite"], is_flag=True),
        click.Option(["--bands"]),
        click.Option(["-o", "--labels"]),
        click.Option(["--resolution", "resolution_m"], type=float),
    ],
)


def report_a_run(reporter: Reporter) -> None:
    reporter.log("read at 0.2 m")
    reporter.plan("predict", 4, "regions")
    for _ in range(4):
        reporter.advance(loss=0.5)
    reporter.warn("outside the range")
    reporter.done("2 polygons in out.gpkg", {"num_polygons": 2})


def events_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_events_are_json_lines_with_a_version_and_a_name() -> None:
    stream = io.StringIO()
    report_a_run(JsonReporter(stream))
    events = events_of(stream)
    assert all(event["v"] == terminal.PROTOCOL_VERSION for event in events)
    assert [event["event"] for event in events if event["event"] != "progress"] == ["log", "plan", "warning", "done"]
    assert events[-1]["outputs"] == {"num_polygons": 2}


def test_events_are_throttled_but_the_end_of_a_stage_always_shows() -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream)
    reporter.plan("predict", 1000, "regions")
    for _ in range(1000):
        reporter.advance()
    shown = [event for event in events_of(stream) if event["event"] == "progress"]
    assert len(shown) < 100
    assert shown[-1] == {
        "v": 1, "event": "progress", "stage": "predict", "done": 1000, "total": 1000, "fraction": 1.0, "figures": {},
        "seconds_left": 0.0,
    }  # fmt: skip


def test_an_error_is_an_event_with_its_kind() -> None:
    stream = io.StringIO()
    JsonReporter(stream).failed("no such file", "SceneNotFoundError")
    assert events_of(stream) == [{"v": 1, "event": "error", "message": "no such file", "kind": "SceneNotFoundError"}]


def test_a_pipe_gets_warnings_and_the_closing_line_only() -> None:
    stream = io.StringIO()
    report_a_run(QuietReporter(stream))
    assert stream.getvalue().splitlines() == ["Warning: outside the range", "2 polygons in out.gpkg"]


def test_a_terminal_gets_one_line_rewritten_in_place_and_log_lines_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    stream = io.StringIO()
    report_a_run(TerminalReporter(stream))
    rows = [row.rsplit("\r\x1b[2K", 1)[-1] for row in stream.getvalue().split("\n")]
    assert rows[0] == "read at 0.2 m"
    assert rows[1] == "Warning: outside the range"
    assert rows[2].startswith("predict ████████████████████████ 100%  4/4 regions")
    assert "loss 0.5" in rows[2]
    assert rows[3:] == ["2 polygons in out.gpkg", ""]


def test_a_failed_run_leaves_the_cursor_on_a_fresh_line() -> None:
    stream = io.StringIO()
    reporter = TerminalReporter(stream)
    reporter.plan("predict", 4, "regions")
    reporter.failed("disk full", "OutputError")
    assert stream.getvalue().endswith("\n")


def test_the_line_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.time, "monotonic", lambda: 130.0)
    stage = StageProgress("predict", total=40, unit="regions", count=10, started=100.0)
    assert stage.describe(200).endswith("25%  10/40 regions  3.0 s each  1:30 left")


@given(st.integers(0, 10), st.integers(0, 20), st.integers(10, 200))
def test_the_line_is_never_wider_than_the_terminal(total: int, count: int, width: int) -> None:
    assert len(StageProgress("predict", total, "regions", count).describe(width)) <= width


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        (Keyword("overwrite", True), "--overwrite"),
        (Keyword("bands"), "--bands"),
        (Keyword("labels_path", "a.tif"), "--labels a.tif"),
        (Keyword("resolution_m", 10.0), "--resolution 10"),
        (Keyword("sieve", "10px"), "sieve='10px'"),
    ],
    ids=str,
)
def test_keywords_become_options_where_the_verb_has_one(keyword: Keyword, text: str) -> None:
    assert in_options("--x.tif: pass " + keyword + ".", COMMAND) == f"--x.tif: pass {text}."


@pytest.mark.parametrize("mode", ["json", "auto", "none"])
def test_warnings_name_options(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    reporter_for(mode, COMMAND).warn("choose " + Keyword("bands"))
    assert "choose --bands" in "".join(capsys.readouterr())


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01")])
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 polygons"), (1, "1 polygon"), (2, "2 polygons")])
def test_counts_read_like_english(number: int, text: str) -> None:
    assert count_of(number, "polygon") == text


def test_auto_is_quiet_when_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(reporter_for("auto", COMMAND), QuietReporter)
    assert isinstance(reporter_for("none", COMMAND), QuietReporter)
    assert isinstance(reporter_for("json", COMMAND), JsonReporter)


def test_auto_draws_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    assert isinstance(reporter_for("auto", COMMAND), TerminalReporter)
