"""Truth of a scene on its grid: polygons, rasterized region by region, or a label image of the scene's size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.io import DatasetReader
from rasterio.windows import Window
from rasterio.windows import transform as window_transform
from shapely import STRtree, box

from geoglnet.datasets.coding import Coding, check_palette, names_in
from geoglnet.errors import DatasetError, LegendError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.progress import Progress
from geoglnet.raster.band_choice import check_real
from geoglnet.raster.crs import are_one_place, crs_label
from geoglnet.raster.failures import check_filled, reading
from geoglnet.raster.gdal import open_raster
from geoglnet.types import Bounds, Labels, Shape
from geoglnet.vector.polygon_reader import read_polygons


class Truth(Protocol):
    """Port: labels of any window of a scene's grid."""

    def read_labels(self, window: Window) -> Labels:
        """Read ``(h, w)`` uint8 labels; :data:`~geoglnet.legend.NO_CLASS` where they are unknown."""


@dataclass(frozen=True, slots=True)
class LabelPolygons:
    """Polygons with their labels, in one CRS.

    Args:
        geometries: ``(n,)`` polygons; where several hold a pixel's center, the last one counts.
        values: ``(n,)`` labels.
        file: ``(n,)`` index of the file of each polygon; left out, all are from one.
    """

    geometries: npt.NDArray[np.object_]
    values: Labels
    file: npt.NDArray[np.intp] | None = None
    tree: STRtree = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", STRtree(self.geometries))

    def footprints_of(self, num_files: int) -> list[shapely.Polygon]:
        """Return the bounding box of the polygons of every file; an empty polygon for a file without any."""
        file = np.zeros(len(self.geometries), np.intp) if self.file is None else self.file
        parts = [self.geometries[file == index] for index in range(num_files)]
        return [box(*shapely.total_bounds(part)) if len(part) else shapely.Polygon() for part in parts]

    def draw(self, transform: Affine, shape: Shape, fill: int) -> Labels:
        """Rasterize the polygons on a grid: a pixel belongs to the polygon that holds its center.

        Args:
            transform: grid pixel to CRS coordinates.
            shape: shape of the grid.
            fill: label outside all polygons.

        Returns:
            ``(h, w)`` uint8.
        """
        near = sorted(self.tree.query(window_box(transform, shape)))  # in their order: later ones cover earlier ones
        labels = np.full(shape, fill, dtype=np.uint8)
        if near:
            drawn = [(self.geometries[i], int(self.values[i])) for i in near]
            rasterize(drawn, out=labels, transform=transform)
        return labels


@dataclass(frozen=True, slots=True)
class PolygonTruth:
    """Labels drawn from polygons, region by region.

    Args:
        polygons: polygons in the CRS of ``transform``.
        transform: grid pixel to CRS coordinates.
        fill: label outside all polygons.
    """

    polygons: LabelPolygons
    transform: Affine
    fill: int

    def read_labels(self, window: Window) -> Labels:
        """Rasterize a window, which may reach beyond the scene."""
        shape = Shape(int(window.height), int(window.width))
        return self.polygons.draw(window_transform(window, self.transform), shape, self.fill)


@dataclass(frozen=True, slots=True)
class ImageTruth:
    """Labels read from a label image that covers the same ground as the scene.

    Args:
        path: label image.
        coding: meaning of its colors and values.
        grid: shape of the scene's grid.
    """

    path: Path
    coding: Coding
    grid: Shape

    def read_labels(self, window: Window) -> Labels:
        """Read the labels of a window, resampled nearest to its resolution.

        Raises:
            DatasetError: a color or value that no class has.
            SceneError: the file is damaged.
        """
        with open_raster(self.path) as src:
            # The image covers the same ground as the grid, with pixels of its own.
            down, across = src.height / self.grid.height, src.width / self.grid.width
            source = Window(
                col_off=window.col_off * across,
                row_off=window.row_off * down,
                width=window.width * across,
                height=window.height * down,
            )
            size = (src.count, int(window.height), int(window.width))
            with reading(src, source):
                bands = src.read(window=source, out_shape=size, resampling=Resampling.nearest)
                check_filled(src, src.indexes, source, bands)
            nodata = src.nodata  # outside, the dataset is closed
        labels, wrong = self.coding.decode(bands, nodata)
        if wrong.any():
            row, col = (int(v) for v in np.argwhere(wrong)[0])
            place = f"row {int(source.row_off + (row + 0.5) * down)}, column {int(source.col_off + (col + 0.5) * across)}"
            raise DatasetError(illegal_label(self.path, bands[:, row, col], place, self.coding))
        return labels


def illegal_label(path: Any, pixel: npt.NDArray[Any], place: str, coding: Coding) -> str:
    """Write the message about a pixel that the coding cannot decode."""
    if len(pixel) >= 3:
        color = tuple(int(v) for v in pixel[:3])
        return f"{path} has color {color} at {place}, which no class of the legend has; correct the legend or the file"
    known = ", ".join(str(value) for value in sorted(coding.by_value))
    return f"{path} has label {pixel[0]} at {place}; known are {known}; {coding.hint}"


def image_truth(image_path: Path, path: Path, coding: Coding, legend: Legend, grid: Shape) -> ImageTruth:
    """Make the truth of an image from a label image of the same size.

    Raises:
        DatasetError: the sizes differ, or the file has colors that contradict the legend.
    """
    # Checked for every pair before training, by the headers alone.
    with open_raster(image_path) as image, open_raster(path) as labels:
        if labels.shape != image.shape:
            sizes = [f"{src.width} × {src.height} px" for src in (labels, image)]
            raise DatasetError(
                f"{path} is {sizes[0]}, {image_path.name} is {sizes[1]}; give a label image of the image's size "
                "(kind = 'rasters' matches files of different sizes by their georeference)"
            )
        check_real(labels, labels.indexes)
        check_palette(path, palette_of(labels), coding, legend)
    return ImageTruth(path, coding, grid)


def palette_of(src: DatasetReader) -> dict[int, tuple[int, ...]]:
    """Read the color table of a raster; empty when it has none."""
    try:
        return dict(src.colormap(1)) if src.count == 1 else {}
    except ValueError:  # raised by rasterio where there is none
        return {}


@dataclass(frozen=True, slots=True)
class VectorFiles:
    """Vector files of one kind, with the settings of reading them.

    Args:
        paths: the files.
        class_column: attribute that names a polygon's class; empty when all are of the last class.
        layer: layer of each file; empty for its first one with geometries.
    """

    paths: Sequence[Path]
    class_column: str = ""
    layer: str = ""

    def read(self, crs: Any, around: Bounds, coding: Coding, legend: Legend, progress: Progress) -> LabelPolygons:
        """Read all polygons in a CRS, for rasters within some bounds; a reprojection is logged.

        Raises:
            DatasetError: a file cannot be used.
            LegendError: a polygon's class is not in the legend.
        """
        parts = [self._read_file(path, crs, around, coding, legend, progress) for path in self.paths]
        geometries, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        file = np.repeat(np.arange(len(parts)), [len(part) for part, _ in parts])
        order = np.argsort(values == NO_CLASS, kind="stable")  # polygons to ignore are drawn on top of all others
        return LabelPolygons(geometries[order], values[order], file[order])

    def _read_file(
        self, path: Path, crs: Any, around: Bounds, coding: Coding, legend: Legend, progress: Progress
    ) -> tuple[Any, Labels]:
        """Read the polygons of one file with their labels."""
        column, layer = self.class_column or None, self.layer or None
        polygons = read_polygons(path, crs, column, layer=layer, around=around, progress=progress)
        if crs is not None and polygons.crs is not None and not are_one_place(polygons.crs, crs):
            theirs, ours = crs_label(polygons.crs), crs_label(crs)
            progress.log(f"{path.name} is in {theirs}, its raster in {ours}: polygons are reprojected")
        names = polygons.class_names
        # Without a column, all polygons are of the last class: a legend of background and one class is the usual case.
        if names is None:
            return polygons.geometries, np.full(len(polygons), legend.num_classes - 1, np.uint8)
        if unknown := names_in(names, coding):
            count = Counter(names)[unknown[0]]
            raise LegendError(
                f"{path} has class {unknown[0]!r} in {self.class_column!r} ({count} polygons), which the legend lacks "
                f"({', '.join(legend.names)}); add it there, map it with values = {{…}}, or ignore = [{unknown[0]!r}]"
            )
        return polygons.geometries, np.array([coding.label_of(name) for name in names], np.uint8)


def window_box(transform: Affine, shape: Shape) -> shapely.Polygon:
    """Return the bounding box of a window in the CRS of its transform."""
    ends = np.array([transform @ (x, y) for x in (0, shape.width) for y in (0, shape.height)])
    return box(*ends.min(axis=0), *ends.max(axis=0))
