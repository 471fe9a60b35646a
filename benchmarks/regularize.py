"""Building outlines before and after regularization, against polygons that people drew.

Usage: python benchmarks/regularize.py SCENE.tif TRUTH.geojson [SCENE TRUTH …] [--picture out.png]

Two sources of outlines: what the shipped model finds, and the truth itself burned into pixels (no model's errors). Each
outline is compared with the truth it overlaps with by at least half. Beside ours stands ``buildingregulariser`` where it is
installed. Reported are the mean IoU with the truth, vertices per building, and the median error of the dominant direction.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import rasterio
import shapely
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT

from geoglnet import predict, vectorize
from geoglnet.legend import Legend
from geoglnet.raster.scene import open_scene
from geoglnet.vector.polygon_reader import read_polygons
from geoglnet.vector.reshaping import dominant_direction, overlap
from geoglnet.vector.settings import VectorConfig

LEGEND = Legend(("background", "building"), ((0, 0, 0), (230, 75, 50)), background=0)
VARIANTS = {
    "as traced": {},
    "simplify 1.5px": {"simplify": "1.5px"},
    "regularize": {"regularize": True},
    "simplify + regularize": {"simplify": "1.5px", "regularize": True},
    "these, opened and filled": {"opening": 1, "fill_holes": True, "simplify": "1.5px", "regularize": True},
}


def true_buildings(path: str, crs: str) -> np.ndarray:
    """All polygons of a file, or those of the class ``building`` where there are classes (as in ``geoglnet demo``)."""
    has_classes = "class_name" in pyogrio.read_info(path, layer=0)["fields"]
    truth = read_polygons(path, crs, "class_name" if has_classes else None)
    return truth.geometries if truth.class_names is None else truth.geometries[np.array(truth.class_names) == "building"]


def burned_truth(scene_path: str, truth: np.ndarray, crs: str, path: Path) -> Path:
    with open_scene(scene_path, resolution_m=0.17) as scene:
        place = {"crs": scene.crs, "transform": scene.transform}
        shape = scene.shape
    frame = geopandas.GeoSeries(truth, crs=crs).to_crs(place["crs"])
    burned = rasterize(frame, out_shape=shape, transform=place["transform"]).astype(np.uint8)
    profile = {"driver": "GTiff", "count": 1, "height": shape.height, "width": shape.width, "dtype": "uint8"} | place
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(burned, 1)
    return path


def matched(outlines: np.ndarray, truth: np.ndarray) -> list[tuple[int, int, float]]:
    """Outline, truth and IoU of every pair with an IoU of at least one half."""
    tree = shapely.STRtree(truth)
    pairs = []
    for i, j in tree.query(outlines, predicate="intersects").T:
        iou = overlap(outlines[i], truth[j])
        if iou >= 0.5:
            pairs.append((int(i), int(j), iou))
    return pairs


def angle_error(outline: shapely.Polygon, truth: shapely.Polygon, pixel: float) -> float:
    difference = dominant_direction(outline, pixel) - dominant_direction(truth, 0.1)
    return abs((difference + 45) % 90 - 45)


def score(outlines: np.ndarray, truth: np.ndarray, pixel: float) -> dict[str, float]:
    pairs = matched(outlines, truth)
    errors = [angle_error(outlines[i], truth[j], pixel) for i, j, _ in pairs]
    points = shapely.get_num_coordinates(outlines[[i for i, _, _ in pairs]])
    return {
        "found": len({j for _, j, _ in pairs}),
        "IoU": float(np.mean([iou for _, _, iou in pairs])),
        "points": float(points.mean()),
        "angle": float(np.median(errors)),
        "angle_mean": float(np.mean(errors)),
    }


def outlines_of(labels: Path, options: dict, crs: str, folder: Path) -> np.ndarray:
    out = folder / "out.gpkg"
    vectorize(labels, out, legend=LEGEND, config=VectorConfig(min_area_m2=8, **options), overwrite=True)
    return read_polygons(out, crs).geometries


def foreign(outlines: np.ndarray, crs: str) -> np.ndarray | None:
    try:
        from buildingregulariser import regularize_geodataframe
    except ImportError:
        return None
    frame = geopandas.GeoDataFrame(geometry=outlines, crs=crs)
    done = regularize_geodataframe(frame, parallel_threshold=0.5, simplify_tolerance=0.3, num_cores=1)
    return np.asarray(done.explode().geometry.values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    print("| scene | outlines | variant | buildings | mean IoU | points | direction error, median / mean | s |")
    print("|---|---|---|---|---|---|---|---|")
    for scene, truth_path in zip(arguments.files[::2], arguments.files[1::2], strict=True):
        with tempfile.TemporaryDirectory() as name:
            compare(scene, truth_path, Path(name), arguments.picture)


def compare(scene: str, truth_path: str, folder: Path, picture: Path | None) -> None:
    with rasterio.open(scene) as src:
        crs = geopandas.GeoSeries([shapely.box(*src.bounds)], crs=src.crs).to_crs(4326).estimate_utm_crs()
    truth = true_buildings(truth_path, crs)
    predict(scene, folder / "labels.tif")
    burned = burned_truth(scene, truth, crs, folder / "truth.tif")
    for source, labels in (("model", folder / "labels.tif"), ("truth burned", burned)):
        results = {}
        for variant, options in VARIANTS.items():
            started = time.process_time()
            results[variant] = outlines_of(labels, options, crs, folder)
            report(scene, source, variant, score(results[variant], truth, 0.17), time.process_time() - started)
        started = time.process_time()
        other = foreign(results["as traced"], crs)
        if other is not None:
            report(scene, source, "buildingregulariser", score(other, truth, 0.17), time.process_time() - started)
            results["buildingregulariser"] = other
        if picture is not None:
            draw(picture.with_stem(f"{picture.stem}-{Path(scene).stem}-{source.split()[0]}"), scene, crs, results, truth)


def report(scene: str, source: str, variant: str, figures: dict[str, float], seconds: float) -> None:
    print(
        f"| {Path(scene).stem} | {source} | {variant} | {figures['found']:.0f} | {figures['IoU']:.3f} "
        f"| {figures['points']:.1f} | {figures['angle']:.1f}° / {figures['angle_mean']:.1f}° | {seconds:.2f} |"
    )


def draw(path: Path, scene: str, crs: str, results: dict[str, np.ndarray], truth: np.ndarray) -> None:
    """The 50 m around the middle building in every variant, over the scene."""
    import matplotlib.pyplot as plt

    centers = shapely.get_coordinates(shapely.centroid(truth))
    middle = centers[np.argmin(np.hypot(*(centers - np.median(centers, axis=0)).T))]
    west, south, east, north = *(middle - 25), *(middle + 25)
    place = {"transform": from_bounds(west, south, east, north, 500, 500), "width": 500, "height": 500}
    with rasterio.open(scene) as src, WarpedVRT(src, crs=crs, resampling=Resampling.bilinear, **place) as warped:
        image = warped.read([1, 2, 3])
    rows = -(-len(results) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(12, 4.2 * rows), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (variant, outlines) in zip(axes.flat, results.items(), strict=False):
        axis.imshow(image.transpose(1, 2, 0), extent=(west, east, south, north))
        geopandas.GeoSeries(truth).boundary.plot(ax=axis, color="white", linewidth=1)
        geopandas.GeoSeries(outlines).boundary.plot(ax=axis, color="red", linewidth=1.5)
        axis.set(title=variant, xlim=(west, east), ylim=(south, north))
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main()
