"""The work on one tile, from pixels to rows, as it is sent to other processes: they load nothing that writes files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rasterio.windows import Window

from geoglnet.raster.gdal import environment, open_raster
from geoglnet.vector.objects import grouped
from geoglnet.vector.pieces import OpenTile, Polygons, TracingRules, trace_tile
from geoglnet.vector.rows import FinishingRules, PolygonRecords, finish
from geoglnet.vector.tiles import DatasetTiles
from geoglnet.vector.values import RasterValues


@dataclass(frozen=True, slots=True)
class TracedTile:
    """Outcome of tracing one tile.

    Args:
        records: rows of its complete polygons.
        open_tile: its other pieces.
        num_pieces: number of its polygons and pieces.
    """

    records: PolygonRecords
    open_tile: OpenTile
    num_pieces: int


@dataclass(frozen=True, slots=True)
class TileJob:
    """Tracing and finishing of all tiles, as it is sent to other processes.

    Args:
        labels_path: label raster.
        confidence_path: confidence raster, if there is one.
        values: what the raster's values mean.
        tracing: rules for the labels.
        finishing: rules for the polygons.
        statistics: a :class:`~geoglnet.vector.statistics.Statistics`, if the configuration names a raster for them.
    """

    labels_path: str
    confidence_path: str | None
    values: RasterValues
    tracing: TracingRules
    finishing: FinishingRules
    statistics: Any = None

    def start(self) -> Callable[[Window], TracedTile]:
        """Open the rasters for as long as the process lives, and return the work on one window."""
        stack = ExitStack()
        stack.enter_context(environment(self.labels_path))
        labels = stack.enter_context(open_raster(self.labels_path))
        confidence = None if self.confidence_path is None else stack.enter_context(open_raster(self.confidence_path))
        return self.on(DatasetTiles(labels, confidence, self.values))

    def on(self, tiles: DatasetTiles) -> Callable[[Window], TracedTile]:
        """Return the work on one window of open rasters."""

        def work(window: Window) -> TracedTile:
            whole, open_tile = trace_tile(tiles, window, self.tracing)
            count = len(whole) + len(open_tile)
            return TracedTile(self.rows(whole if self.tracing.spread is None else grouped(whole)), open_tile, count)

        return work

    def rows(self, polygons: Polygons) -> PolygonRecords:
        """Make the rows of complete polygons."""
        records = finish(polygons, self.finishing)
        return records if self.statistics is None else self.statistics.added_to(records)
