"""TorchGeo's GeoDatasets and samplers as geoglnet uses them: the only module that imports torchgeo.

TorchGeo changes between releases: 0.8 is the newest for Python 3.11, 0.9 and later require Python 3.12, and the columns of an
intersection's index, the keys of samples and the classes of samplers differ. So nothing here checks a version: it looks for the
column, key or attribute itself, and where that is missing, the error names TorchGeo's version and what it lacks. What differs
and matters here: samples of 0.8 have ``crs`` and ``bounds`` as objects, those of 0.10 hold tensors alone, ``transform`` among
them; samplers of 0.8 have a base class that takes the dataset, that of 0.10 takes nothing.

This relies on an index (GeoDataFrame) with footprints and the column ``filepath``, a CRS, a resolution, and queries
``dataset[x0:x1:xres, y0:y1:yres]`` that return samples with ``image`` or ``mask``. Which raster meets which labels is computed
here from the two indexes: TorchGeo's own intersection does not keep it from 0.10 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
import torch
from affine import Affine
from torchgeo.datasets import (
    GeoDataset,
    IntersectionDataset,
    RasterDataset,
    UnionDataset,
    VectorDataset,
    concat_samples,
    stack_samples,
)
from torchgeo.samplers import GeoSampler, Units

from geoglnet.config import suggestion
from geoglnet.datasets.truth import LabelPolygons
from geoglnet.errors import ConfigError, DatasetError
from geoglnet.plain import shortened
from geoglnet.types import Shape

__all__ = [
    "Cuboid",
    "GeoDataset",
    "GeoSampler",
    "ImageRasters",
    "LabelRasters",
    "Query",
    "Resolution",
    "Units",
    "VectorLabels",
    "band_files",
    "class_at",
    "coverages",
    "features_of",
    "files_of",
    "footprints",
    "image_parts",
    "index_of",
    "labels_of",
    "limit",
    "overlapping",
    "parts_of",
    "paths_of",
    "place_keys",
    "placed_index",
    "query",
    "reads_files_plainly",
    "resolved",
    "split_dataset",
    "stack_samples",
    "values_of",
    "weights_by_name",
]

Resolution: TypeAlias = tuple[float, float]
Query: TypeAlias = tuple[slice, slice] | tuple[slice, slice, slice]
Cuboid: TypeAlias = tuple[slice, slice, slice]
"""x, y and time of a query, each with start, stop and step."""

_FILE_COLUMN = "filepath"  # of the index, since TorchGeo 0.8
# Methods of a RasterDataset by which it reads; a subclass that has others reads in a way of its own.
_READING = ("__getitem__", "_merge_files", "_merge_or_stack", "_load_warp_file", "_cached_load_warp_file")


class ImageRasters(RasterDataset):
    """Rasters of one CRS."""


class LabelRasters(RasterDataset):
    """Label rasters in any CRS and tiling, warped to one CRS."""

    is_image = False


class VectorLabels(VectorDataset):
    """Polygons as labels: read once (TorchGeo reads its files anew for every query) and drawn by the model's legend.

    TorchGeo's own constructor would open the files for its index, and reads fewer formats and kinds of geometries.

    Args:
        paths: the files.
        images: rasters that they label; their CRS and resolution are taken over.
        polygons: polygons of the files, in the CRS of the rasters.
        fill: label outside all polygons.
    """

    def __init__(self, paths: Sequence[Path], images: GeoDataset, polygons: LabelPolygons, fill: int) -> None:
        self.paths = [str(path) for path in paths]
        self.transforms = self.label_name = self.layer = None
        self.task = "semantic_segmentation"
        self._res = images.res
        # Rows of the rasters' index with other geometries: whatever further columns this TorchGeo expects are there.
        rows = images.index.iloc[[0] * len(paths)].set_geometry(polygons.footprints_of(len(paths)), crs=images.crs)
        self.index = rows.assign(**{_FILE_COLUMN: self.paths})
        self.polygons = polygons
        self.fill = fill

    def __getitem__(self, query: Any) -> dict[str, Any]:
        x, y = query[:2]
        xres, yres = x.step or self.res[0], y.step or self.res[1]
        shape = Shape(round((y.stop - y.start) / yres), round((x.stop - x.start) / xres))
        transform = Affine(xres, 0, x.start, 0, -yres, y.stop)
        labels = self.polygons.draw(transform, shape, self.fill)
        return {"mask": torch.from_numpy(labels).long(), "transform": torch.tensor(transform)}


def class_at(path: str) -> type[GeoDataset]:
    """Import a class of datasets.

    Args:
        path: module and class, as ``"torchgeo.datasets.NAIP"``; without a module it is one of ``torchgeo.datasets``.

    Raises:
        ConfigError: there is none, or it is no GeoDataset.
    """
    module, _, name = path.rpartition(".")
    module = module or "torchgeo.datasets"
    try:
        found = getattr(import_module(module), name, None)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"dataset {shortened(path)}: {error}; give module and class, as in 'torchgeo.datasets.NAIP'"
        ) from error
    if isinstance(found, type) and issubclass(found, GeoDataset):
        return found
    if found is None:
        known = tuple(name for name, value in vars(import_module(module)).items() if isinstance(value, type))
        raise ConfigError(f"{module} has no {shortened(name)}{suggestion(name, known) if known else ''}")
    raise ConfigError(
        f"{shortened(path)} is no GeoDataset: its samples have no place; use kind = 'deepglobe', 'inria', 'isic' or 'images'"
    )


def split_dataset(dataset: GeoDataset, splitter: str, args: Mapping[str, Any], seed: int) -> list[GeoDataset]:
    """Split a dataset by one of TorchGeo's functions.

    Args:
        dataset: to split; it stays as it is.
        splitter: name of the function.
        args: of the function.
        seed: of a random split.

    Raises:
        ConfigError: arguments that the function refuses.
    """
    function = getattr(import_module("torchgeo.datasets"), splitter)
    # Those that draw do so with torch's global generator otherwise.
    drawn = {"generator": torch.Generator().manual_seed(seed)} if splitter.startswith("random") else {}
    try:
        parts: list[GeoDataset] = function(dataset, **args, **drawn)
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{splitter}: {error}") from error
    for part in parts:
        part.index = part.index.set_crs(placed_index(dataset).crs)  # lost by one of them in TorchGeo 0.8
    return parts


def placed_index(dataset: GeoDataset) -> Any:
    """Return a dataset's index, with its CRS: TorchGeo 0.8 loses that in ``random_grid_cell_assignment``."""
    index = dataset.index
    known = [part.crs for part in getattr(dataset, "datasets", ()) if part.crs is not None]
    return index.set_crs(known[0]) if index.crs is None and known else index


def query(transform: Affine, shape: Shape, step: float = 1, time: slice | None = None) -> Query:
    """Convert a window to TorchGeo's slices: at its own resolution, or, for an overview, with a coarser step."""
    x0, y1 = transform @ (0, 0)
    x1, y0 = transform @ (shape.width, shape.height)
    place = slice(x0, x1, transform.a * step), slice(y0, y1, -transform.e * step)
    return place if time is None else (*place, time)


def resolved(dataset: GeoDataset, place: Any) -> Cuboid:
    """Fill what a query leaves out with the dataset's bounds, resolution and time span.

    Raises:
        IndexError: the query is empty.
    """
    parts = (place,) if isinstance(place, slice) else tuple(place)
    filled = []
    for whole, part in zip(dataset.bounds, (*parts, slice(None), slice(None))[:3], strict=True):
        chosen = [
            theirs if ours is None else ours
            for ours, theirs in zip((part.start, part.stop, part.step), (whole.start, whole.stop, whole.step), strict=True)
        ]
        filled.append(slice(*chosen))
    x, y, t = filled
    if x.stop <= x.start or y.stop <= y.start:
        raise IndexError(f"query x {x.start} to {x.stop}, y {y.start} to {y.stop} is empty")
    return x, y, t


def overlapping(dataset: GeoDataset, time: slice) -> npt.NDArray[np.intp]:
    """Find the entries of a dataset's index in a span of time, in their order: positions, ``(n,)``."""
    found = np.flatnonzero(dataset.index.index.overlaps(pd.Interval(time.start, time.stop, closed="both")))
    return found[:: time.step]


def values_of(sample: Mapping[str, Any], key: str, dataset: GeoDataset) -> npt.NDArray[Any]:
    """Return an image or labels of a sample as an array.

    Raises:
        DatasetError: this TorchGeo's samples lack the key, or have ``None`` there.
    """
    value = sample.get(key)
    if not isinstance(value, torch.Tensor):
        found = ", ".join(f"{name} = None" if value is None else name for name, value in sample.items()) or "nothing"
        raise _unknown(f"{type(dataset).__name__} gives samples with {found}, and no tensor {key!r}")
    values: npt.NDArray[Any] = value.numpy()
    return values


def labels_of(dataset: GeoDataset, place: Query) -> npt.NDArray[Any]:
    """Read the label values of a place, ``(h, w)`` or ``(bands, h, w)``, as the dataset's files hold them.

    Raises:
        DatasetError: this TorchGeo's samples have no labels where they are known to be.
    """
    return values_of(dataset[place], "mask", dataset)


def place_keys(crs: Any, place: Cuboid, transform: Affine) -> dict[str, Any]:
    """Describe where a sample lies by the keys and types of the installed TorchGeo.

    Args:
        crs: coordinate reference system of the dataset.
        place: x, y and time of the sample.
        transform: from pixels of its labels to coordinates.

    Returns:
        ``transform`` (nine float64 numbers), ``bounds``, and ``crs`` where TorchGeo's own samples have it.
    """
    described: dict[str, Any] = {"transform": torch.tensor(tuple(transform), dtype=torch.float64)}
    if not hasattr(GeoDataset, "_slice_to_tensor"):  # samples hold objects too
        return described | {"crs": crs, "bounds": place}
    numbers = [number for axis in place[:2] for number in (axis.start, axis.stop, axis.step)]
    time = place[2]
    numbers += [time.start.timestamp(), time.stop.timestamp(), time.step]
    return described | {"bounds": torch.tensor(numbers, dtype=torch.float64)}


def parts_of(dataset: GeoDataset) -> tuple[GeoDataset, GeoDataset] | None:
    """Divide an intersection into its images and its labels; ``None`` where only the dataset itself can tell them apart."""
    if not isinstance(dataset, IntersectionDataset) or dataset.transforms or dataset.collate_fn is not concat_samples:
        return None
    one, other = dataset.datasets
    return {("image", "mask"): (one, other), ("mask", "image"): (other, one)}.get((_key(one), _key(other)))


def features_of(dataset: GeoDataset) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]] | None:
    """Read the geometries of a vector dataset in its CRS, with the numbers that it draws them with, in their order.

    TorchGeo opens its files anew for every query. ``None`` for a dataset that draws in a way of its own, with transforms, or
    has files of several times.

    Raises:
        DatasetError: this TorchGeo's index does not name files.
    """
    if not isinstance(dataset, VectorDataset) or type(dataset).__getitem__ is not VectorDataset.__getitem__:
        return None
    if dataset.transforms or dataset.task != "semantic_segmentation" or dataset.index.index.nunique() > 1:
        return None
    tables = [
        geopandas.read_parquet(path) if path.suffix.lower() == ".parquet" else geopandas.read_file(path, layer=dataset.layer)
        for path in paths_of(dataset)
    ]
    values = [dataset.get_label(row) for table in tables for _, row in table.iterrows()]
    return np.concatenate([table.to_crs(dataset.crs).geometry.to_numpy() for table in tables]), np.array(values, np.int64)


def files_of(dataset: GeoDataset) -> dict[Path, GeoDataset]:
    """Find which raster dataset of a union each file belongs to: that one says which of its bands are read."""
    if isinstance(dataset, UnionDataset):
        return {path: raster for part in reversed(dataset.datasets) for path, raster in files_of(part).items()}
    return dict.fromkeys(paths_of(dataset), dataset)


def _key(dataset: GeoDataset) -> str:
    """Return the key under which a dataset's samples hold what it reads; empty where that is not known."""
    if isinstance(dataset, (IntersectionDataset, UnionDataset)):
        keys = {_key(part) for part in dataset.datasets}
        return keys.pop() if len(keys) == 1 else ""
    if isinstance(dataset, RasterDataset):
        return "image" if dataset.is_image else "mask"
    return "mask" if isinstance(dataset, VectorDataset) else ""


def reads_files_plainly(dataset: GeoDataset) -> bool:
    """Return whether a dataset is rasters, or a union of such, that it returns as its files hold them.

    Then the files can be read instead, without changing what they mean. It is not so for a subclass that reads in a way of its
    own, with transforms, for labels with a file for each band, or for time series.
    """
    if isinstance(dataset, UnionDataset):
        return not dataset.transforms and all(map(reads_files_plainly, dataset.datasets))
    if not isinstance(dataset, RasterDataset) or dataset.transforms or (dataset.separate_files and not dataset.is_image):
        return False
    is_own = any(getattr(type(dataset), name, None) is not getattr(RasterDataset, name, None) for name in _READING)
    return not is_own and not getattr(dataset, "time_series", False)


def image_parts(images: GeoDataset) -> list[GeoDataset]:
    """Divide an intersection of image datasets into these, in the order of their bands; any other dataset is one part."""
    if not isinstance(images, IntersectionDataset) or images.transforms or images.collate_fn is not concat_samples:
        return [images]
    return [part for dataset in images.datasets for part in image_parts(dataset)]


def band_files(dataset: GeoDataset, path: Path) -> dict[str, Path]:
    """List the files of the bands of a raster, by their names in the dataset's order; empty where one file holds all.

    Raises:
        DatasetError: this TorchGeo does not tell them.
    """
    if not getattr(dataset, "separate_files", False):
        return {}
    named = getattr(dataset, "_update_filepath", None)
    if named is None:
        raise _unknown(f"{type(dataset).__name__} has a file for each band, but no method that names them")
    return {band: Path(named(band, str(path))) for band in getattr(dataset, "bands", ())}


def footprints(dataset: GeoDataset) -> npt.NDArray[np.object_]:
    """Return the footprint of every entry of a dataset's index, ``(n,)``, in the dataset's CRS.

    Raises:
        DatasetError: this TorchGeo keeps no such index.
    """
    try:
        geometries: npt.NDArray[np.object_] = dataset.index.geometry.to_numpy()
    except AttributeError as error:
        raise _unknown(f"the index of {type(dataset).__name__} has no geometries") from error
    return geometries


def index_of(paths: Sequence[str], geometries: Sequence[shapely.Geometry], crs: Any) -> geopandas.GeoDataFrame:
    """Make the index of files that count at any time."""
    spans = pd.IntervalIndex.from_tuples([(pd.Timestamp.min, pd.Timestamp.max)] * len(paths), closed="both", name="datetime")
    return geopandas.GeoDataFrame({_FILE_COLUMN: list(paths)}, index=spans, geometry=list(geometries), crs=crs)


def paths_of(dataset: GeoDataset) -> list[Path]:
    """Return the file of every entry of a dataset's index.

    Raises:
        DatasetError: this TorchGeo's index does not name files.
    """
    try:
        return [Path(name) for name in dataset.index[_FILE_COLUMN]]
    except (AttributeError, KeyError) as error:
        raise _unknown(f"the index of {type(dataset).__name__} has no column {_FILE_COLUMN!r}") from error


def limit(dataset: GeoDataset, area: shapely.Geometry, *, is_everywhere: bool = False) -> None:
    """Narrow a dataset's index to an area.

    Args:
        dataset: its index is replaced.
        area: area in the dataset's CRS.
        is_everywhere: the dataset has labels in all of the area, also outside of its own footprints.
    """
    if is_everywhere:
        dataset.index = dataset.index[:1].set_geometry([area], crs=dataset.index.crs)
    else:
        dataset.index = dataset.index.clip(area, keep_geom_type=True)


def coverages(images: GeoDataset, labels: GeoDataset) -> dict[Path, shapely.Geometry]:
    """Compute the area of each raster that has labels, in the CRS of both datasets; less than a pixel does not count.

    Raises:
        DatasetError: this TorchGeo's indexes lack footprints or file names.
    """
    least = images.res[0] * images.res[1]
    labeled = footprints(labels)
    tree = shapely.STRtree(labeled)
    # A raster may have several entries in the index, and meet several label files.
    met: dict[Path, list[shapely.Geometry]] = {}
    for path, footprint in zip(paths_of(images), footprints(images), strict=True):
        near = labeled[tree.query(footprint, predicate="intersects")]
        # Footprints that only touch meet in lines and points, which are no area.
        parts = shapely.get_parts(shapely.intersection(near, footprint))
        met.setdefault(path, []).extend(parts[shapely.get_dimensions(parts) == 2])
    covered = {path: shapely.union_all(parts) for path, parts in met.items()}
    return {path: coverage for path, coverage in covered.items() if coverage.area > least}


def weights_by_name(name: str) -> Any:
    """Return the member of one of TorchGeo's enums of weights, as ``"ResNet50_Weights.SENTINEL2_ALL_MOCO"``.

    Raises:
        ValueError: there is none.
    """
    return import_module("torchgeo.models").get_weight(name)  # of seconds' weight, which datasets and samplers need not carry


def _unknown(what: str) -> DatasetError:
    """Make the error about a TorchGeo that lacks something."""
    return DatasetError(f"TorchGeo {version('torchgeo')} is not supported: {what}; install one from 0.8 to 0.10")
