"""The tool: a label raster in, a styled polygon layer out."""

from __future__ import annotations

import colorsys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.io import DatasetReader

from geoglnet.errors import ConfigError, SceneError
from geoglnet.legend import Colour, Legend
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.cog import read_legend
from geoglnet.raster.environment import environment, open_raster, placement
from geoglnet.types import OutputFile, Shape, StrPath
from geoglnet.vector.area import geodesic_areas
from geoglnet.vector.polygonize import PolygonBatch, trace_tiles
from geoglnet.vector.tiles import DatasetTiles
from geoglnet.vector.tracing import NO_LABEL
from geoglnet.vector.writer import GeoPackageWriter, PolygonRecords, check_suffix
from geoglnet.windows import core_edges, iter_cores

_POLYGONS_AT_ONCE = 20_000  # a checkerboard has a million in one tile, and areas and WKB are copies


@dataclass(frozen=True, slots=True)
class VectorConfig:
    """How polygons are made.

    Args:
        tile_size: side in pixels of the tiles that are traced one by one; memory grows with its square.
        min_area_m2: polygons smaller than this are dropped (needs a CRS).

    Raises:
        ConfigError: a value that nothing can be traced with.
    """

    tile_size: int = 1024
    min_area_m2: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.tile_size <= 16384:
            raise ConfigError(f"tile_size = {self.tile_size} px must be from 1 to 16384")
        if not self.min_area_m2 >= 0:
            raise ConfigError(f"min_area_m2 = {self.min_area_m2} must not be negative")


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
    """Trace the polygons of a label raster into a GeoPackage.

    The polygons equal those of tracing the whole raster at once; memory does not grow with the raster, but with the
    longest row of polygons that are still open (:mod:`geoglnet.vector.seams`).

    Args:
        labels_path: raster with one band of integers, 0–254 a class, 255 or nodata none.
        vector_path: GeoPackage to write, with ``class_id, class_name, area_m2, confidence``.
        legend: what the labels mean; else the raster's own legend, else "class 1" and so on with 0 as background.
        confidence_path: uint8 raster of the same shape, probability × 254.
        config: how polygons are made.
        overwrite: replace an existing file.
        progress: told of the stage ``polygons`` in tiles (before it ``classes``, when there is no legend).

    Returns:
        Number of polygons written.

    Raises:
        ConfigError: a format that is not written, or a setting that cannot be used.
        SceneError: a raster is missing, damaged, or does not hold labels.
        OutputError: the file exists, or cannot be written.
    """
    config, progress = config or VectorConfig(), progress or SilentProgress()
    check_suffix(vector_path)
    vector_file = OutputFile(Path(vector_path), overwrite)
    with ExitStack() as stack:
        stack.enter_context(environment(labels_path))
        src = stack.enter_context(open_raster(labels_path))
        confidence = None if confidence_path is None else stack.enter_context(open_raster(confidence_path))
        tiles = DatasetTiles(src, confidence)
        legend = legend or read_legend(labels_path) or _found_legend(src, config.tile_size, progress)
        if src.crs is None:
            _tell_no_crs(src, config, progress)
        part_path = stack.enter_context(vector_file)
        writer = stack.enter_context(GeoPackageWriter(part_path, vector_file.path, legend, src.crs and src.crs.to_wkt()))
        _write_polygons(tiles, writer, legend, config, progress)
    _tell_unknown_labels(tiles, legend, progress)
    return writer.num_written


def _write_polygons(
    tiles: DatasetTiles, writer: GeoPackageWriter, legend: Legend, config: VectorConfig, progress: Progress
) -> None:
    src = tiles.labels
    progress.plan("polygons", _num_tiles(tiles.shape, config.tile_size), "tiles")
    for batch in trace_tiles(tiles, placement(src), values=legend.polygon_values, tile_size=config.tile_size):
        for start in range(0, len(batch), _POLYGONS_AT_ONCE):
            writer.write(_records(batch[start : start + _POLYGONS_AT_ONCE], src, config.min_area_m2))
        progress.advance()


def _num_tiles(shape: Shape, tile_size: int) -> int:
    return (len(core_edges(shape.height, tile_size, 0)) - 1) * (len(core_edges(shape.width, tile_size, 0)) - 1)


def _records(batch: PolygonBatch, src: DatasetReader, min_area_m2: float) -> PolygonRecords:
    areas = geodesic_areas(batch.geometries, src.crs)
    is_kept = ~(areas < min_area_m2)
    confidence = None if batch.confidence is None else batch.confidence[is_kept]
    return PolygonRecords(batch.geometries[is_kept], batch.class_id[is_kept], areas[is_kept], confidence)


def _found_legend(src: DatasetReader, tile_size: int, progress: Progress) -> Legend:
    """A legend for a raster that brings none: classes are numbers, 0 is the background."""
    tiles = DatasetTiles(src)
    progress.plan("classes", _num_tiles(tiles.shape, tile_size), "tiles")
    for window in iter_cores(tiles.shape, tile_size, margin=0):
        tiles.read_tile(window)
        progress.advance()
    found = [value for value in np.flatnonzero(tiles.seen[:NO_LABEL]).tolist() if value > 0]
    values = ", ".join(str(value) for value in found[:8]) + (", …" if len(found) > 8 else "")
    if tiles.seen[NO_LABEL] and src.nodata != NO_LABEL:
        progress.warn(f"{src.name}: the value {NO_LABEL} is read as no class; give classes numbers from 1 to 254")
    progress.log(f"{src.name} has no legend: values {values or '(none)'} become classes, 0 is background")
    count = max(found, default=1) + 1
    names = ("background", *(f"class {value}" for value in range(1, count)))
    return Legend(names, _colours(src, count), background=0)


def _colours(src: DatasetReader, count: int) -> tuple[Colour, ...]:
    try:
        table = src.colormap(1)
    except ValueError:  # rasterio's way of saying that there is no colour table
        table = {}
    return tuple(table[value][:3] if value in table else _generated_colour(value) for value in range(count))


def _generated_colour(value: int) -> Colour:
    # Steps of the golden angle keep neighbouring numbers far apart in hue.
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(value * 0.618034 % 1.0, 0.65, 0.85))
    return red, green, blue


def _tell_no_crs(src: DatasetReader, config: VectorConfig, progress: Progress) -> None:
    if config.min_area_m2 > 0:
        raise SceneError(f"{src.name} has no CRS, so areas in m² are unknown; leave min_area_m2 at 0")
    progress.log("no CRS: polygons are in pixels or the raster's own units, area_m2 stays empty")


def _tell_unknown_labels(tiles: DatasetTiles, legend: Legend, progress: Progress) -> None:
    unknown = [
        v for v in np.flatnonzero(tiles.seen[:NO_LABEL]).tolist() if v >= legend.num_classes and v != legend.ignore_value
    ]
    if unknown:
        progress.warn(
            f"{tiles.labels.name} holds the value {unknown[0]}, which the legend ({legend.num_classes} classes) lacks; "
            "no polygons were made for it"
        )
