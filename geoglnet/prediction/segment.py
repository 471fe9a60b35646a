"""The tool that segments a named scene into named files: label raster, confidence raster, polygons."""

from __future__ import annotations

import errno
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rasterio.crs import CRS

from geoglnet import __version__
from geoglnet.errors import OutputError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.models.registry import DEFAULT_MODEL, model_path
from geoglnet.prediction.config import PredictConfig
from geoglnet.prediction.destinations import Destinations
from geoglnet.prediction.predictor import predict_scene
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.cog import write_cog
from geoglnet.raster.scene import RasterScene, open_scene
from geoglnet.raster.writer import LabelWriter
from geoglnet.types import OutputFile, Shape, StrPath
from geoglnet.vector.vectorize import VectorConfig, vectorize


@dataclass(frozen=True, slots=True)
class Segmented:
    """What a run of :func:`segment` wrote.

    Args:
        labels_path: label raster, if one was asked for.
        vector_path: polygons, if they were asked for.
        confidence_path: confidence raster, if one was asked for.
        num_polygons: how many polygons; ``None`` when none were asked for.
        shape: of the rasters, at the resolution that the model was run at.
        crs: of everything written; ``None`` when the scene has none.
        seconds: wall-clock time.
    """

    labels_path: Path | None
    vector_path: Path | None
    confidence_path: Path | None
    num_polygons: int | None
    shape: Shape
    crs: CRS | None
    seconds: float


def segment(
    scene_path: StrPath,
    destinations: Destinations,
    *,
    model: str = DEFAULT_MODEL,
    config: PredictConfig | None = None,
    vector_config: VectorConfig | None = None,
    progress: Progress | None = None,
) -> Segmented:
    """Segment a scene into a label raster, polygons, or both.

    Destinations are checked before anything is computed, and appear under their names only when they are whole. Temporary
    files lie in a hidden folder beside the first one: the labels (and confidence) once more, and the spool.

    Args:
        scene_path: any raster that GDAL opens, of any size.
        destinations: what to write.
        model: name of a shipped model, or a ``.safetensors`` file.
        config: device, batch size, precision, bands, scaling.
        vector_config: how polygons are made.
        progress: receiver of steps and of the rules applied.

    Raises:
        ConfigError: settings that cannot be used.
        OutputExistsError: an output exists.
        OutputError: an output cannot be written, or the disk is full.
        ModelNotFoundError: no such model.
        CheckpointError: the model file cannot be used.
        SceneError: the scene cannot be read.
        Cancelled: ``progress`` said so.
    """
    started = time.monotonic()
    config, progress = config or PredictConfig(), progress or SilentProgress()
    claimed = destinations.claim(scene_path)
    checkpoint_path = model_path(model)
    network, manifest = load_checkpoint(checkpoint_path)
    folder = next(iter(claimed.values())).path.parent
    with _open(scene_path, manifest, config, progress) as scene, _scratch_folder(folder) as scratch:
        work = _Work(scratch, manifest, _tags(manifest, checkpoint_path, scene), progress)
        config = replace(config, spool_folder=config.spool_folder or scratch)
        work.predict(scene, network, config, needs_confidence="vector" in claimed or "confidence" in claimed)
        work.write_raster(work.labels_path, claimed.get("labels"))
        work.write_raster(work.confidence_path, claimed.get("confidence"))
        num_polygons = work.vectorize(claimed.get("vector"), vector_config or VectorConfig())
        return Segmented(
            labels_path=destinations.labels_path,
            vector_path=destinations.vector_path,
            confidence_path=destinations.confidence_path,
            num_polygons=num_polygons,
            shape=scene.shape,
            crs=scene.crs,
            seconds=time.monotonic() - started,
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """The steps between an open scene and finished files, through rasters in a scratch folder."""

    folder: Path
    manifest: Manifest
    tags: Mapping[str, str]
    progress: Progress

    @property
    def labels_path(self) -> Path:
        return self.folder / "labels.tif"

    @property
    def confidence_path(self) -> Path:
        return self.folder / "confidence.tif"

    def predict(self, scene: RasterScene, network: GLNet, config: PredictConfig, needs_confidence: bool) -> None:
        with ExitStack() as stack:
            labels = stack.enter_context(self._writer(self.labels_path, scene))
            confidence = stack.enter_context(self._writer(self.confidence_path, scene)) if needs_confidence else None
            predict_scene(scene, network, self.manifest, labels, confidence, config, self.progress)

    def _writer(self, path: Path, scene: RasterScene) -> LabelWriter:
        core_size = self.manifest.region.core_size
        return LabelWriter(path, scene.shape, transform=scene.transform, crs=scene.crs, core_size=core_size)

    def write_raster(self, source_path: Path, destination: OutputFile | None) -> None:
        if destination is not None:
            legend = self.manifest.legend if source_path == self.labels_path else None
            with destination as part_path:
                write_cog(source_path, part_path, legend=legend, tags=self.tags, progress=self.progress)

    def vectorize(self, destination: OutputFile | None, config: VectorConfig) -> int | None:
        """Polygons of the labels, with their confidence, if they were asked for; how many."""
        if destination is None:
            return None
        named = replace(config, scene=self.tags["GEOGLNET_SCENE"], model=self.tags["GEOGLNET_MODEL"])
        return vectorize(
            self.labels_path,
            destination.path,
            legend=self.manifest.legend,
            confidence_path=self.confidence_path,
            config=named,
            overwrite=destination.overwrite,
            progress=self.progress,
        )


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix=".geoglnet-", dir=parent) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutputError(f"disk full while writing in {parent}; free some space or choose another folder") from error
        raise


def _open(scene_path: StrPath, manifest: Manifest, config: PredictConfig, progress: Progress) -> RasterScene:
    scene = open_scene(
        scene_path,
        bands=config.bands,
        num_bands=manifest.model.in_channels,
        resolution_m=manifest.resolution_m,
        assumed_pixel_size_m=config.assumed_pixel_size_m or manifest.assumed_pixel_size_m,
        scaling=config.scaling,
        progress=progress,
    )
    bands = ", ".join(str(band) for band in scene.bands)
    progress.log(f"model {manifest.name}: bands {bands} as {', '.join(manifest.bands)}, {manifest.resolution_m:g} m pixels")
    _check_resolution(scene, manifest, progress)
    return scene


def _check_resolution(scene: RasterScene, manifest: Manifest, progress: Progress) -> None:
    found, (finest, coarsest) = scene.native_pixel_size_m, manifest.resolution_range_m
    if found is None or finest <= found <= coarsest:
        return
    known = f"model {manifest.name} was trained on {finest:g} to {coarsest:g} m"
    if found > coarsest:
        progress.warn(f"the scene has {found:.3g} m pixels, {known}: detail will be missing, expect poor labels")
    else:
        progress.log(f"the scene has {found:.3g} m pixels, {known}: averaged down")


def _tags(manifest: Manifest, checkpoint_path: Path, scene: RasterScene) -> dict[str, str]:
    return {
        "GEOGLNET_MODEL": f"{manifest.name} sha256:{model_digest(checkpoint_path)}",
        "GEOGLNET_SCENE": Path(scene.name).name,
        "GEOGLNET_VERSION": __version__,
    }
