"""The plugin understands what ``--progress json`` writes, and is not misled by anything else."""

from __future__ import annotations

import io

import pytest
from geoglnet_qgis.events import PROTOCOL_VERSION, Course, Event, ProtocolError, check_protocol, parse_event
from hypothesis import given
from hypothesis import strategies as st

from geoglnet.cli import terminal
from geoglnet.cli.terminal import JsonReporter


def test_plugin_and_program_speak_the_same_version() -> None:
    assert PROTOCOL_VERSION == terminal.PROTOCOL_VERSION


def test_every_event_of_the_program_is_understood() -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream)
    reporter.plan("segment", 2, "patches")
    reporter.log("a rule")
    reporter.warn("ä warning")
    reporter.advance(2, loss=0.5)
    reporter.done("written", {"labels": "a.tif"})
    reporter.failed("no", "SceneError")
    events = [parse_event(line) for line in stream.getvalue().splitlines()]
    assert [event and event.kind for event in events] == ["plan", "log", "warning", "progress", "done", "error"]
    assert events[2] is not None
    assert events[2].message == "ä warning"
    assert events[3] is not None
    assert events[3].fields["fraction"] == 1.0


@given(st.text())
def test_any_other_line_is_no_event(line: str) -> None:
    assert parse_event(line) is None


@pytest.mark.parametrize("line", ["[1]", "{}", '{"event": 3, "v": 1}', "null", '"event"', "[" * 100_000])
def test_json_that_is_no_event_is_none(line: str) -> None:
    assert parse_event(line) is None


@pytest.mark.parametrize(("version", "remedy"), [(2, "upgrade this plugin"), (0, "pip install"), (None, "pip install")])
def test_another_version_says_what_to_upgrade(version: int | None, remedy: str) -> None:
    with pytest.raises(ProtocolError, match=remedy):
        check_protocol(version)


@given(
    st.lists(st.tuples(st.sampled_from(["plan", "progress"]), st.floats(allow_nan=True))),
    st.lists(st.floats(0, 0.5), max_size=2),
)
def test_a_course_never_goes_back_and_ends_at_one(steps: list[tuple[str, float]], shares: list[float]) -> None:
    course = Course(shares)
    before = 0.0
    for kind, fraction in steps:
        now = course.follow(Event(kind, {"fraction": fraction}))
        assert before <= now <= 1
        before = now
    assert course.follow(Event("done")) == 1


def test_a_course_gives_every_stage_its_share() -> None:
    course = Course((0.5, 0.4))
    fractions = []
    for _ in range(3):
        course.follow(Event("plan"))
        fractions.append(course.follow(Event("progress", {"fraction": 1.0})))
    assert fractions == pytest.approx([0.5, 0.9, 0.95])
