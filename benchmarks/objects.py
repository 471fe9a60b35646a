"""Rasters of millions of objects into polygons: every object in one row, areas equal to pixel counts, memory and CPU seconds.

Usage: python benchmarks/objects.py 16384 30000 [--side 13.4] [--classes] [--folder DIR]

The raster is uint32: cells of about ``side`` pixels whose borders a smooth field bends, each with a number of its own. After
the run, which is a process of its own, all rows are read back: numbers that occur twice or never, and areas that differ from
the count of pixels. Memory is the largest resident size, CPU seconds are user and system time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from polygons import run_method

PATTERN = 2048
BEND = 3.0  # pixels
STRIP = 1024


def bend(seed: int) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(np.random.default_rng(seed).standard_normal((PATTERN, PATTERN), np.float32), 4.0, mode="wrap")
    return (field / np.abs(field).max() * BEND).astype(np.float32)


def make_objects(path: Path, size: int, side: float, class_path: Path | None) -> np.ndarray:
    """Write the raster, and a raster of classes if there is to be one; return the pixels of every number."""
    import rasterio
    from rasterio.windows import Window

    down, across = bend(0), bend(1)
    per_row = int(size / side) + 2
    counts = np.zeros(per_row * per_row + 1, np.int64)
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": size,
        "width": size,
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
    }
    profile |= {"compress": "DEFLATE", "zlevel": 1, "crs": "EPSG:32645"}
    profile["transform"] = rasterio.Affine(0.5, 0, 300000, 0, -0.5, 4600000)
    classes = rasterio.open(class_path, "w", dtype="uint8", nodata=255, **profile) if class_path else None
    with rasterio.open(path, "w", dtype="uint32", **profile) as dst:
        for top in range(0, size, STRIP):
            height = min(STRIP, size - top)
            rows, cols = np.ogrid[top : top + height, :size]
            place = np.ix_(np.arange(top, top + height) % PATTERN, np.arange(size) % PATTERN)
            row = np.clip((rows + down[place] + BEND) / side, 0, per_row - 1).astype(np.int64)
            col = np.clip((cols + across[place] + BEND) / side, 0, per_row - 1).astype(np.int64)
            numbers = row * per_row + col + 1
            counts += np.bincount(numbers.ravel(), minlength=len(counts))
            dst.write(numbers.astype(np.uint32), 1, window=Window(0, top, size, height))
            if classes is not None:
                classes.write(
                    (rows // 700 + cols // 900 + row * 0).astype(np.uint8) % 6, 1, window=Window(0, top, size, height)
                )
    if classes is not None:
        classes.close()
    return counts


def trace(objects: str, out: str, method: str) -> int:
    from geoglnet.vector.polygonizer import vectorize
    from geoglnet.vector.values import RasterValues

    class_of = Path(objects).with_name("classes.tif")
    return vectorize(objects, out, values=RasterValues(instances=True, class_of=class_of if method == "classes" else None))


def faults(path: Path, counts: np.ndarray, pixel_area: float) -> tuple[int, int, int]:
    """Numbers that occur twice, numbers that are missing, and objects of another area."""
    import pyogrio
    import shapely

    seen, wrong = np.zeros(len(counts), np.int32), 0
    total = pyogrio.read_info(path, layer=path.stem)["features"]
    for start in range(0, total, 200_000):
        part = {"skip_features": start, "max_features": 200_000, "columns": ["object_id"]}
        _, _, wkb, (numbers,) = pyogrio.raw.read(path, layer=path.stem, **part)
        seen += np.bincount(numbers, minlength=len(counts))
        areas = shapely.area(shapely.from_wkb(wkb)) / pixel_area
        wrong += int((np.abs(areas - counts[numbers]) > 1e-3).sum())
    return int((seen > 1).sum()), int(((counts > 0) & (seen == 0)).sum()), wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+", type=int)
    parser.add_argument("--side", type=float, default=13.4)
    parser.add_argument("--classes", action="store_true", help="give every object the class that most of it has, too")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    print("| raster | objects | CPU s | peak MB | wall s | twice | missing | other area |\n" + "|---" * 8 + "|", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        objects, out = Path(name, "objects.tif"), Path(name, "out.gpkg")
        for size in arguments.sizes:
            class_path = Path(name, "classes.tif") if arguments.classes else None
            counts = make_objects(objects, size, arguments.side, class_path)
            method = "classes" if arguments.classes else "objects"
            count, seconds, peak, wall = run_method(objects, out, method, program=__file__)
            twice, missing, wrong = faults(out, counts, 0.25)
            print(
                f"| {size}² | {count:,} | {seconds:.0f} | {peak:.0f} | {wall:.0f} | {twice} | {missing} | {wrong} |", flush=True
            )
            out.unlink()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(trace(sys.argv[3], sys.argv[4], sys.argv[2]))
    else:
        main()
