"""Hands the tasks of a job out to an engine's workers. Loads no torch: the workers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from geoglnet.cluster.job import Task
from geoglnet.cluster.records import Trouble
from geoglnet.cluster.shards import Shard
from geoglnet.cluster.share import Share, Shift
from geoglnet.cluster.store import Store
from geoglnet.engines.port import Engine, WorkerDiedError
from geoglnet.errors import SceneError
from geoglnet.progress import Progress, SilentProgress


@dataclass(frozen=True, slots=True)
class TaskJob:
    """Computing of tasks, as it is sent to workers: names alone, and nothing that is open.

    Args:
        place: of the store.
        device: instead of the one that was planned.
        allow_mixed: see :func:`~geoglnet.cluster.worker.worker_of`.
    """

    place: str
    device: str | None = None
    allow_mixed: bool = False

    def start(self) -> Callable[[Any], str]:
        """Open model and scene, in the worker."""
        # By name: whoever hands out tasks imports this file, and not torch.
        start: Callable[..., Callable[[Any], str]] = import_module("geoglnet.cluster.task_job").start_tasks
        return start(self.place, self.device, self.allow_mixed)


def drive(
    store: Store,
    engine: Engine,
    *,
    shard: Shard | None = None,
    device: str | None = None,
    allow_mixed: bool = False,
    retry: bool = False,
    progress: Progress | None = None,
) -> Shift:
    """Have an engine compute the tasks of a job that are not finished; see :func:`~geoglnet.cluster.worker.work`.

    A worker that dies is replaced, and its task given to another one; at the third death the task is left alone, and all others
    are finished. If this process is killed, finished tasks count when it is called again.

    Args:
        store: where the job lies; all workers must find it at the same place.
        engine: where workers run.
        shard: which share; all tasks when left out.
        device: see :func:`~geoglnet.cluster.worker.worker_of`.
        allow_mixed: see there.
        retry: also tasks that have failed.
        progress: receives every task.

    Raises:
        TasksFailedError: all others are finished, and some cannot be computed.
        GeoglnetError: as for :func:`~geoglnet.cluster.worker.work`.
    """
    progress = progress or SilentProgress()
    share = Share.of(store, shard, retry=retry)

    def compute() -> Iterator[Task | Trouble]:
        progress.plan("segment", len(share.todo), "tasks")
        results = engine.map(TaskJob(str(Path(store.place).absolute()), device, allow_mixed), share.todo)
        try:
            for result in results:
                if result.error is None:
                    yield result.item
                elif isinstance(result.error, SceneError | WorkerDiedError):
                    share.records.fail(share.records.begin(result.item), result.error)
                    yield Trouble(result.item, " ".join(str(result.error).split()))
                else:  # of the disk, the device, or the machine: no other task would fare better
                    raise result.error
                progress.advance()
        finally:
            if hasattr(results, "close"):
                results.close()  # ends the workers

    return share.settle(compute)
