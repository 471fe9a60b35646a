"""Work in several processes: what becomes of them when it ends early."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from geoglnet.errors import GeoglnetError
from geoglnet.vector.ordered import Ordered
from tests.rasters import write_raster

FOREVER = 3600


@dataclass(frozen=True, slots=True)
class Slow:
    """Windows are seconds; what comes back is the process. Half a second ends the process instead."""

    def start(self) -> Callable[[float], int]:
        return work


def work(seconds: float) -> int:
    if seconds == 0.5:
        os._exit(3)
    time.sleep(seconds)
    return os.getpid()


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_canceling_does_not_wait_for_windows_at_work() -> None:
    started, ordered = time.monotonic(), Ordered(Slow(), work, [0, FOREVER, FOREVER, FOREVER, FOREVER], 2)
    process = next(ordered.__enter__())
    ordered.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert time.monotonic() - started < FOREVER / 2
    assert not lives(process)


def test_a_worker_that_dies_is_told() -> None:
    with pytest.raises(GeoglnetError, match="one of 2 worker processes died"), Ordered(Slow(), work, [0, 0.5], 2) as outcomes:
        list(outcomes)


@pytest.mark.skipif(os.name != "posix", reason="other systems reuse numbers of processes at once")
def test_workers_leave_with_a_parent_that_is_killed() -> None:
    script = (
        "import os, signal; from tests.vector.test_ordered import *\n"
        f"if __name__ == '__main__':\n"
        f"  with Ordered(Slow(), work, [0, {FOREVER}, {FOREVER}, {FOREVER}, {FOREVER}], 2) as outcomes:\n"
        "    print(next(outcomes), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True, check=False
    )
    until = time.monotonic() + 120
    while lives(int(ran.stdout)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not lives(int(ran.stdout))


def test_workers_import_nothing_from_the_folder_that_the_program_is_started_in(tmp_path: Path) -> None:
    write_raster(tmp_path / "labels.tif", np.kron(np.eye(4, dtype=np.uint8), np.ones((64, 64), np.uint8))[None])
    program = tmp_path / "bin" / "geoglnet"
    program.parent.mkdir()
    program.write_text(
        "from geoglnet.cli.main import main\nif __name__ == '__main__':\n    main()\n",
        encoding="utf-8",
    )
    marker = tmp_path / "executed"
    for name in ("multiprocessing", "tempfile", "geoglnet"):
        (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    words = [sys.executable, str(program), "vectorize", "labels.tif", "polygons.gpkg", "--workers", "2"]
    ran = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert not marker.exists()
