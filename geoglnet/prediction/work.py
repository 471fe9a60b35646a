"""What has to be read and computed for a set of blocks, in which order; known before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from rasterio.windows import Window

from geoglnet.prediction.plan import Plan, PlannedRegion, meets, overlap


class BlockSet(Protocol):
    """Which blocks are to be computed."""

    def __contains__(self, place: tuple[int, int]) -> bool:
        """Whether the block of a row and a column is."""


class AllBlocks:
    """Every block of a plan."""

    def __contains__(self, place: tuple[int, int]) -> bool:
        return True


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
    """A block to compute, and what of its neighbours was not computed before it in the same run.

    Args:
        planned: its region.
        left: what the left neighbour gives to the core and the zone below it.
        above: what the upper neighbour gives to the core.
        corner: what the neighbour at the upper left gives to the core.
    """

    planned: PlannedRegion
    left: Zone | None = None
    above: Zone | None = None
    corner: Zone | None = None

    @property
    def has_left(self) -> bool:
        """Whether a left neighbour gives something to the core."""
        return self.planned.col > 0 and self.planned.config.blend_size > 0

    @property
    def has_above(self) -> bool:
        """Whether upper neighbours give something to the core."""
        return self.planned.row > 0 and self.planned.config.blend_size > 0

    @property
    def reads(self) -> tuple[PlannedRegion, ...]:
        """Regions whose pixels are needed, the block's own first."""
        return (self.planned, *(zone.planned for zone in (self.left, self.above, self.corner) if zone is not None))


def iter_work(plan: Plan, blocks: BlockSet) -> Iterator[BlockWork]:
    """Work for blocks in the plan's order; takes memory for two rows of block numbers."""
    above: set[int] = set()
    for row in range(len(plan.row_edges) - 1):
        done: set[int] = set()
        for col in range(len(plan.col_edges) - 1):
            if (row, col) in blocks:
                is_left_known = col == 0 or col - 1 in done
                is_above_known = row == 0 or (col in above and (col == 0 or col - 1 in above))
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
    """What a region gives to a place, if it reaches there at all."""
    return Zone(planned, overlap(planned.reach, place)) if meets(planned.reach, place) else None
