"""Peak memory of ``geoglnet predict`` on mosaics of one real scene: does it grow with the scene?

    python benchmarks/peak_memory.py SCENE.tif 8192x4096 20000x20000

Each size is a VRT that repeats SCENE, segmented by a process of its own; the peak is the operating system's account of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.sax.saxutils import escape

import rasterio


def write_mosaic(scene_path: Path, width: int, height: int, vrt_path: Path) -> None:
    with rasterio.open(scene_path) as src:
        size, wkt, transform, count = (src.width, src.height), src.crs.to_wkt(), src.transform.to_gdal(), src.count
    bands = []
    for band in range(1, count + 1):
        sources = "".join(
            f"<SimpleSource><SourceFilename relativeToVRT='0'>{escape(str(scene_path.resolve()))}</SourceFilename>"
            f"<SourceBand>{band}</SourceBand><SrcRect xOff='0' yOff='0' xSize='{size[0]}' ySize='{size[1]}'/>"
            f"<DstRect xOff='{x}' yOff='{y}' xSize='{size[0]}' ySize='{size[1]}'/></SimpleSource>"
            for y in range(0, height, size[1])
            for x in range(0, width, size[0])
        )
        colour = ("Red", "Green", "Blue")[band - 1]
        bands.append(
            f"<VRTRasterBand dataType='Byte' band='{band}'><ColorInterp>{colour}</ColorInterp>{sources}</VRTRasterBand>"
        )
    vrt_path.write_text(
        f"<VRTDataset rasterXSize='{width}' rasterYSize='{height}'><SRS>{escape(wkt)}</SRS>"
        f"<GeoTransform>{', '.join(map(str, transform))}</GeoTransform>{''.join(bands)}</VRTDataset>"
    )


def measure(scene_path: Path, folder: Path) -> tuple[float, float, float]:
    """Peak megabytes, CPU seconds and wall seconds of one run."""
    command = [sys.executable, "-m", "geoglnet", "predict", str(scene_path), "--progress", "none"]
    outputs = ["-o", str(folder / "labels.tif"), "--vector", str(folder / "polygons.gpkg"), "--overwrite"]
    started = time.monotonic()
    process = subprocess.Popen([*command, *outputs], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"predict failed on {scene_path}")
    return usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("sizes", nargs="+", help="WIDTHxHEIGHT, the first is what the others are compared with")
    args = parser.parse_args()
    first = None
    print("| scene px | peak MB | ratio | CPU s | wall s | source Mpx per CPU s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            width, height = map(int, size.split("x"))
            mosaic = Path(folder) / f"{size}.vrt"
            write_mosaic(args.scene, width, height, mosaic)
            peak, cpu, wall = measure(mosaic, Path(folder))
            first = first or peak
            print(f"| {size} | {peak:.0f} | {peak / first:.2f} | {cpu:.0f} | {wall:.0f} | {width * height / 1e6 / cpu:.2f} |")


if __name__ == "__main__":
    main()
