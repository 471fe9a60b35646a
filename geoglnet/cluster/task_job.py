"""The work on tasks as it is sent to the workers of an engine, which load torch where the program that hands out need not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from geoglnet.cluster.job import Task, job_in
from geoglnet.cluster.store import store_at
from geoglnet.cluster.worker import worker_of


def start_tasks(place: str, device: str | None, allow_mixed: bool) -> Callable[[Task], str]:
    """Open model and scene of a job for as long as the process lives, and return the work on one task."""
    store = store_at(place)
    stack = ExitStack()
    worker = stack.enter_context(worker_of(store, job_in(store), device=device, allow_mixed=allow_mixed))

    def compute(task: Task, _open: ExitStack = stack) -> str:  # which keeps the files open
        worker.run(task)
        return task.name

    return compute
