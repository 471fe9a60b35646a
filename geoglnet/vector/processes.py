"""Work on windows in several processes, in order, with few of them in flight."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import Any, Generic, Protocol, TypeVar

from geoglnet.errors import GeoglnetError

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as PipeEnd
else:
    from multiprocessing.connection import Connection as PipeEnd

OutcomeT = TypeVar("OutcomeT")
OutcomeT_co = TypeVar("OutcomeT_co", covariant=True)
_PER_WORKER = 2  # windows in flight: one at work, one waiting


class Job(Protocol[OutcomeT_co]):
    """What is done to each window; it travels to other processes."""

    def start(self) -> Callable[[Any], OutcomeT_co]:
        """Open files, once per process; what is returned is called with every window."""


class Ordered(Generic[OutcomeT]):
    """Outcomes of a job on windows, in the order of the windows; use it as a context manager.

    Args:
        job: what to do in other processes.
        here: what to do in this one, when it works alone.
        windows: what to do it on.
        workers: processes; with 1 the work is done in this one.

    Raises:
        GeoglnetError: a process died.
    """

    def __init__(self, job: Job[OutcomeT], here: Callable[[Any], OutcomeT], windows: Iterable[Any], workers: int) -> None:
        self._job, self._here, self._windows, self._workers = job, here, windows, workers
        self._pool: ProcessPoolExecutor | None = None
        self._leash: PipeEnd | None = None

    def __enter__(self) -> Iterator[OutcomeT]:
        if self._workers == 1:
            return map(self._here, self._windows)
        # Not forked: this process may run threads (torch, GDAL), and a fork would copy their locks.
        context = get_context("spawn")
        held_by_workers, self._leash = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            self._workers, mp_context=context, initializer=_begin, initargs=(self._job, held_by_workers)
        )
        return self._outcomes(self._pool)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._pool is None or self._leash is None:
            return
        if kind is not None:
            self._leash.close()  # nobody waits for the window that a worker is at
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._leash.close()

    def _outcomes(self, pool: ProcessPoolExecutor) -> Iterator[OutcomeT]:
        waiting: deque[Future[OutcomeT]] = deque()
        try:
            for window in self._windows:
                waiting.append(pool.submit(_do, window))
                if len(waiting) >= _PER_WORKER * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise GeoglnetError(
                f"one of {self._workers} worker processes died, perhaps for want of memory; use fewer workers"
            ) from error


@dataclass(slots=True)
class _Worker:
    """The state of a worker process."""

    job: Job[Any] | None = None
    work: Callable[[Any], Any] | None = None


_worker = _Worker()


def _begin(job: Job[Any], leash: PipeEnd) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and stops us in good order
    threading.Thread(target=_leave_with_leash, args=(leash,), daemon=True).start()
    _worker.job = job


def _leave_with_leash(leash: PipeEnd) -> None:
    """End this process as soon as the parent lets go of the other end, or dies."""
    wait([leash])
    os._exit(1)


def _do(window: Any) -> Any:
    if _worker.work is None:
        if _worker.job is None:
            raise RuntimeError("a worker process was given a window before its job")
        _worker.work = _worker.job.start()
    return _worker.work(window)
