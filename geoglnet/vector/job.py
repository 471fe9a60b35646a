"""What is done to one tile, in this process or another: traced, its whole polygons finished."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geoglnet.raster.environment import environment, open_raster
from geoglnet.vector.finishing import FinishingRules, finish
from geoglnet.vector.pieces import OpenTile, Polygons, TracingRules, trace_tile
from geoglnet.vector.records import PolygonRecords
from geoglnet.vector.tiles import DatasetTiles


@dataclass(frozen=True, slots=True)
class TracedTile:
    """What a tile gives.

    Args:
        records: its whole polygons.
        open_tile: its other pieces.
        num_pieces: how many polygons and pieces it has.
        seen: ``(256,)`` which labels have been met so far by the process that traced it.
    """

    records: PolygonRecords
    open_tile: OpenTile
    num_pieces: int
    seen: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TileJob:
    """How all tiles are traced and finished; light enough for another process.

    Args:
        labels_path: label raster.
        confidence_path: confidence raster, if there is one.
        is_mask: whether 255 is class 1 in the labels.
        tracing: rules for the labels.
        finishing: rules for the polygons.
        statistics: of another raster, if they were asked for.
    """

    labels_path: str
    confidence_path: str | None
    is_mask: bool
    tracing: TracingRules
    finishing: FinishingRules
    statistics: Any = None

    def start(self) -> Callable[[Window], TracedTile]:
        """Open the rasters, for as long as the process lives."""
        stack = ExitStack()
        stack.enter_context(environment(self.labels_path))
        labels = stack.enter_context(open_raster(self.labels_path))
        confidence = None if self.confidence_path is None else stack.enter_context(open_raster(self.confidence_path))
        return self.on(DatasetTiles(labels, confidence, self.is_mask))

    def on(self, tiles: DatasetTiles) -> Callable[[Window], TracedTile]:
        """The work on one window of rasters that are open."""

        def work(window: Window) -> TracedTile:
            whole, open_tile = trace_tile(tiles, window, self.tracing)
            return TracedTile(self.rows(whole), open_tile, len(whole) + len(open_tile), tiles.seen)

        return work

    def rows(self, polygons: Polygons) -> PolygonRecords:
        """Rows of whole polygons."""
        records = finish(polygons, self.finishing)
        return records if self.statistics is None else self.statistics.added_to(records)
