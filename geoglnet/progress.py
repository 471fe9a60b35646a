"""Progress port: reports of long-running tools to the program that started them.

Tools call a :class:`Progress`; doors (command line, notebook, QGIS) decide what the user sees. Tools never print.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol


class Rule(str):
    """A message for :meth:`Progress.log` that affects the whole result; shown even where other log messages are not."""

    __slots__ = ()


class Progress(Protocol):
    """Receiver of events. Every method may raise :class:`geoglnet.errors.Canceled` to stop the tool."""

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        """Begin a stage of ``total`` steps, counted in ``unit`` (``"regions"``, ``"steps"``).

        ``figures`` estimate the work where it is known: ``patches``, ``minutes``, ``output_bytes``.
        """

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Count ``amount`` more steps of the current stage; ``figures`` are shown beside it (a loss, for example)."""

    def log(self, message: str) -> None:
        """Log a fact that the user should be able to read later: a rule applied, a choice made."""

    def warn(self, message: str) -> None:
        """Report something unexpected that does not stop the tool."""


class SilentProgress:
    """Progress that is discarded."""

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None: ...

    def advance(self, amount: int = 1, **figures: float) -> None: ...

    def log(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...


@dataclass(slots=True)
class RecordedProgress:
    """Progress kept in memory, for tests and for callers that report at the end."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        self.events.append({"event": "plan", "stage": stage, "total": total, "unit": unit, **figures})

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.events.append({"event": "progress", "amount": amount, **figures})

    def log(self, message: str) -> None:
        self.events.append({"event": "log", "message": message})

    def warn(self, message: str) -> None:
        self.events.append({"event": "warning", "message": message})

    def messages(self, event: str) -> list[str]:
        """Return the texts of all ``"log"`` or ``"warning"`` events, in order."""
        return [entry["message"] for entry in self.events if entry["event"] == event]
