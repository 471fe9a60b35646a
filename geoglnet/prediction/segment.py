"""The tool that segments a named scene into named files: label raster, other rasters, polygons."""

from __future__ import annotations

import errno
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from geoglnet import __version__
from geoglnet.errors import OutputError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.models.registry import DEFAULT_MODEL, model_path
from geoglnet.prediction.area import Area, choose_area
from geoglnet.prediction.block import Layer
from geoglnet.prediction.config import PredictConfig
from geoglnet.prediction.destinations import Destinations
from geoglnet.prediction.finishing import Finishing
from geoglnet.prediction.identity import run_facts
from geoglnet.prediction.journal import Journal
from geoglnet.prediction.opening import Source
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.predictor import Predictor
from geoglnet.prediction.segmented import Segmented
from geoglnet.prediction.unchanged import SceneFiles
from geoglnet.prediction.work import BlockSet
from geoglnet.prediction.workspace import Workspace, open_workspace, workspace_path, written_outputs
from geoglnet.prediction.writing import write_behind
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.scene import RasterScene
from geoglnet.types import StrPath
from geoglnet.vector.config import VectorConfig


def segment(
    scene_path: StrPath | Sequence[StrPath],
    destinations: Destinations,
    *,
    model: str = DEFAULT_MODEL,
    config: PredictConfig | None = None,
    vector_config: VectorConfig | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Segmented:
    """Segment a scene into rasters, polygons, or both.

    Destinations are checked before anything is computed, and appear under their names only when they are whole. Finished
    blocks lie in a folder beside the first one until then (``labels.tif.unfinished``): a run that was stopped, killed or cut
    off goes on from there, and ends with the same bytes.

    Args:
        scene_path: any raster that GDAL opens, of any size; or several of one grid, as one mosaic.
        destinations: what to write.
        model: name of a shipped model, or a ``.safetensors`` file.
        config: device, batch size, precision, bands, scaling, area, effort.
        vector_config: how polygons are made.
        resume: go on with a run that was stopped, if there is one.
        progress: receiver of steps and of the rules applied.

    Raises:
        ConfigError: settings that cannot be used.
        OutputExistsError: an output exists, or a run that was stopped and is not to be resumed.
        OutputError: an output cannot be written, the disk is full, another run is at it, or the run that was stopped was one
            of something else.
        ModelNotFoundError: no such model.
        CheckpointError: the model file cannot be used.
        SceneError: the scene cannot be read, or changed meanwhile.
        Cancelled: ``progress`` said so.
    """
    started = time.monotonic()
    config, progress, source = config or PredictConfig(), progress or SilentProgress(), Source.of(scene_path)
    folder = workspace_path(destinations.first)
    claimed = destinations.claim(source, written_outputs(folder) if resume else ())
    checkpoint_path = model_path(model)
    network, manifest = load_checkpoint(checkpoint_path)
    with source.open_for(manifest, config, progress) as scene:
        area = choose_area(scene, config.bounds, config.mask_path, progress)
        config = replace(config, spool_folder=config.spool_folder or folder)
        predictor = Predictor(network, manifest, config)
        del network  # its unfolded half is not needed any more
        layers = _layers(claimed)
        files = SceneFiles.of(scene)
        facts = run_facts(scene, files, (checkpoint_path, manifest), config, layers, predictor.segmenter.device)
        with (
            open_workspace(folder, facts, resume=resume, overwrite=destinations.overwrite) as workspace,
            _kept(workspace, progress),
        ):
            _compute(predictor, scene, area, layers, workspace, progress)
            files.check_unchanged(scene.name)
            tags = _tags(manifest, checkpoint_path, source)
            finishing = Finishing(workspace, scene, area, manifest, tags, progress)
            progress.log(str(finishing.seams))
            num_polygons = finishing.write(claimed, vector_config or VectorConfig())
        return Segmented(
            paths=destinations.paths,
            num_polygons=num_polygons,
            shape=finishing.shape,
            crs=scene.crs,
            transform=finishing.transform,
            seams=finishing.seams,
            seconds=time.monotonic() - started,
        )


def _layers(claimed: Collection[str]) -> tuple[Layer, ...]:
    """Labels always; confidence also for polygons."""
    kinds = {"labels", *claimed, *(("confidence",) if "vector" in claimed else ())}
    return tuple(layer for layer in Layer if layer.value in kinds)


def _compute(
    predictor: Predictor,
    scene: RasterScene,
    area: Area,
    layers: tuple[Layer, ...],
    workspace: Workspace,
    progress: Progress,
) -> None:
    """Compute and store the blocks that are not there yet."""
    plan = Plan(scene.shape, predictor.manifest.region)
    if workspace.journal.blocks:
        progress.log(f"goes on after {len(workspace.journal.blocks)} finished blocks")
    missing = _Missing(area.blocks(plan), workspace.journal)
    pending = predictor.iter_blocks(scene, layers, area=area, blocks=missing, progress=progress)
    write_behind(pending, workspace.store)


@dataclass(frozen=True, slots=True)
class _Missing:
    """Blocks of an area that a run has not finished."""

    blocks: BlockSet
    journal: Journal

    def __contains__(self, place: tuple[int, int]) -> bool:
        return place not in self.journal and place in self.blocks


@contextmanager
def _kept(workspace: Workspace, progress: Progress) -> Iterator[None]:
    """Say what is left of a run that ends early."""
    is_finished = False
    try:
        yield
        is_finished = True
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutputError(f"disk full while writing in {workspace.folder}; free some space and --resume") from error
        raise
    finally:
        count = len(workspace.journal.blocks)
        if count and not is_finished:
            progress.warn(f"{_counted(count)} kept in {workspace.folder}; --resume goes on from there")


def _counted(count: int) -> str:
    return "1 finished block is" if count == 1 else f"{count} finished blocks are"


def _tags(manifest: Manifest, checkpoint_path: Path, source: Source) -> dict[str, str]:
    return {
        "GEOGLNET_MODEL": f"{manifest.name} sha256:{model_digest(checkpoint_path)}",
        "GEOGLNET_SCENE": source.name,
        "GEOGLNET_VERSION": __version__,
    }
