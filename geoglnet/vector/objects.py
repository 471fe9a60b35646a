"""Objects: all pixels of one value as one row, wherever they lie.

The raster is read twice. A *survey* counts pixels by value, tile by tile, and so finds the values that occur in several tiles;
all others are complete within theirs. Then the parts of those values are held until all their pixels have come, as they come
out of the seams. Memory: a few numbers per tile and value in the survey, and the parts of incomplete objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.windows import Window

from geoglnet.raster.gdal import environment, open_raster
from geoglnet.types import Ints
from geoglnet.vector.pieces import Polygons
from geoglnet.vector.rings import together
from geoglnet.vector.tiles import DatasetTiles, TileSource
from geoglnet.vector.tracing import NO_CODE, NO_LABEL, Codes
from geoglnet.vector.values import RasterValues

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TileCounts:
    """Pixels of one tile by object and class: ``(n,)`` int64 each, sorted by object, then by class.

    Without a raster of classes, the class is ``NO_CODE`` everywhere.
    """

    objects: Numbers
    classes: Numbers
    pixels: Numbers


@dataclass(frozen=True, slots=True)
class ObjectSurveyJob:
    """Counting of all tiles, as it is sent to other processes.

    Args:
        objects_path: raster of objects.
        values: how it is read.
        omitted: values that are no objects.
        class_path: label raster of the same shape, if objects get classes.
    """

    objects_path: str
    values: RasterValues
    omitted: frozenset[int]
    class_path: str | None = None

    def start(self) -> Callable[[Window], TileCounts]:
        """Open the rasters for as long as the process lives, and return the work on one window."""
        stack = ExitStack()
        stack.enter_context(environment(self.objects_path))
        objects = DatasetTiles(stack.enter_context(open_raster(self.objects_path)), values=self.values)
        classes = None if self.class_path is None else DatasetTiles(stack.enter_context(open_raster(self.class_path)))
        return self.on(objects, classes)

    def on(self, objects: TileSource, classes: TileSource | None) -> Callable[[Window], TileCounts]:
        """Return the work on one window of open rasters."""

        def work(window: Window) -> TileCounts:
            labels = None if classes is None else _as_codes(classes.read_tile(window).labels)
            return count_tile(_as_codes(objects.read_tile(window).labels), labels, self.omitted)

        return work


def _as_codes(labels: Codes) -> Numbers:
    """Bring labels to int64."""
    codes = labels.astype(np.int64, copy=False)
    return np.where(labels == NO_LABEL, NO_CODE, codes) if labels.dtype == np.uint8 else codes


def count_tile(objects: Numbers, classes: Numbers | None, omitted: Iterable[int] = ()) -> TileCounts:
    """Count the pixels of every object, by class.

    Args:
        objects: ``(h, w)`` values.
        classes: ``(h, w)`` codes of classes.
        omitted: values that are no objects.
    """
    flat = objects.ravel()
    kinds = np.full(flat.shape, NO_CODE) if classes is None else classes.ravel()
    # Runs of equal pixels first: there are far fewer of them, and sorting takes most of the time.
    is_start = np.ones(len(flat), dtype=bool)
    is_start[1:] = (flat[1:] != flat[:-1]) | (kinds[1:] != kinds[:-1])
    start = np.flatnonzero(is_start)
    length = np.diff(start, append=len(flat))
    is_object = ~np.isin(flat[start], [NO_CODE, *omitted])
    run = start[is_object]
    return _summed(flat[run], kinds[run], length[is_object])


def _summed(objects: Numbers, classes: Numbers, pixels: Numbers) -> TileCounts:
    """Sum pixels by object and class."""
    order = np.lexsort((classes, objects))
    objects, classes = objects[order], classes[order]
    first = np.flatnonzero((np.diff(objects, prepend=NO_CODE - 1) != 0) | (np.diff(classes, prepend=NO_CODE - 1) != 0))
    return TileCounts(objects[first], classes[first], np.add.reduceat(pixels[order], first) if len(first) else pixels[order])


@dataclass(frozen=True, slots=True)
class ObjectSurvey:
    """What is known of objects before they are traced.

    Args:
        spread: ``(n,)`` int64 values that occur in several tiles, sorted.
        pixels: ``(n,)`` int64 pixels of each in the whole raster.
        objects: ``(m,)`` int64 all values, sorted; empty where objects have no classes.
        classes: ``(m,)`` int64 class of each, ``NO_CODE`` where none of its pixels has one.
    """

    spread: Numbers
    pixels: Numbers
    objects: Numbers
    classes: Numbers

    @classmethod
    def of(cls, tiles: Iterable[TileCounts], *, has_classes: bool) -> ObjectSurvey:
        """Combine the counts of all tiles."""
        columns: tuple[list[Numbers], ...] = ([], [], [])
        numbers: list[npt.NDArray[np.int32]] = []
        for number, tile in enumerate(tiles):
            columns[0].append(tile.objects)
            columns[1].append(tile.pixels)
            if has_classes:
                columns[2].append(tile.classes)
            numbers.append(np.full(len(tile.objects), number, dtype=np.int32))
        objects, pixels, classes = (np.concatenate([np.empty(0, np.int64), *column]) for column in columns)
        tile_of = np.concatenate([np.empty(0, np.int32), *numbers])
        del columns, numbers
        order = np.argsort(objects, kind="stable")  # tiles stay in their order
        objects, pixels, tile_of = objects[order], pixels[order], tile_of[order]
        is_first = np.diff(objects, prepend=NO_CODE - 1) != 0
        first = np.flatnonzero(is_first)
        if len(first) == 0:
            return cls(*([np.empty(0, np.int64)] * 4))
        last = np.append(first[1:], len(objects)) - 1
        is_spread = tile_of[first] != tile_of[last]
        spread, total = objects[first][is_spread], np.add.reduceat(pixels, first)[is_spread]
        if not has_classes:
            return cls(spread, total, np.empty(0, np.int64), np.empty(0, np.int64))
        return cls(spread, total, *_largest_class(_summed(objects, classes[order], pixels)))

    def classes_of(self, objects: Numbers) -> Numbers:
        """Look up the class of objects, ``NO_CODE`` where it is unknown."""
        if len(self.objects) == 0:
            return np.full(len(objects), NO_CODE)
        return self.classes[np.searchsorted(self.objects, objects)]


def _largest_class(counts: TileCounts) -> tuple[Numbers, Numbers]:
    """Choose the class with most pixels of every object, the lowest of equals; no class only where there is no other."""
    pixels = np.where(counts.classes == NO_CODE, 0, counts.pixels)
    order = np.lexsort((counts.classes, -pixels, counts.objects))
    # Where no pixel has a class, the only entry is the one without.
    objects = counts.objects[order]
    first = np.flatnonzero(np.diff(objects, prepend=NO_CODE - 1) != 0)
    return objects[first], counts.classes[order][first]


@dataclass(slots=True)
class _Incomplete:
    """An object of which pixels are still to come: parts so far, pixels that are missing, its number once it has been cut."""

    missing: int
    wkb: list[bytes] = field(default_factory=list)
    totals: list[Numbers] = field(default_factory=list)
    num_points: int = 0
    part_of: int = 0


@dataclass(slots=True)
class Gathering:
    """Gathers the parts of objects that lie in several tiles.

    Args:
        survey: pixels of these objects.
        max_vertices: most vertices of parts that are held; beyond it, the largest object is written in parts.
        new_number: gives the next number of a cut polygon.
    """

    survey: ObjectSurvey
    max_vertices: int
    new_number: Callable[[], int]
    _held: dict[int, _Incomplete] = field(default_factory=dict)
    _num_points: int = 0

    def add(self, polygons: Polygons) -> Iterator[Polygons]:
        """Take complete parts, and yield objects that are complete now, or parts of those that are cut."""
        if len(polygons) == 0:
            return
        place = np.searchsorted(self.survey.spread, polygons.class_id)
        # Most objects are one part: nothing to gather.
        is_alone = (polygons.part_of == 0) & (polygons.totals[:, 0] == self.survey.pixels[place])
        if is_alone.any():
            yield polygons[is_alone]
        if is_alone.all():
            return
        others = polygons[~is_alone]
        yield from self._gather(others, self.survey.pixels[place[~is_alone]])
        while self._num_points > self.max_vertices:
            largest = max(self._held, key=lambda code: self._held[code].num_points)
            self._held[largest].part_of = self._held[largest].part_of or self.new_number()
            yield self._taken([largest])

    def _gather(self, polygons: Polygons, pixels: Numbers) -> Iterator[Polygons]:
        """Hold parts of objects, and yield those that are complete now."""
        geometries, num_points = polygons.geometries, polygons.num_points()
        wkb: list[bytes] = shapely.to_wkb(geometries).tolist()
        complete = []
        for i, code in enumerate(polygons.class_id.tolist()):
            held = self._held.setdefault(code, _Incomplete(int(pixels[i])))
            held.missing -= int(polygons.totals[i, 0])
            held.part_of = held.part_of or int(polygons.part_of[i])
            held.wkb.append(wkb[i])
            held.totals.append(polygons.totals[i])
            held.num_points += int(num_points[i])
            self._num_points += int(num_points[i])
            if held.missing == 0:
                complete.append(code)
        if complete:
            yield self._taken(complete)
            for code in complete:
                del self._held[code]

    def finish(self) -> Iterator[Polygons]:
        """Yield what is still held: objects of which the raster has shown fewer pixels than in the survey."""
        codes = [code for code, held in self._held.items() if held.wkb]
        if codes:
            yield self._taken(codes)

    def _taken(self, codes: list[int]) -> Polygons:
        """Take the parts of objects, as one geometry each; those of a cut object as one with its number."""
        several = [self._held[code] for code in codes]
        parts = shapely.from_wkb(np.array([wkb for held in several for wkb in held.wkb], dtype=object))
        index: Ints = np.repeat(np.arange(len(several)), [len(held.wkb) for held in several])
        taken = Polygons(
            together(parts, index),
            np.array(codes, dtype=np.int64),
            np.array([np.sum(held.totals, axis=0) for held in several]),
            np.array([held.part_of for held in several], dtype=np.int64),
        )
        for held in several:
            self._num_points -= held.num_points
            held.wkb, held.totals, held.num_points = [], [], 0
        return taken


def grouped(polygons: Polygons) -> Polygons:
    """Make one polygon or multipolygon of all those of an object, sorted by its number."""
    codes, first, index = np.unique(polygons.class_id, return_index=True, return_inverse=True)
    if len(codes) == len(polygons):
        return polygons
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(codes)))
    return Polygons(
        together(polygons.geometries[order], index[order]),
        codes,
        np.add.reduceat(polygons.totals[order], starts, axis=0),
        polygons.part_of[first],
    )
