"""Readings: image and labels of any place of a GeoDataset, by our reader or by the dataset's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import geometry_mask
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from geoglnet.bands import Bands
from geoglnet.config import ScalingRule
from geoglnet.datasets.coding import Coding
from geoglnet.datasets.pairs import Pair, SceneFile, scene_file
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.regions import LabeledRegion, fill_of
from geoglnet.datasets.truth import LabelPolygons, window_box
from geoglnet.errors import ConfigError, DatasetError
from geoglnet.legend import NO_CLASS
from geoglnet.progress import Rule
from geoglnet.raster.band_names import name_bands, names_of_codes
from geoglnet.raster.crs import are_one_place
from geoglnet.raster.gdal import open_raster
from geoglnet.raster.grid import Grid, georeference, ground_pixel_size, is_rotated, pixel_size_m
from geoglnet.raster.scaling import BandSample, BandScaling, choose_band_scaling
from geoglnet.raster.scene import Pixels
from geoglnet.torchgeo.adapter import (
    GeoDataset,
    VectorLabels,
    band_files,
    coverages,
    features_of,
    files_of,
    footprints,
    image_parts,
    labels_of,
    overlapping,
    parts_of,
    paths_of,
    query,
    reads_files_plainly,
    values_of,
)
from geoglnet.torchgeo.rasters import GeoLabels, GeoTruth, check_label_files
from geoglnet.types import Labels, Shape

_SAMPLE_SIZE = 512  # of the decimated read that scaling is chosen from, as of scenes
_SAME_SIZE = 1e-6  # relative difference of pixel sizes that are one


class Reading(Protocol):
    """Port: image and labels of any place of a dataset, at its resolution."""

    def read(self, transform: Affine, shape: Shape, time: slice) -> LabeledRegion:
        """Read image and labels, unlabeled where there is no image."""

    def read_labels(self, transform: Affine, shape: Shape, time: slice) -> Labels:
        """Read labels alone, which may be much cheaper."""


@dataclass(frozen=True, slots=True)
class _DecodedPair:
    """A raster with its labels in memory."""

    pixels: Pixels
    labels: Labels

    def read_pixels(self, rows: slice, cols: slice) -> tuple[Pixels, Labels]:
        pixels = Pixels(self.pixels.image[:, rows, cols], self.pixels.valid[rows, cols])
        return pixels, self.labels[rows, cols]

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        return self.labels[rows, cols]


@dataclass(slots=True)
class FileReading:
    """Rasters with labels, each on a grid of its own; of several at a place, the first valid pixel counts.

    Args:
        images: TorchGeo's dataset of the rasters.
        pairs: one for every entry of its index that is near the labels.
        entries: positions of these entries in the index, ascending.
        is_timeless: whether all labels are of one span of time.
        budget: bytes for rasters that are kept decoded once they were read; opening a file for a few pixels is what costs.
    """

    images: GeoDataset
    pairs: tuple[Pair, ...]
    entries: npt.NDArray[np.intp]
    is_timeless: bool
    budget: int
    decoded: dict[str, _DecodedPair] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[FileReading, ...]:
        """Readings of files that this one consists of."""
        return (self,)

    def read(self, transform: Affine, shape: Shape, time: slice) -> LabeledRegion:
        return self.read_known(transform, shape, time)[0]

    def read_known(self, transform: Affine, shape: Shape, time: slice) -> tuple[LabeledRegion, npt.NDArray[np.bool_]]:
        """Read image and labels, and ``(h, w)`` bool where the image has values."""
        image: Any = None
        labels, known = np.full(shape, NO_CLASS, np.uint8), np.zeros(shape, bool)
        for pair, into, rows, cols in self._parts(transform, shape, time):
            pixels, theirs = pair.read_pixels(rows, cols)
            if image is None:
                if pixels.valid.shape == shape and pixels.valid.all():  # nothing is left for others: no copy
                    return LabeledRegion(pixels.image, theirs), pixels.valid
                image = np.full((len(pixels.image), *shape), fill_of(pixels.image.dtype), pixels.image.dtype)
            chosen = pixels.valid & ~known[into]
            np.copyto(image[:, *into], pixels.image, where=chosen)
            np.copyto(labels[into], theirs, where=chosen)
            known[into] |= chosen
        if image is None:
            raise IndexError(f"no raster of {type(self.images).__name__} is at {window_box(transform, shape).bounds}")
        return LabeledRegion(image, labels), known

    def read_labels(self, transform: Affine, shape: Shape, time: slice) -> Labels:
        labels = np.full(shape, NO_CLASS, np.uint8)
        for pair, into, rows, cols in self._parts(transform, shape, time):
            labels[into] = np.where(labels[into] == NO_CLASS, pair.read_labels(rows, cols), labels[into])
        return labels

    def _parts(
        self, transform: Affine, shape: Shape, time: slice
    ) -> list[tuple[Pair | _DecodedPair, tuple[slice, slice], slice, slice]]:
        """Find the rasters at a place: which pixels of the region, and which rows and columns of the raster, are the same."""
        found: list[tuple[Pair | _DecodedPair, tuple[slice, slice], slice, slice]] = []
        is_then = np.isin(self.entries, overlapping(self.images, time))
        for pair in (self.pairs[number] for number in np.flatnonzero(is_then)):
            # The nearest whole pixel: values are never interpolated for half a pixel's sake.
            top = math.ceil((transform.f - pair.file.transform.f) / pair.file.transform.e - 0.5 - _SAME_SIZE)
            left = math.ceil((transform.c - pair.file.transform.c) / pair.file.transform.a - 0.5 - _SAME_SIZE)
            rows = slice(max(0, top), min(pair.shape.height, top + shape.height))
            cols = slice(max(0, left), min(pair.shape.width, left + shape.width))
            if rows.start >= rows.stop or cols.start >= cols.stop:
                continue
            into = slice(rows.start - top, rows.stop - top), slice(cols.start - left, cols.stop - left)
            found.append((self._at(pair, time), into, rows, cols))
        return found

    def _at(self, pair: Pair, time: slice) -> Pair | _DecodedPair:
        """Return a raster with its labels of a time, from memory where there is room for it."""
        if not self.is_timeless and isinstance(pair.truth, GeoTruth):
            return replace(pair, truth=replace(pair.truth, time=time))
        if pair.file.elsewhere is not None:  # what is warped depends, in the last digit, on the window
            return pair
        if pair.name not in self.decoded:
            bands = pair.file.model_bands or Bands()
            size = pair.shape.height * pair.shape.width * (len(bands) * (1 if bands.is_8bit else 4) + 2)  # validity, labels
            if size > self.budget:
                return pair
            whole = pair.read_pixels(slice(0, pair.shape.height), slice(0, pair.shape.width))
            self.decoded[pair.name], self.budget = _DecodedPair(*whole), self.budget - size
        return self.decoded[pair.name]


@dataclass(frozen=True, slots=True)
class StackedReading:
    """Bands of several image datasets that are intersected, each read by its files; valid where all of them are.

    Args:
        parts: one for each dataset, in the order of the bands; the first has the labels.
    """

    parts: tuple[FileReading, ...]

    def read(self, transform: Affine, shape: Shape, time: slice) -> LabeledRegion:
        regions, knowns = zip(*(part.read_known(transform, shape, time) for part in self.parts), strict=True)
        known = np.logical_and.reduce(knowns)
        image = np.concatenate([region.image for region in regions])
        image[:, ~known] = fill_of(image.dtype)
        return LabeledRegion(image, np.where(known, regions[0].labels, np.uint8(NO_CLASS)))

    def read_labels(self, transform: Affine, shape: Shape, time: slice) -> Labels:
        return self.read(transform, shape, time).labels


@dataclass(frozen=True, slots=True)
class OwnReading:
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
        covered = inside_of(area, transform, shape)
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


def open_rasters(
    images: GeoDataset, labels: GeoDataset, coding: Coding, reader: PairReader, around: shapely.Geometry, budget: int
) -> FileReading | StackedReading:
    """Open the rasters of an intersection that lie within an area, with the labels that they meet.

    Raises:
        DatasetError: files cannot be used, or have other bands than the reader's.
        SceneError: a raster cannot be read.
    """
    parts = image_parts(images)
    bands = [reader.bands] if len(parts) == 1 else _divided(parts, reader.bands)
    opened = []
    for number, (part, theirs) in enumerate(zip(parts, bands, strict=True)):
        own, share = replace(reader, bands=theirs), budget * len(theirs) // len(reader.bands)
        opened.append(_open_part(part, labels if number == 0 else None, coding, own, around, share, by_order=len(parts) > 1))
    return opened[0] if len(opened) == 1 else StackedReading(tuple(opened))


def _open_part(
    images: GeoDataset,
    labels: GeoDataset | None,
    coding: Coding,
    reader: PairReader,
    around: shapely.Geometry,
    budget: int,
    *,
    by_order: bool,
) -> FileReading:
    """Open the rasters of one dataset; without labels nothing is known of them."""
    truth = None if labels is None else open_labels(labels, images, coding, reader)
    covered = {} if labels is None else coverages(images, labels)
    near = np.flatnonzero(shapely.intersects(footprints(images), around))
    paths, rasters = paths_of(images), files_of(images)
    # Rasters without labels are opened too: they are the surroundings of those that have some.
    pairs = {}
    for path in dict.fromkeys(paths[entry] for entry in near):
        file = open_file(path, images, rasters[path], reader, by_order=by_order)
        known = None if truth is None else GeoTruth(truth, file.transform, covered.get(path, shapely.Polygon()))
        pairs[path] = Pair(file, known or Unlabeled())
    is_timeless = labels is None or len(labels.index.index.unique()) == 1
    return FileReading(images, tuple(pairs[paths[entry]] for entry in near), near, is_timeless, budget)


class Unlabeled:
    """Truth of a raster of which no label is known."""

    def read_labels(self, window: Window) -> Labels:
        """Return labels of no class."""
        return np.full((int(window.height), int(window.width)), NO_CLASS, np.uint8)


def _divided(parts: Sequence[GeoDataset], bands: Bands) -> list[Bands]:
    """Give each of several intersected datasets its bands, in TorchGeo's order: all of the first, then those of the next.

    Raises:
        DatasetError: they have another number of bands.
    """
    counts = [_count_bands(part) for part in parts]
    if sum(counts) != len(bands):
        found = " & ".join(f"{type(part).__name__} ({count})" for part, count in zip(parts, counts, strict=True))
        raise DatasetError(f"{found} have {sum(counts)} bands; name them all, in this order, with Bands((…))")
    divided, first = [], 0
    for count in counts:
        own = slice(first, first + count)
        rule = bands.scaling[own] if isinstance(bands.scaling, tuple) else bands.scaling
        divided.append(Bands(bands.names[own], bands.mean[own], bands.std[own], rule))
        first += count
    return divided


def _count_bands(dataset: GeoDataset) -> int:
    path, raster = next(iter(files_of(dataset).items()))
    if chosen := getattr(raster, "bands", ()):
        return len(chosen)
    with open_raster(path) as src:
        return len(name_bands(src))


def open_labels(labels: GeoDataset, images: GeoDataset, coding: Coding, reader: PairReader) -> GeoLabels:
    """Find how the labels of an intersection are read: rasters by their files, polygons once, others by the dataset itself.

    Raises:
        DatasetError: files or their values cannot be used.
    """
    truth = GeoLabels(labels, coding)
    if reads_files_plainly(labels):
        nodata, is_warped = check_label_files(list(dict.fromkeys(paths_of(labels))), labels.crs, coding, reader)
        truth = replace(truth, nodata=nodata, is_warped=is_warped)
    elif (features := features_of(labels)) is not None:
        # Read once, and drawn as TorchGeo does: in their order, on 0.
        geometries, values = features
        numbers, wrong = coding.decode(np.append(values, 0)[None, None], None)
        if wrong.any():
            value = np.append(values, 0)[wrong.ravel()][0]
            raise DatasetError(f"{type(labels).__name__} has label {value}, which the legend lacks; {coding.hint}")
        is_area = ~shapely.is_missing(geometries) & ~shapely.is_empty(geometries)
        polygons = LabelPolygons(geometries[is_area], numbers.ravel()[:-1][is_area])
        files = list(dict.fromkeys(paths_of(labels)))[:1]
        truth = GeoLabels(VectorLabels(files, images, polygons, int(numbers.ravel()[-1])))
    return truth


def open_file(
    path: Path,
    images: GeoDataset,
    raster: GeoDataset,
    reader: PairReader,
    nodata: float | None = None,
    *,
    by_order: bool = False,
) -> SceneFile:
    """Describe a file of a raster dataset on its own grid, or, where that is not all images', on one that it is warped to.

    Args:
        path: the file.
        images: dataset that it belongs to, with the CRS and resolution of the grid.
        raster: part of ``images`` that says which of its bands are read.
        reader: its ``resolution_m`` is the grid's, in the place of the dataset's, unless it is NaN.
        nodata: value of pixels without a value, beside what the raster declares.
        by_order: whether the reader's bands are those of the dataset in its order, and not found by name.

    Raises:
        DatasetError: the file has no CRS, or the dataset lacks a band.
        SceneError: it cannot be read.
    """
    chosen = getattr(raster, "band_indexes", None)
    if by_order and not chosen:
        chosen = range(1, len(reader.bands) + 1)
    nodata = getattr(raster, "nodata", None) if nodata is None else nodata
    options: dict[str, Any] = {"nodata": nodata, "selection": tuple(chosen) if chosen else None}
    if files := band_files(raster, path):
        first, *others = _chosen_files(files, raster, reader.bands, by_order)
        path = first
        options |= {"selection": (1,), "beside": dict(zip(reader.bands.names[1:], others, strict=True))}
    crs, (xres, yres) = CRS.from_wkt(images.crs.to_wkt()), images.res
    resolution_m = None if math.isnan(reader.resolution_m) else reader.resolution_m
    with open_raster(path) as src:
        place, size = georeference(src), Shape(src.height, src.width)
        if place.crs is None:
            raise DatasetError(f"{path} {place.remark or 'has no georeference'}; a GeoDataset needs rasters with a place")
        sizes = abs(place.transform.a / xres - 1), abs(place.transform.e / -yres - 1)
        is_upright = not is_rotated(place.transform, size) and place.transform.e < 0
        is_fitting = resolution_m is not None or max(sizes) <= _SAME_SIZE
        if is_upright and are_one_place(place.crs, crs) and is_fitting:
            return scene_file(path, resolution_m, None, reader.progress, reader.bands, **options)
        left, bottom, right, top = transform_bounds(place.crs, crs, *src.bounds)
    # On the dataset's lattice, so that neighbors in different CRSs meet pixel by pixel.
    x, y = images.bounds[:2]
    if resolution_m is not None:
        middle = Affine(xres, 0, (left + right) / 2, 0, -yres, (bottom + top) / 2)
        size_m = pixel_size_m(ground_pixel_size(crs, middle, Shape(1, 1))) or resolution_m
        xres, yres = xres * resolution_m / size_m, yres * resolution_m / size_m
    first_col, first_row = math.floor((left - x.start) / xres), math.floor((y.stop - top) / yres)
    shape = Shape(math.ceil((y.stop - bottom) / yres) - first_row, math.ceil((right - x.start) / xres) - first_col)
    transform = Affine(xres, 0, x.start + first_col * xres, 0, -yres, y.stop - first_row * yres)
    grid = Grid(shape, shape, transform, crs, pixel_size_m(ground_pixel_size(crs, transform, shape)))
    reader.progress.log(Rule(f"{path.name} is warped to the dataset's CRS and resolution"))
    return scene_file(path, None, None, reader.progress, reader.bands, elsewhere=grid, **options)


def _chosen_files(files: Mapping[str, Path], raster: GeoDataset, bands: Bands, by_order: bool) -> list[Path]:
    """Choose the file of each band: by its code in the dataset, or its common name; in the dataset's order if asked for.

    Raises:
        DatasetError: there is no such band.
    """
    if by_order:
        return list(files.values())
    codes = list(files)
    common = names_of_codes(codes, next(iter(files.values())).name)
    known = {name: files[code] for code, name in zip(codes, common, strict=True) if name}
    known |= {code.lower(): path for code, path in files.items()}
    found = [known.get(name, known.get(name.lower())) for name in bands.names]
    if not any(found) and len(files) == len(bands):  # names of one's own
        return list(files.values())
    chosen = [path for path in found if path is not None]
    if len(chosen) < len(found):
        theirs = ", ".join(f"{code} ({name})" if name else code for code, name in zip(codes, common, strict=True))
        missing = bands.names[found.index(None)]
        raise DatasetError(
            f"{type(raster).__name__} has the bands {theirs}, and no {missing!r}; open it with bands=[…] that has"
        )
    return chosen


def own_scaling(dataset: GeoDataset, bands: Bands) -> BandScaling | None:
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


def inside_of(area: shapely.Geometry, transform: Affine, shape: Shape) -> npt.NDArray[np.bool_]:
    """Find the pixels of a window whose center lies in an area."""
    if area.contains(window_box(transform, shape)):
        return np.ones(shape, bool)
    if not area.intersects(window_box(transform, shape)):
        return np.zeros(shape, bool)
    inside: npt.NDArray[np.bool_] = geometry_mask([area], shape, transform, invert=True)
    return inside
