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

GRACE_S = 10.0  # between asking the main thread to stop and leaving without it
ORPHANED = 3  # exit code of a process whose parent is gone


def prepare_environment() -> None:
    """Settle environment variables that other programs leave behind; ones the user set for us win.

    * OpenMP threads that spin while they wait cost 40 % when cores are shared.
    * QGIS and its launchers export ``PROJ_LIB`` and ``GDAL_DATA`` of *their* versions; a rasterio wheel brings its own.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    package = find_spec("rasterio")
    folders = (package.submodule_search_locations if package else None) or []
    if any((Path(folder) / "proj_data").is_dir() for folder in folders):
        for variable in ("PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "GDAL_DRIVER_PATH"):
            os.environ.pop(variable, None)
    logging.getLogger("rasterio").addHandler(logging.NullHandler())  # GDAL's lines; what matters becomes an error of ours
    if not sys.warnoptions:  # libraries warn developers (torch, pyogrio, numpy); what people need to know, a Progress says
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a file name in another encoding must not end a run


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
    os._exit(ORPHANED)
