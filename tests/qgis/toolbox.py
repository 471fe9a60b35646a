"""Running algorithms inside QGIS's own Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingFeedback, QgsRasterLayer

UTM = "EPSG:32736"  # of the demo scene


class Feedback(QgsProcessingFeedback):
    """Keeps what a run says."""

    def __init__(self) -> None:
        super().__init__(False)
        self.said: list[str] = []
        self.stages: list[str] = []
        self.command = ""
        self.progress: list[float] = []
        self.progressChanged.connect(self.progress.append)

    def pushInfo(self, info: str) -> None:
        self.said.append(info)

    def setProgressText(self, text: str) -> None:
        self.stages.append(text)

    def pushCommandInfo(self, info: str) -> None:
        self.command = info


def run(name: str, feedback: QgsProcessingFeedback | None = None, **parameters: Any) -> dict[str, Any]:
    import processing

    return processing.run(f"geoglnet:{name}", parameters, feedback=feedback or Feedback())


def scene_layer(path: Path) -> QgsRasterLayer:
    layer = QgsRasterLayer(str(path), path.stem)
    assert layer.isValid()
    return layer


def cancel_when(feedback: Feedback, happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not happened() and time.monotonic() < until:
        time.sleep(0.05)
    feedback.cancel()
