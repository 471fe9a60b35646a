"""Region samples: what training sees (DESIGN §4). One frozen value, the same from every kind of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rasterio.windows import Window
from torch import Tensor

from geoglnet.types import Shape
from geoglnet.windows import footprints

FILL_VALUE = 116
"""What stands where an image has no pixel: near ImageNet's mean colour, which is what the predictor puts there."""


@dataclass(frozen=True, slots=True)
class LabelledRegion:
    """A region at the model's resolution and its labels.

    Args:
        image: ``(C, h, w)`` uint8.
        labels: ``(h, w)`` uint8; 255 where nothing is known.
    """

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


class LabelledScene(Protocol):
    """Port: a scene with its truth on one grid, read by window."""

    @property
    def name(self) -> str:
        """Path or other identity, for messages."""

    @property
    def shape(self) -> Shape: ...

    def read_region(self, window: Window) -> LabelledRegion:
        """Image and labels of a window that lies inside the scene."""


@dataclass(frozen=True, slots=True)
class RegionSample:
    """A region as the network takes it; stacked along a batch axis by :func:`collate`.

    Args:
        overview: ``(C, h1, w1)`` float 0–1, the region decimated (paper's I^lr).
        overview_labels: ``(h, w)`` uint8 at the region's full resolution; losses resample logits to it.
        patches: ``(n, C, h2, w2)`` float 0–1 full-resolution crops (I^hr).
        patch_labels: ``(n, h2, w2)`` uint8.
        footprints: ``(n, 4)`` fractions of the region.
    """

    overview: Tensor
    overview_labels: Tensor
    patches: Tensor
    patch_labels: Tensor
    footprints: Tensor


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
        """The same batch on another device."""
        return RegionBatch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def part(self, chosen: slice) -> RegionBatch:
        """The same overviews with some of the patches."""
        names = ("patches", "patch_labels", "footprints", "overview_index")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def normalised(self, mean: Tensor, std: Tensor) -> RegionBatch:
        """The same batch with images less ``mean`` over ``std`` (each ``(C, 1, 1)``), laid out channels last."""
        images = {name: ((getattr(self, name) - mean) / std) for name in ("overviews", "patches")}
        laid_out = {name: image.contiguous(memory_format=torch.channels_last) for name, image in images.items()}
        return replace(self, **laid_out)


def cut(image: Tensor, labels: Tensor, overview_shape: Shape, windows: Sequence[Window]) -> RegionSample:
    """Overview and patches of one region, after any augmentation, so that all of them agree.

    Args:
        image: ``(C, h, w)`` float 0–1.
        labels: ``(h, w)`` uint8.
        overview_shape: size to decimate the region to, antialiased.
        windows: the patches.
    """
    shape = Shape(image.shape[-2], image.shape[-1])
    overview = F.interpolate(image[None], size=tuple(overview_shape), mode="bilinear", antialias=True, align_corners=False)[0]
    slices = [w.toslices() for w in windows]
    return RegionSample(
        overview=overview,
        overview_labels=labels,
        patches=torch.stack([image[:, rows, cols] for rows, cols in slices]),
        patch_labels=torch.stack([labels[rows, cols] for rows, cols in slices]),
        footprints=torch.from_numpy(footprints(windows, shape)),
    )


def collate(samples: Sequence[RegionSample]) -> RegionBatch:
    """Stack samples of equal shapes into a batch."""
    index = torch.arange(len(samples)).repeat_interleave(torch.tensor([len(s.patches) for s in samples]))
    return RegionBatch(
        overviews=torch.stack([s.overview for s in samples]),
        overview_labels=torch.stack([s.overview_labels for s in samples]),
        patches=torch.cat([s.patches for s in samples]),
        patch_labels=torch.cat([s.patch_labels for s in samples]),
        footprints=torch.cat([s.footprints for s in samples]),
        overview_index=index,
    )
