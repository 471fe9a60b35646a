"""Samplers of regions for any GeoDataset, in TorchGeo's manner: they yield queries ``(x, y, t)``.

An epoch follows from the generator's seed and the epoch's number alone, so that it is the same in any number of workers and
processes. Places are whole pixels from the corner of an entry of the index. Like TorchGeo's, the samplers yield the whole epoch
in every process, which Lightning deals out; without Lightning, ``num_replicas`` and ``rank`` deal it out, as of torch's own
``DistributedSampler``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
import torch

from geoglnet.datasets.samplers import even_starts
from geoglnet.datasets.survey import STEP
from geoglnet.errors import ConfigError, DatasetError
from geoglnet.legend import NO_CLASS
from geoglnet.torchgeo.adapter import Cuboid, GeoDataset, GeoSampler, Units, labels_of, parts_of, resolved
from geoglnet.torchgeo.global_local import GlobalLocalDataset, RegionQuery

_ATTEMPTS = 1000  # to draw a place that meets a region of interest of any shape
_ROUNDING = 1e-6  # of a pixel
_STRIP = 1024  # rows whose labels are read at once


class _Entries:
    """Entries of an index, each as the grid of pixels over its bounds.

    Args:
        index: TorchGeo's, clipped to what is to be sampled.
        res: width and height of a pixel.
        toi: span of time that entries are clipped to.
    """

    def __init__(self, index: Any, res: tuple[float, float], toi: Any = None) -> None:
        self.geometries = index.geometry.to_numpy()
        spans = [(interval.left, interval.right) for interval in index.index]
        self.times = spans if toi is None else [(max(start, toi.left), min(stop, toi.right)) for start, stop in spans]
        self.res = res
        bounds = shapely.bounds(self.geometries)
        self.left, self.top = bounds[:, 0], bounds[:, 3]
        sizes = (bounds[:, 3] - bounds[:, 1]) / res[1], (bounds[:, 2] - bounds[:, 0]) / res[0]
        self.shapes = np.maximum(1, np.ceil(np.stack(sizes, axis=1) - _ROUNDING)).astype(int)
        shapely.prepare(self.geometries)

    def __len__(self) -> int:
        return len(self.times)

    def place(self, entry: int, row: int, col: int, size: tuple[int, int]) -> Cuboid:
        """Return the query of a rectangle of ``size`` (height, width) pixels, from a row and column of an entry's grid."""
        left, top = self.left[entry] + col * self.res[0], self.top[entry] - row * self.res[1]
        x = slice(float(left), float(left + size[1] * self.res[0]))
        return x, slice(float(top - size[0] * self.res[1]), float(top)), slice(*self.times[entry])

    def meets(self, entry: int, place: Cuboid) -> bool:
        """Return whether a rectangle has some area of an entry in it."""
        box, geometry = shapely.box(place[0].start, place[1].start, place[0].stop, place[1].stop), self.geometries[entry]
        return bool(shapely.intersects(geometry, box) and not shapely.touches(geometry, box))


class RegionGeoSampler(GeoSampler):
    """Base class of the samplers of regions.

    Args:
        dataset: any GeoDataset with an index.
        size: height and width of a region, or one number for both.
        roi: area to sample from, in the dataset's CRS; all of the index when left out.
        toi: span of time to sample from.
        units: whether ``size`` is in pixels or in units of the CRS.
        generator: torch's or numpy's, or a seed. Left out, it is torch's global one, which has to have the same seed in all
            processes that train together.
        num_replicas: number of processes among which the epoch is dealt out.
        rank: number of this process.

    Raises:
        ConfigError: a size or share that cannot be.
        DatasetError: nothing of the dataset lies in the area and span of time.
    """

    def __init__(
        self,
        dataset: GeoDataset,
        size: float | tuple[float, float],
        *,
        roi: shapely.Geometry | None = None,
        toi: Any = None,
        units: Units = Units.PIXELS,
        generator: torch.Generator | np.random.Generator | int | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        if not 0 <= rank < num_replicas:
            raise ConfigError(f"rank = {rank} must be from 0 to below num_replicas = {num_replicas}")
        index = dataset.index
        if toi is not None:
            index = index[index.index.overlaps(toi)]
        if roi is not None:
            index = index.clip(roi, keep_geom_type=True)
        if not len(index):
            raise DatasetError("no entry of the dataset's index lies in roi and toi; check their CRS and dates")
        self.res = (dataset.res[0], dataset.res[1])
        self.index, self.roi, self.toi = index, roi, toi
        self.size = _in_pixels(size, self.res, units)
        self.entries = _Entries(index, self.res, toi)
        self.seed = _seed_from(generator)
        self.epoch = 0
        self.num_replicas, self.rank = num_replicas, rank

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is iterated over next, as of torch's ``DistributedSampler``."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[RegionQuery]:
        """Yield the queries of an epoch, and go on to the next one."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = self._order(epoch)
        for number in range(self.rank, len(self) * self.num_replicas, self.num_replicas):
            # The last processes begin the epoch anew where it cannot be divided, so that all take as many steps.
            chosen = order[number % len(order)]
            rng = np.random.default_rng((self.seed, epoch, number))
            yield RegionQuery(self._draw(int(chosen), rng), (self.seed, epoch, number))

    def __len__(self) -> int:
        return math.ceil(self._total / self.num_replicas)

    @property
    @abstractmethod
    def _total(self) -> int:
        """Number of regions of an epoch, in all processes together."""

    def _order(self, epoch: int) -> npt.NDArray[np.intp]:
        """Return the numbers of an epoch's places in the order in which they come."""
        return np.arange(self._total)

    @abstractmethod
    def _draw(self, number: int, rng: np.random.Generator) -> Cuboid:
        """Return the place with a number; what is random comes from ``rng``."""


class RandomRegionSampler(RegionGeoSampler):
    """Regions at random: every whole-pixel place inside an entry is equally likely, first and last included.

    Entries are drawn by area. One that is smaller than a region lies anywhere in it; TorchGeo's samplers pass over such
    entries. In an area that is no rectangle, regions that miss it are drawn again.

    Args:
        dataset: any GeoDataset.
        size: height and width of a region, or one number for both.
        length: regions per epoch; as many as cover the entries once when left out.
        options: ``roi``, ``toi``, ``units``, ``generator``, ``num_replicas`` and ``rank`` of :class:`RegionGeoSampler`.

    Raises:
        ConfigError: a size, length or share that cannot be.
        DatasetError: nothing of the dataset lies in the area and span of time.
    """

    def __init__(
        self, dataset: GeoDataset, size: float | tuple[float, float], *, length: int | None = None, **options: Any
    ) -> None:
        super().__init__(dataset, size, **options)
        if length is not None and length < 1:
            raise ConfigError(f"length = {length} must be at least 1")
        needed = np.ceil(self.entries.shapes / np.array(self.size)).prod(axis=1).sum()
        self.length = int(needed) if length is None else length
        areas = shapely.area(self.entries.geometries)
        self._shares = areas / areas.sum()

    @property
    def _total(self) -> int:
        return self.length

    def _draw(self, number: int, rng: np.random.Generator) -> Cuboid:
        for _ in range(_ATTEMPTS):
            entry = int(rng.choice(len(self.entries), p=self._shares))
            slack = self.entries.shapes[entry] - self.size
            row, col = (int(rng.integers(min(0, n), max(0, n) + 1)) for n in slack)
            place = self.entries.place(entry, row, col, self.size)
            if self.entries.meets(entry, place):
                return place
        raise DatasetError(f"{_ATTEMPTS} regions in a row miss the region of interest; give one with some area")


class GriddedRegionSampler(RegionGeoSampler):
    """The fewest regions that cover every entry, evenly spread and flush with its borders, without any left out.

    An entry that is smaller than a region is one region, in its upper left corner. TorchGeo's samplers pass over such entries,
    or begin at the lower left corner and reach beyond the upper and right border.

    Args:
        dataset: any GeoDataset.
        size: height and width of a region, or one number for both.
        stride: greatest distance between neighbors, in the units of ``size``; ``size`` when left out. A larger one leaves gaps.
        shuffle: whether each epoch has an order of its own.
        options: ``roi``, ``toi``, ``units``, ``generator``, ``num_replicas`` and ``rank`` of :class:`RegionGeoSampler`.

    Raises:
        ConfigError: a size or share that cannot be.
        DatasetError: nothing of the dataset lies in the area and span of time.
    """

    def __init__(
        self,
        dataset: GeoDataset,
        size: float | tuple[float, float],
        *,
        stride: float | tuple[float, float] | None = None,
        shuffle: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(dataset, size, **options)
        self.stride = self.size if stride is None else _in_pixels(stride, self.res, options.get("units", Units.PIXELS))
        self.shuffle = shuffle
        self._places = [
            place
            for entry, shape in enumerate(self.entries.shapes.tolist())
            for row in even_starts(shape[0], self.size[0], self.stride[0])
            for col in even_starts(shape[1], self.size[1], self.stride[1])
            if self.entries.meets(entry, place := self.entries.place(entry, row, col, self.size))
        ]

    @property
    def _total(self) -> int:
        return len(self._places)

    def _order(self, epoch: int) -> npt.NDArray[np.intp]:
        return np.random.default_rng((self.seed, epoch)).permutation(self._total) if self.shuffle else super()._order(epoch)

    def _draw(self, number: int, rng: np.random.Generator) -> Cuboid:
        return self._places[number]


class BalancedRegionSampler(RandomRegionSampler):
    """Regions around pixels of a class that is drawn uniformly, which favors rare classes; the others lie anywhere.

    The chosen pixel lies anywhere in its region: always in the center, it would teach a network where to look. Labels are
    surveyed once, when the sampler is made: every 16th row and column, and at least one pixel of each class in a strip of 1024
    rows. Memory: 24 bytes per 256 labeled pixels.

    Args:
        dataset: GeoDataset whose samples have ``mask``; of a :class:`GlobalLocalDataset` labels alone are read.
        size: height and width of a region, or one number for both.
        length: regions per epoch; as many as cover the entries once when left out.
        balanced_fraction: share of regions drawn by class.
        ignore: label values that are no class.
        options: ``roi``, ``toi``, ``units``, ``generator``, ``num_replicas`` and ``rank`` of :class:`RegionGeoSampler`.

    Raises:
        ConfigError: a size, length, fraction or share that cannot be.
        DatasetError: nothing is labeled in the area and span of time.
    """

    def __init__(
        self,
        dataset: GeoDataset,
        size: float | tuple[float, float],
        *,
        length: int | None = None,
        balanced_fraction: float = 0.5,
        ignore: tuple[int, ...] = (NO_CLASS,),
        **options: Any,
    ) -> None:
        super().__init__(dataset, size, length=length, **options)
        if not 0 <= balanced_fraction <= 1:
            raise ConfigError(f"balanced_fraction = {balanced_fraction} must be from 0 to 1")
        self.balanced_fraction = balanced_fraction
        self.places = self._surveyed(dataset, ignore)
        if not self.places:
            raise DatasetError("no pixel of the dataset is labeled; check the labels, roi, and ignore")

    def _draw(self, number: int, rng: np.random.Generator) -> Cuboid:
        if rng.random() >= self.balanced_fraction:
            return super()._draw(number, rng)
        places = self.places[int(rng.choice(list(self.places)))]
        entry, *pixel = (int(v) for v in places[rng.integers(len(places))])
        corner = []
        for at, size, length in zip(pixel, self.size, self.entries.shapes[entry], strict=True):
            # Shifted inside the entry where that is larger; else the entry lies inside the region.
            start = at - int(rng.integers(size))
            corner.append(int(min(max(start, min(0, length - size)), max(0, length - size))))
        return self.entries.place(entry, corner[0], corner[1], self.size)

    def _surveyed(self, dataset: GeoDataset, ignore: tuple[int, ...]) -> dict[int, npt.NDArray[np.intp]]:
        """Find entry, row and column of pixels of each class, ``(n, 3)``."""
        found: dict[int, list[npt.NDArray[np.intp]]] = {}
        for entry, (height, width) in enumerate(self.entries.shapes.tolist()):
            for row in range(0, height, _STRIP):
                size = (min(_STRIP, height - row), width)
                place = self.entries.place(entry, row, 0, size)
                labels = _labels_at(dataset, place)
                # A region of interest may have any shape; one query covers its bounds.
                for value in np.setdiff1d(np.unique(labels), ignore).tolist():
                    at = np.argwhere(labels[::STEP, ::STEP] == value) * STEP
                    if not len(at):  # a rare class may be smaller than the lattice, and must be drawn all the same
                        at = np.argwhere(labels == value)[:1]
                    at = np.add(at, (row, 0))
                    found.setdefault(int(value), []).append(np.insert(at, 0, entry, axis=1))
        return {value: np.concatenate(parts) for value, parts in sorted(found.items())}


def _labels_at(dataset: GeoDataset, place: Cuboid) -> npt.NDArray[Any]:
    """Read the labels of a place, ``(h, w)``, and where it can be, these alone."""
    if isinstance(dataset, GlobalLocalDataset):
        return dataset.read_labels(*resolved(dataset, place))
    parts = parts_of(dataset)
    mask = labels_of(dataset if parts is None else parts[1], place)
    labels: npt.NDArray[Any] = mask.reshape(-1, *mask.shape[-2:])[0]
    return labels


def _in_pixels(size: float | tuple[float, float], res: tuple[float, float], units: Units) -> tuple[int, int]:
    """Convert a height and width to whole pixels.

    Raises:
        ConfigError: it has less than one pixel.
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    if units == Units.CRS:
        height, width = height / res[1], width / res[0]
    if round(height) < 1 or round(width) < 1:
        raise ConfigError(f"size {size} is less than a pixel of {res[0]:g} × {res[1]:g}; units=Units.PIXELS counts pixels")
    return round(height), round(width)


def _seed_from(generator: torch.Generator | np.random.Generator | int | None) -> int:
    """Draw the seed of all epochs from a generator."""
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(2**62))
    if isinstance(generator, int):
        return generator
    return int(torch.randint(2**62, (), generator=generator))
