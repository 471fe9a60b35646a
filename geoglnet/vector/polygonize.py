"""Labels to polygons, tile by tile, equal to tracing the whole raster at once.

Each tile is traced on its own; components that reach a tile line are dissolved with their other pieces as soon as they
are complete (:mod:`geoglnet.vector.seams`). Memory: one tile, a few numbers per column of the raster, and the open pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.io import DatasetReader

from geoglnet.errors import ConfigError
from geoglnet.vector.seams import Polygons, Seams
from geoglnet.vector.tiles import DatasetTiles, TileSource
from geoglnet.vector.tracing import MAX_CONFIDENCE, NO_LABEL, Geometries, label_components, trace_components
from geoglnet.windows import iter_cores


@dataclass(frozen=True, slots=True)
class PolygonBatch:
    """Polygons that became complete together.

    Args:
        geometries: ``(n,)`` shapely polygons in the raster's CRS.
        class_id: ``(n,)`` int32 labels.
        pixel_count: ``(n,)`` int64.
        confidence: ``(n,)`` float64 mean probability 0–1 inside each polygon, NaN where unknown; ``None`` without a
            confidence raster.
    """

    geometries: Geometries
    class_id: npt.NDArray[np.int32]
    pixel_count: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.geometries)

    def __getitem__(self, part: slice) -> PolygonBatch:
        confidence = None if self.confidence is None else self.confidence[part]
        return PolygonBatch(self.geometries[part], self.class_id[part], self.pixel_count[part], confidence)


def iter_polygons(
    labels: DatasetReader, *, values: Sequence[int], confidence: DatasetReader | None = None, tile_size: int = 1024
) -> Iterator[PolygonBatch]:
    """Polygons of the 4-connected areas of equal label in an open raster.

    Args:
        labels: one band of integers from 0 to 254; 255 and nodata are no class.
        values: the labels that become polygons.
        confidence: uint8 raster of the same shape, probability × 254, 255 where unknown.
        tile_size: side of a tile in pixels; memory grows with its square.

    Yields:
        One batch per tile, row by row; it may be empty.

    Raises:
        BandsError, SceneError: a raster does not fit or cannot be read.
        ConfigError: a value or the tile size cannot be used.
    """
    return trace_tiles(DatasetTiles(labels, confidence), labels.transform, values=values, tile_size=tile_size)


def trace_tiles(
    source: TileSource, transform: Affine, *, values: Sequence[int], tile_size: int = 1024
) -> Iterator[PolygonBatch]:
    """:func:`iter_polygons` on any source of tiles; ``transform`` leads from pixels to the CRS.

    Raises:
        ConfigError: a value or the tile size cannot be used.
    """
    wrong = [value for value in values if not 0 <= value < NO_LABEL]
    if wrong:
        raise ConfigError(f"label {wrong[0]} cannot become polygons; labels are from 0 to {NO_LABEL - 1}")
    if tile_size < 1:
        raise ConfigError(f"tile_size = {tile_size} must be at least 1 px")
    return _iter_batches(source, transform, values, tile_size)


def _iter_batches(source: TileSource, transform: Affine, values: Sequence[int], tile_size: int) -> Iterator[PolygonBatch]:
    chosen = np.full(256, NO_LABEL, dtype=np.uint8)
    chosen[list(values)] = list(values)
    seams = Seams(source.shape)
    for window in iter_cores(source.shape, tile_size, margin=0):
        tile = source.read_tile(window)
        components = label_components(chosen[tile.labels], tile.confidence)
        outlines = trace_components(components.ids, origin=(window.col_off, window.row_off))
        yield _batch(seams.join(window, components, outlines), transform, has_confidence=source.has_confidence)


def _batch(polygons: Polygons, transform: Affine, *, has_confidence: bool) -> PolygonBatch:
    pixels, total, known = polygons.totals.T
    confidence = np.full(len(pixels), np.nan) if has_confidence else None
    if confidence is not None:
        np.divide(total, known * MAX_CONFIDENCE, out=confidence, where=known > 0)
    return PolygonBatch(to_crs(polygons.geometries, transform), polygons.class_id.astype(np.int32), pixels, confidence)


def to_crs(geometries: Geometries, transform: Affine) -> Geometries:
    """Geometries in pixel coordinates through a raster's transform (term by term as GDAL does, so that bits agree)."""
    a, b, c, d, e, f = tuple(transform)[:6]

    def apply(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = points.T
        return np.column_stack([c + x * a + y * b, f + x * d + y * e])

    moved: Geometries = shapely.transform(geometries, apply)
    return moved
