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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import shapely
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import geometry_mask
from rasterio.warp import transform_bounds

from geoglnet.bands import Bands
from geoglnet.config import RegionConfig, ScalingRule
from geoglnet.datasets.coding import Coding, legend_coding
from geoglnet.datasets.moments import measure_moments
from geoglnet.datasets.pairs import Pair, SceneFile, scene_file
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.regions import LabeledRegion, RegionBatch, RegionSample, fill_of
from geoglnet.datasets.samplers import SampleConfig, sample_of
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.datasets.truth import window_box
from geoglnet.errors import ConfigError, DatasetError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.progress import Progress, Rule, SilentProgress
from geoglnet.raster.crs import are_one_place
from geoglnet.raster.gdal import open_raster
from geoglnet.raster.grid import Grid, georeference, ground_pixel_size, is_rotated, pixel_size_m
from geoglnet.raster.scaling import BandSample, BandScaling, choose_band_scaling
from geoglnet.torchgeo.adapter import (
    Cuboid,
    GeoDataset,
    coverages,
    files_of,
    footprints,
    labels_of,
    overlapping,
    parts_of,
    paths_of,
    place_keys,
    query,
    reads_files_plainly,
    resolved,
    stack_samples,
    values_of,
)
from geoglnet.torchgeo.rasters import GeoLabels, GeoTruth, checked_labels
from geoglnet.types import Labels, Shape

STILL = AugmentConfig(d4=False, scale_min=1, scale_max=1, color=0)
_SAMPLE_SIZE = 512  # of the decimated read that scaling is chosen from, as of scenes
_SAME_SIZE = 1e-6  # relative difference of pixel sizes that are one


class RegionQuery(tuple[slice, slice, slice]):
    """A TorchGeo query ``(x, y, t)`` that also says what seeds the random choices in its sample; any GeoDataset takes it."""

    seed: tuple[int, ...]

    def __new__(cls, place: Cuboid, seed: Sequence[int]) -> RegionQuery:
        self = super().__new__(cls, place)
        self.seed = tuple(seed)
        return self

    def __reduce__(self) -> tuple[Any, ...]:  # to other processes; a tuple would leave the seed behind
        return RegionQuery, (tuple(self), self.seed)


class _Reading(Protocol):
    """Port: image and labels of any place of a dataset, at its resolution."""

    def read(self, transform: Affine, shape: Shape, time: slice) -> LabeledRegion: ...

    def read_labels(self, transform: Affine, shape: Shape, time: slice) -> Labels: ...


class GlobalLocalDataset(GeoDataset):  # type: ignore[misc]
    """Region samples of a GeoDataset of images and labels, by query: overview and patches, for GLNet or a model of yours.

    A query is TorchGeo's, ``dataset[x0:x1, y0:y1, t0:t1]``, of any size: it is the region. A coarser step than the dataset's
    resolution decimates all of it. Labels outside of the dataset's index, which splits clip, are unknown: no sample of a split
    shows labels of another one.

    A sample has the keys ``image`` (the overview, ``(C, h1, w1)`` float32), ``mask`` (labels of the region at full resolution,
    ``(h, w)`` int64), ``patches`` ``(n, C, h2, w2)``, ``patch_masks`` ``(n, h2, w2)``, ``footprints`` ``(n, 4)`` (top, left,
    bottom, right as fractions of the region), and where it lies: ``bounds``, ``transform`` and, where TorchGeo's samples
    have it, ``crs``. Images are 0 to 1, or the range of ``bands``, and not normalized; unknown labels are 255.

    The overview is the query with a coarser step: it is decimated from what was read once, so that both agree.

    Memory: one region at full resolution, five bytes per pixel of three 8-bit bands and their float32 copy; rasters are
    opened anew for every read.

    Args:
        dataset: intersection, union or time series whose samples have ``image`` and ``mask``.
        legend: classes; values of labels are its numbers, 255 and its ``ignore_value`` are unknown.
        values: class name by label value, where the labels differ from the legend.
        bands: names of the images' bands and how their values are scaled. Of images that the dataset reads itself they are
            taken in the dataset's order.
        region: how much an overview is decimated: ``overview_size`` to ``region_size``; overlap of the patches.
        sample: ``patch_size`` and ``patches_per_region``; the rest is the sampler's.
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
        self.index = dataset.index
        self._res = tuple(dataset.res)
        self.legend = legend
        self.region = region
        self.sample_config = sample
        self.augment = augment
        self.seed = seed
        self.transforms = transforms
        coding = legend_coding(legend, values or {}, ())
        parts = parts_of(dataset)
        reader = PairReader(Path(), legend, math.nan, progress, bands=bands)  # the dataset names the files and their resolution
        if parts is not None and reads_files_plainly(parts[0]):
            around = shapely.union_all(footprints(dataset)).buffer(region.region_size * max(self._res))
            self._reading: _Reading = _open_rasters(*parts, coding, reader, around)
            progress.log(Rule(f"the files of {type(parts[0]).__name__} are read by geoglnet: nodata, alpha, bands by name"))
        else:
            self._reading = _OwnReading(dataset, coding, bands, _own_scaling(dataset, bands))
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
        return self._res  # type: ignore[no-any-return]

    @res.setter
    def res(self, new_res: float | tuple[float, float]) -> None:
        both = new_res if isinstance(new_res, tuple) else (new_res, new_res)
        if both != self._res:
            raise DatasetError(f"a GlobalLocalDataset keeps its resolution; set dataset.res = {new_res} before wrapping it")

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
        return labels if area.contains(box) else np.where(_inside(area, transform, shape), labels, np.uint8(NO_CLASS))

    def _measured(self, reader: PairReader) -> Bands:
        if not isinstance(self._reading, _FileReading):
            raise ConfigError(f"bands {', '.join(reader.bands.names)} of {type(self.dataset).__name__} need mean=… and std=…")
        pairs = list({pair.name: pair for pair in self._reading.pairs}.values())
        areas = [float(pair.shape.height * pair.shape.width) ** 0.5 for pair in pairs]
        return measure_moments(pairs, areas, reader.bands, reader.leave_out, reader.progress)


@dataclass(frozen=True, slots=True)
class _FileReading:
    """Rasters with labels, each on a grid of its own; of several at a place, the first valid pixel counts.

    Args:
        images: TorchGeo's dataset of the rasters.
        pairs: one for every entry of its index that is near the labels.
        entries: positions of these entries in the index, ascending.
    """

    images: GeoDataset
    pairs: tuple[Pair, ...]
    entries: npt.NDArray[np.intp]

    def read(self, transform: Affine, shape: Shape, time: slice) -> LabeledRegion:
        image: Any = None
        labels, known = np.full(shape, NO_CLASS, np.uint8), np.zeros(shape, bool)
        for pair, into, rows, cols in self._parts(transform, shape, time):
            pixels, theirs = pair.read_pixels(rows, cols)
            if image is None:
                image = np.full((len(pixels.image), *shape), fill_of(pixels.image.dtype), pixels.image.dtype)
            chosen = pixels.valid & ~known[into]
            image[:, *into][:, chosen] = pixels.image[:, chosen]
            labels[into][chosen] = theirs[chosen]
            known[into] |= chosen
        if image is None:
            raise IndexError(f"no raster of {type(self.images).__name__} is at {window_box(transform, shape).bounds}")
        return LabeledRegion(image, labels)

    def read_labels(self, transform: Affine, shape: Shape, time: slice) -> Labels:
        labels = np.full(shape, NO_CLASS, np.uint8)
        for pair, into, rows, cols in self._parts(transform, shape, time):
            labels[into] = np.where(labels[into] == NO_CLASS, pair.read_labels(rows, cols), labels[into])
        return labels

    def _parts(self, transform: Affine, shape: Shape, time: slice) -> list[tuple[Pair, tuple[slice, slice], slice, slice]]:
        """Find the rasters at a place: which pixels of the region, and which rows and columns of the raster, are the same."""
        is_whole = time.start == self.images.bounds[2].start and time.stop == self.images.bounds[2].stop
        found, is_then = [], np.isin(self.entries, overlapping(self.images, time))
        for pair in (self.pairs[number] for number in np.flatnonzero(is_then)):
            # The nearest whole pixel: values are never interpolated for half a pixel's sake.
            top = math.ceil((transform.f - pair.file.transform.f) / pair.file.transform.e - 0.5 - _SAME_SIZE)
            left = math.ceil((transform.c - pair.file.transform.c) / pair.file.transform.a - 0.5 - _SAME_SIZE)
            rows = slice(max(0, top), min(pair.shape.height, top + shape.height))
            cols = slice(max(0, left), min(pair.shape.width, left + shape.width))
            if rows.start >= rows.stop or cols.start >= cols.stop:
                continue
            into = slice(rows.start - top, rows.stop - top), slice(cols.start - left, cols.stop - left)
            if not is_whole and isinstance(pair.truth, GeoTruth):
                pair = replace(pair, truth=replace(pair.truth, time=time))
            found.append((pair, into, rows, cols))
        return found


@dataclass(frozen=True, slots=True)
class _OwnReading:
    """A dataset that is read by its own ``__getitem__``.

    Args:
        dataset: with ``image`` and ``mask`` in its samples.
        coding: meaning of its labels' values.
        bands: what the image's bands are, in order.
        scaling: of values to 0–255; ``None`` for an 8-bit model, whose values must be that.
    """

    dataset: GeoDataset
    coding: Coding
    bands: Bands
    scaling: BandScaling | None

    def read(self, transform: Affine, shape: Shape, time: slice) -> LabeledRegion:
        sample = self.dataset[query(transform, shape, time=time)]
        image = values_of(sample, "image", self.dataset)
        if image.shape != (len(self.bands), *shape):
            raise DatasetError(
                f"{type(self.dataset).__name__} gives images of shape {image.shape}, not {(len(self.bands), *shape)}; "
                "name its bands with Bands((…)), and use no time_series"
            )
        parts = parts_of(self.dataset)
        area = shapely.union_all(footprints(self.dataset if parts is None else parts[0]))
        covered = _inside(area, transform, shape)
        labels = np.where(covered, self._decoded(values_of(sample, "mask", self.dataset), shape), np.uint8(NO_CLASS))
        if self.scaling is None:
            if image.min() < 0 or image.max() > 255:
                raise DatasetError(
                    f"{type(self.dataset).__name__} gives values from {image.min():g} to {image.max():g}, which are not 8-bit; "
                    "say what they are with Bands(…, scaling=…)"
                )
            pixels: Any = np.rint(image).astype(np.uint8)
        else:
            pixels = self.scaling.apply(image)
        return LabeledRegion(np.where(covered, pixels, fill_of(pixels.dtype)), labels)

    def read_labels(self, transform: Affine, shape: Shape, time: slice) -> Labels:
        parts = parts_of(self.dataset)
        if parts is None:
            return self.read(transform, shape, time).labels
        return self._decoded(labels_of(parts[1], query(transform, shape, time=time)), shape)

    def _decoded(self, mask: npt.NDArray[Any], shape: Shape) -> Labels:
        labels, wrong = self.coding.decode(mask.reshape(-1, *shape), None)
        if wrong.any():
            value = mask.reshape(-1, *shape)[0][wrong][0]
            raise DatasetError(f"{type(self.dataset).__name__} has label {value}, which the legend lacks; {self.coding.hint}")
        return labels


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


def _open_rasters(
    images: GeoDataset, labels: GeoDataset, coding: Coding, reader: PairReader, around: shapely.Geometry
) -> _FileReading:
    """Open the rasters of an intersection that lie within an area, with the labels that they meet."""
    if reads_files_plainly(labels):
        truth = checked_labels(labels, list(dict.fromkeys(paths_of(labels))), coding, reader)
    else:
        truth = GeoLabels(labels, coding)
    covered = coverages(images, labels)
    near = np.flatnonzero(shapely.intersects(footprints(images), around))
    paths, rasters = paths_of(images), files_of(images)
    # Rasters without labels are opened too: they are the surroundings of those that have some.
    pairs = {}
    for path in dict.fromkeys(paths[entry] for entry in near):
        file = _scene_file(path, images, rasters[path], reader)
        pairs[path] = Pair(file, GeoTruth(truth, file.transform, covered.get(path, shapely.Polygon())))
    return _FileReading(images, tuple(pairs[paths[entry]] for entry in near), near)


def _scene_file(path: Path, images: GeoDataset, raster: GeoDataset, reader: PairReader) -> SceneFile:
    """Describe a file of a raster dataset on its own grid, or, where that is not all images', on one that it is warped to."""
    chosen = getattr(raster, "band_indexes", None)
    options: dict[str, Any] = {"nodata": getattr(raster, "nodata", None), "selection": tuple(chosen) if chosen else None}
    crs, (xres, yres) = CRS.from_wkt(images.crs.to_wkt()), images.res
    with open_raster(path) as src:
        place, size = georeference(src), Shape(src.height, src.width)
        if place.crs is None:
            raise DatasetError(f"{path} {place.remark or 'has no georeference'}; a GeoDataset needs rasters with a place")
        sizes = abs(place.transform.a / xres - 1), abs(place.transform.e / -yres - 1)
        is_upright = not is_rotated(place.transform, size) and place.transform.e < 0
        if is_upright and are_one_place(place.crs, crs) and max(sizes) <= _SAME_SIZE:
            return scene_file(path, None, None, reader.progress, reader.bands, **options)
        left, bottom, right, top = transform_bounds(place.crs, crs, *src.bounds)
    # On the dataset's lattice, so that neighbors in different CRSs meet pixel by pixel.
    x, y = images.bounds[:2]
    first_col, first_row = math.floor((left - x.start) / xres), math.floor((y.stop - top) / yres)
    shape = Shape(math.ceil((y.stop - bottom) / yres) - first_row, math.ceil((right - x.start) / xres) - first_col)
    transform = Affine(xres, 0, x.start + first_col * xres, 0, -yres, y.stop - first_row * yres)
    grid = Grid(shape, shape, transform, crs, pixel_size_m(ground_pixel_size(crs, transform, shape)))
    reader.progress.log(Rule(f"{path.name} is warped to the dataset's CRS and resolution"))
    return scene_file(path, None, None, reader.progress, reader.bands, elsewhere=grid, **options)


def _own_scaling(dataset: GeoDataset, bands: Bands) -> BandScaling | None:
    """Choose the scaling of images that a dataset reads itself, from a decimated read of the first entry of its index.

    Raises:
        ConfigError: a rule that needs the type of the files.
    """
    if bands.joint_rule is ScalingRule.BY_TYPE:
        return None
    if bands.joint_rule is not None:
        name = type(dataset).__name__
        raise ConfigError(f"scaling = 'stretch' is for files that geoglnet reads; {name} reads its own: use 'percentiles'")
    left, bottom, right, top = footprints(dataset)[0].bounds
    step = max(1.0, (right - left) / dataset.res[0] / _SAMPLE_SIZE, (top - bottom) / dataset.res[1] / _SAMPLE_SIZE)
    place = slice(left, right, dataset.res[0] * step), slice(bottom, top, dataset.res[1] * step)
    return choose_band_scaling([BandSample(band) for band in values_of(dataset[place], "image", dataset)], bands)


def _inside(area: shapely.Geometry, transform: Affine, shape: Shape) -> npt.NDArray[np.bool_]:
    """Find the pixels of a window whose center lies in an area."""
    if area.contains(window_box(transform, shape)):
        return np.ones(shape, bool)
    if not area.intersects(window_box(transform, shape)):
        return np.zeros(shape, bool)
    inside: npt.NDArray[np.bool_] = geometry_mask([area], shape, transform, invert=True)
    return inside


def _count(axis: slice, step: float) -> int:
    """Count the pixels of a size along one axis of a query."""
    return round((axis.stop - axis.start) / step)


def _seed_of(place: Cuboid) -> tuple[int, ...]:
    """Make a seed of a place, the same in every process."""
    x, y, time = place
    words = struct.pack("<4d", x.start, x.stop, y.start, y.stop) + f"{time.start} {time.stop}".encode()
    return (int.from_bytes(hashlib.sha256(words).digest()[:8]),)
