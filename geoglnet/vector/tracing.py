"""Tracing one tile: 4-connected components of a label array, and their outlines as polygons on the pixel grid.

Both steps are whole-array numpy, so their cost hardly depends on the number of classes. Coordinates are pixel corners,
x = column and y = row, integers held as float64 and therefore exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from geoglnet.vector.rings import Rings

NO_LABEL = 255
NO_CONFIDENCE = 255
MAX_CONFIDENCE = 254

Ints = npt.NDArray[np.intp]
Geometries = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Components:
    """4-connected components of a tile; component ``i + 1`` of ``ids`` has entry ``i`` in the other arrays.

    Args:
        ids: ``(h, w)`` int32, 0 where there is no polygon.
        class_id: ``(n,)`` uint8, label of each component.
        totals: ``(n, 3)`` int64: pixels, sum of the known confidence values (0–254), number of those values.
    """

    ids: npt.NDArray[np.int32]
    class_id: npt.NDArray[np.uint8]
    totals: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.class_id)


def label_components(
    labels: npt.NDArray[np.uint8], confidence: npt.NDArray[np.uint8] | None = None, *, without_label: bool = False
) -> Components:
    """Find the 4-connected components of all classes at once.

    Rows are cut into runs of one label; runs that touch from row to row are the edges of a graph whose connected parts
    are the components.

    Args:
        labels: ``(h, w)`` uint8; 255 belongs to no component.
        confidence: ``(h, w)`` uint8, 0–254, 255 where unknown.
        without_label: find the components of 255 too.
    """
    is_start = np.ones(labels.shape, dtype=bool)
    is_start[:, 1:] = labels[:, 1:] != labels[:, :-1]
    starts = np.flatnonzero(is_start)
    part_of_run, num_parts = _connected_runs(labels, is_start, starts)

    part_class = np.empty(num_parts, dtype=np.uint8)
    part_class[part_of_run] = labels.ravel()[starts]
    is_kept = (part_class != NO_LABEL) | without_label
    id_of_run = np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32)[part_of_run]

    totals = np.zeros((np.count_nonzero(is_kept) + 1, 3), dtype=np.int64)
    for column, per_run in enumerate(_run_totals(starts, labels.size, confidence)):
        totals[:, column] = np.bincount(id_of_run, weights=per_run, minlength=len(totals))
    ids = np.repeat(id_of_run, np.diff(starts, append=labels.size)).reshape(labels.shape)
    return Components(ids, part_class[is_kept], totals[1:])


def _run_totals(starts: Ints, size: int, confidence: npt.NDArray[np.uint8] | None) -> Iterator[npt.NDArray[np.int64]]:
    yield np.diff(starts, append=size)
    if confidence is not None:
        values = confidence.ravel()
        is_known = values != NO_CONFIDENCE
        yield np.add.reduceat(np.where(is_known, values, 0), starts, dtype=np.int64)
        yield np.add.reduceat(is_known, starts, dtype=np.int64)


def _connected_runs(
    labels: npt.NDArray[np.uint8], is_start: npt.NDArray[np.bool_], starts: Ints
) -> tuple[npt.NDArray[np.int32], int]:
    # Two runs that touch do so first at a column where one of them starts: one edge per pair, not one per pixel.
    touches = (labels[1:] == labels[:-1]) & (is_start[1:] | is_start[:-1])
    pixel = np.flatnonzero(touches)
    upper, lower = (np.searchsorted(starts, place, side="right") - 1 for place in (pixel, pixel + labels.shape[1]))
    graph = coo_array((np.ones(len(upper), dtype=np.int8), (upper, lower)), shape=(len(starts), len(starts)))
    num_parts, part_of_run = connected_components(graph, directed=False)
    return part_of_run, int(num_parts)


def corner_links(components: Components, labels: npt.NDArray[np.uint8]) -> Ints:
    """Pairs of different components of one class that touch at a corner.

    Args:
        components: of the labels.
        labels: ``(h, w)`` uint8.

    Returns:
        ``(k, 2)`` indexes of components, from 0.
    """
    ids, pairs = components.ids, []
    for upper, lower in ((np.s_[:-1, :-1], np.s_[1:, 1:]), (np.s_[:-1, 1:], np.s_[1:, :-1])):
        touches = (labels[upper] == labels[lower]) & (ids[upper] != ids[lower]) & (ids[upper] > 0)
        pairs.append(np.column_stack([ids[upper][touches], ids[lower][touches]]).astype(np.intp))
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0) - 1


def trace_components(
    ids: npt.NDArray[np.int32],
    *,
    origin: tuple[int, int] = (0, 0),
    junctions: bool = False,
    surroundings: npt.NDArray[np.int16] | None = None,
) -> Geometries:
    """Outline every component as a valid polygon with its holes.

    Rings run clockwise as seen on the raster (holes counter-clockwise) and touch themselves nowhere: where a component
    meets itself at a corner, the hole and the shell (or two holes) share that point.

    Args:
        ids: ``(h, w)`` int32 component numbers from 1, each 4-connected; 0 is outside.
        origin: column and row of the first pixel, added to all coordinates.
        junctions: keep the points on straight edges where two neighbours of a component meet, so that neighbouring
            polygons share all their vertices (what coverage simplification needs).
        surroundings: ``(h + 2, w + 2)`` int16, of which the outermost pixels are read: the labels around ``ids``, -1 outside
            the raster. With ``junctions``, points where they change are kept too, as the tile across the line has them.

    Returns:
        Polygons in pixel coordinates; entry ``i`` outlines component ``i + 1``.
    """
    if not ids.any():
        return np.empty(0, dtype=object)
    vertices = _find_vertices(_framed(ids, surroundings), junctions=junctions)
    col, row = vertices.col[vertices.corner], vertices.row[vertices.corner]
    return assemble(col, row, vertices.component - 1, _link(vertices)).moved(*origin).polygons()


@dataclass(frozen=True, slots=True)
class _Vertices:
    """Turning points of all outlines; corners are in row-major order, directions 0–3 are right, down, left, up."""

    row: Ints  # of each corner
    col: Ints
    corner: Ints  # of each vertex: index into row and col
    arriving: npt.NDArray[np.uint8]  # direction of travel before the vertex
    leaving: npt.NDArray[np.uint8]  # direction of travel after it
    component: npt.NDArray[np.int32]


def _framed(ids: npt.NDArray[np.int32], surroundings: npt.NDArray[np.int16] | None) -> npt.NDArray[np.int32]:
    """Components with a frame one pixel wide, in which every label has a negative number."""
    framed = np.pad(ids, 1)
    if surroundings is not None:
        for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
            framed[side] = -2 - surroundings[side].astype(np.int32)
    return framed


def _find_vertices(framed: npt.NDArray[np.int32], *, junctions: bool) -> _Vertices:
    changes_across = framed[:, :-1] != framed[:, 1:]
    changes_down = framed[:-1] != framed[1:]
    is_corner = (changes_across[:-1] | changes_across[1:]) & (changes_down[:, :-1] | changes_down[:, 1:])
    row, col = np.divmod(np.flatnonzero(is_corner), is_corner.shape[1])
    flat, width = framed.ravel(), framed.shape[1]
    upper_left = row * width + col
    # Clockwise around the corner: upper left, upper right, lower right, lower left.
    around = (flat[upper_left], flat[upper_left + 1], flat[upper_left + width + 1], flat[upper_left + width])

    corners, arriving, leaving, components = [], [], [], []
    for direction in range(4):
        # With its component on the right hand, a traveller has come along `own`, with `beside` on the left hand.
        own, beside, opposite, ahead = (around[(direction + turn) % 4] for turn in (3, 0, 1, 2))
        # Turning left even where `own` and `opposite` touch only here keeps every ring simple.
        turn = np.where(opposite == own, 3, np.where(ahead == own, 0, 1))
        is_vertex = (own > 0) & (beside != own)
        if not junctions:
            is_vertex &= turn != 0
        corner = np.flatnonzero(is_vertex)
        corners.append(corner)
        arriving.append(np.full(len(corner), direction, dtype=np.uint8))
        leaving.append(((direction + turn[corner]) % 4).astype(np.uint8))
        components.append(own[corner])
    return _Vertices(
        row, col, np.concatenate(corners), np.concatenate(arriving), np.concatenate(leaving), np.concatenate(components)
    )


def _link(vertices: _Vertices) -> Ints:
    """The vertex that follows each one: along a grid line, departures and arrivals of one direction alternate."""
    following = np.empty(len(vertices.corner), dtype=np.intp)
    by_column = np.argsort(vertices.col, kind="stable")
    for direction in range(4):
        departures = _in_line_order(vertices, vertices.leaving == direction, direction, by_column)
        arrivals = _in_line_order(vertices, vertices.arriving == direction, direction, by_column)
        following[departures] = arrivals
    return following


def _in_line_order(vertices: _Vertices, chosen: npt.NDArray[np.bool_], direction: int, by_column: Ints) -> Ints:
    # At a corner at most one outline arrives (and one leaves) in a given direction, so a slot per corner sorts them.
    slots = np.full(len(vertices.row), -1, dtype=np.intp)
    index = np.flatnonzero(chosen)
    slots[vertices.corner[index]] = index
    if direction % 2:
        slots = slots[by_column]
    return slots[slots >= 0]


def assemble(col: Ints, row: Ints, component: npt.NDArray[np.integer[Any]], following: Ints) -> Rings:
    """Rings in the order of their components, shell first, from the successor of every vertex.

    Args:
        col: ``(n,)`` column of each vertex.
        row: ``(n,)`` row.
        component: ``(n,)`` number of the component on the right hand, from 0 without gaps.
        following: ``(n,)`` index of the next vertex around the ring.
    """
    count = len(following)
    num_rings, ring = connected_components(_successor_graph(following), directed=False)
    x, y = col.astype(np.float64), row.astype(np.float64)
    doubled_area = np.bincount(ring, weights=x * y[following] - x[following] * y, minlength=num_rings)
    first = np.empty(num_rings, dtype=np.intp)
    first[ring[::-1]] = np.arange(count)[::-1]
    owner = component[first].astype(np.intp)
    order = np.lexsort((doubled_area < 0, owner))

    # One pass over all rings: each ring is cut before its first vertex and tied to the next ring.
    preceding = np.empty(count, dtype=np.intp)
    preceding[following] = np.arange(count)
    chain = following.copy()
    chain[preceding[first[order]]] = np.roll(first[order], -1)
    walk = breadth_first_order(_successor_graph(chain), first[order[0]], return_predecessors=False)
    lengths = np.bincount(ring, minlength=num_rings)[order]
    return Rings(np.column_stack([x[walk], y[walk]]), lengths, owner[order])


def _successor_graph(following: Ints) -> csr_array:
    count = len(following)
    return csr_array((np.ones(count), following, np.arange(count + 1)), shape=(count, count))
