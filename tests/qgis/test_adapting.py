"""*Adapt a model* inside a real QGIS."""

from __future__ import annotations

from pathlib import Path

import pytest
from geoglnet_qgis.settings import own_models
from qgis.core import (
    QgsApplication,
    QgsFeature,
    QgsGeometry,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProject,
    QgsVectorLayer,
)
from test_training import TINY
from toolbox import UTM, Feedback, run, scene_layer

pytestmark = pytest.mark.usefixtures("plugin", "project")


def roofs(scene_path: Path) -> QgsVectorLayer:
    """A lattice of squares, as somebody would draw them all over the scene, every other one approved."""
    extent = scene_layer(scene_path).extent()
    drawn = QgsVectorLayer(f"Polygon?crs={UTM}&field=class_name:string(20)&field=approved:boolean", "drawn", "memory")
    side, features = extent.width() / 8, []
    for number in range(48):
        x = extent.xMinimum() + (number % 8 + 0.3) * side
        y = extent.yMinimum() + (number // 8 + 0.3) * side
        feature = QgsFeature(drawn.fields())
        feature.setGeometry(
            QgsGeometry.fromWkt(
                f"POLYGON(({x} {y}, {x + side / 3} {y}, {x + side / 3} {y + side / 3}, {x} {y + side / 3}, {x} {y}))"
            )
        )
        feature.setAttributes(["object", number % 2 == 0])
        features.append(feature)
    assert drawn.dataProvider().addFeatures(features)[0]
    return drawn


def test_a_model_is_adapted_remembered_and_used(scene_path: Path, project: QgsProject, tmp_path: Path) -> None:
    layer, drawn = scene_layer(scene_path), roofs(scene_path)
    project.addMapLayers([layer, drawn])
    first, second = tmp_path / "first.safetensors", tmp_path / "mein Modell.safetensors"
    short = {"GLOBAL_STEPS": 1, "LOCAL_STEPS": 1, "BACKBONE_WEIGHTS": "", "SETTINGS": TINY, "RESOLUTION": 0.5}
    run("trainonlayers", INPUT=layer, POLYGONS=drawn, OUTPUT=str(first), **short)
    feedback = Feedback()
    found = run(
        "adaptmodel", feedback, MODEL_FILE=str(first), INPUT=layer, DRAWN=drawn, OUTPUT=str(second), MINUTES=0.2, AREA=None
    )
    assert second.is_file()
    assert Path(found["REPORT"]).is_file()
    assert found["IOU_BEFORE"] is not None
    said = "\n".join(feedback.said)
    assert "24 drawn: classes from class" in said  # those that are approved
    assert "steps of about" in said
    assert "held out" in said
    assert f"report: {found['REPORT']}" in said
    assert own_models() == [str(second), str(first)]
    made = QgsApplication.processingRegistry().createAlgorithmById("geoglnet:segmentscene")
    assert str(second) in made.parameterDefinition("MODEL").options()
    labels = run("segmentscene", INPUT=layer, MODEL=str(second), LABELS=str(tmp_path / "l.tif"), POLYGONS=None)["LABELS"]
    assert Path(labels).is_file()


@pytest.mark.parametrize("algorithm", ["adaptmodel", "trainonlayers"])
def test_a_model_that_would_be_gone_is_refused(algorithm: str, scene_path: Path, project: QgsProject) -> None:
    drawn = roofs(scene_path)
    project.addMapLayer(drawn)
    chosen = {"INPUT": str(scene_path), "DRAWN": drawn, "POLYGONS": drawn, "OUTPUT": QgsProcessing.TEMPORARY_OUTPUT}
    made = QgsApplication.processingRegistry().createAlgorithmById(f"geoglnet:{algorithm}")
    context = QgsProcessingContext()
    context.setProject(project)
    is_fine, reason = made.checkParameterValues(chosen, context)
    assert not is_fine
    assert "gone when QGIS quits" in reason
    with pytest.raises(QgsProcessingException):
        run(algorithm, **chosen)
