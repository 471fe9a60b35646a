"""The environment of the program that the plugin starts: the user's own, without what QGIS and its launchers put there.

QGIS for Windows and macOS exports the Python, PROJ and GDAL of its bundle. Another Python that inherits them dies, leaves its
virtual environment, or reads coordinate systems from a database of the wrong version.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

_GDAL = ("GDAL_DATA", "GDAL_DRIVER_PATH", "GDAL_PYTHON_DRIVER_PATH", "GDAL_PAM_PROXY_DIR")
_GEO = (*_GDAL, "PROJ_LIB", "PROJ_DATA", "GEOTIFF_CSV")
_QGIS = ("QGIS_PREFIX_PATH", "QGIS_PLUGINPATH", "QGIS_CUSTOM_CONFIG_PATH", "QT_PLUGIN_PATH", "QT_QPA_PLATFORM_PLUGIN_PATH")
_VENV = ("VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
DROPPED = frozenset((*_GEO, *_QGIS, *_VENV))
DROPPED_BEGINNINGS = ("PYTHON", "LD_", "DYLD_")  # where Python and the system's loader look for code, and what they run first
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
SET = {
    **{"PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1"},
    "PYTHONSAFEPATH": "1",  # nothing is imported from the folder that a program, or a child of it, is started in
}


def clean_environment(
    inherited: Mapping[str, str],
    *,
    kept: Collection[str] = (),
    platform: str = sys.platform,
    exists: Callable[[str], bool] = os.path.exists,
) -> dict[str, str]:
    """Return the environment variables for the child process.

    Args:
        inherited: QGIS's own environment.
        kept: names that the user wants kept, such as ``LD_LIBRARY_PATH`` on a cluster.
        platform: ``sys.platform``'s word.
        exists: whether a path exists.
    """
    roots = _qgis_folders(inherited)
    wanted = {name.upper() for name in kept}
    child = {name: value for name, value in inherited.items() if name.upper() in wanted or not _is_dropped(name.upper())}
    for name in CERTIFICATES:
        path = child.get(name)
        if path and name not in wanted and (not exists(path) or _is_below(path, roots, platform)):
            del child[name]
    if platform == "win32":
        _strip_path(child, roots)
    return {**child, **SET}


@contextmanager
def private_folder() -> Iterator[str]:
    """Make an empty folder that nobody else can write to, in which a program is started.

    Python imports from the folder that it is started in (``-m``), and Windows loads libraries from there: in a shared one, such
    as the temporary folder, anybody could have put a ``geoglnet`` there.
    """
    folder = tempfile.mkdtemp(prefix="geoglnet-run-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # Windows keeps it while a child that is being ended stands in it


def _is_dropped(name: str) -> bool:
    return name in DROPPED or name.startswith(DROPPED_BEGINNINGS)


def _qgis_folders(inherited: Mapping[str, str]) -> list[str]:
    named = (inherited.get(name, "") for name in ("OSGEO4W_ROOT", "QGIS_PREFIX_PATH"))
    return [folder for folder in named if folder.strip("/\\") not in ("", "usr", "usr/local")]


def _is_below(path: str, roots: Collection[str], platform: str) -> bool:
    paths = ntpath if platform == "win32" else posixpath
    separator = paths.sep
    folder = paths.normcase(paths.normpath(path)) + separator
    return any(folder.startswith(paths.normcase(paths.normpath(root)) + separator) for root in roots)


def _strip_path(child: dict[str, str], roots: Collection[str]) -> None:
    """Take QGIS's folders out of PATH; there Windows looks for libraries, and finds QGIS's GDAL first."""
    for name in [name for name in child if name.upper() == "PATH"]:
        child[name] = ";".join(part for part in child[name].split(";") if not _is_below(part, roots, "win32"))
