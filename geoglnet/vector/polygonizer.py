"""Vectorizes label rasters: the tool that opens files, cleans and traces tiles, and writes what the seams release.

In order: :func:`vectorize` checks files, :func:`write_polygons` opens them and collects all rules into a :class:`TileJob`, the
job traces tiles (in other processes, where there are several workers), and :class:`_Run` joins them and writes the rows.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.io import DatasetReader

from geoglnet.errors import ConfigError, SceneError
from geoglnet.legend import Color, Legend
from geoglnet.message import Keyword
from geoglnet.output import OutputFile, refuse_inputs, refuse_sharing
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.cog import read_legend
from geoglnet.raster.crs import crs_label, ground_of
from geoglnet.raster.gdal import environment, local_files, open_raster
from geoglnet.raster.grid import Georeference, georeference, ground_pixel_size, pixel_size_m
from geoglnet.types import Shape, StrPath
from geoglnet.vector.cleaning import CleaningRules, write_clean_labels
from geoglnet.vector.exchange import convert
from geoglnet.vector.formats import FORMATS, is_geopackage, vector_files
from geoglnet.vector.geopackage import LayerDefinition, write_geopackage
from geoglnet.vector.pieces import TracingRules
from geoglnet.vector.processes import Ordered
from geoglnet.vector.rows import FinishingRules, PolygonRecords
from geoglnet.vector.seams import Seams
from geoglnet.vector.settings import Quantity, VectorConfig
from geoglnet.vector.style import qml, sld
from geoglnet.vector.tile_job import TileJob, TracedTile
from geoglnet.vector.tiles import DatasetTiles
from geoglnet.vector.tracing import NO_LABEL
from geoglnet.windows import core_edges, iter_cores

__all__ = ["VectorConfig", "vectorize"]
_NOISE_PIXELS = 20  # per polygon of a tile; fewer on average are taken for noise
_NOISE_POLYGONS = 10_000


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
    """Trace the polygons of a label raster into a vector file.

    The polygons equal those of tracing the whole raster at once. Memory does not grow with the raster's height, only with the
    incomplete polygons along a row of tiles (:mod:`geoglnet.vector.seams`), up to ``config.max_vertices``.

    Args:
        labels_path: raster with one band of integers, 0–254 a class, 255 or nodata none.
        vector_path: file to write, with ``class_id, class_name, area_m2, perimeter_m, confidence, part_of, scene, model``;
            its suffix says the format (:data:`geoglnet.vector.formats.FORMATS`).
        legend: names and colors of the labels; left out, the raster's own, else "class 1" and so on with 0 as background.
        confidence_path: raster of the same shape, one band or one per class: uint8 (probability × 254) or fractions.
        config: cleaning, tracing and finishing of polygons.
        overwrite: replace an existing file.
        progress: receives the stage ``polygons`` in tiles (before it ``classes``, when there is no legend, and ``cleaning``,
            when the labels are to be cleaned; after it ``writing``, when the format is not GeoPackage).

    Returns:
        Number of polygons written.

    Raises:
        ConfigError: a format that is not written, or a setting that cannot be used.
        SceneError: a raster is missing, damaged, or does not hold labels.
        OutputError: the file exists, or cannot be written.
    """
    config = config or VectorConfig()
    files = vector_files(vector_path, config, overwrite=overwrite)
    refuse_sharing([*files.values()])
    refuse_inputs(files.values(), _inputs(labels_path, confidence_path, config))
    return write_polygons(labels_path, files, legend=legend, confidence_path=confidence_path, config=config, progress=progress)


def write_polygons(
    labels_path: StrPath,
    files: Mapping[str, OutputFile],
    *,
    legend: Legend | None = None,
    confidence_path: StrPath | None = None,
    config: VectorConfig,
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
        if config.min_confidence and confidence is None:
            raise ConfigError(
                f"min_confidence = {config.min_confidence:g} needs the labels' confidence raster; give it, or leave this at 0"
            )
        tiles, place = DatasetTiles(src, confidence), georeference(src)
        place.warn(src.name, progress)
        check_ground(files["vector"].path, src.name, place.crs, config, progress)
        legend = legend or read_legend(labels_path)
        if legend is None:
            legend, is_mask = _derived_legend(src, config.tile_size, progress)
            tiles = replace(tiles, is_mask=is_mask)
        job, seen = _job(tiles, place, legend, config), tiles.seen
        layer = _layer(files["vector"].path, src, legend, config, job)
        with files["vector"] as part_path, ExitStack() as cleaned:
            if config.cleans:
                clean_path = part_path.with_name("part.clean.tif")
                rules = _cleaning_rules(src, place, legend, config, progress)
                # Labels that cleaning has removed altogether still count as seen: the warning below is about the input.
                seen = write_clean_labels(tiles, clean_path, rules, workers=config.workers, progress=progress)
                tiles = DatasetTiles(cleaned.enter_context(open_raster(clean_path)), confidence)
                job = replace(job, labels_path=str(clean_path), is_mask=False)
            run = _Run(tiles, job, layer, config, progress, seen)
            count = run.write(part_path)
            if on_ready is not None:
                on_ready(part_path)
        if "style" in files:
            with files["style"] as part_path:
                style = qml(legend) if part_path.suffix == ".qml" else sld(legend, layer.name)
                part_path.write_text(style, encoding="utf-8")
    _warn_of_unknown_labels(src.name, run.seen, legend, progress)
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


def _inputs(labels_path: StrPath, confidence_path: StrPath | None, config: VectorConfig) -> Iterator[tuple[str, StrPath]]:
    """List all files that are read, with what they are, so that no output replaces one."""
    rasters = {"the label raster": labels_path, "the confidence raster": confidence_path}
    rasters["the raster of the statistics"] = config.statistics_path
    for what, name in rasters.items():
        yield from ((what, path) for path in (() if name is None else local_files(name)))


def _cleaning_rules(
    src: DatasetReader, place: Georeference, legend: Legend, config: VectorConfig, progress: Progress
) -> CleaningRules:
    """Bring the settings of cleaning to pixels and labels of this raster."""
    size_m = pixel_size_m(ground_pixel_size(place.crs, place.transform, Shape(*src.shape)))
    if config.fill_holes and legend.background is None:
        progress.warn(f"{src.name}: no class is background, so there are no holes to fill")
    return CleaningRules(
        config.opening,
        config.sieve.in_pixels(size_m) if isinstance(config.sieve, Quantity) else 0.0,
        config.fill_holes,
        legend.background,
        config.connectivity,
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
        seen: ``(256,)`` bool, labels that have been read; grows while tiles are traced.
    """

    tiles: DatasetTiles
    job: TileJob
    layer: LayerDefinition
    config: VectorConfig
    progress: Progress
    seen: npt.NDArray[np.bool_]
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
            count = write_geopackage(path, self.layer, rows, seams.same_parts, is_final=is_final)
        if seams.num_cut:
            self.progress.warn(
                f"polygons cut along tile lines, because more than {seams.max_vertices} vertices were open: {seams.num_cut}; "
                "their parts share a number in part_of"
            )
        return count

    def _iter_rows(self, traced_tiles: Iterable[TracedTile], seams: Seams) -> Iterator[PolygonRecords]:
        """Yield the rows of every tile: its complete polygons, then those that it has completed."""
        for traced in traced_tiles:
            yield traced.records
            yield self.job.rows(seams.join(traced.open_tile))
            self.seen |= traced.seen
            self._warn_of_noise(traced)
            self.progress.advance()

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


def _job(tiles: DatasetTiles, place: Georeference, legend: Legend, config: VectorConfig) -> TileJob:
    """Bring the settings of tracing and finishing to pixels and labels of this raster."""
    src, confidence = tiles.labels, tiles.confidence
    # Simplification works in pixels of equal sides; regularization takes width and height, which differ in degrees.
    size = ground_pixel_size(place.crs, place.transform, tiles.shape)
    tolerance = config.simplify.in_pixels(pixel_size_m(size)) if isinstance(config.simplify, Quantity) else 0.0
    crs_wkt = None if place.crs is None else place.crs.to_wkt()
    return TileJob(
        src.name,
        None if confidence is None else confidence.name,
        tiles.is_mask,
        TracingRules(legend.polygon_values, config.connectivity, tolerance, config.smooth),
        FinishingRules(
            place.transform,
            crs_wkt,
            tiles.shape,
            size or (1.0, 1.0),
            regularize=config.regularize,
            min_area_m2=config.min_area_m2,
            min_hole_m2=config.min_hole_m2,
            min_confidence=config.min_confidence,
            is_multi=config.connectivity == 8,
        ),
        None if config.statistics_path is None else _statistics(config.statistics_path, crs_wkt),
    )


def _layer(path: Path, src: DatasetReader, legend: Legend, config: VectorConfig, job: TileJob) -> LayerDefinition:
    """Define the layer to write; names of scene and model come from the raster's tags where the settings have none."""
    tags = src.tags()
    return LayerDefinition(
        path,
        legend,
        job.finishing.crs_wkt,
        "MultiPolygon" if job.finishing.is_multi else "Polygon",
        scene=config.scene or tags.get("GEOGLNET_SCENE"),
        model=config.model or tags.get("GEOGLNET_MODEL"),
        statistics=() if job.statistics is None else job.statistics.names,
    )


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


def _derived_legend(src: DatasetReader, tile_size: int, progress: Progress) -> tuple[Legend, bool]:
    """Derive a legend from the values of a raster that has none: classes are numbers, 0 is the background.

    Binary masks mostly hold 0 and 255, a value that means "no class" in other label rasters.

    Returns:
        The legend, and whether 255 is class 1.
    """
    # The whole raster is read: the legend must be complete before the first polygon is written.
    tiles, has_255 = DatasetTiles(src), False
    progress.plan("classes", _num_tiles(tiles.shape, tile_size), "tiles")
    for window in iter_cores(tiles.shape, tile_size, margin=0):
        tiles.read_tile(window)
        has_255 = has_255 or tiles.has_undeclared_255(window)
        progress.advance()
    found = [value for value in np.flatnonzero(tiles.seen[:NO_LABEL]).tolist() if value > 0]
    values = ", ".join(str(value) for value in found[:8]) + (", …" if len(found) > 8 else "")
    # GDAL's nodata 0 hides the zeros of a mask: then 255 alone is seen.
    if has_255 and not found and (tiles.seen[0] or src.nodata == 0):
        progress.log(f"{src.name} has no legend and holds 0 and {NO_LABEL} only: a mask, in which {NO_LABEL} becomes class 1")
        return Legend(("background", "class 1"), _colors(src, 2), background=0), True
    if has_255:
        progress.warn(f"{src.name}: the value {NO_LABEL} is read as no class; give classes numbers from 1 to 254")
    progress.log(f"{src.name} has no legend: values {values or '(none)'} become classes, 0 is background")
    count = max(found, default=1) + 1
    names = ("background", *(f"class {value}" for value in range(1, count)))
    return Legend(names, _colors(src, count), background=0), False


def _colors(src: DatasetReader, count: int) -> tuple[Color, ...]:
    """Take the colors of classes from the raster's color table, and generate the others."""
    try:
        table = src.colormap(1)
    except ValueError:  # raised by rasterio where there is no color table
        table = {}
    return tuple(table[value][:3] if value in table else _generated_color(value) for value in range(count))


def _generated_color(value: int) -> Color:
    """Generate the color of a class number: steps of the golden ratio keep neighboring numbers far apart in hue."""
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(value * 0.618034 % 1.0, 0.65, 0.85))
    return red, green, blue


def _warn_of_unknown_labels(name: str, seen: npt.NDArray[np.bool_], legend: Legend, progress: Progress) -> None:
    """Warn about labels of the raster that the legend lacks."""
    unknown = [v for v in np.flatnonzero(seen[:NO_LABEL]).tolist() if v >= legend.num_classes and v != legend.ignore_value]
    if unknown:
        progress.warn(
            f"{name} holds the value {unknown[0]}, which the legend ({legend.num_classes} classes) lacks; "
            "no polygons were made for it"
        )
