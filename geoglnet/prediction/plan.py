"""Where the regions, patches and cores of a scene lie, and which blocks are computed.

A region is *read*; the part of it that counts is its *reach*, the core plus the zone in which the core fades into its
right and lower neighbors; the *core* is what can be written once the region is done. The plan depends on the scene's
shape and the sizes alone, so any part of it can be computed at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from rasterio.windows import Window

from geoglnet.blending import Weights, axis_weights, core_reach, core_weights, least_overlap
from geoglnet.config import RegionConfig
from geoglnet.types import Shape
from geoglnet.windows import core_edges, patch_offsets, region_window

_BORDER = 4  # rows and columns of cores at each border of a scene; all between them have as many patches


@dataclass(frozen=True, slots=True)
class PlannedPatch:
    """A patch that counts in its region.

    Args:
        row: which row of patches.
        col: which column of patches.
        window: where it lies in the region.
    """

    row: int
    col: int
    window: Window


@dataclass(frozen=True)
class PlannedRegion:
    """One region of a plan; windows are in the scene unless said otherwise.

    Args:
        row: which row of cores.
        col: which column of cores.
        core: what can be written once this region (and those before it) are done.
        reach: the core and the zones in which it fades into the next cores.
        window: what is read.
        config: sizes.
    """

    row: int
    col: int
    core: Window
    reach: Window
    window: Window
    config: RegionConfig

    @property
    def shape(self) -> Shape:
        return Shape(int(self.window.height), int(self.window.width))

    @property
    def patch_shape(self) -> Shape:
        """Size of every patch; a region smaller than a patch is one patch."""
        return Shape(*(min(self.config.patch_size, side) for side in self.shape))

    @property
    def reach_in_region(self) -> Window:
        """Count the reach from the region's corner."""
        return shifted(self.reach, -int(self.window.row_off), -int(self.window.col_off))

    @property
    def core_in_region(self) -> Window:
        """Count the core from the region's corner."""
        return shifted(self.core, -int(self.window.row_off), -int(self.window.col_off))

    @cached_property
    def patches(self) -> tuple[PlannedPatch, ...]:
        """Patches that meet the reach, row by row; the others would have no effect."""
        size = self.patch_shape
        return tuple(
            PlannedPatch(row, col, Window(col_off=left, row_off=top, width=size.width, height=size.height))
            for row, top in self.meeting_starts(0)
            for col, left in self.meeting_starts(1)
        )

    @property
    def num_patches(self) -> int:
        """Count the patches that meet the reach, without listing them."""
        return len(self.meeting_starts(0)) * len(self.meeting_starts(1))

    def meeting_starts(self, axis: int) -> list[tuple[int, int]]:
        """Index and first pixel, in the region, of each row (axis 0) or column (1) of patches that meets the reach."""
        size = self.patch_shape[axis]
        first, last = self.reach_in_region.toranges()[axis]
        return [(i, start) for i, start in enumerate(self._starts(axis)) if start < last and start + size > first]

    def patch_weights(self, ring: int = 0) -> tuple[Weights, Weights]:
        """Compute the weights of all rows and columns of patches; see :func:`~geoglnet.blending.axis_weights`.

        The ring gives way where patches overlap too little for it.
        """
        return self._patch_weights(0, ring), self._patch_weights(1, ring)

    def equal_patch_weights(self) -> tuple[Weights, Weights]:
        """Compute weights by which all patches over a pixel count alike, up to their edges."""
        rows, cols = (axis_weights(self._starts(axis), self.patch_shape[axis], self.shape[axis], ramp=0) for axis in (0, 1))
        return rows, cols

    def _patch_weights(self, axis: int, ring: int) -> Weights:
        starts, size = self._starts(axis), self.patch_shape[axis]
        shared = least_overlap(starts, size)
        ring = min(ring, max(0, shared - 1) // 2)  # at least a pixel of the overlap must be left to blend in
        return axis_weights(starts, size, self.shape[axis], shared - 2 * ring, ring)

    def _starts(self, axis: int) -> tuple[int, ...]:
        return patch_offsets(self.shape[axis], self.config.patch_size, self.config.patch_overlap)


@dataclass(frozen=True)
class Plan:
    """All regions of a scene.

    Args:
        shape: of the scene.
        config: sizes of regions, overviews and patches.
    """

    shape: Shape
    config: RegionConfig

    @cached_property
    def row_edges(self) -> tuple[int, ...]:
        return core_edges(self.shape.height, self.config.region_size, self.config.margin)

    @cached_property
    def col_edges(self) -> tuple[int, ...]:
        return core_edges(self.shape.width, self.config.region_size, self.config.margin)

    def __len__(self) -> int:
        return (len(self.row_edges) - 1) * (len(self.col_edges) - 1)

    @property
    def num_patches(self) -> int:
        """Count the patches of all regions together, in no time however many there are."""
        return self._count(0) * self._count(1)

    def _count(self, axis: int) -> int:
        """Count rows (axis 0) or columns of patches in all those of cores; but for those at the borders, all are alike."""
        # A scene may have a million cores: a few at each border and one between them stand for all.
        length = len((self.row_edges, self.col_edges)[axis]) - 1
        indexes = range(length) if length <= 2 * _BORDER else (*range(_BORDER), *range(length - _BORDER, length))
        counts = [len(self.region(*((i, 0) if axis == 0 else (0, i))).meeting_starts(axis)) for i in indexes]
        return sum(counts) + (length - len(counts)) * counts[min(_BORDER, length) - 1]

    def iter_regions(self) -> Iterator[PlannedRegion]:
        """Generate regions row by row; nothing is kept, so that the plan of a huge scene takes no memory."""
        for row in range(len(self.row_edges) - 1):
            for col in range(len(self.col_edges) - 1):
                yield self.region(row, col)

    def region(self, row: int, col: int) -> PlannedRegion:
        """Plan the region of the core at ``row``, ``col``."""
        config = self.config
        core = rectangle(self.row_edges[row], self.row_edges[row + 1], self.col_edges[col], self.col_edges[col + 1])
        rows = core_reach(self.row_edges, row, config.blend_size)
        cols = core_reach(self.col_edges, col, config.blend_size)
        window = region_window(core, self.shape, config.region_size, config.margin)
        return PlannedRegion(row, col, core, rectangle(*rows, *cols), window, config)

    def core_weights(self, planned: PlannedRegion) -> tuple[Weights, Weights]:
        """Compute weights of a region's core along the rows and the columns of its reach."""
        blend = self.config.blend_size
        return core_weights(self.row_edges, planned.row, blend), core_weights(self.col_edges, planned.col, blend)


def shifted(window: Window, rows: int, cols: int) -> Window:
    """Move a window down by ``rows`` and right by ``cols``."""
    return Window(
        col_off=int(window.col_off) + cols, row_off=int(window.row_off) + rows, width=window.width, height=window.height
    )


def overlap(first: Window, second: Window) -> Window:
    """Intersect two windows that meet."""
    (top, bottom), (left, right) = (
        (max(a, c), min(b, d)) for (a, b), (c, d) in zip(first.toranges(), second.toranges(), strict=True)
    )
    return rectangle(top, bottom, left, right)


def meets(first: Window, second: Window) -> bool:
    """Check whether two windows have a pixel in common."""
    return all(max(a, c) < min(b, d) for (a, b), (c, d) in zip(first.toranges(), second.toranges(), strict=True))


def rectangle(top: int, bottom: int, left: int, right: int) -> Window:
    """Make the window from rows ``top`` to before ``bottom`` and columns ``left`` to before ``right``."""
    return Window(col_off=left, row_off=top, width=right - left, height=bottom - top)


class BlockSet(Protocol):
    """Which blocks are to be computed."""

    def __contains__(self, place: tuple[int, int]) -> bool:
        """Check whether the block at (row, column) is among them."""


class AllBlocks:
    """Every block of a plan."""

    def __contains__(self, place: tuple[int, int]) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class BlockRectangle:
    """Blocks of some rows and columns of a plan, as far as they are in another set too.

    Args:
        rows: of cores.
        cols: of cores.
        inside: the other set.
    """

    rows: range
    cols: range
    inside: BlockSet

    def __contains__(self, place: tuple[int, int]) -> bool:
        return place[0] in self.rows and place[1] in self.cols and place in self.inside

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return (place for row in self.rows for col in self.cols if (place := (row, col)) in self.inside)


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of a region's reach that belongs to another core.

    Args:
        planned: the region.
        window: the part, in the scene.
    """

    planned: PlannedRegion
    window: Window


@dataclass(frozen=True, slots=True)
class BlockWork:
    """A block to compute, and what of its neighbors was not computed before it in the same run.

    Args:
        planned: its region.
        left: the left neighbor's zone, in the core and below it.
        above: the upper neighbor's zone in the core.
        corner: the upper left neighbor's zone in the core.
    """

    planned: PlannedRegion
    left: Zone | None = None
    above: Zone | None = None
    corner: Zone | None = None

    @property
    def has_left(self) -> bool:
        """Tell whether a left neighbor contributes to the core."""
        return self.planned.col > 0 and self.planned.config.blend_size > 0

    @property
    def has_above(self) -> bool:
        """Tell whether upper neighbors contribute to the core."""
        return self.planned.row > 0 and self.planned.config.blend_size > 0

    @property
    def reads(self) -> tuple[PlannedRegion, ...]:
        """Regions whose pixels are needed, the block's own first."""
        return (self.planned, *(zone.planned for zone in (self.left, self.above, self.corner) if zone is not None))


def iter_work(plan: Plan, blocks: BlockSet) -> Iterator[BlockWork]:
    """List the work for blocks in the plan's order; takes memory for two rows of block numbers."""
    above: set[int] = set()
    rows, cols = range(len(plan.row_edges) - 1), range(len(plan.col_edges) - 1)
    if isinstance(blocks, BlockRectangle):  # the plan may have a million blocks, and a task of it some hundred
        rows, cols = blocks.rows, blocks.cols
    for row in rows:
        done: set[int] = set()
        for col in cols:
            if (row, col) in blocks:
                # What was computed just before lies in the buffer; everything else is computed again. The buffered zone of
                # the block above holds the upper left neighbor's part too, whether that was buffered itself or not.
                is_left_known = col == 0 or col - 1 in done
                is_above_known = row == 0 or col in above
                yield _work(plan, row, col, is_left_known, is_above_known)
                done.add(col)
        above = done


def _work(plan: Plan, row: int, col: int, is_left_known: bool, is_above_known: bool) -> BlockWork:
    planned = plan.region(row, col)
    left = None if is_left_known else _zone(plan.region(row, col - 1), planned.reach)
    if is_above_known:
        return BlockWork(planned, left)
    corner = _zone(plan.region(row - 1, col - 1), planned.core) if col else None
    return BlockWork(planned, left, _zone(plan.region(row - 1, col), planned.core), corner)


def _zone(planned: PlannedRegion, place: Window) -> Zone | None:
    """Find the part of a place that a region contributes to, if it reaches there at all."""
    return Zone(planned, overlap(planned.reach, place)) if meets(planned.reach, place) else None
