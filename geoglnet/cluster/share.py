"""The part of a job's tasks that somebody is about to compute. Loads no torch, so that a program may only hand tasks out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain

from geoglnet.cluster.job import Job, Task, job_in
from geoglnet.cluster.records import Records, Trouble, named
from geoglnet.cluster.shards import Shard
from geoglnet.cluster.store import Store
from geoglnet.errors import TasksFailedError
from geoglnet.message import Keyword


@dataclass(frozen=True, slots=True)
class Shift:
    """What somebody has done.

    Args:
        computed: tasks that were finished.
        found: tasks of the share that were finished before.
    """

    computed: tuple[Task, ...]
    found: int


@dataclass(frozen=True, slots=True)
class Share:
    """Tasks of a job, sorted.

    Args:
        records: of the job.
        tasks: all of the share.
        todo: those to compute.
        troubles: why others are left alone.
    """

    records: Records
    tasks: tuple[Task, ...]
    todo: tuple[Task, ...]
    troubles: tuple[Trouble, ...]

    @property
    def job(self) -> Job:
        return self.records.job

    @classmethod
    def of(cls, store: Store, shard: Shard | None = None, *, retry: bool = False) -> Share:
        """Sort the tasks of a job, or of a share of it.

        Args:
            store: where the job lies.
            shard: which share; all tasks when left out.
            retry: forget what is known against tasks.

        Raises:
            OutputError: there is no job.
        """
        job = job_in(store)
        records = Records(store, job)
        tasks = job.tasks if shard is None else shard.of(job.tasks)
        missing = [task for task in tasks if records.finished(task) is None]
        marks = records.marks() if missing else {}
        if retry:
            for mark, _ in chain.from_iterable(marks.pop(task.name, []) for task in missing):
                records.withdraw(mark)
        known = {task: records.trouble(task, marks.get(task.name, ())) for task in missing}
        todo = tuple(task for task, trouble in known.items() if trouble is None)
        return cls(records, tasks, todo, tuple(trouble for trouble in known.values() if trouble is not None))

    def settle(self, compute: Callable[[], Iterable[Task | Trouble]]) -> Shift:
        """Compute what is to be computed, and say what has come of it.

        Args:
            compute: computes it; yields each task that is finished, or what stands against it. Not called if there is nothing.

        Raises:
            TasksFailedError: all others are finished, and some cannot be computed.
        """
        outcomes = [*compute()] if self.todo else []
        troubles = [*self.troubles, *(outcome for outcome in outcomes if isinstance(outcome, Trouble))]
        if troubles:
            raise TasksFailedError(
                f"{len(troubles)} of {len(self.tasks)} tasks cannot be computed, all others are finished: "
                + (named([*map(str, troubles)], len(troubles)) + "; when that is repaired, pass ")
                + (Keyword("retry", True) + " to compute them")
            )
        computed = tuple(outcome for outcome in outcomes if isinstance(outcome, Task))
        return Shift(computed, len(self.tasks) - len(self.todo))
