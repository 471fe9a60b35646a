"""What all algorithms share: their place in the toolbox, their help, the check that there is a program, common parameters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingUtils,
    QgsProperty,
    QgsRasterLayer,
)
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtGui import QDesktopServices, QIcon
from qgis.utils import iface

from ..command import Shaping
from ..layers import RasterFile, raster_file
from ..program import ProgramError
from ..settings import current_program, own_models, remember_own_model, shipped_models
from ..translation import tr

MODEL, MODEL_FILE = "MODEL", "MODEL_FILE"
SIMPLIFY, MIN_AREA, REGULARIZE = "SIMPLIFY", "MIN_AREA", "REGULARIZE"
MODEL_FILTER = "geoglnet (*.safetensors)"
Parameters = Mapping[str, Any]
OVERWRITE, RESUME = "OVERWRITE", "RESUME"
RASTERS, VECTORS = (".tif", ".tiff"), (".gpkg", ".fgb", ".geojson")


class GeoglnetAlgorithm(QgsProcessingAlgorithm):
    """An algorithm that runs the program; subclasses say what and with what."""

    NAME = ""
    TITLE = ""
    SUMMARY = ""
    HELP = ""

    def createInstance(self) -> GeoglnetAlgorithm:
        return type(self)()

    def name(self) -> str:
        return self.NAME

    def displayName(self) -> str:
        return tr(self.TITLE)

    def shortDescription(self) -> str:
        return tr(self.SUMMARY)

    def shortHelpString(self) -> str:
        return tr(self.HELP)

    def icon(self) -> QIcon:
        provider = self.provider()
        return provider.icon() if provider else super().icon()

    def canExecute(self) -> tuple[bool, str]:
        """Explain in the toolbox what is missing; a run checks again, and more."""
        try:
            current_program()
        except ProgramError as error:
            return False, str(error)
        return True, ""

    def checkParameterValues(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[bool, str]:
        """Check the layers before a run, so that problems show while the dialog is still open."""
        is_fine, reason = super().checkParameterValues(parameters, context)
        rasters = [d.name() for d in self.parameterDefinitions() if isinstance(d, QgsProcessingParameterRasterLayer)]
        try:
            for name in rasters if is_fine else ():
                if self.parameterAsRasterLayer(parameters, name, context) is not None:
                    self.chosen_raster(parameters, name, context)
            for definition in self.destinationParameterDefinitions() if is_fine else ():
                value = parameters.get(definition.name())
                if isinstance(value, QgsProcessingOutputLayerDefinition):  # its file; to resolve it would have it loaded
                    value = value.sink
                if isinstance(value, QgsProperty):
                    value = value.valueAsString(context.expressionContext(), "")[0]
                self.refuse_existing(value if isinstance(value, str) else "", parameters, context)
        except QgsProcessingException as error:
            return False, str(error)
        return is_fine, reason

    def add(self, parameter: QgsProcessingParameterDefinition, explanation: str, *, is_advanced: bool = False) -> None:
        """Add a parameter with its help."""
        if is_advanced:
            parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced)
        parameter.setHelp(explanation)
        self.addParameter(parameter)

    def add_overwrite(self) -> None:
        """Add the box for replacing files: batches, models, qgis_process and dialogs with a typed name never ask."""
        self.add(
            QgsProcessingParameterBoolean(OVERWRITE, tr("Replace existing files"), False, optional=True),
            tr("Otherwise an existing output is refused before the run starts."),
            is_advanced=True,
        )

    def replaces(self, parameters: Parameters, context: QgsProcessingContext) -> bool:
        """Return whether existing outputs may be replaced."""
        return self.parameterAsBool(parameters, OVERWRITE, context)

    def refuse_existing(self, path: str, parameters: Parameters, context: QgsProcessingContext) -> None:
        """Refuse to replace a file; the program decides about a run that goes on.

        Raises:
            QgsProcessingException: it exists, and nobody said that it may be replaced.
        """
        if not path or os.path.isdir(path) or not os.path.lexists(path):
            return
        goes_on = self.parameterDefinition(RESUME) is not None and self.parameterAsBool(parameters, RESUME, context)
        if not goes_on and not self.replaces(parameters, context):
            raise QgsProcessingException(
                tr("{path} exists; tick “Replace existing files” among the advanced parameters, or choose another name").format(
                    path=path
                )
            )

    def add_model(self) -> None:
        """Add the parameters for a shipped model and for a model file, which takes precedence."""
        names = [*shipped_models(), *own_models()]
        model = QgsProcessingParameterEnum(MODEL, tr("Model"), names, defaultValue=names[0], usesStaticStrings=True)
        self.add(
            model, tr("One of the models that come with geoglnet, or that you made here; Model information describes them.")
        )
        file = QgsProcessingParameterFile(MODEL_FILE, tr("Model file"), fileFilter=MODEL_FILTER, optional=True)
        self.add(file, tr("A model of your own (.safetensors), instead of the one above."))

    def chosen_model(self, parameters: Parameters, context: QgsProcessingContext) -> str:
        file = self.parameterAsFile(parameters, MODEL_FILE, context)
        return os.path.abspath(file) if file else self.parameterAsEnumString(parameters, MODEL, context)

    def chosen_checkpoint(self, parameters: Parameters, name: str, context: QgsProcessingContext) -> str:
        """Return the absolute path of a model to write; a temporary file, gone when QGIS quits, is refused.

        Raises:
            QgsProcessingException: it is temporary, or exists.
        """
        value = self.parameterAsFileOutput(parameters, name, context)
        self._refuse_temporary(value)
        path = os.path.abspath(value)
        path += "" if path.endswith(".safetensors") else ".safetensors"
        self.refuse_existing(path, parameters, context)
        return path

    def _refuse_temporary(self, value: str) -> None:
        folder = os.path.realpath(QgsProcessingUtils.tempFolder())
        is_temporary = not value or value == QgsProcessing.TEMPORARY_OUTPUT
        if is_temporary or os.path.realpath(value).startswith(folder + os.sep):
            raise QgsProcessingException(tr("choose a file for the model: a temporary one is gone when QGIS quits"))

    def show_report(self, path: str, feedback: QgsProcessingFeedback) -> None:
        """Name a report in the log, and open it where there is a desktop; call it from the main thread."""
        if not os.path.isfile(path):
            return
        feedback.pushInfo(tr("report: {path}").format(path=path))
        if iface is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(path))

    def remember(self, path: str) -> None:
        """Offer a model in the lists of other algorithms."""
        if os.path.isfile(path):
            remember_own_model(path)

    def add_shaping(self) -> None:
        """Add the parameters for polygons."""
        kind = QgsProcessingParameterNumber.Type.Double
        self.add(
            QgsProcessingParameterNumber(SIMPLIFY, tr("Simplify polygons [m]"), kind, 0.0, minValue=0.0),
            tr("Outlines may move by this much; neighbors keep shared borders. 0 keeps all. In pixels if there is no CRS."),
        )
        self.add(
            QgsProcessingParameterNumber(MIN_AREA, tr("Smallest polygon [m²]"), kind, 0.0, minValue=0.0),
            tr("Smaller polygons are left out."),
        )
        self.add(
            QgsProcessingParameterBoolean(REGULARIZE, tr("Square corners (buildings)"), False),
            tr("Straightens walls and squares corners, for buildings."),
        )

    def chosen_shaping(self, parameters: Parameters, context: QgsProcessingContext, raster: RasterFile) -> Shaping:
        """Read the parameters for polygons of a raster."""
        return Shaping(
            unit="m" if raster.crs.isValid() else "px",
            tolerance=self.parameterAsDouble(parameters, SIMPLIFY, context),
            min_area_m2=self.parameterAsDouble(parameters, MIN_AREA, context),
            is_regularized=self.parameterAsBool(parameters, REGULARIZE, context),
        )

    def chosen_raster(self, parameters: Parameters, name: str, context: QgsProcessingContext) -> RasterFile:
        """Find the file behind a raster parameter; call it in ``prepareAlgorithm``, where layers may be accessed.

        Raises:
            QgsProcessingException: there is none.
        """
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if not isinstance(layer, QgsRasterLayer):
            raise QgsProcessingException(self.invalidRasterError(parameters, name))
        return raster_file(layer)

    def chosen_file(self, parameters: Parameters, name: str, context: QgsProcessingContext, suffixes: tuple[str, ...]) -> str:
        """Return an absolute path to write to; empty if the user skipped it.

        Raises:
            QgsProcessingException: it is no file, of a format that is not written, or exists.
        """
        value = self.parameterAsOutputLayer(parameters, name, context)
        if not value:
            return ""
        title = self.parameterDefinition(name).description()
        if value.startswith(("memory:", "postgres:", "ogr:")) or not value.lower().endswith(suffixes):
            raise QgsProcessingException(
                tr("{title}: {value} cannot be written; choose a file that ends with {suffixes}").format(
                    title=title, value=value, suffixes=tr(" or ").join(suffixes)
                )
            )
        self.refuse_existing(value, parameters, context)
        return os.path.abspath(value)
