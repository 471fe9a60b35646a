"""Labels to polygons, tile by tile, equal to tracing the whole raster at once.

Each tile is traced on its own; components that reach a tile line are dissolved with their other pieces as soon as they
are complete (:mod:`geoglnet.vector.seams`). Memory: one tile, a few numbers per column of the raster, and the open pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.io import DatasetReader

from geoglnet.errors import ConfigError
from geoglnet.vector.finishing import mean_confidence, to_crs
from geoglnet.vector.pieces import Polygons, TracingRules, trace_tile
from geoglnet.vector.rings import Geometries
from geoglnet.vector.seams import Seams
from geoglnet.vector.tiles import DatasetTiles, TileSource
from geoglnet.windows import iter_cores


@dataclass(frozen=True, slots=True)
class PolygonBatch:
    """Polygons that became complete together.

    Args:
        geometries: ``(n,)`` shapely polygons in the raster's CRS; with 8-connectivity also multipolygons.
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
    return trace_tiles(DatasetTiles(labels, confidence), labels.transform, TracingRules(values), tile_size=tile_size)


def trace_tiles(source: TileSource, transform: Affine, rules: TracingRules, *, tile_size: int = 1024) -> Iterator[PolygonBatch]:
    """:func:`iter_polygons` on any source of tiles, by any rules; ``transform`` leads from pixels to the CRS.

    Raises:
        ConfigError: the tile size cannot be used.
    """
    if tile_size < 1:
        raise ConfigError(f"tile_size = {tile_size} must be at least 1 px")
    return _iter_batches(source, transform, rules, tile_size)


def _iter_batches(source: TileSource, transform: Affine, rules: TracingRules, tile_size: int) -> Iterator[PolygonBatch]:
    seams = Seams(source.shape, rules.connectivity, is_grid=not rules.reshapes)
    for window in iter_cores(source.shape, tile_size, margin=0):
        whole, open_tile = trace_tile(source, window, rules)
        polygons = Polygons.concatenate([whole, seams.join(open_tile)])
        yield PolygonBatch(
            to_crs(polygons.geometries, transform),
            polygons.class_id.astype(np.int32),
            polygons.totals[:, 0],
            mean_confidence(polygons.totals) if source.has_confidence else None,
        )
