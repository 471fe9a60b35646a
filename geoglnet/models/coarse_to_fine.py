"""Where the foreground of a binary segmentation lies, for the coarse-to-fine composition (paper §3.3 and its footnote 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.types import Place, Shape


@dataclass(frozen=True, slots=True)
class CoarseToFineConfig:
    """How the global branch's coarse mask becomes the part of a region that is refined.

    What it misses is lost, so it errs on the safe side: a low threshold, and a margin.

    Args:
        threshold: least probability of the foreground that counts, from 0 to 1; below one half on purpose.
        margin: pixels that the tight rectangle is grown by on every side, before it is relaxed.
        least_cells: connected cells of the coarse mask fewer than these are dropped as specks; 1 keeps all.

    Raises:
        ConfigError: numbers that make no rectangle.
    """

    threshold: float = 0.25
    margin: int = 32
    least_cells: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"coarse-to-fine threshold {self.threshold} must be between 0 and 1")
        if self.margin < 0 or self.least_cells < 1:
            raise ConfigError(
                f"coarse-to-fine margin {self.margin} and least_cells {self.least_cells} must be at least 0 and 1"
            )


def background_of(legend: Legend) -> int:
    """Label of the background of a binary legend.

    Raises:
        ConfigError: it has other than two classes, or no background.
    """
    if legend.num_classes != 2 or legend.background is None:
        raise ConfigError(
            f"coarse-to-fine is for a background and one class; the legend has {', '.join(legend.names)}"
            + ("" if legend.background is not None else ", none of them the background")
        )
    return legend.background


def foreground_place(
    probabilities: npt.NDArray[np.float32], shape: Shape, least_size: int, config: CoarseToFineConfig
) -> Place | None:
    """Find the part of a region to refine, from the global branch's view of it.

    Args:
        probabilities: ``(h, w)`` float 0–1 of the foreground, on a coarse grid over the whole region.
        shape: of the region in pixels.
        least_size: sides are at least this long (a patch), as far as the region is.
        config: threshold, margin, specks.

    Returns:
        Rows and columns around the foreground, grown by the margin and relaxed; ``None`` where there is no foreground.
    """
    mask = without_specks(probabilities >= config.threshold, config.least_cells)
    # In this order: the tight box, our margin around it, the relaxation of footnote 1.
    tight = tight_place(mask, shape)
    if tight is None:
        return None
    rows, cols = (
        slice(max(0, side.start - config.margin), min(length, side.stop + config.margin))
        for side, length in zip(tight, shape, strict=True)
    )
    cell_area = shape.height * shape.width / mask.size
    return relaxed_place((rows, cols), float(mask.sum()) * cell_area, shape, least_size)


def without_specks(mask: npt.NDArray[np.bool_], least_cells: int) -> npt.NDArray[np.bool_]:
    """Drop a mask's 8-connected components of fewer than ``least_cells`` cells."""
    if least_cells <= 1:
        return mask
    from scipy import ndimage  # slow to import, and seldom used

    components, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0  # number 0 is everything outside the components
    kept: npt.NDArray[np.bool_] = (sizes >= least_cells)[components]
    return kept


def tight_place(mask: npt.NDArray[np.bool_], shape: Shape) -> Place | None:
    """Find the smallest rectangle, in pixels of a region of ``shape``, around the true cells of a mask over all of it."""
    found = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    if not len(found[0]):
        return None
    rows, cols = (
        slice(math.floor(cells[0] * length / count), min(length, math.ceil((cells[-1] + 1) * length / count)))
        for cells, length, count in zip(found, shape, mask.shape, strict=True)
    )
    return rows, cols


def relaxed_place(place: Place, foreground_area: float, shape: Shape, least_size: int = 1) -> Place:
    """Grow a rectangle about its center until foreground and background in it are about as large (§3.3, footnote 1).

    Both sides are multiplied by ``s = max(1, √(2 · foreground_area / area))``; at the region's border the rectangle is shifted
    inside, and clipped where it would be larger than the region.

    Args:
        place: rows and columns, tight around the foreground.
        foreground_area: of the foreground, in pixels.
        shape: of the region.
        least_size: least length of a side, as far as the region is that long.
    """
    area = (place[0].stop - place[0].start) * (place[1].stop - place[1].start)
    factor = max(1.0, math.sqrt(2 * foreground_area / area))
    rows, cols = (_relaxed(side, factor, length, least_size) for side, length in zip(place, shape, strict=True))
    return rows, cols


def _relaxed(side: slice, factor: float, limit: int, least: int) -> slice:
    length = min(limit, max(round((side.stop - side.start) * factor), least))
    start = min(max(round((side.start + side.stop - length) / 2), 0), limit - length)
    return slice(start, start + length)


def foreground_ratio(mask: npt.NDArray[np.bool_], place: Place | None = None) -> float:
    """Foreground pixels per background pixel, in a part or everywhere (Fig. 8); infinite without background."""
    inside = mask if place is None else mask[place]
    foreground = int(inside.sum())
    background = inside.size - foreground
    return foreground / background if background else math.inf
