"""Polygons of labels the way ``vectorize`` makes them: traced tile by tile, pieces joined, rows finished; without a file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import shapely
from affine import Affine

from geoglnet.types import Shape
from geoglnet.vector.pieces import TracingRules, trace_tile
from geoglnet.vector.rows import FinishingRules, PolygonRecords
from geoglnet.vector.seams import Seams
from geoglnet.vector.tile_job import TileJob
from geoglnet.vector.tiles import ArrayTiles, DatasetTiles
from geoglnet.vector.values import RasterValues
from geoglnet.windows import iter_cores

GRID = Affine.identity()


def iter_rows(
    tiles: ArrayTiles | DatasetTiles, rules: TracingRules, transform: Affine = GRID, tile_size: int = 1024
) -> Iterator[PolygonRecords]:
    """Rows of one tile after the other."""
    job = TileJob("", None, RasterValues(), rules, FinishingRules(transform, None, Shape(*tiles.shape)))
    seams = Seams(tiles.shape, rules.connectivity, is_grid=not rules.reshapes)
    for window in iter_cores(tiles.shape, tile_size, margin=0):
        whole, open_tile = trace_tile(tiles, window, rules)
        yield job.rows(whole)
        yield job.rows(seams.join(open_tile))


def rows_of(
    tiles: ArrayTiles | DatasetTiles, rules: TracingRules, transform: Affine = GRID, tile_size: int = 1024
) -> PolygonRecords:
    """All rows."""
    return PolygonRecords.concatenate([PolygonRecords.empty(), *iter_rows(tiles, rules, transform, tile_size)])


def geometries_of(rows: PolygonRecords) -> np.ndarray:
    """Shapely's geometries of rows."""
    return shapely.from_wkb(np.array(pa.array(rows.wkb).to_pylist(), dtype=object))
