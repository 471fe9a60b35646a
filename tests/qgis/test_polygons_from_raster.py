"""*Polygons from raster* inside a real QGIS: every kind of values, a legend, and what the program refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from osgeo import gdal
from qgis.core import QgsCategorizedSymbolRenderer, QgsCoordinateReferenceSystem, QgsProcessingException, QgsVectorLayer
from toolbox import UTM, run

pytestmark = pytest.mark.usefixtures("plugin", "project")


def write(path: Path, bands: list[list[float]], kind: int) -> str:
    """A raster of one row of blocks of 10 × 10 pixels of a meter."""
    width = 10 * len(bands[0])
    made = gdal.GetDriverByName("GTiff").Create(str(path), width, 10, len(bands), kind)
    made.SetGeoTransform((600000, 1, 0, 9300000, 0, -1))
    made.SetProjection(QgsCoordinateReferenceSystem(UTM).toWkt())
    for number, values in enumerate(bands, start=1):
        for at, value in enumerate(values):
            made.GetRasterBand(number).Fill(0) if at == 0 else None
            packed = gdal.GetDriverByName("MEM").Create("", 10, 10, 1, kind)
            packed.GetRasterBand(1).Fill(value)
            made.GetRasterBand(number).WriteRaster(10 * at, 0, 10, 10, packed.GetRasterBand(1).ReadRaster())
    del made
    return str(path)


def rows(found: dict[str, Any], *fields: str) -> list[tuple[Any, ...]]:
    layer = QgsVectorLayer(found["OUTPUT"], "p")
    assert layer.isValid()
    return sorted(tuple(feature[field] for field in fields) for feature in layer.getFeatures())


def test_codes_get_names_and_colors_of_a_legend_file(tmp_path: Path) -> None:
    raster = write(tmp_path / "cover.tif", [[111, 523, 9022]], gdal.GDT_UInt16)
    (tmp_path / "legend.csv").write_text("code,name,color\n111,spruce,#005a28\n523,oak,#0ac81e\n")
    found = run("polygonsfromraster", INPUT=raster, LEGEND=str(tmp_path / "legend.csv"), OUTPUT=str(tmp_path / "p.gpkg"))
    assert found["NUM_POLYGONS"] == 3
    assert rows(found, "class_id", "class_name") == [(111, "spruce"), (523, "oak"), (9022, "class 9022")]
    layer = QgsVectorLayer(found["OUTPUT"], "p")  # which its renderer does not outlive
    assert isinstance(layer.renderer(), QgsCategorizedSymbolRenderer)
    categories = layer.renderer().categories()
    assert categories[0].symbol().color().name() == "#005a28"


def test_objects_in_parts_are_a_row_each_or_one(tmp_path: Path) -> None:
    raster = write(tmp_path / "objects.tif", [[70000, 5, 70000, 0]], gdal.GDT_UInt32)
    classes = write(tmp_path / "classes.tif", [[1, 2, 1, 1]], gdal.GDT_Byte)
    one = run("polygonsfromraster", INPUT=raster, KIND=1, CLASS_OF=classes, OUTPUT=str(tmp_path / "one.gpkg"))
    assert rows(one, "object_id", "class_id") == [(5, 2), (70000, 1)]
    parts = run("polygonsfromraster", INPUT=raster, KIND=2, OUTPUT=str(tmp_path / "parts.gpkg"))
    assert parts["NUM_POLYGONS"] == 3


def test_quantities_of_a_band_and_probabilities_of_all(tmp_path: Path) -> None:
    raster = write(tmp_path / "p.tif", [[0.9, 0.2, 0.4], [0.1, 0.8, 0.6]], gdal.GDT_Float32)
    above = run("polygonsfromraster", INPUT=raster, KIND=3, BAND=2, BREAKS="0.5", OUTPUT=str(tmp_path / "above.gpkg"))
    assert rows(above, "class_name", "area_m2")[0][0] == "0.5 or more"
    assert above["NUM_POLYGONS"] == 1
    best = run("polygonsfromraster", INPUT=raster, KIND=4, OUTPUT=str(tmp_path / "best.gpkg"))
    assert rows(best, "class_id") == [(0,), (1,)]


def test_what_the_program_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    raster = write(tmp_path / "f.tif", [[0.5, 1.5]], gdal.GDT_Float32)
    with pytest.raises(QgsProcessingException, match="make classes of them with --breaks"):
        run("polygonsfromraster", INPUT=raster, OUTPUT=str(tmp_path / "p.gpkg"))
    assert not (tmp_path / "p.gpkg").exists()
