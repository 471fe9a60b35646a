"""What tools report can be dropped or kept."""

from __future__ import annotations

from geoglnet.progress import Progress, RecordedProgress, SilentProgress


def report_a_run(progress: Progress) -> None:
    progress.plan("predict", 2, "regions")
    progress.advance()
    progress.advance(loss=0.5)
    progress.log("read at 0.2 m")
    progress.warn("outside the range")


def test_nobody_needs_to_watch() -> None:
    report_a_run(SilentProgress())


def test_recorded_events_come_back_in_order() -> None:
    progress = RecordedProgress()
    report_a_run(progress)
    assert [event["event"] for event in progress.events] == ["plan", "progress", "progress", "log", "warning"]
    assert progress.events[2] == {"event": "progress", "amount": 1, "loss": 0.5}
    assert progress.messages("log") == ["read at 0.2 m"]
    assert progress.messages("warning") == ["outside the range"]
