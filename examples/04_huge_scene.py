"""Segment a scene larger than memory, stop half-way, go on: constant memory, and the same bytes in the end.

    python examples/04_huge_scene.py FOLDER --sides 8192 40000            # hours with --effort 1, minutes with --effort 0
    python examples/04_huge_scene.py FOLDER --scene mine.tif --sides 8192

A mosaic (a VRT, so no disk is needed) repeats the scene to squares of the given sides in pixels. Each is segmented by a process
of its own, whose peak memory the system tells. The last one is segmented once more, stopped when half of its patches are
done, and resumed; both results are compared byte by byte. Without --scene a scene is generated. On Linux and macOS only:
Windows has neither that figure nor Ctrl-C for another process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import rasterio
from rasterio.shutil import copy as copy_raster

import geoglnet


def write_mosaic(scene_path: Path, side: int, vrt_path: Path) -> None:
    """A VRT of ``side`` × ``side`` pixels that repeats a scene."""
    with rasterio.open(scene_path) as src:
        width, height = src.width, src.height
        copy_raster(src, vrt_path, driver="VRT")
    text = vrt_path.read_text(encoding="utf-8")
    sizes = f'rasterXSize="{width}" rasterYSize="{height}"'
    text = text.replace(sizes, f'rasterXSize="{side}" rasterYSize="{side}"')
    head, *bands = text.split("<SimpleSource>")
    for index, band in enumerate(bands):
        source, rest = band.split("</SimpleSource>")
        corners = [(x, y) for y in range(0, side, height) for x in range(0, side, width)]
        places = [source.replace('<DstRect xOff="0" yOff="0"', f'<DstRect xOff="{x}" yOff="{y}"') for x, y in corners]
        bands[index] = "".join(f"<SimpleSource>{place}</SimpleSource>" for place in places) + rest
    vrt_path.write_text(head + "".join(bands), encoding="utf-8")


def command(vrt_path: Path, labels_path: Path, *options: str) -> list[str]:
    words = [sys.executable, "-m", "geoglnet", "predict", str(vrt_path), "-o", str(labels_path), "--progress", "json"]
    return [*words, "--vector", str(labels_path.with_suffix(".gpkg")), *options]


def segment(words: list[str]) -> tuple[float, float]:
    """Peak megabytes and CPU seconds of a run of its own."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(words)}")
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024), usage.ru_utime + usage.ru_stime


def stop_half_way(words: list[str]) -> float:
    """Send Ctrl-C when half of the patches are done; the fraction that was."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    fraction = 0.0
    for line in process.stdout or ():
        event = json.loads(line)
        if event["event"] == "progress" and event["stage"] == "segment":
            fraction = event["fraction"]
            if fraction >= 0.5:
                process.send_signal(signal.SIGINT)
                break
    process.communicate()
    return fraction


def digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scene", type=Path, help="raster to repeat; one is generated when left out")
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192], help="sides of the mosaics in pixels")
    parser.add_argument("--effort", default="0", help="0: the global branch alone, fast; 1: every patch, as usual")
    args = parser.parse_args()
    if sys.platform == "win32":
        sys.exit("this example needs Linux or macOS")
    args.folder.mkdir(parents=True, exist_ok=True)
    scene_path = args.scene or geoglnet.demo(args.folder / "scene", shape=(1024, 1024), overwrite=True)

    print("scene px         peak MB   CPU s")
    for side in args.sides:
        vrt_path, labels_path = args.folder / f"{side}.vrt", args.folder / f"{side}.tif"
        write_mosaic(scene_path, side, vrt_path)
        peak_mb, cpu_s = segment(command(vrt_path, labels_path, "--effort", args.effort, "--overwrite"))
        print(f"{side:>6} × {side:<6} {peak_mb:>8.0f} {cpu_s:>7.0f}", flush=True)

    resumed_path = args.folder / "resumed.tif"
    words = command(vrt_path, resumed_path, "--effort", args.effort)
    fraction = stop_half_way([*words, "--overwrite"])
    kept = sorted(path.name for path in args.folder.glob("resumed.tif*"))
    print(f"stopped at {fraction:.0%}; there is {', '.join(kept)}")
    segment([*words, "--resume"])
    same = digest(labels_path) == digest(resumed_path)
    print(f"resumed: labels are {'the same bytes' if same else 'NOT the same bytes'} ({digest(resumed_path)})")
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
