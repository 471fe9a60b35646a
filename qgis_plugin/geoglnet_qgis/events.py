"""What ``geoglnet --progress json`` says: one JSON object per line on its standard output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROTOCOL_VERSION = 1
KINDS = ("plan", "progress", "log", "warning", "error", "done")
SHARES = {  # of the whole, by stage; what is more than left is cut
    **{"survey labels": 0.02, "global stage": 0.45, "local stage": 0.45},
    **{"segment": 0.85, "pyramid": 0.02, "objects": 0.2, "cleaning": 0.2, "polygons": 0.9},
}


class ProtocolError(Exception):
    """The program speaks another version of the protocol."""


@dataclass(frozen=True)
class Event:
    """One line that the program wrote.

    Args:
        kind: one of :data:`KINDS`; kinds that a newer program adds are passed on.
        fields: everything else in the line.
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        return str(self.fields.get("message", ""))


def parse_event(line: str) -> Event | None:
    """Parse the event in a line; ``None`` for any other line, such as a library's own output.

    Raises:
        ProtocolError: it is an event of a version that this plugin does not understand.
    """
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(plain, dict) or not isinstance(plain.get("event"), str):
        return None
    check_protocol(plain.get("v"))
    return Event(plain["event"], {name: value for name, value in plain.items() if name not in ("v", "event")})


def check_protocol(found: Any) -> None:
    """Refuse a program that this plugin cannot talk to, and say which of the two is the older.

    Raises:
        ProtocolError: ``found`` is not :data:`PROTOCOL_VERSION`.
    """
    if found == PROTOCOL_VERSION:
        return
    is_newer = isinstance(found, (int, float)) and found > PROTOCOL_VERSION
    remedy = "upgrade this plugin" if is_newer else "upgrade the program: pip install --upgrade geoglnet"
    raise ProtocolError(f"the geoglnet program speaks protocol {found}, this plugin speaks {PROTOCOL_VERSION}; {remedy}")


@dataclass
class Course:
    """How far a run of several stages has come as a whole; never goes back.

    Args:
        shares: fractions of the whole by the name of a stage; one that is not named takes half of what is left.
    """

    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)
    fraction: float = 0.0
    _start: float = 0.0
    _share: float = 0.0

    def follow(self, event: Event) -> float:
        """Return the fraction done after an event, 0 to 1."""
        if event.kind == "plan":
            self._start += self._share
            left = 1.0 - self._start
            self._share = min(left, self.shares.get(str(event.fields.get("stage")), left / 2))
        elif event.kind == "progress":
            within = _number(event.fields.get("fraction"))
            self.fraction = max(self.fraction, min(1.0, self._start + self._share * within))
        elif event.kind == "done":
            self.fraction = 1.0
        return self.fraction


def _number(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and value == value
    return min(1.0, max(0.0, float(value))) if is_number else 0.0
