"""``geoglnet.predict`` with an engine: plan, workers and finish in one, without torch in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from geoglnet.cluster.driving import drive
from geoglnet.cluster.finishing import finish
from geoglnet.cluster.job import JOB
from geoglnet.cluster.planning import plan
from geoglnet.cluster.records import TASKS, Records
from geoglnet.cluster.store import FolderStore
from geoglnet.config import suggestion
from geoglnet.engines.port import Engine, Here
from geoglnet.engines.processes import Processes, visible_gpus
from geoglnet.errors import ConfigError, OutputExistsError
from geoglnet.message import Keyword
from geoglnet.prediction.outputs import Written
from geoglnet.prediction.request import in_order
from geoglnet.progress import Progress
from geoglnet.types import StrPath
from geoglnet.vector.settings import VectorConfig

ENGINES = ("here", "processes", "ray")
RUN_SUFFIX = ".run"


def engine_named(name: str, vector_config: VectorConfig | Mapping[str, Any], device: str) -> Engine:
    """Make an engine.

    Args:
        name: ``"here"``, ``"processes"`` or ``"ray"``.
        vector_config: says how many workers; each GPU has at least one.
        device: that workers are asked to use.

    Raises:
        ConfigError: no such engine.
        ModuleNotFoundError: Ray is not installed.
    """
    gpus = () if device in ("cpu", "mps") else visible_gpus()
    workers = vector_config.workers if isinstance(vector_config, VectorConfig) else int(vector_config.get("workers", 1))
    workers = max(workers, len(gpus))
    if name == "here":
        return Here()
    if name == "processes":
        return Processes(workers, gpus)
    if name != "ray":
        raise ConfigError(f"unknown engine {name!r}{suggestion(name, ENGINES)}; there are {', '.join(ENGINES)}")
    made: Engine = import_module("geoglnet.engines.on_ray").OnRay(workers, gpus_per_worker=min(1, len(gpus) / workers))
    return made


def predict_with(
    engine: Engine,
    scene_paths: Sequence[StrPath],
    paths: Mapping[str, StrPath | None],
    *,
    overwrite: bool,
    resume: bool,
    progress: Progress,
    **request: Any,
) -> Written:
    """Predict a scene by the workers of an engine.

    Args:
        engine: where workers run.
        scene_paths: as for :func:`~geoglnet.cluster.planning.plan`.
        paths: files to write, by output.
        overwrite: replace outputs that exist, and begin anew.
        resume: go on with a run that was stopped, if there is one.
        progress: receiver of steps and of the rules applied.
        request: the other keywords of :func:`~geoglnet.cluster.planning.plan`.

    Raises:
        OutputExistsError: an output exists, or a run that was stopped and is not to be resumed.
        GeoglnetError: as for the three of them.
    """
    first = next(iter(in_order(paths).values()))
    store = FolderStore(Path(f"{first}{RUN_SUFFIX}"))
    if store.get(JOB) is not None and not resume and not overwrite:
        raise OutputExistsError(
            f"{store.folder} is an interrupted run; pass "
            + (Keyword("resume", True) + " to continue it, or " + Keyword("overwrite", True) + " to start over")
        )
    job = plan(store, scene_paths, paths, **request, overwrite=overwrite, progress=progress)
    try:
        drive(store, engine, retry=resume, progress=progress)
        return finish(store, progress=progress)
    finally:
        _leave(Records(store, job), progress)


def _leave(records: Records, progress: Progress) -> None:
    """Say what is left of a run that ends early; nothing that is not worth keeping is."""
    store = records.store
    if store.get(JOB) is None:
        return
    if store.names(TASKS):
        progress.warn(f"finished tasks are kept in {store.place}; continue with " + Keyword("resume", True))
    else:
        records.remove()
        store.tidy()
