"""Georeferenced rasters, matched by place with vector files or label rasters through TorchGeo's indexes and queries.

TorchGeo's indexes tell which rasters and labels meet; labels of any CRS and tiling come from its queries, on the grid of the
raster (:mod:`geoglnet.torchgeo.adapter`). Pixels are read as ``predict`` reads them (nodata, alpha, 16 bits, averaging),
which TorchGeo's rasters do not support. Each CRS has a dataset of its own: TorchGeo would warp all rasters to that of the
first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from pyproj import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import geometry_mask
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from geoglnet.datasets.coding import Coding, check_palette, legend_coding
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import RastersSource
from geoglnet.datasets.truth import VectorFiles, illegal_label, palette_of, window_box
from geoglnet.errors import DatasetError, SceneError
from geoglnet.legend import NO_CLASS
from geoglnet.raster.band_choice import check_real
from geoglnet.raster.files import GDAL_ERRORS
from geoglnet.raster.gdal import environment, one_line, open_raster
from geoglnet.raster.grid import georeference, is_rotated
from geoglnet.torchgeo.adapter import (
    GeoDataset,
    ImageRasters,
    LabelRasters,
    VectorLabels,
    coverages,
    footprints,
    labels_of,
    limit,
    overlapping,
    paths_of,
    query,
)
from geoglnet.types import Labels, Shape
from geoglnet.vector.polygon_reader import read_polygons


@dataclass(frozen=True, slots=True)
class GeoLabels:
    """A TorchGeo dataset of labels, and the meaning of its samples' ``mask``.

    Args:
        dataset: source of labels.
        coding: meaning of its values; ``None`` when they are labels already.
        nodata: value of pixels without a label.
        is_bounded: whether pixels outside of the dataset's index are unknown.
        is_warped: whether its rasters must be warped to the grid here: they have another CRS or are rotated, or hold numbers
            that TorchGeo would convert.
    """

    dataset: GeoDataset
    coding: Coding | None = None
    nodata: float | None = None
    is_bounded: bool = True
    is_warped: bool = False

    @property
    def described(self) -> str:
        """Names of the first files, for messages."""
        return ", ".join(path.name for path in paths_of(self.dataset)[:3])

    def read(
        self, transform: Affine, shape: Shape, time: slice | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | bool]:
        """Read values on a grid; of several rasters at a place, the first with a label counts.

        TorchGeo fills a warped raster with 0 outside of its extent, which cannot be distinguished from a label 0.

        Returns:
            Values, ``(h, w)`` or ``(bands, h, w)``, and ``(h, w)`` bool (or ``True``) where there are any.
        """
        if not self.is_warped:
            return labels_of(self.dataset, query(transform, shape, time=time)), True
        near = shapely.intersects(footprints(self.dataset), window_box(transform, shape))
        if time is not None:
            near[np.setdiff1d(np.arange(len(near)), overlapping(self.dataset, time))] = False
        values, covered, labeled = np.zeros((1, *shape)), np.zeros(shape, bool), np.zeros(shape, bool)
        for path in (path for path, is_near in zip(paths_of(self.dataset), near, strict=True) if is_near):
            bands, inside = _read_warped(path, self.dataset.crs, transform, shape)
            is_empty = np.isnan(bands[0]) if bands.dtype.kind == "f" else bands[0] == self.nodata
            # A label replaces nodata of earlier rasters, and nodata replaces nothing but the lack of any raster.
            chosen = inside & ~labeled & ~(is_empty & covered)
            values = np.where(chosen, bands, values)
            covered, labeled = covered | inside, labeled | (inside & ~is_empty)
        return values, covered


LabelsFor: TypeAlias = Callable[[ImageRasters], GeoLabels]


@dataclass(frozen=True, slots=True)
class GeoTruth:
    """Labels on a raster's grid from a TorchGeo dataset.

    Args:
        labels: source of labels.
        transform: grid pixel to coordinates in the dataset's CRS, not rotated.
        coverage: area with known labels, in that CRS; ``None``: everywhere.
        time: span of time whose labels count; ``None``: any.
    """

    labels: GeoLabels
    transform: Affine
    coverage: shapely.Geometry | None
    time: slice | None = None

    def read_labels(self, window: Window) -> Labels:
        """Read the labels of a window.

        Raises:
            DatasetError: a value that no class has.
            SceneError: a label raster is damaged.
        """
        placed, shape = window_transform(window, self.transform), Shape(int(window.height), int(window.width))
        # Where nothing is known, labels are not read: a large raster may have few labels.
        known = self._known(placed, shape)
        if not known.any():
            return np.full(shape, NO_CLASS, np.uint8)
        try:
            with environment():
                mask, covered = self.labels.read(placed, shape, self.time)
        except GDAL_ERRORS as error:
            raise SceneError(f"{self.labels.described} cannot be read ({one_line(error)}); a file is damaged") from error
        known &= covered
        labels = mask if self.labels.coding is None else self._decoded(mask, known, placed, self.labels.coding)
        return np.where(known, labels, NO_CLASS).astype(np.uint8)

    def _decoded(self, mask: npt.NDArray[Any], known: npt.NDArray[np.bool_], placed: Affine, coding: Coding) -> Labels:
        """Decode values; those that no class has are an error only where labels are known."""
        bands = mask.reshape(-1, *mask.shape[-2:])
        labels, wrong = coding.decode(bands, self.labels.nodata)
        if (wrong & known).any():
            row, col = np.argwhere(wrong & known)[0]
            x, y = placed @ (col + 0.5, row + 0.5)
            raise DatasetError(illegal_label(self.labels.described, bands[:, row, col], f"x {x:.1f}, y {y:.1f}", coding))
        return labels

    def _known(self, transform: Affine, shape: Shape) -> npt.NDArray[np.bool_]:
        """Find the pixels of a window with known labels, ``(h, w)`` bool."""
        place = window_box(transform, shape)
        # Rasterizing the coverage is the slow case, along its border only.
        if self.coverage is None or self.coverage.contains(place):
            return np.ones(shape, bool)
        if not self.coverage.intersects(place):
            return np.zeros(shape, bool)
        inside: npt.NDArray[np.bool_] = geometry_mask([self.coverage], shape, transform, invert=True)
        return inside


def iter_pairs(source: RastersSource, reader: PairReader) -> Iterator[Pair]:
    """Yield the rasters of a source with their truth.

    Raises:
        DatasetError: files are missing or cannot be used, or no raster overlaps a label.
        LegendError: files have classes that the legend lacks.
    """
    opened = _Opened(source, reader, legend_coding(reader.legend, source.values, source.ignore, unlabeled=source.unlabeled))
    images = reader.matching(source.images)
    if source.labels:
        # A pattern such as *.tif may match the images too.
        paths = [path for path in reader.matching(source.labels) if path not in images]
        yield from iter_matched(images, lambda images: opened.label_rasters(paths, images), reader, source)
    else:
        paths = reader.matching(source.polygons)
        yield from iter_matched(images, lambda images: opened.vector_labels(paths, images), reader, source)


def iter_matched(
    paths: Sequence[Path], labels_for: LabelsFor, reader: PairReader, source: RastersSource | None = None
) -> Iterator[Pair]:
    """Yield rasters with the labels that they meet, one TorchGeo dataset per CRS; rasters without any are logged.

    Args:
        paths: the rasters.
        labels_for: opens the labels in the CRS of a group of rasters.
        reader: opens the rasters.
        source: that the rasters belong to, if it says how they are read.

    Raises:
        DatasetError: a raster has no CRS or is rotated, or none overlaps a label.
    """
    left_out: list[str] = []
    for group in by_crs(paths, reader).values():
        images = ImageRasters([str(path) for path in group], cache=False)
        labels = labels_for(images)
        covered = coverages(images, labels.dataset)
        left_out += [path.name for path in group if path not in covered]
        # The CRS is that of the raster's own dataset, so truth and image share one grid without warping the image.
        for path, coverage in covered.items():
            file = reader.look_at(path, source=source)
            if file is not None:
                yield Pair(file, GeoTruth(labels, file.transform, coverage if labels.is_bounded else None))
    if len(left_out) == len(paths):
        raise DatasetError(
            f"none of {len(paths)} rasters ({paths[0].name} …) overlaps a label; check the places and CRS of both"
        )
    if left_out:
        reader.progress.log(
            f"{len(left_out)} of {len(paths)} rasters overlap no label and are left out: {', '.join(left_out[:5])}"
        )


def by_crs(paths: Sequence[Path], reader: PairReader) -> dict[str, list[Path]]:
    """Group rasters by CRS.

    Raises:
        DatasetError: one has no CRS, or is rotated.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        try:
            with open_raster(path) as src:
                groups.setdefault(_placed_crs(src), []).append(path)
        except SceneError as error:
            reader.leave_out(error)
    return groups


def _placed_crs(src: DatasetReader) -> str:
    """Return the CRS of a raster that TorchGeo can place: georeferenced, north up."""
    place = georeference(src)
    if place.crs is None:
        reason = place.remark or "has no georeference"
        raise DatasetError(f"{src.name} {reason}; use kind = 'images', which pairs files by name")
    if is_rotated(src.transform, Shape(*src.shape)) or src.transform.e > 0:
        raise DatasetError(f"{src.name} is rotated or upside down; gdalwarp it, or use kind = 'images'")
    return str(src.crs.to_wkt())


def label_rasters(paths: Sequence[Path], images: ImageRasters, coding: Coding, reader: PairReader) -> GeoLabels:
    """Open label rasters in the CRS of the rasters that they label.

    Raises:
        DatasetError: one has no CRS or contradicts the legend, or their nodata values differ.
    """
    # Checked first: TorchGeo would warn of a file without a place, and pass over one that it cannot open.
    nodata, is_warped = check_label_files(paths, images.crs, coding, reader)
    dataset = LabelRasters([str(path) for path in paths], crs=images.crs, res=images.res, cache=False)
    return GeoLabels(dataset, coding, nodata, is_warped=is_warped)


def check_label_files(paths: Sequence[Path], crs: Any, coding: Coding, reader: PairReader) -> tuple[float | None, bool]:
    """Check label rasters, and find out how they can be read.

    Args:
        paths: the files.
        crs: of the rasters that they label.
        coding: meaning of their values.
        reader: has the legend, and receives what is done.

    Returns:
        The nodata value of all of them, and whether they must be warped to the grid (:class:`GeoLabels`).

    Raises:
        DatasetError: one has no CRS or contradicts the legend, or their nodata values differ.
    """
    nodata, is_warped = set(), False
    for path in paths:
        with open_raster(path) as src:
            check_real(src, src.indexes)
            if georeference(src).remark:
                raise DatasetError(f"{path} {georeference(src).remark}; use kind = 'images', which pairs files by name")
            if src.crs is None:
                raise DatasetError(f"{path} has no CRS; write one into it (gdal_edit.py -a_srs), or use kind = 'images'")
            check_palette(path, palette_of(src), coding, reader.legend)
            has_number = src.nodata is not None and not np.isnan(src.nodata)
            nodata.add(src.nodata if has_number else None)  # NaN is no label anyway
            # TorchGeo reads along the axes, north up, and converts floats to integers.
            is_upright = not is_rotated(src.transform, Shape(*src.shape)) and src.transform.e < 0
            is_warped |= not is_upright or any(dtype.startswith("float") for dtype in src.dtypes)
            if CRS.from_user_input(src.crs) != crs:
                is_warped = True
                reader.progress.log(f"{path.name} is in {src.crs}, its rasters are not: labels are reprojected")
    if len(nodata) > 1:  # TorchGeo merges rasters, after which nobody can tell whose nodata a value was
        raise DatasetError(f"label rasters have different nodata values ({nodata}); give each its own [[train]] source")
    return nodata.pop(), is_warped


def _read_warped(path: Path, crs: CRS, transform: Affine, shape: Shape) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Read ``(bands, h, w)`` values of a raster on a grid in any CRS, nodata included, and ``(h, w)`` bool where it reaches."""
    height, width = shape
    with open_raster(path) as src:
        # An alpha band shows where the raster ends. Without src_nodata, nodata pixels stay what they are, for the coding.
        options = {} if ColorInterp.alpha in src.colorinterp else {"add_alpha": True, "src_nodata": None}
        grid = {"crs": crs.to_wkt(), "transform": transform, "width": width, "height": height}
        with WarpedVRT(src, resampling=Resampling.nearest, **grid, **options) as warped:
            bands: npt.NDArray[Any] = warped.read()
    return bands[:-1], bands[-1] > 0


@dataclass(frozen=True, slots=True)
class _Opened:
    """Functions that open the labels of one source in the CRS of a group of rasters."""

    source: RastersSource
    reader: PairReader
    coding: Coding

    def label_rasters(self, paths: Sequence[Path], images: ImageRasters) -> GeoLabels:
        """Open label rasters, within the area of interest."""
        labels = label_rasters(paths, images, self.coding, self.reader)
        if self.source.area:
            limit(labels.dataset, self._area(images))
        return labels

    def vector_labels(self, paths: Sequence[Path], images: ImageRasters) -> GeoLabels:
        """Read vector files; with an area of interest, pixels outside of it are unknown, without one none are."""
        files = VectorFiles(paths, self.source.class_column, self.source.layer)
        around = shapely.total_bounds(footprints(images))
        polygons = files.read(images.crs, around, self.coding, self.reader.legend, self.reader.progress)
        dataset = VectorLabels(paths, images, polygons, self.coding.nodata_label)
        if self.source.area:
            limit(dataset, self._area(images), is_everywhere=True)
        return GeoLabels(dataset, is_bounded=bool(self.source.area))

    def _area(self, images: ImageRasters) -> shapely.Geometry:
        """Read the area of interest in the CRS of the rasters."""
        around, progress = shapely.total_bounds(footprints(images)), self.reader.progress
        paths = self.reader.matching(self.source.area)
        parts = [read_polygons(path, images.crs, around=around, progress=progress).geometries for path in paths]
        return shapely.union_all(np.concatenate(parts))
