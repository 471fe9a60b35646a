"""The plugin understands what ``--progress json`` writes, and is not misled by anything else."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from geoglnet_qgis.events import PROTOCOL_VERSION, SHARES, Course, Event, ProtocolError, check_protocol, parse_event
from hypothesis import given
from hypothesis import strategies as st

import geoglnet
from geoglnet.cli import terminal
from geoglnet.cli.terminal import JsonReporter
from geoglnet.config import Stage


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
    st.lists(st.tuples(st.sampled_from(["plan", "progress"]), st.sampled_from("abc"), st.floats(allow_nan=True))),
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 1)),
)
def test_a_course_never_goes_back_and_ends_at_one(steps: list[tuple[str, str, float]], shares: dict[str, float]) -> None:
    course = Course(shares)
    before = 0.0
    for kind, stage, fraction in steps:
        now = course.follow(Event(kind, {"stage": stage, "fraction": fraction}))
        assert before <= now <= 1
        before = now
    assert course.follow(Event("done")) == 1


def test_a_course_gives_every_stage_its_share_and_an_unknown_one_half_of_what_is_left() -> None:
    course = Course({"global": 0.5, "local": 0.4})
    fractions = []
    for stage in ("global", "new", "local", "local"):
        course.follow(Event("plan", {"stage": stage}))
        fractions.append(course.follow(Event("progress", {"fraction": 1.0})))
    assert fractions == pytest.approx([0.5, 0.75, 1.0, 1.0])


@pytest.mark.parametrize("name", SHARES)
def test_every_stage_that_has_a_share_is_one_of_the_programs(name: str) -> None:
    said = "\n".join(path.read_text(encoding="utf-8") for path in Path(geoglnet.__file__).parent.rglob("*.py"))
    stages = {f"{stage.value} stage" for stage in Stage}
    assert name in stages or f'.plan("{name}",' in said
