"""Draw a scene, the polygons found in it and the true ones: the picture in the README.

geoglnet demo demo
geoglnet predict demo/scene.tif -o demo/labels.tif --vector demo/buildings.gpkg
python examples/demo_picture.py demo docs/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import geopandas
import matplotlib.pyplot as plt
import numpy as np
import rasterio
from rasterio.plot import plotting_extent
from rasterio.windows import Window, bounds
from rasterio.windows import transform as window_transform

DETAIL = Window(col_off=1000, row_off=700, width=1100, height=900)


def main(folder: Path, picture_path: Path) -> None:
    with rasterio.open(folder / "scene.tif") as src:
        image = src.read(window=DETAIL).transpose(1, 2, 0)
        extent = plotting_extent(image[..., 0], window_transform(DETAIL, src.transform))
        box = bounds(DETAIL, src.transform)
    found = geopandas.read_file(folder / "buildings.gpkg", layer="buildings").clip(box)
    truth = geopandas.read_file(folder / "truth.gpkg", layer="truth").query("class_name == 'building'").clip(box)
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.3), layout="constrained")
    for axis, title, polygons in zip(axes, ("scene", "found", "true"), (None, found, truth), strict=True):
        axis.imshow(np.asarray(image), extent=extent)
        if polygons is not None:
            polygons.plot(ax=axis, facecolor=(0.9, 0.3, 0.2, 0.45), edgecolor="darkred", linewidth=0.8)
        axis.set(title=title, xlabel="", ylabel="", xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    figure.savefig(picture_path, dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
