"""``geoglnet.predict`` and ``iter_blocks``: a scene in, files or blocks out, and a handle to what was written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoglnet.api.bars import watched
from geoglnet.api.keywords import Request
from geoglnet.api.model import Model, path_of
from geoglnet.api.report import Report
from geoglnet.api.scenes import TemporaryFolder, scene_files
from geoglnet.api.session import options
from geoglnet.api.views import Views
from geoglnet.errors import ConfigError
from geoglnet.output import OutputFile
from geoglnet.prediction.layers import LABELS, LAYERS, VECTOR, layer_named
from geoglnet.prediction.request import check_request, polygon_config
from geoglnet.raster.lazy import open_lazily

if TYPE_CHECKING:
    from affine import Affine
    from geopandas import GeoDataFrame
    from matplotlib.axes import Axes
    from rasterio.crs import CRS
    from xarray import DataArray

    from geoglnet.api.maps import WebMap
    from geoglnet.engines.port import Engine
    from geoglnet.legend import Legend
    from geoglnet.prediction.blocks import Block
    from geoglnet.prediction.estimate import Estimate
    from geoglnet.prediction.outputs import Written
    from geoglnet.prediction.plan import BlockSet
    from geoglnet.prediction.predict_config import PredictConfig
    from geoglnet.prediction.seam_report import SeamReport
    from geoglnet.progress import Progress
    from geoglnet.types import Bounds, Shape, StrPath
    from geoglnet.vector.settings import VectorConfig


_UNNAMED = {"labels": "labels.tif", "confidence": "confidence.tif", "vector": "polygons.gpkg"}
"""What is written into a temporary folder where no file was named."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What :func:`predict` wrote: paths, and views that read what is asked for.

    >>> import geoglnet
    >>> done = geoglnet.predict("scene.tif", "map.tif", vector_path="map.gpkg")
    >>> done.labels().dims, done.labels().dtype
    (('band', 'y', 'x'), dtype('uint8'))
    >>> done.polygons().columns.tolist()[:4]
    ['class_id', 'class_name', 'area_m2', 'perimeter_m']
    >>> axes = done.plot(size=400)
    >>> done.explore(size=200).save("map.html")

    Args:
        paths: files by output: ``"labels"``, ``"vector"``, ``"confidence"`` and so on.
        num_polygons: how many polygons; ``None`` when none were asked for.
        shape: (height, width) of the rasters in pixels, at the resolution that the model was run at.
        crs: of everything written; ``None`` when the scene has none.
        transform: of the rasters, pixel to CRS coordinates.
        seams: how well the blocks fit together.
        seconds: wall-clock time.
        scene_paths: what was segmented.
        legend: classes.
        model: name of the model.
        rules: how the scene was read, in sentences.
        warnings: what was unexpected, in sentences.
        folders: temporary ones of outputs that no file was named for, and of arrays; they go with the handle.

    Raises:
        MemoryLimitError: a view would read more at once than ``geoglnet.options`` or its ``limit_mb`` allows.
        ConfigError: what is to be viewed was not written.
        ModuleNotFoundError: an optional library is missing; says how to get it.
    """

    paths: Mapping[str, Path]
    num_polygons: int | None
    shape: Shape
    crs: CRS | None
    transform: Affine
    seams: SeamReport
    seconds: float
    scene_paths: tuple[StrPath, ...]
    legend: Legend
    model: str
    rules: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    folders: tuple[TemporaryFolder, ...] = field(default=(), repr=False, compare=False)

    @property
    def labels_path(self) -> Path | None:
        """Label raster, if one was asked for."""
        return self.paths.get("labels")

    @property
    def vector_path(self) -> Path | None:
        """Polygons, if they were asked for."""
        return self.paths.get("vector")

    @property
    def confidence_path(self) -> Path | None:
        """Confidence raster, if one was asked for."""
        return self.paths.get("confidence")

    def labels(self, *, limit_mb: float | None = None) -> DataArray:
        """Open the labels as a lazy ``(band, y, x)`` uint8 DataArray, 255 without a class; needs ``geoglnet[notebook]``.

        Nothing is read until pixels are asked for, and then no more than ``limit_mb`` at once::

            done.labels()[0, 5000:6000, 5000:6000].values
            done.labels()[0, ::16, ::16].plot()
        """
        return self.open("labels", limit_mb=limit_mb)

    def open(self, kind: str = LABELS.name, *, limit_mb: float | None = None) -> DataArray:
        """Open any raster that was written, like :meth:`labels`.

        Args:
            kind: name of the layer: ``"labels"``, ``"confidence"``, ``"entropy"``, ``"probabilities"``.
            limit_mb: megabytes that one read may take; ``geoglnet.options.limit_mb`` when left out.
        """
        opened: DataArray = open_lazily(self._raster_path(kind), options.limit_mb if limit_mb is None else limit_mb)
        return opened

    def polygons(self, *, bounds: Bounds | None = None, limit_mb: float | None = None) -> GeoDataFrame:
        """Read the polygons, or those that touch some bounds, with class, area in m², perimeter in m, confidence 0–1.

        Args:
            bounds: (left, bottom, right, top) in :attr:`crs`.
            limit_mb: megabytes that they may take; ``geoglnet.options.limit_mb`` when left out.
        """
        return self._views().polygons(bounds, limit_mb)

    def plot(self, *, bounds: Bounds | None = None, size: int = 1000, ax: Axes | None = None) -> Axes:
        """Draw the scene with its labels, or its polygons where no labels were written, at ``size`` pixels; needs
        ``geoglnet[notebook]``. Memory depends on ``size`` alone."""
        return self._views().plot(bounds, size, ax)

    def explore(self, *, bounds: Bounds | None = None, size: int = 800, limit: int | None = None) -> WebMap:
        """Make a web map of scene, labels, polygons with attributes, and legend: one page that needs no network.

        Args:
            bounds: (left, bottom, right, top) in :attr:`crs`.
            size: pixels of the scene's picture, which is part of the page; the longer side.
            limit: most polygons in the page; ``geoglnet.options.limit_polygons`` when left out.
        """
        return self._views().explore(bounds, size, limit)

    @property
    def report(self) -> Report:
        """Report what was done, by which rules, how well the blocks fit together, and where it lies."""
        size = "" if self.crs is None else f", {abs(self.transform.a):g} {self.crs.units_factor[0]} of the CRS each"
        facts: dict[str, Any] = {"model": self.model, "classes": ", ".join(self.legend.names)}
        facts |= {"pixels": f"{self.shape.width} × {self.shape.height}{size}", "CRS": str(self.crs or "none: in pixels")}
        facts |= {} if self.num_polygons is None else {"polygons": self.num_polygons}
        facts |= {"seams": str(self.seams).removeprefix("seams: "), "seconds": f"{self.seconds:.1f}"}
        facts |= {kind: str(path) for kind, path in self.paths.items()}
        names = ", ".join(os.fspath(path) for path in self.scene_paths)
        # The run has logged its seam report too, which stands among the facts already.
        notes = (*self.rules, *(f"Warning: {warning}" for warning in self.warnings))
        return Report(f"Segmented {names}", facts, tuple(note for note in notes if not note.startswith("seams: ")))

    def __repr__(self) -> str:
        files = ", ".join(str(path) for path in self.paths.values())
        return f"<geoglnet.Prediction {self.shape.width} × {self.shape.height} px by {self.model!r}: {files}>"

    def _raster_path(self, kind: str) -> Path:
        rasters = [known for known in self.paths if known in LAYERS]
        if kind not in rasters:
            there = f"there are {', '.join(rasters)}" if rasters else "there are none"
            raise ConfigError(f"no raster {kind!r} was written; {there}: give predict(…, {kind}_path=…)")
        return self.paths[kind]

    def _views(self) -> Views:
        return Views(self.legend, self.scene_paths, self.labels_path, self.vector_path)


def predict(
    scene: StrPath | Sequence[StrPath] | Any,
    labels_path: StrPath | None = None,
    *,
    vector_path: StrPath | None = None,
    confidence_path: StrPath | None = None,
    entropy_path: StrPath | None = None,
    probabilities_path: StrPath | None = None,
    uncertain_path: StrPath | None = None,
    transform: Affine | None = None,
    crs: Any = None,
    beside: Mapping[str, StrPath] | None = None,
    model: StrPath | Model = "buildings",
    config: PredictConfig | None = None,
    vector_config: VectorConfig | Mapping[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    engine: str | Engine | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Prediction:
    """Predict labels, polygons, or both for a scene.

    The scene may be larger than memory, of any type and in any CRS, or have none. It is read at the model's resolution;
    pixels that are nodata, transparent or masked get no class. Memory depends on the model's region, not on the scene.

    >>> import geoglnet
    >>> done = geoglnet.predict("scene.tif", "labels.tif", vector_path="roofs.gpkg")
    >>> print(done.crs, done.num_polygons == len(done.polygons()))
    EPSG:32736 True
    >>> done.labels()[0, :100, :100].shape  # xarray; read where it is asked for
    (100, 100)
    >>> import rasterio
    >>> with rasterio.open("scene.tif") as src:  # arrays too; results without names go with their handle
    ...     large = geoglnet.predict(src.read(), transform=src.transform, crs=src.crs, min_area=40).polygons()
    >>> bool(large.area_m2.min() >= 40)
    True

    Args:
        scene: anything that GDAL opens: a file, a URL, a /vsi path; or several of one grid, as one mosaic; or a Sentinel-2
            product or STAC item. Also an open rasterio dataset, a numpy array ``(bands, h, w)`` (masked where it has no
            values), an xarray ``DataArray`` (computed strip by strip where it is lazy) or a pystac item.
        labels_path: cloud-optimized GeoTIFF to write: class numbers, 255 where there is no class, with colors and names.
        vector_path: polygons to write with class, area and confidence: GeoPackage (styled when opened in QGIS), FlatGeobuf,
            GeoJSON or GeoParquet, as its suffix says.
        confidence_path: cloud-optimized GeoTIFF to write: the chosen class's probability times 254, else 255.
        entropy_path: the same of the probabilities' entropy as a fraction of the largest possible.
        probabilities_path: the same of every class's probability, one band per class.
        uncertain_path: GeoPackage to write: the ten squares of 256 pixels in which the model is least certain, by the mean
            entropy; where looking, and labels for :func:`adapt`, pay most.
        transform: pixel to CRS coordinates of an array; that of a ``DataArray`` when left out.
        crs: of an array, in any form; that of a ``DataArray`` when left out.
        beside: other rasters of the same place, by the name of the model's band that is read from each:
            ``{"height": "dsm.tif"}``. Each may have a CRS, resolution and extent of its own.
        model: name of a shipped model, a ``.safetensors`` file, or what :func:`load_model` returned.
        config: device, batch size, precision, bands, scaling, bounds, mask, effort, augmentation; see
            :class:`~geoglnet.prediction.predict_config.PredictConfig`.
        vector_config: simplification, clean-up and so on. Left out, the model's own settings, if it has any; a mapping such as
            ``{"min_area_m2": 20}`` replaces some of those; a :class:`~geoglnet.vector.settings.VectorConfig` all of them, and
            ``VectorConfig()`` gives the outlines of the pixels.
        overwrite: replace outputs that exist.
        resume: go on with a run of these outputs that was stopped, if there is one; the bytes are those of an uninterrupted
            run.
        engine: ``"processes"`` or ``"ray"`` to have several workers compute the scene, as many as ``workers`` says and one for
            each GPU at least; or an object of :mod:`geoglnet.engines`. Left out, this process does. The bytes are the same.
        progress: receiver of steps and of the rules applied; may raise :class:`~geoglnet.errors.Canceled` to stop. Bars when
            left out; ``geoglnet.options.progress = False`` has none.
        settings: fields of ``config`` and ``vector_config`` by name, as in ``bounds=…, device="cuda", simplify="1px",
            min_area=20``; ``<name>_path`` of layers that were added to the table in :mod:`geoglnet.prediction.layers`.

    Returns:
        Paths of what was written, number of polygons, shape, CRS, seam report, lazy views; never the array. Where no file was
        named, labels, confidence and polygons lie in a temporary folder, which goes with the handle.

    Raises:
        ConfigError: settings that cannot be used, or something that is no scene.
        OutputExistsError: an output exists, or a run that was stopped and is not to be resumed.
        OutputError: an output cannot be written, the disk is full, another run is at it, or the run that was stopped was one
            of something else.
        ModelNotFoundError: no such model.
        CheckpointError: the model file cannot be used.
        SceneNotFoundError: no such scene.
        SceneError: the scene cannot be read, or its bands don't fit the model.
        Canceled: ``progress`` said so.
    """
    started = time.monotonic()
    request = Request.of("predict", settings, config, vector_config)
    paths = {
        "labels": labels_path,
        "vector": vector_path,
        "confidence": confidence_path,
        "entropy": entropy_path,
        "probabilities": probabilities_path,
        **request.paths,
    }
    doubts = None if uncertain_path is None else _doubts(uncertain_path, paths, overwrite or resume)
    files = scene_files(scene, transform=transform, crs=crs)
    folders = [] if files.folder is None else [files.folder]
    if not any(paths.values()):
        folders.append(TemporaryFolder())
        paths |= {name: folders[-1].path / file for name, file in _UNNAMED.items()}
    if not resume:  # then outputs may be there
        check_request(files.paths, paths, path_of(model), polygon_config(request.vector_config), overwrite=overwrite)
    options = {
        "beside": beside,
        "model": path_of(model),
        "config": request.config,
        "vector_config": request.vector_config,
        "overwrite": overwrite,
        "resume": resume,
    }
    with watched(progress) as recorder:
        written = _written(engine, files.paths, paths, {**options, "progress": recorder})
    outputs = dict(written.paths)
    if doubts is not None:
        _write_doubts(doubts, outputs, is_kept=entropy_path is not None)
    return Prediction(
        paths=outputs,
        num_polygons=written.num_polygons,
        shape=written.shape,
        crs=written.crs,
        transform=written.transform,
        seams=written.seams,
        seconds=time.monotonic() - started,
        scene_paths=files.paths,
        legend=written.legend,
        model=written.model,
        rules=tuple(recorder.rules),
        warnings=tuple(recorder.warnings),
        folders=tuple(folders),
    )


def _written(
    engine: str | Engine | None, scene_paths: tuple[StrPath, ...], paths: Mapping[str, StrPath | None], options: dict[str, Any]
) -> Written:
    """Predict in this process, or by the workers of an engine."""
    # Here, not above: torch takes seconds to load, and what is refused by its name does not need it.
    if engine is None:
        from geoglnet.prediction.run import begin

        with begin(scene_paths, paths, **options) as run:
            run.compute()
            num_polygons = run.finish()
        # The seams were measured while the run was finished, and kept: the folder of its blocks is gone by now.
        return run.writer.written(run.settings.outputs, num_polygons)
    from geoglnet.api.engine import engine_named, predict_with

    made = engine_named(engine, options["vector_config"], options["config"].device) if isinstance(engine, str) else engine
    return predict_with(made, scene_paths, paths, **options)


def estimate(
    scene: StrPath | Sequence[StrPath] | Any,
    labels_path: StrPath | None = None,
    *,
    vector_path: StrPath | None = None,
    uncertain_path: StrPath | None = None,
    transform: Affine | None = None,
    crs: Any = None,
    beside: Mapping[str, StrPath] | None = None,
    model: StrPath | Model = "buildings",
    config: PredictConfig | None = None,
    vector_config: VectorConfig | Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Estimate:
    """Estimate what :func:`predict` would do, and check all that it would check; nothing is written.

    >>> import geoglnet
    >>> expected = geoglnet.estimate("scene.tif", "expected.tif", bounds=(612000, 9311950, 612050, 9312000))
    >>> expected.unit, expected.minutes < 5
    ('patches', True)

    Args:
        scene: as for :func:`predict`, and so are all others.
        labels_path: see there.
        vector_path: see there.
        uncertain_path: see there.
        transform: see there.
        crs: see there.
        beside: see there.
        model: see there.
        config: see there.
        vector_config: see there.
        overwrite: see there.
        progress: receives the rules by which the scene would be read.
        settings: see there; also ``confidence_path`` and the other layers.

    Returns:
        Patches, minutes of the network's work, bytes of the rasters before they are compressed.

    Raises:
        GeoglnetError: what :func:`predict` would raise before it begins.
    """
    request = Request.of("estimate", settings, config, vector_config)
    paths = {LABELS.name: labels_path, VECTOR: vector_path, **request.paths}
    if uncertain_path is not None:
        _doubts(uncertain_path, paths, overwrite)
    files = scene_files(scene, transform=transform, crs=crs)
    if not any(paths.values()):
        unnamed = TemporaryFolder()
        paths |= {name: unnamed.path / file for name, file in _UNNAMED.items()}
    check_request(files.paths, paths, path_of(model), polygon_config(request.vector_config), overwrite=overwrite)
    from geoglnet.prediction import run  # as in predict()

    with watched(progress) as recorder:
        return run.estimate(
            files.paths,
            paths,
            beside=beside,
            model=path_of(model),
            config=request.config,
            vector_config=request.vector_config,
            overwrite=overwrite,
            progress=recorder,
        )


def _doubts(path: StrPath, paths: dict[str, StrPath | None], replaces: bool) -> OutputFile:
    """Check that the uncertain squares can be written, and ask for the entropy that they come from."""
    file = OutputFile(path, replaces)
    if file.path.suffix.lower() != ".gpkg":
        raise ConfigError(f"{file.path.name}: uncertain areas are written as a GeoPackage; let its name end in .gpkg")
    if paths.get("entropy") is None:  # named after it, so that a run that is resumed finds it again
        paths["entropy"] = file.path.with_suffix(".entropy.tif")
    return file


def _write_doubts(file: OutputFile, outputs: dict[str, Path], *, is_kept: bool) -> None:
    """Write the uncertain squares; the entropy goes if nobody asked for it."""
    from geoglnet.vector.uncertain import write_uncertain_areas

    entropy = outputs["entropy"]
    write_uncertain_areas(entropy, file)
    outputs["uncertain"] = file.path
    if not is_kept:
        del outputs["entropy"]
        entropy.unlink(missing_ok=True)


def iter_blocks(
    scene: StrPath | Sequence[StrPath] | Any,
    *,
    layers: Iterable[str] = ("labels",),
    transform: Affine | None = None,
    crs: Any = None,
    beside: Mapping[str, StrPath] | None = None,
    model: StrPath | Model = "buildings",
    config: PredictConfig | None = None,
    blocks: BlockSet | None = None,
    progress: Progress | None = None,
) -> Iterator[Block]:
    """Predict a scene block by block without writing files, for programs that store pixels themselves.

    A block depends on scene, model and options alone, so any of them can be computed anywhere, in any order.

    >>> import geoglnet
    >>> for block in geoglnet.iter_blocks("scene.tif"):
    ...     print(block.row, block.col, block.labels.dtype, block.labels.shape == (block.window.height, block.window.width))
    0 0 uint8 True

    Memory is that of :func:`predict`, and the layers of one block: a byte per pixel and band.

    Args:
        scene: as for :func:`predict`.
        layers: names of what to compute: ``"labels"``, ``"confidence"``, ``"entropy"``, ``"probabilities"``.
        transform: as for :func:`predict`.
        crs: as for :func:`predict`.
        beside: as for :func:`predict`.
        model: name of a shipped model, a ``.safetensors`` file, or what :func:`load_model` returned.
        config: as for :func:`predict`.
        blocks: which blocks to compute, a set of (row, column) or anything that such a pair can be ``in``; all when left out.
        progress: receiver of steps and of the rules applied; bars when left out.

    Yields:
        Blocks with their window in the scene at the resolution it is read at, and ``(bands, h, w)`` uint8 arrays by name of the
        layer.

    Raises:
        ConfigError: settings that cannot be used.
        ModelNotFoundError: no such model.
        CheckpointError: the model file cannot be used.
        SceneError: the scene cannot be read.
    """
    from geoglnet.models.opening import open_model
    from geoglnet.models.shipped import model_path
    from geoglnet.prediction.predict_config import PredictConfig
    from geoglnet.prediction.predictor import Predictor
    from geoglnet.prediction.source import Source

    config = config or PredictConfig()
    network, manifest = open_model(model_path(path_of(model)))
    files = scene_files(scene, transform=transform, crs=crs)  # held until the last block
    with watched(progress) as recorder, Source.of(files.paths, beside).open_for(manifest, config, recorder) as opened:
        chosen = [layer_named(name) for name in layers]
        for pending in Predictor(network, manifest, config).iter_blocks(opened, chosen, blocks=blocks, progress=recorder):
            yield pending.resolve()
