"""Cleaned labels as a raster: every pixel is decided once, so that all tiles that are traced later agree about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geoglnet.progress import Progress
from geoglnet.raster.environment import environment, open_raster
from geoglnet.raster.placement import placement
from geoglnet.raster.writer import LabelWriter
from geoglnet.types import Labels, Shape
from geoglnet.vector.cleaning import fill_holes, open_labels, opening_margin, sieve_labels
from geoglnet.vector.pieces import open_sides
from geoglnet.vector.processes import Ordered
from geoglnet.vector.tiles import DatasetTiles, TileSource
from geoglnet.windows import core_edges, iter_cores

ScalarT = TypeVar("ScalarT", bound=np.generic)

LARGEST_HOLE = 256
LARGEST_SIEVE_MARGIN = 512
CLEANING_TILE_SIZE = 1024


@dataclass(frozen=True, slots=True)
class CleaningRules:
    """What is done to labels, in this order.

    Args:
        opening: radius in pixels; 0 for none.
        sieve: pixels that an area must have to stay; 0 for none.
        fill_holes: fill enclosed background up to 256 px across.
        background: its label; ``None`` when there is none.
        connectivity: of areas that are sieved, 4 or 8.
    """

    opening: int = 0
    sieve: float = 0.0
    fill_holes: bool = False
    background: int | None = None
    connectivity: int = 4


@dataclass(frozen=True, slots=True)
class CleanTile:
    """Labels of one window.

    Args:
        window: where.
        labels: ``(h, w)`` uint8.
        is_exact: whether they are those that cleaning the whole raster at once would give.
        seen: ``(256,)`` labels met before cleaning.
    """

    window: Window
    labels: Labels
    is_exact: bool
    seen: npt.NDArray[np.bool_]


def clean_tile(source: TileSource, window: Window, rules: CleaningRules) -> tuple[Labels, bool]:
    """Labels of a window as cleaning the whole raster would give them, and whether that could be proved.

    Margins are read around the window as far as each step looks; for sieving, as far as the clusters of small areas go, up
    to 512 px.
    """
    if not rules.fill_holes or rules.background is None:
        return _sieved(source, window, rules)
    wide = _grown(window, LARGEST_HOLE + 1, source.shape)
    labels, is_exact = _sieved(source, wide, rules)
    return _cropped(fill_holes(labels, rules.background, LARGEST_HOLE), wide, window), is_exact


def _sieved(source: TileSource, window: Window, rules: CleaningRules) -> tuple[Labels, bool]:
    if not rules.sieve:
        return _opened(source, window, rules), True
    margin = min(max(8, math.ceil(2 * math.sqrt(rules.sieve))), LARGEST_SIEVE_MARGIN)
    while True:
        wide = _grown(window, margin, source.shape)
        labels, uncertain = sieve_labels(
            _opened(source, wide, rules), rules.sieve, rules.connectivity, tuple(open_sides(wide, source.shape))
        )
        is_exact = not _cropped(uncertain, wide, window).any()
        if is_exact or margin == LARGEST_SIEVE_MARGIN:
            return _cropped(labels, wide, window), is_exact
        margin = min(2 * margin, LARGEST_SIEVE_MARGIN)


def _opened(source: TileSource, window: Window, rules: CleaningRules) -> Labels:
    if not rules.opening:
        return source.read_tile(window).labels
    wide = _grown(window, opening_margin(rules.opening), source.shape)
    return _cropped(open_labels(source.read_tile(wide).labels, rules.opening, rules.background), wide, window)


def _grown(window: Window, margin: int, shape: Shape) -> Window:
    top, left = max(int(window.row_off) - margin, 0), max(int(window.col_off) - margin, 0)
    bottom = min(int(window.row_off + window.height) + margin, shape.height)
    right = min(int(window.col_off + window.width) + margin, shape.width)
    return Window(col_off=left, row_off=top, width=right - left, height=bottom - top)


def _cropped(array: npt.NDArray[ScalarT], wide: Window, window: Window) -> npt.NDArray[ScalarT]:
    row, col = int(window.row_off - wide.row_off), int(window.col_off - wide.col_off)
    return array[row : row + int(window.height), col : col + int(window.width)]


@dataclass(frozen=True, slots=True)
class CleaningJob:
    """How all tiles are cleaned; light enough for another process.

    Args:
        labels_path: label raster.
        rules: what is done.
        is_mask: whether 255 is class 1 in the labels.
    """

    labels_path: str
    rules: CleaningRules
    is_mask: bool = False

    def start(self) -> Callable[[Window], CleanTile]:
        """Open the raster, for as long as the process lives."""
        stack = ExitStack()
        stack.enter_context(environment(self.labels_path))
        return self.on(DatasetTiles(stack.enter_context(open_raster(self.labels_path)), is_mask=self.is_mask))

    def on(self, tiles: DatasetTiles) -> Callable[[Window], CleanTile]:
        """The work on one window of a raster that is open."""

        def work(window: Window) -> CleanTile:
            labels, is_exact = clean_tile(tiles, window, self.rules)
            return CleanTile(window, labels, is_exact, tiles.seen)

        return work


def write_clean_labels(
    tiles: DatasetTiles, path: Path, rules: CleaningRules, *, workers: int, progress: Progress
) -> npt.NDArray[np.bool_]:
    """Write the cleaned labels of an open raster as a GeoTIFF of the same shape and place.

    Args:
        tiles: the labels.
        path: file to write.
        rules: what is done.
        workers: processes.
        progress: told of the stage ``cleaning`` in tiles.

    Returns:
        ``(256,)`` which labels there were before cleaning.

    Raises:
        OutputError: the disk is full.
    """
    src, job = tiles.labels, CleaningJob(tiles.labels.name, rules, tiles.is_mask)
    place = placement(src)
    seen, is_exact = np.zeros(256, dtype=bool), True
    edges = [core_edges(length, CLEANING_TILE_SIZE, 0) for length in tiles.shape]
    progress.plan("cleaning", (len(edges[0]) - 1) * (len(edges[1]) - 1), "tiles")
    windows = iter_cores(tiles.shape, CLEANING_TILE_SIZE, margin=0)
    with (
        LabelWriter(path, tiles.shape, transform=place.transform, crs=place.crs, core_size=CLEANING_TILE_SIZE) as writer,
        Ordered(job, job.on(DatasetTiles(src, is_mask=tiles.is_mask)), windows, workers) as clean_tiles,
    ):
        for tile in clean_tiles:
            writer.write_block(tile.window, tile.labels)
            seen |= tile.seen
            is_exact &= tile.is_exact
            progress.advance()
    if not is_exact:
        progress.warn(
            f"areas below the sieve's size form clusters wider than {LARGEST_SIEVE_MARGIN} px: they were sieved tile by tile; "
            "a larger sieve, or another model, would do better"
        )
    return seen
