"""Work on windows in several processes: outcomes come in the order of the windows, and few windows are in flight."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Generic, TypeVar

from geoglnet.engines.port import EngineJob
from geoglnet.engines.processes import follow
from geoglnet.errors import GeoglnetError

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as PipeEnd
else:
    from multiprocessing.connection import Connection as PipeEnd

OutcomeT = TypeVar("OutcomeT")
_PER_WORKER = 2  # windows in flight: one at work, one waiting


class Ordered(Generic[OutcomeT]):
    """Outcomes of a job on windows, in the order of the windows; use it as a context manager.

    Args:
        job: work for other processes.
        here: the same work in this process, which needs no second opening of files; used with one worker.
        windows: arguments of the work, one by one.
        workers: number of processes; with 1 the work is done in this one.

    Raises:
        GeoglnetError: a process died.
    """

    def __init__(self, job: EngineJob[OutcomeT], here: Callable[[Any], OutcomeT], windows: Iterable[Any], workers: int) -> None:
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
            self._leash.close()  # workers leave at once: the window that one is at is not needed any more
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._leash.close()

    def _outcomes(self, pool: ProcessPoolExecutor) -> Iterator[OutcomeT]:
        """Submit windows, as many as are to be in flight, and yield the oldest outcome before each further one."""
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
                f"one of {self._workers} worker processes died, probably out of memory; use fewer workers"
            ) from error


@dataclass(slots=True)
class _Worker:
    """The state of a worker process."""

    job: EngineJob[Any] | None = None
    work: Callable[[Any], Any] | None = None


_worker = _Worker()


def _begin(job: EngineJob[Any], leash: PipeEnd) -> None:
    """Prepare a worker process; the job itself starts with the first window, where an error reaches the parent."""
    follow(leash)
    _worker.job = job


def _do(window: Any) -> Any:
    """Do the work on one window, in a worker process."""
    if _worker.work is None:
        if _worker.job is None:
            raise RuntimeError("a worker process received a window before its job")
        _worker.work = _worker.job.start()
    return _worker.work(window)
