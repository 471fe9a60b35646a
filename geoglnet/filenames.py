"""File names that Windows cannot have: pure functions, so that they can be tested on every system.

Windows does not refuse such names by itself: ``labels.tif.`` becomes ``labels.tif``, ``con.gpkg`` is the console, and data
written to ``labels.tif:2`` land in a hidden stream of ``labels.tif``. All of them are refused before any work.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path, PureWindowsPath

from geoglnet.errors import OutputError

if sys.platform == "win32":
    import winreg

LONGEST_PATH = 259  # UTF-16 units, unless long paths are enabled in the system
LONGEST_NAME = 255
LONGEST_BESIDE = len(r".unfinished\probabilities\000000_000000.tif")  # appended to an output's path while it is made
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
    """Explain why Windows cannot have a file of this name, in words that follow the name; return ``None`` when it can.

    >>> windows_fault(r"C:\\maps\\con.gpkg"), windows_fault(r"C:\\maps\\contours.gpkg")
    ("has 'con.gpkg' in it, which is a device of Windows", None)

    Args:
        path: absolute, with a drive or a share, or relative.
        longest: longest path of the system, for the longest name that is written beside the file; ``None`` for no limit.
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
        return f"is {over} characters too long for Windows, with the files that are written beside it"
    return None


def _fault_of_part(part: str) -> str | None:
    """Explain what is wrong with one part of a path."""
    if part == "..":
        return None
    if sign := _SIGNS.search(part):
        return f"and Windows allows no {sign.group()!r} in names"
    if part[-1] in " .":
        return "and Windows drops a dot or space at the end"
    if part.partition(".")[0].rstrip(" ").upper() in _DEVICES:
        return "which is a device of Windows"
    if _length(part) > LONGEST_NAME:
        return f"which is longer than {LONGEST_NAME} characters"
    return None


def _length(text: str) -> int:
    """Count UTF-16 units, which is what Windows limits."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def check_filename(path: Path, platform: str = sys.platform) -> None:
    """Refuse the name of an output that no file can have.

    Raises:
        OutputError: the path ends in no name (``.``, ``..``, ``/``); on Windows also: it is a device, has characters that are
            not allowed, or is too long.
    """
    if path.name in ("", ".."):
        raise OutputError(f"{path} is a folder; give a file name")
    fault = windows_fault(str(path.absolute()), None if _takes_long_paths() else LONGEST_PATH) if platform == "win32" else None
    if fault is not None:
        raise OutputError(f"{path} {fault}; choose another output")


def _takes_long_paths() -> bool:
    """Return whether long paths are enabled in Windows, which Python and GDAL then accept."""
    if sys.platform == "win32":
        with suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _FILE_SYSTEM) as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    return False
