"""Labelled scenes from files: raster + polygons, image + label image, or generated ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from geoglnet.datasets.generated import generated_region
from geoglnet.datasets.regions import FILL_VALUE, LabelledRegion, LabelledScene
from geoglnet.datasets.sources import SourceConfig
from geoglnet.datasets.truth import ImageTruth, Truth, polygon_truth
from geoglnet.errors import DatasetError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.progress import Progress
from geoglnet.raster.scene import Scene, open_scene
from geoglnet.types import Shape

CACHE_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """A scene and its truth on one grid."""

    scene: Scene
    truth: Truth

    @property
    def name(self) -> str:
        return self.scene.name

    @property
    def shape(self) -> Shape:
        return self.scene.shape

    def read_region(self, window: Window) -> LabelledRegion:
        pixels = self.scene.read_window(window)
        labels = np.where(pixels.valid, self.truth.read_labels(window), np.uint8(NO_CLASS))
        return LabelledRegion(np.where(pixels.valid, pixels.image, np.uint8(FILL_VALUE)), labels)


@dataclass(frozen=True, slots=True)
class DecodedScene:
    """A labelled scene held in memory: 4 bytes per pixel for three bands and labels."""

    name: str
    whole: LabelledRegion

    @property
    def shape(self) -> Shape:
        return Shape(*self.whole.labels.shape)

    def read_region(self, window: Window) -> LabelledRegion:
        rows, cols = window.toslices()
        return LabelledRegion(self.whole.image[:, rows, cols], self.whole.labels[rows, cols])


def decoded(scene: LabelledScene) -> LabelledScene:
    """The scene held in memory when it is small (up to 64 Mpx at the model's resolution, 256 MB), itself otherwise."""
    height, width = scene.shape
    if height * width > CACHE_PIXELS:
        return scene
    return DecodedScene(scene.name, scene.read_region(Window(col_off=0, row_off=0, width=width, height=height)))


@dataclass(frozen=True, slots=True)
class PairReader:
    """Opens the scenes of sources at a model's resolution.

    Args:
        folder: data folder that the sources' patterns start from.
        legend: classes of the model.
        resolution_m: the model's resolution.
        files: closes what was opened.
        progress: receiver of the rules applied to each raster.
    """

    folder: Path
    legend: Legend
    resolution_m: float
    files: ExitStack
    progress: Progress

    def iter_scenes(self, source: SourceConfig) -> Iterator[LabelledScene]:
        """Labelled scenes of one source, from files or generated; small ones are held in memory.

        Raises:
            DatasetError: files are missing or cannot be used.
            SceneError: a raster cannot be read.
        """
        if source.generated:
            yield from (self._generated(seed) for seed in range(1, source.generated + 1))
        else:
            yield from (decoded(pair) for pair in self.iter_pairs(source))

    def iter_pairs(self, source: SourceConfig) -> Iterator[Pair]:
        """Rasters of one source with their truth.

        Raises:
            DatasetError: files are missing or cannot be used.
            SceneError: a raster cannot be read.
        """
        if source.generated:
            raise DatasetError("generated scenes are for training only; name files for validation")
        for image_path, truth_path in source.iter_files(self.folder):
            yield self.open_pair(image_path, truth_path, source)

    def open_pair(self, image_path: Path, truth_path: Path, source: SourceConfig) -> Pair:
        """A raster and the file of its truth."""
        scene = self.files.enter_context(
            open_scene(
                image_path,
                resolution_m=self.resolution_m,
                assumed_pixel_size_m=source.pixel_size_m or None,
                progress=self.progress,
            )
        )
        if source.polygons:
            return Pair(scene, polygon_truth(scene, truth_path, self.legend, source.class_column or None))
        return Pair(scene, ImageTruth(truth_path, self.legend, scene.shape))

    def _generated(self, seed: int) -> LabelledScene:
        return DecodedScene(f"generated scene {seed}", generated_region(seed, self.legend, self.resolution_m))
