"""Plays a scenario in the desktop: a generator that yields what to wait for; every step is written to a log."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from qgis.core import QgsProject, QgsSettings
from qgis.PyQt.QtCore import QTimer
from qgis.PyQt.QtWidgets import QApplication, QWidget
from qgis.utils import iface

FOLDER = Path(os.environ["GEOGLNET_DESKTOP_FOLDER"])
Steps = Generator[Callable[[], Any], None, None]
START_MS, POLL_MS = 2500, 100
PATIENCE_S = 240.0


def note(**facts: Any) -> None:
    """Add facts to the log that the test reads."""
    with (FOLDER / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")


def picture(name: str, widget: QWidget | None = None) -> None:
    """Save what is on the screen, or one widget."""
    QApplication.processEvents()
    pixmap = widget.grab() if widget is not None else QApplication.primaryScreen().grabWindow(0)
    pixmap.save(str(FOLDER / f"{name}.png"))


class Player:
    """Runs a scenario step by step from QGIS's event loop, and then ends QGIS."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._condition: Callable[[], Any] = lambda: True
        self._until = time.monotonic() + PATIENCE_S
        self._timer = QTimer()
        self._timer.timeout.connect(self._poll)
        QTimer.singleShot(START_MS, lambda: self._timer.start(POLL_MS))

    def _poll(self) -> None:
        try:
            if self._condition():
                self._condition = next(self._steps)
                self._until = time.monotonic() + PATIENCE_S
            elif time.monotonic() > self._until:
                raise TimeoutError("waited in vain")
        except StopIteration:
            note(ended=True)
            self._leave()
        except Exception:  # whatever it is, a lost exception would hang the test
            note(error=traceback.format_exc())
            picture("error")
            self._leave()

    def _leave(self) -> None:
        self._timer.stop()
        QgsSettings().setValue("askToSaveMemoryLayers", False)
        QgsProject.instance().setDirty(False)
        QgsProject.instance().clear()
        QTimer.singleShot(3000, lambda: os._exit(0))  # before: a question that QGIS asks on leaving blocks this function
        iface.actionExit().trigger()


def play(steps: Steps) -> Player:
    """Keep the player that this returns."""
    return Player(steps)
