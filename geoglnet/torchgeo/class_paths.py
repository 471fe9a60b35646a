"""Datasets that a configuration names by their class: TorchGeo's own, and subclasses of people's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from geoglnet.datasets.coding import legend_coding
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import PATH_ARGUMENTS, TorchgeoSource, placed
from geoglnet.errors import ConfigError, DatasetError, SceneError
from geoglnet.plain import shortened
from geoglnet.progress import Progress
from geoglnet.torchgeo.adapter import (
    GeoDataset,
    class_at,
    files_of,
    footprints,
    parts_of,
    paths_of,
    reads_files_plainly,
    split_dataset,
)
from geoglnet.torchgeo.entries import iter_entries
from geoglnet.torchgeo.rasters import GeoTruth
from geoglnet.torchgeo.readings import open_file, open_labels


def open_source(source: TorchgeoSource, folder: Path, progress: Progress) -> tuple[GeoDataset, Any]:
    """Open the dataset of a source, with its labels, and take the split.

    Args:
        source: names the classes and the split.
        folder: data folder.
        progress: receives what TorchGeo warns about, such as paths without files.

    Returns:
        The whole dataset, and the index of the split: the rest of what TorchGeo splits cannot always be read.

    Raises:
        ConfigError: a class, an argument or a split that there is not.
        DatasetError: the dataset finds no files, or images and labels do not meet.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        dataset = _open_class(source.dataset, source.args, folder)
        labels = _open_class(source.labels, source.labels_args, folder) if source.labels else None
    for warning in dict.fromkeys(str(one.message) for one in caught if one.category is UserWarning):
        progress.warn(warning)
    if labels is not None:
        try:
            dataset = dataset & labels
        except (RuntimeError, ValueError) as error:  # TorchGeo's, where nothing is in both
            raise DatasetError(f"{source.dataset} and {source.labels} have no place and time in common: {error}") from error
    index = dataset.index
    if source.splits:
        parts = split_dataset(dataset, source.splits, split_arguments(source.splits_args), source.seed)
        if source.split >= len(parts):
            raise ConfigError(f"split = {source.split} of {source.splits}, which gives {len(parts)}; they count from 0")
        index = parts[source.split].index
    if not len(index):
        raise DatasetError(f"split {source.split} of {source.dataset} is empty; check the paths, the split and its lengths")
    return dataset, index


def iter_pairs(source: TorchgeoSource, reader: PairReader) -> Iterator[Pair]:
    """Yield the rasters of a dataset with their truth, at the model's resolution; outside of the split nothing is known.

    Raises:
        ConfigError: a class, an argument or a split that there is not.
        DatasetError: files are missing or cannot be used.
        LegendError: labels have classes that the legend lacks.
    """
    dataset, index = open_source(source, reader.folder, reader.progress)
    coding = legend_coding(reader.legend, source.values, source.ignore, unlabeled=source.unlabeled)
    parts = parts_of(dataset)
    if parts is None or not reads_files_plainly(parts[0]):
        yield from iter_entries(dataset, index, coding, reader)
        return
    images, labels = parts
    truth = open_labels(labels, images, coding, reader)
    is_timeless = len(labels.index.index.unique()) == 1
    rasters, left_out = files_of(images), []
    for path, footprint, span in zip(paths_of(images), footprints(images), images.index.index, strict=True):
        time = slice(span.left, span.right)
        # Of the index of the split: TorchGeo's intersection of images and labels, in place and time.
        then = index.geometry.to_numpy()[index.index.overlaps(span)]
        known = shapely.get_parts(shapely.intersection(then, footprint))
        coverage = shapely.union_all(known[shapely.get_dimensions(known) == 2])  # neighbors that touch meet in lines
        if coverage.area <= np.prod(images.res):
            left_out.append(path.name)
            continue
        try:
            file = open_file(path, images, rasters[path], reader, source.nodata)
        except SceneError as error:
            reader.leave_out(error)
            continue
        yield Pair(file, GeoTruth(truth, file.transform, coverage, None if is_timeless else time))
    if left_out:
        reader.progress.log(
            f"{len(left_out)} of {len(images)} rasters have no labels in this split and are left out: {', '.join(left_out[:5])}"
        )


def _open_class(path: str, args: Mapping[str, Any], folder: Path) -> GeoDataset:
    """Make a dataset of a class by its path and plain arguments."""
    kind, options = class_at(path), dict(args)
    for key in PATH_ARGUMENTS:
        given = options.get(key)
        if isinstance(given, str):
            options[key] = placed(given, folder)
        elif isinstance(given, list):
            options[key] = [placed(part, folder) for part in given]
    if isinstance(options.get("res"), list):
        options["res"] = tuple(options["res"])
    try:
        if "crs" in options:
            options["crs"] = CRS.from_user_input(options["crs"])
        dataset: GeoDataset = kind(**options)
    except TypeError as error:  # an argument that the constructor does not know
        raise ConfigError(f"{path}: {error}; give the arguments of the class in args or labels_args") from error
    except (AssertionError, CRSError, LookupError, OSError, RuntimeError, ValueError) as error:
        raise DatasetError(f"{path} cannot be opened: {' '.join(str(error).split())[:300]}") from error
    return dataset


def split_arguments(args: Mapping[str, Any]) -> dict[str, Any]:
    """Convert plain arguments of a function that splits: boxes of regions, spans of time; others stay as they are.

    Raises:
        ConfigError: a region that is no box, or a span that is no two dates.
    """
    converted = dict(args)
    try:
        if "rois" in converted:
            rois = converted["rois"]
            converted["rois"] = [roi if isinstance(roi, shapely.Geometry) else shapely.box(*roi) for roi in rois]
        lengths = converted.get("lengths", ())
        if any(isinstance(length, list) for length in lengths):
            converted["lengths"] = [pd.Interval(*map(pd.Timestamp, length), closed="neither") for length in lengths]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"splits_args = {shortened(dict(args))}: {error}; rois are lists of left, bottom, right and top, spans two dates"
        ) from error
    return converted
