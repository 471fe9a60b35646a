"""Cleans labels before they are traced: opens classes, sieves small areas, fills holes.

Rasters are cleaned tile by tile, with the result of cleaning the whole raster at once: every tile is read with a margin as
wide as the step looks around a pixel. Sieving has no such bound, so it returns which pixels might depend on what lies beyond
the window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geoglnet.progress import Progress
from geoglnet.raster.gdal import environment, open_raster
from geoglnet.raster.grid import georeference
from geoglnet.raster.writer import LabelWriter
from geoglnet.types import Ints, Shape
from geoglnet.vector.ordered import Ordered
from geoglnet.vector.pieces import open_sides
from geoglnet.vector.tiles import DatasetTiles, TileSource
from geoglnet.vector.tracing import NO_CODE, NO_LABEL, Codes, Components, corner_links, label_components, no_code_of
from geoglnet.vector.values import RasterValues
from geoglnet.windows import core_edges, iter_cores

ScalarT = TypeVar("ScalarT", bound=np.generic)
LARGEST_HOLE = 256
LARGEST_SIEVE_MARGIN = 512
CLEANING_TILE_SIZE = 1024


def opening_margin(radius: int) -> int:
    """Return how many pixels around a window :func:`open_labels` depends on."""
    return 4 * radius + 1  # erosion and dilation look `radius` far each, growth into the gaps 2 · radius + 1 steps


def open_labels(labels: Codes, radius: int, background: int | None) -> Codes:
    """Open every class morphologically with a square of ``2 · radius + 1`` pixels.

    Parts thinner than the square become background; where there is none, neighbors grow into them by majority, and pixels that
    they do not reach within ``2 · radius + 1`` steps stay.

    Args:
        labels: ``(h, w)``; what has no class stays.
        radius: in pixels.
        background: label that thin parts become; ``None`` where no class is the background.

    Returns:
        ``(h, w)``, of the same type.
    """
    from scipy.ndimage import maximum_filter, minimum_filter  # here as below: slow to import, and few labels are cleaned

    size = 2 * radius + 1
    # Erosion of all classes at once: where maximum and minimum agree, the square around a pixel holds a single label. Dilation
    # of these cores gives the pixels that some square of one class covers; the others are thin.
    is_core = maximum_filter(labels, size, mode="nearest") == minimum_filter(labels, size, mode="nearest")
    is_taken = ~maximum_filter(is_core, size, mode="constant") & (labels != no_code_of(labels))
    if background is None:
        return _grown(labels, is_taken, steps=size)
    return np.where(is_taken, labels.dtype.type(background), labels)


def _grown(labels: Codes, is_taken: npt.NDArray[np.bool_], steps: int) -> Codes:
    """Let the other labels grow into the pixels of ``is_taken``, one pixel a step."""
    none = labels.dtype.type(no_code_of(labels))
    # Flat indexes and a frame of no class: only pixels still to be reached are looked at, without tests for the border.
    framed = np.pad(np.where(is_taken, none, labels), 1, constant_values=none)
    flat, width = framed.ravel(), framed.shape[1]
    row, col = np.nonzero(is_taken)
    pending = (row + 1) * width + col + 1
    for _ in range(steps):
        around = np.stack([flat[pending + step] for step in (-width, -1, 1, width)])
        chosen = _majority(around)
        is_reached = chosen != none
        # Written after all have been chosen, so that no pixel of this step sees another one: the scan has no direction.
        flat[pending[is_reached]] = chosen[is_reached]
        pending = pending[~is_reached]
        if len(pending) == 0 or not is_reached.any():
            break
    grown: Codes = framed[1:-1, 1:-1]
    return np.where(is_taken & (grown == none), labels, grown)


def _majority(around: Codes) -> Codes:
    """Find the most frequent label of each column, the lowest of several; no class only where there is no other.

    Args:
        around: ``(4, n)`` labels of the neighbors of each pixel.
    """
    votes = np.where(around == no_code_of(around), -1, (around[:, None] == around[None]).sum(axis=1))
    chosen: Codes = np.where(votes == votes.max(axis=0), around, np.iinfo(around.dtype).max).min(axis=0)
    return chosen


def sieve_labels(
    labels: Codes, min_pixels: float, connectivity: int = 4, open_sides: tuple[str, ...] = ()
) -> tuple[Codes, npt.NDArray[np.bool_]]:
    """Give areas of fewer than ``min_pixels`` pixels to the neighbor with which they share the longest border.

    Small areas that only have small neighbors wait until one of these has been given away. Clusters of small areas without
    any large neighbor stay as they are.

    Args:
        labels: ``(h, w)``; what has no class stays, and nothing is given to it.
        min_pixels: areas of this size stay.
        connectivity: 8 counts areas that touch at a corner as one.
        open_sides: sides of the window beyond which the raster continues: ``"top"``, ``"left"``, ``"bottom"``, ``"right"``.

    Returns:
        ``(h, w)`` labels, and ``(h, w)`` bool: where they might differ if more of the raster were known.
    """
    components = label_components(labels)
    is_small = np.append(False, _sizes(components, labels, connectivity) < min_pixels)
    if not is_small.any():
        return labels, np.zeros(labels.shape, dtype=bool)
    small, other, length = _borders(components.ids, is_small)
    # By component; entry 0 stands for pixels without a label.
    chosen = np.append(no_code_of(labels), components.class_id).astype(labels.dtype)
    _give_away(chosen, is_small, (small, other, length))
    return chosen[components.ids], _uncertain(components.ids, is_small, (small, other), open_sides)


def _sizes(components: Components, labels: Codes, connectivity: int) -> npt.NDArray[np.int64]:
    """Count the pixels of the area that each 4-connected component belongs to."""
    sizes = components.totals[:, 0]
    links = corner_links(components, labels) if connectivity == 8 else np.empty((0, 2), dtype=np.intp)
    if len(links) == 0:
        return sizes
    group = _connected(links[:, 0], links[:, 1], len(sizes))
    together: npt.NDArray[np.int64] = np.bincount(group, weights=sizes).astype(np.int64)[group]
    return together


def _connected(one: Ints, other: Ints, count: int) -> Ints:
    """Number the connected groups of ``count`` nodes, given pairs of linked ones; return the group of each node."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(count, count))
    group: Ints = connected_components(graph, directed=False)[1].astype(np.intp)
    return group


def _borders(ids: npt.NDArray[np.int32], is_small: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """List pairs of a small component and a neighbor, with the length of their border in pixels."""
    codes = []  # both numbers of a pair in one int64: unique counts these far quicker than rows
    for one, other in _side_by_side(ids):
        for small, neighbor in ((one, other), (other, one)):
            meets = is_small[small] & (neighbor > 0) & (small != neighbor)
            codes.append((small[meets].astype(np.int64) << 32) | neighbor[meets])
    pairs, length = np.unique(np.concatenate(codes), return_counts=True)
    return (pairs >> 32).astype(np.intp), (pairs & 0xFFFFFFFF).astype(np.intp), length.astype(np.intp)


def _side_by_side(ids: npt.NDArray[np.int32]) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """Yield all pairs of pixels that share an edge: left and right ones, then upper and lower ones."""
    yield ids[:, :-1].ravel(), ids[:, 1:].ravel()
    yield ids[:-1].ravel(), ids[1:].ravel()


def _give_away(chosen: Codes, is_small: npt.NDArray[np.bool_], borders: tuple[Ints, Ints, Ints]) -> None:
    """Settle small components round by round: each takes the class with which it has the longest border of settled ones.

    All components that touch a settled one are settled in the same round, so the outcome depends on no order of the scan.
    """
    small, other, length = borders
    is_settled = ~is_small
    classes, number = np.unique(chosen, return_inverse=True)  # numbers keep the order of the classes
    while (active := is_settled[other] & ~is_settled[small]).any():
        # Border lengths are summed by component and class: two fields on either side count together.
        code, index = np.unique(small[active] * len(classes) + number[other[active]], return_inverse=True)
        weight = np.bincount(index, weights=length[active])
        # By component, then the longest border, then the lowest class; the first of each component wins.
        component = code // len(classes)
        order = np.lexsort((code, -weight, component))
        first = order[np.append(True, np.diff(component[order]) != 0)]
        winners = component[first]
        number[winners] = code[first] % len(classes)
        is_settled[winners] = True
    chosen[:] = classes[number]


def _uncertain(
    ids: npt.NDArray[np.int32], is_small: npt.NDArray[np.bool_], pairs: tuple[Ints, Ints], open_sides: tuple[str, ...]
) -> npt.NDArray[np.bool_]:
    """Find the pixels of clusters of small components that reach an open side.

    A small component may be larger, or have other neighbors, beyond the window; whatever it becomes can pass on to all small
    components that it is connected with, and to no others.
    """
    small, other = pairs
    both = is_small[other]
    cluster = _connected(small[both], other[both], len(is_small))
    is_reached = np.zeros(len(is_small), dtype=bool)
    lines = {"top": ids[0], "left": ids[:, 0], "bottom": ids[-1], "right": ids[:, -1]}
    for name in open_sides:
        is_reached[cluster[lines[name][is_small[lines[name]]]]] = True
    uncertain: npt.NDArray[np.bool_] = (is_small & is_reached[cluster])[ids]
    return uncertain


def fill_holes(labels: Codes, background: int, max_side: int) -> Codes:
    """Fill the background that a single class encloses with that class.

    Args:
        labels: ``(h, w)``; background that touches what has no class, or the array's border is no hole.
        background: label of holes.
        max_side: pixels; holes that are higher or wider stay.

    Returns:
        ``(h, w)``, of the same type.
    """
    from scipy.ndimage import find_objects

    ids = label_components(np.where(labels == background, np.uint8(0), np.uint8(NO_LABEL))).ids
    count = int(ids.max())
    # Lowest and highest label around every area of background: where they agree, a single class encloses it. What stands for no
    # class is lower or higher than all classes, so that an area that touches it shows as such or as two classes.
    lowest, highest = np.full(count + 1, -NO_CODE), np.full(count + 1, NO_CODE)
    for one, other in ((ids[:, :-1], np.s_[:, 1:]), (ids[:, 1:], np.s_[:, :-1]), (ids[:-1], np.s_[1:]), (ids[1:], np.s_[:-1])):
        meets = (one > 0) & (ids[other] == 0)
        np.minimum.at(lowest, one[meets], labels[other][meets])
        np.maximum.at(highest, one[meets], labels[other][meets])
    is_hole = (lowest == highest) & (highest != no_code_of(labels))
    is_hole[[0, *np.unique(np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]]))]] = False
    for number, place in enumerate(find_objects(ids), start=1):
        is_hole[number] &= max(side.stop - side.start for side in place) <= max_side
    return np.where(is_hole[ids], lowest[ids].astype(labels.dtype), labels)


@dataclass(frozen=True, slots=True)
class CleaningRules:
    """Steps of cleaning, in this order.

    Args:
        opening: radius in pixels; 0 for none.
        sieve: least number of pixels of an area that stays; 0 for none.
        fill_holes: fill enclosed background up to 256 px across.
        background: label of the background; ``None`` when there is none.
        connectivity: of areas that are sieved, 4 or 8.
        are_bytes: whether labels are uint8, and 255 is no class; else they are int64.
    """

    opening: int = 0
    sieve: float = 0.0
    fill_holes: bool = False
    background: int | None = None
    connectivity: int = 4
    are_bytes: bool = True


@dataclass(frozen=True, slots=True)
class CleanTile:
    """Codes of one window.

    Args:
        window: place in the raster.
        labels: ``(h, w)``, cleaned.
        is_exact: whether they are proved to be those that cleaning the whole raster at once would give.
    """

    window: Window
    labels: Codes
    is_exact: bool


def clean_tile(source: TileSource, window: Window, rules: CleaningRules) -> tuple[Codes, bool]:
    """Clean the labels of a window as if the whole raster were cleaned at once.

    Margins are read around the window as far as each step looks; for sieving, as far as the clusters of small areas go, up
    to 512 px.

    Returns:
        ``(h, w)`` labels, and whether they are proved to be those of the whole raster.

    Raises:
        SceneError: the raster cannot be read.
    """
    # From the last step inwards: each widens the window by what it needs, and asks the step before for the wider one.
    if not rules.fill_holes or rules.background is None:
        return _sieved(source, window, rules)
    wide = _widened(window, LARGEST_HOLE + 1, source.shape)
    labels, is_exact = _sieved(source, wide, rules)
    return _cropped(fill_holes(labels, rules.background, LARGEST_HOLE), wide, window), is_exact


def _sieved(source: TileSource, window: Window, rules: CleaningRules) -> tuple[Codes, bool]:
    """Open and sieve a window, with a margin that is doubled until no pixel of the window depends on what lies beyond."""
    if not rules.sieve:
        return _opened(source, window, rules), True
    # Twice the side of a square that is just small enough: enough for most tiles.
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


def _opened(source: TileSource, window: Window, rules: CleaningRules) -> Codes:
    """Read and open a window."""
    if not rules.opening:
        return _read(source, window, rules)
    wide = _widened(window, opening_margin(rules.opening), source.shape)
    return _cropped(open_labels(_read(source, wide, rules), rules.opening, rules.background), wide, window)


def _read(source: TileSource, window: Window, rules: CleaningRules) -> Codes:
    """Read labels in the type of the whole raster, whatever those of this window would fit."""
    labels = source.read_tile(window).labels
    if rules.are_bytes or labels.dtype != np.uint8:
        return labels
    return np.where(labels == NO_LABEL, NO_CODE, labels.astype(np.int64))


def _widened(window: Window, margin: int, shape: Shape) -> Window:
    """Extend a window by a margin on all sides, as far as the raster goes."""
    top, left = max(int(window.row_off) - margin, 0), max(int(window.col_off) - margin, 0)
    bottom = min(int(window.row_off + window.height) + margin, shape.height)
    right = min(int(window.col_off + window.width) + margin, shape.width)
    return Window(col_off=left, row_off=top, width=right - left, height=bottom - top)


def _cropped(array: npt.NDArray[ScalarT], wide: Window, window: Window) -> npt.NDArray[ScalarT]:
    """Cut a window out of the array of a wider one."""
    row, col = int(window.row_off - wide.row_off), int(window.col_off - wide.col_off)
    return array[row : row + int(window.height), col : col + int(window.width)]


@dataclass(frozen=True, slots=True)
class CleaningJob:
    """Cleaning of all tiles, as it is sent to other processes.

    Args:
        labels_path: label raster.
        rules: steps of cleaning.
        values: what the raster's values mean.
    """

    labels_path: str
    rules: CleaningRules
    values: RasterValues = field(default_factory=RasterValues)

    def start(self) -> Callable[[Window], CleanTile]:
        """Open the raster for as long as the process lives, and return the work on one window."""
        stack = ExitStack()
        stack.enter_context(environment(self.labels_path))
        return self.on(DatasetTiles(stack.enter_context(open_raster(self.labels_path)), values=self.values))

    def on(self, tiles: DatasetTiles) -> Callable[[Window], CleanTile]:
        """Return the work on one window of an open raster."""

        def work(window: Window) -> CleanTile:
            labels, is_exact = clean_tile(tiles, window, self.rules)
            return CleanTile(window, labels, is_exact)

        return work


def write_clean_labels(tiles: DatasetTiles, path: Path, rules: CleaningRules, *, workers: int, progress: Progress) -> None:
    """Write the cleaned labels of an open raster as a GeoTIFF of the same shape and place.

    Args:
        tiles: the labels.
        path: file to write.
        rules: steps of cleaning.
        workers: number of processes.
        progress: receives the stage ``cleaning`` in tiles.

    Raises:
        SceneError: the raster cannot be read.
        OutputError: the disk is full.
    """
    src, job = tiles.labels, CleaningJob(tiles.labels.name, rules, tiles.values)
    place, is_exact = georeference(src), True
    edges = [core_edges(length, CLEANING_TILE_SIZE, 0) for length in tiles.shape]
    progress.plan("cleaning", (len(edges[0]) - 1) * (len(edges[1]) - 1), "tiles")
    windows = iter_cores(tiles.shape, CLEANING_TILE_SIZE, margin=0)
    with (
        LabelWriter(
            path,
            tiles.shape,
            transform=place.transform,
            crs=place.crs,
            core_size=CLEANING_TILE_SIZE,
            dtype="uint8" if rules.are_bytes else "int64",
            nodata=NO_LABEL if rules.are_bytes else NO_CODE,
        ) as writer,
        Ordered(job, job.on(DatasetTiles(src, values=tiles.values)), windows, workers) as clean_tiles,
    ):
        for tile in clean_tiles:
            writer.write_block(tile.window, tile.labels)
            is_exact &= tile.is_exact
            progress.advance()
    if not is_exact:
        progress.warn(
            f"areas below the sieve's size form clusters wider than {LARGEST_SIEVE_MARGIN} px: they were sieved tile by tile; "
            "a larger sieve, or another model, would do better"
        )
