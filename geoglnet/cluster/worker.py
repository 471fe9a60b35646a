"""Workers: processes that compute tasks of a job, with model and scene open once.

A task is computed as a run computes its blocks, into one tiled raster per layer. These go into the store under names with
their hash, so that two workers at one task never disturb each other, and the task's record is written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from rasterio.windows import Window

from geoglnet.cluster.job import Job, Task
from geoglnet.cluster.records import FinishedTask, PartFile, Records, Trouble, check_planned
from geoglnet.cluster.shards import Shard
from geoglnet.cluster.share import Share, Shift
from geoglnet.cluster.store import Store
from geoglnet.errors import OutputError, SceneError
from geoglnet.message import Keyword
from geoglnet.models.opening import open_model
from geoglnet.prediction.blocks import Block
from geoglnet.prediction.estimate import Estimate
from geoglnet.prediction.facts import model_fact
from geoglnet.prediction.journal import FinishedBlock
from geoglnet.prediction.machine import machine_facts
from geoglnet.prediction.plan import iter_work, rectangle, shifted
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor
from geoglnet.prediction.preparation import Preparation, prepared
from geoglnet.prediction.workspace import finished_block, write_behind
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.parts import PartWriter
from geoglnet.types import Shape


@dataclass(frozen=True)
class Worker:
    """Computes tasks; :func:`worker_of` opens one. Memory is that of a run.

    Args:
        records: of the job, with its store.
        ready: the open scene.
        predictor: computes blocks.
        progress: receives every patch.
    """

    records: Records
    ready: Preparation
    predictor: Predictor
    progress: Progress

    def estimate(self, tasks: Sequence[Task]) -> Estimate:
        """Estimate what computing tasks amounts to."""
        segmenter, ready = self.predictor.segmenter, self.ready
        work = chain.from_iterable(iter_work(ready.plan, task.blocks(ready.area, ready.plan)) for task in tasks)
        steps = sum(segmenter.num_steps(block.planned) for block in work)
        return Estimate.of(steps, segmenter, self.predictor.config, ready.area, ready.layers)

    def run(self, task: Task, expected: Estimate | None = None) -> FinishedTask:
        """Compute a task, put its rasters into the store, and enter it.

        Args:
            task: of the job.
            expected: of :meth:`estimate`, if that was asked for before.

        Raises:
            ConfigError: the device's memory is too small, or numbers overflow in the network.
            SceneError: the scene cannot be read, or changed meanwhile.
            OutputError: the store cannot be written.
            Canceled: ``progress`` said so.
        """
        ready = self.ready
        blocks: list[FinishedBlock] = []
        with self.records.store.scratch() as folder, ExitStack() as stack:
            place = _place(ready, task)
            writers = {
                layer.name: stack.enter_context(
                    PartWriter(
                        Path(folder, f"{layer.name}.tif"),
                        Shape(int(place.height), int(place.width)),
                        len(layer.bands(ready.manifest.legend)),
                        ready.manifest.region.core_size,
                    )
                )
                for layer in ready.layers
            }

            def store(block: Block) -> None:
                for name, values in block.layers.items():
                    writers[name].write(shifted(block.window, -int(place.row_off), -int(place.col_off)), values)
                blocks.append(finished_block(block, {}))

            pending = self.predictor.iter_blocks(
                ready.scene,
                ready.layers,
                area=ready.area,
                blocks=task.blocks(ready.area, ready.plan),
                expected=expected or self.estimate([task]),
                progress=self.progress,
            )
            write_behind(pending, store)
            # After the last read: blocks of a scene that changed meanwhile must not pass for blocks of the one before.
            ready.files.check_unchanged(ready.scene.name)
            files = {name: self._put(writer, task, name) for name, writer in writers.items() if writer.finish()}
            window = int(place.col_off), int(place.row_off), int(place.width), int(place.height)
            machine = machine_facts(self.predictor.config, self.predictor.segmenter)
            return self.records.finish(FinishedTask(task, window, files, tuple(blocks), machine))

    def _put(self, writer: PartWriter, task: Task, layer: str) -> PartFile:
        with writer.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        part = PartFile(f"{layer}/{task.name}-{sha256[:16]}.tif", writer.path.stat().st_size, sha256)
        self.records.store.put_file(part.name, writer.path)
        return part


def _place(ready: Preparation, task: Task) -> Window:
    """Find the window of all cores of a task."""
    rows, cols = ready.plan.row_edges, ready.plan.col_edges
    return rectangle(rows[task.row], rows[task.row + task.height], cols[task.col], cols[task.col + task.width])


@contextmanager
def worker_of(
    store: Store,
    job: Job,
    *,
    device: str | None = None,
    allow_mixed: bool = False,
    progress: Progress | None = None,
) -> Iterator[Worker]:
    """Open model and scene of a job, as long as the context lasts.

    Args:
        store: where the job lies.
        job: in it.
        device: instead of the one that was planned.
        allow_mixed: compute although the machine differs from the first one that did: labels are the same but for rounding.
        progress: receiver of steps and of the rules applied.

    Raises:
        OutputError: the scene or the model is not what it was, or the machine is of another kind than the first one.
        GeoglnetError: they cannot be used.
    """
    progress, records = progress or SilentProgress(), Records(store, job)
    settings = job.run_settings(store.place)
    network, manifest = open_model(settings.model_path)
    check_planned(store, job, dict(job.facts) | {"model": model_fact(manifest, settings.model_path)})
    with prepared(settings, manifest, {}, progress, portable=True) as ready, store.scratch() as folder:
        check_planned(store, job, ready.facts)
        config = replace(settings.config, device=device or settings.config.device, spool_folder=Path(folder))
        predictor = Predictor(network, manifest, _as_first(config, records.machine() or {}))
        del network  # its unfolded half is not needed any more
        changed = records.agree(machine_facts(predictor.config, predictor.segmenter))
        if changed and not allow_mixed:
            raise OutputError(
                f"{store.place} was begun on another kind of machine ({'; '.join(changed)}), whose last bits differ; use one "
                "kind of machine, or " + Keyword("allow_mixed", True)
            )
        yield Worker(records, ready, predictor, progress)


def _as_first(config: PredictConfig, first: Mapping[str, str]) -> PredictConfig:
    """Take over what may be chosen: the threads of a CPU, and a batch that nobody has asked for."""
    if threads := first.get("threads"):
        torch.set_num_threads(int(threads))
    batch = first.get("batch", "auto")
    return replace(config, batch_size=int(batch)) if config.batch_size is None and batch.isdecimal() else config


def work(
    store: Store,
    *,
    shard: Shard | None = None,
    device: str | None = None,
    allow_mixed: bool = False,
    retry: bool = False,
    progress: Progress | None = None,
) -> Shift:
    """Compute the tasks of a job that are not finished, or a share of them.

    Args:
        store: where the job lies.
        shard: which share; all tasks when left out.
        device: see :func:`worker_of`.
        allow_mixed: see there.
        retry: also tasks that have failed, or at which several processes have died.
        progress: receiver of steps and of the rules applied.

    Raises:
        TasksFailedError: all others are finished, and these cannot be computed.
        GeoglnetError: as for :func:`worker_of` and :meth:`Worker.run`; the task under way is not finished.
    """
    progress = progress or SilentProgress()
    share = Share.of(store, shard, retry=retry)

    def compute() -> Iterator[Task | Trouble]:
        progress.log(f"{len(share.todo)} of {len(share.job.tasks)} tasks to compute")
        with worker_of(store, share.job, device=device, allow_mixed=allow_mixed, progress=_OneStage(progress)) as worker:
            yield from _iter_outcomes(worker, share.todo)

    return share.settle(compute)


def _iter_outcomes(worker: Worker, tasks: Sequence[Task]) -> Iterator[Task | Trouble]:
    """Compute tasks one by one; yield each that is finished, or what stands against it."""
    records, expected = worker.records, worker.estimate(tasks)
    worker.progress.plan("segment", expected.steps, expected.unit, **expected.figures)
    for task in tasks:
        if records.finished(task) is not None:  # by another worker, meanwhile
            worker.progress.advance(worker.estimate([task]).steps)
            continue
        mark, trouble = records.begin(task), None
        try:
            worker.run(task, expected)
        except SceneError as error:
            worker.ready.files.check_unchanged(worker.ready.scene.name)  # then no other task would be the planned one either
            records.fail(mark, error)  # it lies in the scene, and would come again
            trouble = Trouble(task, " ".join(str(error).split()))
        finally:
            if trouble is None:
                records.withdraw(mark)
        yield trouble or task


class _OneStage:
    """Progress of many tasks as one stage, which the first plan begins.

    Args:
        progress: that of the caller.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._is_planned = progress, False
        self.advance, self.log, self.warn = progress.advance, progress.log, progress.warn

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        if not self._is_planned:
            self._is_planned = True
            self._progress.plan(stage, total, unit, **figures)
