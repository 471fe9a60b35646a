"""Seams: joins the pieces of a component in neighboring tiles, and dissolves them once no later tile can add a piece.

Tiles arrive row by row, left to right. Memory: two numbers per column of the raster (the tiles above), two per row of a tile
(the tile on the left), and the pieces of open components, those that touch a line beyond which nothing has been traced yet.
Where these pieces have too many vertices together, the largest component is cut: its pieces become polygons of their own.

A component is open as long as it has contacts: pixels along lines that the next tiles have not met yet. A piece brings as many
as it has pixels on the right and lower side of its tile; meeting the tile across the line takes them away again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt
import shapely

from geoglnet.types import Shape
from geoglnet.vector.pieces import OpenTile, Polygons
from geoglnet.vector.rings import Geometries, Rings, together
from geoglnet.vector.stitching import TileLines, stitch
from geoglnet.vector.tracing import NO_CODE

Keys = npt.NDArray[np.int64]  # of open pieces; 0 is none


@dataclass(slots=True)
class _OpenComponent:
    """A component that may continue in a later tile.

    ``keys`` are those of its pieces, ``contacts`` counts the pixels along which it may continue, ``part_of`` is its number once
    it has been cut, else 0.
    """

    class_id: int
    wkb: list[bytes]
    totals: list[npt.NDArray[np.int64]]
    keys: list[int]
    num_points: int
    contacts: int
    part_of: int = 0

    def absorb(self, other: _OpenComponent) -> None:
        """Add the pieces of another component to this one."""
        self.wkb += other.wkb
        self.totals += other.totals
        self.keys += other.keys
        self.num_points += other.num_points
        self.contacts += other.contacts


@dataclass(slots=True)
class _Line:
    """One side of a line between tiles: key of the open piece and label at every pixel along it."""

    keys: Keys
    labels: npt.NDArray[np.int64]

    @classmethod
    def blank(cls, length: int) -> _Line:
        """Make a line that no piece touches."""
        return cls(np.zeros(length, dtype=np.int64), np.full(length, NO_CODE, dtype=np.int64))

    def __getitem__(self, part: slice) -> _Line:
        return _Line(self.keys[part], self.labels[part])

    def copy(self) -> _Line:
        return _Line(self.keys.copy(), self.labels.copy())


@dataclass(slots=True)
class Seams:
    """Joins the pieces of tiles into the components of a raster.

    Args:
        shape: of the raster.
        connectivity: 4, or 8 to join pieces that touch at a corner.
        max_vertices: most vertices that open components may have together, before the largest of them is cut.
        is_grid: whether outlines follow the pixels, so that points on their straight edges mean nothing.

    Attributes:
        num_held_points: vertices that open components have at the moment.
        same_parts: number of a cut component → smaller number of the same component: two components that had both been cut
            turned out to be one. Polygons with the first number may be written already.
    """

    shape: Shape
    connectivity: int = 4
    max_vertices: int = 2_000_000
    is_grid: bool = True
    num_held_points: int = 0
    same_parts: dict[int, int] = field(default_factory=dict)
    _components: dict[int, _OpenComponent] = field(default_factory=dict)
    _parents: dict[int, int] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=lambda: count(1))
    _num_cuts: int = 0
    _many_keys: int = 100_000
    _lines: TileLines = field(init=False)
    _above: _Line = field(init=False)
    _left: _Line = field(init=False)
    _corner: _Line = field(init=False)

    def __post_init__(self) -> None:
        self._lines = TileLines.of(self.shape)
        self._above = _Line.blank(self.shape.width)
        self._left, self._corner = _Line.blank(0), _Line.blank(1)

    @property
    def num_open_pieces(self) -> int:
        """Number of pieces whose component is open at the moment."""
        return len(self._parents)

    def join(self, tile: OpenTile) -> Polygons:
        """Add the open pieces of a tile; return the polygons that are complete now.

        Args:
            tile: the next one; tiles partition the raster and come row by row, left to right.
        """
        self._lines.add(tile.window)
        # Piece numbers along the sides count from 1, 0 is none: so do the entries of these tables.
        keys = np.append(0, self._hold(tile))
        labels = np.append(NO_CODE, tile.class_id)
        lines = {name: _Line(keys[ids], labels[ids]) for name, ids in tile.sides.items()}
        released = self._meet(tile, lines)
        for before in released:
            self._release(before)
        # Only components with a piece here or on a released line can have changed. The order matters: what is complete leaves
        # first, so that it does not count against the budget of vertices.
        touched = self._roots(np.concatenate([keys, *(before.keys for before in released)]))
        emitted = [*self._finished(touched), *self._parts(touched), *self._over_budget()]
        if len(self._parents) > self._many_keys:
            self._forget_pieces()
        return Polygons.concatenate([_no_polygons(), *emitted])

    def _meet(self, tile: OpenTile, lines: dict[str, _Line]) -> list[_Line]:
        """Unite pieces across the lines above and on the left; return the parts of lines that no later tile meets."""
        window = tile.window
        start, stop = int(window.col_off), int(window.col_off + window.width)
        # A copy, because the line below this tile takes its place. ``_corner`` is the last pixel of the line above the tile on
        # the left, diagonally above this tile's first pixel, saved before that tile replaced it.
        above, corner = self._above[start:stop].copy(), self._corner
        released = []
        if "top" in lines:
            self._touch(above, lines["top"])
            if self.connectivity == 8:
                self._touch(corner, lines["top"][:1])
                self._touch(self._above[stop : stop + 1], lines["top"][-1:])  # diagonally above the tile's last pixel
                released.append(corner)
            released.append(above)
        if "left" in lines:
            self._touch(self._left, lines["left"])
            released.append(self._left)
        self._corner = above[-1:] if "right" in lines else _Line.blank(1)
        if "bottom" in lines:
            self._above.keys[start:stop], self._above.labels[start:stop] = lines["bottom"].keys, lines["bottom"].labels
        self._left = lines.get("right", self._left)
        return released

    def _touch(self, before: _Line, after: _Line) -> None:
        """Unite the pieces on both sides of a line, with 8-connectivity also those that touch across it at a corner."""
        steps = (0, -1, 1) if self.connectivity == 8 else (0,)
        for step in steps:
            length = len(before.keys) - abs(step)
            if length > 0 and len(after.keys) > 0:
                self._match(before[max(step, 0) :][:length], after[max(-step, 0) :][:length])

    def _match(self, before: _Line, after: _Line) -> None:
        """Unite pieces of one class at the same positions of two lines."""
        touches = (before.labels == after.labels) & (before.labels != NO_CODE)
        for one, other in np.unique(np.column_stack([before.keys[touches], after.keys[touches]]), axis=0).tolist():
            self._unite(one, other)

    def _hold(self, tile: OpenTile) -> Keys:
        """Make every piece an open component; return the key of each."""
        contacts = np.zeros(len(tile) + 1, dtype=np.int64)
        for name in ("bottom", "right"):
            if name in tile.sides:
                contacts += np.bincount(tile.sides[name], minlength=len(contacts))
        if self.connectivity == 8 and {"bottom", "right"} <= tile.sides.keys():
            contacts[tile.sides["bottom"][-1]] += 1  # the tile diagonally below comes after the one below
        keys = np.array([next(self._numbers) for _ in range(len(tile))], dtype=np.int64)
        for i, key in enumerate(keys.tolist()):
            self._parents[key] = key
            self._components[key] = _OpenComponent(
                int(tile.class_id[i]), [tile.wkb[i]], [tile.totals[i]], [key], int(tile.num_points[i]), int(contacts[i + 1])
            )
        self.num_held_points += int(tile.num_points.sum())
        return keys

    def _root(self, key: int) -> int:
        """Find the key under which the component of a piece is held."""
        parents = self._parents
        while parents[key] != key:
            parents[key] = key = parents[parents[key]]  # path halving
        return key

    def _roots(self, keys: Keys) -> list[int]:
        """Find the components of pieces, in a fixed order, so that outputs do not depend on hashing."""
        return sorted({self._root(key) for key in np.unique(keys[keys > 0]).tolist()})

    def _unite(self, one: int, other: int) -> None:
        """Make one component of those of two pieces."""
        larger, smaller = self._root(one), self._root(other)
        if larger == smaller:
            return
        # The smaller list is moved into the larger one: every piece then moves at most log2(pieces) times.
        if len(self._components[larger].keys) < len(self._components[smaller].keys):
            larger, smaller = smaller, larger
        self._parents[smaller] = larger
        absorbed, component = self._components.pop(smaller), self._components[larger]
        # Both have been cut before they met: their parts are written with two numbers, of which the writer makes one.
        numbers = sorted({absorbed.part_of, component.part_of} - {0})
        if len(numbers) == 2:
            self.same_parts[numbers[1]] = numbers[0]
        component.absorb(absorbed)
        component.part_of = numbers[0] if numbers else 0

    def _release(self, before: _Line) -> None:
        """Subtract the contacts along a line that no later tile meets."""
        keys, lengths = np.unique(before.keys[before.keys > 0], return_counts=True)
        for key, length in zip(keys.tolist(), lengths.tolist(), strict=True):
            self._components[self._root(key)].contacts -= length

    def _finished(self, roots: list[int]) -> Iterable[Polygons]:
        """Remove the components without contacts, and return them as polygons."""
        finished = [self._components.pop(root) for root in roots if self._components[root].contacts == 0]
        for component in finished:
            self.num_held_points -= component.num_points
            for key in component.keys:
                del self._parents[key]
        for component in finished:
            if component.part_of:
                yield _as_parts(component)
        whole = [component for component in finished if not component.part_of]
        if whole:
            yield Polygons(
                self._dissolve([component.wkb for component in whole]),
                np.array([c.class_id for c in whole], dtype=np.int64),
                np.array([np.sum(c.totals, axis=0) for c in whole]),
                np.zeros(len(whole), dtype=np.int64),
            )

    def _dissolve(self, components: list[list[bytes]]) -> Geometries:
        """Dissolve each list of pieces; on the grid, drop the points that the tile lines left on straight edges."""
        pieces = shapely.from_wkb(np.array([wkb for component in components for wkb in component], dtype=object))
        sizes = np.array([len(component) for component in components])
        starts = np.cumsum(sizes) - sizes
        geometries: Geometries = pieces[starts]
        joined = np.flatnonzero(sizes > 1)
        if len(joined) == 0:
            return geometries
        # Pieces of 8-connected components may be multipolygons, and reshaped outlines leave the grid: neither can be stitched.
        if self.is_grid and self.connectivity == 4:
            several = np.repeat(sizes > 1, sizes)
            geometries[joined] = stitch(pieces[several], np.repeat(np.arange(len(joined)), sizes[joined]), self._lines)
        else:
            unions = np.array([shapely.union_all(pieces[starts[i] : starts[i] + sizes[i]]) for i in joined], dtype=object)
            geometries[joined] = _without_straight_points(unions) if self.is_grid else unions
        return geometries

    def _forget_pieces(self) -> None:
        """Drop the keys that no line holds any more.

        Without this, memory would grow with the area of a component that crosses the whole raster, a background perhaps.
        """
        held = np.concatenate([line.keys for line in (self._above, self._left, self._corner)])
        roots = {key: self._root(key) for key in np.unique(held[held > 0]).tolist()}
        self._parents = roots | {root: root for root in self._components}
        for root, component in self._components.items():
            component.keys = [root]
        for key, root in roots.items():
            if key != root:
                self._components[root].keys.append(key)
        # Twice as many as are left: then the cost of forgetting stays proportional to the number of pieces.
        self._many_keys = max(100_000, 2 * len(self._parents))

    def _parts(self, roots: list[int]) -> Iterable[Polygons]:
        """Emit the new pieces of components that have been cut before."""
        for root in roots:
            component = self._components.get(root)
            if component is not None and component.part_of and component.wkb:
                yield self._emptied(component)

    def _over_budget(self) -> Iterable[Polygons]:
        """Cut the largest components until the open ones are within the budget of vertices."""
        while self.num_held_points > self.max_vertices:
            largest = max(self._components.values(), key=lambda component: component.num_points)
            largest.part_of = self.new_number()
            yield self._emptied(largest)

    def new_number(self) -> int:
        """Return the next number of a polygon that is cut."""
        self._num_cuts += 1
        return self._num_cuts

    def _emptied(self, component: _OpenComponent) -> Polygons:
        """Take the pieces out of a component, which stays open: pieces to come get the same number."""
        parts = _as_parts(component)
        self.num_held_points -= component.num_points
        component.wkb, component.totals, component.num_points = [], [], 0
        return parts

    @property
    def num_cut(self) -> int:
        """Number of components that have been cut so far; two that turned out to be one count once."""
        return self._num_cuts - len(self.same_parts)


def _no_polygons() -> Polygons:
    numbers = np.empty(0, dtype=np.int64)
    return Polygons(np.empty(0, dtype=object), numbers, numbers.reshape(0, 3), numbers)


def _as_parts(component: _OpenComponent) -> Polygons:
    """Return the pieces of a cut component as polygons of their own, with its number in ``part_of``."""
    size = len(component.wkb)
    return Polygons(
        shapely.from_wkb(np.array(component.wkb, dtype=object)),
        np.full(size, component.class_id, dtype=np.int64),
        np.array(component.totals, dtype=np.int64).reshape(size, 3),
        np.full(size, component.part_of, dtype=np.int64),
    )


def _without_straight_points(unions: Geometries) -> Geometries:
    """Drop the points at which polygons and multipolygons on the grid do not turn."""
    parts, index = shapely.get_parts(unions, return_index=True)
    cleaned = Rings.from_polygons(parts).without_straight_points().polygons()
    return together(cleaned, index)
