"""Bilinear resampling of maps as two small matrix products, one along rows and one along columns.

A row of a matrix holds the weights of the cells that one new cell is made of. Products run at the speed of the hardware, in the
layout that the maps have; ``grid_sample`` and ``interpolate`` look every value up by its position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def weights_at(positions: Tensor, length: int) -> Tensor:
    """Weights ``(…, count, length)`` of a side's cells at ``(…, count)`` positions, fractions of the side, float32.

    Beyond the centers of the first and the last cell their values continue (``align_corners=False``, border padding).
    """
    cells = (positions * length - 0.5).clamp(0, length - 1)
    # A cell counts for one minus the distance to its center: of at most two cells that is more than nothing.
    return (1 - (cells[..., None] - torch.arange(length, device=positions.device)).abs()).clamp(min=0)


def centers(start: Tensor, end: Tensor, count: int) -> Tensor:
    """Centers ``(n, count)`` of as many cells between two fractions of a side."""
    # Centers of cells, not corners: a crop at the whole map is the map, whatever its size (align_corners=False).
    steps = (torch.arange(count, device=start.device) + 0.5) / count
    return start[:, None] + steps * (end - start)[:, None]


def resample(source: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Resample float32 maps.

    Args:
        source: ``(n, C, H, W)``, or ``(1, C, H, W)`` for all; channels first or last.
        rows: ``(n, h, H)`` weights.
        cols: ``(n, w, W)`` weights.

    Returns:
        ``(n, C, h, w)`` in the layout of the source.
    """
    count, (channels, height, width) = len(rows), source.shape[1:]
    with torch.autocast(source.device.type, enabled=False):  # positions in bf16 would be off by whole cells
        if is_channels_last(source):
            across = source.permute(0, 2, 3, 1).reshape(len(source), height, width * channels)
            tall = rows @ across.expand(count, -1, -1)  # (n, h, W · C)
            lines = tall.view(count * rows.shape[1], width, channels)
            wide = cols.repeat_interleave(rows.shape[1], dim=0) if count > 1 else cols.expand(len(lines), -1, -1)
            return (wide @ lines).view(count, rows.shape[1], cols.shape[1], channels).permute(0, 3, 1, 2)
        across = source.reshape(len(source), channels * height, width).expand(count, -1, -1)
        lines = (across @ cols.transpose(1, 2)).view(count * channels, height, cols.shape[1])
        tall = rows.repeat_interleave(channels, dim=0) if count > 1 else rows.expand(channels, -1, -1)
        return (tall @ lines).view(count, channels, rows.shape[1], cols.shape[1])


def is_channels_last(source: Tensor) -> bool:
    """Tell whether a map's channels lie side by side in memory."""
    return source.shape[1] > 1 and source.is_contiguous(memory_format=torch.channels_last)


def enlarge(source: Tensor, size: Size) -> Tensor:
    """Resample float32 maps ``(n, C, H, W)`` bilinearly to a size, as ``F.interpolate`` does."""
    if source.shape[-2:] == size:
        return source
    if source.device.type != "cpu" or torch.compiler.is_compiling():  # elsewhere it is as quick, and one operation
        return F.interpolate(source, size=size, mode="bilinear", align_corners=False)
    whole = (torch.zeros(1), torch.ones(1))
    rows, cols = (weights_at(centers(*whole, new), old) for new, old in zip(size, source.shape[-2:], strict=True))
    return resample(source, rows.expand(len(source), -1, -1), cols.expand(len(source), -1, -1))


def span(start: float, end: float, length: int) -> slice:
    """Cells of a side that a crop between two fractions of it may read."""
    first = int(max(0.0, start * length - 1))
    return slice(first, min(length, int(end * length + 2)))


def crop_each(source: Tensor, places: Sequence[Sequence[float]], rows: Tensor, cols: Tensor) -> Tensor:
    """Resample maps at places known as plain numbers: of each, only the cells that it reads; see :func:`resample`."""
    crops = []
    for index, (top, left, bottom, right) in enumerate(places):
        tall, wide = span(top, bottom, source.shape[-2]), span(left, right, source.shape[-1])
        part = source[min(index, len(source) - 1), :, tall, wide][None].float()
        crops.append(resample(part, rows[index : index + 1, :, tall], cols[index : index + 1, :, wide]))
    return crops[0] if len(crops) == 1 else torch.cat(crops)
