"""Seams: pieces of a component in neighbouring tiles, held until no tile to come can add to them, then dissolved.

Tiles arrive row by row, left to right. What is held: two numbers per column of the raster (the row of tiles above), two per
row of a tile (the tile on the left), and the pieces that touch a line beyond which nothing has been traced yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.windows import Window

from geoglnet.types import Shape
from geoglnet.vector.rings import Rings
from geoglnet.vector.tracing import NO_LABEL, Components, Geometries

Keys = npt.NDArray[np.int64]  # of open pieces; 0 is none


@dataclass(frozen=True, slots=True)
class Polygons:
    """Whole polygons in pixel coordinates of the raster.

    Args:
        geometries: ``(n,)`` shapely polygons.
        class_id: ``(n,)`` uint8.
        totals: ``(n, 3)`` int64: pixels, sum of the known confidence values, number of those values.
    """

    geometries: Geometries
    class_id: npt.NDArray[np.uint8]
    totals: npt.NDArray[np.int64]


@dataclass(slots=True)
class _OpenComponent:
    """A component that may go on in a tile to come; ``contacts`` counts the pixels along which it may."""

    class_id: int
    totals: npt.NDArray[np.int64]
    pieces: list[shapely.Polygon]
    keys: list[int]
    contacts: int = 0

    def absorb(self, other: _OpenComponent) -> None:
        self.totals = self.totals + other.totals
        self.pieces += other.pieces
        self.keys += other.keys
        self.contacts += other.contacts


@dataclass(slots=True)
class _Line:
    """One side of a line between tiles: key of the open piece and label at every pixel along it."""

    keys: Keys
    labels: npt.NDArray[np.uint8]

    @classmethod
    def blank(cls, length: int) -> _Line:
        return cls(np.zeros(length, dtype=np.int64), np.full(length, NO_LABEL, dtype=np.uint8))


@dataclass(slots=True)
class Seams:
    """Joins the components of tiles into the components of a raster of ``shape``."""

    shape: Shape
    _components: dict[int, _OpenComponent] = field(default_factory=dict)
    _parents: dict[int, int] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=lambda: count(1))
    _above: _Line = field(init=False)
    _left: _Line = field(init=False)

    def __post_init__(self) -> None:
        self._above = _Line.blank(self.shape.width)
        self._left = _Line.blank(0)

    @property
    def num_open_pieces(self) -> int:
        """Pieces held at the moment."""
        return len(self._parents)

    def join(self, window: Window, components: Components, geometries: Geometries) -> Polygons:
        """Take in a tile; give back the polygons that are complete now.

        Args:
            window: where the tile lies; tiles partition the raster and come row by row.
            components: of the tile.
            geometries: their outlines in pixel coordinates of the raster.
        """
        columns = slice(int(window.col_off), int(window.col_off + window.width))
        ids = components.ids
        sides = {"top": ids[0], "left": ids[:, 0], "bottom": ids[-1], "right": ids[:, -1]}
        open_sides = {name: ids for name, ids in sides.items() if name in self._open_sides(window)}
        keys = self._hold(components, geometries, open_sides)
        labels = np.append(np.uint8(NO_LABEL), components.class_id)
        lines = {name: _Line(keys[ids], labels[ids]) for name, ids in open_sides.items()}

        above = _Line(self._above.keys[columns].copy(), self._above.labels[columns].copy())
        meetings = [(before, lines[name]) for name, before in (("top", above), ("left", self._left)) if name in lines]
        for before, after in meetings:
            self._unite(before, after)
        for before, _ in meetings:
            self._release(before)
        if "bottom" in lines:
            self._above.keys[columns], self._above.labels[columns] = lines["bottom"].keys, lines["bottom"].labels
        self._left = lines.get("right", self._left)

        touched = [line.keys for line in lines.values()] + [before.keys for before, _ in meetings]
        finished = self._take_finished(np.concatenate(touched)) if touched else []
        return _collect(components, geometries, keys[1:] == 0, finished)

    def _open_sides(self, window: Window) -> set[str]:
        sides = {
            "top": window.row_off > 0,
            "left": window.col_off > 0,
            "bottom": window.row_off + window.height < self.shape.height,
            "right": window.col_off + window.width < self.shape.width,
        }
        return {name for name, is_open in sides.items() if is_open}

    def _hold(self, components: Components, geometries: Geometries, sides: dict[str, npt.NDArray[np.int32]]) -> Keys:
        """Make every component that touches an open side an open component; keys by component number."""
        keys = np.zeros(len(components) + 1, dtype=np.int64)
        contacts = np.zeros(len(keys), dtype=np.int64)
        for name, ids in sides.items():
            keys[ids] = 1
            if name in ("bottom", "right"):
                contacts += np.bincount(ids, minlength=len(keys))
        keys[0] = 0
        for i in np.flatnonzero(keys):
            key = next(self._numbers)
            keys[i] = self._parents[key] = key
            self._components[key] = _OpenComponent(
                int(components.class_id[i - 1]), components.totals[i - 1], [geometries[i - 1]], [key], int(contacts[i])
            )
        return keys

    def _root(self, key: int) -> int:
        parents = self._parents
        while parents[key] != key:
            parents[key] = key = parents[parents[key]]
        return key

    def _unite(self, before: _Line, after: _Line) -> None:
        touches = (before.labels == after.labels) & (before.labels != NO_LABEL)
        pairs = np.unique(np.column_stack([before.keys[touches], after.keys[touches]]), axis=0)
        for one, other in pairs.tolist():
            larger, smaller = self._root(one), self._root(other)
            if larger == smaller:
                continue
            if len(self._components[larger].pieces) < len(self._components[smaller].pieces):
                larger, smaller = smaller, larger
            self._parents[smaller] = larger
            self._components[larger].absorb(self._components.pop(smaller))

    def _release(self, before: _Line) -> None:
        keys, lengths = np.unique(before.keys[before.keys > 0], return_counts=True)
        for key, length in zip(keys.tolist(), lengths.tolist(), strict=True):
            self._components[self._root(key)].contacts -= length

    def _take_finished(self, keys: Keys) -> list[_OpenComponent]:
        roots = {self._root(key) for key in np.unique(keys[keys > 0]).tolist()}
        finished = [self._components.pop(root) for root in sorted(roots) if self._components[root].contacts == 0]
        for component in finished:
            for key in component.keys:
                del self._parents[key]
        return finished


def _collect(
    components: Components, geometries: Geometries, is_inner: npt.NDArray[np.bool_], finished: list[_OpenComponent]
) -> Polygons:
    if not finished:
        return Polygons(geometries[is_inner], components.class_id[is_inner], components.totals[is_inner])
    return Polygons(
        np.concatenate([geometries[is_inner], _dissolve([component.pieces for component in finished])]),
        np.append(components.class_id[is_inner], np.array([c.class_id for c in finished], dtype=np.uint8)),
        np.concatenate([components.totals[is_inner], [c.totals for c in finished]]),
    )


def _dissolve(components: list[list[shapely.Polygon]]) -> Geometries:
    """One polygon per list of pieces, without the points that the tile lines left on straight edges."""
    geometries = np.array([pieces[0] for pieces in components], dtype=object)
    joined = [i for i, pieces in enumerate(components) if len(pieces) > 1]
    if joined:
        unions = np.array([shapely.union_all(components[i]) for i in joined], dtype=object)
        geometries[joined] = Rings.from_polygons(unions).without_straight_points().polygons()
    return geometries
