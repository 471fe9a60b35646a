"""One region on its way into the network: what of it is wanted, its pixels on the device, its eight symmetries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rasterio import windows
from rasterio.windows import Window
from torch import Tensor

from geoglnet.errors import BandsError, ConfigError
from geoglnet.message import Keyword
from geoglnet.models.manifest import Manifest
from geoglnet.models.transfers import to_device
from geoglnet.prediction.plan import PlannedPatch, PlannedRegion, overlap, shifted
from geoglnet.raster.scene import Pixels
from geoglnet.types import Place, Shape


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a patch counts.

    Args:
        rows: in the window.
        cols: in the window.
        inside: the same pixels in the patch.
        weights: ``(h, w)`` float32 from 0 to 1, on the device.
    """

    rows: slice
    cols: slice
    inside: tuple[slice, slice]
    weights: Tensor


@dataclass(frozen=True)
class Wanted:
    """A part of a region's reach.

    Args:
        planned: the region.
        window: the part, in the scene.
        pixels: of the whole region.
        visible: ``(h, w)`` bool over the region, where somebody will look; part of what is valid.
        ring: width of the ring of patches that has no weight; ``None``: all patches count alike, up to their edges.
        device: where patches are blended.
    """

    planned: PlannedRegion
    window: Window
    pixels: Pixels
    visible: npt.NDArray[np.bool_]
    ring: int | None = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a value

    @property
    def shape(self) -> Shape:
        return Shape(int(self.window.height), int(self.window.width))

    @cached_property
    def window_in_region(self) -> Window:
        return self.window_in(self.planned.window)

    def window_in(self, other: Window) -> Window:
        """Count the part from the corner of another window of the scene."""
        return shifted(self.window, *_minus(other))

    def narrowed(self, place: Place) -> Wanted | None:
        """Narrow to a part of the region, as if that were a region of its own; ``None`` when the window lies elsewhere.

        Args:
            place: rows and columns of the region.
        """
        rows, cols = place
        origin = self.planned.window
        window = Window(
            col_off=int(origin.col_off) + cols.start,
            row_off=int(origin.row_off) + rows.start,
            width=cols.stop - cols.start,
            height=rows.stop - rows.start,
        )
        if not windows.intersect(window, self.window):
            return None
        planned = replace(self.planned, core=window, reach=window, window=window)
        pixels = replace(self.pixels, image=self.pixels.image[:, rows, cols], valid=self.pixels.valid[rows, cols])
        return Wanted(planned, overlap(window, self.window), pixels, self.visible[rows, cols], self.ring, self.device)

    @cached_property
    def candidates(self) -> list[PlannedPatch]:
        """Patches that count anywhere in the reach: they depend on the region alone, not on what is asked of it."""
        reach, valid = self.planned.reach_in_region, self.pixels.valid
        return [p for p in self.planned.patches if valid[overlap(p.window, reach).toslices()].any()]

    def meets(self, patch: PlannedPatch) -> bool:
        """Tell whether the patch has a visible pixel in the window."""
        (top, bottom), (left, right) = patch.window.toranges()
        (first, last), (start, end) = self.window_in_region.toranges()
        return bool(self.visible[max(top, first) : min(bottom, last), max(left, start) : min(right, end)].any())

    def place(self, patch: PlannedPatch) -> Placement:
        """Find where a patch that meets the window counts."""
        kept = overlap(patch.window, self.window_in_region)
        rows, cols = shifted(kept, *_minus(self.window_in_region)).toslices()
        inside = shifted(kept, *_minus(patch.window)).toslices()
        row_weights, col_weights = self._weights
        return Placement(rows, cols, inside, torch.outer(row_weights[patch.row, inside[0]], col_weights[patch.col, inside[1]]))

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        rows, cols = self.planned.equal_patch_weights() if self.ring is None else self.planned.patch_weights(self.ring)
        # Once per region: a patch's own part of them would be a copy that waits.
        return to_device(torch.from_numpy(rows), self.device), to_device(torch.from_numpy(cols), self.device)


def _minus(window: Window) -> tuple[int, int]:
    return -int(window.row_off), -int(window.col_off)


_FINEST = 8  # px: squares whose mean colors continue an image where it has no pixels


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Pixels of one region on the device; of three 8-bit bands 4 bytes each, floats exist only of what is asked for.

    Args:
        image: ``(C, h, w)`` uint8 or float32.
        valid: ``(h, w)`` bool; ``None`` where all pixels are.
        mean: ``(C, 1, 1)`` on the 0–255 scale.
        std: ``(C, 1, 1)`` on the 0–255 scale.
    """

    image: Tensor
    valid: Tensor | None
    mean: Tensor
    std: Tensor

    def overview(self, shape: Shape) -> Tensor:
        """``(1, C, *shape)`` float32, normalized and decimated with antialiasing; band by band, for the memory."""
        bands = [
            # Without antialiasing a cell would show the few pixels at its center, not the mean of those that it covers.
            F.interpolate(self._normalized(slice(c, c + 1)), size=shape, mode="bilinear", align_corners=False, antialias=True)
            for c in range(len(self.image))
        ]
        return torch.cat(bands, dim=1).contiguous(memory_format=torch.channels_last)

    def patches(self, windows: Sequence[Window]) -> Tensor:
        """``(n, C, h, w)`` float32, normalized crops at windows of one size."""
        return torch.cat([self._normalized(slice(None), *window.toslices()) for window in windows])

    def _normalized(self, bands: slice, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        # Invalid pixels become the mean, which is 0 once normalized.
        image = self.image[bands, rows, cols].to(torch.float32, copy=True).sub_(self.mean[bands]).div_(self.std[bands])
        return (image if self.valid is None else image.masked_fill_(~self.valid[rows, cols], 0.0))[None]  # 0: the mean


def upload(pixels: Pixels, manifest: Manifest, device: torch.device) -> Uploaded:
    """Pixels to the device, from pinned memory where it is a GPU, so that the copy doesn't hold up the host.

    Raises:
        BandsError: the pixels have not the model's bands.
        ConfigError: valid ones are NaN or infinite.
    """
    found, wanted = pixels.image.shape[0], len(manifest.bands)
    if found != wanted:
        raise BandsError(f"{found} bands read, the model takes {wanted} ({manifest.bands}); set " + Keyword("bands"))
    _check_finite(pixels)
    mean, std = (to_device(torch.tensor(v)[:, None, None] * 255, device) for v in (manifest.bands.mean, manifest.bands.std))
    image = to_device(torch.from_numpy(pixels.image), device)
    if pixels.valid.all():  # as nearly always: no pass over a mask, for any patch
        return Uploaded(image, None, mean, std)
    valid = to_device(torch.from_numpy(pixels.valid), device)
    if pixels.is_stretched:
        return Uploaded(_continued(image, valid), None, mean, std)
    return Uploaded(image, valid, mean, std)


def _check_finite(pixels: Pixels) -> None:
    """Refuse values that would spread over everything, here where all patches are looked at once, and on the host."""
    if pixels.image.dtype == np.uint8:
        return
    spoilt = ~np.isfinite(pixels.image).all(axis=0) & pixels.valid
    if spoilt.any():
        raise ConfigError(f"{spoilt.sum()} valid pixels of a region are NaN or infinite; mark them as invalid")


def _continued(image: Tensor, valid: Tensor) -> Tensor:
    """Give pixels without a value the mean color of the smallest square around them that has one, blurred.

    The squares double from 8 px on. Memory: an eighth of a float32 copy of the image, and one of a band.
    """
    known = F.avg_pool2d(valid[None, None].float(), _FINEST, ceil_mode=True)
    continued = image.clone()
    for band in continued:
        sums = F.avg_pool2d((band * valid)[None, None].float(), _FINEST, ceil_mode=True)
        smooth = F.interpolate(_means(sums, known), size=valid.shape, mode="bilinear", align_corners=False)[0, 0]
        band.copy_(torch.where(valid, band, smooth.to(band.dtype)))
    return continued


def _means(sums: Tensor, known: Tensor) -> Tensor:
    """Divide sums of squares by their shares of known pixels; where there is none, take the means of squares twice as large."""
    means = sums / known.clamp(min=torch.finfo(known.dtype).tiny)
    if max(known.shape[-2:]) == 1:
        return means
    coarser = _means(*(F.avg_pool2d(part, 2, ceil_mode=True) for part in (sums, known)))
    return torch.where(known > 0, means, F.interpolate(coarser, size=known.shape[-2:], mode="bilinear", align_corners=False))


@dataclass(frozen=True, slots=True)
class Turn:
    """One symmetry: rows and columns exchanged first, if they are, then flips.

    Args:
        transposes: whether rows and columns are exchanged.
        flips_rows: whether the image is turned upside down.
        flips_cols: whether left and right are exchanged.
    """

    transposes: bool = False
    flips_rows: bool = False
    flips_cols: bool = False

    def apply(self, image: Tensor) -> Tensor:
        """``(…, h, w)`` turned."""
        turned = image.transpose(-2, -1) if self.transposes else image
        return torch.flip(turned, self._axes) if self._axes else turned

    def undo(self, image: Tensor) -> Tensor:
        """Turn back what :meth:`apply` returned."""
        turned = torch.flip(image, self._axes) if self._axes else image
        return turned.transpose(-2, -1) if self.transposes else turned

    def footprints(self, footprints: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """``(n, 4)`` fractions (top, left, bottom, right) of the turned region."""
        top, left, bottom, right = footprints.T
        # In the order of apply: exchanged first, flipped then.
        if self.transposes:
            top, left, bottom, right = left, top, right, bottom
        if self.flips_rows:
            top, bottom = 1 - bottom, 1 - top
        if self.flips_cols:
            left, right = 1 - right, 1 - left
        return np.stack([top, left, bottom, right], axis=1)

    @property
    def _axes(self) -> list[int]:
        return [axis for axis, flips in ((-2, self.flips_rows), (-1, self.flips_cols)) if flips]


AS_IT_IS = (Turn(),)
D4 = tuple(Turn(*choice) for choice in product((False, True), repeat=3))
