"""Bad luck on purpose: the Nth write, fsync, rename, truncation or opening of a file fails, or kills the process."""

from __future__ import annotations

import builtins
import ctypes
import errno
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("failing.c")
KINDS = {"write": 1, "sync": 2, "rename": 4, "truncate": 8, "open": 16}
ERRORS = {"disk full": errno.ENOSPC, "broken disk": errno.EIO, "no permission": errno.EACCES, "quota": errno.EDQUOT, "kill": 0}


@dataclass(frozen=True)
class Fault:
    """What happens to the calls that change a file.

    Args:
        kind: which calls, one of :data:`KINDS`; empty to count all of them and have none suffer.
        nth: which of them, from 1; the count goes over all files below the folder.
        error: an errno, or 0 to kill the process before the call is made.
        lasts: every call from the Nth on fails, as on a full disk, not the Nth alone.
    """

    kind: str
    nth: int
    error: int = 0
    lasts: bool = False


def build_library(folder: Path) -> Path | None:
    """Compile the library to preload; ``None`` where there is no compiler or it does not work here."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    library = folder / "failing.so"
    if compiler is None:
        return None
    ran = subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], capture_output=True, check=False)
    return library if ran.returncode == 0 else None


def arm(fault: Fault, folder: Path) -> Callable[[], dict[str, int]]:
    """Have calls on files below a folder suffer, in this process; returns how to count the calls made.

    Where the library is not preloaded, only what Python itself does with files can suffer.
    """
    program = ctypes.CDLL(None)
    if not hasattr(program, "fault_arm"):
        return _arm_python(fault, folder)
    program.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    program.fault_count.restype = ctypes.c_long
    which, nth = (KINDS[fault.kind], fault.nth) if fault.kind else (sum(KINDS.values()), -1)
    program.fault_arm(os.fsencode(folder), which, nth, fault.error, fault.lasts)
    return lambda: {kind: int(program.fault_count(number)) for kind, number in KINDS.items()}


def _arm_python(fault: Fault, folder: Path) -> Callable[[], dict[str, int]]:
    suffering = _Suffering(fault, folder)
    for module in (builtins, io):
        suffering.replace(module, "open", "open", 0)
    for name, kind, argument in (
        ("rename", "rename", 1),
        ("replace", "rename", 1),
        ("write", "write", 0),
        ("fsync", "sync", 0),
    ):
        suffering.replace(os, name, kind, argument)
    return lambda: suffering.counts


@dataclass
class _Suffering:
    """Stands in front of functions of Python, where there is no library to preload."""

    fault: Fault
    folder: Path
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def replace(self, module: Any, name: str, kind: str, argument: int) -> None:
        real = getattr(module, name)

        def suffering(*args: Any, **kwargs: Any) -> Any:
            if kind != "open" or set("wax+") & set(str(kwargs.get("mode", (*args, "r", "r")[1]))):
                self.suffer(kind, args[argument])
            return real(*args, **kwargs)

        setattr(module, name, suffering)

    def suffer(self, kind: str, place: Any) -> None:
        path = Path(f"/proc/self/fd/{place}").readlink() if isinstance(place, int) else Path(place).absolute()
        if not str(path).startswith(str(self.folder)):
            return
        self.counts[kind] += 1
        nth = self.counts[kind]
        if kind == self.fault.kind and (nth == self.fault.nth or (self.fault.lasts and nth > self.fault.nth)):
            if not self.fault.error:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.fault.error, os.strerror(self.fault.error), str(path))
