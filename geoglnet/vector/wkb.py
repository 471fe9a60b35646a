"""Polygons as WKB; of rings straight what ``shapely.to_wkb`` writes, without the objects between."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from geoglnet.types import Ints
from geoglnet.vector.compiled import compiled
from geoglnet.vector.rings import Outlines, Rings, as_geometries

_HEADER = np.dtype([("is_little_endian", "u1"), ("kind", "<u4"), ("num_rings", "<u4")])
_POLYGON = 3
_POINT_BYTES = 16

Bytes = npt.NDArray[np.uint8]


def to_wkb(outlines: Outlines) -> pa.LargeBinaryArray:
    """``(n,)`` geometries, little-endian, in one buffer."""
    if isinstance(outlines, Rings) and len(outlines):
        return _rings_to_wkb(outlines)
    return pa.array(shapely.to_wkb(as_geometries(outlines)), pa.large_binary())


def _rings_to_wkb(rings: Rings) -> pa.LargeBinaryArray:
    num_rings = np.bincount(rings.polygon)
    ring_bytes = 4 + _POINT_BYTES * (rings.lengths + 1)  # a ring's last point is its first
    ring_ends = np.cumsum(ring_bytes) + _HEADER.itemsize * (rings.polygon + 1)
    ends = ring_ends[np.cumsum(num_rings) - 1]
    places = np.append(0, ends)

    headers = np.empty(len(rings), dtype=_HEADER)
    headers["is_little_endian"], headers["kind"], headers["num_rings"] = 1, _POLYGON, num_rings
    wkb = np.empty(int(ends[-1]), dtype=np.uint8)
    _put(wkb, places[:-1], headers)
    _put(wkb, ring_ends - ring_bytes, (rings.lengths + 1).astype("<u4"))
    _put_points(wkb, ring_ends - ring_bytes + 4, rings)
    buffers = [None, pa.py_buffer(places.astype(np.int64)), pa.py_buffer(wkb)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(rings), buffers)


def _put(wkb: Bytes, places: Ints, values: npt.NDArray[Any]) -> None:
    raw = values.view(np.uint8).reshape(len(values), -1)
    wkb[places[:, None] + np.arange(raw.shape[1])] = raw


def _put_points(wkb: Bytes, places: Ints, rings: Rings) -> None:
    points = np.ascontiguousarray(rings.points, dtype="<f8").view(np.uint8).ravel()
    num_bytes = _POINT_BYTES * rings.lengths
    starts = np.cumsum(num_bytes) - num_bytes
    _copy(points, starts, num_bytes, wkb, places)
    _copy(points, starts, np.full(len(starts), _POINT_BYTES), wkb, places + num_bytes)


@compiled
def _copy(source: Bytes, starts: Ints, num_bytes: Ints, target: Bytes, places: Ints) -> None:
    for i in range(len(starts)):
        # Through slices the machine code is one copy per ring, not one per byte.
        before, after = source[starts[i] : starts[i] + num_bytes[i]], target[places[i] : places[i] + num_bytes[i]]
        for step in range(len(before)):
            after[step] = before[step]
