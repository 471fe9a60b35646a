"""The part of a scene that is predicted: inside bounds, and inside polygons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from rasterio.windows import Window

from geoglnet.errors import ConfigError
from geoglnet.prediction.plan import Plan, meets, overlap, rectangle
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.files import silenced
from geoglnet.raster.scene import Scene
from geoglnet.types import Bounds, Shape

if TYPE_CHECKING:
    from geoglnet.vector.polygon_reader import PolygonSet

_SNAP = 1e-6  # of a pixel: a bound this near to a pixel's edge lies on it


@dataclass(frozen=True)
class Area:
    """The part of a scene that is predicted. Memory: that of the polygons.

    Args:
        shape: of the scene.
        window: rectangle of whole pixels inside the scene; what is written has its shape.
        transform: pixel to CRS coordinates of the scene.
        polygons: in the scene's CRS; ``None`` when every pixel of the window is inside.
    """

    shape: Shape
    window: Window
    transform: Affine = Affine.identity()  # noqa: RUF009 - an Affine is a tuple
    polygons: PolygonSet | None = None

    @property
    def is_everything(self) -> bool:
        """Tell whether the area is the whole scene."""
        return self.polygons is None and (self.window.height, self.window.width) == self.shape

    def inside(self, window: Window) -> npt.NDArray[np.bool_] | None:
        """Find the pixels of a window of the scene whose centers lie in the area.

        Returns:
            ``(h, w)`` bool; ``None`` when the area is the whole scene.
        """
        if self.is_everything:
            return None
        inside = np.zeros((int(window.height), int(window.width)), dtype=bool)
        if not meets(window, self.window):
            return inside
        part = overlap(window, self.window)
        rows, cols = (
            slice(start - offset, stop - offset)
            for (start, stop), offset in zip(part.toranges(), (int(window.row_off), int(window.col_off)), strict=True)
        )
        inside[rows, cols] = True if self.polygons is None else self._rasterized(part)
        return inside

    def has_any(self, window: Window) -> bool:
        """Check whether a window of the scene may hold a pixel of the area."""
        if not meets(window, self.window):
            return False
        return self.polygons is None or len(self._near(overlap(window, self.window))) > 0

    def blocks(self, plan: Plan) -> AreaBlocks:
        """Choose the blocks of a plan that the area meets."""
        return AreaBlocks(self, plan)

    def _rasterized(self, window: Window) -> npt.NDArray[np.bool_]:
        shapes = self._near(window)
        shape = (int(window.height), int(window.width))
        if not len(shapes):
            return np.zeros(shape, dtype=bool)
        transform = self.transform @ Affine.translation(window.col_off, window.row_off)
        with silenced(NotGeoreferencedWarning):  # rasterio's own filter ends early where a thread that reads restores its own
            inside = rasterize(shapes, out_shape=shape, transform=transform, dtype="uint8")
        return np.asarray(inside, dtype=bool)

    def _near(self, window: Window) -> npt.NDArray[np.object_]:
        polygons = np.asarray(self.polygons.geometries if self.polygons is not None else ())
        place = shapely.box(*_bounds_of(window, self.transform))
        near: npt.NDArray[np.object_] = polygons[self._tree.query(place, predicate="intersects")]
        return near

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.polygons.geometries if self.polygons is not None else ())


@dataclass(frozen=True, slots=True)
class AreaBlocks:
    """Blocks of a plan that an area meets."""

    area: Area
    plan: Plan

    def __contains__(self, place: tuple[int, int]) -> bool:
        return self.area.has_any(self.plan.region(*place).core)


def choose_area(
    scene: Scene,
    bounds: Bounds | None,
    mask_path: Path | None,
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> Area:
    """Choose the area of a scene inside bounds and polygons: the smallest rectangle of pixels around what both leave.

    Args:
        scene: an open scene.
        bounds: (left, bottom, right, top) in its CRS, or in pixels (columns and rows) without one.
        mask_path: vector file, in any CRS.
        progress: receives warnings of polygons that are not used as they are.

    Raises:
        ConfigError: nothing of the scene is left.
        DatasetError: the file holds no polygons, or cannot be brought to the scene's CRS.
    """
    window = rectangle(0, scene.shape.height, 0, scene.shape.width)
    if bounds is not None:
        window = _cut(window, bounds, scene, f"bounds {' '.join(f'{b:g}' for b in bounds)}")
    if mask_path is None:
        return Area(scene.shape, window, scene.transform)
    from geoglnet.vector.polygon_reader import read_polygons  # loads pandas

    around = _bounds_of(window, scene.transform)
    polygons = read_polygons(mask_path, scene.crs, around=around, progress=progress)
    # Those too far away to be brought to the scene's CRS are left out; bounds that are no numbers meet nothing.
    bounds = tuple(shapely.total_bounds(polygons.geometries)) if len(polygons) else (math.nan,) * 4
    window = _cut(window, bounds, scene, f"polygons of {mask_path}")
    return Area(scene.shape, window, scene.transform, polygons)


def _cut(window: Window, bounds: Bounds, scene: Scene, name: str) -> Window:
    found = _window_of(bounds, scene.transform) if np.isfinite(bounds).all() else rectangle(0, 0, 0, 0)
    if not meets(found, window):
        left, bottom, right, top = _bounds_of(window, scene.transform)
        raise ConfigError(f"{name} lie outside of {scene.name}, which spans {left:g} {bottom:g} {right:g} {top:g}")
    return overlap(window, found)


def _window_of(bounds: Bounds, transform: Affine) -> Window:
    """Find the smallest rectangle of whole pixels around bounds."""
    left, bottom, right, top = bounds
    # All four: a transform may turn the raster, or mirror it.
    corners = [~transform @ corner for corner in ((left, bottom), (left, top), (right, bottom), (right, top))]
    cols, rows = zip(*corners, strict=True)
    return rectangle(*_snapped(rows), *_snapped(cols))


def _snapped(places: tuple[float, ...]) -> tuple[int, int]:
    return math.floor(min(places) + _SNAP), math.ceil(max(places) - _SNAP)


def _bounds_of(window: Window, transform: Affine) -> Bounds:
    (top, bottom), (left, right) = window.toranges()
    corners = [transform @ corner for corner in ((left, top), (left, bottom), (right, top), (right, bottom))]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
