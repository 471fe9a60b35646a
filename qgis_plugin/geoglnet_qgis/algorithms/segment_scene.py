"""*Segment scene*: labels and polygons of a raster."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from ..command import LAYERS, Segmentation, remove_unfinished, unfinished
from ..layers import write_polygons
from ..running import run_verb
from ..styling import arrange
from ..translation import tr
from .algorithm import RASTERS, RESUME, VECTORS, GeoglnetAlgorithm, Parameters

INPUT, EXTENT, AREA = "INPUT", "EXTENT", "AREA"
POLYGONS, DOUBTFUL, COUNT = "POLYGONS", "DOUBTFUL", "NUM_POLYGONS"
RASTER_KEYS = {name: name.upper() for name in LAYERS}
DEVICE, BATCH, EFFORT, PIXEL_SIZE, BANDS, BESIDE = "DEVICE", "BATCH", "EFFORT", "PIXEL_SIZE", "BANDS", "BESIDE"


class SegmentScene(GeoglnetAlgorithm):
    """``geoglnet predict``."""

    NAME = "segmentscene"
    TITLE = "Segment scene"
    SUMMARY = "Classes and polygons of a satellite, aerial or drone scene of any size"
    HELP = (
        "<p>Finds the classes of a model in a scene: a raster of labels, and polygons with class_id, class_name, area_m2 and "
        "confidence. Both load with the model's colors.</p>"
        "<p>The scene may be of any size: memory stays bounded. It is read at the model's resolution; nodata and transparent "
        "pixels get no class. Nothing appears under its name before it is whole, and a canceled run leaves nothing.</p>"
        "<p>Layers that come from a server or live in memory have to be exported to a file first.</p>"
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        self.add(
            QgsProcessingParameterRasterLayer(INPUT, tr("Scene")),
            tr("Imagery with the bands of the model, from a file. A coordinate system set for the layer is respected."),
        )
        self.add_model()
        self.add(
            QgsProcessingParameterExtent(EXTENT, tr("Extent"), optional=True),
            tr("Only this rectangle. Empty: the whole scene."),
        )
        polygon = [QgsProcessing.SourceType.TypeVectorPolygon]
        self.add(
            QgsProcessingParameterFeatureSource(AREA, tr("Area of interest"), polygon, optional=True),
            tr("Only inside these polygons, in any coordinate system."),
        )
        self.add_shaping()
        self._add_outputs()
        self._add_advanced()

    def _add_outputs(self) -> None:
        first, *others = LAYERS
        self._add_raster(first, is_written=True)
        kind = QgsProcessing.SourceType.TypeVectorPolygon
        polygons = QgsProcessingParameterVectorDestination(POLYGONS, tr("Polygons"), kind, optional=True, createByDefault=True)
        self.add(polygons, tr("GeoPackage (.gpkg) that brings its style, FlatGeobuf (.fgb) or GeoJSON (.geojson)."))
        for name in others:
            self._add_raster(name, is_written=False)
        doubtful = QgsProcessingParameterVectorDestination(
            DOUBTFUL, tr("Areas to check"), kind, optional=True, createByDefault=False
        )
        self.add(
            doubtful,
            tr(
                "The ten squares in which the model is least certain (.gpkg). Correct the polygons in them, set the field "
                "checked, and give this layer to Adapt a model as the area that was looked at."
            ),
        )
        self.addOutput(QgsProcessingOutputNumber(COUNT, tr("Number of polygons")))

    def _add_raster(self, name: str, *, is_written: bool) -> None:
        title, explanation = LAYERS[name]
        raster = QgsProcessingParameterRasterDestination(
            RASTER_KEYS[name], tr(title), optional=True, createByDefault=is_written
        )
        self.add(raster, tr(explanation))

    def _add_advanced(self) -> None:
        whole, broken = QgsProcessingParameterNumber.Type.Integer, QgsProcessingParameterNumber.Type.Double
        self.add(
            QgsProcessingParameterString(DEVICE, tr("Device"), "auto"),
            tr("auto, cpu, cuda, cuda:1 … or mps."),
            is_advanced=True,
        )
        self.add(
            QgsProcessingParameterNumber(BATCH, tr("Patches per step"), whole, optional=True, minValue=1),
            tr("More is faster on a graphics card, and needs more of its memory. Empty: geoglnet chooses."),
            is_advanced=True,
        )
        self.add(
            QgsProcessingParameterNumber(EFFORT, tr("Effort"), broken, optional=True, minValue=0.0, maxValue=1.0),
            tr("0 is fastest, 1 runs every patch. Empty: geoglnet chooses."),
            is_advanced=True,
        )
        self.add(
            QgsProcessingParameterNumber(PIXEL_SIZE, tr("Pixel size without CRS [m]"), broken, optional=True, minValue=0.0),
            tr("Meters per pixel of a scene that has no coordinate system."),
            is_advanced=True,
        )
        self.add(
            QgsProcessingParameterString(BANDS, tr("Bands"), optional=True),
            tr(
                "Bands of the scene in the model's order: names (nir,red,green) or numbers (4,1,2); or what the scene's bands "
                "are: RGB, BGR, RGBN, BGRN or gray. Empty: found by name."
            ),
            is_advanced=True,
        )
        self.add(
            QgsProcessingParameterString(BESIDE, tr("Bands from other rasters"), optional=True, multiLine=True),
            tr("One NAME=FILE per line, as in height=/data/dsm.tif, of any coordinate system and resolution."),
            is_advanced=True,
        )
        self.add_overwrite()
        self.add(
            QgsProcessingParameterBoolean(RESUME, tr("Keep an interrupted run and continue it"), False),
            tr("A run that is canceled or fails keeps its finished parts beside the first output; the next run uses them."),
            is_advanced=True,
        )

    def prepareAlgorithm(self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> bool:
        self._raster = self.chosen_raster(parameters, INPUT, context)
        return True

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        outputs = {
            POLYGONS: self.chosen_file(parameters, POLYGONS, context, VECTORS),
            DOUBTFUL: self.chosen_file(parameters, DOUBTFUL, context, (".gpkg",)),
            **{key: self.chosen_file(parameters, key, context, RASTERS) for key in RASTER_KEYS.values()},
        }
        if not outputs["LABELS"] and not outputs[POLYGONS]:
            raise QgsProcessingException(tr("nothing to write: choose a file for the labels, for the polygons, or for both"))
        with tempfile.TemporaryDirectory(prefix="geoglnet-") as folder:
            segmentation = self._segmentation(parameters, context, outputs, folder)
            kept = unfinished(*outputs.values())
            try:
                written = run_verb(segmentation.words(), feedback)
            finally:
                if feedback.isCanceled():
                    self._settle(segmentation, kept, feedback)
        titles = {
            DOUBTFUL: tr("areas to check"),
            POLYGONS: tr("polygons"),
            **{key: tr(name) for name, key in RASTER_KEYS.items()},
        }
        named = {outputs[key]: title for key, title in titles.items() if outputs[key]}
        model = os.path.splitext(os.path.basename(segmentation.model))[0]
        arrange(context, named, scene=self._raster.identifier, title=f"{self._raster.name} – {model}")
        found = {COUNT: written["num_polygons"]} if "num_polygons" in written else {}
        return {**{key: path for key, path in outputs.items() if path}, **found}

    def _settle(self, segmentation: Segmentation, kept: Collection[str], feedback: QgsProcessingFeedback) -> None:
        """Remove what a canceled run keeps for resuming, or say where it is."""
        if segmentation.is_resumed:
            feedback.pushInfo(tr("what is finished is kept beside the first output; run again with the same settings to go on"))
        else:
            remove_unfinished(segmentation.polygons, *segmentation.layers.values(), kept=kept)

    def _segmentation(
        self, parameters: Parameters, context: QgsProcessingContext, outputs: dict[str, str], folder: str
    ) -> Segmentation:
        given = {key for key in (BATCH, EFFORT, PIXEL_SIZE) if parameters.get(key) is not None}
        return Segmentation(
            scene=self._raster.placed_in(folder),
            model=self.chosen_model(parameters, context),
            layers={name: outputs[key] for name, key in RASTER_KEYS.items()},
            polygons=outputs[POLYGONS],
            doubtful=outputs[DOUBTFUL],
            bounds=self._bounds(parameters, context),
            area=self._area(parameters, context, folder),
            shaping=self.chosen_shaping(parameters, context, self._raster),
            device=self.parameterAsString(parameters, DEVICE, context).strip() or "auto",
            batch=self.parameterAsInt(parameters, BATCH, context) if BATCH in given else 0,
            effort=self.parameterAsDouble(parameters, EFFORT, context) if EFFORT in given else None,
            pixel_size_m=self.parameterAsDouble(parameters, PIXEL_SIZE, context) if PIXEL_SIZE in given else 0.0,
            bands=self.parameterAsString(parameters, BANDS, context).strip(),
            beside=[line.strip() for line in self.parameterAsString(parameters, BESIDE, context).splitlines() if line.strip()],
            is_resumed=self.parameterAsBool(parameters, RESUME, context),
            replaces=self.replaces(parameters, context),
        )

    def _bounds(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[float, ...]:
        extent = self.parameterAsExtent(parameters, EXTENT, context, self._raster.crs)
        if extent.isNull() or extent.isEmpty():
            return ()
        return extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()

    def _area(self, parameters: Parameters, context: QgsProcessingContext, folder: str) -> str:
        source = self.parameterAsSource(parameters, AREA, context)
        if source is None:
            return ""
        path = f"{folder}/area.gpkg"
        if not write_polygons(source, path, context.transformContext()):
            raise QgsProcessingException(tr("the area of interest holds no polygons"))
        return path
