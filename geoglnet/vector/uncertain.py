"""Where a model is least certain: the squares of an entropy raster in which a look, or a label, pays most."""

from __future__ import annotations

from typing import Any

import geopandas
import numpy as np
import shapely
from rasterio.windows import Window

from geoglnet.errors import SceneError
from geoglnet.output import OutputFile
from geoglnet.raster.gdal import environment, open_raster
from geoglnet.types import StrPath

SIDE, COUNT = 256, 10
_SCALE, _NO_VALUE = 254, 255  # of the entropy layer
_FEWEST = 0.25  # share of a square that the scene must show


def write_uncertain_areas(entropy_path: StrPath, file: OutputFile, *, count: int = COUNT, side: int = SIDE) -> int:
    """Write the squares with the largest mean entropy as a GeoPackage, with ``rank`` from 1 and ``uncertainty`` from 0 to 1.

    A third field, ``checked``, is false. Who has looked at a square, and corrected the polygons in it, sets it; then the file
    is an area that :func:`geoglnet.adapt` understands.

    The squares lie on a lattice from the raster's corner. Memory: a strip of the raster, ``side`` pixels high.

    Args:
        entropy_path: raster that ``predict`` wrote.
        file: to write.
        count: how many, at most.
        side: of a square, in pixels.

    Returns:
        How many were written.

    Raises:
        SceneError: nothing in the raster has a value.
        OutputError: the file cannot be written.
    """
    found: list[tuple[float, int, int, int, int]] = []
    with environment(entropy_path), open_raster(entropy_path) as src:
        crs, transform = src.crs, src.transform
        for top in range(0, src.height, side):
            height = min(side, src.height - top)
            strip = src.read(1, window=Window(col_off=0, row_off=top, width=src.width, height=height))
            for left in range(0, src.width, side):
                values = strip[:, left : left + side]
                known = values[values != _NO_VALUE]
                if len(known) >= _FEWEST * side * side or len(known) == values.size:
                    found.append((float(known.mean()) / _SCALE, top, left, height, values.shape[1]))
            # The best so far are enough: of a large raster, the others would only take memory.
            found = sorted(found, key=lambda square: (-square[0], square[1:]))[:count]
    if not found:
        raise SceneError(f"{entropy_path} has no square of {side} px with enough values; predict a larger part of the scene")
    boxes = [_outline(transform, *square[1:]) for square in found]
    fields: dict[str, Any] = {"rank": np.arange(1, len(found) + 1), "uncertainty": [round(square[0], 4) for square in found]}
    fields["checked"] = np.zeros(len(found), bool)
    frame = geopandas.GeoDataFrame(fields, geometry=boxes, crs=crs)
    with file as part:
        frame.to_file(part, driver="GPKG", layer="uncertain", engine="pyogrio", dataset_options={"VERSION": "1.2"})
    return len(found)


def _outline(transform: Any, top: int, left: int, height: int, width: int) -> shapely.Polygon:
    corners = ((left, top), (left + width, top), (left + width, top + height), (left, top + height))
    return shapely.Polygon([transform @ corner for corner in corners])
