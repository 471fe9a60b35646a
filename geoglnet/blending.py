"""Blending weights of overlapping windows along an axis; at every pixel they add up to one.

The weight of a pixel is the product of its row's and its column's weight. Because the weights of an axis add up to one,
so do the products, and no count array is needed: probabilities × weights, summed, are probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from geoglnet.errors import ConfigError

Weights = npt.NDArray[np.float32]


def patch_offsets(length: int, patch_size: int, overlap: int) -> tuple[int, ...]:
    """Return the starts of the fewest patches that cover ``length`` pixels and overlap by at least ``overlap``.

    The starts are spread evenly, the last patch is flush with the end (2448 px, 500 px, 50 px → 6 patches). One start at 0
    when the patch is as long as the axis or longer.

    Raises:
        ConfigError: the overlap is negative or not smaller than the patch.
    """
    if not 0 <= overlap < patch_size:
        raise ConfigError(f"patch overlap {overlap} px must be from 0 to below the patch size {patch_size} px")
    if length <= patch_size:
        return (0,)
    count = -(-(length - overlap) // (patch_size - overlap))  # rounded up
    step = (length - patch_size) / (count - 1)
    return tuple(round(step * i) for i in range(count))


def least_overlap(starts: Sequence[int], size: int) -> int:
    """Return the fewest pixels that two neighboring windows of ``size`` share; ``size`` when there is one window."""
    return min((start + size - after for start, after in pairwise(starts)), default=size)


def fade(share: Weights) -> Weights:
    """Weigh pixels by how far they lie into a blend zone, from 0 to 1: linearly.

    All blending of patches and cores rises by this function alone. Another one should rise too, with ``fade(t) + fade(1 - t)``
    equal to 1, so that what falls and what rises add up to one.
    """
    return share


def axis_weights(starts: Sequence[int], size: int, length: int, ramp: int, ring: int = 0) -> Weights:
    """Compute the weights of patches along one axis of their region.

    A patch's weight is zero in a ring along each edge that lies inside the region, rises linearly from nearly zero to one
    over the ``ramp`` pixels after it (less where another edge is nearer), and stays one toward the region's own border.
    Then the weights are divided by their sum over all patches at the same pixel, however many overlap there.

    Args:
        starts: first pixel of each patch; together the patches cover the axis.
        size: length of every patch.
        length: length of the region.
        ramp: width of the rise; 0 weighs all patches alike.
        ring: width of the ring; neighboring patches must overlap by more than twice as much.

    Returns:
        ``(n, size)`` float32, from 0 to 1.
    """
    first = np.asarray(starts)
    # At pixel centers, hence 0.5; a ramp of 0 becomes a step from 0 to 1 behind the ring.
    rise = fade(np.clip((np.arange(size) - ring + 0.5) / max(ramp, 0.5), 0.0, 1.0))
    from_start = np.where(first[:, None] > 0, rise, 1.0)
    from_end = np.where(first[:, None] + size < length, rise[::-1], 1.0)
    raw = np.minimum(from_start, from_end)
    places = first[:, None] + np.arange(size)
    total = np.zeros(length)
    np.add.at(total, places, raw)
    return (raw / total[places]).astype(np.float32)


def core_reach(edges: Sequence[int], index: int, blend: int) -> tuple[int, int]:
    """Return the range of pixels with a weight of a core: the core, and the blend zone that begins at its end.

    Args:
        edges: borders of the cores along the axis, from 0 to its length.
        index: number of the core.
        blend: width of the zone over which a core fades into the next.
    """
    return edges[index], min(edges[index + 1] + blend, edges[-1])


def core_weights(edges: Sequence[int], index: int, blend: int) -> Weights:
    """Compute the weights of one core along one axis, over its reach.

    Each border B between two cores has a one-sided blend zone ``[B, B + blend)``: the core before B fades from 1 to 0 in
    it, the core after B rises from 0 to 1. So what lies before B is final once the core before B is done, and finished
    pixels can be written up to B, where the blocks of the file end. Every core but the last is at least ``blend`` wide.

    Args:
        edges: borders of the cores along the axis, from 0 to its length.
        index: number of the core.
        blend: width of a zone.

    Returns:
        float32 weights from 0 to 1 of the pixels in :func:`core_reach`; over all cores they add up to one.
    """
    start, stop = core_reach(edges, index, blend)
    rise = fade((np.arange(blend, dtype=np.float32) + np.float32(0.5)) / np.float32(max(blend, 1)))
    weights = np.ones(stop - start, dtype=np.float32)
    if index > 0:
        head = weights[:blend]
        head[:] = rise[: len(head)]
    tail = weights[edges[index + 1] - start :]  # empty for the last core
    tail[:] = 1 - rise[: len(tail)]
    return weights
