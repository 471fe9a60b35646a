"""Entries of a GeoDataset that reads its files in a way of its own, each as a scene with its truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from geoglnet.datasets.coding import Coding
from geoglnet.datasets.pairs import Pair, SceneFile
from geoglnet.datasets.reader import PairReader
from geoglnet.legend import NO_CLASS
from geoglnet.progress import Progress, Rule, SilentProgress
from geoglnet.raster.grid import ground_pixel_size, pixel_size_m
from geoglnet.raster.scaling import Scaling
from geoglnet.raster.scene import Pixels, Scene
from geoglnet.torchgeo.adapter import GeoDataset
from geoglnet.torchgeo.readings import OwnReading, inside_of, own_scaling
from geoglnet.types import Labels, Shape


@dataclass(frozen=True, slots=True)
class EntryScene:
    """One entry of a dataset's index, read by the dataset: a :class:`~geoglnet.raster.scene.Scene` and its truth.

    Args:
        reading: of the dataset.
        name: identity for messages.
        shape: shape of the grid over the entry's bounds.
        transform: grid pixel to CRS coordinates.
        crs: of the dataset.
        area: of the entry; outside of it nothing is known.
        time: of the entry.
    """

    reading: OwnReading
    name: str
    shape: Shape
    transform: Affine
    crs: CRS | None
    area: shapely.Geometry
    time: slice

    @property
    def num_bands(self) -> int:
        return len(self.reading.bands)

    @property
    def pixel_size_m(self) -> float | None:
        return pixel_size_m(ground_pixel_size(self.crs, self.transform, self.shape))

    def read_window(self, window: Window) -> Pixels:
        transform, shape = window_transform(window, self.transform), Shape(int(window.height), int(window.width))
        return Pixels(self.reading.read(transform, shape, self.time).image, inside_of(self.area, transform, shape))

    def reopened(self) -> AbstractContextManager[Scene]:
        return nullcontext(self)

    def read_labels(self, window: Window) -> Labels:
        transform, shape = window_transform(window, self.transform), Shape(int(window.height), int(window.width))
        labels = self.reading.read_labels(transform, shape, self.time)
        return np.where(inside_of(self.area, transform, shape), labels, np.uint8(NO_CLASS))


@dataclass(frozen=True, slots=True)
class EntryFile(SceneFile):
    """An entry in the place of a file.

    Args:
        scene: of the entry.
    """

    scene: EntryScene | None = None  # after fields with defaults

    @contextmanager
    def open(self, progress: Progress = SilentProgress()) -> Iterator[Scene]:  # noqa: B008 - it has no state
        if self.scene is not None:
            yield self.scene


def iter_entries(dataset: GeoDataset, index: Any, coding: Coding, reader: PairReader) -> Iterator[Pair]:
    """Yield the entries of an index at the model's resolution, with their truth.

    Args:
        dataset: that reads them.
        index: its own, or that of a part of it.
        coding: meaning of its labels' values.
        reader: has the model's resolution and bands.

    Raises:
        ConfigError: a rule of scaling that needs the type of the files.
    """
    reader.progress.log(Rule(f"{type(dataset).__name__} is read by its own __getitem__: its zeros may be nodata"))
    reading = OwnReading(dataset, coding, reader.bands, own_scaling(dataset, reader.bands))
    crs, res = CRS.from_wkt(dataset.crs.to_wkt()), dataset.res
    for number, (area, span) in enumerate(zip(index.geometry, index.index, strict=True)):
        left, bottom, right, top = area.bounds
        middle = Affine(res[0], 0, (left + right) / 2, 0, -res[1], (bottom + top) / 2)
        step = reader.resolution_m / (pixel_size_m(ground_pixel_size(crs, middle, Shape(1, 1))) or reader.resolution_m)
        # The dataset's own pixels where they are as good as the model's: not every dataset can resample.
        xres, yres = (size * step for size in res) if abs(step - 1) > 0.05 else res
        shape = Shape(math.ceil((top - bottom) / yres - 1e-6), math.ceil((right - left) / xres - 1e-6))
        transform = Affine(xres, 0, left, 0, -yres, top)
        name = f"{type(dataset).__name__} {number}"
        scene = EntryScene(reading, name, shape, transform, crs, area, slice(span.left, span.right))
        file = EntryFile(
            path=Path(name),
            resolution_m=None,
            assumed_pixel_size_m=None,
            scaling=Scaling(),
            nodata=None,
            bands=None,
            model_bands=reader.bands,
            beside={},
            shape=shape,
            transform=transform,
            crs=crs,
            has_holes=False,  # outside of its area the truth says so
            scene=scene,
        )
        yield Pair(file, scene)
