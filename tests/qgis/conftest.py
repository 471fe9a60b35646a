"""A real QGIS, a real program, and generated scenes; see scripts/test-plugin."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import crop

PLUGINS = Path(__file__).parents[2] / "qgis_plugin"
PROCESSING = Path("/usr/share/qgis/python/plugins")
PROGRAM_VARIABLE = "GEOGLNET_PROGRAM"

sys.path[:0] = [str(PROCESSING), str(PLUGINS)]


@pytest.fixture(scope="session", autouse=True)
def _layers_end_before_qgis(qgis_app: Any) -> Iterator[None]:
    """Delete the layers that Python still owns while QGIS can: after ``exitQgis`` their destructors crash the process.

    QGIS's bindings never release an exception that an algorithm raises in Python (``processing_exception_handler`` fetches it
    and throws one of C++). Its traceback keeps every frame that led there, so the local variables of a test that a refusal
    passed through, and PyQt deletes what is left of them when the interpreter ends.
    """
    yield
    from qgis.core import QgsMapLayer
    from qgis.PyQt import sip

    for layer in [found for found in gc.get_objects() if isinstance(found, QgsMapLayer)]:
        if not sip.isdeleted(layer) and sip.ispyowned(layer):
            sip.delete(layer)


@pytest.fixture(scope="session")
def program() -> str:
    """The geoglnet program under test."""
    path = os.environ.get(PROGRAM_VARIABLE, "")
    assert path, f"set {PROGRAM_VARIABLE} to the geoglnet program, or use scripts/test-plugin"
    return path


@pytest.fixture(scope="session")
def demo(program: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of ``geoglnet demo``: a generated scene, 768 × 640 m, and its true polygons."""
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run([program, "demo", str(folder)], check=True, stdin=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def scene_path(demo: Path) -> Path:
    """A part of the demo scene with some thirty buildings: one patch of the shipped model."""
    return crop(demo / "scene.tif", demo / "Straße мир ü.tif", (1900, 1000, 300, 240))


@pytest.fixture
def make_program(tmp_path: Path) -> Callable[[str], str]:
    """Writes a Python script that stands in for the program."""

    def make(script: str) -> str:
        path = tmp_path / "bin" / "geoglnet"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/python3\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A virgin QGIS profile."""
    path = tmp_path / "profile"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def qgis_process() -> str:
    """Debian's wrapper passes an option that qgis_process does not know; the program behind it is whole."""
    path = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if path is None:
        pytest.skip("no qgis_process on this machine")
    return path


@pytest.fixture(scope="session")
def plugin(qgis_app: Any, qgis_processing: Any, program: str) -> Iterator[Any]:
    """The plugin as ``qgis_process`` has it; tests that run algorithms use it."""
    from geoglnet_qgis.plugin import GeoglnetPlugin  # where the path above leads

    plugin = GeoglnetPlugin(None)
    plugin.initProcessing()
    yield plugin
    plugin.unload()


@pytest.fixture
def project(qgis_new_project: Any) -> Any:
    """An empty project."""
    from qgis.core import QgsProject

    return QgsProject.instance()


@pytest.fixture(scope="session")
def segmented(scene_path: Path, plugin: Any) -> dict[str, Any]:
    """Results of *Segment scene* on the generated scene, at paths with spaces, umlauts and Cyrillic."""
    from toolbox import run

    folder = scene_path.parent / "Ergebnisse мир"
    folder.mkdir()
    outputs = {"LABELS": "l ä.tif", "POLYGONS": "p ä.gpkg", "PROBABILITIES": "q ä.tif"}
    return run("segmentscene", INPUT=str(scene_path), **{name: str(folder / file) for name, file in outputs.items()})
