"""Rings of many polygons as flat arrays, and the way back to shapely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely


@dataclass(frozen=True, slots=True)
class Rings:
    """Open rings (the first point is not repeated), one after the other, shell before holes.

    Args:
        points: ``(n, 2)`` float64 coordinates.
        lengths: number of points of each ring.
        polygon: number of the polygon that each ring belongs to, ascending from 0 without gaps.
    """

    points: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.intp]
    polygon: npt.NDArray[np.intp]

    @classmethod
    def from_polygons(cls, polygons: npt.NDArray[np.object_]) -> Rings:
        """Take polygons apart."""
        _, points, (ring_ends, polygon_ends) = shapely.to_ragged_array(polygons)
        is_closing = np.zeros(len(points), dtype=bool)
        is_closing[ring_ends[1:] - 1] = True
        polygon = np.repeat(np.arange(len(polygons)), np.diff(polygon_ends))
        return cls(points[~is_closing], np.diff(ring_ends) - 1, polygon)

    def polygons(self) -> npt.NDArray[np.object_]:
        """Put the polygons together."""
        ring = np.repeat(np.arange(len(self.lengths)), self.lengths)
        rings = shapely.linearrings(self.points, indices=ring)
        polygons: npt.NDArray[np.object_] = shapely.polygons(rings, indices=self.polygon)
        return polygons

    def moved(self, x: float, y: float) -> Rings:
        """The same rings elsewhere."""
        return Rings(self.points + np.array([x, y], dtype=np.float64), self.lengths, self.polygon)

    def following(self) -> npt.NDArray[np.intp]:
        """``(n,)`` index of the point after each one, around its ring."""
        ends = np.cumsum(self.lengths)
        after = np.arange(1, len(self.points) + 1)
        after[ends - 1] = ends - self.lengths
        return after

    def without_straight_points(self) -> Rings:
        """Drop the points at which an outline of horizontal and vertical edges does not turn."""
        starts = np.cumsum(self.lengths) - self.lengths
        after = self.following()
        before = np.empty_like(after)
        before[after] = np.arange(len(after))
        goes_on = (self.points[before] == self.points) & (self.points == self.points[after])
        turns = ~goes_on.any(axis=1)
        return Rings(self.points[turns], np.add.reduceat(turns, starts, dtype=np.intp), self.polygon)


def together(parts: npt.NDArray[np.object_], geometry: npt.NDArray[np.intp]) -> npt.NDArray[np.object_]:
    """Inverse of ``shapely.get_parts``."""
    several = np.bincount(geometry)[geometry] > 1
    geometries = np.empty(int(geometry[-1]) + 1, dtype=object)
    geometries[geometry[~several]] = parts[~several]
    if several.any():
        numbers, indices = np.unique(geometry[several], return_inverse=True)
        geometries[numbers] = shapely.multipolygons(parts[several], indices=indices)
    return geometries
