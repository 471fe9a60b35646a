"""The algorithms inside a real QGIS: what they accept, refuse, write and load."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from geoglnet_qgis.events import Course, Event
from geoglnet_qgis.layers import raster_file
from geoglnet_qgis.running import FeedbackReceiver
from machine import crop, processes_with
from osgeo import gdal
from qgis.core import (
    QgsApplication,
    QgsCategorizedSymbolRenderer,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsExpression,
    QgsExpressionContext,
    QgsFeature,
    QgsGeometry,
    QgsPalettedRasterRenderer,
    QgsProcessingException,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterRasterLayer,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from toolbox import UTM, Feedback, cancel_when, run, scene_layer

pytestmark = pytest.mark.usefixtures("plugin", "project")


def test_the_toolbox_has_six_algorithms_with_help() -> None:
    provider = QgsApplication.processingRegistry().providerById("geoglnet")
    assert sorted(a.name() for a in provider.algorithms()) == [
        "adaptmodel",
        "modelinformation",
        "polygonsfromraster",
        "segmentscene",
        "trainonlayers",
        "vectorizelabels",
    ]
    for algorithm in provider.algorithms():
        assert algorithm.canExecute() == (True, "")
        assert len(algorithm.shortHelpString()) > 40
        assert all(definition.help() for definition in algorithm.parameterDefinitions())
    assert not provider.icon().isNull()


def test_a_scene_becomes_styled_labels_and_polygons(segmented: dict[str, Any]) -> None:
    polygons = QgsVectorLayer(segmented["POLYGONS"], "p")
    assert polygons.featureCount() == segmented["NUM_POLYGONS"] > 5
    assert polygons.crs().authid() == UTM
    assert isinstance(polygons.renderer(), QgsCategorizedSymbolRenderer)
    assert [category.value() for category in polygons.renderer().categories()] == ["building"]
    labels = QgsRasterLayer(segmented["LABELS"], "l")
    assert labels.crs().authid() == UTM
    assert isinstance(labels.renderer(), QgsPalettedRasterRenderer)
    assert QgsRasterLayer(segmented["PROBABILITIES"]).bandCount() == 2


def test_labels_are_vectorized_again_with_progress_that_rises_and_words_on_what_was_done(
    segmented: dict[str, Any], tmp_path: Path
) -> None:
    feedback = Feedback()
    again = run("vectorizelabels", feedback, INPUT=segmented["LABELS"], OUTPUT=str(tmp_path / "again.gpkg"))
    assert again["NUM_POLYGONS"] == segmented["NUM_POLYGONS"]
    assert feedback.progress == sorted(feedback.progress)
    assert feedback.progress[-1] == 100
    assert any("polygons in" in line for line in feedback.said)


def test_the_log_says_before_the_work_what_it_amounts_to(scene_path: Path, tmp_path: Path) -> None:
    feedback = Feedback()
    run("segmentscene", feedback, INPUT=str(scene_path), LABELS=str(tmp_path / "l.tif"), POLYGONS=None)
    stage = next(text for text in feedback.stages if text.startswith("segment"))
    assert re.fullmatch(r"segment: (1 patch|\d+ patches), about \d+ min, [\d.]+ MB before compression", stage)
    assert any("patch" in line for line in feedback.said)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"total": 1, "unit": "raster"}, "segment"),
        ({"total": 1, "unit": "patches", "patches": 1}, "segment: 1 patch"),
        ({"total": 12, "unit": "regions", "patches": 340}, "segment: 12 regions, 340 patches"),
        ({"total": 9, "unit": "patches", "minutes": 0.2}, "segment: 9 patches, about 1 min"),
        ({"total": 9, "unit": "patches", "minutes": 89.4, "output_bytes": 5e8}, "about 89 min, 500 MB before compression"),
        ({"total": 9, "unit": "patches", "minutes": 600, "output_bytes": 1_234_567}, "about 10 h, 1.23 MB before compression"),
        ({"total": 9, "unit": "patches", "minutes": None, "patches": "many"}, "segment: 9 patches"),
    ],
)
def test_a_plan_is_said_as_far_as_it_is_known(facts: dict[str, Any], expected: str) -> None:
    feedback = Feedback()
    FeedbackReceiver(feedback, Course()).receive(Event("plan", {"stage": "segment", **facts}))
    assert feedback.stages[0].endswith(expected)


def test_names_of_classes_stay_text_in_the_legend(tmp_path: Path) -> None:
    names = ["background", "[% 1 + 1 %]", "<b onclick=x>", "{{ 7*7 }}", "'; DROP TABLE p; --", '"&amp;"', "$x^2$"]
    labels = gdal.GetDriverByName("GTiff").Create(str(tmp_path / "l.tif"), 8 * len(names), 8, 1, gdal.GDT_Byte)
    labels.SetGeoTransform((600000, 1, 0, 9300000, 0, -1))
    labels.SetProjection(QgsCoordinateReferenceSystem(UTM).toWkt())
    labels.GetRasterBand(1).SetCategoryNames(names)
    for value in range(1, len(names)):
        labels.GetRasterBand(1).WriteRaster(8 * value, 0, 6, 8, bytes([value]) * 48)
    del labels
    found = run("vectorizelabels", INPUT=str(tmp_path / "l.tif"), OUTPUT=str(tmp_path / "p.gpkg"))
    layer = QgsVectorLayer(found["OUTPUT"], "p")
    categories = layer.renderer().categories()
    assert [category.value() for category in categories] == names
    assert {feature["class_name"] for feature in layer.getFeatures()} == set(names)
    labels = [category.label() for category in categories]
    assert [label.replace("\N{WORD JOINER}", "") for label in labels] == names
    assert [as_in_a_legend(label) for label in labels] == labels
    assert as_in_a_legend(names[1]) == "2"


def as_in_a_legend(label: str) -> str:
    """What a layout's legend makes of a label (``QgsSymbolLegendNode::evaluateLabel``)."""
    return QgsExpression.replaceExpressionText(label, QgsExpressionContext())


def test_polygons_are_simplified_squared_and_sorted_out_by_area(segmented: dict[str, Any], tmp_path: Path) -> None:
    shaping = {"SIMPLIFY": 0.5, "REGULARIZE": True, "MIN_AREA": 20}
    found = run("vectorizelabels", INPUT=segmented["LABELS"], OUTPUT=str(tmp_path / "squared.gpkg"), **shaping)
    assert 0 < found["NUM_POLYGONS"] < segmented["NUM_POLYGONS"]
    corners = [
        sum(feature.geometry().constGet().nCoordinates() for feature in layer.getFeatures("area_m2 > 30"))
        for layer in (QgsVectorLayer(segmented["POLYGONS"]), QgsVectorLayer(found["OUTPUT"]))
    ]
    assert 0 < corners[1] < corners[0] / 2


def test_results_lie_in_a_group_above_their_scene_with_the_polygons_on_top(
    scene_path: Path, project: QgsProject, tmp_path: Path
) -> None:
    import processing

    layer, other = scene_layer(scene_path), scene_layer(scene_path)
    root = project.layerTreeRoot()
    project.addMapLayer(other, False)
    project.addMapLayer(layer, False)
    root.addLayer(other)
    root.addGroup("imagery").addLayer(layer)
    # In 3.22 results load in the order of their paths: here the labels last, and so on top.
    outputs = {"LABELS": str(tmp_path / "z.tif"), "POLYGONS": str(tmp_path / "a.gpkg")}
    processing.runAndLoadResults("geoglnet:segmentscene", {"INPUT": layer, **outputs})
    assert [node.name() for node in root.findGroup("imagery").children()] == [f"{layer.name()} – buildings", layer.name()]
    group = root.findGroup(f"{layer.name()} – buildings")
    assert [node.name() for node in group.children()] == ["polygons", "labels"]
    assert [node.isVisible() for node in group.children()] == [True, False]  # both would cover the scene with one color
    labels = project.mapLayersByName("labels")[0]
    entries = labels.renderer().classes()
    assert [(entry.label, entry.color.alpha()) for entry in entries] == [("background", 0), ("building", 255)]
    polygons = project.mapLayersByName("polygons")[0]
    assert [category.value() for category in polygons.renderer().categories()] == ["building"]


def test_labels_alone_are_shown_over_the_scene(scene_path: Path, project: QgsProject, tmp_path: Path) -> None:
    import processing

    layer = scene_layer(scene_path)
    project.addMapLayer(layer)
    outputs = {"LABELS": str(tmp_path / "z.tif"), "POLYGONS": None}
    processing.runAndLoadResults("geoglnet:segmentscene", {"INPUT": layer, **outputs})
    root = project.layerTreeRoot()
    assert [node.name() for node in root.children()] == [f"{layer.name()} – buildings", layer.name()]
    assert root.children()[0].children()[0].isVisible()


def test_labels_feed_vectorize_in_a_model(scene_path: Path, tmp_path: Path) -> None:
    import processing

    model = QgsProcessingModelAlgorithm("both", "test")
    model.addModelParameter(QgsProcessingParameterRasterLayer("scene"), QgsProcessingModelParameter("scene"))
    first = QgsProcessingModelChildAlgorithm("geoglnet:segmentscene")
    first.setChildId("segment")
    first.addParameterSources("INPUT", [QgsProcessingModelChildParameterSource.fromModelParameter("scene")])
    first.addParameterSources("MODEL", [QgsProcessingModelChildParameterSource.fromStaticValue("buildings")])
    second = QgsProcessingModelChildAlgorithm("geoglnet:vectorizelabels")
    second.setChildId("vectorize")
    second.addParameterSources("INPUT", [QgsProcessingModelChildParameterSource.fromChildOutput("segment", "LABELS")])
    for name, value in {"SIMPLIFY": 0, "MIN_AREA": 20, "REGULARIZE": False}.items():
        for child in (first, second):
            child.addParameterSources(name, [QgsProcessingModelChildParameterSource.fromStaticValue(value)])
    for name, value in {"DEVICE": "cpu", "RESUME": False}.items():
        first.addParameterSources(name, [QgsProcessingModelChildParameterSource.fromStaticValue(value)])
    output = QgsProcessingModelOutput("polygons")
    output.setChildOutputName("OUTPUT")
    output.setChildId("vectorize")
    second.setModelOutputs({"polygons": output})
    model.addChildAlgorithm(first)
    model.addChildAlgorithm(second)
    assert model.validate() == (True, [])
    results = processing.run(model, {"scene": str(scene_path), "vectorize:polygons": str(tmp_path / "p.gpkg")})
    assert QgsVectorLayer(results["vectorize:polygons"], "p").featureCount() > 0


def test_a_crs_that_only_the_layer_has_is_respected(scene_path: Path, project: QgsProject, tmp_path: Path) -> None:
    bare = crop(scene_path, tmp_path / "no crs.tif", (0, 0, 300, 240), creationOptions=["PROFILE=BASELINE", "TFW=YES"])
    (tmp_path / "no crs.tif.aux.xml").unlink(missing_ok=True)
    layer = scene_layer(bare)
    assert not layer.dataProvider().crs().isValid()
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32737"))
    project.addMapLayer(layer)
    found = run("segmentscene", INPUT=layer, POLYGONS=str(tmp_path / "p.gpkg"), LABELS=str(tmp_path / "l.tif"))
    assert "PROBABILITIES" not in found
    assert QgsRasterLayer(found["LABELS"]).crs().authid() == "EPSG:32737"
    assert layer.extent().buffered(1).contains(QgsVectorLayer(found["POLYGONS"]).extent())


@pytest.mark.parametrize(
    "definition", ["EPSG:32737", "PROJ:+proj=aeqd +lat_0=-6 +lon_0=34 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"]
)
def test_a_crs_set_over_the_files_own_is_respected(definition: str, scene_path: Path, tmp_path: Path) -> None:
    layer = scene_layer(scene_path)
    assert raster_file(layer).placed_in(str(tmp_path)) == str(scene_path)
    layer.setCrs(QgsCoordinateReferenceSystem(definition))
    placed = QgsRasterLayer(raster_file(layer).placed_in(str(tmp_path)))
    # The names of axes may differ, and so may +type=crs.
    found, asked, own = (
        set(crs.toProj().split()) - {"+type=crs"} for crs in (placed.crs(), layer.crs(), scene_layer(scene_path).crs())
    )
    assert found == asked != own
    assert placed.extent() == layer.extent()


def test_polygons_of_a_bare_picture_overlay_it(scene_path: Path, tmp_path: Path) -> None:
    picture = crop(scene_path, tmp_path / "photo.jpg", (0, 0, 300, 240), format="JPEG")
    (tmp_path / "photo.jpg.aux.xml").unlink()
    layer = scene_layer(picture)
    assert not layer.crs().isValid()
    found = run(
        "segmentscene",
        INPUT=layer,
        POLYGONS=str(tmp_path / "p.gpkg"),
        LABELS=str(tmp_path / "l.tif"),
        PIXEL_SIZE=0.25,
    )
    polygons, labels = QgsVectorLayer(found["POLYGONS"]), QgsRasterLayer(found["LABELS"])
    assert labels.extent().width() == pytest.approx(layer.extent().width())
    assert labels.extent().yMinimum() == pytest.approx(layer.extent().yMinimum())
    assert polygons.featureCount() > 5
    assert layer.extent().buffered(1e-6).contains(polygons.extent())


def test_model_information_tells_a_shipped_model_and_a_page(tmp_path: Path) -> None:
    found = run("modelinformation", MODEL="landcover", OUTPUT=str(tmp_path / "card.html"))
    assert found["NAME"] == "landcover"
    assert "forest" in found["CLASSES"]
    assert found["RESOLUTION_M"] == 1
    assert "DeepGlobe" in (tmp_path / "card.html").read_text(encoding="utf-8")


def test_what_qgis_has_in_its_environment_does_not_reach_the_program(
    segmented: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PYTHONHOME", "PYTHONPATH", "PYTHONEXECUTABLE", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "/nowhere")
    found = run("vectorizelabels", INPUT=segmented["LABELS"], OUTPUT=str(tmp_path / "p.gpkg"))
    assert QgsVectorLayer(found["OUTPUT"], "p").crs().authid() == UTM


def test_cancel_leaves_no_process_and_no_partial_file(demo: Path, tmp_path: Path) -> None:
    feedback = Feedback()
    watcher = threading.Thread(target=cancel_when, args=(feedback, lambda: any(p > 5 for p in feedback.progress)))
    watcher.start()
    started = time.monotonic()
    scene = crop(demo / "scene.tif", tmp_path / "to cancel.tif", (0, 0, 3072, 2560))
    with pytest.raises(QgsProcessingException, match="canceled"):
        run("segmentscene", feedback, INPUT=str(scene), LABELS=str(tmp_path / "l.tif"), POLYGONS=str(tmp_path / "p.gpkg"))
    watcher.join()
    assert time.monotonic() - started < 300
    assert [path.name for path in tmp_path.iterdir() if path.name != scene.name] == []
    assert list(processes_with(str(scene))) == []


def test_a_run_that_is_to_be_kept_goes_on_where_it_was_stopped(demo: Path, tmp_path: Path) -> None:
    scene = crop(demo / "scene.tif", tmp_path / "kept.tif", (0, 0, 3072, 700))
    outputs = {"LABELS": str(tmp_path / "l.tif"), "POLYGONS": None, "RESUME": True}
    feedback = Feedback()
    unfinished = tmp_path / "l.tif.unfinished"
    watcher = threading.Thread(target=cancel_when, args=(feedback, lambda: any(unfinished.glob("labels/*"))))
    watcher.start()
    with pytest.raises(QgsProcessingException, match="canceled"):
        run("segmentscene", feedback, INPUT=str(scene), **outputs)
    watcher.join()
    assert unfinished.is_dir()
    again = Feedback()
    run("segmentscene", again, INPUT=str(scene), **outputs)
    assert any("goes on after" in line for line in again.said)
    assert not unfinished.exists()


def test_an_extent_and_an_area_in_another_crs_limit_what_is_segmented(scene_path: Path, tmp_path: Path) -> None:
    layer = scene_layer(scene_path)
    box = layer.extent()
    west = f"{box.xMinimum()},{box.center().x()},{box.yMinimum()},{box.yMaximum()} [{UTM}]"
    area = QgsVectorLayer("Polygon?crs=EPSG:4326", "area", "memory")
    feature = QgsFeature()
    inside = QgsGeometry.fromRect(box.buffered(-box.height() / 3))
    inside.transform(QgsCoordinateTransform(layer.crs(), area.crs(), QgsProject.instance()))
    feature.setGeometry(inside)
    area.dataProvider().addFeatures([feature])
    QgsProject.instance().addMapLayer(area)
    outputs = {"LABELS": str(tmp_path / "west.tif"), "POLYGONS": str(tmp_path / "p.fgb")}
    found = run("segmentscene", INPUT=layer, EXTENT=west, AREA=area, **outputs)
    labels = QgsRasterLayer(found["LABELS"]).extent()
    assert labels.xMaximum() == pytest.approx(box.center().x(), abs=1)
    assert labels.xMinimum() == pytest.approx(box.xMinimum() + box.height() / 3, abs=1)
    polygons = QgsVectorLayer(found["POLYGONS"])
    assert polygons.featureCount() > 0
    assert labels.buffered(1).contains(polygons.extent())
    assert box.buffered(1 - box.height() / 3).contains(polygons.extent())
