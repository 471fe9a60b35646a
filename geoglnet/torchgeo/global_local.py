"""GlobalLocalDataset: samples of overview and patches from any GeoDataset of images and labels.

Where the images are rasters that TorchGeo returns as their files hold them, the files are read by our own reader, as
``geoglnet predict`` reads them: nodata, alpha, masks, NaN, 16 bits and bands by name, all of which TorchGeo's reader either
turns into zeros or does not know. Any other dataset is read by its own ``__getitem__``.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
import torch
from affine import Affine
from matplotlib.figure import Figure
from rasterio.crs import CRS

from geoglnet.bands import Bands
from geoglnet.config import RegionConfig
from geoglnet.datasets.coding import legend_coding
from geoglnet.datasets.moments import measure_moments
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.regions import LabeledRegion, RegionBatch, RegionSample
from geoglnet.datasets.samplers import SampleConfig, sample_of
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.datasets.truth import window_box
from geoglnet.errors import ConfigError, DatasetError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.progress import Progress, Rule, SilentProgress
from geoglnet.raster.grid import ground_pixel_size, pixel_size_m
from geoglnet.torchgeo.adapter import (
    Cuboid,
    GeoDataset,
    footprints,
    image_parts,
    overlapping,
    parts_of,
    place_keys,
    placed_index,
    reads_files_plainly,
    resolved,
    stack_samples,
)
from geoglnet.torchgeo.pixel_frame import PixelFrameDataset
from geoglnet.torchgeo.readings import FileReading, OwnReading, Reading, StackedReading, inside_of, open_rasters, own_scaling
from geoglnet.training.pictures import as_rgb, colored
from geoglnet.types import Labels, Shape

STILL = AugmentConfig(d4=False, scale_min=1, scale_max=1, color=0)


class RegionQuery(tuple[slice, slice, slice]):
    """A TorchGeo query ``(x, y, t)`` that also says what seeds the random choices in its sample; any GeoDataset takes it."""

    seed: tuple[int, ...]

    def __new__(cls, place: Cuboid, seed: Sequence[int]) -> RegionQuery:
        self = super().__new__(cls, place)
        self.seed = tuple(seed)
        return self

    def __reduce__(self) -> tuple[Any, ...]:  # to other processes; a tuple would leave the seed behind
        return RegionQuery, (tuple(self), self.seed)


class GlobalLocalDataset(GeoDataset):
    """Region samples of a GeoDataset of images and labels, by query: overview and patches, for GLNet or a model of yours.

    A query is TorchGeo's, ``dataset[x0:x1, y0:y1, t0:t1]``, of any size: it is the region. A coarser step than the dataset's
    resolution decimates all of it. Labels outside of the dataset's index, which splits clip, are unknown: no sample of a split
    shows labels of another one.

    A sample has the keys ``image`` (the overview, ``(C, h1, w1)`` float32), ``mask`` (labels of the region at full resolution,
    ``(h, w)`` int64), ``patches`` ``(n, C, h2, w2)``, ``patch_masks`` ``(n, h2, w2)``, ``footprints`` ``(n, 4)`` (top, left,
    bottom, right as fractions of the region), and where it lies: ``bounds``, ``transform`` and, where TorchGeo's samples
    have it, ``crs``. Images are 0 to 1, or the range of ``bands``, and not normalized; unknown labels are 255.

    The overview is the query with a coarser step: it is decimated from what was read once, so that both agree.

    Memory: one region at full resolution in float32, and in every worker decoded rasters up to ``sample.cache_mb``, five bytes
    per pixel of three 8-bit bands; those that do not fit are opened anew for every read.

    Args:
        dataset: intersection, union or time series whose samples have ``image`` and ``mask``.
        legend: classes; values of labels are its numbers, 255 and its ``ignore_value`` are unknown.
        values: class name by label value, where the labels differ from the legend.
        bands: names of the images' bands and how their values are scaled. Of images that the dataset reads itself they are
            taken in the dataset's order.
        region: how much an overview is decimated: ``overview_size`` to ``region_size``; overlap of the patches.
        sample: ``patch_size``, ``patches_per_region`` and ``cache_mb``; the rest is the sampler's.
        augment: turns and colors; the scales are not used.
        seed: of the random choices in a sample, with the place of its query or, of a :class:`RegionQuery`, its seed.
        transforms: applied to a sample at the end.
        progress: receives the rules that are applied.

    Raises:
        ConfigError: bands without mean and std that cannot be measured.
        DatasetError: files cannot be used, or labels contradict the legend.
        SceneError: a raster cannot be read.
    """

    def __init__(
        self,
        dataset: GeoDataset,
        legend: Legend,
        *,
        values: Mapping[str, str] | None = None,
        bands: Bands = Bands(),  # noqa: B008 - it is frozen
        region: RegionConfig = RegionConfig(),  # noqa: B008
        sample: SampleConfig = SampleConfig(),  # noqa: B008
        augment: AugmentConfig = STILL,
        seed: int = 0,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
    ) -> None:
        self.dataset = dataset
        self.index = placed_index(dataset)
        self._res = (dataset.res[0], dataset.res[1])
        self.legend = legend
        self.region = region
        self.sample_config = sample
        self.augment = augment
        self.seed = seed
        self.transforms = transforms
        coding = legend_coding(legend, values or {}, ())
        parts = parts_of(dataset)
        reader = PairReader(Path(), legend, math.nan, progress, bands=bands)  # the dataset names the files and their resolution
        if isinstance(dataset, PixelFrameDataset):
            self._reading: Reading = dataset.opened(reader, sample.cache_mb * 2**20)
        elif parts is not None and all(map(reads_files_plainly, image_parts(parts[0]))):
            around = shapely.union_all(footprints(dataset)).buffer(region.region_size * max(self._res))
            self._reading = open_rasters(*parts, coding, reader, around, sample.cache_mb * 2**20)
            progress.log(Rule(f"the files of {type(parts[0]).__name__} are read by geoglnet: nodata, alpha, bands by name"))
        else:
            self._reading = OwnReading(dataset, coding, bands, own_scaling(dataset, bands))
            progress.log(Rule(f"{type(dataset).__name__} is read by its own __getitem__: its zeros may be nodata"))
        if not bands.is_measured:
            bands = self._measured(reader)
        self.bands = bands

    @property
    def crs(self) -> Any:
        """CRS of the dataset, which is settled when it is wrapped."""
        return self.index.crs

    @crs.setter
    def crs(self, new_crs: Any) -> None:
        if new_crs != self.index.crs:
            raise DatasetError(f"a GlobalLocalDataset keeps its CRS; set dataset.crs = {new_crs.name!r} before wrapping it")

    @property
    def res(self) -> tuple[float, float]:
        """Resolution of the dataset, which is settled when it is wrapped."""
        return self._res

    @res.setter
    def res(self, new_res: float | tuple[float, float]) -> None:
        both = new_res if isinstance(new_res, tuple) else (new_res, new_res)
        if both != self._res:
            raise DatasetError(f"a GlobalLocalDataset keeps its resolution; set dataset.res = {new_res} before wrapping it")

    @property
    def resolution_m(self) -> float:
        """Geodesic ground size of a pixel in meters, in the middle of the dataset; its size in the CRS where there is none."""
        left, bottom, right, top = shapely.total_bounds(footprints(self))
        middle = Affine(self.res[0], 0, (left + right) / 2, 0, -self.res[1], (bottom + top) / 2)
        size = ground_pixel_size(CRS.from_wkt(self.crs.to_wkt()), middle, Shape(1, 1))
        return pixel_size_m(size) or math.sqrt(self.res[0] * self.res[1])

    def __getitem__(self, index: Any) -> dict[str, Any]:
        """Make the sample of a query.

        Raises:
            IndexError: no image is there.
            DatasetError: labels that cannot be used, or a region smaller than a patch.
            SceneError: a raster is damaged there.
        """
        place = resolved(self, index)
        seed = index.seed if isinstance(index, RegionQuery) else _seed_of(place)
        made = self.region_sample(place, np.random.default_rng((self.seed, *seed)))
        height, width = made.overview_labels.shape
        x, y, _ = place
        transform = Affine((x.stop - x.start) / width, 0, x.start, 0, (y.start - y.stop) / height, y.stop)
        sample = {
            "image": made.overview,
            "mask": made.overview_labels.long(),
            "patches": made.patches,
            "patch_masks": made.patch_labels.long(),
            "footprints": made.footprints,
        } | place_keys(self.crs, place, transform)
        return sample if self.transforms is None else self.transforms(sample)

    def plot(self, sample: Mapping[str, Any], show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Draw a sample as TorchGeo's datasets do: overview, labels, and ``prediction`` where it has one.

        Args:
            sample: of this dataset, with tensors of one region.
            show_titles: whether each picture has a title.
            suptitle: title of the figure.
        """
        image = (sample["image"].numpy() * 255).astype(np.uint8 if self.bands.is_8bit else np.float32)
        pictures = {"image": as_rgb(image, self.bands)}
        for key in ("mask", "prediction"):
            if key in sample:
                pictures[key] = colored(sample[key].numpy().astype(np.uint8), self.legend)
        return side_by_side(pictures, show_titles, suptitle)

    def region_sample(self, place: Any, rng: np.random.Generator) -> RegionSample:
        """Make the sample of a query as training takes it, with random choices by a generator.

        Raises:
            IndexError: no image is there.
            DatasetError: labels that cannot be used, or a region smaller than a patch.
            SceneError: a raster is damaged there.
        """
        x, y, time = resolved(self, place)
        shape = Shape(_count(y, abs(y.step)), _count(x, abs(x.step)))
        if min(shape) < self.sample_config.patch_size:
            raise DatasetError(
                f"a region of {shape.width} × {shape.height} px is smaller than its patches of {self.sample_config.patch_size} "
                "px; ask for a larger one, or set SampleConfig(patch_size=…)"
            )
        region = self.read(x, y, time)
        return sample_of(region, shape, rng, self.region, self.sample_config, self.augment, self.bands)

    def read(self, x: slice, y: slice, time: slice) -> LabeledRegion:
        """Read image and labels of a place at the dataset's resolution, before anything is cut.

        Raises:
            IndexError: no image is there.
            DatasetError: labels that cannot be used.
            SceneError: a raster is damaged there.
        """
        transform, shape = self._window(x, y)
        region = self._reading.read(transform, shape, time)
        return LabeledRegion(region.image, self._within(region.labels, transform, time))

    def read_labels(self, x: slice, y: slice, time: slice) -> Labels:
        """Read the labels of a place at the dataset's resolution, which costs less than the image."""
        transform, shape = self._window(x, y)
        return self._within(self._reading.read_labels(transform, shape, time), transform, time)

    def _window(self, x: slice, y: slice) -> tuple[Affine, Shape]:
        shape = Shape(_count(y, self._res[1]), _count(x, self._res[0]))
        return Affine(self._res[0], 0, x.start, 0, -self._res[1], y.stop), shape

    def _within(self, labels: Labels, transform: Affine, time: slice) -> Labels:
        """Make labels outside of the dataset's index unknown."""
        shape, box = Shape(*labels.shape), window_box(transform, Shape(*labels.shape))
        entries = footprints(self)[overlapping(self, time)]
        area = shapely.union_all(entries[shapely.intersects(entries, box)])
        return labels if area.contains(box) else np.where(inside_of(area, transform, shape), labels, np.uint8(NO_CLASS))

    def _measured(self, reader: PairReader) -> Bands:
        if not isinstance(self._reading, (FileReading, StackedReading)):
            raise ConfigError(f"bands {', '.join(reader.bands.names)} of {type(self.dataset).__name__} need mean=… and std=…")
        measured = []
        for part in self._reading.parts:
            pairs = list({pair.name: pair for pair in part.pairs}.values())
            areas = [float(pair.shape.height * pair.shape.width) ** 0.5 for pair in pairs]
            theirs = pairs[0].file.model_bands or reader.bands
            measured.append(measure_moments(pairs, areas, theirs, reader.leave_out, reader.progress))
        mean = tuple(value for bands in measured for value in bands.mean)
        std = tuple(value for bands in measured for value in bands.std)
        return replace(reader.bands, mean=mean, std=std)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make a batch of region samples, as TorchGeo's ``stack_samples`` does of its own.

    Samples may have different numbers of patches, so these are concatenated: ``overview_index`` ``(N,)`` says to which image of
    the batch each patch belongs. All other keys are stacked by ``stack_samples``.
    """
    ragged = ("patches", "patch_masks", "footprints")
    batch: dict[str, Any] = stack_samples([{k: v for k, v in sample.items() if k not in ragged} for sample in samples])
    counts = torch.tensor([len(sample["patches"]) for sample in samples])
    batch |= {key: torch.cat([sample[key] for sample in samples]) for key in ragged}
    return batch | {"overview_index": torch.arange(len(samples)).repeat_interleave(counts)}


def region_batch(batch: Mapping[str, Any]) -> RegionBatch:
    """Take a collated batch as training stages do."""
    return RegionBatch(
        overviews=batch["image"],
        overview_labels=batch["mask"].to(torch.uint8),
        patches=batch["patches"],
        patch_labels=batch["patch_masks"].to(torch.uint8),
        footprints=batch["footprints"],
        overview_index=batch["overview_index"],
    )


def _count(axis: slice, step: float) -> int:
    """Count the pixels of a size along one axis of a query."""
    count: int = round((axis.stop - axis.start) / step)
    return count


def _seed_of(place: Cuboid) -> tuple[int, ...]:
    """Make a seed of a place, the same in every process."""
    x, y, time = place
    words = struct.pack("<4d", x.start, x.stop, y.start, y.stop) + f"{time.start} {time.stop}".encode()
    return (int.from_bytes(hashlib.sha256(words).digest()[:8]),)


def side_by_side(pictures: Mapping[str, npt.NDArray[np.uint8]], show_titles: bool, suptitle: str | None) -> Figure:
    """Draw pictures, by title, as TorchGeo's ``plot`` does."""
    figure = Figure(figsize=(4 * len(pictures), 4))
    for axes, (title, picture) in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True):
        axes.imshow(picture)
        axes.axis("off")
        if show_titles:
            axes.set_title(title)
    if suptitle is not None:
        figure.suptitle(suptitle)
    return figure
