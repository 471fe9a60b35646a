"""Runs: a named scene predicted into named files, by one process or by many.

One process does it all in a row::

    with begin("scene.tif", {"labels": "labels.tif", "vector": "roofs.gpkg"}) as run:
        run.compute()
        run.finish()

Or one process begins, others compute, on any machine that sees the same files, and one finishes::

    with begin("scene.tif", {"labels": "labels.tif"}) as run:
        places, folder = list(run.missing()), run.folder
    with join(folder) as run:      # in each of many processes, with blocks of its own
        run.compute(places[:100])
    with take_over(folder) as run:
        run.compute()              # what is still missing, because a process was killed, say
        run.finish()

What decides the bytes is settled by :func:`begin` and stored in the run's folder. Finished blocks lie there until the outputs
are whole: a run that was stopped, killed or cut off goes on from there, and ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from geoglnet.errors import GeoglnetError, OutputError
from geoglnet.message import Keyword
from geoglnet.models.opening import open_model
from geoglnet.models.shipped import DEFAULT_MODEL
from geoglnet.output import OutputFile, unwritable
from geoglnet.prediction.area import Area
from geoglnet.prediction.estimate import Estimate
from geoglnet.prediction.facts import RunSettings, model_fact
from geoglnet.prediction.layers import Layer
from geoglnet.prediction.machine import machine_facts
from geoglnet.prediction.outputs import OutputWriter
from geoglnet.prediction.plan import BlockSet, Plan
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor
from geoglnet.prediction.preparation import checked_outputs, prepared, settings_of
from geoglnet.prediction.source import SceneFiles
from geoglnet.prediction.workspace import (
    Workspace,
    check_facts,
    joined_workspace,
    open_workspace,
    run_in,
    unfinished_journal,
    workspace_of,
    write_behind,
)
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.scene import RasterScene
from geoglnet.types import StrPath
from geoglnet.vector.settings import VectorConfig


@contextmanager
def begin(
    scene_path: StrPath | Sequence[StrPath],
    paths: Mapping[str, StrPath | None],
    *,
    beside: Mapping[str, StrPath] | None = None,
    model: str = DEFAULT_MODEL,
    config: PredictConfig | None = None,
    vector_config: VectorConfig | Mapping[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    predictor: Predictor | None = None,
    progress: Progress | None = None,
) -> Iterator[Run]:
    """Begin the run of a scene, or go on with one, and hold it as long as the context lasts.

    Outputs are checked before anything is computed, and appear under their names only when they are whole. Finished blocks lie
    in a folder beside the first one until then (``labels.tif.unfinished``).

    Args:
        scene_path: any raster that GDAL opens, of any size; or several of one grid, as one mosaic.
        paths: files to write, by output: ``{"labels": "labels.tif", "vector": "roofs.gpkg"}``.
        beside: other rasters of the same place, by the name of the model's band that is read from each.
        model: name of a shipped model, or a ``.safetensors`` file.
        config: device, batch size, precision, bands, scaling, area, effort.
        vector_config: how polygons are made: all settings, or by name those that replace the model's own.
        overwrite: replace files that exist.
        resume: go on with a run that was stopped, if there is one.
        predictor: of the same model and the same device, batch, precision and effort, to use instead of a new one.
        progress: receiver of steps and of the rules applied.

    Yields:
        The run. Its folder goes when it is finished, or when an exception ends it before a block was computed.

    Raises:
        ConfigError: settings that cannot be used.
        OutputExistsError: an output exists, or a run that was stopped and is not to be resumed.
        OutputError: an output cannot be written, the disk is full, another run is at it, or the run that was stopped was one
            of something else.
        ModelNotFoundError: no such model.
        CheckpointError: the model file cannot be used.
        SceneError: the scene cannot be read.
        Canceled: ``progress`` said so.
    """
    settings = settings_of(scene_path, paths, beside, model, config, vector_config, overwrite)
    folder = workspace_of(settings.outputs.values(), resume=resume)
    with _opened(settings, folder, progress or SilentProgress(), resume=resume, predictor=predictor) as run:
        yield run


def estimate(
    scene_path: StrPath | Sequence[StrPath],
    paths: Mapping[str, StrPath | None],
    *,
    beside: Mapping[str, StrPath] | None = None,
    model: str = DEFAULT_MODEL,
    config: PredictConfig | None = None,
    vector_config: VectorConfig | Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Estimate:
    """Check everything that :func:`begin` does and estimate the run, without writing or touching anything.

    Args:
        scene_path: see :func:`begin`, as all others.
        paths: see there.
        beside: see there.
        model: see there.
        config: see there.
        vector_config: see there.
        overwrite: see there.
        progress: receives the rules by which the scene would be read.

    Returns:
        Patches, minutes and bytes.

    Raises:
        GeoglnetError: as for :func:`begin`.
    """
    settings = settings_of(scene_path, paths, beside, model, config, vector_config, overwrite)
    # In a folder of its own: a run of the same outputs that was stopped stays what it is.
    with TemporaryDirectory() as place, _opened(settings, Path(place, "estimate"), progress or SilentProgress()) as run:
        return run.predictor.estimate(run.area, run.layers)


@contextmanager
def take_over(folder: StrPath, *, progress: Progress | None = None) -> Iterator[Run]:
    """Go on with the run in a folder as it was begun, and hold it as long as the context lasts.

    Args:
        folder: of the run, :attr:`Run.folder`.
        progress: receiver of steps and of the rules applied.

    Yields:
        The run, as :func:`begin`.

    Raises:
        OutputError: there is none, another process is at it, or what it was begun with has changed.
        GeoglnetError: as for :func:`begin`.
    """
    with _opened(_settings_in(Path(folder)), Path(folder), progress or SilentProgress(), resume=True) as run:
        yield run


@contextmanager
def join(folder: StrPath, *, progress: Progress | None = None) -> Iterator[Run]:
    """Join the run in a folder, which nobody holds, to compute blocks beside other processes.

    Args:
        folder: of the run, :attr:`Run.folder`.
        progress: receiver of steps and of the rules applied.

    Yields:
        The run, which can compute but not finish.

    Raises:
        OutputError: there is none, another process holds it, or what it was begun with is different here: the version of
            torch or the number of threads, for example.
        GeoglnetError: as for :func:`begin`.
    """
    with _opened(_settings_in(Path(folder)), Path(folder), progress or SilentProgress(), joined=True) as run:
        yield run


def _settings_in(folder: Path) -> RunSettings:
    return RunSettings.from_dict(run_in(folder).settings, folder)


@dataclass(frozen=True, slots=True)
class MissingBlocks:
    """Blocks of a run that were not finished at one moment: a set, and iterable in the plan's order.

    Args:
        plan: of the scene.
        area: what of it is wanted.
        finished: (row, column) of finished blocks.
        chosen: which blocks are asked for; all of the area when left out.
    """

    plan: Plan
    area: Area
    finished: frozenset[tuple[int, int]]
    chosen: BlockSet | None = None

    def __contains__(self, place: tuple[int, int]) -> bool:
        if place in self.finished or (self.chosen is not None and place not in self.chosen):
            return False
        return self.area.has_any(self.plan.region(*place).core)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rows, cols = len(self.plan.row_edges) - 1, len(self.plan.col_edges) - 1
        return (place for row in range(rows) for col in range(cols) if (place := (row, col)) in self)


@dataclass(frozen=True)
class Run:
    """A prediction under way; :func:`begin`, :func:`take_over` and :func:`join` make one.

    Memory is that of :class:`~geoglnet.prediction.predictor.Predictor`, and some 500 bytes for every finished block.

    Args:
        settings: what it is made from.
        workspace: holds the finished blocks.
        predictor: computes blocks.
        scene: what is predicted.
        files: of the scene, as they were when the run was opened.
        area: what of the scene is wanted.
        layers: what blocks hold.
        writer: writes the outputs.
        progress: receiver of steps and of the rules applied.
    """

    settings: RunSettings
    workspace: Workspace
    predictor: Predictor
    scene: RasterScene
    files: SceneFiles
    area: Area
    layers: tuple[Layer, ...]
    writer: OutputWriter
    progress: Progress

    @property
    def folder(self) -> Path:
        """Name the folder of finished blocks; by it other processes find the run."""
        return self.workspace.folder

    def missing(self) -> MissingBlocks:
        """List the blocks that no process has finished yet."""
        self.workspace.refresh()
        plan = Plan(self.scene.shape, self.predictor.manifest.region)
        return MissingBlocks(plan, self.area, frozenset(self.workspace.journal.blocks))

    def compute(self, blocks: BlockSet | Iterable[tuple[int, int]] | None = None) -> None:
        """Compute blocks that are missing, and bring them to the disk one by one.

        A block depends on the scene, the model and the options alone, so processes may compute any of them in any order;
        neighbors cost least together, as they share regions. One that two processes compute is the same bytes twice.

        Args:
            blocks: which, as (row, column) of the plan's cores; all that are missing when left out.

        Raises:
            ConfigError: the device's memory is too small, or numbers overflow in the network.
            SceneError: the scene cannot be read, or changed meanwhile.
            OutputError: the disk is full.
            Canceled: ``progress`` said so.
        """
        missing = self.missing()
        if blocks is not None:
            missing = replace(missing, chosen=frozenset(blocks) if isinstance(blocks, Iterable) else blocks)
        if missing.finished:
            self.progress.log(f"goes on after {len(missing.finished)} finished blocks")
        # The estimate of a whole scene need not look at every block.
        is_part = bool(missing.finished) or blocks is not None
        expected = self.predictor.estimate(self.area, self.layers, missing if is_part else None)
        self.progress.log(expected.rule)
        pending = self.predictor.iter_blocks(
            self.scene, self.layers, area=self.area, blocks=missing, expected=expected, progress=self.progress
        )
        write_behind(pending, self.workspace.store)
        # After the last read: blocks of a scene that changed meanwhile must not pass for blocks of the one before.
        self.files.check_unchanged(self.scene.name)

    def finish(self) -> int | None:
        """Write the outputs from the blocks, and say how well these fit together.

        Returns:
            Number of polygons, if there are some to write.

        Raises:
            OutputError: blocks are missing, this process has only joined the run, or an output cannot be written.
            SceneError: the scene has changed meanwhile.
            Canceled: ``progress`` said so.
        """
        if self.workspace.number:
            raise OutputError(
                f"a process that has joined {self.folder} cannot finish it; take the run over when all have ended"
            )
        if (place := next(iter(self.missing()), None)) is not None:
            raise OutputError(
                f"{self.folder} lacks blocks, such as that in row {place[0]}, column {place[1]}; compute them first"
            )
        self.files.check_unchanged(self.scene.name)  # before any output gets its name
        self.progress.log(str(self.writer.seams))
        num_polygons = self.writer.write(self.settings.vector_config)
        self.workspace.is_finished = True
        return num_polygons


@contextmanager
def _opened(
    settings: RunSettings,
    folder: Path,
    progress: Progress,
    *,
    resume: bool = False,
    joined: bool = False,
    predictor: Predictor | None = None,
) -> Iterator[Run]:
    """Check everything that a run needs, in the order of what it costs to find out; then open its folder."""
    with ExitStack() as stack:
        earlier = unfinished_journal(folder) if resume else None
        outputs: dict[str, OutputFile] = {}
        if not joined:
            outputs = checked_outputs(settings, earlier)
        for file in outputs.values():  # other runs that share an output are refused from here on
            stack.enter_context(file.claimed())
        if predictor is None:
            network, manifest = open_model(settings.model_path)
        else:
            manifest = predictor.manifest
        if earlier is not None:  # said before anything about how the scene suits another model
            check_facts(earlier, dict(earlier.facts) | {"model": model_fact(manifest, settings.model_path)})
        ready = stack.enter_context(prepared(settings, manifest, outputs, progress))
        config = replace(settings.config, spool_folder=settings.config.spool_folder or folder)
        # Settled before the folder is opened: nothing of a run that cannot begin is left behind.
        if predictor is None:
            predictor = Predictor(network, manifest, config)
            del network  # its unfolded half is not needed any more
        else:
            predictor = predictor.spooling_to(config.spool_folder or folder)
        facts = {**ready.facts, **machine_facts(config, predictor.segmenter)}
        if predictor.segmenter.precision != "float32":
            progress.log(f"the network computes in {predictor.segmenter.precision}")
        if joined:
            workspace = stack.enter_context(joined_workspace(folder, facts))
        else:
            plain = ready.settings.to_dict(ready.scene)
            workspace = stack.enter_context(open_workspace(folder, facts, plain, resume=resume, overwrite=settings.overwrite))
        # Entered after the workspace, so left before it: blocks are counted while the folder is still there.
        stack.enter_context(_kept(workspace, progress))
        writer = OutputWriter(workspace, ready.scene, ready.area, manifest, ready.tags, outputs, progress)
        yield Run(ready.settings, workspace, predictor, ready.scene, ready.files, ready.area, ready.layers, writer, progress)


@contextmanager
def _kept(workspace: Workspace, progress: Progress) -> Iterator[None]:
    """Say what is left of a run that ends early."""
    has_failed = True
    try:
        yield
        has_failed = False
    except OSError as error:
        if isinstance(error, GeoglnetError):
            raise
        raise unwritable(workspace.folder, error) from error
    finally:
        count = len(workspace.journal.blocks)
        if count and has_failed and not workspace.is_finished:
            progress.warn(f"{_counted(count)} kept in {workspace.folder}; continue with " + Keyword("resume", True))


def _counted(count: int) -> str:
    return "1 finished block is" if count == 1 else f"{count} finished blocks are"
