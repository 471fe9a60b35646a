"""Region samplers: choose the square of a scene that becomes sample number i, by the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from geoglnet.bands import Bands
from geoglnet.blending import patch_offsets
from geoglnet.config import RegionConfig
from geoglnet.datasets.regions import LabeledRegion, LabeledScene, RegionSample, cut, fill_of
from geoglnet.datasets.survey import Survey, survey
from geoglnet.datasets.transforms import AugmentConfig, recolor, resample, resample_labels, turn
from geoglnet.errors import ConfigError, DatasetError, SceneError
from geoglnet.legend import NO_CLASS
from geoglnet.types import Place, Shape

ATTEMPTS = 8  # to draw a region that can be read and has a label


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """Settings of drawing region samples.

    Args:
        region_size: side of a training region in pixels at the model's resolution; smaller scenes are filled up unlabeled.
        patch_size: side of its patches.
        patches_per_region: patches drawn at random places of each region; 0 takes all of them, as prediction does (and as
            the paper does).
        balanced_fraction: share of samples centered on a pixel of a class drawn uniformly; the rest lie anywhere.
        order: ``"random"``, or ``"exhaustive"``: every region of every scene once per round, in an order drawn anew each
            round (the paper's epochs).
        skip_corrupt: skip damaged files, with a warning, instead of stopping.
        coarse_to_fine: after the global stage, train on the part of each region that the global branch takes for foreground
            (paper §3.3); for legends of a background and one other class.
        cache_mb: memory for decoded scenes; what exceeds it is read from its file for every sample.

    Raises:
        ConfigError: a number is out of range.
    """

    region_size: int = 2448
    patch_size: int = 500
    patches_per_region: int = 6
    balanced_fraction: float = 0.5
    order: Literal["random", "exhaustive"] = "random"
    skip_corrupt: bool = False
    coarse_to_fine: bool = False
    cache_mb: int = 1024

    def __post_init__(self) -> None:
        if not 32 <= self.patch_size <= self.region_size:
            raise ConfigError(f"sample.patch_size {self.patch_size} must be from 32 to sample.region_size {self.region_size}")
        if self.region_size > RegionConfig.LARGEST:
            raise ConfigError(f"sample.region_size {self.region_size} must be at most {RegionConfig.LARGEST}")
        if not 0 <= self.patches_per_region <= 1_000_000:
            raise ConfigError(f"sample.patches_per_region {self.patches_per_region} must be at least 1, or 0 for all")
        if not 0 <= self.balanced_fraction <= 1:
            raise ConfigError(f"sample.balanced_fraction {self.balanced_fraction} must be from 0 to 1")
        if self.order not in ("random", "exhaustive"):
            raise ConfigError(f"sample.order = {self.order!r} must be 'random' or 'exhaustive'")
        if self.cache_mb < 0:
            raise ConfigError(f"sample.cache_mb {self.cache_mb} must be 0 or more")


@dataclass(frozen=True, slots=True)
class Square:
    """A square of a scene, which may reach beyond it.

    Args:
        scene: index of the scene.
        row: first row.
        col: first column.
        size: side in pixels.
    """

    scene: int
    row: int
    col: int
    size: int

    def scaled(self, factor: float) -> Square:
        """Scale the square around its center."""
        size = round(self.size * factor)
        return replace(self, row=self.row - (size - self.size) // 2, col=self.col - (size - self.size) // 2, size=size)


class RegionSampler(Protocol):
    """Port: chooses the squares of samples."""

    def draw(self, index: int, size: int, rng: np.random.Generator) -> Square:
        """Choose the square of sample ``index``, ``size`` pixels wide; all randomness comes from ``rng``."""


@dataclass(frozen=True, slots=True)
class RandomSampler:
    """Squares anywhere, a fraction of them around pixels of a class drawn uniformly, which favors rare classes.

    Args:
        shapes: shapes of the scenes.
        weights: relative frequency of each scene.
        surveyed: places with labels.
        balanced_fraction: fraction of samples drawn by class.
    """

    shapes: Sequence[Shape]
    weights: npt.NDArray[np.float64]
    surveyed: Survey
    balanced_fraction: float

    def draw(self, index: int, size: int, rng: np.random.Generator) -> Square:
        if rng.random() < self.balanced_fraction:
            places = self.surveyed.places[int(rng.choice(list(self.surveyed.places)))]
            scene, row, col = (int(v) for v in places[rng.integers(len(places))])
            # The pixel lies anywhere in the square: always in its center, it would teach the network where to look.
            return Square(scene, row - int(rng.integers(size)), col - int(rng.integers(size)), size)
        scene = int(rng.choice(len(self.shapes), p=self.weights / self.weights.sum()))
        row, col = (int(rng.integers(min(0, n - size), max(0, n - size) + 1)) for n in self.shapes[scene])
        return Square(scene, row, col, size)


@dataclass(frozen=True, slots=True)
class ExhaustiveSampler:
    """Every square of a list once per round, in an order drawn anew each round.

    Args:
        squares: squares of one round.
        seed: seed of the orders.
    """

    squares: Sequence[Square]
    seed: int

    def draw(self, index: int, size: int, rng: np.random.Generator) -> Square:
        # The order of a round follows from seed and round alone: any process can compute it, and resuming needs no state.
        turn_number, place = divmod(index, len(self.squares))
        order = np.random.default_rng((self.seed, turn_number)).permutation(len(self.squares))
        square: Square = self.squares[order[place]]
        return square.scaled(size / square.size)


def all_squares(shapes: Sequence[Shape], size: int) -> list[Square]:
    """List the fewest squares that cover each scene, evenly spread and flush with its borders; one where it is smaller."""
    return [
        Square(scene, row, col, size)
        for scene, shape in enumerate(shapes)
        for row in even_starts(shape.height, size)
        for col in even_starts(shape.width, size)
    ]


def even_starts(length: int, size: int, stride: int | None = None) -> list[int]:
    """List the starts of the fewest squares that cover an axis, evenly spread and flush with both ends.

    Args:
        length: of the axis.
        size: of the squares.
        stride: greatest distance between starts; ``size`` when left out.
    """
    count = 1 + max(0, -(-(length - size) // (stride or size)))
    return [round(start) for start in np.linspace(0, max(0, length - size), count)]


class Focus(Protocol):
    """Port: chooses the part of a region that a sample is narrowed to."""

    def place(self, image: torch.Tensor, rng: np.random.Generator) -> Place | None:
        """Choose rows and columns of a ``(C, h, w)`` float 0–1 region, no smaller than a patch; ``None`` for all of it."""


@dataclass(slots=True)
class RegionDataset(Dataset[RegionSample]):
    """Regions of labeled scenes; sample ``i`` depends on ``seed`` and ``i`` only, not on workers or order.

    Args:
        scenes: sources of regions.
        weights: relative frequency of each scene.
        region: sizes of the model, for the overview's decimation.
        sample: sizes and numbers of samples.
        augment: settings of augmentation.
        length: number of samples.
        seed: seed of everything that is drawn.
        surveyed: places with labels; searched for when left out.
        first: index of the first sample, to resume a training.
        focus: narrows samples to a part of their region; its overview is made anew, as large as the whole region's.
        bands: of the scenes, with their mean: augmentation depends on what they are, and pixels without a value become it.
        has_patches: whether samples have patches; a stage that looks at overviews alone needs none.

    Raises:
        DatasetError: nothing is labeled.
    """

    scenes: Sequence[LabeledScene]
    weights: Sequence[float]
    region: RegionConfig
    sample: SampleConfig
    augment: AugmentConfig
    length: int
    seed: int = 0
    surveyed: Survey | None = None
    first: int = 0
    focus: Focus | None = None
    bands: Bands = Bands()  # noqa: RUF009 - it is frozen
    has_patches: bool = True
    squares: list[Square] = field(init=False)

    def __post_init__(self) -> None:
        self.surveyed = self.surveyed or survey(self.scenes)
        if not self.surveyed:
            raise DatasetError(f"none of {len(self.scenes)} training scenes has a labeled pixel; check polygons and labels")
        shapes, size, known = [scene.shape for scene in self.scenes], self.sample.region_size, self.surveyed
        self.squares = [s for s in all_squares(shapes, size) if known.is_labeled(s.scene, s.row, s.col, s.size)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> RegionSample:
        index += self.first
        # One generator a sample, read in a fixed order: the sample is the same in any worker, batch or resumed training.
        rng = np.random.default_rng((self.seed, index))
        region, skipped = self._read(index, rng)
        shape = Shape(self.sample.region_size, self.sample.region_size)
        made = sample_of(region, shape, rng, self.region, self.sample, self.augment, self.bands, self.focus)
        if not self.has_patches:
            none = {name: getattr(made, name)[:0] for name in ("patches", "patch_labels", "footprints")}
            made = replace(made, **none)
        return replace(made, skipped=tuple(skipped))

    @property
    def sampler(self) -> RegionSampler:
        """Sampler for the configured order."""
        if self.sample.order == "exhaustive":
            return ExhaustiveSampler(self.squares, self.seed)
        return self._random

    @property
    def _random(self) -> RandomSampler:
        shapes = [scene.shape for scene in self.scenes]
        return RandomSampler(shapes, np.asarray(self.weights), self.surveyed or Survey({}), self.sample.balanced_fraction)

    def _read(self, index: int, rng: np.random.Generator) -> tuple[LabeledRegion, list[str]]:
        """Read a region with a label; it is drawn again, a few times, where there is none or a file is damaged."""
        skipped: list[str] = []
        sampler, region = self.sampler, None
        for _ in range(ATTEMPTS):
            size = round(self.sample.region_size * self.augment.draw_scale(rng))
            square = sampler.draw(index, size, rng)
            try:
                region = read_filled(self.scenes[square.scene], square.row, square.col, square.size)
            except SceneError as error:
                if not self.sample.skip_corrupt:
                    raise
                skipped.append(str(error))
            if region is not None and (region.labels != NO_CLASS).any():
                break
            sampler = self._random  # an exhaustive one would draw the same square again
        if region is None:
            raise DatasetError(f"{ATTEMPTS} regions in a row are in damaged files, the last: {skipped[-1]}")
        return region, skipped


def sample_of(
    region: LabeledRegion,
    shape: Shape,
    rng: np.random.Generator,
    config: RegionConfig,
    sample: SampleConfig,
    augment: AugmentConfig,
    bands: Bands,
    focus: Focus | None = None,
) -> RegionSample:
    """Make a sample of a region that was read: the one way from pixels to overview and patches, whatever they came from.

    Args:
        region: image and labels.
        shape: shape that the region is resampled to.
        rng: source of randomness, read in a fixed order: turns, colors, focus, patches.
        config: sizes of the model, for the overview's decimation.
        sample: size and number of patches.
        augment: settings of augmentation; its scales belong to the choice of the region.
        bands: of the image, with their mean: augmentation depends on what they are, and pixels without a value become it.
        focus: narrows the sample to a part of the region; its overview is made anew, as large as the whole region's.
    """
    image = torch.from_numpy(region.image)
    if image.dtype != torch.uint8:
        image = image.float() / 255
    if not bands.is_8bit:  # the network gets the mean for pixels without a value when it predicts
        image = torch.where(image.isnan(), torch.tensor(bands.mean)[:, None, None], image)
    # 8-bit values stay 8-bit ones, as in a scene that is read to be predicted: a fourth of the bytes.
    image, labels = resample(image, torch.from_numpy(region.labels), shape)
    if augment.d4:
        image, labels = turn(image, labels, rng)
    if image.dtype == torch.uint8:
        image = image.float() / 255
    # Geometry and color of the whole region first: overview and patches must look like one image.
    image = recolor(image, augment.color, rng, bands)
    place = None if focus is None else focus.place(image, rng)
    if place is not None:
        image, labels = image[:, *place], labels[place]
    places = _patches(labels, sample, config.patch_overlap, rng)
    made = cut(image.contiguous(), labels.contiguous(), config.overview_shape(shape), places)
    # A narrowed region has another size: labels are resampled, so that samples of a batch can be stacked.
    return replace(made, overview_labels=resample_labels(made.overview_labels, shape))


def _patches(labels: torch.Tensor, sample: SampleConfig, overlap: int, rng: np.random.Generator) -> list[Place]:
    """Choose all patches of a region, or some at random, tried again, a few times, where nothing is labeled."""
    size, shape = sample.patch_size, labels.shape
    if sample.patches_per_region == 0:
        row_starts, col_starts = (patch_offsets(side, size, min(overlap, size - 1)) for side in shape)
        return [(slice(row, row + size), slice(col, col + size)) for row in row_starts for col in col_starts]
    places: list[Place] = []
    # Patches without a label are rejected at first, and accepted at last, so that every sample has as many as it should.
    for attempt in range(4 * sample.patches_per_region):
        row, col = (int(rng.integers(0, side - size + 1)) for side in shape)
        rows, cols = slice(row, row + size), slice(col, col + size)
        if (labels[rows, cols] != NO_CLASS).any() or attempt >= 3 * sample.patches_per_region:
            places.append((rows, cols))
        if len(places) == sample.patches_per_region:
            break
    return places


def read_filled(scene: LabeledScene, row: int, col: int, size: int) -> LabeledRegion:
    """Read a square of a scene, shifted inside it if possible, filled up with unlabeled gray where the scene is smaller."""
    height, width = scene.shape
    # Along an axis where the scene is larger, the square is shifted inside; where it is smaller, the scene lies inside the
    # square, at the place that was drawn.
    row, col = (
        min(max(row, min(0, height - size)), max(0, height - size)),
        min(max(col, min(0, width - size)), max(0, width - size)),
    )
    top, left = max(row, 0), max(col, 0)
    region = scene.read_region(slice(top, min(row + size, height)), slice(left, min(col + size, width)))
    if region.labels.shape == (size, size):
        return region
    image = np.full((region.image.shape[0], size, size), fill_of(region.image.dtype), dtype=region.image.dtype)
    labels = np.full((size, size), NO_CLASS, dtype=np.uint8)
    rows, cols = (slice(a, a + n) for a, n in zip((top - row, left - col), region.labels.shape, strict=True))
    image[:, rows, cols], labels[rows, cols] = region.image, region.labels
    return LabeledRegion(image, labels)
