"""Images without georeference as a GeoDataset: side by side in one frame of pixels, so that TorchGeo's samplers apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from pyproj import CRS
from shapely import box

from geoglnet.bands import Bands
from geoglnet.config import RegionConfig
from geoglnet.datasets.deepglobe import DEEPGLOBE_LEGEND
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import DeepGlobeSource, ImagesSource, IsicSource
from geoglnet.datasets.transforms import resample
from geoglnet.legend import Legend
from geoglnet.progress import Progress, SilentProgress
from geoglnet.torchgeo.adapter import GeoDataset, index_of, paths_of, place_keys, resolved
from geoglnet.torchgeo.readings import FileReading
from geoglnet.types import Shape

PIXELS = CRS.from_wkt(
    'ENGCRS["pixels of images side by side",EDATUM["upper left corner of the first image"],CS[Cartesian,2],'
    'AXIS["(X)",east,ORDER[1]],AXIS["(Y)",north,ORDER[2]],LENGTHUNIT["pixel",1]]'
)
STRIDE = 2 * RegionConfig.LARGEST
"""From the left side of an image to that of the next: no region that holds a pixel of one reaches another."""


class PixelFrameDataset(GeoDataset):
    """Images paired with labels by name, as a GeoDataset in a frame of pixels.

    Image number ``n``, in the order of the names, has its upper left corner at x = ``n`` × 65536, y = 0; a pixel is 1 × 1.
    Samples have ``image``, float32 from 0 to 255, and ``mask``, labels of the legend, 255 where there are none. In a
    :class:`~geoglnet.torchgeo.GlobalLocalDataset` its images are read with that one's legend and bands.

    Args:
        source: which images and labels.
        folder: data folder that the source's patterns start from.
        legend: classes.
        resolution_m: size of a pixel, which images of another size are read at.
        bands: of the images, with the rule that scales their values.
        transforms: applied to a sample.
        progress: receives the rules that are applied.

    Raises:
        DatasetError: files are missing or cannot be used.
        LegendError: files have classes that the legend lacks.
        SceneError: an image cannot be read.
    """

    def __init__(
        self,
        source: DeepGlobeSource | IsicSource | ImagesSource,
        folder: str | Path,
        legend: Legend,
        *,
        resolution_m: float = 1.0,
        bands: Bands = Bands(),  # noqa: B008 - it is frozen
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
    ) -> None:
        self.source, self.folder, self.resolution_m = source, Path(folder), resolution_m
        self.legend, self.transforms = legend, transforms
        self._res = (1.0, 1.0)
        self._pairs = self._opened(PairReader(self.folder, legend, resolution_m, progress, bands=bands))
        places = [pair.file.transform @ (0, 0) for pair in self._pairs.values()]
        boxes = [
            box(x, y - pair.shape.height, x + pair.shape.width, y)
            for pair, (x, y) in zip(self._pairs.values(), places, strict=True)
        ]
        names = list(self._pairs)
        self.paths = names
        self.index = index_of(names, boxes, PIXELS)

    def opened(self, reader: PairReader, budget: int) -> FileReading:
        """Open the images of the index, which a split may have narrowed, with a reader's legend and bands.

        Args:
            reader: its folder and resolution are not used.
            budget: bytes for images that are kept decoded.
        """
        return self._reading_of(self._opened(replace(reader, folder=self.folder, resolution_m=self.resolution_m)), budget)

    def _opened(self, reader: PairReader) -> dict[str, Pair]:
        """Open all images, each at its place in the frame, by name."""
        return {
            pair.name: replace(pair, file=replace(pair.file, transform=Affine(1, 0, number * STRIDE, 0, -1, 0)))
            for number, pair in enumerate(reader.iter_pairs(self.source))
        }

    def _reading_of(self, pairs: Mapping[str, Pair], budget: int) -> FileReading:
        entries = tuple(pairs[str(path)] for path in paths_of(self))
        return FileReading(self, entries, np.arange(len(entries)), True, budget)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        """Read a place of the frame.

        Raises:
            IndexError: no image is there.
            DatasetError: labels that cannot be used.
            SceneError: an image is damaged there.
        """
        place = resolved(self, index)
        x, y, time = place
        full = Shape(round(y.stop - y.start), round(x.stop - x.start))
        region = self._reading_of(self._pairs, 0).read(Affine(1, 0, x.start, 0, -1, y.stop), full, time)
        shape = Shape(round(full.height / abs(y.step)), round(full.width / abs(x.step)))
        image, labels = resample(torch.from_numpy(region.image).float(), torch.from_numpy(region.labels), shape)
        transform = Affine(full.width / shape.width, 0, x.start, 0, -full.height / shape.height, y.stop)
        sample = {"image": image, "mask": labels.long()} | place_keys(self.crs, place, transform)
        return sample if self.transforms is None else self.transforms(sample)


class DeepGlobe(PixelFrameDataset):
    """DeepGlobe land cover in a frame of pixels; folders as of TorchGeo's ``DeepGlobeLandCover`` or any published ones.

    Args:
        root: folder that holds the tiles at any depth.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
        splits: whose split: ``"glnet"`` or ``"glnet_v1"``, by the authors' lists, or ``"folders"``, as TorchGeo's.
        order: whose numbers masks of one band have, ``"glnet"`` or ``"torchgeo"``; colored masks need none.
        legend: classes, in any order; the default has TorchGeo's.
        options: ``transforms`` and ``progress`` of :class:`PixelFrameDataset`.

    Raises:
        DatasetError: files are missing or cannot be used.
    """

    def __init__(
        self,
        root: str | Path = "data",
        split: str = "train",
        splits: str = "glnet",
        order: str = "",
        legend: Legend = DEEPGLOBE_LEGEND,
        **options: Any,
    ) -> None:
        source = DeepGlobeSource(split=split, splits=splits, order=order)
        super().__init__(source, root, legend, resolution_m=source.pixel_size_m, **options)
