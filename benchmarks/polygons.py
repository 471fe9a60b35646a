"""Polygons of large label rasters: ours beside GDAL's polygonize and beside reading the whole raster.

Usage: python benchmarks/polygons.py 8192 100000x8192 [--rasters smooth busy] [--types uint8 int32 …] [--methods exact gdal …]
       [--folder DIR]

The rasters are a random pattern of six classes, 4096² and periodic, repeated; of other types than bytes, codes that bytes do
not hold. Every method runs in a process of its own:

* ``exact``, ``simplify`` (1.5 px), ``workers`` (exact, in two processes): ``geoglnet.vectorize`` into a GeoPackage with areas,
  perimeters, spatial index and style.
* ``gdal``: GDAL's polygonize (the library in rasterio) into a GeoPackage in one transaction, spatial index included; no areas.
* ``whole``: read the raster, ``rasterio.features.shapes``, a GeoDataFrame, a GeoPackage: what most tools do.

CPU seconds are user and system time of all processes; memory is the largest sum of resident sizes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

PATTERN = 4096
LARGEST_FILE = 50_000  # pixels along a side
BLURS = {"smooth": 21.0, "busy": 6.3}
CODES = {
    "uint8": (0, 1, 2, 3, 4, 5),
    "uint16": (0, 111, 523, 9022, 40_000, 65_535),
    "int32": (0, -9_999, 111, 70_000, -(2**31), 2**31 - 1),
}
METHODS = ("exact", "simplify", "workers", "gdal", "whole")


def make_raster(path: Path, width: int, height: int, blur: float, dtype: str = "uint8") -> None:
    """The pattern repeated, as one GeoTIFF; ten gigapixels are a VRT of the pattern instead."""
    import rasterio
    from rasterio.windows import Window

    pattern = np.array(CODES[dtype], dtype)[make_pattern(blur)]
    place = {"crs": "EPSG:32645", "transform": rasterio.Affine(0.5, 0, 300000, 0, -0.5, 4600000)}
    profile = {"driver": "GTiff", "count": 1, "dtype": dtype, "tiled": True, "blockxsize": 512, "blockysize": 512}
    profile |= {"compress": "DEFLATE", "zlevel": 1, "bigtiff": "IF_SAFER"} | place
    is_large = max(width, height) > LARGEST_FILE
    file = path.with_suffix(".pattern.tif") if is_large else path
    shape = (PATTERN, PATTERN) if is_large else (height, width)
    with rasterio.open(file, "w", height=shape[0], width=shape[1], **profile) as dst:
        for row, col, rows, cols in repeats(*shape):
            dst.write(pattern[:rows, :cols], 1, window=Window(col, row, cols, rows))
    if is_large:
        write_mosaic(path, file, (height, width), place)


def make_pattern(blur: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    best, labels = np.full((PATTERN, PATTERN), -np.inf, np.float32), np.zeros((PATTERN, PATTERN), np.uint8)
    for value in range(6):
        field = gaussian_filter(rng.standard_normal((PATTERN, PATTERN), np.float32), blur, mode="wrap")
        labels[field > best] = value
        np.maximum(best, field, out=best)
    return labels


def repeats(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Row, column, height and width of every place where the pattern goes."""
    starts = [(row, col) for row in range(0, height, PATTERN) for col in range(0, width, PATTERN)]
    return [(row, col, min(PATTERN, height - row), min(PATTERN, width - col)) for row, col in starts]


def write_mosaic(path: Path, pattern_path: Path, shape: tuple[int, int], place: dict) -> None:
    sources = "".join(
        f"<SimpleSource><SourceFilename>{pattern_path}</SourceFilename><SourceBand>1</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{col}" yOff="{row}" xSize="{width}" ySize="{height}"/></SimpleSource>'
        for row, col, height, width in repeats(*shape)
    )
    transform = ", ".join(map(str, place["transform"].to_gdal()))
    path.write_text(
        f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}"><SRS>{place["crs"]}</SRS><GeoTransform>{transform}'
        f'</GeoTransform><VRTRasterBand dataType="Byte" band="1">{sources}</VRTRasterBand></VRTDataset>',
        encoding="utf-8",
    )


def trace_ours(labels: str, out: str, method: str) -> int:
    import rasterio

    from geoglnet.legend import Legend
    from geoglnet.vector.polygonizer import vectorize
    from geoglnet.vector.settings import VectorConfig

    options = {"exact": {}, "simplify": {"simplify": "1.5px"}, "workers": {"workers": 2}}[method]
    with rasterio.open(labels) as src:
        are_bytes = src.dtypes[0] == "uint8"
    if are_bytes:
        legend = Legend(tuple(f"class {i}" for i in range(6)), tuple((40 * i, 0, 0) for i in range(6)))
        return vectorize(labels, out, legend=legend, config=VectorConfig(**options))
    from geoglnet.vector.values import RasterValues

    return vectorize(labels, out, values=RasterValues(background="none"), config=VectorConfig(**options))


def gdal_library() -> ctypes.CDLL:
    """GDAL as rasterio brings it, to be called as C."""
    import rasterio

    (library,) = Path(rasterio.__file__).parent.with_name("rasterio.libs").glob("libgdal*")
    gdal = ctypes.CDLL(str(library))
    gdal.GDALOpen.restype = ctypes.c_void_p
    gdal.GDALAllRegister()
    return gdal


def trace_gdal(labels: str, out: str, layer: str = "out") -> int:
    """GDALPolygonize of the library that rasterio brings."""
    gdal, pointer = gdal_library(), ctypes.c_void_p
    for name in ("GDALGetRasterBand", "GDALGetDriverByName", "GDALCreate", "GDALDatasetCreateLayer"):
        getattr(gdal, name).restype = pointer
    for name in ("OGR_Fld_Create", "GDALGetSpatialRef"):
        getattr(gdal, name).restype = pointer
    gdal.OGR_L_GetFeatureCount.restype = ctypes.c_int64
    src = pointer(gdal.GDALOpen(labels.encode(), 0))
    driver = pointer(gdal.GDALGetDriverByName(b"GPKG"))
    dst = pointer(gdal.GDALCreate(driver, out.encode(), 0, 0, 0, 0, None))
    made = pointer(gdal.GDALDatasetCreateLayer(dst, layer.encode(), pointer(gdal.GDALGetSpatialRef(src)), 3, None))
    field = pointer(gdal.OGR_Fld_Create(b"class_id", 0))
    gdal.OGR_L_CreateField(made, field, 1)
    gdal.GDALDatasetStartTransaction(dst, 0)
    failed = gdal.GDALPolygonize(pointer(gdal.GDALGetRasterBand(src, 1)), None, made, 0, None, None, None)
    gdal.GDALDatasetCommitTransaction(dst)
    count = int(gdal.OGR_L_GetFeatureCount(made, 1))
    gdal.GDALClose(dst)
    return -1 if failed else count


def trace_whole(labels: str, out: str) -> int:
    import geopandas
    import rasterio
    from rasterio.features import shapes
    from shapely.geometry import shape

    with rasterio.open(labels) as src:
        traced = [{"geometry": shape(g), "class_id": int(v)} for g, v in shapes(src.read(1), transform=src.transform)]
        frame = geopandas.GeoDataFrame(traced, crs=src.crs)
    frame.to_file(out, driver="GPKG")
    return len(frame)


def run_method(labels: Path, out: Path, method: str, program: str = __file__) -> tuple[int, float, float, float]:
    """Polygons, CPU seconds, peak megabytes and wall seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, program, "--one", method, str(labels), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = [0.0]
    watch = threading.Thread(target=watch_memory, args=(process, peak), daemon=True)
    watch.start()
    text, _ = process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return int(text.split()[-1]) if process.returncode == 0 else -1, seconds, peak[0], time.monotonic() - started


def watch_memory(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(resident_mb(pid) for pid in (process.pid, *children(process.pid))))
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    try:
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split())]
    except OSError:
        return []


def resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+")
    parser.add_argument("--rasters", nargs="+", choices=BLURS, default=[*BLURS])
    parser.add_argument("--types", nargs="+", choices=CODES, default=["uint8"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    print(
        "| raster | method | polygons | CPU s | Mpx per CPU s | peak MB | wall s |\n|---|---|---|---|---|---|---|", flush=True
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for size in arguments.sizes:
            for raster in arguments.rasters:
                for dtype in arguments.types:
                    measure(Path(name), size, raster, dtype, arguments.methods)


def measure(folder: Path, size: str, raster: str, dtype: str, methods: list[str]) -> None:
    labels, out = folder / "labels.tif", folder / "out.gpkg"
    width, height = map(int, size.split("x") if "x" in size else (size, size))
    make_raster(labels, width, height, BLURS[raster], dtype)
    for method in methods:
        count, seconds, peak, wall = run_method(labels, out, method)
        row = f"{count:,} | {seconds:.1f} | {width * height / 1e6 / seconds:.1f} | {peak:.0f} | {wall:.0f}"
        print(f"| {raster} {dtype} {width} × {height} | {method} | {row} |", flush=True)
        for left in folder.glob("out.*"):
            left.unlink()


def run_one(method: str, labels: str, out: str) -> None:
    trace = {"gdal": trace_gdal, "whole": trace_whole}.get(method)
    print(trace(labels, out) if trace else trace_ours(labels, out, method))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run_one(*sys.argv[2:5])
    else:
        main()
