"""Squares: what was drawn is divided by place into parts to learn from, to choose by, and to score on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.windows import Window

from geoglnet.adaptation.drawn import Drawn, DrawnTruth
from geoglnet.datasets.truth import Truth
from geoglnet.errors import DatasetError
from geoglnet.legend import NO_CLASS
from geoglnet.message import Keyword
from geoglnet.types import Labels

NOTHING, LEARN, CHOOSE, SCORE = 0, 1, 2, 3
"""Roles of squares: nothing is known there; trained on; decides how far to go; held out until the end."""
_SIDES = (1024, 768, 512, 384, 256, 192, 128, 96, 64)
_MOST_SQUARES, _FEWEST_SQUARES = 24, 4
_HELD_SHARE, _CHOICE_SHARE = 0.25, 0.2
_FEWEST_TO_CHOOSE = 24  # polygons; with fewer none are spared to choose by
_TRIES = 300


@dataclass(frozen=True, slots=True)
class Squares:
    """Squares of a window of a grid, each with its role.

    Args:
        window: of the grid, in pixels.
        side: of a square, in pixels.
        roles: ``(rows, cols)`` uint8.
    """

    window: Window
    side: int
    roles: npt.NDArray[np.uint8]

    def square(self, row: int, col: int) -> Window:
        """Find the pixels of a square on the grid."""
        top, left = int(self.window.row_off) + row * self.side, int(self.window.col_off) + col * self.side
        height = min(self.side, int(self.window.row_off + self.window.height) - top)
        return Window(
            col_off=left,
            row_off=top,
            width=min(self.side, int(self.window.col_off + self.window.width) - left),
            height=height,
        )

    def of_role(self, *roles: int) -> list[tuple[int, int]]:
        """List the squares of some roles."""
        return [(int(row), int(col)) for row, col in np.argwhere(np.isin(self.roles, roles))]

    def roles_of(self, window: Window) -> npt.NDArray[np.uint8]:
        """Give every pixel of a window of the grid the role of its square; nothing beyond the squares."""
        rows, cols = (
            (np.arange(int(length)) + int(offset) - int(own)) // self.side
            for length, offset, own in (
                (window.height, window.row_off, self.window.row_off),
                (window.width, window.col_off, self.window.col_off),
            )
        )
        count_rows, count_cols = self.roles.shape
        inside = np.outer((rows >= 0) & (rows < count_rows), (cols >= 0) & (cols < count_cols))
        found = self.roles[np.clip(rows, 0, count_rows - 1)[:, None], np.clip(cols, 0, count_cols - 1)[None]]
        return np.where(inside, found, np.uint8(NOTHING))


@dataclass(frozen=True, slots=True)
class PartTruth:
    """The labels of squares of some roles; elsewhere nothing is known."""

    truth: Truth
    squares: Squares
    roles: tuple[int, ...]

    def read_labels(self, window: Window) -> Labels:
        """Read the labels of a window."""
        labels = self.truth.read_labels(window)
        return np.where(np.isin(self.squares.roles_of(window), self.roles), labels, np.uint8(NO_CLASS))


def divide(drawn: Drawn, transform: Affine, window: Window, seed: int) -> Squares:
    """Divide what was drawn by place: about a quarter of it is held out.

    The squares are the largest of which many hold something, so that few things are cut, and scores of single squares can be
    resampled. With few polygons none are spared to choose by.

    Raises:
        DatasetError: all lies in one square.
    """
    places = _places(drawn, transform)
    wanted = int(np.clip(len(places) // 2, _FEWEST_SQUARES, _MOST_SQUARES))
    side = next((side for side in _SIDES if len(_occupied(places, window, side)) >= wanted), _SIDES[-1])
    occupied = _occupied(places, window, side)
    if len(occupied) < 2:
        raise DatasetError(
            f"all {len(places)} polygons lie in one block of {side} px, so no part can be held out by place; "
            "draw some elsewhere, or score by leaving out one part after the other with " + Keyword("cross_validate", True)
        )
    squares = _empty(window, side)
    counts = _counts(drawn, transform, window, side)
    return _with_roles(squares, counts, drawn.truth_on(transform), seed)


def everything(drawn: Drawn, transform: Affine, window: Window) -> Squares:
    """Divide what was drawn into squares that are all scored on."""
    places = _places(drawn, transform)
    side = next((side for side in _SIDES if len(_occupied(places, window, side)) >= _MOST_SQUARES), _SIDES[-1])
    squares = _known_squares(_empty(window, side), drawn.truth_on(transform))
    return replace(squares, roles=np.where(squares.roles == LEARN, np.uint8(SCORE), squares.roles))


def folds(drawn: Drawn, transform: Affine, window: Window, count: int, seed: int) -> list[Squares]:
    """Divide what was drawn into several parts, by squares that may be small, each of which is held out once.

    Raises:
        DatasetError: there are fewer polygons than parts.
    """
    places = _places(drawn, transform)
    side = next((side for side in _SIDES if len(_occupied(places, window, side)) >= 4 * count), _SIDES[-1])
    occupied = _occupied(places, window, side)
    while len(occupied) < count and side > 8:
        side //= 2
        occupied = _occupied(places, window, side)
    if len(occupied) < count:
        raise DatasetError(f"{len(places)} polygons cannot be divided into {count} parts by place; draw more")
    order = np.random.default_rng(seed).permutation(len(occupied))
    truth, made = drawn.truth_on(transform), []
    base = _known_squares(_empty(window, side), truth)
    cells = np.argwhere(base.roles == LEARN)
    others = [tuple(cell) for cell in cells if tuple(cell) not in set(occupied)]
    parts = [[occupied[i] for i in order[k::count]] + others[k::count] for k in range(count)]
    for part in parts:
        roles = base.roles.copy()
        roles[tuple(np.array(part).T)] = SCORE
        made.append(replace(base, roles=roles))
    return made


def _places(drawn: Drawn, transform: Affine) -> npt.NDArray[np.float64]:
    """Compute ``(n, 2)`` rows and columns of the middles of everything drawn."""
    found = [~transform @ (g.centroid.x, g.centroid.y) for g in drawn.polygons.geometries[drawn.polygons.values != NO_CLASS]]
    return np.array([(row, col) for col, row in found], np.float64).reshape(-1, 2)


def _cells(places: npt.NDArray[np.float64], window: Window, side: int) -> npt.NDArray[np.int64]:
    cells = np.floor((places - (window.row_off, window.col_off)) / side).astype(np.int64)
    most = (-(-int(window.height) // side) - 1, -(-int(window.width) // side) - 1)
    inside: npt.NDArray[np.int64] = np.clip(cells, 0, most)
    return inside


def _occupied(places: npt.NDArray[np.float64], window: Window, side: int) -> list[tuple[int, int]]:
    return [tuple(cell) for cell in np.unique(_cells(places, window, side), axis=0).tolist()]


def _empty(window: Window, side: int) -> Squares:
    shape = (-(-int(window.height) // side), -(-int(window.width) // side))
    return Squares(window, side, np.zeros(shape, np.uint8))


def _counts(drawn: Drawn, transform: Affine, window: Window, side: int) -> npt.NDArray[np.int64]:
    """Count what is drawn of each class in each square: ``(rows, cols, classes)``."""
    squares = _empty(window, side)
    counts = np.zeros((*squares.roles.shape, drawn.legend.num_classes), np.int64)
    values = drawn.polygons.values[drawn.polygons.values != NO_CLASS]
    cells = _cells(_places(drawn, transform), window, side)
    np.add.at(counts, (cells[:, 0], cells[:, 1], values), 1)
    return counts


def _known_squares(squares: Squares, truth: DrawnTruth) -> Squares:
    """Mark the squares in which anything is known."""
    roles = squares.roles.copy()
    for row, col in np.ndindex(*roles.shape):
        roles[row, col] = LEARN if (truth.read_labels(squares.square(row, col)) != NO_CLASS).any() else NOTHING
    return replace(squares, roles=roles)


def _with_roles(squares: Squares, counts: npt.NDArray[np.int64], truth: DrawnTruth, seed: int) -> Squares:
    squares = _known_squares(squares, truth)
    rng, roles = np.random.default_rng(seed), squares.roles.copy()
    _give(roles, counts, SCORE, _HELD_SHARE, rng)
    left = counts[roles == LEARN].sum()
    if left >= _FEWEST_TO_CHOOSE and (counts[roles == LEARN].sum(axis=1) > 0).sum() >= _FEWEST_SQUARES:
        _give(roles, counts, CHOOSE, _CHOICE_SHARE, rng)
    return replace(squares, roles=roles)


def _give(
    roles: npt.NDArray[np.uint8], counts: npt.NDArray[np.int64], role: int, share: float, rng: np.random.Generator
) -> None:
    """Give a role to a share of the squares that are learned from, such that each class has about its share there."""
    cells = np.argwhere(roles == LEARN)
    inside = counts[roles == LEARN]
    full, empty = np.flatnonzero(inside.sum(axis=1)), np.flatnonzero(inside.sum(axis=1) == 0)
    totals = inside.sum(axis=0)
    number = int(np.clip(round(share * len(full)), 1, len(full) - 1))
    draws = [rng.permutation(full)[:number] for _ in range(_TRIES)]
    # The best of some draws: of each class as near to the share as can be.
    misses = [np.abs(inside[draw].sum(axis=0) - share * totals)[totals > 0].sum() for draw in draws]
    chosen = [*draws[int(np.argmin(misses))], *rng.permutation(empty)[: round(share * len(empty))]]
    roles[tuple(cells[chosen].T)] = role
