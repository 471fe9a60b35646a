"""Plans a prediction for many machines: checks everything, measures what is to be measured once, and stores a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoglnet.cluster.job import Job, plan_job, put_job
from geoglnet.cluster.store import FolderStore
from geoglnet.models.description import describe_model
from geoglnet.models.shipped import DEFAULT_MODEL
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.preparation import checked_outputs, prepared, settings_of
from geoglnet.prediction.workspace import unfinished_journal, workspace_of
from geoglnet.progress import Progress, SilentProgress
from geoglnet.types import StrPath
from geoglnet.vector.settings import VectorConfig


def plan(
    store: FolderStore,
    scene_path: StrPath | Sequence[StrPath],
    paths: Mapping[str, StrPath | None],
    *,
    beside: Mapping[str, StrPath] | None = None,
    model: str = DEFAULT_MODEL,
    config: PredictConfig | None = None,
    vector_config: VectorConfig | Mapping[str, Any] | None = None,
    task_shape: tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Job:
    """Plan a prediction, without torch and without computing anything.

    Args:
        store: where the job, and what workers compute, will lie.
        scene_path: as for :func:`~geoglnet.prediction.run.begin`; every machine has to find it under this path.
        paths: files to write, by output, as there.
        beside: as there.
        model: as there.
        config: as there.
        vector_config: as there.
        task_shape: rows and columns of blocks of a task; chosen by the scene's size when left out.
        overwrite: replace outputs that exist, and another job in the store.
        progress: receives the rules applied.

    Raises:
        OutputExistsError: an output exists, or the store holds another job.
        GeoglnetError: as for :func:`~geoglnet.prediction.run.begin`.
    """
    progress = progress or SilentProgress()
    settings = settings_of(scene_path, paths, beside, model, config, vector_config, overwrite)
    # A finish that was stopped may have written some already.
    outputs = checked_outputs(settings, unfinished_journal(workspace_of(settings.outputs.values(), resume=True)))
    manifest = describe_model(settings.model_path)
    with prepared(settings, manifest, outputs, progress, portable=True) as ready:
        job = plan_job(ready, task_shape)
    store.make()
    put_job(store, job, overwrite=overwrite)
    return job
