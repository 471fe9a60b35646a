"""Peak memory of ``geoglnet predict`` on mosaics of real scenes: does it grow with the scene?

    python benchmarks/peak_memory.py SCENE.tif … --sizes 10000x10000 40000x40000 100000x100000 -- --resolution 0.3

Each size is a VRT of squares of 2048 px from the scenes (of one CRS, bands and 8 bits), in an order that does not repeat,
segmented by a process of its own with the options behind ``--``. The scenes are copied with pyramid levels first, as mosaics of
that size have them. The peak is the operating system's account of the process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil

SQUARE = 2048
Cell = tuple[Path, int, int]


def copied(scene_path: Path, folder: Path) -> Path:
    """A JPEG COG of a scene, with pyramid levels."""
    path = folder / f"{scene_path.stem}.tif"
    rasterio.shutil.copy(scene_path, path, driver="COG", COMPRESS="JPEG", OVERVIEWS="AUTO", OVERVIEW_RESAMPLING="AVERAGE")
    return path


def iter_cells(paths: Sequence[Path]) -> Iterator[Cell]:
    """All whole squares of the scenes."""
    for path in paths:
        with rasterio.open(path) as src:
            for top in range(0, src.height - SQUARE + 1, SQUARE):
                for left in range(0, src.width - SQUARE + 1, SQUARE):
                    yield path, top, left


def write_mosaic(paths: Sequence[Path], width: int, height: int, vrt_path: Path) -> None:
    cells, chance = list(iter_cells(paths)), np.random.default_rng(0)
    with rasterio.open(paths[0]) as src:
        wkt, transform, count = src.crs.to_wkt(), src.transform.to_gdal(), src.count
    places = [(x, y, int(chance.integers(len(cells)))) for y in range(0, height, SQUARE) for x in range(0, width, SQUARE)]
    bands = []
    for band in range(1, count + 1):
        sources = "".join(_source(cells[choice], band, x, y) for x, y, choice in places)
        color = ("Red", "Green", "Blue")[band - 1]
        bands.append(
            f"<VRTRasterBand dataType='Byte' band='{band}'><ColorInterp>{color}</ColorInterp>{sources}</VRTRasterBand>"
        )
    vrt_path.write_text(
        f"<VRTDataset rasterXSize='{width}' rasterYSize='{height}'><SRS>{escape(wkt)}</SRS>"
        f"<GeoTransform>{', '.join(map(str, transform))}</GeoTransform>{''.join(bands)}"
        "<OverviewList resampling='average'>2 4</OverviewList></VRTDataset>",
        encoding="utf-8",
    )


def _source(cell: Cell, band: int, x: int, y: int) -> str:
    path, top, left = cell
    return (
        f"<SimpleSource><SourceFilename relativeToVRT='0'>{escape(str(path))}</SourceFilename>"
        f"<SourceBand>{band}</SourceBand><SrcRect xOff='{left}' yOff='{top}' xSize='{SQUARE}' ySize='{SQUARE}'/>"
        f"<DstRect xOff='{x}' yOff='{y}' xSize='{SQUARE}' ySize='{SQUARE}'/></SimpleSource>"
    )


def measure(scene_path: Path, folder: Path, options: Sequence[str]) -> tuple[float, float, float]:
    """Peak megabytes (10⁶ bytes), CPU seconds and wall seconds of one run."""
    command = [sys.executable, "-m", "geoglnet", "predict", str(scene_path), "--progress", "none", *options]
    outputs = ["-o", str(folder / "labels.tif"), "--overwrite"]
    started = time.monotonic()
    process = subprocess.Popen([*command, *outputs], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"predict failed on {scene_path}")
    return usage.ru_maxrss * 1024 / 1e6, usage.ru_utime + usage.ru_stime, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--sizes", nargs="+", help="WIDTHxHEIGHT, the first is what the others are compared with")
    given = sys.argv[1:]
    split = given.index("--") if "--" in given else len(given)
    args, options = parser.parse_args(given[:split]), given[split + 1 :]
    first = None
    print("| scene px | peak MB | ratio | CPU s | wall s | source Mpx per CPU s |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copies = [copied(path, folder) for path in args.scenes]
        for size in args.sizes:
            width, height = map(int, size.split("x"))
            mosaic = folder / f"{size}.vrt"
            write_mosaic(copies, width, height, mosaic)
            peak, cpu, wall = measure(mosaic, folder, options)
            first = first or peak
            rate = width * height / 1e6 / cpu
            print(f"| {size} | {peak:.0f} | {peak / first:.2f} | {cpu:.0f} | {wall:.0f} | {rate:.2f} |", flush=True)


if __name__ == "__main__":
    main()
