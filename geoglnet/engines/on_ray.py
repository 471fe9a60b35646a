"""The engine of Ray (the extra ``ray``): actors on a cluster, or on this machine where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from geoglnet.engines.port import PER_WORKER, EngineJob, ItemT, Queue, Result, ValueT
from geoglnet.errors import GeoglnetError

_PASSED_ON = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # threads decide last bits; Ray would choose their number


class OnRay:
    """Ray actors, each of which opens the job once. Joins the cluster that this process belongs to, or begins a local one.

    Args:
        workers: how many actors.
        gpus_per_worker: of each actor; CPUs alone when 0.
        cpus_per_worker: of each actor.
        address: of a cluster, as ``ray.init`` takes it.
    """

    def __init__(
        self, workers: int, *, gpus_per_worker: float = 0, cpus_per_worker: float = 1, address: str | None = None
    ) -> None:
        self.workers = workers
        variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._options: dict[str, Any] = {
            "num_cpus": cpus_per_worker,
            "num_gpus": gpus_per_worker,
            # A dead actor is replaced by us: one that Ray restarts may or may not have done its item.
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": variables},
        }
        self._address = address

    def map(
        self, job: EngineJob[ValueT], items: Iterable[ItemT], *, ordered: bool = False, tries: int = 3
    ) -> Iterator[Result[ItemT, ValueT]]:
        is_ours = not ray.is_initialized()
        if is_ours:
            ray.init(address=self._address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        queue = Queue[ItemT, ValueT](items, ordered, tries, PER_WORKER * self.workers)
        actors: list[Any] = []
        idle: list[Any] = []
        busy: dict[Any, tuple[Any, int, Any]] = {}
        try:
            while True:
                while (idle or len(actors) < self.workers) and (next_one := queue.take()) is not None:
                    if not idle:
                        actors.append(ray.remote(_Actor).options(**self._options).remote(job))
                        idle.append(actors[-1])
                    actor = idle.pop()
                    busy[actor.do.remote(next_one[1])] = (actor, *next_one)
                if not busy:
                    yield from queue.leaving()
                    return
                for reference in ray.wait([*busy])[0]:
                    actor, number, item = busy.pop(reference)
                    result = _result(reference, item)
                    if result is None:
                        actors.remove(actor)
                        ray.kill(actor)
                        queue.blame(number, item)
                    else:
                        idle.append(actor)
                        queue.settle(number, result)
                yield from queue.leaving()
        finally:
            for actor in actors:
                ray.kill(actor)
            if is_ours:
                ray.shutdown()


def _result(reference: Any, item: ItemT) -> Result[ItemT, Any] | None:
    """Fetch what came of an item; ``None`` if its actor has died."""
    try:
        return Result(item, ray.get(reference))
    except RayTaskError as error:
        if isinstance(error.cause, GeoglnetError):
            return Result(item, error=error.cause)
        raise  # a fault of ours, with the traceback of the actor
    except RayError:
        return None


class _Actor:
    """A worker: it opens the job with its first item, so that an error comes with that."""

    def __init__(self, job: EngineJob[Any]) -> None:
        self._job, self._work = job, None

    def do(self, item: Any) -> Any:
        """Work on an item."""
        if self._work is None:
            self._work = self._job.start()  # type: ignore[assignment]
        return self._work(item)  # type: ignore[misc]
