"""*Adapt a model*: a model that knows a scene better, from what was drawn or corrected on it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputHtml,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from ..command import Adaptation, report_of
from ..layers import FLAGS, write_drawn, write_polygons
from ..running import run_verb
from ..translation import tr
from .algorithm import MODEL_FILTER, GeoglnetAlgorithm, Parameters

INPUT, DRAWN, FIELD, AREA, MINUTES, OUTPUT = "INPUT", "DRAWN", "FIELD", "AREA", "MINUTES", "OUTPUT"
CLASSES, ACROSS, DEVICE, BANDS, BESIDE, PIXEL_SIZE = "CLASSES", "CROSS_VALIDATE", "DEVICE", "BANDS", "BESIDE", "PIXEL_SIZE"
REPORT, BEFORE, AFTER = "REPORT", "IOU_BEFORE", "IOU_AFTER"


class AdaptModel(GeoglnetAlgorithm):
    """``geoglnet adapt``."""

    NAME = "adaptmodel"
    TITLE = "Adapt a model"
    SUMMARY = "A model that is better on your imagery, in minutes, from polygons that you have corrected or drawn"
    HELP = (
        "<p>Run Segment scene, correct the polygons of a part of the scene, draw what is missing, and draw one polygon around "
        "the part that you have looked at. 20 to 100 polygons, spread over the scene, are enough.</p>"
        "<p>About a quarter of them is held out, by place, to tell by how much the new model is better. It is kept only if it "
        "is; else the file holds the model that it started from. The log says how long it will take before it starts.</p>"
        "<p>The new model is offered by the other algorithms from then on. Needs the extra: "
        "<code>pip install 'geoglnet[train]'</code>.</p>"
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        self.add_model()
        self.parameterDefinition("MODEL").setDescription(tr("Start from"))
        self.add(QgsProcessingParameterRasterLayer(INPUT, tr("Scene")), tr("Imagery from a file."))
        self.add(
            QgsProcessingParameterFeatureSource(DRAWN, tr("Polygons"), [QgsProcessing.SourceType.TypeVectorAnyGeometry]),
            tr(
                "What you have corrected or drawn; lines and points are strokes. Where a field approved, edited or checked is "
                "set somewhere, only those features count."
            ),
        )
        self.add(
            QgsProcessingParameterField(FIELD, tr("Field with the class"), parentLayerParameterName=DRAWN, optional=True),
            tr("Empty: class_name, where the layer has it; else all are the model's one class."),
        )
        polygon = [QgsProcessing.SourceType.TypeVectorPolygon]
        self.add(
            QgsProcessingParameterFeatureSource(AREA, tr("Area that was looked at"), polygon, optional=True),
            tr(
                "Inside it, what is not drawn is background. Areas to check of Segment scene will do: those that you have "
                "marked as checked. Empty: only what lies near something drawn is known."
            ),
        )
        minutes = QgsProcessingParameterNumber(MINUTES, tr("Minutes"), QgsProcessingParameterNumber.Type.Double, 10.0)
        minutes.setMinimum(0.1)
        self.add(minutes, tr("Most time that it may take, about."))
        model = QgsProcessingParameterFileDestination(OUTPUT, tr("New model"), MODEL_FILTER, createByDefault=False)
        self.add(model, tr("The model file to write; a temporary one would be gone when QGIS quits."))
        self._add_advanced()
        self.addOutput(QgsProcessingOutputHtml(REPORT, tr("Report")))
        self.addOutput(QgsProcessingOutputNumber(BEFORE, tr("IoU before")))
        self.addOutput(QgsProcessingOutputNumber(AFTER, tr("IoU after")))

    def _add_advanced(self) -> None:
        broken = QgsProcessingParameterNumber.Type.Double
        texts = {
            CLASSES: QgsProcessingParameterString(CLASSES, tr("Classes of the new model"), optional=True),
            ACROSS: QgsProcessingParameterBoolean(ACROSS, tr("Score by leaving out one third after the other"), False),
            DEVICE: QgsProcessingParameterString(DEVICE, tr("Device"), "auto"),
            PIXEL_SIZE: QgsProcessingParameterNumber(
                PIXEL_SIZE, tr("Pixel size without CRS [m]"), broken, optional=True, minValue=0.0
            ),
            BANDS: QgsProcessingParameterString(BANDS, tr("Bands"), optional=True),
            BESIDE: QgsProcessingParameterString(BESIDE, tr("Bands from other rasters"), optional=True, multiLine=True),
        }
        explanations = {
            CLASSES: tr("With commas between, as in background,road,water. Empty: those of the model."),
            ACROSS: tr("Where all polygons lie in one place, so that no part can be held out. Takes four times as long."),
            DEVICE: tr("auto, cpu, cuda, cuda:1 … or mps."),
            PIXEL_SIZE: tr("Meters per pixel of a scene that has no coordinate system."),
            BANDS: tr("Names or numbers of the scene's bands in the model's order. Empty: found by name."),
            BESIDE: tr("One NAME=FILE per line, as in height=/data/dsm.tif, of any coordinate system and resolution."),
        }
        for name, parameter in texts.items():
            self.add(parameter, explanations[name], is_advanced=True)
        self.add_overwrite()

    def checkParameterValues(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[bool, str]:
        is_fine, reason = super().checkParameterValues(parameters, context)
        try:
            if is_fine:
                self.chosen_checkpoint(parameters, OUTPUT, context)
        except QgsProcessingException as error:
            return False, str(error)
        return is_fine, reason

    def prepareAlgorithm(self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> bool:
        self._raster = self.chosen_raster(parameters, INPUT, context)
        self._path = ""
        return True

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        path = self.chosen_checkpoint(parameters, OUTPUT, context)
        source = self.parameterAsSource(parameters, DRAWN, context)
        if source is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, DRAWN))
        area = self.parameterAsSource(parameters, AREA, context)
        others = self.parameterAsString(parameters, BESIDE, context).splitlines()
        with tempfile.TemporaryDirectory(prefix="geoglnet-") as folder:
            drawn, looked = os.path.join(folder, "drawn.gpkg"), os.path.join(folder, "area.gpkg")
            column = self.parameterAsString(parameters, FIELD, context)
            field = write_drawn(source, column, drawn, context.transformContext())
            if area is not None:
                write_polygons(area, looked, context.transformContext(), kept=FLAGS)
            asked = Adaptation(
                model=self.chosen_model(parameters, context),
                scene=self._raster.placed_in(folder),
                drawn=drawn,
                checkpoint=path,
                area="" if area is None else looked,
                class_field=field,
                legend=self.parameterAsString(parameters, CLASSES, context).strip(),
                minutes=self.parameterAsDouble(parameters, MINUTES, context),
                device=self.parameterAsString(parameters, DEVICE, context).strip() or "auto",
                bands=self.parameterAsString(parameters, BANDS, context).strip(),
                beside=[line.strip() for line in others if line.strip()],
                pixel_size_m=self.parameterAsDouble(parameters, PIXEL_SIZE, context),
                is_validated_across=self.parameterAsBool(parameters, ACROSS, context),
                replaces=self.replaces(parameters, context),
            )
            done = run_verb(asked.words(), feedback)
        self._path = path
        self._tell(done, feedback)
        iou = done.get("measures", {}).get("iou", {})
        return {OUTPUT: path, REPORT: report_of(path), BEFORE: iou.get("before"), AFTER: iou.get("after")}

    def postProcessAlgorithm(self, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        if self._path:
            self.remember(self._path)
            self.show_report(report_of(self._path), feedback)
        return {}

    def _tell(self, done: Any, feedback: QgsProcessingFeedback) -> None:
        """Show scores before and after in the log."""
        for name, title in (("iou", tr("IoU")), ("boundary_f1", tr("F1 of boundaries")), ("polygon_f1", tr("F1 of polygons"))):
            change = done.get("measures", {}).get(name, {})
            before, after, (low, high) = change.get("before"), change.get("after"), change.get("gain_interval", (None, None))
            if before is None or after is None or low is None or high is None:
                continue
            feedback.pushInfo(f"{title}: {before:.3f} → {after:.3f} ({low:+.3f} … {high:+.3f})")
