"""The algorithms inside a real QGIS: what they accept, refuse, write and load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from geoglnet_qgis.layers import raster_file
from geoglnet_qgis.options_page import OptionsPage
from geoglnet_qgis.plugin import GeoglnetPlugin
from machine import crop, processes_with
from qgis.core import (
    QgsApplication,
    QgsCategorizedSymbolRenderer,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsPalettedRasterRenderer,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterRasterLayer,
    QgsProject,
    QgsRasterLayer,
    QgsSettings,
    QgsVectorLayer,
)

UTM = "EPSG:32736"


@pytest.fixture(scope="session", autouse=True)
def plugin(qgis_app: Any, qgis_processing: Any, program: str) -> Iterator[GeoglnetPlugin]:
    """The plugin as ``qgis_process`` has it."""
    plugin = GeoglnetPlugin(None)
    plugin.initProcessing()
    yield plugin
    plugin.unload()


@pytest.fixture(autouse=True)
def project(qgis_new_project: Any) -> QgsProject:
    return QgsProject.instance()


@pytest.fixture(scope="session")
def segmented(scene_path: Path, plugin: GeoglnetPlugin) -> dict[str, Any]:
    """Results of *Segment scene* on the generated scene, at paths with spaces, umlauts and Cyrillic."""
    folder = scene_path.parent / "Ergebnisse мир"
    folder.mkdir()
    return run("segmentscene", INPUT=str(scene_path), LABELS=str(folder / "l ä.tif"), POLYGONS=str(folder / "p ä.gpkg"))


class Feedback(QgsProcessingFeedback):
    """Keeps what a run says."""

    def __init__(self) -> None:
        super().__init__(False)
        self.said: list[str] = []
        self.progress: list[float] = []
        self.progressChanged.connect(self.progress.append)

    def pushInfo(self, info: str) -> None:
        self.said.append(info)


def run(name: str, feedback: QgsProcessingFeedback | None = None, **parameters: Any) -> dict[str, Any]:
    import processing

    return processing.run(f"geoglnet:{name}", parameters, feedback=feedback or Feedback())


def scene_layer(path: Path) -> QgsRasterLayer:
    layer = QgsRasterLayer(str(path), path.stem)
    assert layer.isValid()
    return layer


def test_the_toolbox_has_four_algorithms_with_help() -> None:
    provider = QgsApplication.processingRegistry().providerById("geoglnet")
    assert sorted(a.name() for a in provider.algorithms()) == [
        "modelinformation",
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
    assert "PROBABILITIES" not in segmented


def test_progress_rises_to_the_end_and_the_rules_applied_are_told(segmented: dict[str, Any], tmp_path: Path) -> None:
    feedback = Feedback()
    run("vectorizelabels", feedback, INPUT=segmented["LABELS"], OUTPUT=str(tmp_path / "p.gpkg"))
    assert feedback.progress == sorted(feedback.progress)
    assert feedback.progress[-1] == 100
    assert any("polygons in" in line for line in feedback.said)


def test_vectorizing_the_labels_gives_the_same_polygons(segmented: dict[str, Any], tmp_path: Path) -> None:
    again = run("vectorizelabels", INPUT=segmented["LABELS"], OUTPUT=str(tmp_path / "again.gpkg"))
    assert again["NUM_POLYGONS"] == segmented["NUM_POLYGONS"]
    fewer = run("vectorizelabels", INPUT=segmented["LABELS"], OUTPUT=str(tmp_path / "fewer.gpkg"), MIN_AREA=20)
    assert 0 < fewer["NUM_POLYGONS"] < again["NUM_POLYGONS"]


def test_results_are_named_tidied_and_the_polygons_lie_above(scene_path: Path, project: QgsProject, tmp_path: Path) -> None:
    import processing

    layer = scene_layer(scene_path)
    project.addMapLayer(layer)
    # In 3.22 results load in the order of their paths: here the labels last, and so on top.
    outputs = {"LABELS": str(tmp_path / "z.tif"), "POLYGONS": str(tmp_path / "a.gpkg")}
    processing.runAndLoadResults("geoglnet:segmentscene", {"INPUT": layer, **outputs})
    order = [node.name() for node in project.layerTreeRoot().findLayers()]
    assert order == [f"{layer.name()} – polygons", f"{layer.name()} – labels", layer.name()]
    labels = project.mapLayersByName(f"{layer.name()} – labels")[0]
    assert [entry.label for entry in labels.renderer().classes()] == ["background", "building"]
    polygons = project.mapLayersByName(f"{layer.name()} – polygons")[0]
    assert [category.value() for category in polygons.renderer().categories()] == ["building"]


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


@pytest.mark.parametrize(
    ("name", "suffix"), [("LABELS", ".jpg"), ("POLYGONS", ".shp"), ("PROBABILITIES", ".gpkg"), ("POLYGONS", "memory:")]
)
def test_a_format_that_is_not_written_is_refused_before_anything_runs(
    name: str, suffix: str, scene_path: Path, tmp_path: Path
) -> None:
    value = suffix if suffix.endswith(":") else str(tmp_path / f"x{suffix}")
    with pytest.raises(QgsProcessingException, match=r"choose a file that ends with|is not supported"):
        run("segmentscene", **{"INPUT": str(scene_path), "LABELS": str(tmp_path / "l.tif"), name: value})
    assert not list(tmp_path.iterdir())


def test_nothing_to_write_is_refused(scene_path: Path) -> None:
    with pytest.raises(QgsProcessingException, match="nothing to write"):
        run("segmentscene", INPUT=str(scene_path), LABELS=None, POLYGONS=None)


def test_layers_without_a_file_are_refused_with_a_sentence(scene_path: Path, tmp_path: Path) -> None:
    tiles = QgsRasterLayer("type=xyz&url=http://localhost:1/{z}/{x}/{y}.png", "tiles of a server", "wms")
    with pytest.raises(QgsProcessingException, match=r"“tiles of a server” .*export it first"):
        raster_file(tiles)
    memory = QgsRasterLayer("/vsimem/nothing.tif", "gone")
    with pytest.raises(QgsProcessingException, match="“gone” is not valid"):
        raster_file(memory)


def test_a_crs_that_only_the_layer_has_is_respected(scene_path: Path, project: QgsProject, tmp_path: Path) -> None:
    bare = crop(scene_path, tmp_path / "no crs.tif", (0, 0, 300, 240), creationOptions=["PROFILE=BASELINE", "TFW=YES"])
    (tmp_path / "no crs.tif.aux.xml").unlink(missing_ok=True)
    layer = scene_layer(bare)
    assert not layer.dataProvider().crs().isValid()
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32737"))
    project.addMapLayer(layer)
    found = run("segmentscene", INPUT=layer, POLYGONS=str(tmp_path / "p.gpkg"), LABELS=str(tmp_path / "l.tif"))
    assert QgsRasterLayer(found["LABELS"]).crs().authid() == "EPSG:32737"
    assert layer.extent().buffered(1).contains(QgsVectorLayer(found["POLYGONS"]).extent())


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


def test_a_missing_model_file_is_named(scene_path: Path, tmp_path: Path) -> None:
    with pytest.raises(QgsProcessingException, match=r"nowhere\.safetensors"):
        run("segmentscene", INPUT=str(scene_path), MODEL_FILE="/nowhere.safetensors", LABELS=str(tmp_path / "l.tif"))


WRONG = {
    "missing": (None, "there is no geoglnet program at"),
    "too_old": ('print(\'{"version": "0.0.9", "protocol": 1}\')', "0.0.9 .* upgrade it there"),
    "lacks_an_option": (
        'print(\'{"version": "0.0.9", "protocol": 1, "options": {"vectorize": ["--progress", "--overwrite"]}}\')',
        "does not know --stop-on-stdin-eof; upgrade it there",
    ),
    "crashing": ("raise ImportError('libcudart.so.12')", "libcudart"),
    "rubbish": ("print('hello')", "does not answer like geoglnet"),
    "dying_later": (
        "import sys, os\nif 'doctor' in sys.argv:\n"
        '    print(\'{"version": "1", "protocol": 1, "options": {"vectorize": '
        '["--progress", "--overwrite", "--stop-on-stdin-eof"]}}\')\nelse: os.abort()',
        "SIGABRT",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_program_is_one_clear_message(
    kind: str,
    segmented: dict[str, Any],
    make_program: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    script, expected = WRONG[kind]
    monkeypatch.setenv("GEOGLNET_PROGRAM", str(tmp_path / "nothing") if script is None else make_program(script))
    with pytest.raises(QgsProcessingException, match=expected) as caught:
        run("vectorizelabels", INPUT=segmented["LABELS"], OUTPUT=str(tmp_path / "p.gpkg"))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "p.gpkg").exists()


def test_what_qgis_has_in_its_environment_does_not_reach_the_program(
    segmented: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PYTHONHOME", "PYTHONPATH", "PYTHONEXECUTABLE", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "/nowhere")
    found = run("vectorizelabels", INPUT=segmented["LABELS"], OUTPUT=str(tmp_path / "p.gpkg"))
    assert QgsVectorLayer(found["OUTPUT"], "p").crs().authid() == UTM


def test_the_toolbox_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOGLNET_PROGRAM", "/nowhere/geoglnet")
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("geoglnet:segmentscene")
    can, reason = algorithm.canExecute()
    assert not can
    assert "Settings → Options → geoglnet" in reason


def test_cancel_leaves_no_process_and_no_partial_file(demo: Path, tmp_path: Path) -> None:
    feedback = Feedback()
    watcher = threading.Thread(target=cancel_when, args=(feedback, lambda: any(p > 5 for p in feedback.progress)))
    watcher.start()
    started = time.monotonic()
    scene = crop(demo / "scene.tif", tmp_path / "to cancel.tif", (0, 0, 3072, 2560))
    with pytest.raises(QgsProcessingException, match="cancelled"):
        run("segmentscene", feedback, INPUT=str(scene), LABELS=str(tmp_path / "l.tif"), POLYGONS=str(tmp_path / "p.gpkg"))
    watcher.join()
    assert time.monotonic() - started < 300
    assert [path.name for path in tmp_path.iterdir() if path.name != scene.name] == []
    assert list(processes_with(str(scene))) == []


def cancel_when(feedback: Feedback, happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not happened() and time.monotonic() < until:
        time.sleep(0.05)
    feedback.cancel()


def test_a_run_that_is_to_be_kept_goes_on_where_it_was_stopped(demo: Path, tmp_path: Path) -> None:
    scene = crop(demo / "scene.tif", tmp_path / "kept.tif", (0, 0, 3072, 700))
    outputs = {"LABELS": str(tmp_path / "l.tif"), "POLYGONS": None, "RESUME": True}
    feedback = Feedback()
    unfinished = tmp_path / "l.tif.unfinished"
    watcher = threading.Thread(target=cancel_when, args=(feedback, lambda: any(unfinished.glob("labels/*"))))
    watcher.start()
    with pytest.raises(QgsProcessingException, match="cancelled"):
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
    part = run("segmentscene", INPUT=layer, EXTENT=west, LABELS=str(tmp_path / "west.tif"), POLYGONS=None)
    assert QgsRasterLayer(part["LABELS"]).extent().width() == pytest.approx(box.width() / 2, rel=0.05)
    area = QgsVectorLayer("Polygon?crs=EPSG:4326", "area", "memory")
    feature = QgsFeature()
    inside = QgsGeometry.fromRect(box.buffered(-box.height() / 3))
    inside.transform(QgsCoordinateTransform(layer.crs(), area.crs(), QgsProject.instance()))
    feature.setGeometry(inside)
    area.dataProvider().addFeatures([feature])
    QgsProject.instance().addMapLayer(area)
    found = run("segmentscene", INPUT=layer, AREA=area, POLYGONS=str(tmp_path / "p.fgb"), LABELS=None, PROBABILITIES=None)
    polygons = QgsVectorLayer(found["POLYGONS"])
    assert polygons.featureCount() > 0
    assert box.buffered(1 - box.height() / 3).contains(polygons.extent())


def test_polygons_are_simplified_and_squared_and_probabilities_written(scene_path: Path, tmp_path: Path) -> None:
    outputs = {"LABELS": "l.tif", "POLYGONS": "a.gpkg", "PROBABILITIES": "q.tif"}
    plain = run("segmentscene", INPUT=str(scene_path), **{key: str(tmp_path / name) for key, name in outputs.items()})
    assert QgsRasterLayer(plain["PROBABILITIES"]).bandCount() == 2
    squared = run("vectorizelabels", INPUT=plain["LABELS"], OUTPUT=str(tmp_path / "b.gpkg"), SIMPLIFY=0.5, REGULARIZE=True)
    corners = [
        sum(feature.geometry().constGet().nCoordinates() for feature in QgsVectorLayer(path).getFeatures())
        for path in (plain["POLYGONS"], squared["OUTPUT"])
    ]
    assert corners[1] < corners[0] / 2


def square(x: float, y: float, side: float) -> QgsGeometry:
    return QgsGeometry.fromWkt(f"POLYGON(({x} {y}, {x + side} {y}, {x + side} {y + side}, {x} {y + side}, {x} {y}))")


TINY = "\n".join(
    [
        "model.pyramid_channels = 8",
        "model.smooth_channels = 4",
        "region.region_size = 128",
        "region.overview_size = 64",
        "region.patch_size = 64",
        "region.patch_overlap = 8",
        "region.margin = 16",
        "sample.region_size = 128",
        "sample.patch_size = 64",
        "sample.patches_per_region = 1",
        "optim.batch_size = 2",
        "optim.ema_decay = 0.0",
    ]
)


def training_layers(scene_path: Path, truth: QgsVectorLayer, field: str) -> tuple[QgsRasterLayer, QgsVectorLayer]:
    """The scene, and its true polygons as a memory layer with a field of classes."""
    layer = scene_layer(scene_path)
    drawn = QgsVectorLayer(f"Polygon?crs={UTM}&field={field}:string(20)", "drawn", "memory")
    features = []
    for number, feature in enumerate(truth.getFeatures(layer.extent())):
        copy = QgsFeature(drawn.fields())
        copy.setGeometry(feature.geometry())
        copy.setAttribute(0, ("Häuser", "shed")[number % 2])
        features.append(copy)
    assert drawn.dataProvider().addFeatures(features)[0]
    return layer, drawn


def test_a_model_is_trained_on_layers_and_segments_with_them(
    scene_path: Path, demo: Path, project: QgsProject, tmp_path: Path
) -> None:
    layer, drawn = training_layers(scene_path, QgsVectorLayer(str(demo / "truth.gpkg")), "Art der Fläche")
    project.addMapLayers([layer, drawn])
    feedback = Feedback()
    trained = run(
        "trainonlayers",
        feedback,
        INPUT=layer,
        POLYGONS=drawn,
        FIELD="Art der Fläche",
        OUTPUT=str(tmp_path / "mein Modell.safetensors"),
        FOLDER=str(tmp_path / "Ordner"),
        AREA=drawn,
        HELD_OUT_INPUT=layer,
        HELD_OUT_POLYGONS=drawn,
        RESOLUTION=0.5,
        GLOBAL_STEPS=2,
        LOCAL_STEPS=2,
        BACKBONE_WEIGHTS="",
        SETTINGS=TINY,
    )
    assert feedback.progress == sorted(feedback.progress)
    assert any("loss" in line for line in feedback.said)
    assert {path.name for path in (tmp_path / "Ordner").iterdir()} >= {"train.toml", "train.vrt", "train.gpkg"}
    found = run("modelinformation", MODEL_FILE=trained["OUTPUT"], OUTPUT=None)
    assert found["CLASSES"] == "background, Häuser, shed"
    assert found["RESOLUTION_M"] == 0.5
    segmented = run("segmentscene", INPUT=layer, MODEL_FILE=trained["OUTPUT"], LABELS=str(tmp_path / "l.tif"), POLYGONS=None)
    assert QgsRasterLayer(segmented["LABELS"]).isValid()


def test_training_without_a_class_in_some_polygon_is_refused(scene_path: Path, project: QgsProject, tmp_path: Path) -> None:
    drawn = QgsVectorLayer(f"Polygon?crs={UTM}&field=kind:string(20)", "drawn", "memory")
    feature = QgsFeature(drawn.fields())
    feature.setGeometry(square(612100, 9311800, 10))
    drawn.dataProvider().addFeatures([feature])
    project.addMapLayer(drawn)
    with pytest.raises(QgsProcessingException, match="has no kind; fill it in"):
        run(
            "trainonlayers",
            INPUT=str(scene_path),
            POLYGONS=drawn,
            FIELD="kind",
            OUTPUT=str(tmp_path / "m.safetensors"),
        )


def test_the_classes_take_the_colours_of_the_layers_style(tmp_path: Path) -> None:
    from geoglnet_qgis.layers import class_colours
    from qgis.core import QgsFillSymbol, QgsRendererCategory

    drawn = QgsVectorLayer("Polygon?field=kind:string(20)", "drawn", "memory")
    symbol = QgsFillSymbol.createSimple({"color": "10,20,30"})
    drawn.setRenderer(QgsCategorizedSymbolRenderer("kind", [QgsRendererCategory("roof", symbol, "Dach")]))
    assert class_colours(drawn, "kind") == {"roof": (10, 20, 30)}
    assert class_colours(drawn, "other") == {}


def test_the_options_page_tests_a_program_in_the_background(program: str, qtbot: Any) -> None:
    page = OptionsPage(None, lambda: None)
    qtbot.addWidget(page)
    page.program.setFilePath(program)
    page.test_button.click()
    qtbot.waitUntil(page.test_button.isEnabled, timeout=120_000)
    assert "ready" in page.answer.text()
    assert "buildings, landcover" in page.answer.text()
    page.program.setFilePath("/nowhere")
    page.test_button.click()
    qtbot.waitUntil(page.test_button.isEnabled, timeout=120_000)
    assert "there is no geoglnet program at /nowhere" in page.answer.text()


def test_the_options_are_kept(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    applied = []
    page = OptionsPage(None, lambda: applied.append(1))
    qtbot.addWidget(page)
    page.program.setFilePath("/opt/geo net/bin/geoglnet")
    page.kept.setText("LD_LIBRARY_PATH")
    page.apply()
    monkeypatch.delenv("GEOGLNET_PROGRAM")
    again = OptionsPage(None, lambda: None)
    qtbot.addWidget(again)
    assert (again.program.filePath(), again.kept.text()) == ("/opt/geo net/bin/geoglnet", "LD_LIBRARY_PATH")
    assert applied
    QgsSettings().remove("geoglnet")
