"""How well neighboring blocks fit together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rasterio.windows import Window

from geoglnet.legend import NO_CLASS
from geoglnet.prediction.journal import FinishedBlock
from geoglnet.types import Labels, Shape

_LENGTH = 8192  # of the pieces in which lines are read


@dataclass(frozen=True, slots=True)
class SeamReport:
    """How well blocks fit together.

    Args:
        disagreement: share of the pixels in overlaps where two regions alone would have chosen different classes; blending
            settles them.
        on_lines: share of neighboring pixels across block lines whose classes differ.
        elsewhere: the same inside blocks. Where blending leaves no seam the two are equal, but for chance.
        has_lines: whether there are block lines with a class on both sides at all.
    """

    disagreement: float
    on_lines: float
    elsewhere: float
    has_lines: bool = True

    @property
    def excess(self) -> float:
        """Class borders on block lines, as a multiple of those elsewhere; 1 when there are neither, or no lines."""
        if not self.has_lines:
            return 1.0
        if not self.elsewhere:  # one class inside all blocks, so any border on a line is a seam
            return 1.0 if not self.on_lines else float("inf")
        return self.on_lines / self.elsewhere

    def to_dict(self) -> dict[str, float]:
        """Plain form for JSON, rounded."""
        named = {"disagreement": self.disagreement, "on_lines": self.on_lines, "elsewhere": self.elsewhere}
        return {name: round(share, 6) for name, share in named.items()}

    def __str__(self) -> str:
        if not self.has_lines:
            return "seams: none, nothing was put together"
        return (
            f"seams: {self.disagreement:.2%} of the pixels in overlaps disagreed before blending; "
            f"class borders on block lines {self.excess:.2f} times as frequent as elsewhere"
        )


def count_borders(first: Labels, second: Labels) -> tuple[int, int]:
    """Count pairs of pixels that both have a class, and those whose classes differ."""
    valid = (first != NO_CLASS) & (second != NO_CLASS)
    return int(valid.sum()), int((valid & (first != second)).sum())


def count_inner_borders(labels: Labels) -> tuple[int, int]:
    """Count pairs of neighbors in ``(h, w)`` labels, along rows and columns, and those whose classes differ."""
    across, down = count_borders(labels[:, :-1], labels[:, 1:]), count_borders(labels[:-1], labels[1:])
    return across[0] + down[0], across[1] + down[1]


def seam_report(
    blocks: Iterable[FinishedBlock],
    read: Callable[[Window], Labels],
    shape: Shape,
    lines: tuple[Sequence[int], Sequence[int]],
) -> SeamReport:
    """Compare class borders on block lines with those elsewhere.

    Args:
        blocks: what was counted inside of blocks.
        read: labels of a window.
        shape: of the raster.
        lines: rows and columns at which blocks begin, inside the raster.
    """
    # Inside blocks everything was counted while they were at hand; only the lines between them are read again.
    counted = [(b.compared, b.differing, b.pairs, b.borders) for b in blocks]
    compared, differing, pairs, borders = (sum(column) for column in zip(*counted, strict=True)) if counted else (0, 0, 0, 0)
    across = [count_borders(*(read(window) for window in sides)) for sides in _iter_line_sides(shape, *lines)]
    on_lines = [sum(column) for column in zip(*across, strict=True)] or [0, 0]
    shares = _share(differing, compared), _share(on_lines[1], on_lines[0]), _share(borders, pairs)
    return SeamReport(*shares, has_lines=on_lines[0] > 0)


def _iter_line_sides(shape: Shape, rows: Sequence[int], cols: Sequence[int]) -> Iterable[tuple[Window, Window]]:
    """List the pixels before and behind pieces of all lines."""
    for row, left in itertools.product(rows, range(0, shape.width, _LENGTH)):
        length = min(_LENGTH, shape.width - left)
        yield Window(left, row - 1, length, 1), Window(left, row, length, 1)
    for col, top in itertools.product(cols, range(0, shape.height, _LENGTH)):
        length = min(_LENGTH, shape.height - top)
        yield Window(col - 1, top, 1, length), Window(col, top, 1, length)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
