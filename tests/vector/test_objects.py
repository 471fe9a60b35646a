"""Objects: one row for each value, wherever its parts lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoglnet.errors import ConfigError, SceneError
from geoglnet.progress import RecordedProgress
from geoglnet.vector.objects import ObjectSurvey, count_tile
from geoglnet.vector.polygonizer import vectorize
from geoglnet.vector.settings import VectorConfig
from geoglnet.vector.values import RasterValues
from tests.rasters import write_raster

OBJECTS = RasterValues(instances=True)


def read(path: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_file(path, layer=path.stem)


def pixels_of(values: np.ndarray) -> dict[int, int]:
    codes, counts = np.unique(values[values != 0], return_counts=True)
    return dict(zip(codes.tolist(), counts.tolist(), strict=True))


def traced(tmp_path: Path, values: np.ndarray, config: VectorConfig, **meaning: Any) -> geopandas.GeoDataFrame:
    path = write_raster(tmp_path / "objects.tif", values[None], pixel_size=1)
    vectorize(path, tmp_path / "out.gpkg", values=RasterValues(instances=True, **meaning), config=config, overwrite=True)
    return read(tmp_path / "out.gpkg")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.integers(3, 30), st.sampled_from([2, 30, 2**32 - 1]))
def test_every_value_is_one_row_with_the_area_of_its_pixels(tmp_path: Path, seed: int, tile_size: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, largest, (9, 11), dtype=np.uint32, endpoint=True).repeat(2, axis=0).repeat(3, axis=1)
    found = traced(tmp_path, values, VectorConfig(tile_size=tile_size))
    assert found.object_id.is_unique
    assert dict(zip(found.object_id, found.geometry.area, strict=True)) == pixels_of(values)
    assert set(found.geom_type) <= {"MultiPolygon"}
    assert found.class_id.isna().all()
    assert found.part_of.isna().all()


def test_parts_are_rows_of_their_own_when_asked_for(tmp_path: Path) -> None:
    values = np.zeros((20, 20), np.int32)
    values[2:5, 2:5] = values[10:12, 14:19] = 7
    assert len(traced(tmp_path, values, VectorConfig(tile_size=8))) == 1
    found = traced(tmp_path, values, VectorConfig(tile_size=8), parts=True)
    assert (found.object_id.tolist(), sorted(found.geometry.area)) == ([7, 7], [9, 10])


def test_simplified_objects_share_their_borders(tmp_path: Path) -> None:
    rows, cols = np.mgrid[:90, :100]
    seeds = np.random.default_rng(0).integers(0, 90, (40, 2))
    values = 1 + ((rows[..., None] - seeds[:, 0]) ** 2 + (cols[..., None] - seeds[:, 1]) ** 2).argmin(axis=2)
    found = traced(tmp_path, values.astype(np.uint16), VectorConfig(tile_size=32, simplify="1.5px"))
    assert len(found) == len(np.unique(values))
    assert shapely.coverage_is_valid(shapely.get_parts(found.geometry.values))
    assert found.geometry.area.sum() == pytest.approx(values.size)


def test_objects_get_the_class_that_most_of_their_pixels_have(tmp_path: Path) -> None:
    values = np.zeros((30, 30), np.uint32)
    values[:10, :], values[12:20, 3:28], values[25:, 25:] = 5, 70_000, 9
    labels = np.full((30, 30), 255, np.uint8)
    labels[:, :10], labels[:, 10:25] = 1, 2
    class_path = write_raster(tmp_path / "labels.tif", labels[None], nodata=255)
    for parts in (False, True):
        found = traced(tmp_path, values, VectorConfig(tile_size=8), class_of=class_path, parts=parts)
        classes = {
            number: (code, name) for number, code, name in zip(found.object_id, found.class_id, found.class_name, strict=True)
        }
        assert classes[5] == classes[70_000] == (2, "class 2")
        assert found[found.object_id == 9][["class_id", "class_name"]].isna().all(axis=None)


def test_an_object_with_too_many_vertices_is_cut_and_its_parts_say_so(tmp_path: Path) -> None:
    values = np.ones((60, 60), np.int32)
    values[1::2, 1::2] = np.arange(2, 2 + 900).reshape(30, 30)
    path, progress = write_raster(tmp_path / "objects.tif", values[None], pixel_size=1), RecordedProgress()
    config = VectorConfig(tile_size=16, max_vertices=200)
    vectorize(path, tmp_path / "out.gpkg", values=OBJECTS, config=config, progress=progress)
    found = read(tmp_path / "out.gpkg")
    large = found[found.object_id == 1]
    assert len(large) > 1
    assert large.part_of.notna().all()
    assert large.geometry.area.sum() == (values == 1).sum()
    assert found[found.object_id > 1].object_id.is_unique
    assert any("part_of" in line for line in progress.messages("warning"))


def test_parts_far_apart_are_held_within_the_budget(tmp_path: Path) -> None:
    values = np.zeros((40, 400), np.int32)
    values[::2, ::2] = 3  # 4000 single pixels in 50 tiles
    found = traced(tmp_path, values, VectorConfig(tile_size=16, max_vertices=500))
    assert found.geometry.area.sum() == (values == 3).sum()
    assert 1 < len(found) < 60
    assert found.part_of.nunique() == 1


@pytest.mark.slow
def test_workers_change_nothing(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 50, (30, 40)).astype(np.uint16).repeat(2, axis=0)
    one = traced(tmp_path, values, VectorConfig(tile_size=16))
    assert one.equals(traced(tmp_path, values, VectorConfig(tile_size=16, workers=2)))


@pytest.mark.parametrize(
    ("config", "legend", "words"),
    [
        (VectorConfig(sieve="3px"), False, "sieve"),
        (VectorConfig(opening=1), False, "opening"),
        (VectorConfig(fill_holes=True), False, "fill_holes"),
        (VectorConfig(), True, "class_of"),
    ],
)
def test_options_of_classes_are_refused_for_objects(config: VectorConfig, legend: bool, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OBJECTS.check(config, has_legend=legend)


def test_labels_of_another_size_give_no_classes(tmp_path: Path) -> None:
    small = write_raster(tmp_path / "small.tif", np.ones((1, 3, 3), np.uint8))
    with pytest.raises(SceneError, match="3 × 3 px"):
        traced(tmp_path, np.ones((4, 4), np.int32), VectorConfig(), class_of=small)


def test_a_survey_finds_the_objects_of_several_tiles_and_counts_them() -> None:
    tiles = [np.array([[1, 1, 2]]), np.array([[2, 3, 3]]), np.array([[0, 1, 4]])]
    survey = ObjectSurvey.of([count_tile(tile, None, [0]) for tile in tiles], has_classes=False)
    assert survey.spread.tolist() == [1, 2]
    assert survey.pixels.tolist() == [3, 2]
