"""Toolbox, dialog, run, styled layers, cancel, batch, options, unload."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, os.environ["GEOGLNET_DESKTOP_SCRIPTS"])

import processing
from driver import FOLDER, Steps, note, picture, play
from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog
from qgis.core import QgsApplication, QgsProcessingContext, QgsProject, QgsRasterLayer
from qgis.PyQt.QtWidgets import QDockWidget, QLineEdit, QProgressBar, QTextEdit, QTreeView
from qgis.utils import iface, unloadPlugin

SCENE, LARGE, SECOND = (os.environ[f"GEOGLNET_DESKTOP_{name}"] for name in ("SCENE", "LARGE", "SECOND"))
ALGORITHM = "geoglnet:segmentscene"


def rows(view: QTreeView) -> list[str]:
    """Texts of all rows of a tree."""
    model, found = view.model(), []

    def walk(parent) -> None:
        for row in range(model.rowCount(parent)):
            index = model.index(row, 0, parent)
            found.append(str(index.data()))
            walk(index)

    walk(view.rootIndex())
    return found


def log_of(dialog) -> str:
    return dialog.findChild(QTextEdit, "txtLog").toPlainText()


def names() -> list[str]:
    return [node.name() for node in QgsProject.instance().layerTreeRoot().findLayers()]


def bar(dialog) -> int:
    return max((bar.value() for bar in dialog.findChildren(QProgressBar)), default=0)


def scenario() -> Steps:
    window = iface.mainWindow()
    window.setGeometry(0, 0, 1600, 1000)
    layer = QgsRasterLayer(SCENE, Path(SCENE).stem)
    QgsProject.instance().addMapLayer(layer)
    for dock in window.findChildren(QDockWidget):
        dock.setVisible(dock.objectName() in ("ProcessingToolbox", "Layers"))
    toolbox = window.findChild(QDockWidget, "ProcessingToolbox")
    toolbox.findChild(QLineEdit).setText("geoglnet")
    yield lambda: "Segment scene" in rows(toolbox.findChild(QTreeView))
    note(toolbox=rows(toolbox.findChild(QTreeView)))
    iface.zoomToActiveLayer()

    dialog = processing.createAlgorithmDialog(ALGORITHM, {"INPUT": layer})
    dialog.resize(900, 760)
    dialog.show()
    yield dialog.isVisible
    picture("dialog", dialog)
    dialog.close()
    dialog = processing.createAlgorithmDialog(
        ALGORITHM, {"INPUT": layer, "LABELS": str(FOLDER / "z.tif"), "POLYGONS": str(FOLDER / "a.gpkg")}
    )
    dialog.show()
    dialog.runButton().click()
    yield lambda: dialog.wasExecuted() and len(names()) == 3
    note(log=log_of(dialog))
    picture("log", dialog)
    dialog.close()
    layers = {layer.name(): layer for layer in QgsProject.instance().mapLayers().values()}
    labels = layers["labels"]
    polygons = layers["polygons"]
    classes = [entry.label for entry in labels.renderer().classes()]
    styles = [category.value() for category in polygons.renderer().categories()]
    note(order=names(), classes=classes, styles=styles, polygons=polygons.featureCount())
    iface.setActiveLayer(layer)
    iface.zoomToActiveLayer()
    yield lambda: not iface.mapCanvas().isDrawing()
    canvas = iface.mapCanvas()
    canvas.waitWhileRendering()
    picture("styled", window)

    folder = FOLDER / "canceled"
    folder.mkdir()
    dialog = processing.createAlgorithmDialog(
        ALGORITHM, {"INPUT": LARGE, "LABELS": str(folder / "l.tif"), "POLYGONS": str(folder / "p.gpkg")}
    )
    dialog.show()
    dialog.runButton().click()
    yield lambda: 3 < bar(dialog) < 100
    picture("running", dialog)
    note(live=bar(dialog), before_cancel=sorted(path.name for path in folder.iterdir()))
    dialog.cancelButton().click()
    yield dialog.runButton().isEnabled
    picture("canceled", dialog)
    note(canceled=log_of(dialog), left=sorted(path.name for path in folder.iterdir()))
    dialog.close()

    algorithm = QgsApplication.processingRegistry().createAlgorithmById(ALGORITHM)
    batch = BatchAlgorithmDialog(algorithm, parent=window)
    batch.mainWidget().addRow()
    for row, scene in enumerate((SCENE, SECOND)):
        fill_row(batch.mainWidget(), row, scene)
    batch.show()
    picture("batch", batch)
    batch.runButton().click()
    yield lambda: (FOLDER / "batch 1.gpkg").exists() and batch.runButton().isEnabled()
    picture("batch done", batch)
    note(batch=sorted(path.name for path in FOLDER.glob("batch ?.*")), batch_log=log_of(batch))
    batch.close()

    unloadPlugin("geoglnet_qgis")
    note(providers=[provider.id() for provider in QgsApplication.processingRegistry().providers()])


def fill_row(panel, row: int, scene: str) -> None:
    """One line of the batch table."""
    panel.wrappers[row][panel.parameter_to_column["INPUT"]].setParameterValue(scene, QgsProcessingContext())
    for name, suffix in (("POLYGONS", "gpkg"), ("LABELS", "tif")):
        cell = panel.tblParameters.cellWidget(row + 1, panel.parameter_to_column[name])
        cell.setValue(str(FOLDER / f"batch {row}.{suffix}"))


_player = play(scenario())
