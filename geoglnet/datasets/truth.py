"""Truth on a scene's grid: from polygons, drawn region by region, or from a label image beside the raster."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.windows import Window
from rasterio.windows import transform as window_transform
from shapely import STRtree, box

from geoglnet.errors import DatasetError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.raster.environment import open_raster
from geoglnet.raster.scene import Scene
from geoglnet.types import Shape
from geoglnet.vector.reader import read_polygons

Labels = npt.NDArray[np.uint8]


class Truth(Protocol):
    """Port: labels of any window of a scene's grid."""

    def read_labels(self, window: Window) -> Labels:
        """``(h, w)`` uint8 labels; :data:`~geoglnet.legend.NO_CLASS` where nothing is known."""


@dataclass(frozen=True, slots=True)
class PolygonTruth:
    """Labels drawn from polygons: a pixel belongs to the polygon that holds its centre, any other to class 0.

    Args:
        geometries: in the CRS of ``transform``.
        values: label of each.
        transform: the scene's grid.
    """

    geometries: npt.NDArray[np.object_]
    values: Labels
    transform: Affine
    tree: STRtree = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", STRtree(self.geometries))

    def read_labels(self, window: Window) -> Labels:
        """Labels of a window that may reach past the scene."""
        placed = window_transform(window, self.transform)
        shape = (int(window.height), int(window.width))
        ends = np.array([placed @ (x, y) for x in (0, shape[1]) for y in (0, shape[0])])
        near = sorted(self.tree.query(box(*ends.min(axis=0), *ends.max(axis=0))))
        labels = np.zeros(shape, dtype=np.uint8)
        if near:
            drawn = [(self.geometries[i], int(self.values[i])) for i in near]
            rasterize(drawn, out=labels, transform=placed)
        return labels


@dataclass(frozen=True, slots=True)
class ImageTruth:
    """Labels read from a label image that covers the same ground as the scene, whatever its resolution.

    Args:
        path: RGB image in the legend's colours (black: unlabelled), or one band of label values.
        legend: meaning of colours and values.
        grid: shape of the scene's grid.
    """

    path: Path
    legend: Legend
    grid: Shape

    def read_labels(self, window: Window) -> Labels:
        """Labels of a window, read nearest at its resolution.

        Raises:
            DatasetError: a colour or value that no class has.
        """
        with open_raster(self.path) as src:
            down, across = src.height / self.grid.height, src.width / self.grid.width
            source = Window(
                col_off=window.col_off * across,
                row_off=window.row_off * down,
                width=window.width * across,
                height=window.height * down,
            )
            size = (src.count, int(window.height), int(window.width))
            values = src.read(window=source, out_shape=size, resampling=Resampling.nearest)
        return self._from_values(values[0]) if values.shape[0] == 1 else self._from_colours(values[:3])

    def _from_values(self, values: npt.NDArray[np.generic]) -> Labels:
        known = np.isin(values, np.arange(self.legend.num_classes))
        wrong = ~known & (values != self.legend.ignore_value)
        if wrong.any():
            raise DatasetError(f"{self.path} has label {values[wrong][0]}; the legend has 0 to {self.legend.num_classes - 1}")
        return np.where(known, values, NO_CLASS).astype(np.uint8)

    def _from_colours(self, colours: npt.NDArray[np.uint8]) -> Labels:
        coded = (colours.astype(np.uint32) * np.array([65536, 256, 1], np.uint32)[:, None, None]).sum(0)
        known = {(r << 16) + (g << 8) + b: value for value, (r, g, b) in enumerate(self.legend.colours)}
        labels = np.full(coded.shape, NO_CLASS, dtype=np.uint8)
        for code in np.unique(coded):
            if code in known:
                labels[coded == code] = known[int(code)]
            elif code:
                colour = tuple(int(v) for v in colours[:, coded == code][:, 0])
                raise DatasetError(
                    f"{self.path} has colour {colour}, which no class of the legend has; correct the legend or file"
                )
        return labels


def polygon_truth(scene: Scene, path: Path, legend: Legend, class_column: str | None) -> PolygonTruth:
    """Polygons of a file as the truth of a scene; without a class column all are the legend's last class.

    Raises:
        DatasetError: the file cannot be used.
        LegendError: a polygon's class is not in the legend.
    """
    polygons = read_polygons(path, scene.crs, class_column)
    names = polygons.class_names
    last = legend.num_classes - 1
    values = [last] * len(polygons.geometries) if names is None else [legend.value_of(name) for name in names]
    return PolygonTruth(polygons.geometries, np.array(values, dtype=np.uint8), scene.transform)
