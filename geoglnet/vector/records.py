"""Rows of the vector layer, ready to be written; light enough for another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geoglnet.types import Floats
from geoglnet.vector.area import ground_measures
from geoglnet.vector.wkb import to_wkb


@dataclass(frozen=True, slots=True)
class PolygonRecords:
    """Rows of the layer.

    Args:
        wkb: ``(n,)`` geometries in the raster's CRS, Arrow's large binary.
        class_id: ``(n,)`` int32 labels of the legend.
        area_m2: ``(n,)`` float64, NaN becomes null.
        perimeter_m: ``(n,)`` float64, NaN becomes null.
        confidence: ``(n,)`` float64 0–1, NaN becomes null.
        part_of: ``(n,)`` int64, 0 becomes null.
        statistics: further columns by name, ``(n,)`` float64 each.
    """

    wkb: pa.LargeBinaryArray
    class_id: npt.NDArray[np.int32]
    area_m2: Floats
    perimeter_m: Floats
    confidence: Floats
    part_of: npt.NDArray[np.int64]
    statistics: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.wkb)

    @classmethod
    def empty(cls, statistics: Sequence[str] = ()) -> PolygonRecords:
        """No rows."""
        nothing = np.empty(0, dtype=np.float64)
        columns = (nothing.astype(np.int32), nothing, nothing, nothing, nothing.astype(np.int64))
        return cls(pa.array([], pa.large_binary()), *columns, dict.fromkeys(statistics, nothing))

    @classmethod
    def concatenate(cls, several: Sequence[PolygonRecords]) -> PolygonRecords:
        """All in one."""
        numbers = ("class_id", "area_m2", "perimeter_m", "confidence", "part_of")
        plain = {name: np.concatenate([getattr(r, name) for r in several]) for name in numbers}
        statistics = {name: np.concatenate([r.statistics[name] for r in several]) for name in several[0].statistics}
        return cls(pa.concat_arrays([r.wkb for r in several]), **plain, statistics=statistics)

    @classmethod
    def of(cls, geometries: npt.NDArray[np.object_], class_id: npt.NDArray[np.int32], crs_wkt: str | None) -> PolygonRecords:
        """Rows of polygons that were not traced: measured, without confidence."""
        areas, perimeters = ground_measures(geometries, crs_wkt)
        unknown, whole = np.full(len(geometries), np.nan), np.zeros(len(geometries), dtype=np.int64)
        return cls(to_wkb(geometries), class_id, areas, perimeters, unknown, whole)
