"""A run of the program inside a Processing algorithm: events become progress, errors become exceptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qgis.core import QgsProcessingException, QgsProcessingFeedback

from .events import Course, Event, ProtocolError
from .program import Answer, Program, ProgramError, ask, ask_verb, missing_options
from .runner import run_program
from .settings import child_environment, current_program
from .translation import tr


class FeedbackReceiver:
    """Shows events in the algorithm's dialog.

    Args:
        feedback: the dialog's end.
        course: how stages make a whole.
    """

    def __init__(self, feedback: QgsProcessingFeedback, course: Course) -> None:
        self._feedback = feedback
        self._course = course
        self._tenth = -1

    def receive(self, event: Event) -> None:
        self._feedback.setProgress(100 * self._course.follow(event))
        if event.kind == "plan":
            self._tenth = -1
            self._feedback.setProgressText(self._stage(event))
        elif event.kind == "progress":
            self._tell_figures(event)
        elif event.kind == "warning" and not self._feedback.isCanceled():  # then it is about what the algorithm decides
            self._feedback.pushWarning(event.message)
        elif event.kind in ("log", "done") and event.message:
            self._feedback.pushInfo(event.message)

    def _stage(self, event: Event) -> str:
        """Describe a stage and its size where that is known: patches, time, rasters to write."""
        stage, total, unit = (event.fields.get(name, "") for name in ("stage", "total", "unit"))
        parts = [] if total == 1 else [f"{total} {unit}".strip()]
        patches, minutes, size = (event.fields.get(name) for name in ("patches", "minutes", "output_bytes"))
        if isinstance(patches, int) and (unit != "patches" or total == 1):
            parts.append(tr("1 patch") if patches == 1 else tr("{count} patches").format(count=patches))
        if isinstance(minutes, (int, float)):
            hours = tr("about {hours} h").format(hours=f"{minutes / 60:.3g}")
            parts.append(hours if minutes >= 90 else tr("about {minutes} min").format(minutes=max(1, round(minutes))))
        if isinstance(size, (int, float)):
            parts.append(tr("{megabytes} MB before compression").format(megabytes=f"{size / 1e6:.3g}"))
        return ": ".join([str(stage), ", ".join(parts)] if parts else [str(stage)])

    def _tell_figures(self, event: Event) -> None:
        """Report figures such as losses, ten times a stage."""
        figures = event.fields.get("figures")
        fraction = event.fields.get("fraction")
        if not isinstance(figures, dict) or not figures or not isinstance(fraction, (int, float)):
            return
        tenth = int(10 * fraction)
        if tenth > self._tenth:
            self._tenth = tenth
            shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, (int, float)))
            self._feedback.pushInfo(f"{event.fields.get('stage', '')} {fraction:.0%}: {shown}")


def run_verb(words: Sequence[str], feedback: QgsProcessingFeedback) -> Mapping[str, Any]:
    """Run a verb to its end.

    Args:
        words: the verb and its arguments.
        feedback: asked whether to stop, told of everything.

    Returns:
        What the closing event says was written.

    Raises:
        QgsProcessingException: the program is missing, too old, failed or was canceled.
    """
    environment = child_environment()
    program = require_program(words, environment)
    feedback.pushCommandInfo(" ".join(_quoted(word) for word in (*program.words, *words)))
    receiver = FeedbackReceiver(feedback, Course())
    try:
        outcome = run_program(
            [*program.words, *words], environment, receiver.receive, feedback.isCanceled, hear=feedback.pushConsoleInfo
        )
    except (OSError, ProtocolError) as error:
        raise QgsProcessingException(f"{program.path}: {error}") from error
    if not outcome.is_success or outcome.done is None:
        raise QgsProcessingException(outcome.explanation() + _way_out(outcome.error))
    outputs = outcome.done.fields.get("outputs")
    return outputs if isinstance(outputs, dict) else {}


def _way_out(error: Event | None) -> str:
    """Translate the options in an error into the names of the dialog."""
    kind = "" if error is None else error.fields.get("kind")
    if kind == "OutputExistsError":
        return " " + tr("(--overwrite is “Replace existing files”, --resume is “Keep an interrupted run and continue it”)")
    if kind == "ResolutionError":
        return " " + tr("(--model is “Model”; --resolution is for the command line only)")
    return ""


def require_program(words: Sequence[str], environment: Mapping[str, str]) -> Program:
    """Find the program and check that it has the options of a command.

    Raises:
        QgsProcessingException: it is missing, too old, or not geoglnet.
    """
    try:
        program = current_program()
        answer = ask(program, environment)
    except ProgramError as error:
        raise QgsProcessingException(str(error)) from error
    _check_options(program, answer, words)
    return program


def _check_options(program: Program, answer: Answer, words: Sequence[str]) -> None:
    lacking = missing_options(words, answer.options_of(words[0]))
    if lacking:
        raise QgsProcessingException(
            tr("geoglnet {version} at {path} does not know {options}; upgrade it there: pip install --upgrade geoglnet").format(
                version=answer.version, path=program.path, options=", ".join(lacking)
            )
        )


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word or not word else word


def answer_of(words: Sequence[str]) -> Mapping[str, Any]:
    """Run a short verb, such as ``info … --json``, and return the JSON object that it prints.

    Raises:
        QgsProcessingException: the program is missing, too old or failed; with its own words.
    """
    environment = child_environment()
    program = require_program(words, environment)
    try:
        return ask_verb(program, words, environment)
    except ProgramError as error:
        raise QgsProcessingException(str(error)) from error
