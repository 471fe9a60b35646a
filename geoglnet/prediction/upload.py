"""A region's pixels on the device: uploaded as bytes, normalised piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from rasterio.windows import Window
from torch import Tensor

from geoglnet.errors import BandsError
from geoglnet.models.manifest import Manifest
from geoglnet.raster.scene import Pixels
from geoglnet.types import Shape


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Pixels of one region on the device, 4 bytes each for three bands; floats exist only of what is asked for.

    Args:
        image: ``(C, h, w)`` uint8.
        valid: ``(h, w)`` bool.
        mean: ``(C, 1, 1)`` on the 0–255 scale.
        std: ``(C, 1, 1)`` on the 0–255 scale.
    """

    image: Tensor
    valid: Tensor
    mean: Tensor
    std: Tensor

    def overview(self, shape: Shape) -> Tensor:
        """``(1, C, *shape)`` float32, normalised and decimated with antialiasing; band by band, for the memory."""
        bands = [
            F.interpolate(self._normalised(slice(c, c + 1)), size=shape, mode="bilinear", align_corners=False, antialias=True)
            for c in range(len(self.image))
        ]
        return torch.cat(bands, dim=1).contiguous(memory_format=torch.channels_last)

    def patches(self, windows: Sequence[Window]) -> Tensor:
        """``(n, C, h, w)`` float32, normalised crops at windows of one size."""
        return torch.cat([self._normalised(slice(None), *window.toslices()) for window in windows])

    def _normalised(self, bands: slice, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        image = self.image[bands, rows, cols].float().sub_(self.mean[bands]).div_(self.std[bands])
        return image.masked_fill_(~self.valid[rows, cols], 0.0)[None]  # 0: the mean


def upload(pixels: Pixels, manifest: Manifest, device: torch.device) -> Uploaded:
    """Pixels to the device, from pinned memory where it is a GPU, so that the copy doesn't hold up the host.

    Raises:
        BandsError: the pixels have not the model's bands.
    """
    found, wanted = pixels.image.shape[0], len(manifest.mean)
    if found != wanted:
        raise BandsError(f"{found} bands read, the model takes {wanted} ({', '.join(manifest.bands)}); choose --bands")
    mean, std = (torch.tensor(v, device=device)[:, None, None] * 255 for v in (manifest.mean, manifest.std))
    return Uploaded(_moved(pixels.image, device), _moved(pixels.valid, device), mean, std)


def _moved(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
