"""The Processing provider: what the toolbox, the modeler, batches and qgis_process see."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms.adapt_model import AdaptModel
from .algorithms.model_information import ModelInformation
from .algorithms.polygons_from_raster import PolygonsFromRaster
from .algorithms.segment_scene import SegmentScene
from .algorithms.train_on_layers import TrainOnLayers
from .algorithms.vectorize_labels import VectorizeLabels

ICON_PATH = str(Path(__file__).parent / "icon.svg")


class GeoglnetProvider(QgsProcessingProvider):
    """Algorithms ``geoglnet:…``."""

    def id(self) -> str:
        return "geoglnet"

    def name(self) -> str:
        return "geoglnet"

    def longName(self) -> str:
        return "geoglnet – maps and polygons from scenes of any size"

    def icon(self) -> QIcon:
        return QIcon(ICON_PATH)

    def svgIconPath(self) -> str:
        return ICON_PATH

    def loadAlgorithms(self) -> None:
        for algorithm in (SegmentScene, VectorizeLabels, PolygonsFromRaster, AdaptModel, TrainOnLayers, ModelInformation):
            self.addAlgorithm(algorithm())

    def supportedOutputVectorLayerExtensions(self) -> list[str]:
        return ["gpkg", "fgb", "geojson"]

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        return ["tif"]

    def defaultVectorFileExtension(self, hasGeometry: bool = True) -> str:
        return "gpkg"

    def defaultRasterFileExtension(self) -> str:
        return "tif"

    def supportsNonFileBasedOutput(self) -> bool:
        return False
