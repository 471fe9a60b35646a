"""Windows' rule about open files, simulated on Linux: what is open or mapped can be neither removed nor renamed nor replaced.

``GEOGLNET_TEST_WINDOWS_RULES=1 pytest tests/cli`` runs tests under it. Child processes obey it too: this folder is on
their ``PYTHONPATH``, where Python looks for a module of this name when it starts.

Python's own calls are seen, through an audit hook that nothing in the process can go around; what GDAL and SQLite remove
by themselves is not. A file counts as open when this process, its parent or a descendant has it open or mapped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SWITCH = "GEOGLNET_TEST_WINDOWS_RULES"
_state = {"enforced": False, "hooked": False}


def enforce() -> None:
    """Have this process and its children obey the rule from now on."""
    if not _state["hooked"]:
        sys.addaudithook(_audit)
        _state["hooked"] = True
    _state["enforced"] = True


@contextmanager
def enforced() -> Iterator[None]:
    """The rule for a while, in this process only."""
    before = _state["enforced"]
    enforce()
    try:
        yield
    finally:
        _state["enforced"] = before


def environment() -> dict[str, str]:
    """Variables that make a child process obey the rule."""
    here = str(Path(__file__).resolve().parent)
    paths = [here, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != here)]
    return {SWITCH: "1", "PYTHONPATH": os.pathsep.join(paths)}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _state["enforced"]:
        return
    if event in ("os.remove", "os.rmdir"):
        paths = [_absolute(arguments[0], arguments[1])]
    elif event == "os.rename":
        paths = [_absolute(arguments[0], arguments[2]), _absolute(arguments[1], arguments[3])]
    else:
        return
    for path in paths:
        if path is not None and _is_held(path):
            said = "The process cannot access the file because it is being used by another process"
            error = PermissionError(13, said, os.fspath(path))
            error.winerror = 32
            raise error


def _absolute(path: Any, folder_descriptor: int) -> Path | None:
    """The path without following a last link: it is the link that goes."""
    if isinstance(path, int):
        return None
    name = Path(os.fsdecode(path))
    if folder_descriptor != -1:
        name = Path(f"/proc/self/fd/{folder_descriptor}").readlink() / name
    absolute = name.parent.resolve() / name.name
    return None if absolute.is_symlink() or not absolute.exists() else absolute


def _is_held(path: Path) -> bool:
    name = os.fspath(path)
    is_folder = path.is_dir()
    return any(held == name or (is_folder and held.startswith(name + "/")) for held in _iter_held(is_folder))


def _iter_held(with_working_folders: bool) -> Iterator[str]:
    for process in _family():
        # A process may end, and a descriptor close, while they are looked at.
        with suppress(OSError):
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with suppress(OSError):
                    target = descriptor.readlink()
                    if not target.is_dir():  # removing a tree opens its folders
                        yield os.fspath(target)
        with suppress(OSError):
            for line in Path(f"/proc/{process}/maps").read_text("utf-8", "surrogateescape").splitlines():
                yield line.split(None, 5)[-1]
        with suppress(OSError):
            if with_working_folders:
                yield os.fspath(Path(f"/proc/{process}/cwd").readlink())


def _family() -> Iterator[int]:
    yield os.getppid()
    waiting = [os.getpid()]
    while waiting:
        process = waiting.pop()
        yield process
        with suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                waiting += map(int, (task / "children").read_text("ascii").split())


if os.environ.get(SWITCH) == "1" and sys.platform == "linux":
    enforce()
