"""The settings page, and what the toolbox says before anything is set."""

from __future__ import annotations

from typing import Any

import pytest
from geoglnet_qgis.options_page import OptionsPage
from qgis.core import QgsApplication, QgsSettings

pytestmark = pytest.mark.usefixtures("plugin", "project")


def test_the_toolbox_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOGLNET_PROGRAM", "/nowhere/geoglnet")
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("geoglnet:segmentscene")
    can, reason = algorithm.canExecute()
    assert not can
    assert "Settings → Options → geoglnet" in reason


def test_the_options_page_tests_a_program_in_the_background(program: str, qtbot: Any) -> None:
    page = OptionsPage(None, lambda: None)
    qtbot.addWidget(page)
    page.program.setFilePath(program)
    page.test_button.click()
    qtbot.waitUntil(page.test_button.isEnabled, timeout=120_000)
    assert "ready" in page.answer.text()
    assert "buildings, landcover" in page.answer.text()
    page.program.setFilePath("/nowhere")
    page.test_button.click()
    qtbot.waitUntil(page.test_button.isEnabled, timeout=120_000)
    assert "there is no geoglnet program at /nowhere" in page.answer.text()


def test_the_options_are_kept(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    applied = []
    page = OptionsPage(None, lambda: applied.append(1))
    qtbot.addWidget(page)
    page.program.setFilePath("/opt/geo net/bin/geoglnet")
    page.kept.setText("LD_LIBRARY_PATH")
    page.apply()
    monkeypatch.delenv("GEOGLNET_PROGRAM")
    again = OptionsPage(None, lambda: None)
    qtbot.addWidget(again)
    assert (again.program.filePath(), again.kept.text()) == ("/opt/geo net/bin/geoglnet", "LD_LIBRARY_PATH")
    assert applied
    QgsSettings().remove("geoglnet")
