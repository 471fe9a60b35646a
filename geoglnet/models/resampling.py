"""Bilinear resampling of maps as two small matrix products, one along rows and one along columns.

A row of a matrix holds the weights of the cells that one new cell is made of. Products run at the speed of the hardware, in the
layout that the maps have; ``grid_sample`` and ``interpolate`` look every value up by its position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def in_full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off, which the meta device has not, and programs that are exported do not carry."""
    return (
        nullcontext() if device.type == "meta" or torch.compiler.is_compiling() else torch.autocast(device.type, enabled=False)
    )


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
    if torch.compiler.is_compiling():  # a program's batch may have no number yet
        return rows[:, None] @ source @ cols[:, None].mT
    count, (channels, height, width) = len(rows), source.shape[1:]
    with in_full_precision(source.device):  # positions in bf16 would be off by whole cells
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
    parts = [_crop_one(part[None], (0.0, 0.0, 1.0, 1.0), size) for part in source]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def crop_each(source: Tensor, places: Sequence[Sequence[float]], size: Size) -> Tensor:
    """Resample maps on the CPU at (top, left, bottom, right), fractions of them known as plain numbers, in float32.

    Args:
        source: ``(n, C, H, W)``, or ``(1, C, H, W)`` for all places.
        places: of the crops.
        size: (h, w) of the crops.
    """
    each = source.unsqueeze(1) if len(source) > 1 else source.expand(len(places), -1, -1, -1).unsqueeze(1)
    crops = [_crop_one(part, tuple(place), size) for part, place in zip(each, places, strict=True)]
    return crops[0] if len(crops) == 1 else torch.cat(crops)


def _crop_one(source: Tensor, place: tuple[float, ...], size: Size) -> Tensor:
    tall, wide, rows, cols = _weights(place, size, (source.shape[-2], source.shape[-1]), torch.is_inference_mode_enabled())
    return resample(source[..., tall, wide].float(), rows, cols)


@lru_cache(maxsize=128)  # all maps of a level are cropped alike, and the patches of all whole regions
def _weights(place: tuple[float, ...], size: Size, shape: Size, is_inference: bool) -> tuple[slice, slice, Tensor, Tensor]:
    """Find the cells of a map that a crop reads, and their weights; tensors of inference mode are of no use outside of it."""
    top, left, bottom, right = (torch.tensor([side]) for side in place)
    tall, wide = _span(place[0], place[2], shape[0]), _span(place[1], place[3], shape[1])
    rows, cols = weights_at(centers(top, bottom, size[0]), shape[0]), weights_at(centers(left, right, size[1]), shape[1])
    return tall, wide, rows[..., tall].contiguous(), cols[..., wide].contiguous()


def _span(start: float, end: float, length: int) -> slice:
    """Cells of a side that a crop between two fractions of it may read."""
    return slice(max(0, math.floor(start * length - 1)), min(length, math.floor(end * length + 2)))
