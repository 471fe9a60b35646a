"""Finishes a job: the outputs of its tasks, exactly as one process would have written them. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rasterio.windows import Window

from geoglnet.cluster.job import Job, Task, job_in
from geoglnet.cluster.records import FinishedTask, Records, Trouble, check_planned, named
from geoglnet.cluster.store import FolderStore, Store
from geoglnet.errors import OutputError
from geoglnet.models.description import describe_model
from geoglnet.prediction.area import Area
from geoglnet.prediction.layers import Layer
from geoglnet.prediction.outputs import OutputWriter, Written
from geoglnet.prediction.plan import overlap, shifted
from geoglnet.prediction.preparation import checked_outputs, prepared
from geoglnet.prediction.workspace import Workspace, open_workspace, unfinished_journal, workspace_of
from geoglnet.progress import Progress, SilentProgress


@dataclass
class TaskWorkspace(Workspace):
    """Workspace of a job: the rasters are those of its tasks, and lie in its store.

    Args:
        store: of the job.
        tasks: all of them, finished.
        area: what of the scene is wanted.
    """

    store_of_tasks: FolderStore = field(kw_only=True)
    tasks: Mapping[Task, FinishedTask] = field(kw_only=True)
    area: Area = field(kw_only=True)

    def refresh(self) -> None:
        """Enter the blocks of all tasks."""
        self.journal.blocks = {(block.row, block.col): block for task in self.tasks.values() for block in task.blocks}

    @property
    def parts_folder(self) -> Path:
        return self.store_of_tasks.folder

    def iter_parts(self, layer: Layer) -> Iterator[tuple[str, Window, Window]]:
        for _, record in sorted(self.tasks.items()):
            if layer.name in record.files:
                whole = Window(*record.window)
                used = overlap(whole, self.area.window)
                yield record.files[layer.name].name, shifted(used, -int(whole.row_off), -int(whole.col_off)), used


def finish(store: FolderStore, *, overwrite: bool = False, keep: bool = False, progress: Progress | None = None) -> Written:
    """Write the outputs of a job whose tasks are all finished. If it is killed, it goes on when it is called again.

    Args:
        store: where the job lies.
        overwrite: replace outputs that exist, even if the job was planned without it.
        keep: leave job and tasks in the store; otherwise they are removed when the outputs are whole.
        progress: receiver of steps.

    Raises:
        OutputError: tasks are missing, or an output cannot be written.
        SceneError: the scene has changed meanwhile.
        Canceled: ``progress`` said so.
    """
    progress, found = progress or SilentProgress(), _all_finished(store)
    job = found.job
    settings = job.run_settings(store.place)
    settings = replace(settings, overwrite=settings.overwrite or overwrite)
    with ExitStack() as stack:
        folder = workspace_of(settings.outputs.values(), resume=True)
        outputs = checked_outputs(settings, unfinished_journal(folder))
        for file in outputs.values():  # other runs that share an output are refused from here on
            stack.enter_context(file.claimed())
        manifest = describe_model(settings.model_path)
        ready = stack.enter_context(prepared(settings, manifest, outputs, progress, portable=True))
        check_planned(store, job, ready.facts)
        kind = partial(TaskWorkspace, store_of_tasks=store, tasks=found.finished, area=ready.area)
        workspace = stack.enter_context(
            open_workspace(folder, job.facts, job.settings, resume=not overwrite, overwrite=settings.overwrite, kind=kind)
        )
        writer = OutputWriter(workspace, ready.scene, ready.area, manifest, ready.tags, outputs, progress)
        progress.log(str(writer.seams))
        num_polygons = writer.write(ready.settings.vector_config)
        workspace.is_finished = True
        written = writer.written(settings.outputs, num_polygons)
    if not keep:
        Records(store, job).remove()
        store.tidy()
    return written


@dataclass(frozen=True, slots=True)
class Status:
    """How far a job has come.

    Args:
        place: of its store.
        job: in it.
        finished: records of finished tasks.
        troubles: why others are left alone.
        begun: tasks that somebody has begun, or died at.
    """

    place: str
    job: Job
    finished: Mapping[Task, FinishedTask]
    troubles: tuple[Trouble, ...]
    begun: tuple[Task, ...]

    @property
    def missing(self) -> tuple[Task, ...]:
        """Tasks that are not finished."""
        return tuple(task for task in self.job.tasks if task not in self.finished)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        machines: dict[str, int] = {}
        for record in self.finished.values():
            name = ", ".join(f"{fact} {value}" for fact, value in record.machine.items())
            machines[name] = machines.get(name, 0) + 1
        return {
            "run": self.place,
            "job": self.job.identity,
            "tasks": len(self.job.tasks),
            "finished": len(self.finished),
            "blocks": sum(len(record.blocks) for record in self.finished.values()),
            "missing": [task.name for task in self.missing],
            "begun": [task.name for task in self.begun],
            "failed": [{"task": trouble.task.name, "error": trouble.message} for trouble in self.troubles],
            "machines": machines,
            "outputs": dict(self.job.settings.get("outputs", {})),
        }


def status(store: Store) -> Status:
    """Read how far a job has come.

    Args:
        store: where it lies.

    Raises:
        OutputError: there is none, or it is damaged.
    """
    job = job_in(store)
    records = Records(store, job)
    finished = {task: record for task in job.tasks if (record := records.finished(task)) is not None}
    marks = records.marks()
    left = [task for task in job.tasks if task not in finished and task.name in marks]
    troubles = [trouble for task in left if (trouble := records.trouble(task, marks[task.name])) is not None]
    troubled = {trouble.task for trouble in troubles}
    return Status(store.place, job, finished, tuple(troubles), tuple(task for task in left if task not in troubled))


def _all_finished(store: Store) -> Status:
    """Read the records of a job of which all tasks are finished.

    Raises:
        OutputError: some are not; the message names them, and what is known against them.
    """
    found = status(store)
    if not (missing := found.missing):
        return found
    troubles = {trouble.task: str(trouble) for trouble in found.troubles}  # named first
    listed = [
        *troubles.values(),
        *(f"task {task.name}" for task in missing if task not in troubles),
    ]  # those with a reason first
    share = f"{len(missing)} of {len(found.job.tasks)} tasks"
    raise OutputError(f"{store.place} lacks {share} ({named(listed, len(missing))}); compute them first")
