"""Tables as Markdown and CSV: the paper's columns beside ours."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoglnet.escaping import csv_cell
from geoglnet.output import OutputFile
from geoglnet.paper.published import Row
from geoglnet.paper.systems import System

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of a system.

    Args:
        system: which.
        row: what the paper printed of it; empty where it did not.
        scores: by seed.
        memory: what was measured of one region; empty where it was not.
        steps: that its weights have seen.
        failure: why there is nothing, if there is nothing.
    """

    system: System
    row: Row
    scores: Mapping[int, Mapping[str, Any]]
    memory: Mapping[str, Any]
    steps: int = 0
    failure: str = ""

    def mious(self, convention: str) -> list[float]:
        """Scores in percent, one per seed."""
        return [100 * run["conventions"][convention] for run in self.scores.values() if convention in run["conventions"]]

    def miou(self, convention: str) -> float | None:
        """Mean over seeds, in percent."""
        values = self.mious(convention)
        return statistics.fmean(values) if values else None


def columns(line: Line, convention: str) -> dict[str, str]:
    """Return the cells of a line by heading."""
    run: Mapping[str, Any] = next(iter(line.scores.values()), {})
    on_cuda = {f"{name} MB": number(line.memory.get(f"{name}_mb"), 0) for name in ("allocated", "reserved")}
    return {
        "system": line.row.title or line.system.title,
        "mIoU %, paper": number(line.row.miou, 1),
        "mIoU %, here": spread(line.mious(convention)),
        "seeds": " ".join(map(str, line.scores)) or NOTHING,
        "steps": str(line.steps),
        "parameters": f"{run['parameters'] / 1e6:.1f} M" if run else NOTHING,
        "memory MB, paper": number(line.row.memory_mb, 0),
        "memory MB, here": number(line.memory.get("memory_mb"), 0),
        **(on_cuda if "allocated_mb" in line.memory else {}),
        "Mpx/s": number(line.memory.get("mpx_per_s"), 3),
        "Mpx/s with files": number(line.memory.get("mpx_per_s_with_files"), 3),
        "CPU s/Mpx": number(line.memory.get("cpu_s_per_mpx"), 1),
    }


def number(value: float | None, digits: int) -> str:
    """Format a number, or a dash."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def spread(values: Sequence[float]) -> str:
    """Format the mean, with ± the sample's standard deviation where there are several values."""
    if not values:
        return NOTHING
    mean = statistics.fmean(values)
    return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ± {statistics.stdev(values):.1f}"


def iter_markdown(lines: Sequence[Line], convention: str) -> Iterator[str]:
    """Write a table, and below it why some lines are empty and what memory means."""
    rows = [columns(line, convention) for line in lines]
    heads = list(dict.fromkeys(head for row in rows for head in row))
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        # Lines measured on CUDA have columns that the others lack.
        yield f"| {' | '.join(row.get(head, NOTHING) for head in heads)} |"
    yield ""
    yield from (f"* {line.row.title or line.system.title}: {line.failure}." for line in lines if line.failure)
    yield from _iter_remarks([line.memory for line in lines if line.memory])


def _iter_remarks(memories: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for device in dict.fromkeys(memory["device"] for memory in memories):
        idle = statistics.fmean(memory["idle_mb"] for memory in memories if memory["device"] == device)
        size = memories[0]["region_size"]
        if device == "cpu":
            what = f"the process's peak over its {idle:.0f} MB when idle (libraries loaded, no weights)"
        else:
            what = f"the process's memory over the bare context's {idle:.0f} MB"
        yield f"* Memory here, on {device}: {what}; one region of {size} px, batch 1, float32, no gradients."
    if memories:
        yield "* Memory in the paper: the whole process on a GPU of 2018, by gpustat. Compare systems, not the two columns."


def write_csv(path: Path, lines: Sequence[Line], convention: str) -> None:
    """Write the table with one row per seed, and IoU per class."""
    rows = [row for line in lines for row in _seed_rows(line, convention)]
    heads = list(dict.fromkeys(head for row in rows for head in row))
    with OutputFile(path, overwrite=True) as part, part.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(csv_cell(head) for head in heads)
        for row in rows:
            cells = (row.get(head, "") for head in heads)
            # Text only: a negative number is no formula, and must stay a number.
            writer.writerow(csv_cell(cell) if isinstance(cell, str) else cell for cell in cells)


def _seed_rows(line: Line, convention: str) -> Iterator[dict[str, Any]]:
    fixed = {"system": line.system.name, "paper_miou": line.row.miou, "paper_memory_mb": line.row.memory_mb}
    memory = {name: value for name, value in line.memory.items() if name != "region_size"}
    for seed, run in line.scores.items():
        scores = {"seed": seed, "steps": run["steps"], "parameters": run["parameters"], **run["conventions"]}
        yield {**fixed, "miou": run["conventions"].get(convention), **scores, **memory, **run["total"]}
    if not line.scores:
        yield {**fixed, **memory, "failure": line.failure}
