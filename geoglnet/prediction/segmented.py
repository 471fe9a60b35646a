"""The handle to what a prediction wrote: files, and lazy views of them; never the array by accident."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affine import Affine
from rasterio.crs import CRS

from geoglnet.errors import ConfigError
from geoglnet.prediction.seams import SeamReport
from geoglnet.raster.lazy import open_lazily
from geoglnet.types import Shape

if TYPE_CHECKING:
    from xarray import DataArray


@dataclass(frozen=True, slots=True)
class Segmented:
    """What a run wrote.

    Args:
        paths: files by kind: ``"labels"``, ``"vector"``, ``"confidence"``, ``"entropy"``, ``"probabilities"``.
        num_polygons: how many polygons; ``None`` when none were asked for.
        shape: of the rasters, at the resolution that the model was run at.
        crs: of everything written; ``None`` when the scene has none.
        transform: of the rasters, pixel to CRS coordinates.
        seams: how well the blocks fit together.
        seconds: wall-clock time.
    """

    paths: Mapping[str, Path]
    num_polygons: int | None
    shape: Shape
    crs: CRS | None
    transform: Affine
    seams: SeamReport
    seconds: float

    @property
    def labels_path(self) -> Path | None:
        """Label raster, if one was asked for."""
        return self.paths.get("labels")

    @property
    def vector_path(self) -> Path | None:
        """Polygons, if they were asked for."""
        return self.paths.get("vector")

    @property
    def confidence_path(self) -> Path | None:
        """Confidence raster, if one was asked for."""
        return self.paths.get("confidence")

    def open(self, kind: str = "labels") -> DataArray:
        """A raster as an :class:`xarray.DataArray` with CRS and coordinates, whose pixels are read where they are asked for.

        Needs ``pip install 'geoglnet[xarray]'``. Nothing is read here; ``.values`` of the whole would read the whole::

            done.open()[0, 5000:6000, 5000:6000].values

        Args:
            kind: ``"labels"``, ``"confidence"``, ``"entropy"`` or ``"probabilities"``.

        Raises:
            ConfigError: no such raster was written.
            ModuleNotFoundError: rioxarray is not installed.
        """
        if kind not in self.paths or kind == "vector":
            raise ConfigError(f"no raster {kind!r} was written; there are {', '.join(k for k in self.paths if k != 'vector')}")
        opened: DataArray = open_lazily(self.paths[kind])
        return opened
