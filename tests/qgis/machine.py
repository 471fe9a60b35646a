"""What the tests need of the machine: parts of rasters, a QGIS of their own, the list of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PLUGINS = REPOSITORY / "qgis_plugin"


def crop(source: Path, path: Path, window: tuple[int, int, int, int], **options: Any) -> Path:
    """Part of a raster: column, row, width, height."""
    from osgeo import gdal

    gdal.UseExceptions()
    gdal.Translate(str(path), str(source), srcWin=list(window), **options)
    gdal.DontUseExceptions()
    return path


def qgis_environment(profile: Path, **more: str) -> dict[str, str]:
    """Variables for a QGIS of its own: a profile, and the plugin from this checkout."""
    runtime = profile / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    own = {"QGIS_CUSTOM_CONFIG_PATH": str(profile), "QGIS_PLUGINPATH": str(PLUGINS), "XDG_RUNTIME_DIR": str(runtime)}
    return {**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONDONTWRITEBYTECODE": "1", **own, **more}


def enable_plugin(profile: Path) -> None:
    """What ``qgis_process plugins enable`` and the plugin manager write into a profile."""
    path = profile / "profiles" / "default" / "QGIS" / "QGIS3.ini"
    path.parent.mkdir(parents=True)
    path.write_text("[PythonPlugins]\ngeoglnet_qgis=true\n", encoding="utf-8")


def processes_with(text: str) -> Iterator[int]:
    """Numbers of running processes whose command line has a text."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if text in words:
            yield int(entry.name)
