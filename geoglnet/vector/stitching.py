"""Outlines of components from those of their pieces in neighboring tiles, on the pixel grid.

Pieces meet only on the lines between tiles. So all edges stay as they are but those on such a line: there the edges of two
pieces of one component run in opposite directions, and where they do, both go. The others are linked to rings again. Geometry
engines look for crossings everywhere; here there is nothing to look for, which is several times as fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geoglnet.types import Ints, Shape
from geoglnet.vector.compiled import compiled
from geoglnet.vector.rings import Geometries, Rings


@dataclass(frozen=True, slots=True)
class TileLines:
    """Where tiles end.

    Args:
        columns: ``(width + 1,)`` whether a tile begins or ends there.
        rows: ``(height + 1,)`` the same.
    """

    columns: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, shape: Shape) -> TileLines:
        """No tile yet, of a raster of this shape."""
        return cls(np.zeros(shape.width + 1, dtype=bool), np.zeros(shape.height + 1, dtype=bool))

    def add(self, tile: Window) -> None:
        """Take in the borders of a tile."""
        for is_line, start, size in ((self.columns, tile.col_off, tile.width), (self.rows, tile.row_off, tile.height)):
            is_line[[start, start + size]] = True

    def hold(self, edges: _Edges) -> npt.NDArray[np.bool_]:
        """Which edges lie on a line."""
        is_upright = edges.start[:, 0] == edges.end[:, 0]
        return np.where(is_upright, self.columns[edges.start[:, 0]], self.rows[edges.start[:, 1]])


@dataclass(frozen=True, slots=True)
class _Edges:
    """Directed edges along the grid: ``(n, 2)`` points, and the number of the component on the right hand."""

    start: Ints
    end: Ints
    component: Ints

    def __getitem__(self, chosen: npt.NDArray[np.bool_]) -> _Edges:
        return _Edges(self.start[chosen], self.end[chosen], self.component[chosen])

    def with_others(self, other: _Edges) -> _Edges:
        return _Edges(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in _Edges.__slots__))

    def directions(self) -> Ints:
        """0–3 for right, down, left, up."""
        across, down = np.sign(self.end - self.start).T
        direction: Ints = np.where(across != 0, 1 - across, 2 - down)
        return direction


def stitch(pieces: Geometries, component: Ints, lines: TileLines) -> Geometries:
    """Dissolve the pieces of every component.

    Args:
        pieces: polygons without points on straight edges, in pixels.
        component: ``(n,)`` number of the 4-connected component that each piece belongs to, from 0 without gaps.
        lines: all lines on which pieces meet.

    Returns:
        A polygon per component, without points on straight edges.
    """
    rings = Rings.from_polygons(pieces)
    points = rings.points.astype(np.intp)
    edges = _Edges(points, points[rings.following()], component[np.repeat(rings.polygon, rings.lengths)])
    is_on_line = lines.hold(edges)
    kept = edges[~is_on_line].with_others(_left_over(edges[is_on_line]))
    return _link_rings(kept.start.astype(np.float64), kept.component, _link(kept, lines)).without_straight_points().polygons()


def _link(edges: _Edges, lines: TileLines) -> Ints:
    """The edge that follows each one.

    Pieces of a tile that touch at a corner may have become one component, so every corner is linked anew: where two outlines
    meet, turning left keeps every ring simple, as in tracing.
    """
    direction = edges.directions()
    following = np.empty(len(direction), dtype=np.intp)
    arriving, leaving = ((edges.end, (direction + 3) % 4), (edges.start, direction))
    following[_order(*arriving, edges.component, lines)] = _order(*leaving, edges.component, lines)
    return following


def _order(points: Ints, direction: Ints, component: Ints, lines: TileLines) -> Ints:
    # One number per vertex sorts several times as fast as several keys; 2⁶³ is far away.
    col, row = points.T
    vertex = ((component * len(lines.rows) + row) * len(lines.columns) + col) * 4 + direction
    return np.argsort(vertex)


def _left_over(edges: _Edges) -> _Edges:
    """What is left of edges on lines where opposite ones of a component have canceled each other."""
    is_upright = np.tile(edges.start[:, 0] == edges.end[:, 0], 2)
    ends = np.concatenate([edges.start, edges.end])
    line, along = np.where(is_upright, ends[:, 0], ends[:, 1]), np.where(is_upright, ends[:, 1], ends[:, 0])
    component = np.tile(edges.component, 2)
    order = np.lexsort((along, line, is_upright, component))
    # Along a line, edges that run forwards count 1 and those that run backwards −1.
    step = np.repeat([1, -1], len(edges.start))[order]
    level = np.cumsum(step)[:-1]
    first, second = ends[order][:-1], ends[order][1:]
    is_left = (level != 0) & (first != second).any(axis=1)
    is_forward = (level > 0)[:, None]
    return _Edges(np.where(is_forward, first, second), np.where(is_forward, second, first), component[order][:-1])[is_left]


def _link_rings(points: npt.NDArray[np.float64], component: Ints, following: Ints) -> Rings:
    walk, lengths = _walk(following)
    first = walk[np.cumsum(lengths) - lengths]
    return Rings(points[walk], lengths, component[first]).ordered()


@compiled
def _walk(following: Ints) -> tuple[Ints, Ints]:
    """Indexes of the points ring by ring, and how many each ring has."""
    walk, lengths = np.empty(len(following), np.intp), [0]
    is_seen = np.zeros(len(following), np.bool_)
    count = 0
    for start in range(len(following)):
        num_before, place = count, start
        while not is_seen[place]:
            is_seen[place] = True
            walk[count] = place
            count += 1
            place = following[place]
        if count > num_before:
            lengths.append(count - num_before)
    return walk, np.array(lengths)[1:]
