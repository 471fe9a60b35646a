"""Connected areas of equal label in one tile, and their outlines.

Areas are found in one pass over the pixels with a union-find forest (Rosenfeld and Pfaltz 1966); outlines by following the
borders between pixels. Coordinates are pixel corners, x = column and y = row, integers held as float64 and therefore exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoglnet.types import Ints
from geoglnet.vector.compiled import compiled
from geoglnet.vector.rings import Rings

NO_LABEL = 255
NO_CODE = -(2**40)
"""No class, among codes of any type; a double holds it exactly, so it can be the nodata value of a raster."""
SMALLEST_CODE, LARGEST_CODE = -(2**31), 2**32 - 1
NO_CONFIDENCE = 255
MAX_CONFIDENCE = 254

Ids = npt.NDArray[np.int32]
Codes = npt.NDArray[np.integer[Any]]
"""Labels of pixels: uint8 with 255 for no class, or, where values need more room, int64 with :data:`NO_CODE`."""


def no_code_of(codes: Codes) -> int:
    """Return the value that stands for no class in an array of its type."""
    return NO_LABEL if codes.dtype == np.uint8 else NO_CODE


_BEYOND = -(2**41)  # the raster: neither a code nor none


@dataclass(frozen=True, slots=True)
class Components:
    """4-connected components of a tile; component ``i + 1`` of ``ids`` has entry ``i`` in the other arrays.

    Args:
        ids: ``(h, w)`` int32, 0 where there is no polygon; numbers follow the components' first pixels, row by row.
        class_id: ``(n,)`` int64, code of each component; :data:`NO_CODE` where it has no class.
        totals: ``(n, 3)`` int64: pixels, sum of the known confidence values (0–254), number of those values.
    """

    ids: Ids
    class_id: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.class_id)


def label_components(
    labels: Codes, confidence: npt.NDArray[np.uint8] | None = None, *, without_label: bool = False
) -> Components:
    """Find the 4-connected components of all classes at once.

    Args:
        labels: ``(h, w)``; pixels without a class belong to no component.
        confidence: ``(h, w)`` uint8, 0–254, 255 where unknown.
        without_label: find the components of pixels without a class too.
    """
    # numba compiles once per type and memory layout: with contiguous, writable arrays there is one version of each type.
    ids, parents, part_class = _unite_pixels(np.require(labels, requirements=["C", "W"]))
    # The root of a component is its earliest part, so numbering the roots in order numbers components by their first pixels.
    has_class = part_class != no_code_of(labels)
    is_kept = (parents == np.arange(len(parents))) & (has_class | without_label)
    numbers = _of_first(np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32), parents)
    totals = np.zeros((int(is_kept.sum()) + 1, 3), dtype=np.int64)
    _number(ids, numbers, totals)
    if confidence is not None:
        _sum_confidence(ids, np.require(confidence, requirements=["C", "W"]), totals)
    class_id = np.where(has_class[is_kept], part_class[is_kept].astype(np.int64), NO_CODE)
    return Components(ids, class_id, totals[1:])


def corner_links(components: Components, labels: Codes) -> Ints:
    """List the pairs of different components of one class that touch at a corner.

    Args:
        components: 4-connected components of ``labels``.
        labels: ``(h, w)``.

    Returns:
        ``(k, 2)`` indexes of components, from 0.
    """
    ids, pairs = components.ids, []
    for upper, lower in ((np.s_[:-1, :-1], np.s_[1:, 1:]), (np.s_[:-1, 1:], np.s_[1:, :-1])):
        touches = (labels[upper] == labels[lower]) & (ids[upper] != ids[lower]) & (ids[upper] > 0)
        pairs.append(np.column_stack([ids[upper][touches], ids[lower][touches]]).astype(np.intp))
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0) - 1


@compiled
def _unite_pixels(labels: Codes) -> tuple[Ids, Ids, Codes]:
    """Assign every pixel to a part, and link the parts of a component in a union-find forest.

    Returns:
        ``(h, w)`` part of every pixel; for every part its parent (an earlier part of its component, or itself), and its label.
    """
    parts = np.empty(labels.shape, np.int32)
    parents, part_class = np.empty(labels.size, np.int32), np.empty(labels.size, labels.dtype)
    count = 0
    for row in range(labels.shape[0]):
        line, line_parts = labels[row], parts[row]
        line_above, parts_above = labels[max(row - 1, 0)], parts[max(row - 1, 0)]
        part, left, upper_left = 0, _BEYOND, _BEYOND
        for col in range(labels.shape[1]):
            label, upper = line[col], line_above[col] if row > 0 else _BEYOND
            if label == left:
                # Where the upper left pixel has the label too, it joined the left and the upper pixel one column ago.
                if label == upper != upper_left:
                    _unite(parents, part, parts_above[col])
            elif label == upper:
                part = parts_above[col]
            else:
                part = parents[count] = count
                part_class[count] = label
                count += 1
            line_parts[col] = part
            left, upper_left = label, upper
    return parts, parents[:count], part_class[:count]


@compiled
def _unite(parents: Ids, one: int, other: int) -> None:
    """Make one component of two; the earlier part becomes the root, on which the numbering relies."""
    one, other = _first_part(parents, one), _first_part(parents, other)
    parents[max(one, other)] = min(one, other)


@compiled
def _first_part(parents: Ids, part: int) -> int:
    """Find the root of a part."""
    while parents[part] != part:
        parents[part] = parents[parents[part]]  # path halving: later searches are half as long
        part = parents[part]
    return part


@compiled
def _of_first(numbers: Ids, parents: Ids) -> Ids:
    """Copy the number of every root to all parts of its component."""
    for part in range(len(parents)):  # a parent comes before its part and has its number by now
        numbers[part] = numbers[parents[part]]
    return numbers


@compiled
def _number(ids: Ids, numbers: Ids, totals: npt.NDArray[np.int64]) -> None:
    """Replace parts by the numbers of their components, and count pixels."""
    flat = ids.ravel()
    for pixel in range(len(flat)):
        flat[pixel] = numbers[flat[pixel]]
        totals[flat[pixel], 0] += 1


@compiled
def _sum_confidence(ids: Ids, confidence: npt.NDArray[np.uint8], totals: npt.NDArray[np.int64]) -> None:
    """Add the known confidence values of every component, and their number, to ``totals``."""
    flat, values = ids.ravel(), confidence.ravel()
    for pixel in range(len(flat)):
        if values[pixel] != NO_CONFIDENCE:
            totals[flat[pixel], 1] += values[pixel]
            totals[flat[pixel], 2] += 1


def trace_components(
    ids: Ids, *, origin: tuple[int, int] = (0, 0), junctions: bool = False, surroundings: npt.NDArray[np.int64] | None = None
) -> Rings:
    """Outline every component as a valid polygon with its holes.

    Rings run clockwise as seen on the raster (holes counter-clockwise) and touch themselves nowhere: where a component
    meets itself at a corner, the hole and the shell (or two holes) share that point.

    Args:
        ids: ``(h, w)`` int32 component numbers from 1, each 4-connected, in the order of their first pixels; 0 is outside.
        origin: column and row of the first pixel, added to all coordinates.
        junctions: keep the points on straight edges where two neighbors of a component meet, so that neighboring
            polygons share all their vertices (what coverage simplification needs).
        surroundings: ``(h + 2, w + 2)`` int64, of which the outermost pixels are read: the labels around ``ids``, any other
            number outside the raster. With ``junctions``, points where they change are kept too, as the tile across the line
            has them.

    Returns:
        Outlines in pixel coordinates; polygon ``i`` is that of component ``i + 1``.
    """
    framed = _framed(ids, surroundings)
    corners, lengths, components = _follow_all(framed, junctions)
    # A shell begins at its component's first pixel, so that it comes before the holes.
    order = np.argsort(components, kind="stable")
    starts = np.cumsum(lengths) - lengths
    # The frame is one pixel wide: its second row and column are the first ones of the tile.
    points = _points(corners, starts[order], lengths[order], framed.shape[1], origin[0] - 1, origin[1] - 1)
    return Rings(points, lengths[order], components[order] - 1)


def _framed(ids: Ids, surroundings: npt.NDArray[np.int64] | None) -> Ids:
    """Put a frame one pixel wide around the components, in which every label has a negative number."""
    framed = np.pad(ids, 1)
    if surroundings is not None:
        sides = (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1])
        # Codes have more bits than numbers of components, so the labels of the frame are numbered themselves.
        labels = np.unique(np.concatenate([surroundings[side] for side in sides]))
        for side in sides:
            framed[side] = -1 - np.searchsorted(labels, surroundings[side])
    return framed


@compiled
def _follow_all(framed: Ids, junctions: bool) -> tuple[Ints, Ints, Ints]:
    """Follow all rings.

    Returns:
        Corners, as flat indexes of the pixels to their lower right; the number of corners and the component of every ring.
    """
    width, flat = framed.shape[1], framed.ravel()
    # Upper edges of pixels that a ring has passed. Every ring, shell or hole, has the upper edge of a pixel of its component,
    # so a scan of these edges alone meets them all.
    is_seen = np.zeros(flat.size, np.bool_)
    corners, lengths, components = [0], [0], [0]
    for start in range(width, flat.size):
        component = flat[start]
        if component > 0 and flat[start - width] != component and not is_seen[start]:
            num_before = len(corners)
            _follow(flat, width, start, junctions, is_seen, corners)
            lengths.append(len(corners) - num_before)
            components.append(component)
    return np.array(corners)[1:], np.array(lengths)[1:], np.array(components)[1:]


@compiled
def _follow(flat: Ids, width: int, start: int, junctions: bool, is_seen: npt.NDArray[np.bool_], corners: list[int]) -> None:
    """Add the corners of the ring that begins along the upper edge of a pixel, with its component on the right-hand side.

    Directions 0–3 are right, down, left, up; the pixels ahead of a corner are those on the right-hand and the left-hand side.
    """
    # A corner is numbered like the pixel to its lower right: offsets by direction, for one step and for the pixels ahead.
    step = (1, width, -1, -width)
    ahead_right, ahead_left = (0, -1, -width - 1, -width), (-width, 0, -1, -width - 1)
    component, corner, direction = flat[start], start, 0
    while corner != start or direction != 0 or not is_seen[start]:
        corners.append(corner)
        turn = 0
        while True:
            if direction == 0:
                is_seen[corner] = True
            beside = flat[corner + ahead_left[direction]]
            corner += step[direction]
            ahead = flat[corner + ahead_left[direction]]
            # Where the component touches itself at this corner only, both turns are possible; left keeps every ring simple.
            if ahead == component:
                turn = 3  # left
            elif flat[corner + ahead_right[direction]] != component:
                turn = 1  # right
            # Straight on; with junctions, a corner all the same where the neighbor on the left-hand side changes.
            if turn or (junctions and ahead != beside):
                break
        direction = (direction + turn) % 4


@compiled
def _points(corners: Ints, starts: Ints, lengths: Ints, width: int, left: int, top: int) -> npt.NDArray[np.float64]:
    """Turn flat indexes of corners into coordinates, ring by ring in the order of ``starts``."""
    points = np.empty((len(corners), 2))
    place = 0
    for start, length in zip(starts, lengths):  # noqa: B905 – numba knows no `strict`
        for corner in corners[start : start + length]:
            points[place, 0], points[place, 1] = corner % width + left, corner // width + top
            place += 1
    return points
