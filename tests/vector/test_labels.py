"""Label rasters of others: masks of 0 and 255, signed bytes, category tables with gaps, and rasters without a class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import geopandas
import numpy as np
import pytest
import rasterio

from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.raster.classnames import distinct_names
from geoglnet.raster.cog import read_legend
from geoglnet.vector.formats import FORMATS
from geoglnet.vector.polygon_reader import count_polygons, read_frame, read_polygons
from geoglnet.vector.polygonizer import VectorConfig, vectorize
from geoglnet.vector.settings import Quantity
from tests.conftest import SceneMaker


def square(value: int, elsewhere: int = 0, dtype: Any = np.uint8) -> Any:
    labels = np.full((1, 60, 80), elsewhere, dtype)
    labels[0, 10:50, 20:60] = value
    return labels


def traced(labels: Path, config: VectorConfig | None = None) -> tuple[Any, RecordedProgress]:
    progress, path = RecordedProgress(), labels.with_suffix(".gpkg")
    vectorize(labels, path, config=config, overwrite=True, progress=progress)
    return geopandas.read_file(path, layer=path.stem), progress


@pytest.mark.parametrize(
    ("config", "nodata"),
    [
        *((VectorConfig(), nodata) for nodata in (None, 0)),
        *((VectorConfig(tile_size=32, sieve=Quantity(4, "px")), nodata) for nodata in (None, 0)),
        (VectorConfig(tile_size=32, workers=2), None),
    ],
)
def test_in_a_mask_of_0_and_255_the_other_is_a_class(
    scene_factory: SceneMaker, nodata: int | None, config: VectorConfig
) -> None:
    frame, progress = traced(scene_factory(square(255), "mask.tif", nodata=nodata), config)
    assert frame.geometry.area.tolist() == [40 * 40 * 0.25]
    assert (frame.class_id[0], frame.class_name[0]) == (255, "class 255")
    assert any("has no legend: values 255 become classes, 0 is background" in line for line in progress.messages("log"))
    assert progress.messages("warning") == []


@pytest.mark.parametrize(
    ("labels", "options", "codes"),
    [
        (square(1), {"nodata": 0}, [1]),
        (square(1, 255), {"nodata": 255}, [1]),  # the file says itself what 255 is
        (square(1, 255), {}, [1, 255]),
        (square(255, 1), {"nodata": 0}, [1, 255]),
        (square(1, -1, np.int8), {"nodata": -1}, [1]),
        (square(1, -9999, np.int32), {"nodata": -9999}, [1]),
        (square(1, -9999, np.int32), {}, [-9999, 1]),
    ],
)
def test_no_class_is_what_the_raster_declares_and_255_is_one(
    scene_factory: SceneMaker, labels: Any, options: dict[str, Any], codes: list[int]
) -> None:
    frame, progress = traced(scene_factory(labels, "labels.tif", **options))
    assert sorted(frame.class_id) == codes
    assert progress.messages("warning") == []


def test_in_a_label_raster_of_ours_255_is_no_class_even_if_its_nodata_value_is_lost(scene_factory: SceneMaker) -> None:
    path = scene_factory(square(1, 255), "labels.tif")
    legend = Legend(("background", "roof"), ((0, 0, 0), (9, 9, 9)), background=0)
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(GEOGLNET_LEGEND=json.dumps(legend.to_dict()))
    frame, _ = traced(path)
    assert (frame.class_id.tolist(), frame.class_name.tolist()) == ([1], ["roof"])


def write_names(path: Path, names: list[str]) -> None:
    categories = "".join(f"<Category>{escape(name)}</Category>" for name in names)
    path.with_name(f"{path.name}.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames></PAMRasterBand></PAMDataset>',
        encoding="utf-8",
    )


NLCD = ["Unclassified", *[""] * 10, "Open Water", *[""] * 83, "Wetlands"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (NLCD, ["Unclassified", "Open Water", "Wetlands", "class 12"]),
        (NLCD + [""] * 160, ["Unclassified", "Open Water", "Wetlands", "class 12"]),
        ([f"c{min(value, 90)}" for value in range(96)], ["c0", "c11", "c90 (95)", "c12"]),
        (["", " ", *["Forest\n old"] * 94], ["class 0", "Forest old (11)", "Forest old (95)", "Forest old (12)"]),
    ],
)
def test_category_tables_with_gaps_repeats_and_256_entries_name_polygons(
    scene_factory: SceneMaker, names: list[str], expected: list[str]
) -> None:
    labels = square(11)
    labels[0, :5, :5], labels[0, 55:, 70:] = 95, 12
    path = scene_factory(labels, "cover.tif")
    write_names(path, names)
    frame, _ = traced(path)
    assert dict(zip(frame.class_id, frame.class_name, strict=True)) == dict(zip((0, 11, 95, 12), expected, strict=True))
    legend = read_legend(path)
    assert legend is not None
    assert legend.names[11] == expected[1]


def test_names_stay_distinct_when_they_look_like_made_ones() -> None:
    names = distinct_names(["a", "a", "a (1)", "", "class 3"])
    assert len(set(names)) == 5
    assert names[3:] == ("class 3 (3)", "class 3 (4)")


@pytest.mark.parametrize("suffix", FORMATS)
def test_zero_polygons_are_a_valid_file_with_all_columns(scene_factory: SceneMaker, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"none{suffix}"
    assert vectorize(scene_factory(square(0), "empty.tif"), path) == 0
    frame = geopandas.read_parquet(path) if suffix == ".parquet" else geopandas.read_file(path, layer=path.stem)
    assert len(frame) == 0
    assert len(read_frame(path, limit_mb=100)) == len(read_frame(path, limit_mb=100, bounds=(0, 0, 1, 1))) == 0
    assert count_polygons(path, limit_mb=100) == count_polygons(path, limit_mb=100, bounds=(0, 0, 1, 1)) == 0
    if not suffix.startswith(".geojson"):  # whose columns are those of the features
        assert {"class_id", "class_name", "area_m2", "confidence", "part_of", "model", "geometry"} <= {*frame.columns}
        assert frame.crs == "EPSG:32736"
    with pytest.raises(ValueError, match="holds no polygons"):
        read_polygons(path, "EPSG:32736")


@pytest.mark.parametrize("suffix", FORMATS)
def test_our_own_files_are_read_again_as_polygons(scene_factory: SceneMaker, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine{suffix}"
    assert vectorize(scene_factory(square(1), "labels.tif"), path) == 1
    found = read_polygons(path, "EPSG:32736", "class_name", around=(500_000, 8_999_970, 500_040, 9_000_000))
    assert found.class_names == ("class 1",)
    assert found.geometries[0].area == pytest.approx(400, rel=2e-4)
