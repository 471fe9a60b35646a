"""Words that people read, in their language where ``i18n`` has it."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, QTranslator

CONTEXT = "geoglnet"
FOLDER = Path(__file__).parent / "i18n"


def tr(text: str) -> str:
    """Translate a text into the user's language."""
    return QCoreApplication.translate(CONTEXT, text)


def install_translator() -> QTranslator | None:
    """Load the translation of QGIS's locale; the translator is removed again when the plugin is unloaded."""
    locale = QgsApplication.locale()
    for name in (locale, locale[:2]):
        path = FOLDER / f"geoglnet_{name}.qm"
        if path.is_file():
            translator = QTranslator()
            translator.load(str(path))
            QCoreApplication.installTranslator(translator)
            return translator
    return None
