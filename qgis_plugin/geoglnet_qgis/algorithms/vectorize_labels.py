"""*Vectorize labels*: polygons of a label raster."""

from __future__ import annotations

import tempfile
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorDestination,
)

from ..command import vectorize_words
from ..running import run_verb
from ..styling import arrange
from ..translation import tr
from .algorithm import VECTORS, GeoglnetAlgorithm, Parameters

INPUT, CONFIDENCE, OUTPUT, COUNT = "INPUT", "CONFIDENCE", "OUTPUT", "NUM_POLYGONS"


class VectorizeLabels(GeoglnetAlgorithm):
    """``geoglnet vectorize``."""

    NAME = "vectorizelabels"
    TITLE = "Vectorize labels"
    SUMMARY = "Polygons of a label raster, as if it had been traced at once, in memory that does not grow with it"
    HELP = (
        "<p>Traces a label raster into polygons, again and with other settings, without running the network.</p>"
        "<p>Works with any raster of up to 255 classes that names them, and with the labels of Segment scene.</p>"
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        self.add(QgsProcessingParameterRasterLayer(INPUT, tr("Labels")), tr("Raster of class numbers; 255 is no class."))
        self.add_shaping()
        kind = QgsProcessing.SourceType.TypeVectorPolygon
        self.add(
            QgsProcessingParameterVectorDestination(OUTPUT, tr("Polygons"), kind),
            tr("GeoPackage (.gpkg) that brings its style, FlatGeobuf (.fgb) or GeoJSON (.geojson)."),
        )
        self.add(
            QgsProcessingParameterRasterLayer(CONFIDENCE, tr("Confidence"), optional=True),
            tr("Raster of the same pixels: the probability of the class, times 254."),
            is_advanced=True,
        )
        self.add_overwrite()
        self.addOutput(QgsProcessingOutputNumber(COUNT, tr("Number of polygons")))

    def prepareAlgorithm(self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> bool:
        self._labels = self.chosen_raster(parameters, INPUT, context)
        has_confidence = self.parameterAsRasterLayer(parameters, CONFIDENCE, context) is not None
        self._confidence = self.chosen_raster(parameters, CONFIDENCE, context) if has_confidence else None
        return True

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        path = self.chosen_file(parameters, OUTPUT, context, VECTORS)
        if not path:
            raise QgsProcessingException(self.invalidSinkError(parameters, OUTPUT))
        with tempfile.TemporaryDirectory(prefix="geoglnet-") as folder:
            confidence = self._confidence.path if self._confidence else ""
            shaping = self.chosen_shaping(parameters, context, self._labels)
            replaces = self.replaces(parameters, context)
            words = vectorize_words(self._labels.placed_in(folder), path, shaping, confidence, replaces=replaces)
            written = run_verb(words, feedback)
        arrange(context, {path: f"{self._labels.name} – {tr('polygons')}"})
        return {OUTPUT: path, COUNT: written.get("num_polygons")}
