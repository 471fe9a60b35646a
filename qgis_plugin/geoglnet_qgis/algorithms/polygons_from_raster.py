"""*Polygons from raster*: polygons of any raster, whatever its values mean."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBand,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFile,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from ..command import KINDS, Values, vectorize_words
from ..running import run_verb
from ..styling import arrange
from ..translation import tr
from .algorithm import VECTORS, GeoglnetAlgorithm, Parameters

INPUT, BAND, KIND, BREAKS, LEGEND = "INPUT", "BAND", "KIND", "BREAKS", "LEGEND"
BACKGROUND, CLASS_OF, OUTPUT, COUNT = "BACKGROUND", "CLASS_OF", "OUTPUT", "NUM_POLYGONS"
LEGEND_FILTER = "*.csv *.txt *.qml *.sld *.toml *.tif"


class PolygonsFromRaster(GeoglnetAlgorithm):
    """``geoglnet vectorize`` of rasters that are no labels of ours."""

    NAME = "polygonsfromraster"
    TITLE = "Polygons from raster"
    SUMMARY = "Polygons of codes, objects, quantities or probabilities, in memory that does not grow with the raster"
    HELP = (
        "<p>Traces any raster into polygons: land cover codes of any size, objects with a number each, quantities between "
        "breaks, or a band of probabilities for every class.</p>"
        "<p>Names and colors come from the raster's attribute table, or from a legend: a CSV of code, name and color, a QML or "
        "SLD, or a label raster.</p>"
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        self.add(QgsProcessingParameterRasterLayer(INPUT, tr("Raster")), tr("Raster of integers, or of quantities."))
        titles = [tr(title) for title in KINDS.values()]
        self.add(
            QgsProcessingParameterEnum(KIND, tr("Values are"), titles, defaultValue=0),
            tr("What values mean: classes, objects (a row for each number, or for each part), quantities, or probabilities."),
        )
        self.add(
            QgsProcessingParameterBand(BAND, tr("Band"), 1, INPUT, optional=True),
            tr("Band to read; of probabilities all are."),
        )
        self.add(
            QgsProcessingParameterString(BREAKS, tr("Breaks"), "", optional=True),
            tr("Of quantities: 0.5 gives what is 0.5 or more, 0,10,20 three classes. What is lower makes no polygons."),
        )
        self.add(
            QgsProcessingParameterFile(LEGEND, tr("Legend"), fileFilter=f"{tr('Legends')} ({LEGEND_FILTER})", optional=True),
            tr("Names and colors of the codes: CSV (code,name,color), QML, SLD, TOML, or a label raster."),
        )
        self.add_shaping()
        kind = QgsProcessing.SourceType.TypeVectorPolygon
        self.add(
            QgsProcessingParameterVectorDestination(OUTPUT, tr("Polygons"), kind),
            tr("GeoPackage (.gpkg) that brings its style, FlatGeobuf (.fgb) or GeoJSON (.geojson)."),
        )
        self.add(
            QgsProcessingParameterString(BACKGROUND, tr("Background code"), "", optional=True),
            tr("Code that makes no polygons, or none. Empty: by the legend; 0 without one."),
            is_advanced=True,
        )
        self.add(
            QgsProcessingParameterRasterLayer(CLASS_OF, tr("Classes of objects"), optional=True),
            tr("Label raster of the same pixels: objects get the class that most of their pixels have."),
            is_advanced=True,
        )
        self.add_overwrite()
        self.addOutput(QgsProcessingOutputNumber(COUNT, tr("Number of polygons")))

    def prepareAlgorithm(self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> bool:
        self._raster = self.chosen_raster(parameters, INPUT, context)
        has_classes = self.parameterAsRasterLayer(parameters, CLASS_OF, context) is not None
        self._classes = self.chosen_raster(parameters, CLASS_OF, context) if has_classes else None
        return True

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        path = self.chosen_file(parameters, OUTPUT, context, VECTORS)
        if not path:
            raise QgsProcessingException(self.invalidSinkError(parameters, OUTPUT))
        legend = self.parameterAsFile(parameters, LEGEND, context)
        values = Values(
            kind=list(KINDS)[self.parameterAsEnum(parameters, KIND, context)],
            band=self.parameterAsInt(parameters, BAND, context),
            breaks=self.parameterAsString(parameters, BREAKS, context).strip(),
            legend=os.path.abspath(legend) if legend else "",
            background=self.parameterAsString(parameters, BACKGROUND, context).strip(),
            class_of=self._classes.path if self._classes else "",
        )
        with tempfile.TemporaryDirectory(prefix="geoglnet-") as folder:
            shaping = self.chosen_shaping(parameters, context, self._raster)
            replaces = self.replaces(parameters, context)
            words = vectorize_words(self._raster.placed_in(folder), path, shaping, values=values, replaces=replaces)
            written = run_verb(words, feedback)
        arrange(context, {path: f"{self._raster.name} – {tr('polygons')}"})
        return {OUTPUT: path, COUNT: written.get("num_polygons")}
