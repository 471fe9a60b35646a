"""*Model information*: what a model knows, was trained on, and may be used for."""

from __future__ import annotations

import html
import json
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFileDestination,
)

from ..running import answer_of
from ..translation import tr
from .algorithm import MODEL_FILE, GeoglnetAlgorithm, Parameters

OUTPUT, TITLE, CLASSES, RESOLUTION = "OUTPUT", "NAME", "CLASSES", "RESOLUTION_M"


class ModelInformation(GeoglnetAlgorithm):
    """``geoglnet models NAME`` or ``geoglnet info FILE``."""

    NAME = "modelinformation"
    TITLE = "Model information"
    SUMMARY = "Classes, resolution, training data, terms, scores and known failures of a model"
    HELP = "<p>Shows a model's card: classes, resolution, what it was trained on, under which terms, how well it does.</p>"

    def initAlgorithm(self, configuration: Any = None) -> None:
        self.add_model()
        report = QgsProcessingParameterFileDestination(OUTPUT, tr("Report"), "HTML (*.html)", optional=True)
        self.add(report, tr("A page to read; it opens in the results viewer."))
        self.add_overwrite()
        self.addOutput(QgsProcessingOutputString(TITLE, tr("Name")))
        self.addOutput(QgsProcessingOutputString(CLASSES, tr("Classes")))
        self.addOutput(QgsProcessingOutputNumber(RESOLUTION, tr("Pixel size [m]")))

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        path = self.parameterAsFileOutput(parameters, OUTPUT, context)
        self.refuse_existing(path, parameters, context)
        model = self.chosen_model(parameters, context)
        is_file = bool(self.parameterAsFile(parameters, MODEL_FILE, context))
        facts = answer_of(["info", model, "--json"] if is_file else ["models", model, "--json"])
        classes = facts.get("classes") or [entry["name"] for entry in facts.get("legend", {}).get("classes", ())]
        card = facts.get("card") or json.dumps(facts, indent=2, ensure_ascii=False)
        feedback.pushInfo(str(card))
        if path:
            _write_page(path, str(facts.get("name", model)), classes, str(card))
        found = {TITLE: facts.get("name"), CLASSES: ", ".join(classes), RESOLUTION: facts.get("resolution_m")}
        return {OUTPUT: path or None, **found}


def _write_page(path: str, name: str, classes: list[str], card: str) -> None:
    page = (
        f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{html.escape(name)}</title></head><body>"
        f"<h1>{html.escape(name)}</h1><p>{html.escape(', '.join(classes))}</p><pre>{html.escape(card)}</pre></body></html>"
    )
    try:
        with open(path, "w", encoding="utf-8", errors="replace") as file:
            file.write(page)
    except OSError as error:
        raise QgsProcessingException(f"{path}: {error.strerror}") from error
