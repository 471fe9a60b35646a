"""Whether the polygons of large label rasters are exactly those of GDAL, and whether simplified ones share all borders.

Usage: python benchmarks/polygons_exactness.py 8192 16384 predicted.tif … [--rasters smooth busy] [--folder DIR]

Numbers are the sizes of random patterns (see ``polygons.py``), names are label rasters; all their values become polygons.

* *GDAL*: polygons of GDAL's polygonize, which knows no tiles; *same*: of these, how many have the same class and outline,
  vertex by vertex, bit by bit, in ours.
* *burned back*: pixels that differ from the labels after GDAL has rasterized our polygons.
* *simplified by 1.5 px*: whether the whole file is a valid coverage (no overlap, all shared vertices shared); how much its
  area differs from that of the pixels (gaps); how many pixels' sides on tile lines are edges without a change of label.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely
from polygons import BLURS, gdal_library, make_raster, trace_gdal

from geoglnet.legend import Legend
from geoglnet.vector.polygonizer import vectorize
from geoglnet.vector.settings import VectorConfig
from geoglnet.windows import core_edges

TOLERANCE = "1.5px"
AT_ONCE = 200_000
NO_CLASS = 255


def iter_polygons_of(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Classes and geometries of a layer, some at a time."""
    count = pyogrio.read_info(path, layer=path.stem)["features"]
    for start in range(0, count, AT_ONCE):
        part = {"skip_features": start, "max_features": AT_ONCE}
        _, _, wkb, (classes,) = pyogrio.raw.read(path, layer=path.stem, columns=["class_id"], **part)
        yield classes, shapely.from_wkb(wkb)


def outlines_of(path: Path, values: np.ndarray) -> np.ndarray:
    """One sorted number per polygon that stands for its class and all its vertices."""
    numbers = []
    for classes, geometries in iter_polygons_of(path):
        chosen = np.isin(classes, values)
        wkb = shapely.to_wkb(shapely.normalize(geometries[chosen]))
        numbers += [hash(pair) for pair in zip(classes[chosen].tolist(), wkb.tolist(), strict=True)]
    return np.sort(np.array(numbers, dtype=np.int64))


def num_common(one: np.ndarray, other: np.ndarray) -> int:
    numbers, counts = np.unique(one, return_counts=True)
    others, other_counts = np.unique(other, return_counts=True)
    _, here, there = np.intersect1d(numbers, others, assume_unique=True, return_indices=True)
    return int(np.minimum(counts[here], other_counts[there]).sum())


def burn(polygons: Path, labels: Path, burned: Path) -> None:
    """GDAL's rasterize of the whole layer onto the labels' grid."""
    with rasterio.open(labels) as src:
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": src.height, "width": src.width}
        profile |= {"crs": src.crs, "transform": src.transform, "compress": "DEFLATE", "zlevel": 1, "tiled": True}
    with rasterio.open(burned, "w", **profile) as dst:
        for _, window in dst.block_windows(1):
            dst.write(np.full((window.height, window.width), NO_CLASS, np.uint8), 1, window=window)
    gdal, pointer = gdal_library(), ctypes.c_void_p
    gdal.GDALOpenEx.restype = gdal.GDALDatasetGetLayer.restype = pointer
    src, dst = (
        pointer(gdal.GDALOpenEx(str(polygons).encode(), 4, None, None, None)),
        pointer(gdal.GDALOpen(str(burned).encode(), 1)),
    )
    layers, bands = (pointer * 1)(gdal.GDALDatasetGetLayer(src, 0)), (ctypes.c_int * 1)(1)
    options = (ctypes.c_char_p * 2)(b"ATTRIBUTE=class_id", None)
    failed = gdal.GDALRasterizeLayers(dst, 1, bands, 1, layers, None, None, None, options, None, None)
    gdal.GDALClose(dst)
    gdal.GDALClose(src)
    if failed:
        raise SystemExit("GDAL cannot rasterize the polygons")


def num_different(one: Path, other: Path) -> int:
    with rasterio.open(one) as a, rasterio.open(other) as b:
        return sum(int((a.read(1, window=w) != b.read(1, window=w)).sum()) for _, w in a.block_windows(1))


def simplified(path: Path, labels: np.ndarray, transform: rasterio.Affine) -> tuple[bool, float, int]:
    """Whether it is a valid coverage, area beyond that of the pixels, and strays on tile lines."""
    geometries = np.concatenate([geometries for _, geometries in iter_polygons_of(path)])
    is_valid = bool(shapely.coverage_is_valid(geometries))
    back = ~transform
    pixels = shapely.transform(geometries, lambda points: np.round(np.column_stack(back @ points.T), 6))
    excess = float(shapely.area(pixels).sum()) - np.count_nonzero(labels != NO_CLASS)
    return is_valid, excess, strays(pixels, labels, 0) + strays(pixels, labels.T, 1)


def strays(geometries: np.ndarray, labels: np.ndarray, axis: int) -> int:
    """Pixels' sides on a tile line that belong to an edge and have the same label on both sides."""
    points, ring = shapely.get_coordinates(shapely.get_rings(geometries), return_index=True)
    lines = np.array(core_edges(labels.shape[1], VectorConfig().tile_size, 0)[1:-1])
    a, b = points[:-1], points[1:]
    on_line = (ring[:-1] == ring[1:]) & (a[:, axis] == b[:, axis]) & np.isin(a[:, axis], lines)
    count = 0
    for start, end in zip(a[on_line].astype(int), b[on_line].astype(int), strict=True):
        low, high = sorted((start[1 - axis], end[1 - axis]))
        count += int((labels[low:high, start[axis] - 1] == labels[low:high, start[axis]]).sum())
    return count


def compare(name: str, path: Path, folder: Path) -> None:
    with rasterio.open(path) as src:
        labels, transform = src.read(1), src.transform
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:NO_CLASS])
    num_classes = int(values.max()) + 1
    legend = Legend(tuple(f"class {i}" for i in range(num_classes)), tuple((i, 0, 0) for i in range(num_classes)))
    exact, gdal, burned, simple = (folder / f"{stem}" for stem in ("exact.gpkg", "gdal.gpkg", "burned.tif", "simple.gpkg"))
    count = vectorize(path, exact, legend=legend)
    trace_gdal(str(path), str(gdal), layer=gdal.stem)
    ours, theirs = outlines_of(exact, values), outlines_of(gdal, values)
    burn(exact, path, burned)
    vectorize(path, simple, legend=legend, config=VectorConfig(simplify=TOLERANCE))
    is_valid, excess, num_strays = simplified(simple, labels, transform)
    print(
        f"| {name} | {count:,} | {len(theirs):,} | {num_common(ours, theirs):,} | {num_different(path, burned):,} "
        f"| {'yes' if is_valid else 'NO'} | {excess:.3f} px | {num_strays} |",
        flush=True,
    )
    for made in (exact, gdal, burned, simple):
        made.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="+", help="sizes or label rasters")
    parser.add_argument("--rasters", nargs="+", choices=BLURS, default=[*BLURS])
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    print("| raster | polygons | GDAL | same | burned back | coverage valid | area beyond | strays |\n" + "|---" * 8 + "|")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for labels in arguments.labels:
            if not labels.isdigit():
                compare(Path(labels).name, Path(labels), folder)
                continue
            for raster in arguments.rasters:
                make_raster(folder / "labels.tif", int(labels), int(labels), BLURS[raster])
                compare(f"{raster} {labels}²", folder / "labels.tif", folder)


if __name__ == "__main__":
    main()
