"""One tile: traces its labels into pieces, and separates complete pieces from those that may continue in another tile.

Where outlines are simplified or smoothed, every area of the tile takes part, also those without a label, so that neighbors
share every border point; and the labels one pixel around the tile are read too, so that tiles have the same points along the
line between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.windows import Window

from geoglnet.errors import ConfigError
from geoglnet.types import Ints, Shape
from geoglnet.vector.reshaping import simplify_coverage, smooth_coverage
from geoglnet.vector.rings import Geometries, Outlines, Rings, as_geometries, to_wkb
from geoglnet.vector.tiles import LabelTile, TileSource
from geoglnet.vector.tracing import (
    LARGEST_CODE,
    NO_CODE,
    NO_LABEL,
    SMALLEST_CODE,
    Codes,
    Components,
    Ids,
    corner_links,
    label_components,
    no_code_of,
    trace_components,
)

OUTSIDE = NO_CODE - 1  # of the raster, as a label


@dataclass(frozen=True, slots=True)
class TracingRules:
    """How a tile is traced.

    Args:
        values: codes that become polygons; ``None``: all.
        connectivity: 4 or 8.
        tolerance: pixels within which outlines are simplified; 0 keeps every pixel's corner.
        smooth: round corners.
        omitted: codes that do not become polygons.
        spread: where codes are objects, ``(n,)`` int64 those that lie in several tiles, sorted: all their pieces are open, and
            no others. ``None`` where they are classes.

    Raises:
        ConfigError: a value that is no code, or a connectivity that is neither.
    """

    values: Sequence[int] | None = None
    connectivity: int = 4
    tolerance: float = 0.0
    smooth: bool = False
    omitted: frozenset[int] = frozenset()
    spread: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        wrong = [value for value in self.values or () if not SMALLEST_CODE <= value <= LARGEST_CODE]
        if wrong:
            raise ConfigError(f"code {wrong[0]} cannot become polygons; codes are from {SMALLEST_CODE} to {LARGEST_CODE}")
        if self.connectivity not in (4, 8):
            raise ConfigError(f"connectivity = {self.connectivity} must be 4 or 8")

    @property
    def reshapes(self) -> bool:
        """Whether outlines leave the pixels' corners, so that all neighbors must be traced too."""
        return self.smooth or self.tolerance > 0

    def chosen(self, labels: Codes) -> Codes:
        """Replace the labels that do not become polygons by the one that stands for no class; the shape stays."""
        if labels.dtype == np.uint8:
            table = np.where(self._is_chosen(np.arange(256)), np.arange(256), NO_LABEL).astype(np.uint8)
            translated = labels.tobytes().translate(table.tobytes())  # a third of the time that indexing takes
            return np.frombuffer(translated, dtype=np.uint8).reshape(labels.shape)
        return np.where(self._is_chosen(labels), labels, NO_CODE)

    def _is_chosen(self, codes: Codes) -> npt.NDArray[np.bool_]:
        """Find the codes that become polygons."""
        is_chosen = np.ones(codes.shape, dtype=bool) if self.values is None else np.isin(codes, list(self.values))
        for code in self.omitted:
            is_chosen &= codes != code
        return is_chosen


@dataclass(frozen=True, slots=True)
class Polygons:
    """Polygons in pixel coordinates of the raster.

    Args:
        outlines: ``(n,)`` shapely polygons, with 8-connectivity also multipolygons; or polygons as rings, which is quicker.
        class_id: ``(n,)`` int64 codes.
        totals: ``(n, 3)`` int64: pixels, sum of the known confidence values, number of those values.
        part_of: ``(n,)`` int64, the number of the cut component that a polygon is part of; 0 when it is whole.
    """

    outlines: Outlines
    class_id: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]
    part_of: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.class_id)

    def __getitem__(self, chosen: slice | npt.NDArray[np.bool_]) -> Polygons:
        return Polygons(self.outlines[chosen], self.class_id[chosen], self.totals[chosen], self.part_of[chosen])

    @property
    def geometries(self) -> Geometries:
        """Outlines as shapely polygons."""
        return as_geometries(self.outlines)

    def num_points(self) -> npt.NDArray[np.int64]:
        """Count the points of each outline, ``(n,)``."""
        if isinstance(self.outlines, Rings):
            return self.outlines.num_points()
        return np.asarray(shapely.get_num_coordinates(self.outlines), dtype=np.int64)

    @classmethod
    def concatenate(cls, several: Sequence[Polygons]) -> Polygons:
        """Join several into one."""
        names = ("geometries", "class_id", "totals", "part_of")
        return cls(*(np.concatenate([getattr(polygons, name) for polygons in several]) for name in names))


@dataclass(frozen=True, slots=True)
class OpenTile:
    """The pieces of a tile that may continue in other tiles, in a form that is cheap to send to another process.

    Args:
        window: the tile.
        sides: for each side with a neighbor (``"top"``, ``"left"``, ``"bottom"``, ``"right"``), the piece at each pixel:
            its number from 1, 0 where there is none.
        class_id: ``(n,)`` int64 codes.
        totals: ``(n, 3)`` int64.
        wkb: ``(n,)`` outlines in pixel coordinates of the raster.
        num_points: ``(n,)`` int64 points of each outline.
    """

    window: Window
    sides: dict[str, Ids]
    class_id: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]
    wkb: npt.NDArray[np.object_]
    num_points: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.class_id)


def trace_tile(source: TileSource, window: Window, rules: TracingRules) -> tuple[Polygons, OpenTile]:
    """Trace one tile.

    Args:
        source: port to the labels.
        window: the tile.
        rules: labels to trace, connectivity and reshaping.

    Returns:
        The polygons that are complete, and the pieces that touch a side beyond which the raster continues.

    Raises:
        SceneError: the raster cannot be read there, or holds values that are no labels.
    """
    framed = _framed_window(window, source.shape) if rules.reshapes else window
    tile = source.read_tile(framed)
    labels = rules.chosen(tile.labels)
    if not (labels != no_code_of(labels)).any():
        # Most tiles of a scene without data: nothing to trace, but the lines around the tile must still be met.
        return _divide(_no_components(window), np.empty(0, dtype=object), source.shape, window, rules.spread)
    outlines: Outlines
    if not rules.reshapes:
        components = label_components(labels, tile.confidence)
        outlines = trace_components(components.ids, origin=(window.col_off, window.row_off))
    else:
        tile, surroundings = _without_frame(LabelTile(labels, tile.confidence), framed, window)
        labels = tile.labels
        components, outlines = _reshaped(tile, surroundings, rules, (window.col_off, window.row_off))
    if rules.connectivity == 8:
        components, outlines = _joined_at_corners(components, as_geometries(outlines), corner_links(components, labels))
    return _divide(components, outlines, source.shape, window, rules.spread)


def _no_components(window: Window) -> Components:
    ids = np.zeros((int(window.height), int(window.width)), dtype=np.int32)
    return Components(ids, np.empty(0, dtype=np.int64), np.empty((0, 3), dtype=np.int64))


def _framed_window(window: Window, shape: Shape) -> Window:
    """Extend a window by one pixel on all sides, as far as the raster goes."""
    top, left = max(window.row_off - 1, 0), max(window.col_off - 1, 0)
    bottom = min(window.row_off + window.height + 1, shape.height)
    right = min(window.col_off + window.width + 1, shape.width)
    return Window(col_off=left, row_off=top, width=right - left, height=bottom - top)


def _without_frame(tile: LabelTile, framed: Window, window: Window) -> tuple[LabelTile, npt.NDArray[np.int64]]:
    """Cut a framed tile into the tile itself and its surroundings: ``(h + 2, w + 2)`` labels, ``OUTSIDE`` beyond the raster."""
    row, col = int(window.row_off - framed.row_off), int(window.col_off - framed.col_off)
    height, width = int(window.height), int(window.width)
    inside = np.s_[row : row + height, col : col + width]
    surroundings = np.full((height + 2, width + 2), OUTSIDE, dtype=np.int64)
    surroundings[1 - row : 1 - row + tile.labels.shape[0], 1 - col : 1 - col + tile.labels.shape[1]] = tile.labels
    return LabelTile(tile.labels[inside], None if tile.confidence is None else tile.confidence[inside]), surroundings


def _reshaped(
    tile: LabelTile, surroundings: npt.NDArray[np.int64], rules: TracingRules, origin: tuple[int, int]
) -> tuple[Components, Geometries]:
    """Trace all areas of a tile, simplify and smooth them together, and keep those that become polygons."""
    faces = label_components(tile.labels, tile.confidence, without_label=True)
    # In coordinates of the tile: reshaping asks which points lie on its border, at 0 or at its width and height.
    outlines = trace_components(faces.ids, junctions=True, surroundings=surroundings).polygons()
    if rules.tolerance > 0:
        outlines = simplify_coverage(outlines, rules.tolerance)
    if rules.smooth:
        outlines = smooth_coverage(outlines, Shape(*tile.labels.shape))
    is_kept = faces.class_id != NO_CODE
    # Number the others from 1 without gaps; what has no label becomes 0.
    numbers = np.append(0, np.where(is_kept, np.cumsum(is_kept), 0)).astype(np.int32)
    components = Components(numbers[faces.ids], faces.class_id[is_kept], faces.totals[is_kept])
    moved = shapely.transform(outlines[is_kept], lambda points: points + np.array(origin, dtype=np.float64))
    return components, moved


def open_sides(window: Window, shape: Shape) -> list[str]:
    """List the sides of a tile beyond which the raster continues."""
    sides = {
        "top": window.row_off > 0,
        "left": window.col_off > 0,
        "bottom": window.row_off + window.height < shape.height,
        "right": window.col_off + window.width < shape.width,
    }
    return [name for name, is_open in sides.items() if is_open]


def _divide(
    components: Components, outlines: Outlines, shape: Shape, window: Window, spread: npt.NDArray[np.int64] | None
) -> tuple[Polygons, OpenTile]:
    """Separate the complete components of a tile from those that touch an open side, or are of an object in several tiles."""
    ids, count = components.ids, len(components)
    lines = {"top": ids[0], "left": ids[:, 0], "bottom": ids[-1], "right": ids[:, -1]}
    sides = {name: lines[name] for name in open_sides(window, shape)}
    if spread is None:
        touches = np.zeros(count + 1, dtype=bool)
        for line in sides.values():
            touches[line] = True
        is_open = touches[1:]  # without 0, which is no component
    else:
        is_open = np.isin(components.class_id, spread)
    numbers = np.append(0, np.where(is_open, np.cumsum(is_open), 0)).astype(np.int32)
    polygons = Polygons(outlines, components.class_id, components.totals, np.zeros(count, dtype=np.int64))
    pieces = polygons[is_open]
    open_tile = OpenTile(
        window,
        {name: numbers[line] for name, line in sides.items()},
        pieces.class_id,
        pieces.totals,
        to_wkb(pieces.outlines).to_numpy(zero_copy_only=False),
        pieces.num_points(),
    )
    return polygons[~is_open], open_tile


def _joined_at_corners(components: Components, outlines: Geometries, links: Ints) -> tuple[Components, Geometries]:
    """Join 4-connected components to 8-connected ones, whose outlines are multipolygons where they have several parts.

    Args:
        components: 4-connected.
        outlines: of the components.
        links: ``(k, 2)`` indexes from 0 of components that touch at a corner.
    """
    if len(links) == 0:
        return components, outlines
    from scipy.sparse import coo_array  # half a second that 4-connected polygons need not wait for
    from scipy.sparse.csgraph import connected_components

    count = len(components)
    # Components that touch at corners form a graph; each of its connected parts is one 8-connected component.
    graph = coo_array((np.ones(len(links), dtype=np.int8), (links[:, 0], links[:, 1])), shape=(count, count))
    num_groups, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=num_groups)
    starts = np.cumsum(sizes) - sizes
    joined: Geometries = outlines[order[starts]]
    is_several = sizes > 1
    # shapely builds all multipolygons at once, if their parts are numbered without gaps.
    members = order[is_several[group[order]]]
    if len(members):
        numbers = np.cumsum(is_several) - 1
        joined[is_several] = shapely.multipolygons(outlines[members], indices=numbers[group[members]])
    totals = np.add.reduceat(components.totals[order], starts, axis=0)
    ids = np.append(0, group + 1).astype(np.int32)[components.ids]
    return Components(ids, components.class_id[order[starts]], totals), joined
