"""Label maps as a RasterDataset: what ``geoglnet predict`` wrote, as labels of the next training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geoglnet.errors import DatasetError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.raster.cog import read_legend
from geoglnet.torchgeo.adapter import LabelRasters
from geoglnet.torchgeo.global_local import side_by_side


class Predictions(LabelRasters):
    """Label rasters with a legend, as ``geoglnet predict`` writes them; ``mask`` is 255 where there is no class.

    >>> predictions = Predictions("labels.tif")
    >>> predictions.legend.names, predictions.values["1"]
    (('background', 'building'), 'building')

    Files without a legend, such as confidence, are left out. The CRS and resolution are those of the first file where they are
    left out.

    Args:
        paths: folders, searched for ``*.tif`` at any depth, or files.
        options: ``crs``, ``res``, ``transforms`` and ``cache`` of TorchGeo's ``RasterDataset``.

    Raises:
        DatasetError: no file has a legend, or their legends differ.
        LegendError: a legend is damaged.
    """

    filename_glob = "*.tif"

    def __init__(self, paths: str | Path | Iterable[str | Path] = "data", **options: Any) -> None:
        self.paths = paths
        legends = {path: legend for path in self.files if (legend := read_legend(path)) is not None}
        if not legends:
            raise DatasetError(f"no label map with a legend in {paths}; give files that geoglnet predict has written")
        (first, legend), *others = legends.items()
        for path, other in others:
            if other != legend:
                theirs, ours = ", ".join(other.names), ", ".join(legend.names)
                raise DatasetError(f"{path} has the classes {theirs}, {first} {ours}; open maps of one legend")
        super().__init__(list(legends), **options)
        self.legend: Legend = legend

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their values."""
        return self.legend.names

    @property
    def values(self) -> dict[str, str]:
        """Class name by label value, as ``values`` of a :class:`~geoglnet.torchgeo.GlobalLocalDataset` of another legend."""
        return {str(value): name for value, name in enumerate(self.legend.names)}

    def plot(self, sample: Mapping[str, Any], show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Draw the labels of a sample, and ``prediction`` where it has one, in the legend's colors.

        Args:
            sample: with ``mask``, ``(h, w)``.
            show_titles: whether each is named.
            suptitle: title of all.

        Returns:
            Matplotlib's figure.
        """
        shown = {"Mask": sample["mask"]} | ({"Prediction": sample["prediction"]} if "prediction" in sample else {})
        table = np.zeros((NO_CLASS + 1, 4), np.uint8)
        table[: len(self.legend.colors)] = [(*color, 255) for color in self.legend.colors]
        pictures = {name: table[np.asarray(labels).squeeze()] for name, labels in shown.items()}
        return side_by_side(pictures, show_titles, suptitle)
