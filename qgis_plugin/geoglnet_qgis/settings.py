"""What the user has set: where the program is, and which variables it keeps."""

from __future__ import annotations

import json
import os

from qgis.core import QgsSettings

from .environment import clean_environment
from .program import Answer, Program, find_program

PROGRAM_VARIABLE = "GEOGLNET_PROGRAM"
# Until the program has been asked.
SHIPPED_MODELS = ("buildings", "landcover", "landcover-sentinel2", "landcover-sentinel2-rgbn")
_PROGRAM, _KEPT, _MODELS = "geoglnet/program", "geoglnet/kept_variables", "geoglnet/models"
_OWN_MODELS, _MOST_OWN = "geoglnet/own_models", 10


def program_setting() -> str:
    """Return the path set by the user or the environment; empty to search PATH."""
    return os.environ.get(PROGRAM_VARIABLE) or str(QgsSettings().value(_PROGRAM, "") or "")


def set_program(path: str) -> None:
    """Keep the path that the user gave."""
    QgsSettings().setValue(_PROGRAM, path.strip())


def kept_variables() -> list[str]:
    """Return the names of variables that the child keeps although QGIS may have set them."""
    return str(QgsSettings().value(_KEPT, "") or "").replace(",", " ").split()


def set_kept_variables(names: str) -> None:
    """Keep the names that the user gave, with spaces or commas between."""
    QgsSettings().setValue(_KEPT, names.strip())


def child_environment() -> dict[str, str]:
    """Return the variables that the program is started with."""
    return clean_environment(os.environ, kept=kept_variables())


def current_program() -> Program:
    """Find the program that the settings name.

    Raises:
        ProgramError: there is none.
    """
    return find_program(program_setting(), child_environment())


def remember_models(answer: Answer) -> None:
    """Keep the names of the shipped models, so that dialogs can offer them without starting the program."""
    if answer.models:
        QgsSettings().setValue(_MODELS, json.dumps(answer.models))


def remember_own_model(path: str) -> None:
    """Keep a model file that was made here, so that the lists of other algorithms offer it; the latest first."""
    kept = [path, *(name for name in own_models() if name != path)][:_MOST_OWN]
    QgsSettings().setValue(_OWN_MODELS, json.dumps(kept))


def own_models() -> list[str]:
    """Return the model files made here that are still there."""
    try:
        names = json.loads(str(QgsSettings().value(_OWN_MODELS, "") or "[]"))
    except ValueError:
        names = []
    return [name for name in names if isinstance(name, str) and os.path.isfile(name)]


def shipped_models() -> list[str]:
    """Return the names of the program's models that were last remembered."""
    try:
        names = json.loads(str(QgsSettings().value(_MODELS, "") or "[]"))
    except ValueError:
        names = []
    return [name for name in names if isinstance(name, str)] or list(SHIPPED_MODELS)
