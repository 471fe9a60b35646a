"""How deep is the way from a verb to the work? Frames and files on the stack, import times, modules.

    python benchmarks/journeys.py

Segments the demo scene with the command line in this process. Counted are the frames of the package, and the files that they
are in, on the deepest stack at which a patch meets a convolution, and at which rows of polygons reach the GeoPackage's writer.
Import times are the median of five fresh processes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import geoglnet
from geoglnet.cli.main import geoglnet as command_line

PACKAGE = Path(geoglnet.__file__).parent
_TIMED = "import time; start = time.perf_counter(); import {name}; print(time.perf_counter() - start)"

Stack = tuple[tuple[str, str], ...]


def own_frames(frame: FrameType | None) -> Stack:
    """(file, function) of the package's frames, outermost first; comprehensions and lambdas belong to their function."""
    found: list[tuple[str, str]] = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if PACKAGE in path.parents and not frame.f_code.co_name.startswith("<"):
            found.append((str(path.relative_to(PACKAGE)), frame.f_code.co_name))
        frame = frame.f_back
    return tuple(reversed(found))


class Watch:
    """Remember the deepest stack of the package at which a function was called."""

    def __init__(self, is_work: Callable[[Any], bool]) -> None:
        self.is_work = is_work
        self.deepest: Stack = ()

    def around(self, function: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self.is_work(args[0]):
                stack = own_frames(sys._getframe(1))
                if len(stack) > len(self.deepest):
                    self.deepest = stack
            return function(*args, **kwargs)

        return watched


def main() -> None:
    """Print a table for RESULTS.md."""
    modules = sorted(path for path in PACKAGE.rglob("*.py"))
    print(f"modules: {len(modules)}, median {median(len(path.read_text().splitlines()) for path in modules):g} lines")
    for name in ("geoglnet", "geoglnet.cli.main", "geoglnet.prediction.run", "geoglnet.vector.polygonizer"):
        runs = [subprocess.check_output([sys.executable, "-c", _TIMED.format(name=name)], text=True) for _ in range(5)]
        print(f"import {name}: {median(map(float, runs)):.2f} s")
    for name, stack in journeys().items():
        print(f"\n{name}: {len(stack)} frames in {len({path for path, _ in stack})} files")
        for path, function in stack:
            print(f"  {path}: {function}")


def journeys() -> dict[str, Stack]:
    """The two stacks of ``geoglnet predict``."""
    import pyogrio.raw
    import torch

    network, rows = Watch(lambda features: features.ndim == 4), Watch(lambda _: True)
    torch.nn.functional.conv2d = network.around(torch.nn.functional.conv2d)
    torch.conv2d = network.around(torch.conv2d)
    pyogrio.raw.write_arrow = rows.around(pyogrio.raw.write_arrow)
    with tempfile.TemporaryDirectory() as folder:
        scene, labels, polygons = (str(Path(folder, name)) for name in ("demo/scene.tif", "labels.tif", "polygons.gpkg"))
        for words in (["demo", f"{folder}/demo"], ["predict", scene, "-o", labels, "--vector", polygons, "--progress", "none"]):
            command_line(words, standalone_mode=False)
    return {"to a patch in the network": network.deepest, "to a row of a GeoPackage": rows.deepest}


if __name__ == "__main__":
    main()
