"""Vectorizes rasters: the tool that opens files, cleans and traces tiles, and writes what the seams release.

In order: :func:`vectorize` checks files, :func:`write_polygons` opens them and collects all rules into a :class:`TileJob`, the
job traces tiles (in other processes, where there are several workers), and :class:`_Run` joins them and writes the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rasterio.io import DatasetReader

from geoglnet.errors import ConfigError, SceneError
from geoglnet.legend import Legend
from geoglnet.message import Keyword
from geoglnet.output import OutputFile, refuse_inputs, refuse_sharing
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.class_table import STYLED_CODES, ClassTable
from geoglnet.raster.crs import crs_label, ground_of
from geoglnet.raster.gdal import environment, local_files, open_raster
from geoglnet.raster.grid import Georeference, georeference, ground_pixel_size, pixel_size_m
from geoglnet.types import Shape, StrPath
from geoglnet.vector.class_choice import choose_classes, describe, objects_omitted, warn_of_unnamed
from geoglnet.vector.cleaning import CleaningRules, write_clean_labels
from geoglnet.vector.exchange import convert
from geoglnet.vector.formats import FORMATS, is_geopackage, vector_files
from geoglnet.vector.geopackage import LayerDefinition, write_geopackage
from geoglnet.vector.objects import Gathering, ObjectSurvey, ObjectSurveyJob, TileCounts
from geoglnet.vector.ordered import Ordered
from geoglnet.vector.pieces import TracingRules
from geoglnet.vector.rows import FinishingRules, PolygonRecords
from geoglnet.vector.seams import Seams
from geoglnet.vector.settings import Quantity, VectorConfig
from geoglnet.vector.style import sld
from geoglnet.vector.tile_job import TileJob, TracedTile
from geoglnet.vector.tiles import DatasetTiles
from geoglnet.vector.tracing import NO_CODE, NO_LABEL
from geoglnet.vector.values import RasterValues
from geoglnet.windows import core_edges, iter_cores

__all__ = ["RasterValues", "VectorConfig", "vectorize"]
_NOISE_PIXELS = 20  # per polygon of a tile; fewer on average are taken for noise
_NOISE_POLYGONS = 10_000


def vectorize(
    labels_path: StrPath,
    vector_path: StrPath,
    *,
    legend: Legend | ClassTable | None = None,
    confidence_path: StrPath | None = None,
    config: VectorConfig | None = None,
    values: RasterValues | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Trace the polygons of a raster into a vector file.

    The polygons equal those of tracing the whole raster at once. Memory does not grow with the raster's height, only with the
    incomplete polygons along a row of tiles (:mod:`geoglnet.vector.seams`), up to ``config.max_vertices``.

    Args:
        labels_path: raster whose values are codes of classes, or what ``values`` says.
        vector_path: file to write, with ``class_id, class_name, area_m2, perimeter_m, confidence, part_of, scene, model``;
            its suffix says the format (:data:`geoglnet.vector.formats.FORMATS`).
        legend: names and colors of the codes; left out, the raster's own, else "class 1" and so on with 0 as background.
        confidence_path: raster of the same shape, one band or one per class: uint8 (probability × 254) or fractions.
        config: cleaning, tracing and finishing of polygons.
        values: what the raster's values mean; codes of classes when left out.
        overwrite: replace an existing file.
        progress: receives the stage ``polygons`` in tiles (before it ``cleaning``, when the labels are to be cleaned; after it
            ``writing``, when the format is not GeoPackage).

    Returns:
        Number of polygons written.

    Raises:
        ConfigError: a format that is not written, or a setting that cannot be used.
        SceneError: a raster is missing, damaged, or its values cannot be read in this way.
        OutputError: the file exists, or cannot be written.
    """
    config, values = config or VectorConfig(), values or RasterValues()
    values.check(config, has_legend=legend is not None)
    files = vector_files(vector_path, config, overwrite=overwrite)
    refuse_sharing([*files.values()])
    refuse_inputs(files.values(), _inputs(labels_path, confidence_path, config, values))
    return write_polygons(
        labels_path,
        files,
        legend=legend,
        confidence_path=confidence_path,
        config=config,
        values=values,
        progress=progress,
    )


def write_polygons(
    labels_path: StrPath,
    files: Mapping[str, OutputFile],
    *,
    legend: Legend | ClassTable | None = None,
    confidence_path: StrPath | None = None,
    config: VectorConfig,
    values: RasterValues = RasterValues(),  # noqa: B008 - it is frozen
    on_ready: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> int:
    """Do what :func:`vectorize` does, into files that have been checked.

    Args:
        labels_path: see there.
        files: of :func:`vector_files`.
        legend: see there.
        confidence_path: see there.
        config: see there.
        values: see there.
        on_ready: called with the path of the complete part file, before it is renamed to the final name.
        progress: see there.

    Returns:
        Number of polygons written.

    Raises:
        ConfigError: see there.
        SceneError: see there.
        OutputError: a file cannot be written.
    """
    progress = progress or SilentProgress()
    # Everything that can fail without a look at the pixels comes first: claims on the outputs, types of the rasters, what the
    # CRS allows, the legend. Only then is a part file made.
    with ExitStack() as stack:
        for file in files.values():
            stack.enter_context(file.claimed())
        stack.enter_context(environment(labels_path))
        src = stack.enter_context(open_raster(labels_path))
        confidence = None if confidence_path is None else stack.enter_context(open_raster(confidence_path))
        tiles, place = DatasetTiles(src, confidence, values), georeference(src)
        _check_confidence(tiles, config)
        place.warn(src.name, progress)
        check_ground(files["vector"].path, src.name, place.crs, config, progress)
        class_tiles = (
            None if values.class_of is None else _class_tiles(tiles, stack.enter_context(open_raster(values.class_of)))
        )
        classes, is_named = choose_classes(class_tiles or tiles, legend, progress)
        # A class of objects that is background is a class all the same: what is left out are values, not classes.
        omitted = objects_omitted(values) if values.instances else classes.omitted
        chosen = classes.codes_of(config.classes) if config.classes else None
        job = _job(tiles, place, omitted, config)
        job = replace(job, finishing=replace(job.finishing, classes=chosen))
        listed = classes if chosen is None else classes.only(chosen)
        layer = _layer(files["vector"].path, class_tiles or tiles, listed, config, job)
        with files["vector"] as part_path, ExitStack() as cleaned:
            if config.cleans:
                clean_path = part_path.with_name("part.clean.tif")
                rules = _cleaning_rules(tiles, place, classes, config, progress)
                write_clean_labels(tiles, clean_path, rules, workers=config.workers, progress=progress)
                confidence = src if confidence is None and values.argmax else confidence
                tiles = DatasetTiles(cleaned.enter_context(open_raster(clean_path)), confidence)
                job = replace(
                    job,
                    labels_path=str(clean_path),
                    confidence_path=None if confidence is None else confidence.name,
                    values=tiles.values,
                )
            if values.instances:
                survey = _survey(tiles, class_tiles, omitted, config, progress)
                spread = survey.spread if values.are_objects else None
                job, layer = replace(job, tracing=replace(job.tracing, spread=spread)), replace(layer, survey=survey)
            run = _Run(tiles, job, layer, config, progress)
            count = run.write(part_path)
            if on_ready is not None:
                on_ready(part_path)
        if "style" in files:
            with files["style"] as part_path:
                is_qml = part_path.suffix == ".qml"
                style = layer.qml(run.found) if is_qml else sld(layer.entries(run.found), layer.name)
                part_path.write_text(style, encoding="utf-8")
        if values.instances and class_tiles is None:
            shown = ", ".join(f", {code} is background" for code in sorted(omitted))
            progress.log(f"every value of {src.name} is one object{shown}")
        elif is_named:
            warn_of_unnamed((class_tiles or tiles).labels.name, run.found, classes, progress)
        else:
            describe((class_tiles or tiles).labels.name, run.found, classes, progress)
    return count


def check_ground(vector_path: StrPath, name: str, crs: Any, config: VectorConfig, progress: Progress) -> None:
    """Refuse settings that the CRS of the labels does not allow, and log how polygons are measured in an unusual CRS.

    Args:
        vector_path: file to write.
        name: name of the labels or of the scene, for messages.
        crs: their CRS; ``None`` when there is none.
        config: settings of polygons.
        progress: receives the rule.

    Raises:
        SceneError: a limit in m² is set, and meters are unknown in this CRS.
        ConfigError: another quantity in meters is set, or the format cannot hold the coordinates.
    """
    ground = ground_of(crs)
    # Polygons without CRS, or in a plane that lies nowhere, keep their coordinates in any format.
    if FORMATS[Path(vector_path).suffix.lower()].is_lon_lat and not ground.is_earth and not ground.is_placeless:
        raise ConfigError(
            f"{Path(vector_path).name}: {crs_label(crs)} cannot be transformed to longitude and latitude on the Earth, "
            "which GeoJSON requires; write .gpkg, .fgb or .parquet"
        )
    if ground.is_measured:
        if ground.rule:
            progress.log(ground.rule)
        return
    for key in ("min_area_m2", "min_hole_m2"):
        if getattr(config, key) > 0:
            raise SceneError(f"{name} has {ground.reason}, so areas in m² are unknown; leave {key} at 0")
    for quantity in (config.sieve, config.simplify):
        if isinstance(quantity, Quantity):
            quantity.in_pixels(None, ground.reason)
    progress.log(f"{ground.reason}: polygons are in pixels or the raster's own units, area_m2 stays empty")


def _inputs(
    labels_path: StrPath, confidence_path: StrPath | None, config: VectorConfig, values: RasterValues
) -> Iterator[tuple[str, StrPath]]:
    """List all files that are read, with what they are, so that no output replaces one."""
    rasters = {"the label raster": labels_path, "the confidence raster": confidence_path}
    rasters["the raster of the classes"] = values.class_of
    rasters["the raster of the statistics"] = config.statistics_path
    for what, name in rasters.items():
        yield from ((what, path) for path in (() if name is None else local_files(name)))


def _cleaning_rules(
    tiles: DatasetTiles, place: Georeference, classes: ClassTable, config: VectorConfig, progress: Progress
) -> CleaningRules:
    """Bring the settings of cleaning to pixels and codes of this raster."""
    size_m = pixel_size_m(ground_pixel_size(place.crs, place.transform, tiles.shape))
    background = classes.background
    if config.fill_holes and background is None:
        progress.warn(f"{tiles.labels.name}: no class is background, so there are no holes to fill")
    if tiles.are_bytes and background not in range(NO_LABEL):  # it cannot occur
        background = None
    return CleaningRules(
        config.opening,
        config.sieve.in_pixels(size_m) if isinstance(config.sieve, Quantity) else 0.0,
        config.fill_holes,
        background,
        config.connectivity,
        are_bytes=tiles.are_bytes,
    )


@dataclass(slots=True)
class _Run:
    """Traces one raster into one file.

    Args:
        tiles: labels to trace, cleaned if they are to be.
        job: rules of tracing and finishing.
        layer: name, columns and CRS of the layer.
        config: settings.
        progress: receives stages and warnings.
        found: codes of the polygons that have been made, as far as a style has room for them.
    """

    tiles: DatasetTiles
    job: TileJob
    layer: LayerDefinition
    config: VectorConfig
    progress: Progress
    found: set[int] = field(default_factory=set)
    _has_warned_of_noise: bool = False

    def write(self, part_path: Path) -> int:
        """Trace into ``part_path``; return the number of polygons."""
        if is_geopackage(part_path):
            return self._trace_into(part_path, is_final=True)
        # Only a GeoPackage can be corrected afterwards (``part_of``); other formats are converted from a temporary one.
        between_path = part_path.with_name("part.between.gpkg")
        count = self._trace_into(between_path, is_final=False)
        self.progress.plan("writing", 1, "files")
        convert(between_path, part_path, self.layer, count)
        between_path.unlink()
        self.progress.advance()
        return count

    def _trace_into(self, path: Path, *, is_final: bool) -> int:
        """Trace into a GeoPackage; return the number of polygons."""
        config, tracing = self.config, self.job.tracing
        seams = Seams(self.tiles.shape, tracing.connectivity, config.max_vertices, is_grid=not tracing.reshapes)
        windows = iter_cores(self.tiles.shape, config.tile_size, margin=0)
        self.progress.plan("polygons", _num_tiles(self.tiles.shape, config.tile_size), "tiles")
        # Tiles are traced in any process but joined here, in their order: the outcome does not depend on the workers. The
        # writer pulls: nothing is traced faster than rows can be written.
        with Ordered(self.job, self.job.on(self.tiles), windows, config.workers) as traced_tiles:
            rows = self._iter_rows(traced_tiles, seams)
            count = write_geopackage(path, self.layer, rows, seams.same_parts, found=self.found, is_final=is_final)
        if seams.num_cut:
            self.progress.warn(
                f"polygons cut along tile lines, because more than {seams.max_vertices} vertices were open: {seams.num_cut}; "
                "their parts share a number in part_of"
            )
        return count

    def _iter_rows(self, traced_tiles: Iterable[TracedTile], seams: Seams) -> Iterator[PolygonRecords]:
        """Yield the rows of every tile: its complete polygons, then those that it has completed."""
        gathering, survey = None, self.layer.survey
        if self.job.tracing.spread is not None and survey is not None:
            gathering = Gathering(survey, self.config.max_vertices, seams.new_number)
        gather = gathering.add if gathering else lambda polygons: iter([polygons])
        for traced in traced_tiles:
            yield self._seen(traced.records)
            for complete in gather(seams.join(traced.open_tile)):
                yield self._seen(self.job.rows(complete))
            self._warn_of_noise(traced)
            self.progress.advance()
        for complete in gathering.finish() if gathering else ():
            yield self._seen(self.job.rows(complete))

    def _seen(self, records: PolygonRecords) -> PolygonRecords:
        """Note the codes of classes; millions of different ones are no classes, and would only take memory."""
        if len(self.found) <= STYLED_CODES and len(records):
            self.found.update(self.layer.codes_of(records).tolist())
            self.found.discard(NO_CODE)
        return records

    def _warn_of_noise(self, traced: TracedTile) -> None:
        """Warn once where a tile consists of so many polygons that the file will be of little use."""
        window = traced.open_tile.window
        is_noise = traced.num_pieces > max(_NOISE_POLYGONS, window.width * window.height / _NOISE_PIXELS)
        if is_noise and not self._has_warned_of_noise:
            self._has_warned_of_noise = True
            self.progress.warn(
                f"the labels are noise: {traced.num_pieces} polygons in {window.width} × {window.height} px from column "
                f"{window.col_off}, row {window.row_off}; for a usable file, merge small areas with " + Keyword("sieve", "10px")
            )


def _job(tiles: DatasetTiles, place: Georeference, omitted: frozenset[int], config: VectorConfig) -> TileJob:
    """Bring the settings of tracing and finishing to pixels and codes of this raster."""
    src, confidence = tiles.labels, tiles.confidence
    # Simplification works in pixels of equal sides; regularization takes width and height, which differ in degrees.
    size = ground_pixel_size(place.crs, place.transform, tiles.shape)
    tolerance = config.simplify.in_pixels(pixel_size_m(size)) if isinstance(config.simplify, Quantity) else 0.0
    crs_wkt = None if place.crs is None else place.crs.to_wkt()
    return TileJob(
        src.name,
        None if confidence is None else confidence.name,
        tiles.values,
        TracingRules(None, config.connectivity, tolerance, config.smooth, omitted=omitted),
        FinishingRules(
            place.transform,
            crs_wkt,
            tiles.shape,
            size or (1.0, 1.0),
            regularize=config.regularize,
            min_area_m2=config.min_area_m2,
            min_hole_m2=config.min_hole_m2,
            min_confidence=config.min_confidence,
            is_multi=config.connectivity == 8 or tiles.values.are_objects,
        ),
        None if config.statistics_path is None else _statistics(config.statistics_path, crs_wkt),
    )


def _layer(path: Path, tiles: DatasetTiles, classes: ClassTable, config: VectorConfig, job: TileJob) -> LayerDefinition:
    """Define the layer to write; names of scene and model come from the raster's tags where the settings have none."""
    tags = tiles.labels.tags()
    return LayerDefinition(
        path,
        classes,
        job.finishing.crs_wkt,
        "MultiPolygon" if job.finishing.is_multi else "Polygon",
        scene=config.scene or tags.get("GEOGLNET_SCENE"),
        model=config.model or tags.get("GEOGLNET_MODEL"),
        statistics=() if job.statistics is None else job.statistics.names,
        is_wide=tiles.is_wide,
    )


def _check_confidence(tiles: DatasetTiles, config: VectorConfig) -> None:
    """Refuse a limit of confidence where none is known, and a band for each class where values are objects."""
    if config.min_confidence and not tiles.has_confidence:
        raise ConfigError(
            f"min_confidence = {config.min_confidence:g} needs the labels' confidence raster; give it, or leave this at 0"
        )
    if tiles.values.instances and tiles.confidence is not None and tiles.confidence.count > 1:
        raise ConfigError(
            f"{tiles.confidence.name} has {tiles.confidence.count} bands, one for each class; objects need a single band"
        )


def _class_tiles(objects: DatasetTiles, src: DatasetReader) -> DatasetTiles:
    """Check the label raster that objects get their classes from."""
    tiles = DatasetTiles(src)
    if tiles.shape != objects.shape:
        raise SceneError(
            f"{src.name} is {src.width} × {src.height} px, but {objects.labels.name} {objects.shape.width} × "
            f"{objects.shape.height}; give labels on the grid of the objects"
        )
    return tiles


def _survey(
    tiles: DatasetTiles, class_tiles: DatasetTiles | None, omitted: frozenset[int], config: VectorConfig, progress: Progress
) -> ObjectSurvey:
    """Count the pixels of all objects, before any is traced; nothing where nobody asks."""
    if not tiles.values.are_objects and class_tiles is None:
        return ObjectSurvey.of([], has_classes=False)
    job = ObjectSurveyJob(tiles.labels.name, tiles.values, omitted, None if class_tiles is None else class_tiles.labels.name)
    windows = iter_cores(tiles.shape, config.tile_size, margin=0)
    progress.plan("objects", _num_tiles(tiles.shape, config.tile_size), "tiles")
    with Ordered(job, job.on(tiles, class_tiles), windows, config.workers) as counts:
        return ObjectSurvey.of(_advancing(counts, progress), has_classes=class_tiles is not None)


def _advancing(counts: Iterable[TileCounts], progress: Progress) -> Iterator[TileCounts]:
    for tile in counts:
        yield tile
        progress.advance()


def _statistics(path: Path, crs_wkt: str | None) -> Any:
    """Open the raster of the statistics, with the extra that reads it."""
    try:
        module = import_module("geoglnet.vector.statistics")
    except ModuleNotFoundError as error:
        raise ConfigError(f"statistics need {error.name}: pip install 'geoglnet[statistics]'") from error
    return module.Statistics.of(path, crs_wkt)


def _num_tiles(shape: Shape, tile_size: int) -> int:
    """Count the tiles of a raster."""
    return (len(core_edges(shape.height, tile_size, 0)) - 1) * (len(core_edges(shape.width, tile_size, 0)) - 1)
