"""Imports every module of the plugin with PyQt6 and builds what it shows. Usage: build_everything.py FOLDER_OF_PLUGINS"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import types
from typing import Any

from PyQt6 import QtCore, QtGui, QtWidgets, sip


class Anything(type):
    """Every attribute of such a class is another such class."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = Anything(name, (Standin,), {})
        setattr(cls, name, made)
        return made

    def __or__(cls, other: Any) -> Any:
        return cls

    __ror__ = __or__


class Standin(metaclass=Anything):
    """An object of QGIS that takes everything and says nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: Standin()

    def __or__(self, other: Any) -> Any:
        return self

    def __str__(self) -> str:
        return ""


class FileWidget(QtWidgets.QWidget):
    """QgsFileWidget."""

    def setFilePath(self, path: str) -> None: ...

    def setDialogTitle(self, title: str) -> None: ...

    def filePath(self) -> str:
        return ""


def module(name: str, **members: Any) -> None:
    """A module of QGIS, whose other members are stand-ins."""
    made = types.ModuleType(name)
    made.__dict__.update(members)
    made.__getattr__ = lambda attribute: getattr(Standin, attribute)  # type: ignore[method-assign]
    sys.modules[name] = made


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    module("qgis", __path__=[])
    module("qgis.core")
    module("qgis.utils")
    module("qgis.gui", QgsFileWidget=FileWidget, QgsOptionsPageWidget=QtWidgets.QWidget)
    module("qgis.PyQt", __path__=[], sip=sip)
    sys.modules.update({"qgis.PyQt.QtCore": QtCore, "qgis.PyQt.QtGui": QtGui, "qgis.PyQt.QtWidgets": QtWidgets})
    module("osgeo")
    application = QtWidgets.QApplication([])
    package = importlib.import_module("geoglnet_qgis")
    names = [package.__name__, *(found.name for found in pkgutil.walk_packages(package.__path__, "geoglnet_qgis."))]
    loaded = [importlib.import_module(name) for name in names]
    build(loaded)
    print(*names)
    application.quit()


def build(modules: list[types.ModuleType]) -> None:
    """The options page, and the parameters of every algorithm."""
    members = {name: member for module in modules for name, member in vars(module).items()}
    page = members["OptionsPage"](None, lambda: None)
    page.apply()
    for name in ("SegmentScene", "VectorizeLabels", "PolygonsFromRaster", "AdaptModel", "TrainOnLayers", "ModelInformation"):
        algorithm = members[name]()
        algorithm.initAlgorithm()
        assert algorithm.shortHelpString()
        assert algorithm.displayName()
    assert not members["GeoglnetProvider"]().icon().isNull()


main(sys.argv[1])
