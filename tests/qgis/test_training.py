"""*Train on layers* inside a real QGIS."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from geoglnet_qgis.layers import class_colors
from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsFeature,
    QgsFillSymbol,
    QgsGeometry,
    QgsProcessingException,
    QgsProject,
    QgsRasterLayer,
    QgsRendererCategory,
    QgsVectorLayer,
)
from toolbox import UTM, Feedback, cancel_when, run, scene_layer

pytestmark = pytest.mark.usefixtures("plugin", "project")


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
        "optim.save_every_s = 0.0",
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


def test_a_model_is_trained_on_layers_in_two_sittings_and_segments(
    scene_path: Path, demo: Path, project: QgsProject, tmp_path: Path
) -> None:
    layer, drawn = training_layers(scene_path, QgsVectorLayer(str(demo / "truth.gpkg")), "Art der Fläche")
    project.addMapLayers([layer, drawn])
    model, savepoint, folder = (tmp_path / name for name in ("mein Modell.safetensors", "mein Modell.resume.pt", "Ordner"))
    chosen = {
        "INPUT": layer,
        "POLYGONS": drawn,
        "FIELD": "Art der Fläche",
        "OUTPUT": str(model),
        "FOLDER": str(folder),
        "AREA": drawn,
        "HELD_OUT_INPUT": layer,
        "HELD_OUT_POLYGONS": drawn,
        "RESOLUTION": 0.5,
        "GLOBAL_STEPS": 40,
        "LOCAL_STEPS": 2,
        "BACKBONE_WEIGHTS": "",
        "SETTINGS": TINY,
        "RESUME": True,
    }
    stopped = Feedback()
    watcher = threading.Thread(target=cancel_when, args=(stopped, savepoint.exists))
    watcher.start()
    with pytest.raises(QgsProcessingException, match="canceled"):
        run("trainonlayers", stopped, **chosen)
    watcher.join()
    assert "--resume" not in stopped.command
    assert "the training can go on" in stopped.said[-1]
    assert not model.exists()
    feedback = Feedback()
    run("trainonlayers", feedback, **chosen)
    assert "--resume" in feedback.command
    assert not savepoint.exists()
    assert feedback.progress == sorted(feedback.progress)
    assert any("loss" in line for line in feedback.said)
    assert {path.name for path in folder.iterdir()} >= {"train.toml", "train.vrt", "train.gpkg"}
    found = run("modelinformation", MODEL_FILE=str(model), OUTPUT=None)
    assert found["CLASSES"] == "background, Häuser, shed"
    assert found["RESOLUTION_M"] == 0.5
    segmented = run("segmentscene", INPUT=layer, MODEL_FILE=str(model), LABELS=str(tmp_path / "l.tif"), POLYGONS=None)
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


def test_the_classes_take_the_colors_of_the_layers_style(tmp_path: Path) -> None:
    drawn = QgsVectorLayer("Polygon?field=kind:string(20)", "drawn", "memory")
    symbol = QgsFillSymbol.createSimple({"color": "10,20,30"})
    drawn.setRenderer(QgsCategorizedSymbolRenderer("kind", [QgsRendererCategory("roof", symbol, "Dach")]))
    assert class_colors(drawn, "kind") == {"roof": (10, 20, 30)}
    assert class_colors(drawn, "other") == {}


def test_a_training_folder_with_files_of_something_else_is_refused(
    scene_path: Path, demo: Path, project: QgsProject, tmp_path: Path
) -> None:
    _, drawn = training_layers(scene_path, QgsVectorLayer(str(demo / "truth.gpkg")), "kind")
    project.addMapLayer(drawn)
    (tmp_path / "train.gpkg").write_bytes(b"drawn by hand")
    with pytest.raises(QgsProcessingException, match=r"has a train\.gpkg that this plugin did not write; choose another"):
        run(
            "trainonlayers",
            INPUT=str(scene_path),
            POLYGONS=drawn,
            FIELD="kind",
            FOLDER=str(tmp_path),
            OUTPUT=str(tmp_path / "m.safetensors"),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["train.gpkg"]
    assert (tmp_path / "train.gpkg").read_bytes() == b"drawn by hand"
