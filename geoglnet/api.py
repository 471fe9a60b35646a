"""Doors for notebooks and programs: the tools under short names. Imports stand in the functions, for start-up time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoglnet.legend import Legend
    from geoglnet.prediction.block import Block
    from geoglnet.prediction.config import PredictConfig
    from geoglnet.prediction.segmented import Segmented
    from geoglnet.prediction.work import BlockSet
    from geoglnet.progress import Progress
    from geoglnet.types import StrPath
    from geoglnet.vector.vectorize import VectorConfig


def predict(
    scene_path: StrPath | Sequence[StrPath],
    labels_path: StrPath | None = None,
    *,
    vector_path: StrPath | None = None,
    confidence_path: StrPath | None = None,
    entropy_path: StrPath | None = None,
    probabilities_path: StrPath | None = None,
    model: str = "buildings",
    config: PredictConfig | None = None,
    vector_config: VectorConfig | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Segmented:
    """Segment a scene into a label raster, polygons, or both.

    The scene may be larger than memory, of any type and in any CRS, or have none. It is read at the model's resolution;
    pixels that are nodata, transparent or masked get no class. Memory depends on the model's region, not on the scene::

        import geoglnet

        done = geoglnet.predict("scene.tif", "labels.tif", vector_path="roofs.gpkg")
        print(done.num_polygons, done.crs, done.seams)
        view = done.open("labels")[0, :1000, :1000]  # xarray; read where it is asked for

    Args:
        scene_path: anything that GDAL opens: a file, a URL, a /vsi path; or several of one grid, as one mosaic.
        labels_path: cloud-optimised GeoTIFF to write: class numbers, 255 where there is no class, with colours and names.
        vector_path: polygons to write with class, area and confidence: GeoPackage (styled when opened in QGIS), FlatGeobuf,
            GeoJSON or GeoParquet, as its suffix says.
        confidence_path: cloud-optimised GeoTIFF to write: the chosen class's probability times 254, else 255.
        entropy_path: the same of the probabilities' entropy as a fraction of the largest possible.
        probabilities_path: the same of every class's probability, one band per class.
        model: name of a shipped model, or a ``.safetensors`` file.
        config: device, batch size, precision, bands, scaling, bounds, mask, effort, augmentation; see
            :class:`~geoglnet.prediction.config.PredictConfig`.
        vector_config: simplification, clean-up and so on; see :class:`~geoglnet.vector.config.VectorConfig`.
        overwrite: replace outputs that exist.
        resume: go on with a run of these outputs that was stopped, if there is one; the bytes are those of an uninterrupted
            run.
        progress: receiver of steps and of the rules applied; may raise :class:`~geoglnet.errors.Cancelled` to stop.

    Returns:
        Paths of what was written, number of polygons, shape, CRS, seam report, lazy views; never the array.

    Raises:
        ConfigError: nothing to write, or settings that cannot be used.
        OutputExistsError: an output exists, or a run that was stopped and is not to be resumed.
        OutputError: an output cannot be written, the disk is full, another run is at it, or the run that was stopped was one
            of something else.
        ModelNotFoundError: no such model.
        CheckpointError: the model file cannot be used.
        SceneNotFoundError: no such scene.
        SceneError: the scene cannot be read, or its bands don't fit the model.
        Cancelled: ``progress`` said so.
    """
    from geoglnet.prediction.destinations import Destinations
    from geoglnet.prediction.segment import segment

    given = (labels_path, vector_path, confidence_path, entropy_path, probabilities_path)
    labels, vector, confidence, entropy, probabilities = (None if path is None else Path(path) for path in given)
    destinations = Destinations(labels, vector, confidence, entropy, probabilities, overwrite)
    return segment(
        scene_path, destinations, model=model, config=config, vector_config=vector_config, resume=resume, progress=progress
    )


def iter_blocks(
    scene_path: StrPath | Sequence[StrPath],
    *,
    layers: Iterable[str] = ("labels",),
    model: str = "buildings",
    config: PredictConfig | None = None,
    blocks: BlockSet | None = None,
    progress: Progress | None = None,
) -> Iterator[Block]:
    """Segment a scene block by block, and keep nothing: for programs that have a place of their own for the pixels.

    A block depends on scene, model and options alone, so any of them can be computed anywhere, in any order::

        for block in geoglnet.iter_blocks("scene.tif"):
            print(block.row, block.col, block.window, (block.labels == 1).mean())

    Args:
        scene_path: as for :func:`predict`.
        layers: what to know of every pixel: ``"labels"``, ``"confidence"``, ``"entropy"``, ``"probabilities"``.
        model: name of a shipped model, or a ``.safetensors`` file.
        config: as for :func:`predict`.
        blocks: which blocks to compute, a set of (row, column) or anything that such a pair can be ``in``; all when left out.
        progress: receiver of steps and of the rules applied.

    Yields:
        Blocks with their window in the scene at the resolution it is read at, and uint8 arrays by layer.

    Raises:
        ConfigError: settings that cannot be used.
        ModelNotFoundError: no such model.
        CheckpointError: the model file cannot be used.
        SceneError: the scene cannot be read.
    """
    from geoglnet.models.checkpoint import load_checkpoint
    from geoglnet.models.registry import model_path
    from geoglnet.prediction.block import Layer
    from geoglnet.prediction.config import PredictConfig
    from geoglnet.prediction.opening import Source
    from geoglnet.prediction.predictor import Predictor
    from geoglnet.progress import SilentProgress

    config, progress = config or PredictConfig(), progress or SilentProgress()
    network, manifest = load_checkpoint(model_path(model))
    with Source.of(scene_path).open_for(manifest, config, progress) as scene:
        chosen = [Layer(name) for name in layers]
        for pending in Predictor(network, manifest, config).iter_blocks(scene, chosen, blocks=blocks, progress=progress):
            yield pending.resolve()


def vectorize(
    labels_path: StrPath,
    vector_path: StrPath,
    *,
    legend: Legend | None = None,
    confidence_path: StrPath | None = None,
    config: VectorConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Trace a label raster into polygons.

    Polygons equal those of tracing the raster as a whole, in memory that does not grow with it.

    Args:
        labels_path: uint8 raster of class numbers, 255 where there is no class.
        vector_path: polygons to write with ``class_id, class_name, area_m2, perimeter_m, confidence, part_of, scene, model``:
            GeoPackage (styled in QGIS), FlatGeobuf, GeoJSON or GeoParquet, as its suffix says.
        legend: class names and colours; the raster's own when left out, else numbered classes.
        confidence_path: raster of the chosen class's probability times 254 (or of fractions, one band or one per class), for
            the polygons' mean confidence.
        config: see :class:`~geoglnet.vector.config.VectorConfig`.
        overwrite: replace the vector file if it exists.
        progress: receiver of steps.

    Returns:
        The number of polygons written.

    Raises:
        ConfigError: a format that is not written, or settings that cannot be used.
        SceneError: the raster cannot be read, or does not hold labels.
        OutputExistsError: the vector file exists.
        OutputError: it cannot be written.
    """
    from geoglnet.vector.vectorize import vectorize as tool

    return tool(
        labels_path,
        vector_path,
        legend=legend,
        confidence_path=confidence_path,
        config=config,
        overwrite=overwrite,
        progress=progress,
    )
