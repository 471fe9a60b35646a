"""Images paired by name with label images or vector files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from geoglnet.datasets.coding import Coding, legend_coding
from geoglnet.datasets.pairs import Pair, SceneFile
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import ImagesSource
from geoglnet.datasets.truth import PolygonTruth, Truth, VectorFiles, image_truth, window_box
from geoglnet.errors import DatasetError


def iter_pairs(source: ImagesSource, reader: PairReader) -> Iterator[Pair]:
    """Yield the images of a source with their truth.

    Raises:
        DatasetError: files are missing or cannot be used.
        LegendError: files have classes that the legend lacks.
    """
    coding = legend_coding(reader.legend, source.values, source.ignore, unlabeled=source.unlabeled)
    for image_path, truth_path in iter_files(source, reader):
        file = reader.look_at(image_path, source.pixel_size_m or None, source)
        if file is not None:
            yield Pair(file, _truth(source, file, truth_path, coding, reader))


def iter_files(source: ImagesSource, reader: PairReader) -> Iterator[tuple[Path, Path]]:
    """Yield images and the files of their truth, sorted by name.

    Raises:
        DatasetError: no image matches, or the truth of one is missing.
    """
    found = reader.matching(source.images)
    for image_path in found:
        truth_path = reader.beside(image_path, source.images, source.polygons or source.labels)
        if not truth_path.is_file():
            raise DatasetError(f"{image_path.name} has no truth at {truth_path}; remove the image, or correct the pattern")
        yield image_path, truth_path


def _truth(source: ImagesSource, file: SceneFile, path: Path, coding: Coding, reader: PairReader) -> Truth:
    """Open the truth of one image."""
    if not source.polygons:
        return image_truth(file.path, path, coding, reader.legend, file.shape)
    around = window_box(file.transform, file.shape).bounds
    polygons = VectorFiles((path,), source.class_column).read(file.crs, around, coding, reader.legend, reader.progress)
    return PolygonTruth(polygons, file.transform, coding.nodata_label)
