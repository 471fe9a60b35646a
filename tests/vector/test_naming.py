"""Names of vector files are names, whatever libraries read into them; and what is damaged on its way gets no name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from geoglnet.errors import OutputError
from geoglnet.existing import layer_name
from geoglnet.vector import exchange, geopackage
from geoglnet.vector.formats import FORMATS
from geoglnet.vector.polygon_reader import count_polygons, read_frame, read_polygons
from geoglnet.vector.polygonizer import vectorize
from geoglnet.vector.settings import VectorConfig
from tests.rasters import write_raster


@pytest.fixture
def labels_path(tmp_path: Path) -> Path:
    labels = np.zeros((1, 60, 80), np.uint8)
    labels[0, 5:20, 5:30] = labels[0, 30:40, 50:60] = 1
    return write_raster(tmp_path / "labels.tif", labels)


@pytest.mark.parametrize(
    "name",
    [
        "site;roofs.gpkg",
        "Roofs!.gpkg",
        "Wow!/roofs.gpkg",
        "Wow!/more!.fgb",
        "a:b.parquet",
        "s3:b.gpkg",
        "-roofs.gpkg",
        "#12.gpkg",
        "(1) roofs.fgb",
        "[site 4] roofs.geojson",
        "what?.gpkg",
        "what?x=1.parquet",
        "100%25.gpkg",
        " roofs.gpkg",
        "$HOME.geojsonl",
        'it\'s "quoted".gpkg',
        ".hidden.gpkg",
        "крыши.gpkg",
    ],
)
def test_a_name_is_a_name_for_writers_and_readers(
    labels_path: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for neighbor in ("site", "a", "b.parquet", "roofs.gpkg", "what"):
        (tmp_path / neighbor).write_text("my notes of two years")
    (tmp_path / "Wow!").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), tmp_path / name):
        assert vectorize("labels.tif", path, overwrite=True) == 2
        assert {path.name for path in tmp_path.iterdir()} == before | {Path(name).parts[0]}
        assert len(read_frame(path, limit_mb=100)) == count_polygons(path, limit_mb=100) == 2
        if path.suffix != ".parquet":
            assert len(read_polygons(path, None)) == 2
    assert (tmp_path / "site").read_text() == "my notes of two years"
    assert not [*Path("/").glob("*roofs*")]


def test_a_file_of_several_is_read_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / "plots;2024!.shp"
    plain = tmp_path / "plain.shp"
    geopandas.GeoDataFrame({"kind": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32636").to_file(plain)
    for part in tmp_path.glob("plain.*"):
        part.rename(path.with_suffix(part.suffix))
    assert read_polygons(path, "EPSG:32636", "kind").class_names == ("a",)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("scene 1.gpkg", "scene 1"),
        ("roofs;v2.gpkg", "roofs;v2"),
        ("-x.gpkg", "polygons_-x"),
        ("(1) roofs.gpkg", "polygons_(1) roofs"),
        ("GPKG_x.gpkg", "polygons_GPKG_x"),
    ],
)
def test_a_layer_is_called_as_its_file_unless_geopackage_refuses_it(name: str, layer: str) -> None:
    assert layer_name(name) == layer


def test_a_geopackage_with_a_damaged_page_gets_no_name(
    labels_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = geopackage._check

    def damage(part_path: Path, *given: Any) -> None:
        with part_path.open("r+b") as file:
            file.seek(-4096, os.SEEK_END)
            file.write(b"\0" * 4096)
        check(part_path, *given)

    monkeypatch.setattr(geopackage, "_check", damage)
    with pytest.raises(OutputError, match=r"out\.gpkg cannot be written \(") as caught:
        vectorize(labels_path, tmp_path / "out.gpkg")
    assert "free some space" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"labels.tif"}


@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix not in (".gpkg", ".parquet")])
@pytest.mark.parametrize("lost", [1, 200])
def test_a_file_of_another_format_that_is_cut_short_gets_no_name(
    labels_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, lost: int
) -> None:
    write = exchange.pyogrio.write_arrow

    def cut(stream: Any, path: str, **given: Any) -> None:
        write(stream, path, **given)
        os.truncate(path, Path(path).stat().st_size - lost - 4)

    monkeypatch.setattr(exchange.pyogrio, "write_arrow", cut)
    with pytest.raises(OutputError, match=r"cannot be written \([01] of 2 polygons reached the file\)"):
        vectorize(labels_path, tmp_path / f"out{suffix}")
    assert {path.name for path in tmp_path.iterdir()} == {"labels.tif"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_without_polygons_and_with_one_are_whole(tmp_path: Path, suffix: str) -> None:
    for size in (0, 4):
        labels = np.zeros((1, 64, 64), np.uint8)
        labels[0, :size, :size] = 1
        path = write_raster(tmp_path / f"labels{size}.tif", labels)
        assert vectorize(path, tmp_path / f"out{size}{suffix}") == bool(size)


def test_neither_labels_nor_statistics_are_overwritten_and_a_style_is_an_output(labels_path: Path, tmp_path: Path) -> None:
    os.link(labels_path, tmp_path / "hard.gpkg")
    with pytest.raises(OutputError, match=r"hard\.gpkg is the label raster"):
        vectorize(labels_path, tmp_path / "hard.gpkg", overwrite=True)
    (tmp_path / "out.qml").write_text("edited by hand")
    config = VectorConfig(style="qml")
    with pytest.raises(OutputError, match=r"out\.qml exists"):
        vectorize(labels_path, tmp_path / "out.gpkg", config=config)
    assert not (tmp_path / "out.gpkg").exists()
    for _ in range(2):
        vectorize(labels_path, tmp_path / "out.gpkg", config=config, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"labels.tif", "hard.gpkg", "out.gpkg", "out.qml"}
    assert "<qgis" in (tmp_path / "out.qml").read_text()
