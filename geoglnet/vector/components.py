"""Connected areas of equal label in one tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoglnet.types import Ints
from geoglnet.vector.compiled import compiled

NO_LABEL = 255
NO_CONFIDENCE = 255
MAX_CONFIDENCE = 254

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Components:
    """4-connected components of a tile; component ``i + 1`` of ``ids`` has entry ``i`` in the other arrays.

    Args:
        ids: ``(h, w)`` int32, 0 where there is no polygon; numbers follow the components' first pixels, row by row.
        class_id: ``(n,)`` uint8, label of each component.
        totals: ``(n, 3)`` int64: pixels, sum of the known confidence values (0–254), number of those values.
    """

    ids: Ids
    class_id: npt.NDArray[np.uint8]
    totals: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.class_id)


def label_components(
    labels: npt.NDArray[np.uint8], confidence: npt.NDArray[np.uint8] | None = None, *, without_label: bool = False
) -> Components:
    """Find the 4-connected components of all classes at once.

    Args:
        labels: ``(h, w)`` uint8; 255 belongs to no component.
        confidence: ``(h, w)`` uint8, 0–254, 255 where unknown.
        without_label: find the components of 255 too.
    """
    # Layouts are made alike, else each gets machine code of its own.
    ids, parents, part_class = _unite_pixels(np.require(labels, requirements=["C", "W"]))
    is_kept = (parents == np.arange(len(parents))) & ((part_class != NO_LABEL) | without_label)
    numbers = _of_first(np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32), parents)
    totals = np.zeros((int(is_kept.sum()) + 1, 3), dtype=np.int64)
    _number(ids, numbers, totals)
    if confidence is not None:
        _sum_confidence(ids, np.require(confidence, requirements=["C", "W"]), totals)
    return Components(ids, part_class[is_kept], totals[1:])


def corner_links(components: Components, labels: npt.NDArray[np.uint8]) -> Ints:
    """Pairs of different components of one class that touch at a corner.

    Args:
        components: of the labels.
        labels: ``(h, w)`` uint8.

    Returns:
        ``(k, 2)`` indexes of components, from 0.
    """
    ids, pairs = components.ids, []
    for upper, lower in ((np.s_[:-1, :-1], np.s_[1:, 1:]), (np.s_[:-1, 1:], np.s_[1:, :-1])):
        touches = (labels[upper] == labels[lower]) & (ids[upper] != ids[lower]) & (ids[upper] > 0)
        pairs.append(np.column_stack([ids[upper][touches], ids[lower][touches]]).astype(np.intp))
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0) - 1


@compiled
def _unite_pixels(labels: npt.NDArray[np.uint8]) -> tuple[Ids, Ids, npt.NDArray[np.uint8]]:
    """Part of every pixel; of every part its parent (an earlier part of its component, or itself) and its label."""
    parts = np.empty(labels.shape, np.int32)
    parents, part_class = np.empty(labels.size, np.int32), np.empty(labels.size, np.uint8)
    count = 0
    for row in range(labels.shape[0]):
        line, line_parts = labels[row], parts[row]
        line_above, parts_above = labels[max(row - 1, 0)], parts[max(row - 1, 0)]
        part, left, upper_left = 0, -1, -1
        for col in range(labels.shape[1]):
            label, upper = line[col], line_above[col] if row > 0 else -1
            if label == left:
                if label == upper != upper_left:  # else the left pixel has met the upper one's part
                    _unite(parents, part, parts_above[col])
            elif label == upper:
                part = parts_above[col]
            else:
                part = parents[count] = count
                part_class[count] = label
                count += 1
            line_parts[col] = part
            left, upper_left = label, upper
    return parts, parents[:count], part_class[:count]


@compiled
def _unite(parents: Ids, one: int, other: int) -> None:
    one, other = _first_part(parents, one), _first_part(parents, other)
    parents[max(one, other)] = min(one, other)


@compiled
def _first_part(parents: Ids, part: int) -> int:
    while parents[part] != part:
        parents[part] = parents[parents[part]]
        part = parents[part]
    return part


@compiled
def _of_first(numbers: Ids, parents: Ids) -> Ids:
    """Numbers of the first parts of components, given to all their parts."""
    for part in range(len(parents)):  # parents come earlier
        numbers[part] = numbers[parents[part]]
    return numbers


@compiled
def _number(ids: Ids, numbers: Ids, totals: npt.NDArray[np.int64]) -> None:
    """Replace parts by the numbers of their components, and count pixels."""
    flat = ids.ravel()
    for pixel in range(len(flat)):
        flat[pixel] = numbers[flat[pixel]]
        totals[flat[pixel], 0] += 1


@compiled
def _sum_confidence(ids: Ids, confidence: npt.NDArray[np.uint8], totals: npt.NDArray[np.int64]) -> None:
    flat, values = ids.ravel(), confidence.ravel()
    for pixel in range(len(flat)):
        if values[pixel] != NO_CONFIDENCE:
            totals[flat[pixel], 1] += values[pixel]
            totals[flat[pixel], 2] += 1
