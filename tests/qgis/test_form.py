"""The form with which polygons are corrected: classes to choose from, fields that fill themselves, rounded numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from osgeo import gdal
from qgis.core import QgsFeature, QgsGeometry, QgsVectorLayer, QgsVectorLayerUtils
from test_polygons_from_raster import write
from toolbox import run

pytestmark = pytest.mark.usefixtures("plugin", "project")


@pytest.fixture
def layer(tmp_path: Path) -> QgsVectorLayer:
    """Two polygons, of two classes."""
    raster = write(tmp_path / "cover.tif", [[1, 2]], gdal.GDT_Byte)
    (tmp_path / "legend.csv").write_text("code,name,color\n1,Owner's roof,#005a28\n2,oak,#0ac81e\n")
    found = run("polygonsfromraster", INPUT=raster, LEGEND=str(tmp_path / "legend.csv"), OUTPUT=str(tmp_path / "p.gpkg"))
    made = QgsVectorLayer(found["OUTPUT"], "p")
    made.loadDefaultStyle()
    return made


def values(feature: QgsFeature, *names: str) -> list[Any]:
    return [feature[name] for name in names]


def test_a_new_polygon_has_no_empty_field_that_is_shown(layer: QgsVectorLayer) -> None:
    assert layer.startEditing()
    square = QgsGeometry.fromWkt("POLYGON((600000 9300000,600020 9300000,600020 9300020,600000 9300020,600000 9300000))")
    new = QgsVectorLayerUtils.createFeature(layer, square)
    assert values(new, "class_id", "class_name", "confidence") == [1, "Owner's roof", 1]
    assert new["area_m2"] == pytest.approx(400, abs=2)
    assert layer.addFeature(new)
    oak = layer.fields().indexFromName("class_name")
    assert layer.changeAttributeValue(new.id(), oak, "oak")
    assert layer.getFeature(new.id())["class_id"] == 2
    assert layer.commitChanges(), layer.commitErrors()
    assert layer.featureCount() == 3


def test_classes_are_chosen_from_a_list_and_nothing_else_can_be_typed(layer: QgsVectorLayer) -> None:
    fields = layer.fields()
    setup = layer.editorWidgetSetup(fields.indexFromName("class_name"))
    assert setup.type() == "ValueMap"
    assert [value for entry in setup.config()["map"] for value in entry.values()] == ["Owner's roof", "oak"]
    form = layer.editFormConfig()
    assert [f.name() for n, f in enumerate(fields) if not form.readOnly(n)] == ["class_name"]
    shown = [f.name() for n, f in enumerate(fields) if layer.editorWidgetSetup(n).type() != "Hidden"]
    assert shown == ["class_name", "area_m2", "perimeter_m", "confidence"]
    assert layer.attributeDisplayName(fields.indexFromName("area_m2")) == "Area (m²)"
    assert layer.editorWidgetSetup(fields.indexFromName("area_m2")).config()["Precision"] == 1
