"""Outlines of components, dissolved from the outlines of their pieces in neighboring tiles, on the pixel grid.

Pieces meet only on the lines between tiles, so only edges on such a line change. Two pieces of one component that share a
stretch of the line both have an edge there, in opposite directions: these cancel each other. The remaining edges are linked to
rings again. A general union (GEOS) searches for crossings everywhere; on the grid there are none, which makes this several
times as fast.
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
    """Columns and rows between pixels at which tiles end.

    Args:
        columns: ``(width + 1,)`` whether a tile begins or ends at this column.
        rows: ``(height + 1,)`` whether a tile begins or ends at this row.
    """

    columns: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, shape: Shape) -> TileLines:
        """Begin without any tile of a raster of this shape."""
        return cls(np.zeros(shape.width + 1, dtype=bool), np.zeros(shape.height + 1, dtype=bool))

    def add(self, tile: Window) -> None:
        """Record the borders of a tile."""
        for is_line, start, size in ((self.columns, tile.col_off, tile.width), (self.rows, tile.row_off, tile.height)):
            is_line[[start, start + size]] = True

    def hold(self, edges: _Edges) -> npt.NDArray[np.bool_]:
        """Find the edges that lie on a line, ``(n,)`` bool."""
        is_upright = edges.start[:, 0] == edges.end[:, 0]
        return np.where(is_upright, self.columns[edges.start[:, 0]], self.rows[edges.start[:, 1]])


@dataclass(frozen=True, slots=True)
class _Edges:
    """Directed edges along the grid: ``(n, 2)`` points, and the number of the component on their right-hand side."""

    start: Ints
    end: Ints
    component: Ints

    def __getitem__(self, chosen: npt.NDArray[np.bool_]) -> _Edges:
        return _Edges(self.start[chosen], self.end[chosen], self.component[chosen])

    def with_others(self, other: _Edges) -> _Edges:
        """Append other edges."""
        return _Edges(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in _Edges.__slots__))

    def directions(self) -> Ints:
        """Return 0–3 for right, down, left, up."""
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
    # 1. Take outlines apart into edges; the point that follows another on its ring is where the edge ends.
    rings = Rings.from_polygons(pieces)
    points = rings.points.astype(np.intp)
    edges = _Edges(points, points[rings.following()], component[np.repeat(rings.polygon, rings.lengths)])
    # 2. Cancel opposite edges on the lines between tiles.
    is_on_line = lines.hold(edges)
    kept = edges[~is_on_line].with_others(_left_over(edges[is_on_line]))
    # 3. Link what is left to rings. Stretches of a line that were cut at pieces' corners are straight again.
    return _link_rings(kept.start.astype(np.float64), kept.component, _link(kept, lines)).without_straight_points().polygons()


def _link(edges: _Edges, lines: TileLines) -> Ints:
    """Find the edge that follows each one.

    Pieces of a tile that touch at a corner may have become one component, so every corner is linked anew: where two outlines
    meet, turning left keeps every ring simple, as in tracing.
    """
    direction = edges.directions()
    following = np.empty(len(direction), dtype=np.intp)
    # At most corners one edge arrives and one leaves. Where two arrive and two leave, sorting the arriving ones by the
    # direction of a left turn and the leaving ones by their own brings the right pairs to the same position.
    arriving, leaving = ((edges.end, (direction + 3) % 4), (edges.start, direction))
    following[_order(*arriving, edges.component, lines)] = _order(*leaving, edges.component, lines)
    return following


def _order(points: Ints, direction: Ints, component: Ints, lines: TileLines) -> Ints:
    """Sort edges by component, point and direction; return their indexes in this order."""
    # One number per vertex sorts several times as fast as several keys; 2⁶³ is far away.
    col, row = points.T
    vertex = ((component * len(lines.rows) + row) * len(lines.columns) + col) * 4 + direction
    return np.argsort(vertex)


def _left_over(edges: _Edges) -> _Edges:
    """Cancel opposite edges of one component on a line, and return what is left of the others.

    A sweep along every line: edges that run forward add 1 between their ends, edges that run backward subtract 1. Where the sum
    is 0, the component has pixels on both sides (or on none); where it is 1 or −1, there is an edge in that direction.
    """
    is_upright = np.tile(edges.start[:, 0] == edges.end[:, 0], 2)
    ends = np.concatenate([edges.start, edges.end])
    line, along = np.where(is_upright, ends[:, 0], ends[:, 1]), np.where(is_upright, ends[:, 1], ends[:, 0])
    component = np.tile(edges.component, 2)
    order = np.lexsort((along, line, is_upright, component))
    step = np.repeat([1, -1], len(edges.start))[order]
    # One sum for all lines and components: it is 0 between them, because every edge begins and ends on the same one.
    level = np.cumsum(step)[:-1]
    first, second = ends[order][:-1], ends[order][1:]
    is_left = (level != 0) & (first != second).any(axis=1)
    is_forward = (level > 0)[:, None]
    return _Edges(np.where(is_forward, first, second), np.where(is_forward, second, first), component[order][:-1])[is_left]


def _link_rings(points: npt.NDArray[np.float64], component: Ints, following: Ints) -> Rings:
    """Collect the rings that the links between edges form, sorted by component."""
    walk, lengths = _walk(following)
    first = walk[np.cumsum(lengths) - lengths]
    return Rings(points[walk], lengths, component[first]).ordered()


@compiled
def _walk(following: Ints) -> tuple[Ints, Ints]:
    """Follow the links around every ring; return the indexes of the edges ring by ring, and the length of each ring."""
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
