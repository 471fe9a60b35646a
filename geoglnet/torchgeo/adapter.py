"""TorchGeo's GeoDatasets as geoglnet uses them: the only module that imports torchgeo.

TorchGeo changes between releases: 0.8 is the newest for Python 3.11, 0.9 and later require Python 3.12, and the columns of an
intersection's index, the keys of samples and the classes of samplers differ. So nothing here checks a version: it looks for the
column, key or attribute itself, and where that is missing, the error names TorchGeo's version and what it lacks.

This relies on an index (GeoDataFrame) with footprints and the column ``filepath``, a CRS, a resolution, and queries
``dataset[x0:x1:xres, y0:y1:yres]`` that return samples with ``image`` or ``mask``. Which raster meets which labels is computed
here from the two indexes: TorchGeo's own intersection does not keep it from 0.10 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
import torch
from affine import Affine
from torchgeo.datasets import GeoDataset, RasterDataset, VectorDataset

from geoglnet.datasets.truth import LabelPolygons
from geoglnet.errors import DatasetError
from geoglnet.types import Shape

__all__ = [
    "GeoDataset",
    "ImageRasters",
    "LabelRasters",
    "Query",
    "Resolution",
    "VectorLabels",
    "coverages",
    "footprints",
    "labels_of",
    "limit",
    "paths_of",
    "query",
]

Resolution: TypeAlias = tuple[float, float]
Query: TypeAlias = tuple[slice, slice]

_FILE_COLUMN = "filepath"  # of the index, since TorchGeo 0.8
_LABEL_KEYS = ("mask",)  # of samples


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

    def __init__(self, paths: Sequence[Path], images: ImageRasters, polygons: LabelPolygons, fill: int) -> None:
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


def query(transform: Affine, shape: Shape, step: float = 1) -> Query:
    """Convert a window to TorchGeo's slices: at its own resolution, or, for an overview, with a coarser step."""
    x0, y1 = transform @ (0, 0)
    x1, y0 = transform @ (shape.width, shape.height)
    return slice(x0, x1, transform.a * step), slice(y0, y1, -transform.e * step)


def labels_of(dataset: GeoDataset, place: Query) -> npt.NDArray[Any]:
    """Read the label values of a place, ``(h, w)`` or ``(bands, h, w)``, as the dataset's files hold them.

    Raises:
        DatasetError: this TorchGeo's samples have no labels where they are known to be.
    """
    sample: Mapping[str, torch.Tensor] = dataset[place]
    for key in _LABEL_KEYS:
        if key in sample:
            values: npt.NDArray[Any] = sample[key].numpy()
            return values
    raise _unknown(f"{type(dataset).__name__} gives samples with {', '.join(sample) or 'nothing'}, none of {_LABEL_KEYS}")


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


def _unknown(what: str) -> DatasetError:
    """Make the error about a TorchGeo that lacks something."""
    return DatasetError(f"TorchGeo {version('torchgeo')} is not supported: {what}; install one from 0.8 to 0.10")
