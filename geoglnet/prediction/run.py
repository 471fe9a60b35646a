"""The tool that predicts a named scene into named files: label raster, other rasters, polygons."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from geoglnet.errors import GeoglnetError
from geoglnet.message import Keyword
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.models.shipped import DEFAULT_MODEL, model_path
from geoglnet.output import refuse_inputs, unwritable
from geoglnet.prediction.area import Area, choose_area
from geoglnet.prediction.config import PredictConfig
from geoglnet.prediction.journal import Journal, model_fact, run_facts
from geoglnet.prediction.layers import CONFIDENCE, LABELS, LAYERS, VECTOR, Layer
from geoglnet.prediction.outputs import Finishing, Segmented, in_order, output_files
from geoglnet.prediction.plan import BlockSet, Plan
from geoglnet.prediction.predictor import Predictor
from geoglnet.prediction.source import SceneFiles, Source
from geoglnet.prediction.workspace import Workspace, check_facts, open_workspace, unfinished_journal, workspace_of, write_behind
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.gdal import local_files
from geoglnet.raster.scene import RasterScene
from geoglnet.types import StrPath
from geoglnet.vector.settings import VectorConfig
from geoglnet.vector.vectorize import check_ground


def segment(
    scene_path: StrPath | Sequence[StrPath],
    paths: Mapping[str, StrPath | None],
    *,
    model: str = DEFAULT_MODEL,
    config: PredictConfig | None = None,
    vector_config: VectorConfig | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Segmented:
    """Segment a scene into rasters, polygons, or both.

    Outputs are checked before anything is computed, and appear under their names only when they are whole. Finished
    blocks lie in a folder beside the first one until then (``labels.tif.unfinished``): a run that was stopped, killed or cut
    off goes on from there, and ends with the same bytes.

    Args:
        scene_path: any raster that GDAL opens, of any size; or several of one grid, as one mosaic.
        paths: files to write, by output: ``{"labels": "labels.tif", "vector": "roofs.gpkg"}``.
        model: name of a shipped model, or a ``.safetensors`` file.
        config: device, batch size, precision, bands, scaling, area, effort.
        vector_config: how polygons are made.
        overwrite: replace files that exist.
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
        Canceled: ``progress`` said so.
    """
    started = time.monotonic()
    config, progress, source = config or PredictConfig(), progress or SilentProgress(), Source.of(scene_path)
    vector_config = vector_config or VectorConfig()
    named = in_order(paths)
    folder = workspace_of(named.values(), resume=resume)
    earlier = unfinished_journal(folder) if resume else None
    outputs = output_files(named, vector_config, overwrite=overwrite, journal=earlier)
    checkpoint_path = model_path(model)
    refuse_inputs(outputs.values(), _inputs(source, checkpoint_path, config, vector_config))
    with ExitStack() as stack:
        for file in outputs.values():
            stack.enter_context(file.claimed())
        network, manifest = load_checkpoint(checkpoint_path)
        if earlier is not None:  # said before anything about how the scene suits another model
            check_facts(earlier, dict(earlier.facts) | {"model": model_fact(manifest, checkpoint_path)})
        scene = stack.enter_context(source.open_for(manifest, config, progress))
        if VECTOR in outputs:
            check_ground(outputs[VECTOR].path, scene.name, scene.crs, vector_config, SilentProgress())
        area = choose_area(scene, config.bounds, config.mask_path, progress)
        config = replace(config, spool_folder=config.spool_folder or folder)
        predictor = Predictor(network, manifest, config)
        del network  # its unfolded half is not needed any more
        layers = _layers(outputs)
        files = SceneFiles.of(scene)
        facts = run_facts(scene, files, (checkpoint_path, manifest), config, layers, predictor.segmenter.device)
        with (
            open_workspace(folder, facts, resume=resume, overwrite=overwrite) as workspace,
            _kept(workspace, progress),
        ):
            _compute(predictor, scene, area, layers, workspace, progress)
            files.check_unchanged(scene.name)
            tags = _tags(manifest, checkpoint_path, source, scene)
            finishing = Finishing(workspace, scene, area, manifest, tags, progress)
            progress.log(str(finishing.seams))
            num_polygons = finishing.write(outputs, vector_config)
        return Segmented(
            paths=named,
            num_polygons=num_polygons,
            shape=finishing.shape,
            crs=scene.crs,
            transform=finishing.transform,
            seams=finishing.seams,
            seconds=time.monotonic() - started,
        )


def _inputs(
    source: Source, checkpoint_path: Path, config: PredictConfig, vector_config: VectorConfig
) -> Iterator[tuple[str, StrPath]]:
    """What the run reads, so that no output replaces it."""
    yield "the model", checkpoint_path
    yield from (("the mask", path) for path in (config.mask_path,) if path is not None)
    if vector_config.statistics_path is not None:
        yield from (("the raster of the statistics", path) for path in local_files(vector_config.statistics_path))
    named = {Path(os.fspath(path)) for path in source.paths}
    yield from (("the scene itself" if path in named else "a file of the scene", path) for path in source.iter_files())


def _layers(outputs: Collection[str]) -> tuple[Layer, ...]:
    """Choose what blocks hold: labels always, and confidence also for polygons."""
    names = {LABELS.name, *outputs, *((CONFIDENCE.name,) if VECTOR in outputs else ())}
    return tuple(layer for layer in LAYERS.values() if layer.name in names)


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
    expected = predictor.estimate(area, layers, missing if workspace.journal.blocks else None)
    progress.log(expected.rule)
    pending = predictor.iter_blocks(scene, layers, area=area, blocks=missing, expected=expected, progress=progress)
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
        if isinstance(error, GeoglnetError):
            raise
        raise unwritable(workspace.folder, error) from error
    finally:
        count = len(workspace.journal.blocks)
        if count and not is_finished:
            progress.warn(f"{_counted(count)} kept in {workspace.folder}; continue with " + Keyword("resume", True))


def _counted(count: int) -> str:
    return "1 finished block is" if count == 1 else f"{count} finished blocks are"


def _tags(manifest: Manifest, checkpoint_path: Path, source: Source, scene: RasterScene) -> dict[str, str]:
    values = {"GEOGLNET_VALUES": scene.values_rule} if scene.values_rule else {}
    return values | {
        "GEOGLNET_MODEL": f"{manifest.name} sha256:{model_digest(checkpoint_path)}",
        "GEOGLNET_SCENE": source.name,
        "GEOGLNET_VERSION": version("geoglnet"),
    }
