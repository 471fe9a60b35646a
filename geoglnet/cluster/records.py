"""Records of a job's tasks in its store: what is finished, what was begun, and what has failed.

The record of a finished task is written last, after its rasters, and names them with their sizes and hashes. Before a process
works on a task it leaves a mark, and takes it away when the task is finished, or the process stops in good order. So marks that
stay are of processes that died at the task; and who was at it when several have died is named, and left alone.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from geoglnet.cluster.job import JOB, Job, Task
from geoglnet.cluster.store import Store
from geoglnet.errors import OutputError
from geoglnet.prediction.facts import differences
from geoglnet.prediction.journal import FinishedBlock

TASKS, MARKS, MACHINE = "tasks", "tries", "machine.json"
MOST_DEATHS = 3  # processes that may die at one task
_FORMAT = 1
_MOST_NAMED = 8  # in one message


@dataclass(frozen=True, slots=True)
class PartFile:
    """A raster of one layer of a task.

    Args:
        name: in the store.
        size: bytes.
        sha256: of its content.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FinishedTask:
    """What is known of a finished task.

    Args:
        task: which.
        window: column, row, width and height of its rasters in the scene.
        files: by layer; none where nothing is valid.
        blocks: in the plan's order.
        machine: facts of the machine that computed it.
    """

    task: Task
    window: tuple[int, int, int, int]
    files: Mapping[str, PartFile]
    blocks: tuple[FinishedBlock, ...]
    machine: Mapping[str, str] = field(default_factory=dict)

    def content(self, job: Job) -> bytes:
        """Write it as JSON."""
        plain = {
            "format": _FORMAT,
            "job": job.identity,
            "task": [self.task.row, self.task.col, self.task.height, self.task.width],
            "window": self.window,
            "files": {layer: [file.name, file.size, file.sha256] for layer, file in self.files.items()},
            "blocks": [_row(block) for block in self.blocks],
            "machine": dict(self.machine),
        }
        return json.dumps(plain).encode() + b"\n"

    @classmethod
    def parsed(cls, content: bytes, job: Job) -> FinishedTask | None:
        """Read a record; ``None`` for one that is torn, or of another job."""
        try:
            plain = json.loads(content)
            if plain["format"] != _FORMAT or plain["job"] != job.identity:
                return None
            window = tuple(plain["window"])
            files = {layer: PartFile(str(name), int(size), str(sha)) for layer, (name, size, sha) in plain["files"].items()}
            blocks = tuple(_block(row) for row in plain["blocks"])
            return cls(Task(*plain["task"]), window, files, blocks, dict(plain["machine"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def _row(block: FinishedBlock) -> list[int]:
    counts = (block.num_valid, block.compared, block.differing, block.pairs, block.borders)
    return [block.row, block.col, *block.window, *counts]


def _block(row: list[int]) -> FinishedBlock:
    return FinishedBlock(row[0], row[1], (row[2], row[3], row[4], row[5]), {}, *row[6:])


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a task is not computed again.

    Args:
        task: which.
        message: one line.
    """

    task: Task
    message: str

    def __str__(self) -> str:
        return f"task {self.task.name}: {self.message}"


@dataclass(frozen=True, slots=True)
class Records:
    """The records of a job in a store.

    Args:
        store: where.
        job: whose.
    """

    store: Store
    job: Job

    def finished(self, task: Task) -> FinishedTask | None:
        """Read the record of a task; ``None`` if it is not finished, or one of its rasters is gone or cut."""
        content = self.store.get(_name(task))
        record = None if content is None else FinishedTask.parsed(content, self.job)
        if record is None or record.task != task:
            return None
        is_whole = all(self.store.size(file.name) == file.size for file in record.files.values())
        return record if is_whole else None

    def finish(self, record: FinishedTask) -> FinishedTask:
        """Enter a task whose rasters are in the store; if another process has done so meanwhile, its record counts.

        Raises:
            OutputError: it cannot be written.
        """
        content = record.content(self.job)
        if not self.store.put(_name(record.task), content, if_absent=True):
            found = self.finished(record.task)
            if found is not None:
                return found
            self.store.put(_name(record.task), content)  # torn, of another job, or of rasters that are gone
        return record

    def begin(self, task: Task) -> str:
        """Leave a mark that this process is at a task, and return its name."""
        host = {"host": platform.node(), "process": os.getpid(), "job": self.job.identity}
        number = 1
        while not self.store.put(mark := f"{MARKS}/{task.name}.{number}.json", json.dumps(host).encode(), if_absent=True):
            number += 1
        return mark

    def withdraw(self, mark: str) -> None:
        """Take a mark away."""
        self.store.remove(mark)

    def fail(self, mark: str, error: Exception) -> None:
        """Turn a mark into the record of a failure that would come again."""
        plain = {"job": self.job.identity, "error": " ".join(str(error).split()), "kind": type(error).__name__}
        self.store.put(mark, json.dumps(plain).encode())

    def marks(self) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        """Read all marks, by the name of their task."""
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for name in self.store.names(MARKS):
            mark = self._mark(f"{MARKS}/{name}")
            if mark is not None:
                found.setdefault(name.partition(".")[0], []).append((f"{MARKS}/{name}", mark))
        return found

    def _mark(self, name: str) -> dict[str, Any] | None:
        try:
            mark = json.loads(self.store.get(name) or b"")
        except (ValueError, RecursionError):
            return {}  # torn: somebody began
        return mark if isinstance(mark, dict) and mark.get("job") == self.job.identity else None

    def trouble(self, task: Task, marks: Iterable[tuple[str, Mapping[str, Any]]]) -> Trouble | None:
        """Say why a task is to be left alone; ``None`` if nothing is known against it."""
        mine = [mark for _, mark in marks]
        failed = next((str(mark["error"]) for mark in mine if "error" in mark), None)
        if failed is not None:
            return Trouble(task, failed)
        if len(mine) >= MOST_DEATHS:
            hosts = ", ".join(sorted({str(mark.get("host", "unknown")) for mark in mine}))
            return Trouble(task, f"{len(mine)} processes began it and died (on {hosts})")
        return None

    def agree(self, machine: Mapping[str, str]) -> list[str]:
        """Compare this machine with the first one that computed; name what differs.

        Raises:
            OutputError: that cannot be written.
        """
        content = json.dumps({"job": self.job.identity, "machine": dict(machine)}).encode()
        if self.store.put(MACHINE, content, if_absent=True):
            return []
        first = self.machine()
        if first is None:  # torn, or of another job
            self.store.put(MACHINE, content)
            return []
        return differences(first, machine)

    def machine(self) -> dict[str, str] | None:
        """Read the facts of the first machine that computed; ``None`` if none has."""
        try:
            plain = json.loads(self.store.get(MACHINE) or b"")
            return dict(plain["machine"]) if plain["job"] == self.job.identity else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def remove(self) -> None:
        """Remove all that belongs to the job from its store; the job last."""
        layers = self.job.facts.get("layers", "").split(", ")
        for folder in (*layers, TASKS, MARKS):
            for name in self.store.names(folder):
                self.store.remove(f"{folder}/{name}")
        for name in (*(f"{layer}.vrt" for layer in layers), MACHINE, JOB):
            self.store.remove(name)


def _name(task: Task) -> str:
    return f"{TASKS}/{task.name}.json"


def named(texts: Sequence[str], total: int) -> str:
    """List some of many for a message."""
    shown = texts[:_MOST_NAMED]
    return "; ".join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")


def check_planned(store: Store, job: Job, facts: Mapping[str, str]) -> None:
    """Refuse to go on with a job whose model or scene is another one here.

    Raises:
        OutputError: facts differ; the message names them.
    """
    changed = differences(job.facts, facts)
    if changed:
        raise OutputError(f"{store.place} was planned with something else ({'; '.join(changed)}); restore that, or plan again")
