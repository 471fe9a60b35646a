"""Statistics of another raster, for polygons that reach past it, lie beside it, have holes, or are very large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import shapes
from shapely.geometry import shape

from geoglnet.errors import SceneError
from geoglnet.raster.crs import are_one_place
from geoglnet.vector import statistics
from geoglnet.vector.rows import PolygonRecords
from geoglnet.vector.statistics import Statistics
from tests.rasters import UTM, write_raster

SIDE = 10
PLACE = Affine(1, 0, 500_000, 0, -1, 9_000_000)
HEIGHTS = np.arange(SIDE * SIDE, dtype=np.float32).reshape(1, SIDE, SIDE) ** 1.5
WKT = rasterio.crs.CRS.from_string(UTM).to_wkt()


def on_ground(*geometries: Any) -> npt.NDArray[np.object_]:
    """Geometries of pixel coordinates in the raster's CRS."""
    moved: npt.NDArray[np.object_] = shapely.transform(
        np.array(geometries, object), lambda p: p * [1, -1] + [500_000, 9_000_000]
    )
    return moved


def found(geometries: npt.NDArray[np.object_], path: Path) -> npt.NDArray[np.float64]:
    """``(n, 4)`` mean, standard deviation, least and most."""
    records = PolygonRecords.of(geometries, np.zeros(len(geometries), np.int32), WKT)
    return np.column_stack(list(Statistics.of(path, WKT).added_to(records).statistics.values()))


def expected(geometries: npt.NDArray[np.object_], heights: npt.NDArray[Any] = HEIGHTS) -> npt.NDArray[np.float64]:
    """The same by cutting every pixel's square with every polygon."""
    rows, cols = np.mgrid[: heights.shape[1], : heights.shape[2]]
    squares = on_ground(*shapely.box(cols, rows, cols + 1, rows + 1).ravel())
    values, answer = heights[0].ravel().astype(float), []
    for geometry in geometries:
        share = shapely.area(shapely.intersection(squares, geometry))
        if not (share > 1e-9).any():
            answer.append([np.nan] * 4)
            continue
        mean = np.average(values, weights=share)
        inside = values[share > 1e-9]
        answer.append([mean, np.sqrt(np.average((values - mean) ** 2, weights=share)), inside.min(), inside.max()])
    return np.array(answer)


def with_hole(*hole: float) -> shapely.Geometry:
    return shapely.box(-5, -5, 15, 15).difference(shapely.box(*hole))


def pixel_polygons(seed: int, side: int) -> list[shapely.Geometry]:
    """Polygons along pixel lines with many holes, as they are traced from noisy labels."""
    labels = (np.random.default_rng(seed).random((side, side)) < 0.65).astype(np.uint8)
    return [shape(geometry) for geometry, value in shapes(labels) if value]


@pytest.fixture
def heights_path(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "heights.tif", HEIGHTS, transform=PLACE)


def test_polygons_that_reach_past_the_raster_get_the_part_that_is_covered(heights_path: Path) -> None:
    u_shaped = shapely.box(8, 2, 14, 8).difference(shapely.box(9, 3, 13, 7)).difference(shapely.box(9, 4, 20, 5))
    geometries = on_ground(
        *(with_hole(*hole) for hole in ((3, 3, 6, 6), (8, 3, 12, 6), (10, 3, 13, 6), (3, -2, 6, 0), (11, 3, 13, 6))),
        with_hole(-1, -1, 11, 11),  # nothing is covered
        shapely.box(-50, -50, -20, -20).difference(shapely.box(-40, -40, -30, -30)),  # nor here
        shapely.box(10, 0, 12, 5),  # it only touches
        shapely.union_all([shapely.box(2, 2, 4.25, 4.5), shapely.box(10, 3, 13, 6).difference(shapely.box(11, 4, 12, 5))]),
        shapely.box(-5, -5, 15, 15).difference(u_shaped),
    )
    np.testing.assert_allclose(found(geometries, heights_path), expected(geometries), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("most_cells", [30_000_000, 40])
def test_polygons_of_noise_get_what_their_pixels_say(
    heights_path: Path, monkeypatch: pytest.MonkeyPatch, most_cells: int
) -> None:
    monkeypatch.setattr(statistics, "_MOST_CELLS", most_cells)
    monkeypatch.setattr(statistics, "_PIECE_SIDE", 3)
    moved = [
        shapely.transform(p, lambda q, s=s: q + np.array([s % 7 - 4, s % 5 - 4]))
        for s in range(12)
        for p in pixel_polygons(s, 15)
    ]
    geometries = on_ground(*moved)
    np.testing.assert_allclose(found(geometries, heights_path), expected(geometries), rtol=1e-5, atol=1e-3)


def test_a_raster_in_any_orientation_but_turned_is_read(tmp_path: Path, heights_path: Path) -> None:
    geometries = on_ground(shapely.box(1, 1, 4.5, 3), shapely.box(6, 7, 9, 9))
    upward = write_raster(tmp_path / "up.tif", HEIGHTS[:, ::-1], transform=Affine(1, 0, 500_000, 0, 1, 9_000_000 - SIDE))
    residual = write_raster(tmp_path / "residual.tif", HEIGHTS, transform=Affine(1, 1e-15, 500_000, -1e-15, -1, 9_000_000))
    for path in (heights_path, upward, residual):
        np.testing.assert_allclose(found(geometries, path), expected(geometries), rtol=1e-5)
    turned = write_raster(tmp_path / "turned.tif", HEIGHTS, transform=PLACE @ Affine.rotation(1))
    with pytest.raises(SceneError, match=r"turned\.tif is rotated.*gdalwarp"):
        Statistics.of(turned, WKT)


@pytest.mark.parametrize("crs", ["EPSG:32736+5773", "EPSG:32736+3855"])
def test_heights_in_the_crs_of_the_raster_do_not_matter(tmp_path: Path, crs: str, recwarn: pytest.WarningsRecorder) -> None:
    path = write_raster(tmp_path / "dsm.tif", HEIGHTS, transform=PLACE, crs=crs)
    assert found(on_ground(shapely.box(0, 0, 1, 1), shapely.box(3, 0, 4, 1)), path)[:, 0] == pytest.approx([0, 3**1.5])
    assert not recwarn.list
    assert not are_one_place(crs, "EPSG:32737")


def test_another_crs_is_named_in_few_words(tmp_path: Path) -> None:
    other = write_raster(tmp_path / "other.tif", HEIGHTS, transform=PLACE, crs="EPSG:32645+5773")
    with pytest.raises(
        SceneError, match=r"other\.tif is in 'WGS 84 / UTM zone 45N \+ EGM96 height', the labels are in EPSG:32736"
    ):
        Statistics.of(other, WKT)


def test_values_that_are_missing_or_scaled_are_honored(tmp_path: Path) -> None:
    heights = HEIGHTS.copy()
    heights[0, :, :5] = -9999
    path = write_raster(tmp_path / "gaps.tif", heights, transform=PLACE, nodata=-9999)
    gone, half = found(on_ground(shapely.box(0, 0, 4, 4), shapely.box(0, 0, 10, 1)), path)
    assert np.isnan(gone).all()
    assert half[0] == pytest.approx(HEIGHTS[0, 0, 5:].mean(), rel=1e-5)
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = (2,), (100,)
    assert found(on_ground(shapely.box(0, 0, 10, 1)), path)[0, 0] == pytest.approx(100 + 2 * half[0], rel=1e-5)
