"""The packaged plugin, installed into a virgin profile as a user does from a zip, and taken out again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, os.environ["GEOGLNET_DESKTOP_SCRIPTS"])

import pyplugin_installer
from driver import Steps, note, play
from pyplugin_installer.installer_data import plugins as installed
from qgis.core import QgsApplication
from qgis.PyQt.QtWidgets import QApplication
from qgis.utils import active_plugins, iface, plugins, unloadPlugin


def providers() -> list[str]:
    return [provider.id() for provider in QgsApplication.processingRegistry().providers()]


def scenario() -> Steps:
    installed.getAllInstalled()  # QGIS does so a little after it has started
    note(before=providers())
    pyplugin_installer.instance().installFromZipFile(os.environ["GEOGLNET_DESKTOP_ZIP"])
    yield lambda: "geoglnet" in providers()
    provider = QgsApplication.processingRegistry().providerById("geoglnet")
    note(after=providers(), active="geoglnet_qgis" in active_plugins, algorithms=len(provider.algorithms()))
    note(folder=str(Path(sys.modules["geoglnet_qgis"].__file__).parent))
    unloadPlugin("geoglnet_qgis")
    note(unloaded=providers(), still_there="geoglnet_qgis" in plugins)
    for widget in QApplication.topLevelWidgets():
        if widget is not iface.mainWindow() and widget.isVisible() and widget.inherits("QMessageBox"):
            widget.close()
    yield lambda: True


_player = play(scenario())
