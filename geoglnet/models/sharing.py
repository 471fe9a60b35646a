"""Deep feature map sharing (paper §3.2.2): global maps cropped at a patch's footprint and resized to the patch's maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geoglnet.errors import ConfigError


def crop(source: Tensor, footprints: Tensor, size: tuple[int, int]) -> Tensor:
    """Parts of feature maps, resampled bilinearly at exact (fractional) positions.

    Position (i, j) of the crop reads the source at ``top + (i + ½)/h · (bottom − top)``: no rounding to whole cells, so a
    patch sees the same global features wherever it lies (the authors round; ``docs/paper.md``).

    Args:
        source: ``(n, C, H, W)``, or ``(1, C, H, W)`` for all footprints.
        footprints: ``(n, 4)`` of (top, left, bottom, right), fractions of the source from 0 to 1.
        size: (h, w) of the crops.

    Returns:
        ``(n, C, h, w)`` in the source's dtype.
    """
    grid = _sampling_grid(footprints.to(source.device, torch.float32), size)
    with torch.autocast(source.device.type, enabled=False):  # bf16 positions would be off by whole cells
        cropped = F.grid_sample(
            source.float().expand(len(footprints), -1, -1, -1),
            grid,
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
    return cropped.to(source.dtype)


def _sampling_grid(footprints: Tensor, size: tuple[int, int]) -> Tensor:
    top, left, bottom, right = footprints.unbind(dim=1)
    y = _centres(top, bottom, size[0])[:, :, None].expand(-1, *size)
    x = _centres(left, right, size[1])[:, None, :].expand(-1, *size)
    return torch.stack([x, y], dim=-1) * 2 - 1


def _centres(start: Tensor, end: Tensor, count: int) -> Tensor:
    steps = (torch.arange(count, device=start.device) + 0.5) / count
    return start[:, None] + steps * (end - start)[:, None]


def check_footprints(footprints: Tensor, count: int) -> None:
    """Refuse footprints that don't fit ``count`` patches inside a region.

    Raises:
        ConfigError: wrong shape, outside 0…1, or empty.
    """
    if footprints.shape != (count, 4):
        raise ConfigError(f"footprints have shape {tuple(footprints.shape)}; {count} patches need ({count}, 4)")
    inside = (footprints >= 0).all() and (footprints <= 1).all()
    if not inside or not (footprints[:, :2] < footprints[:, 2:]).all():
        raise ConfigError(
            "footprints must be (top, left, bottom, right) fractions with 0 ≤ top < bottom ≤ 1 and 0 ≤ left < right ≤ 1"
        )
