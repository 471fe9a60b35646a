"""Jobs: what is to be computed, as a value that any machine can read, and the tasks that it is divided into.

A job is settled once, by :func:`plan_job`: scene, model, options, the scaling that was measured, and how the blocks are
divided. Its identity is the hash of all that. A task is a rectangle of blocks; it depends on the job alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoglnet.cluster.store import Store
from geoglnet.errors import ConfigError, OutputError, OutputExistsError
from geoglnet.message import Keyword
from geoglnet.prediction.area import Area
from geoglnet.prediction.facts import RunSettings
from geoglnet.prediction.plan import BlockRectangle, Plan, rectangle
from geoglnet.prediction.preparation import Preparation

JOB = "job.json"
_FORMAT = 1
_SIDE, _LEAST_SIDE, _ENOUGH = 16, 4, 8  # blocks of a task; fewer where that makes less than so many tasks


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """A rectangle of blocks.

    Args:
        row: first row of cores.
        col: first column.
        height: rows of cores.
        width: columns.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        numbers = (self.row, self.col, self.height, self.width)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise TypeError(f"{numbers} is no rectangle of blocks")

    @property
    def name(self) -> str:
        """Name the task by its first block."""
        return f"{self.row:06}_{self.col:06}"

    def blocks(self, area: Area, plan: Plan) -> BlockRectangle:
        """Choose its blocks, as far as an area meets them."""
        rows, cols = range(self.row, self.row + self.height), range(self.col, self.col + self.width)
        return BlockRectangle(rows, cols, area.blocks(plan))


@dataclass(frozen=True, slots=True)
class Job:
    """A prediction that is planned.

    Args:
        facts: what the result depends on beside the machines, as text by name.
        settings: what it is made from, in plain form (:class:`~geoglnet.prediction.facts.RunSettings`).
        tasks: in the plan's order.
    """

    facts: Mapping[str, str]
    settings: Mapping[str, Any]
    tasks: tuple[Task, ...]

    @property
    def content(self) -> bytes:
        """Write it as JSON."""
        tasks = [[task.row, task.col, task.height, task.width] for task in self.tasks]
        plain = {"format": _FORMAT, "facts": dict(self.facts), "settings": dict(self.settings), "tasks": tasks}
        return json.dumps(plain).encode() + b"\n"

    @property
    def identity(self) -> str:
        """Hash all of it."""
        return hashlib.sha256(self.content).hexdigest()[:32]

    @classmethod
    def parsed(cls, content: bytes, place: str) -> Job:
        """Read a job.

        Args:
            content: JSON.
            place: for messages.

        Raises:
            OutputError: it is damaged, or of another version.
        """
        try:
            plain = json.loads(content)
            if plain["format"] != _FORMAT:
                raise OutputError(
                    f"{place} holds a job of format {plain['format']!r}, not {_FORMAT}; use the geoglnet that planned it"
                )
            return cls(dict(plain["facts"]), dict(plain["settings"]), tuple(Task(*numbers) for numbers in plain["tasks"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise OutputError(f"{place} holds a damaged job ({error}); plan it again into another folder") from error

    def run_settings(self, place: str) -> RunSettings:
        """Restore what it is made from.

        Raises:
            OutputError: the settings are damaged.
        """
        return RunSettings.from_dict(self.settings, Path(place))


def plan_job(ready: Preparation, task_shape: tuple[int, int] | None = None) -> Job:
    """Divide what is to be predicted into tasks.

    Args:
        ready: the open scene, and what is to be made of it.
        task_shape: rows and columns of blocks of a task; squares of 16 when left out, smaller ones for a small scene.

    Raises:
        ConfigError: a task without blocks.
    """
    plan = ready.plan
    if task_shape is not None and min(task_shape) < 1:
        raise ConfigError(f"task_shape = {task_shape} must be two numbers from 1: rows and columns of blocks")
    side = _SIDE
    while True:
        tasks = tuple(_iter_tasks(plan, ready.area, *(task_shape or (side, side))))
        if task_shape is not None or len(tasks) >= _ENOUGH or side == _LEAST_SIDE:
            return Job(ready.facts, ready.settings.to_dict(ready.scene), tasks)
        side //= 2


def _iter_tasks(plan: Plan, area: Area, height: int, width: int) -> Iterator[Task]:
    """List the tasks that an area meets, on a grid that begins at the scene's first block."""
    rows, cols = plan.row_edges, plan.col_edges
    for row in range(0, len(rows) - 1, height):
        for col in range(0, len(cols) - 1, width):
            last_row, last_col = min(row + height, len(rows) - 1), min(col + width, len(cols) - 1)
            if area.has_any(rectangle(rows[row], rows[last_row], cols[col], cols[last_col])):
                yield Task(row, col, last_row - row, last_col - col)


def put_job(store: Store, job: Job, *, overwrite: bool = False) -> None:
    """Put a job into a store; the same one twice is no fault.

    Args:
        store: where.
        job: to put.
        overwrite: replace another job; what was computed for that is not used any more.

    Raises:
        OutputExistsError: the store holds another job.
        OutputError: it cannot be written.
    """
    if store.put(JOB, job.content, if_absent=True) or store.get(JOB) == job.content:
        return
    if not overwrite:
        raise OutputExistsError(
            f"{store.place} holds another job; choose another folder, or pass " + Keyword("overwrite", True) + " to replace it"
        )
    store.put(JOB, job.content)


def job_in(store: Store) -> Job:
    """Read the job of a store.

    Raises:
        OutputError: there is none, or it is damaged.
    """
    content = store.get(JOB)
    if content is None:
        raise OutputError(f"{store.place} holds no job; plan one first, or give the place of one")
    return Job.parsed(content, store.place)
