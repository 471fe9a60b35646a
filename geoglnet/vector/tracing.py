"""Tracing one tile: outlines of its components as rings on the pixel grid.

Coordinates are pixel corners, x = column and y = row, integers held as float64 and therefore exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoglnet.types import Ints
from geoglnet.vector.compiled import compiled
from geoglnet.vector.components import Ids
from geoglnet.vector.rings import Rings

Surroundings = npt.NDArray[np.int16]


def trace_components(
    ids: Ids, *, origin: tuple[int, int] = (0, 0), junctions: bool = False, surroundings: Surroundings | None = None
) -> Rings:
    """Outline every component as a valid polygon with its holes.

    Rings run clockwise as seen on the raster (holes counter-clockwise) and touch themselves nowhere: where a component
    meets itself at a corner, the hole and the shell (or two holes) share that point.

    Args:
        ids: ``(h, w)`` int32 component numbers from 1, each 4-connected, in the order of their first pixels; 0 is outside.
        origin: column and row of the first pixel, added to all coordinates.
        junctions: keep the points on straight edges where two neighbours of a component meet, so that neighbouring
            polygons share all their vertices (what coverage simplification needs).
        surroundings: ``(h + 2, w + 2)`` int16, of which the outermost pixels are read: the labels around ``ids``, -1 outside
            the raster. With ``junctions``, points where they change are kept too, as the tile across the line has them.

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


def _framed(ids: Ids, surroundings: Surroundings | None) -> Ids:
    """Components with a frame one pixel wide, in which every label has a negative number."""
    framed = np.pad(ids, 1)
    if surroundings is not None:
        for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
            framed[side] = -2 - surroundings[side].astype(np.int32)
    return framed


@compiled
def _follow_all(framed: Ids, junctions: bool) -> tuple[Ints, Ints, Ints]:
    """Corners of all rings, as indexes of the pixels to their lower right; points and component of every ring."""
    width, flat = framed.shape[1], framed.ravel()
    is_seen = np.zeros(flat.size, np.bool_)  # upper edges of pixels; every ring has one
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
    """Add the corners of the ring that begins along the upper edge of a pixel, with its component on the right hand.

    Directions 0–3 are right, down, left, up; the pixels ahead of a corner are those on the right and on the left hand.
    """
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
            # Turning left even where the component only touches itself here keeps every ring simple.
            if ahead == component:
                turn = 3
            elif flat[corner + ahead_right[direction]] != component:
                turn = 1
            if turn or (junctions and ahead != beside):
                break
        direction = (direction + turn) % 4


@compiled
def _points(corners: Ints, starts: Ints, lengths: Ints, width: int, left: int, top: int) -> npt.NDArray[np.float64]:
    points = np.empty((len(corners), 2))
    place = 0
    for start, length in zip(starts, lengths):  # noqa: B905 – numba knows no `strict`
        for corner in corners[start : start + length]:
            points[place, 0], points[place, 1] = corner % width + left, corner // width + top
            place += 1
    return points
