"""Does ``predict`` give the same bytes however it is run? Batches, readers, threads, parts of a scene, kill −9 and --resume.

    python benchmarks/exactness.py SCENE.tif [--size 4096] [--model buildings] [--kills 10] [--only options bounds kills]

Each line is a run of the command line on the upper left of SCENE, with small regions so that there are many blocks. It writes
labels, confidence, probabilities and polygons; compared are the sha256 of all files, or the pixels where only a part was asked
for.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import rasterio
from coarse_to_fine import resized
from rasterio.windows import Window
from speed import crop

from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.shipped import model_path

REGION, PATCH, MARGIN = 480, 240, 64
RASTERS = ("labels", "confidence", "probabilities")
OPTIONS = {
    "batch 1": ["--batch", "1"],
    "batch 8": ["--batch", "8"],
    "1 reader": ["--readers", "1"],
    "4 readers": ["--readers", "4"],
    "2 threads": [],
}


@dataclass(frozen=True)
class Trial:
    """What is segmented, and with what."""

    scene: Path
    model: Path

    def command(self, folder: Path, *options: str) -> list[str]:
        folder.mkdir(exist_ok=True)
        outputs = ["-o", str(folder / "labels.tif"), "--vector", str(folder / "polygons.gpkg")]
        outputs += [part for name in RASTERS[1:] for part in (f"--{name}", str(folder / f"{name}.tif"))]
        start = [sys.executable, "-m", "geoglnet", "predict", str(self.scene), "--model", str(self.model), "--device", "cpu"]
        return [*start, "--progress", "none", *outputs, *options]

    def run(self, folder: Path, *options: str, threads: int = 1) -> dict[str, str]:
        """A run to its end; the sha256 of its files."""
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(self.command(folder, *options), check=True, env=environment, stdout=subprocess.DEVNULL)
        return digests(folder)


def digests(folder: Path) -> dict[str, str]:
    """sha256 by name; of a GeoPackage, which says when it was written, all tables without those times."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return {path.name: _rows(path) if path.suffix == ".gpkg" else sha256(path.read_bytes()).hexdigest() for path in paths}


def _rows(path: Path) -> str:
    digest = sha256()
    with closing(sqlite3.connect(path)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall():
            columns = [name for _, name, *_ in database.execute(f'PRAGMA table_info("{table}")')]
            timeless = ", ".join(f'"{name}"' for name in columns if name not in ("last_change", "update_time"))
            for row in database.execute(f'SELECT {timeless} FROM "{table}"'):
                digest.update(repr((table, row)).encode())
    return digest.hexdigest()


def verdict(found: dict[str, str], expected: dict[str, str]) -> str:
    differing = [name for name in expected if found.get(name) != expected[name]]
    return "equal" if found == expected else f"DIFFERS: {', '.join(differing)}"


def iter_halves(scene: Path) -> Iterator[tuple[str, list[str]]]:
    with rasterio.open(scene) as src:
        left, bottom, right, top = src.bounds
    across, down = (left + right) / 2, (top + bottom) / 2
    for name, bounds in (
        ("left half", (left, bottom, across, top)),
        ("right half", (across, bottom, right, top)),
        ("upper half", (left, down, right, top)),
        ("lower half", (left, bottom, right, down)),
    ):
        yield name, ["--bounds", *(repr(number) for number in bounds)]


def difference(part: Path, whole: Path) -> str:
    """How a raster differs from another at the same place, in all bands."""
    with rasterio.open(part) as src, rasterio.open(whole) as dst:
        col, row = ~dst.transform * (src.transform.c, src.transform.f)
        values = src.read().astype(int)
        apart = np.abs(values - dst.read(window=Window(round(col), round(row), src.width, src.height)))
    return f"{np.count_nonzero(apart)} of {apart.size} differ" + (f", by up to {apart.max()}" if apart.any() else "")


def differences(part: Path, whole: Path) -> str:
    return "; ".join(f"{name}: {difference(part / f'{name}.tif', whole / f'{name}.tif')}" for name in RASTERS)


def kill_often(trial: Trial, folder: Path, kills: int, seconds: float, expected: dict[str, str]) -> None:
    """Kill runs at random moments and resume them, beginning anew whenever one got to its end."""
    chance, done, finished = np.random.default_rng(0), 0, 0
    while done < kills:
        journal = folder / "labels.tif.unfinished" / "journal.jsonl"
        process = subprocess.Popen(trial.command(folder, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not journal.exists():
            time.sleep(0.02)
        moment = float(chance.uniform(0, seconds))
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            done += 1
            blocks = max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0
            there = sorted(path.name for path in folder.iterdir() if path.is_file())
            print(f"| kill {done}, after {moment:.1f} s | {blocks} blocks, {', '.join(there) or 'no file'} |", flush=True)
            continue
        finished += 1
        print(f"| finished before the next kill | {verdict(digests(folder), expected)} |", flush=True)
        shutil.rmtree(folder)
        folder.mkdir()
    print(f"| resumed to the end | {verdict(trial.run(folder, '--resume'), expected)} |", flush=True)


def small_regions(model: str, path: Path) -> None:
    network, manifest = load_checkpoint(model_path(model))
    save_checkpoint(path, network, replace(manifest, region=resized(manifest.region, (REGION, PATCH, MARGIN))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--model", default="buildings")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=["options", "bounds", "kills"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        trial = Trial(root / "scene.tif", root / "model.safetensors")
        crop(arguments.scene, arguments.size, trial.scene)
        small_regions(arguments.model, trial.model)
        started = time.monotonic()
        expected = trial.run(root / "reference")
        seconds = time.monotonic() - started
        print(f"| run | {', '.join(expected)} |\n|---|---|", flush=True)
        if "options" in arguments.only:
            run_options(trial, root, expected)
        if "bounds" in arguments.only:
            run_bounds(trial, root)
        if "kills" in arguments.only:
            kill_often(trial, root / "killed", arguments.kills, seconds / 3, expected)


def run_options(trial: Trial, root: Path, expected: dict[str, str]) -> None:
    for name, options in OPTIONS.items():
        found = verdict(trial.run(root / name, *options, threads=2 if "threads" in name else 1), expected)
        more = "" if found == "equal" else f"; {differences(root / name, root / 'reference')}"
        print(f"| {name} | {found}{more} |", flush=True)


def run_bounds(trial: Trial, root: Path) -> None:
    for name, options in iter_halves(trial.scene):
        trial.run(root / name, *options)
        print(f"| {name}, pixels beside the whole's | {differences(root / name, root / 'reference')} |", flush=True)


if __name__ == "__main__":
    main()
