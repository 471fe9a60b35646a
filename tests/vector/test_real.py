"""Polygons of real predictions, against GDAL's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.features import rasterize, shapes

from geoglnet import predict
from geoglnet.vector.polygonizer import vectorize
from geoglnet.vector.settings import VectorConfig

DATA = Path(os.environ.get("GEOGLNET_DATA", Path(__file__).parents[3] / "shared" / "data"))
TILE_SIZE = 160


@pytest.fixture(scope="module", params=["buildings", "landcover"])
def labels_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not DATA.is_dir():
        pytest.skip(f"no imagery at {DATA}; set GEOGLNET_DATA to its folder")
    if request.param == "buildings":
        scene = DATA / "oam_buildings" / "val" / "banepa_np_a.tif"
    else:
        scene = sorted((DATA / "deepglobe" / "val").glob("*_sat.jpg"))[0]
    path = tmp_path_factory.mktemp("real") / "labels.tif"
    predict(scene, path, model=request.param)
    return path


def read(path: Path) -> pyogrio.read_dataframe:
    return pyogrio.read_dataframe(path, layer=path.stem)


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_counts_areas_and_pixels_equal_those_of_gdal(labels_path: Path, tmp_path: Path) -> None:
    vectorize(labels_path, tmp_path / "out.gpkg", config=VectorConfig(tile_size=TILE_SIZE))
    found = read(tmp_path / "out.gpkg")
    with rasterio.open(labels_path) as src:
        labels, transform = src.read(1), src.transform
    transform = transform if not transform.is_identity else rasterio.Affine(1, 0, 0, 0, -1, 0)
    values = sorted(set(found.class_id))
    wanted = [(v, shapely.geometry.shape(g)) for g, v in shapes(labels, mask=np.isin(labels, values), transform=transform)]
    assert len(found) == len(wanted) > 20
    areas = zip(found.class_id, shapely.area(found.geometry), strict=True)
    np.testing.assert_allclose(sorted(areas), sorted((v, g.area) for v, g in wanted))
    burned = np.full(labels.shape, 255, dtype=np.uint8)
    rasterize(zip(found.geometry, found.class_id, strict=True), out=burned, transform=transform)
    np.testing.assert_array_equal(burned, np.where(np.isin(labels, values), labels, 255))


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_simplified_polygons_touch_without_gap_and_have_no_edge_of_the_tiles(labels_path: Path, tmp_path: Path) -> None:
    vectorize(labels_path, tmp_path / "out.gpkg", config=VectorConfig(tile_size=TILE_SIZE, simplify="1.5px"))
    found = read(tmp_path / "out.gpkg").geometry.to_numpy()
    with rasterio.open(labels_path) as src:
        labels, back = src.read(1), ~(src.transform if not src.transform.is_identity else rasterio.Affine(1, 0, 0, 0, -1, 0))
    assert shapely.coverage_is_valid(found)
    pixels = shapely.transform(found, lambda points: np.round(np.column_stack(back @ points.T), 3))
    assert shapely.area(shapely.union_all(pixels)) == pytest.approx(shapely.area(pixels).sum())
    for axis in (0, 1):
        assert strays(pixels, labels if axis == 0 else labels.T, axis) == 0


def strays(geometries: np.ndarray, labels: np.ndarray, axis: int) -> int:
    """Pixels' sides that lie on a tile line, belong to an edge, and have the same label on both sides."""
    count = 0
    for ring in shapely.get_rings(geometries):
        points = shapely.get_coordinates(ring)
        a, b = points[:-1], points[1:]
        on_line = (a[:, axis] == b[:, axis]) & (a[:, axis] % TILE_SIZE == 0) & (a[:, axis] > 0) & (a[:, axis] < labels.shape[1])
        for start, end in zip(a[on_line], b[on_line], strict=True):
            low, high = sorted((round(start[1 - axis]), round(end[1 - axis])))
            line = round(start[axis])
            count += int((labels[low:high, line - 1] == labels[low:high, line]).sum())
    return count
