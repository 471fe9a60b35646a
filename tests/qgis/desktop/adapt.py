"""The dialog of *Adapt a model*, a run, and what its log says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, os.environ["GEOGLNET_DESKTOP_SCRIPTS"])

import processing
from driver import FOLDER, Steps, note, picture, play
from qgis.core import QgsProject, QgsRasterLayer, QgsVectorLayer
from qgis.PyQt.QtWidgets import QTextEdit
from qgis.utils import iface

SCENE, DRAWN, MODEL = (os.environ[f"GEOGLNET_DESKTOP_{name}"] for name in ("SCENE", "DRAWN", "MODEL"))


def scenario() -> Steps:
    iface.mainWindow().setGeometry(0, 0, 1600, 1000)
    layer, drawn = QgsRasterLayer(SCENE, Path(SCENE).stem), QgsVectorLayer(DRAWN, "drawn")
    QgsProject.instance().addMapLayers([layer, drawn])
    chosen = {"MODEL_FILE": MODEL, "INPUT": layer, "DRAWN": drawn, "MINUTES": 0.2}
    dialog = processing.createAlgorithmDialog("geoglnet:adaptmodel", chosen)
    dialog.resize(900, 800)
    dialog.show()
    yield dialog.isVisible
    picture("adapt-dialog", dialog)
    dialog.close()
    dialog = processing.createAlgorithmDialog("geoglnet:adaptmodel", {**chosen, "OUTPUT": str(FOLDER / "mine.safetensors")})
    dialog.resize(900, 800)
    dialog.show()
    dialog.runButton().click()
    yield dialog.wasExecuted
    picture("adapt-log", dialog)
    note(log=dialog.findChild(QTextEdit, "txtLog").toPlainText(), written=(FOLDER / "mine.safetensors").is_file())
    dialog.close()


_player = play(scenario())
