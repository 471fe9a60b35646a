"""What the process needs before torch and GDAL are loaded: sane threads, no foreign GDAL or PROJ data, a way to stop."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import threading
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TextIO

from geoglnet.errors import MemoryLimitError

GRACE_S = 10.0  # between asking the main thread to stop and leaving without it
ORPHANED = 3  # exit code of a process whose parent is gone


def prepare_environment() -> None:
    """Set environment variables that torch and GDAL read, without overriding what the user has set for geoglnet.

    * OpenMP threads that spin while they wait cost 40 % when cores are shared.
    * QGIS and its launchers export ``PROJ_LIB`` and ``GDAL_DATA`` of *their* versions; a rasterio wheel brings its own.
    * A standard stream that is closed (``2>&-``) leads nowhere; else the next file opened, an output perhaps, gets its number
      and what libraries print.
    """
    _open_closed_streams()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # workers import nothing from the folder that we are started in
    package = find_spec("rasterio")
    folders = (package.submodule_search_locations if package else None) or []
    # Only a wheel has the data inside: rasterio from conda or a distribution may need these variables.
    if any((Path(folder) / "proj_data").is_dir() for folder in folders):
        for variable in ("PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "GDAL_DRIVER_PATH"):
            os.environ.pop(variable, None)
    logging.getLogger("rasterio").addHandler(logging.NullHandler())  # GDAL's lines; what matters becomes an error of ours
    _silence_decoding()
    if not sys.warnoptions:  # libraries warn developers (torch, pyogrio, numpy); what people need to know, a Progress says
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # what an encoding lacks is neither lost nor the end of a run


def _silence_decoding() -> None:
    """Print no traceback where rasterio cannot log a line of GDAL that is not in UTF-8: the error itself is raised later.

    Its callback is Cython's, which prints such a failure twice: as uncaught, without frames, then as one that cannot be raised.
    """
    report, report_ignored = sys.excepthook, sys.unraisablehook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (kind is UnicodeDecodeError and trace is None):
            report(kind, error, trace)

    def unraisablehook(unraisable: sys.UnraisableHookArgs) -> None:
        if str(unraisable.object) != "rasterio._env.log_error":
            report_ignored(unraisable)

    sys.excepthook, sys.unraisablehook = excepthook, unraisablehook


def _open_closed_streams() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - until the end


def abandon(stream: TextIO) -> None:
    """Redirect a stream that cannot be written to the null device, so that flushing it at exit does not fail again."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        pass  # no file, or closed


def unprinted(error: OSError) -> str:
    """Explain an error of click, that stdout or stderr cannot be written, and redirect stdout; empty for other errors."""
    # The innermost frame tells whose write failed: click's own, of help and usage, or one of ours.
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not str(trace.tb_frame.f_globals.get("__name__")).startswith("click."):
        return ""
    abandon(sys.stdout)
    return f"what this command prints cannot be written: {error.strerror or error}"


def address_space_limit() -> int | None:
    """Return how many bytes this process may map (``ulimit -v``); ``None`` without a limit."""
    limit: int | None = None
    if sys.platform != "win32":
        import resource  # Windows has none

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        limit = None if limit == resource.RLIM_INFINITY else limit
    return limit


def check_address_space() -> None:
    """Refuse to load torch into less than its libraries map: they abort, or try for ever.

    Raises:
        MemoryLimitError: a limit is set, and too low.
    """
    limit = address_space_limit()
    if limit is None:
        return
    # As measured with torch 2.14: most of its libraries, of CUDA's some 60 %, and 1.5 GB for everything else.
    needed = 1.5e9 + _size_of("torch", "lib") + 0.6 * _size_of("nvidia")
    if limit < needed:
        raise MemoryLimitError(
            f"{_limited(limit)}, and loading torch takes some {needed / 1e9:.1f} GB of it; raise the limit (ulimit -v)"
        )


def explain_limit() -> str:
    """Write the end of a message about a failure that a memory limit may have caused; empty without a limit."""
    limit = address_space_limit()
    return "" if limit is None else f"; {_limited(limit)}, which may be too little"


def _limited(limit: int) -> str:
    return f"the address space of this process is limited to {limit / 1e9:.1f} GB"


def _size_of(package: str, folder: str = "") -> int:
    spec = find_spec(package)
    folders = [Path(place) / folder for place in (spec.submodule_search_locations if spec else None) or []]
    return sum(path.stat().st_size for place in folders for path in place.rglob("*.so*"))


def speak_utf8() -> None:
    """Start again in Python's UTF-8 mode where a locale's encoding rules: libraries and outputs know names in UTF-8 alone."""
    # Once at most: where the mode changes nothing, the program would start itself for ever.
    if sys.platform != "win32" and sys.getfilesystemencoding() != "utf-8" and "utf8" not in sys._xoptions:
        os.environ.setdefault("PYTHONIOENCODING", getattr(sys.stderr, "encoding", None) or "utf-8")  # which the terminal shows
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def stop_on_terminate() -> None:
    """Treat SIGTERM as Ctrl-C, so that part files are removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def stop_on_stdin_eof() -> None:
    """Watch standard input; when the parent that holds its other end is gone, stop cleanly, else by force."""
    # Started by a program: it cancels with SIGINT, also where it was itself started with SIGINT ignored (nohup, a job with &).
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch, name="stdin-watch", daemon=True).start()


def _watch() -> None:
    # os.read, not sys.stdin: a daemon thread inside a buffered read aborts the interpreter at exit. Nothing is printed
    # here: the reader of stderr is gone too.
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass  # a closed stdin is an ended one
    _thread.interrupt_main(signal.SIGTERM)  # SIGINT may be ignored; this one never is, see stop_on_terminate
    time.sleep(GRACE_S)
    os._exit(ORPHANED)  # sys.exit would end this thread alone
