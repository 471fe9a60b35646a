"""Which names Windows has no files for, and what is a path there: pure functions, so that they can be tried anywhere.

Windows does not refuse such names by itself: ``labels.tif.`` becomes ``labels.tif``, ``con.gpkg`` is the console, and what is
written to ``labels.tif:2`` lies in a hidden stream of ``labels.tif``. All of them are refused before any work.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path, PureWindowsPath

from geoglnet.errors import OutputError

if sys.platform == "win32":
    import winreg

LONGEST_PATH = 259  # UTF-16 units, unless the system was told to take longer ones
LONGEST_NAME = 255
LONGEST_BESIDE = len(r".unfinished\probabilities\000000_000000.tif")  # what is put behind an output's path while it is made
_DEVICES = frozenset(
    {
        "CON",
        "PRN",
        "AUX",
        "NUL",
        "CONIN$",
        "CONOUT$",
        *(f"{port}{digit}" for port in ("COM", "LPT") for digit in "123456789¹²³"),
    }
)
_FILE_SYSTEM = r"SYSTEM\CurrentControlSet\Control\FileSystem"  # of the registry
_SIGNS = re.compile(r'[<>:"|?*\x00-\x1f]')


def windows_fault(path: str, longest: int | None = LONGEST_PATH) -> str | None:
    """Why Windows has no file of a name, in words that follow the name; ``None`` when it has.

    >>> windows_fault(r"C:\\maps\\con.gpkg"), windows_fault(r"C:\\maps\\contours.gpkg")
    ("has 'con.gpkg' in it, which is a device of Windows", None)

    Args:
        path: absolute, with a drive or a share, or relative.
        longest: path that the system takes, with what lies beside the file meanwhile; ``None`` for no limit.
    """
    if path.replace("/", "\\").startswith("\\\\.\\"):
        return "is a device of Windows"
    whole = PureWindowsPath(path)
    for part in whole.parts[bool(whole.anchor) :]:
        fault = _fault_of_part(part)
        if fault is not None:
            return f"has {part!r} in it, {fault}"
    is_limited = longest is not None and not whole.anchor.startswith("\\\\?\\")
    over = _length(str(whole)) + LONGEST_BESIDE - longest if longest is not None and is_limited else 0
    if over > 0:
        return f"is {over} characters too long for Windows, with what lies beside it meanwhile"
    return None


def _fault_of_part(part: str) -> str | None:
    if part == "..":
        return None
    if sign := _SIGNS.search(part):
        return f"and no name on Windows has {sign.group()!r}"
    if part[-1] in " .":
        return "and Windows takes a last dot or space away"
    if part.partition(".")[0].rstrip(" ").upper() in _DEVICES:
        return "which is a device of Windows"
    if _length(part) > LONGEST_NAME:
        return f"which is longer than {LONGEST_NAME} characters"
    return None


def _length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def check_filename(path: Path, platform: str = sys.platform) -> None:
    """Refuse the name of an output that the system has no file for.

    Raises:
        OutputError: it has none.
    """
    fault = windows_fault(str(path.absolute()), None if _takes_long_paths() else LONGEST_PATH) if platform == "win32" else None
    if fault is not None:
        raise OutputError(f"{path} {fault}; choose another output")


def _takes_long_paths() -> bool:
    """Whether Windows was told to take paths of any length, which Python and GDAL then do."""
    if sys.platform == "win32":
        with suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _FILE_SYSTEM) as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    return False
