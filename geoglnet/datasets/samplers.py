"""Region sampler: which window of which scene makes sample number i, wholly determined by the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window
from torch.utils.data import Dataset

from geoglnet.config import RegionConfig
from geoglnet.datasets.regions import FILL_VALUE, LabelledRegion, LabelledScene, RegionSample, cut
from geoglnet.datasets.transforms import AugmentConfig, recolour, resample, turn
from geoglnet.errors import ConfigError, DatasetError
from geoglnet.legend import NO_CLASS
from geoglnet.types import Shape
from geoglnet.windows import patch_windows

SURVEY_STEP = 16  # every how many pixels labels are looked at to find rare classes


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """How region samples are drawn.

    Args:
        region_size: side of a training region in pixels at the model's resolution; smaller scenes are filled up unlabelled.
        patch_size: side of its patches.
        patches_per_region: patches drawn at random places of each region; 0 takes all of them, as when segmenting (and as
            the paper does).
        balanced_fraction: share of samples centred on a pixel of a class drawn uniformly; the rest lie anywhere.

    Raises:
        ConfigError: numbers that no sample can be drawn with.
    """

    region_size: int = 2448
    patch_size: int = 500
    patches_per_region: int = 6
    balanced_fraction: float = 0.5

    def __post_init__(self) -> None:
        if not 32 <= self.patch_size <= self.region_size:
            raise ConfigError(f"sample.patch_size {self.patch_size} must be from 32 to sample.region_size {self.region_size}")
        if self.patches_per_region < 0:
            raise ConfigError(f"sample.patches_per_region {self.patches_per_region} must be at least 1, or 0 for all")
        if not 0 <= self.balanced_fraction <= 1:
            raise ConfigError(f"sample.balanced_fraction {self.balanced_fraction} must be from 0 to 1")


@dataclass(slots=True)
class RegionDataset(Dataset[RegionSample]):
    """Random regions of labelled scenes; sample ``i`` depends on ``seed`` and ``i`` only, not on workers or order.

    Args:
        scenes: where regions come from.
        weights: how likely each scene is drawn.
        region: the model's sizes, for the overview's decimation.
        sample: sizes and numbers of samples.
        augment: how they are varied.
        length: number of samples.
        seed: of everything drawn.

    Raises:
        DatasetError: nothing is labelled.
    """

    scenes: Sequence[LabelledScene]
    weights: Sequence[float]
    region: RegionConfig
    sample: SampleConfig
    augment: AugmentConfig
    length: int
    seed: int = 0
    _places: dict[int, npt.NDArray[np.int32]] = field(init=False)

    def __post_init__(self) -> None:
        self._places = class_places(self.scenes)
        if not self._places:
            raise DatasetError(f"none of {len(self.scenes)} training scenes has a labelled pixel; check polygons and labels")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> RegionSample:
        rng = np.random.default_rng((self.seed, index))
        region = self._draw(rng)
        image = torch.from_numpy(region.image).float() / 255
        image, labels = resample(image, torch.from_numpy(region.labels), (self.sample.region_size,) * 2)
        if self.augment.d4:
            image, labels = turn(image, labels, rng)
        image = recolour(image, self.augment.colour, rng)
        shape = Shape(self.sample.region_size, self.sample.region_size)
        return cut(image.contiguous(), labels.contiguous(), self.region.overview_shape(shape), self._patches(labels, rng))

    def _draw(self, rng: np.random.Generator) -> LabelledRegion:
        size = round(self.sample.region_size * self.augment.draw_scale(rng))
        if rng.random() < self.sample.balanced_fraction:
            places = self._places[int(rng.choice(list(self._places)))]
            scene_index, row, col = (int(v) for v in places[rng.integers(len(places))])
            row, col = row - int(rng.integers(size)), col - int(rng.integers(size))
        else:
            scene_index = int(rng.choice(len(self.scenes), p=np.asarray(self.weights) / np.sum(self.weights)))
            height, width = self.scenes[scene_index].shape
            row, col = (int(rng.integers(min(0, n - size), max(0, n - size) + 1)) for n in (height, width))
        return read_filled(self.scenes[scene_index], row, col, size)

    def _patches(self, labels: torch.Tensor, rng: np.random.Generator) -> list[Window]:
        """All patches, or some anywhere in the region, tried again (a few times) where nothing is labelled."""
        size, free = self.sample.patch_size, self.sample.region_size - self.sample.patch_size
        if self.sample.patches_per_region == 0:
            return patch_windows(Shape(size + free, size + free), size, min(self.region.patch_overlap, size - 1))
        windows: list[Window] = []
        for attempt in range(4 * self.sample.patches_per_region):
            row, col = (int(v) for v in rng.integers(0, free + 1, size=2))
            labelled = (labels[row : row + size, col : col + size] != NO_CLASS).any()
            if labelled or attempt >= 3 * self.sample.patches_per_region:
                windows.append(Window(col_off=col, row_off=row, width=size, height=size))
            if len(windows) == self.sample.patches_per_region:
                break
        return windows


def read_filled(scene: LabelledScene, row: int, col: int, size: int) -> LabelledRegion:
    """A square of a scene, shifted inside it where it can be, filled up with unlabelled grey where the scene is smaller."""
    height, width = scene.shape
    row, col = (
        min(max(row, min(0, height - size)), max(0, height - size)),
        min(max(col, min(0, width - size)), max(0, width - size)),
    )
    top, left = max(row, 0), max(col, 0)
    inside = Window(col_off=left, row_off=top, width=min(col + size, width) - left, height=min(row + size, height) - top)
    region = scene.read_region(inside)
    if region.labels.shape == (size, size):
        return region
    image = np.full((region.image.shape[0], size, size), FILL_VALUE, dtype=np.uint8)
    labels = np.full((size, size), NO_CLASS, dtype=np.uint8)
    rows, cols = (slice(a, a + n) for a, n in zip((top - row, left - col), region.labels.shape, strict=True))
    image[:, rows, cols], labels[rows, cols] = region.image, region.labels
    return LabelledRegion(image, labels)


def class_places(scenes: Sequence[LabelledScene]) -> dict[int, npt.NDArray[np.int32]]:
    """Where each class occurs, on a coarse lattice: ``(n, 3)`` of scene index, row and column.

    Costs 12 bytes per 256 labelled pixels.
    """
    found: dict[int, list[npt.NDArray[np.int32]]] = {}
    for index, scene in enumerate(scenes):
        for row in range(0, scene.shape.height, 1024):
            strip = Window(col_off=0, row_off=row, width=scene.shape.width, height=min(1024, scene.shape.height - row))
            labels = scene.read_region(strip).labels[::SURVEY_STEP, ::SURVEY_STEP]
            for value in np.unique(labels[labels != NO_CLASS]):
                rows, cols = np.nonzero(labels == value)
                places = np.stack([np.full_like(rows, index), row + rows * SURVEY_STEP, cols * SURVEY_STEP], axis=1)
                found.setdefault(int(value), []).append(places.astype(np.int32))
    return {value: np.concatenate(parts) for value, parts in sorted(found.items())}
