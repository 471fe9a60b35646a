"""Statistics of another raster inside every polygon, weighted by the share of each pixel that is inside.

Needs exactextract (the extra ``statistics``); imported when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from exactextract import exact_extract

from geoglnet.errors import SceneError
from geoglnet.raster.environment import open_raster
from geoglnet.vector.records import PolygonRecords

OPERATIONS = ("mean", "stdev", "min", "max")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of one raster.

    Args:
        path: of the raster.
        num_bands: of the raster.
        crs_wkt: of the polygons, and of the raster.
    """

    path: Path
    num_bands: int
    crs_wkt: str | None

    @classmethod
    def of(cls, path: Path, crs_wkt: str | None) -> Statistics:
        """Open the raster once to see what is in it.

        Raises:
            SceneError: it cannot be read, or has another CRS than the polygons.
        """
        with open_raster(path) as src:
            same = (src.crs is None) == (crs_wkt is None) and (crs_wkt is None or src.crs == rasterio.crs.CRS.from_wkt(crs_wkt))
            if not same:
                raise SceneError(f"{path} is in {src.crs or 'no CRS'}, not in the labels' CRS; warp it first (rio warp --like)")
            return cls(path, src.count, crs_wkt)

    @property
    def names(self) -> tuple[str, ...]:
        """Columns: ``band1_mean`` and so on."""
        return tuple(f"band{band}_{name}" for band in range(1, self.num_bands + 1) for name in OPERATIONS)

    def added_to(self, records: PolygonRecords) -> PolygonRecords:
        """The same rows with the raster's statistics; NaN where no pixel has a value."""
        if len(records) == 0:
            return replace(records, statistics=PolygonRecords.empty(self.names).statistics)
        frame = geopandas.GeoDataFrame(geometry=shapely.from_wkb(records.wkb.to_numpy(zero_copy_only=False)), crs=self.crs_wkt)
        table = exact_extract(str(self.path), frame, [*OPERATIONS], output="pandas")
        columns = table.to_numpy(dtype=np.float64, na_value=np.nan).T
        return replace(records, statistics=dict(zip(self._found(table.columns), columns, strict=True)))

    def _found(self, columns: list[str]) -> list[str]:
        """exactextract calls the columns ``mean`` with one band and ``band_1_mean`` with several."""
        return [f"band1_{c}" if self.num_bands == 1 else str(c).replace("band_", "band") for c in columns]
