"""*Train on layers*: a model from a raster layer and a polygon layer."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from ..command import run_folder_of, savepoint_of, train_words
from ..configuration import BACKGROUND, CONFIGURATION, SIZES, Pair, Training, colors_for, is_own_folder
from ..layers import RasterFile, class_colors, write_classes, write_polygons
from ..running import answer_of, run_verb
from ..settings import own_models, shipped_models
from ..translation import tr
from .algorithm import MODEL_FILTER, RESUME, GeoglnetAlgorithm, Parameters

INPUT, POLYGONS, FIELD, AREA, OUTPUT = "INPUT", "POLYGONS", "FIELD", "AREA", "OUTPUT"
HELD_OUT_INPUT, HELD_OUT_POLYGONS, FOLDER = "HELD_OUT_INPUT", "HELD_OUT_POLYGONS", "FOLDER"
RESOLUTION, SIZE, GLOBAL_STEPS, LOCAL_STEPS = "RESOLUTION", "SIZE", "GLOBAL_STEPS", "LOCAL_STEPS"
WEIGHTS, SETTINGS, START = "BACKBONE_WEIGHTS", "SETTINGS", "START"
WRITTEN = (CONFIGURATION, *(f"{title}{suffix}" for title in ("train", "held_out") for suffix in (".vrt", ".gpkg")), "area.gpkg")
_SETTING = re.compile(r"[A-Za-z_][\w.]*\s*=\s*\S.*")


class TrainOnLayers(GeoglnetAlgorithm):
    """``geoglnet train``."""

    NAME = "trainonlayers"
    TITLE = "Train on layers"
    SUMMARY = "A model of your own from a raster layer and polygons that you have drawn on it"
    HELP = (
        "<p>Draw polygons around everything of your classes in a scene, with the class in a field, and train a model on "
        "them. What lies in no polygon is background: draw completely, or say in an area layer where you did.</p>"
        "<p>The class colors are those of the layer's categorized style. The small network takes half an hour or more "
        "on two cores; a graphics card is much quicker. Needs the extra: <code>pip install 'geoglnet[train]'</code>.</p>"
        "<p>Keep a second raster with polygons out to learn how good the model is.</p>"
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        polygon = [QgsProcessing.SourceType.TypeVectorPolygon]
        self.add(QgsProcessingParameterRasterLayer(INPUT, tr("Scene")), tr("Imagery from a file."))
        self.add(
            QgsProcessingParameterFeatureSource(POLYGONS, tr("Polygons"), polygon),
            tr("All objects of the classes in the scene, or only the selected ones."),
        )
        self.add(
            QgsProcessingParameterField(FIELD, tr("Field with the class"), parentLayerParameterName=POLYGONS, optional=True),
            tr("Empty: all polygons are one class."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(AREA, tr("Area where the polygons are complete"), polygon, optional=True),
            tr("Outside this area nothing is assumed. Empty: they are complete everywhere. Needs a coordinate system."),
        )
        model = QgsProcessingParameterFileDestination(OUTPUT, tr("Model"), MODEL_FILTER, createByDefault=False)
        self.add(model, tr("The model file that Segment scene takes; a temporary one would be gone when QGIS quits."))
        self.add(
            QgsProcessingParameterFolderDestination(FOLDER, tr("Training folder"), optional=True, createByDefault=False),
            tr("Keeps the configuration and the polygons, to train again with geoglnet train. Empty: they are temporary."),
        )
        self._add_held_out(polygon)
        self._add_advanced()

    def _add_held_out(self, polygon: list[int]) -> None:
        self.add(
            QgsProcessingParameterRasterLayer(HELD_OUT_INPUT, tr("Held-out scene"), optional=True),
            tr("Never trained on; the model is scored on it."),
            is_advanced=True,
        )
        self.add(
            QgsProcessingParameterFeatureSource(HELD_OUT_POLYGONS, tr("Held-out polygons"), polygon, optional=True),
            tr("With the same field."),
            is_advanced=True,
        )

    def _add_advanced(self) -> None:
        whole, broken = QgsProcessingParameterNumber.Type.Integer, QgsProcessingParameterNumber.Type.Double
        texts = {
            START: QgsProcessingParameterEnum(
                START, tr("Start from"), [*shipped_models(), *own_models()], optional=True, usesStaticStrings=True
            ),
            SIZE: QgsProcessingParameterEnum(SIZE, tr("Network"), list(SIZES), defaultValue="small", usesStaticStrings=True),
            RESOLUTION: QgsProcessingParameterNumber(RESOLUTION, tr("Pixel size [m]"), broken, optional=True, minValue=0.0),
            GLOBAL_STEPS: QgsProcessingParameterNumber(GLOBAL_STEPS, tr("Steps, global"), whole, 500, minValue=1),
            LOCAL_STEPS: QgsProcessingParameterNumber(LOCAL_STEPS, tr("Steps, local"), whole, 500, minValue=1),
            WEIGHTS: QgsProcessingParameterString(WEIGHTS, tr("Backbone weights"), "imagenet", optional=True),
            SETTINGS: QgsProcessingParameterString(SETTINGS, tr("Further settings"), "", multiLine=True, optional=True),
            RESUME: QgsProcessingParameterBoolean(RESUME, tr("Continue an interrupted training"), False),
        }
        explanations = {
            START: tr(
                "A model whose weights the training starts from, with its sizes and bands; what it knows of whole regions "
                "stays. Empty: from the backbone weights."
            ),
            SIZE: tr("small: MobileNetV2, for a CPU. paper: ResNet-50 as published, for a graphics card."),
            RESOLUTION: tr("Ground size of the pixels to train at. Empty: the scene's own."),
            GLOBAL_STEPS: tr("Of the branch that sees the whole region."),
            LOCAL_STEPS: tr("Of the branch that sees details."),
            WEIGHTS: tr(
                "imagenet (downloaded once; without a network a shipped model's), a .safetensors file, or empty for none."
            ),
            SETTINGS: tr("One KEY = VALUE of the configuration per line, such as optim.batch_size = 2."),
            RESUME: tr(
                "With the same model file, layers and settings. The weights become those of a training that never stopped."
            ),
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

    def postProcessAlgorithm(self, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        self.remember(self._path)
        self.show_report(os.path.join(run_folder_of(self._path), "report.png"), feedback)
        return {}

    def prepareAlgorithm(self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> bool:
        self._raster = self.chosen_raster(parameters, INPUT, context)
        has_held_out = self.parameterAsRasterLayer(parameters, HELD_OUT_INPUT, context) is not None
        self._held_out = self.chosen_raster(parameters, HELD_OUT_INPUT, context) if has_held_out else None
        self._column = self.parameterAsString(parameters, FIELD, context)
        layer = self.parameterAsVectorLayer(parameters, POLYGONS, context)
        self._colors = class_colors(layer, self._column)
        return True

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        path = self._path = self.chosen_checkpoint(parameters, OUTPUT, context)
        chosen = self.parameterAsString(parameters, FOLDER, context)
        with ExitStack() as stack:
            folder = os.path.abspath(chosen or stack.enter_context(tempfile.TemporaryDirectory(prefix="geoglnet-")))
            os.makedirs(folder, exist_ok=True)
            _check_folder(folder)
            words = self._words(parameters, context, folder, path)
            try:
                run_verb(words, feedback)
            finally:
                if feedback.isCanceled() and os.path.isfile(savepoint_of(path)):
                    feedback.pushInfo(tr("the training can go on: run it again with “Continue an interrupted training”"))
        return {OUTPUT: path, FOLDER: chosen or None}

    def _words(self, parameters: Parameters, context: QgsProcessingContext, folder: str, path: str) -> list[str]:
        """Write the files that the command reads, and return the command."""
        training = self._training(parameters, context, folder, os.path.basename(path))
        configuration = os.path.join(folder, CONFIGURATION)
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(training.to_toml())
        is_resumed = self.parameterAsBool(parameters, RESUME, context) and os.path.isfile(savepoint_of(path))
        settings, replaces = self._settings(parameters, context), self.replaces(parameters, context)
        return train_words(configuration, folder, path, settings, is_resumed=is_resumed, replaces=replaces)

    def _training(self, parameters: Parameters, context: QgsProcessingContext, folder: str, file_name: str) -> Training:
        train, names = self._pair(parameters, POLYGONS, self._raster, folder, "train", context)
        train = replace(train, area=self._area(parameters, folder, context))
        held_out: list[Pair] = []
        if self._held_out is not None:
            pair, _ = self._pair(parameters, HELD_OUT_POLYGONS, self._held_out, folder, "held_out", context)
            held_out = [pair]
        size_m = self.parameterAsDouble(parameters, RESOLUTION, context)
        own_m = answer_of(["info", os.path.join(folder, train.raster), "--json"]).get("pixel_size_m")
        if not size_m and not own_m:
            raise QgsProcessingException(tr("the scene has no coordinate system: enter its pixel size"))
        weights = self.parameterAsString(parameters, WEIGHTS, context).strip()
        return Training(
            name=os.path.splitext(file_name)[0],
            resolution_m=size_m or float(f"{own_m:.4g}"),
            classes=colors_for([name for name in names if name != BACKGROUND], self._colors),
            train=[train],
            validation=held_out,
            size=self.parameterAsEnumString(parameters, SIZE, context),
            steps=tuple(self.parameterAsInt(parameters, name, context) for name in (GLOBAL_STEPS, LOCAL_STEPS)),
            backbone_weights=os.path.abspath(weights) if os.path.isfile(weights) else weights,
            assumed_pixel_size_m=0.0 if own_m else size_m,
            start=self.parameterAsEnumString(parameters, START, context),
        )

    def _pair(
        self,
        parameters: Parameters,
        name: str,
        raster: RasterFile,
        folder: str,
        title: str,
        context: QgsProcessingContext,
    ) -> tuple[Pair, list[str]]:
        """Write a raster and its polygons as files into a folder, and return the classes."""
        source = self.parameterAsSource(parameters, name, context)
        if source is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, name))
        pair = Pair(f"{title}.vrt", f"{title}.gpkg")
        raster.as_vrt(folder, title)
        path = _fresh(folder, pair.polygons)
        return pair, write_classes(source, self._column, path, context.transformContext())

    def _area(self, parameters: Parameters, folder: str, context: QgsProcessingContext) -> str:
        source = self.parameterAsSource(parameters, AREA, context)
        if source is None:
            return ""
        if not self._raster.crs.isValid():
            raise QgsProcessingException(tr("the scene has no coordinate system: an area can only be used with one"))
        write_polygons(source, _fresh(folder, "area.gpkg"), context.transformContext())
        return "area.gpkg"

    def _settings(self, parameters: Parameters, context: QgsProcessingContext) -> list[str]:
        text = self.parameterAsString(parameters, SETTINGS, context)
        lines = [line.strip() for line in re.split(r"[\n;]", text) if line.strip()]
        wrong = [line for line in lines if not _SETTING.fullmatch(line)]
        if wrong:
            raise QgsProcessingException(tr("{line} is not KEY = VALUE").format(line=wrong[0]))
        return lines


def _check_folder(folder: str) -> None:
    """Refuse a folder with files of the names to be written that an earlier training has not written there."""
    found = [name for name in WRITTEN if os.path.lexists(os.path.join(folder, name))]
    if found and not is_own_folder(folder):
        raise QgsProcessingException(
            tr("{folder} has a {name} that this plugin did not write; choose another training folder").format(
                folder=folder, name=found[0]
            )
        )


def _fresh(folder: str, name: str) -> str:
    """Return a path in a folder, after removing what an earlier training left there."""
    path = os.path.join(folder, name)
    if os.path.exists(path):
        os.remove(path)
    return path
