"""Region samples, the inputs of training: one frozen value, the same from every kind of data.

Needs neither GDAL nor TorchGeo, so that arrays prepared elsewhere can be trained on where there is only torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geoglnet.types import BandValues, Labels, Place, Shape

FILL_VALUE = 116
"""Value of pixels that an 8-bit image lacks: near ImageNet's mean color, with which the predictor fills too."""


def fill_of(dtype: np.dtype[Any]) -> np.generic:
    """Return the value of pixels that an image of a type lacks: in floats NaN, until the mean of each band is known."""
    return np.uint8(FILL_VALUE) if dtype == np.uint8 else np.float32(np.nan)


@dataclass(frozen=True, slots=True)
class LabeledRegion:
    """A region at the model's resolution and its labels.

    Args:
        image: ``(C, h, w)`` uint8, or float32 on the scale of 0 to 255, NaN where there is no value.
        labels: ``(h, w)`` uint8; 255 where nothing is known.
    """

    image: BandValues
    labels: Labels


class LabeledScene(Protocol):
    """Port: a scene with its truth on one grid, read by rows and columns that lie inside it."""

    @property
    def name(self) -> str:
        """Name for messages: a path or another identity."""

    @property
    def shape(self) -> Shape: ...

    def read_region(self, rows: slice, cols: slice) -> LabeledRegion:
        """Read image and labels."""

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        """Read labels alone, which may be much cheaper."""

    def read_valid(self, rows: slice, cols: slice) -> BandValues:
        """Read the valid pixels of the image alone, ``(C, n)``."""


@dataclass(frozen=True, slots=True)
class DecodedScene:
    """A labeled scene in memory: of three 8-bit bands and labels 4 bytes per pixel.

    Args:
        name: identity, for messages.
        whole: all of it.
    """

    name: str
    whole: LabeledRegion

    @property
    def shape(self) -> Shape:
        return Shape(*self.whole.labels.shape)

    def read_region(self, rows: slice, cols: slice) -> LabeledRegion:
        return LabeledRegion(self.whole.image[:, rows, cols], self.whole.labels[rows, cols])

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        return self.whole.labels[rows, cols]

    def read_valid(self, rows: slice, cols: slice) -> BandValues:
        image = self.whole.image[:, rows, cols]
        return image[:, np.isfinite(image).all(axis=0)]


@dataclass(frozen=True, slots=True)
class RegionSample:
    """A region as the network takes it; stacked along a batch axis by :func:`collate`.

    Args:
        overview: ``(C, h1, w1)`` float 0–1, the region decimated (paper's I^lr).
        overview_labels: ``(h, w)`` uint8 at the region's full resolution; losses resample logits to it.
        patches: ``(n, C, h2, w2)`` float 0–1 full-resolution crops (I^hr).
        patch_labels: ``(n, h2, w2)`` uint8.
        footprints: ``(n, 4)`` fractions of the region.
        skipped: messages about damaged files that were skipped while it was drawn.
    """

    overview: Tensor
    overview_labels: Tensor
    patches: Tensor
    patch_labels: Tensor
    footprints: Tensor
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegionBatch:
    """Region samples of one batch; ``overview_index[i]`` is the overview that patch ``i`` belongs to."""

    overviews: Tensor
    overview_labels: Tensor
    patches: Tensor
    patch_labels: Tensor
    footprints: Tensor
    overview_index: Tensor

    def to(self, device: torch.device) -> RegionBatch:
        """Copy the batch to another device."""
        return RegionBatch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def pin_memory(self) -> RegionBatch:
        """Copy the batch to memory that a GPU reads by itself."""
        return RegionBatch(*(getattr(self, f.name).pin_memory() for f in fields(self)))

    def part(self, chosen: slice) -> RegionBatch:
        """Select some of the patches; the overviews stay."""
        names = ("patches", "patch_labels", "footprints", "overview_index")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def normalized(self, mean: Tensor, std: Tensor) -> RegionBatch:
        """Normalize images by ``mean`` and ``std`` (each ``(C, 1, 1)``), in channels-last layout."""
        images = {name: ((getattr(self, name) - mean) / std) for name in ("overviews", "patches")}
        # Channels last is what convolutions run fastest on; made here, in the worker.
        laid_out = {name: image.contiguous(memory_format=torch.channels_last) for name, image in images.items()}
        return replace(self, **laid_out)


def cut(image: Tensor, labels: Tensor, overview_shape: Shape, places: Sequence[Place]) -> RegionSample:
    """Cut overview and patches out of one region, after augmentation, so that all of them agree.

    Args:
        image: ``(C, h, w)`` float 0–1.
        labels: ``(h, w)`` uint8.
        overview_shape: size to decimate the region to, antialiased.
        places: rows and columns of the patches.
    """
    overview = F.interpolate(image[None], size=tuple(overview_shape), mode="bilinear", antialias=True, align_corners=False)[0]
    # Footprints in float64 first: float32 could not hold the corners of large regions exactly.
    sides = torch.tensor([labels.shape[0], labels.shape[1]] * 2)
    corners = torch.tensor([(rows.start, cols.start, rows.stop, cols.stop) for rows, cols in places], dtype=torch.float64)
    return RegionSample(
        overview=overview,
        overview_labels=labels,
        patches=torch.stack([image[:, rows, cols] for rows, cols in places]),
        patch_labels=torch.stack([labels[rows, cols] for rows, cols in places]),
        footprints=(corners / sides).float(),
    )


def collate(samples: Sequence[RegionSample]) -> RegionBatch:
    """Stack samples of equal shapes into a batch."""
    # Samples may have different numbers of patches, so patches are concatenated and remember their overview.
    index = torch.arange(len(samples)).repeat_interleave(torch.tensor([len(s.patches) for s in samples]))
    return RegionBatch(
        overviews=torch.stack([s.overview for s in samples]),
        overview_labels=torch.stack([s.overview_labels for s in samples]),
        patches=torch.cat([s.patches for s in samples]),
        patch_labels=torch.cat([s.patch_labels for s in samples]),
        footprints=torch.cat([s.footprints for s in samples]),
        overview_index=index,
    )
