"""Labels cleaned before they are traced: opened, sieved, holes filled.

Every function says how far it looks, so that a window read with that margin gives the pixels of the whole raster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window
from scipy.ndimage import find_objects, maximum_filter, minimum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoglnet.progress import Progress
from geoglnet.raster.gdal import environment, open_raster
from geoglnet.raster.grid import georeference
from geoglnet.raster.writer import LabelWriter
from geoglnet.types import Ints, Labels, Shape
from geoglnet.vector.pieces import open_sides
from geoglnet.vector.processes import Ordered
from geoglnet.vector.tiles import DatasetTiles, TileSource
from geoglnet.vector.tracing import NO_LABEL, Components, corner_links, label_components
from geoglnet.windows import core_edges, iter_cores

ScalarT = TypeVar("ScalarT", bound=np.generic)
LARGEST_HOLE = 256
LARGEST_SIEVE_MARGIN = 512
CLEANING_TILE_SIZE = 1024


def opening_margin(radius: int) -> int:
    """How far :func:`open_labels` looks: erosion, dilation, and growth into what was taken."""
    return 4 * radius + 1


def open_labels(labels: Labels, radius: int, background: int | None) -> Labels:
    """Morphological opening of every class with a square of ``2 · radius + 1`` pixels.

    What is thinner than that becomes background; where there is none, neighbors grow into it by majority, and what they
    do not reach within ``2 · radius + 1`` steps stays.

    Args:
        labels: ``(h, w)`` uint8; 255 stays.
        radius: in pixels.
        background: label that is not opened.
    """
    size = 2 * radius + 1
    is_core = maximum_filter(labels, size, mode="nearest") == minimum_filter(labels, size, mode="nearest")
    is_taken = ~maximum_filter(is_core, size, mode="constant") & (labels != NO_LABEL)
    if background is None:
        return _grown(labels, is_taken, steps=size)
    return np.where(is_taken, np.uint8(background), labels)


def _grown(labels: Labels, is_taken: npt.NDArray[np.bool_], steps: int) -> Labels:
    framed = np.pad(np.where(is_taken, NO_LABEL, labels), 1, constant_values=NO_LABEL).astype(np.uint8)
    flat, width = framed.ravel(), framed.shape[1]
    row, col = np.nonzero(is_taken)
    pending = (row + 1) * width + col + 1
    for _ in range(steps):
        around = np.stack([flat[pending + step] for step in (-width, -1, 1, width)])
        chosen = _majority(around)
        is_reached = chosen != NO_LABEL
        flat[pending[is_reached]] = chosen[is_reached]
        pending = pending[~is_reached]
        if len(pending) == 0 or not is_reached.any():
            break
    grown: Labels = framed[1:-1, 1:-1]
    return np.where(is_taken & (grown == NO_LABEL), labels, grown)


def _majority(around: Labels) -> Labels:
    """The most frequent label of each column, the lowest of several; 255 only where there is no other."""
    votes = (around[:, None] == around[None]).sum(axis=1)
    rank = np.where(around == NO_LABEL, -1, votes * 256 + (NO_LABEL - around.astype(np.intp)))
    chosen: Labels = np.take_along_axis(around, rank.argmax(axis=0)[None], axis=0)[0]
    return chosen


def sieve_labels(
    labels: Labels, min_pixels: float, connectivity: int = 4, open_sides: tuple[str, ...] = ()
) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """Give areas of fewer than ``min_pixels`` pixels to the neighbor with which they share the longest border.

    Small areas that only have small neighbors wait until one of these has been given away. Clusters of small areas without
    any large neighbor stay as they are.

    Args:
        labels: ``(h, w)`` uint8; 255 stays, and nothing is given to it.
        min_pixels: areas of this size stay.
        connectivity: 8 counts areas that touch at a corner as one.
        open_sides: sides of the window beyond which the raster goes on: ``"top"``, ``"left"``, ``"bottom"``, ``"right"``.

    Returns:
        The labels, and where they might be others if more of the raster were known.
    """
    components = label_components(labels)
    is_small = np.append(False, _sizes(components, labels, connectivity) < min_pixels)
    if not is_small.any():
        return labels, np.zeros(labels.shape, dtype=bool)
    small, other, length = _borders(components.ids, is_small)
    chosen = np.append(np.uint8(NO_LABEL), components.class_id)
    _give_away(chosen, is_small, (small, other, length))
    return chosen[components.ids], _uncertain(components.ids, is_small, (small, other), open_sides)


def _sizes(components: Components, labels: Labels, connectivity: int) -> npt.NDArray[np.int64]:
    sizes = components.totals[:, 0]
    links = corner_links(components, labels) if connectivity == 8 else np.empty((0, 2), dtype=np.intp)
    if len(links) == 0:
        return sizes
    group = _connected(links[:, 0], links[:, 1], len(sizes))
    together: npt.NDArray[np.int64] = np.bincount(group, weights=sizes).astype(np.int64)[group]
    return together


def _connected(one: Ints, other: Ints, count: int) -> Ints:
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(count, count))
    group: Ints = connected_components(graph, directed=False)[1].astype(np.intp)
    return group


def _borders(ids: npt.NDArray[np.int32], is_small: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """Pairs of a small component and a neighbor, with the length of their border in pixels."""
    codes = []
    for one, other in _side_by_side(ids):
        for small, neighbor in ((one, other), (other, one)):
            meets = is_small[small] & (neighbor > 0) & (small != neighbor)
            codes.append((small[meets].astype(np.int64) << 32) | neighbor[meets])
    pairs, length = np.unique(np.concatenate(codes), return_counts=True)
    return (pairs >> 32).astype(np.intp), (pairs & 0xFFFFFFFF).astype(np.intp), length.astype(np.intp)


def _side_by_side(ids: npt.NDArray[np.int32]) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    yield ids[:, :-1].ravel(), ids[:, 1:].ravel()
    yield ids[:-1].ravel(), ids[1:].ravel()


def _give_away(chosen: Labels, is_small: npt.NDArray[np.bool_], borders: tuple[Ints, Ints, Ints]) -> None:
    small, other, length = borders
    is_settled = ~is_small
    while (active := is_settled[other] & ~is_settled[small]).any():
        code, index = np.unique(small[active] * 256 + chosen[other[active]], return_inverse=True)
        weight = np.bincount(index, weights=length[active])
        order = np.lexsort((code, -weight, code >> 8))
        first = order[np.append(True, np.diff(code[order] >> 8) != 0)]
        winners = code[first] >> 8
        chosen[winners] = (code[first] & 255).astype(np.uint8)
        is_settled[winners] = True


def _uncertain(
    ids: npt.NDArray[np.int32], is_small: npt.NDArray[np.bool_], pairs: tuple[Ints, Ints], open_sides: tuple[str, ...]
) -> npt.NDArray[np.bool_]:
    """Clusters of small components that reach an open side."""
    small, other = pairs
    both = is_small[other]
    cluster = _connected(small[both], other[both], len(is_small))
    is_reached = np.zeros(len(is_small), dtype=bool)
    lines = {"top": ids[0], "left": ids[:, 0], "bottom": ids[-1], "right": ids[:, -1]}
    for name in open_sides:
        is_reached[cluster[lines[name][is_small[lines[name]]]]] = True
    uncertain: npt.NDArray[np.bool_] = (is_small & is_reached[cluster])[ids]
    return uncertain


def fill_holes(labels: Labels, background: int, max_side: int) -> Labels:
    """Background that a single class encloses becomes that class.

    Args:
        labels: ``(h, w)`` uint8; what touches 255 or the array's border is no hole.
        background: label of holes.
        max_side: pixels; holes that are higher or wider stay.
    """
    ids = label_components(np.where(labels == background, np.uint8(0), np.uint8(NO_LABEL))).ids
    count = int(ids.max())
    lowest, highest = np.full(count + 1, NO_LABEL), np.zeros(count + 1, dtype=np.intp)
    for one, other in ((ids[:, :-1], np.s_[:, 1:]), (ids[:, 1:], np.s_[:, :-1]), (ids[:-1], np.s_[1:]), (ids[1:], np.s_[:-1])):
        meets = (one > 0) & (ids[other] == 0)
        np.minimum.at(lowest, one[meets], labels[other][meets])
        np.maximum.at(highest, one[meets], labels[other][meets])
    is_hole = (lowest == highest) & (highest != NO_LABEL)
    is_hole[[0, *np.unique(np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]]))]] = False
    for number, place in enumerate(find_objects(ids), start=1):
        is_hole[number] &= max(side.stop - side.start for side in place) <= max_side
    return np.where(is_hole[ids], lowest[ids].astype(np.uint8), labels)


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
    wide = _widened(window, LARGEST_HOLE + 1, source.shape)
    labels, is_exact = _sieved(source, wide, rules)
    return _cropped(fill_holes(labels, rules.background, LARGEST_HOLE), wide, window), is_exact


def _sieved(source: TileSource, window: Window, rules: CleaningRules) -> tuple[Labels, bool]:
    if not rules.sieve:
        return _opened(source, window, rules), True
    margin = min(max(8, math.ceil(2 * math.sqrt(rules.sieve))), LARGEST_SIEVE_MARGIN)
    while True:
        wide = _widened(window, margin, source.shape)
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
    wide = _widened(window, opening_margin(rules.opening), source.shape)
    return _cropped(open_labels(source.read_tile(wide).labels, rules.opening, rules.background), wide, window)


def _widened(window: Window, margin: int, shape: Shape) -> Window:
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
    place = georeference(src)
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
