"""The page in QGIS's options: where the program is, and a button that asks it how it is."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from typing import Any

from qgis.core import QgsApplication, QgsTask
from qgis.gui import QgsFileWidget, QgsOptionsPageWidget, QgsOptionsWidgetFactory
from qgis.PyQt import sip
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QFormLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from .environment import clean_environment
from .program import Answer, ProgramError, ask, find_program
from .provider import ICON_PATH
from .settings import (
    kept_variables,
    program_setting,
    remember_models,
    set_kept_variables,
    set_program,
)
from .translation import tr


class OptionsPageFactory(QgsOptionsWidgetFactory):
    """Makes the page whenever QGIS's options are opened.

    Args:
        applied: called when the user has accepted the options.
    """

    def __init__(self, applied: Callable[[], None]) -> None:
        super().__init__()
        self.setTitle("geoglnet")
        self._applied = applied

    def icon(self) -> QIcon:
        return QIcon(ICON_PATH)

    def createWidget(self, parent: QWidget | None = None) -> QgsOptionsPageWidget:
        return OptionsPage(parent, self._applied)


class OptionsPage(QgsOptionsPageWidget):
    """Path of the program, variables that it keeps, and what a test of it found.

    Args:
        parent: QGIS's dialog.
        applied: called when the user has accepted.
    """

    def __init__(self, parent: QWidget | None, applied: Callable[[], None]) -> None:
        super().__init__(parent)
        self._applied = applied
        self._task: QgsTask | None = None
        self.program = QgsFileWidget(self)
        self.program.setFilePath(program_setting())
        self.program.setDialogTitle(tr("The geoglnet program, or the Python that has it"))
        self.kept = QLineEdit(" ".join(kept_variables()), self)
        self.kept.setPlaceholderText("LD_LIBRARY_PATH")
        self.test_button = QPushButton(tr("Test"), self)
        self.test_button.clicked.connect(self.test)
        self.answer = QLabel(self)
        self.answer.setWordWrap(True)
        self.answer.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._arrange()

    def _arrange(self) -> None:
        intro = QLabel(
            tr(
                "geoglnet runs in a Python environment of its own, outside QGIS: <code>pip install geoglnet</code>. "
                "Name its program here, or leave this empty to find it on the PATH."
            ),
            self,
        )
        intro.setWordWrap(True)
        form = QFormLayout()
        form.addRow(tr("Program"), self.program)
        form.addRow(tr("Environment variables to keep"), self.kept)
        form.addRow("", self.test_button)
        layout = QVBoxLayout(self)
        layout.addWidget(intro)
        layout.addLayout(form)
        layout.addWidget(self.answer)
        layout.addStretch()

    def apply(self) -> None:
        """Save the options; QGIS calls this when they are accepted."""
        set_program(self.program.filePath())
        set_kept_variables(self.kept.text())
        self._applied()

    def test(self) -> None:
        """Ask the program in the background: loading torch takes seconds."""
        self.test_button.setEnabled(False)
        self.answer.setText(tr("asking …"))
        environment = clean_environment(os.environ, kept=self.kept.text().replace(",", " ").split())
        self._task = QgsTask.fromFunction(
            tr("Test geoglnet"), _examine, on_finished=self._show, path=self.program.filePath(), environment=environment
        )
        QgsApplication.taskManager().addTask(self._task)

    def _show(self, exception: BaseException | None, found: Answer | str | None = None) -> None:
        if sip.isdeleted(self):
            return  # the options were closed meanwhile
        if isinstance(found, Answer):
            remember_models(found)
            self.answer.setText(describe(found))
        else:
            self.answer.setText(f"<b>{html.escape(str(exception or found))}</b>")
        self.test_button.setEnabled(True)


def _examine(task: QgsTask, path: str, environment: Mapping[str, str]) -> Any:
    try:
        return ask(find_program(path, environment), environment, quick=False)
    except ProgramError as error:
        return str(error)


def describe(answer: Answer) -> str:
    """Describe the result of a test, as rich text."""
    facts = answer.facts
    rows = {
        tr("Version"): f"geoglnet {answer.version}, Python {facts.get('python', '?')}",
        tr("Device"): answer.device,
        tr("Libraries"): f"torch {facts.get('torch', '–')}, GDAL {facts.get('gdal', '–')}",
        tr("Models"): ", ".join(answer.models) or "–",
    }
    lines = [f"<tr><td>{html.escape(name)}&nbsp;&nbsp;</td><td>{html.escape(text)}</td></tr>" for name, text in rows.items()]
    missing = "".join(f"<p><b>{html.escape(line)}</b></p>" for line in answer.missing)
    verdict = missing or f"<p><b>{html.escape(tr('ready'))}</b></p>"
    return f"<table>{''.join(lines)}</table>{verdict}"
