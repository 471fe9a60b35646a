"""Reports: what was done, as a table for people and a dict for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geoglnet.escaping import html, visible


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, in named facts; a table in a notebook, aligned text when printed.

    >>> print(Report("Segmented scene.tif", {"pixels": "512 × 512", "polygons": 7}, ("read at 0.17 m",)))
    Segmented scene.tif
      pixels    512 × 512
      polygons  7
      note      read at 0.17 m

    Args:
        title: first line.
        facts: values by name; lengths in meters and times in seconds say so.
        notes: sentences that a reader should know: rules applied, warnings.
    """

    title: str
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {"title": self.title, "facts": dict(self.facts), "notes": list(self.notes)}

    def __str__(self) -> str:
        rows = self._rows()
        width = max((len(name) for name, _ in rows), default=0)
        # Names come from files: escape sequences in them must not reach a terminal.
        return "\n".join([visible(self.title), *(f"  {visible(name).ljust(width)}  {visible(text)}" for name, text in rows)])

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{html(n)}</th><td>{html(text)}</td></tr>" for n, text in self._rows())
        return f"<table><caption>{html(self.title)}</caption>{rows}</table>"

    def _rows(self) -> list[tuple[str, str]]:
        return [*((name, str(value)) for name, value in self.facts.items()), *(("note", note) for note in self.notes)]
