"""The engine of processes on this machine; on one with several GPUs, each process has one of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from geoglnet.engines.port import PER_WORKER, EngineJob, ItemT, Queue, Result, ValueT
from geoglnet.errors import GeoglnetError

_GPUS = "CUDA_VISIBLE_DEVICES"


class Processes:
    """Processes on this machine.

    Args:
        workers: how many.
        gpus: names of GPUs that they share, in turn; each process sees one. All see all when left out.
    """

    def __init__(self, workers: int, gpus: Sequence[str] = ()) -> None:
        self.workers = workers
        self.gpus = tuple(gpus)

    def map(
        self, job: EngineJob[ValueT], items: Iterable[ItemT], *, ordered: bool = False, tries: int = 3
    ) -> Iterator[Result[ItemT, ValueT]]:
        queue = Queue[ItemT, ValueT](items, ordered, tries, PER_WORKER * self.workers)
        # Not forked: this process may run threads (torch, GDAL), and a fork would copy their locks.
        context = get_context("spawn")
        held_by_workers, leash = context.Pipe(duplex=False)
        free, busy = [*range(self.workers)], list[_Worker]()
        idle: list[_Worker] = []
        try:
            while True:
                while (free or idle) and (next_one := queue.take()) is not None:
                    # A process is started when there is an item for it.
                    worker = idle.pop() if idle else self._started(context, job, held_by_workers, free.pop(0))
                    worker.give(*next_one)
                    busy.append(worker)
                if not busy:
                    yield from queue.leaving()
                    return
                for worker in _ready(busy):
                    busy.remove(worker)
                    if (answer := worker.answer()) is None:
                        queue.blame(worker.number, worker.item)
                        free.append(worker.place)
                    else:
                        value, error = answer
                        queue.settle(worker.number, Result(worker.item, value, error))
                        idle.append(worker)
                yield from queue.leaving()
        finally:
            leash.close()  # workers leave at once: what one is at is not needed any more
            held_by_workers.close()
            for worker in (*busy, *idle):
                worker.end()

    def _started(self, context: Any, job: EngineJob[Any], leash: Any, place: int) -> _Worker:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(job, theirs, leash), name=f"worker-{place + 1}", daemon=True)
        with _seeing(self.gpus[place % len(self.gpus)] if self.gpus else None):
            process.start()
        theirs.close()  # else the end of the process would not end the pipe
        return _Worker(process, ours, place)


@dataclass(slots=True)
class _Worker:
    """A process, and the item that it is at."""

    process: Any
    pipe: Any
    place: int
    number: int = -1
    item: Any = None

    def give(self, number: int, item: Any) -> None:
        self.number, self.item = number, item
        try:
            self.pipe.send(item)
        except OSError:  # it has died meanwhile; reading from it will say so
            return

    def answer(self) -> tuple[Any, GeoglnetError | None] | None:
        """Read value and error; ``None`` if the process has died."""
        try:
            answer: tuple[Any, GeoglnetError | None] = self.pipe.recv()
        except (EOFError, OSError):
            self.end()
            return None
        return answer

    def end(self) -> None:
        self.pipe.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _ready(busy: Sequence[_Worker]) -> list[_Worker]:
    ready = wait([worker.pipe for worker in busy])
    return [worker for worker in busy if worker.pipe in ready]


def _serve(job: EngineJob[Any], pipe: Any, leash: Any) -> None:
    """Do the work on items as they come, in a worker process, until the pipe is closed."""
    follow(leash)
    work = None
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            work = work or job.start()  # with the first item: an error reaches the parent
            answer: tuple[Any, GeoglnetError | None] = (work(item), None)
        except GeoglnetError as error:
            answer = (None, error)
        pipe.send(answer)


def follow(leash: Any) -> None:
    """End this worker as soon as the parent lets go of the other end of a pipe, or dies; and not before, by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which stops its workers
    threading.Thread(target=_leave_with_leash, args=(leash,), daemon=True).start()


def _leave_with_leash(leash: Any) -> None:
    wait([leash])
    os._exit(1)


@contextmanager
def _seeing(gpu: str | None) -> Iterator[None]:
    """Let processes that are started in the context see one GPU: CUDA looks at this before any code of ours could choose."""
    before = os.environ.get(_GPUS)
    if gpu is None:
        yield
        return
    os.environ[_GPUS] = gpu
    try:
        yield
    finally:
        if before is None:
            del os.environ[_GPUS]
        else:
            os.environ[_GPUS] = before


def visible_gpus() -> tuple[str, ...]:
    """Name the GPUs that this process may use, without loading torch; none where that cannot be told."""
    if (listed := os.environ.get(_GPUS)) is not None:
        return tuple(name.strip() for name in listed.split(",") if name.strip())
    folder = Path("/proc/driver/nvidia/gpus")
    return tuple(str(number) for number in range(len([*folder.iterdir()]))) if folder.is_dir() else ()
