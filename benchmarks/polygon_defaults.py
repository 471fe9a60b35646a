"""Choose a temperature and the settings of polygons on countries that a model never saw, and score them on yet another one.

    OMP_NUM_THREADS=1 python benchmarks/polygon_defaults.py OUT --data DATA --bases FOLDER [--table]

DATA holds oam_buildings, FOLDER the models of `benchmarks/left_out.py`. Every scene of a country is predicted with the model
that did not learn from it, once; OUT keeps probabilities and one JSON of scores per scene. Temperatures are fitted to the
likelihood of the labels; settings are those of the best mean F1 of polygons over countries. What is shown of a country is
chosen on the three others. A polygon is found where it and a true one share more than half of their union.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
from adaptation import SCENES
from rasterio.features import rasterize

import geoglnet
from geoglnet.vector.settings import VectorConfig

TEMPERATURES = np.round(np.geomspace(0.3, 2.0, 39), 3)
SHAPES = {
    "pixels": {},
    "filled": {"fill_holes": True},
    "opened 1": {"fill_holes": True, "opening": 1},
    "opened 2": {"fill_holes": True, "opening": 2},
    "opened 4": {"fill_holes": True, "opening": 4},
    "opened 6": {"fill_holes": True, "opening": 6},
    "opened 8": {"fill_holes": True, "opening": 8},
    "regular": {"fill_holes": True, "simplify": "1px", "regularize": True},
    "regular, opened 2": {"fill_holes": True, "opening": 2, "simplify": "1px", "regularize": True},
}
LEAST_AREAS = (0, 2, 5, 8, 12, 20)
LEAST_CONFIDENCES = (0, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
BINS = 15


def predict_scene(model: str, scene: Path, folder: Path) -> None:
    """Write the labels and the probability of buildings, unless they are there."""
    if not (folder / "probabilities.tif").exists():
        folder.mkdir(parents=True, exist_ok=True)
        geoglnet.predict(
            scene, folder / "labels.tif", probabilities_path=folder / "probabilities.tif", model=model, overwrite=True
        )


def read_case(scene: Path, folder: Path) -> tuple[np.ndarray, np.ndarray, geopandas.GeoDataFrame, dict[str, Any]]:
    """Read probabilities of buildings (NaN where there is no class), truth, and the true polygons inside the scene."""
    with rasterio.open(folder / "probabilities.tif") as src:
        stored, profile, bounds, crs = src.read(2), src.profile, src.bounds, src.crs
    truth = geopandas.read_file(scene.with_suffix(".geojson")).to_crs(crs)
    truth.geometry = truth.geometry.make_valid()
    truth = truth[truth.geometry.area > 0].clip(shapely.box(*bounds), keep_geom_type=True)
    labels = rasterize(truth.geometry, out_shape=stored.shape, transform=profile["transform"], fill=0, default_value=1)
    probability = np.where(stored == 255, np.nan, np.clip(stored / 254, 1e-3, 1 - 1e-3))
    return probability, labels, truth, profile


def at_temperature(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logit."""
    return 1 / (1 + np.exp(-np.log(probability / (1 - probability)) / temperature))


def likelihoods(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean negative log likelihood by temperature."""
    known = np.isfinite(probability)
    p, y = probability[known], labels[known] == 1
    values = np.linspace(0, 1, 255)  # few distinct ones: count instead of computing millions of logarithms
    kind = np.clip(np.round(p * 254), 0, 254).astype(int)
    yes, no = np.bincount(kind[y], minlength=255), np.bincount(kind[~y], minlength=255)
    values = np.clip(values, 1e-3, 1 - 1e-3)
    found = []
    for temperature in TEMPERATURES:
        scaled = at_temperature(values, temperature)
        found.append(-(yes @ np.log(scaled) + no @ np.log1p(-scaled)) / len(p))
    return np.array(found)


def calibration_error(probability: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance between the confidence of the chosen class and how often it is right, over equal bins."""
    known = np.isfinite(probability)
    p, y = probability[known], labels[known] == 1
    confidence, right = np.maximum(p, 1 - p), (p > 0.5) == y
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=w, minlength=BINS) for w in (confidence, right.astype(float))]
    return float(np.abs(sums[0] - sums[1]).sum() / count.sum())


def matched(found: geopandas.GeoDataFrame, truth: geopandas.GeoDataFrame) -> np.ndarray:
    """Which polygons share more than half of their union with a true one."""
    ours, theirs = (shapely.make_valid(frame.geometry.to_numpy()) for frame in (found, truth))
    one, other = shapely.STRtree(theirs).query(ours, predicate="intersects")
    shared = shapely.area(shapely.intersection(ours[one], theirs[other]))
    union = shapely.area(ours[one]) + shapely.area(theirs[other]) - shared
    hit = np.zeros(len(ours), bool)
    hit[one[shared > 0.5 * union]] = True  # above one half there is one at most, on either side
    return hit


def score_shapes(folder: Path, scene: Path, temperature: float) -> dict[str, Any]:
    """Count polygons found, false and missed by shape, least area and least confidence."""
    probability, _, truth, profile = read_case(scene, folder)
    scaled = at_temperature(probability, temperature)
    confidence = np.where(np.isfinite(scaled), np.round(np.maximum(scaled, 1 - scaled) * 254), 255).astype(np.uint8)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255} | {
        name: profile[name] for name in ("height", "width", "transform", "crs")
    }
    with rasterio.open(folder / "confidence.tif", "w", **profile) as dst:
        dst.write(confidence, 1)
    counts: dict[str, Any] = {}
    for shape, settings in SHAPES.items():
        vector = folder / "polygons.gpkg"
        geoglnet.vectorize(
            folder / "labels.tif",
            vector,
            confidence_path=folder / "confidence.tif",
            config=VectorConfig(**settings),
            overwrite=True,
        )
        found = geopandas.read_file(vector, layer=0)
        found = found[found["class_name"] == "building"]
        hit = matched(found, truth)
        for area, least in itertools.product(LEAST_AREAS, LEAST_CONFIDENCES):
            kept = (found["area_m2"].to_numpy() >= area) & (found["confidence"].to_numpy() >= least)
            right = int(hit[kept].sum())
            counts[f"{shape}|{area}|{least}"] = [right, int(kept.sum()) - right, len(truth) - right]
    km2 = float(np.isfinite(probability).sum()) * abs(profile["transform"].determinant) / 1e6
    return {"counts": counts, "km2": km2}


def cases(args: argparse.Namespace) -> Iterator[tuple[str, Path, Path]]:
    for country, names in SCENES.items():
        for name in names:
            yield country, next((args.data / "oam_buildings").glob(f"*/{name}.tif")), args.out / name


def f1(counts: list[int]) -> float:
    right, false, missed = counts
    return 2 * right / max(1, 2 * right + false + missed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bases", type=Path, required=True)
    args = parser.parse_args()
    fitted: dict[str, list[np.ndarray]] = {country: [] for country in SCENES}
    for country, scene, folder in cases(args):
        predict_scene(str(args.bases / f"without_{country}.safetensors"), scene, folder)
        probability, labels, *_ = read_case(scene, folder)
        fitted[country].append(likelihoods(probability, labels))
    losses = {country: np.mean(rows, axis=0) for country, rows in fitted.items()}

    def best_temperature(without: str = "") -> float:
        return float(TEMPERATURES[np.mean([loss for c, loss in losses.items() if c != without], axis=0).argmin()])

    print("| scene | temperature | of the three others | calibration error: before → after |\n|---|---|---|---|")
    scored: dict[str, list[dict[str, Any]]] = {country: [] for country in SCENES}
    for country, scene, folder in cases(args):
        own, other = float(TEMPERATURES[losses[country].argmin()]), best_temperature(country)
        probability, labels, *_ = read_case(scene, folder)
        errors = [calibration_error(p, labels) for p in (probability, at_temperature(probability, other))]
        print(f"| {scene.stem} | {own:.2f} | {other:.2f} | {errors[0]:.3f} → {errors[1]:.3f} |", flush=True)
        kept = folder / f"scores-{other}.json"
        if not kept.exists():
            kept.write_text(json.dumps(score_shapes(folder, scene, other)))
        scored[country].append(json.loads(kept.read_text()))
    print(f"temperature by all four: {best_temperature():.2f}\n")
    keys = list(scored["banepa"][0]["counts"])
    sums = {c: {k: np.sum([s["counts"][k] for s in parts], axis=0).tolist() for k in keys} for c, parts in scored.items()}

    def best(without: str = "") -> str:
        return max(keys, key=lambda key: np.mean([f1(sums[c][key]) for c in sums if c != without]))

    raw = "pixels|0|0"
    print("| country | settings of the others | F1: pixels → settings | best there | false per km² |\n|---|---|---|---|---|")
    means = []
    for country, parts in scored.items():
        key, own = best(country), max(keys, key=lambda k: f1(sums[country][k]))
        km2 = sum(part["km2"] for part in parts)
        values = f1(sums[country][raw]), f1(sums[country][key])
        means.append(values)
        false = [sums[country][k][1] / km2 for k in (raw, key)]
        print(
            f"| {country} | {key} | {values[0]:.3f} → {values[1]:.3f} | {f1(sums[country][own]):.3f} ({own}) | "
            f"{false[0]:.0f} → {false[1]:.0f} |"
        )
    before, after = np.mean(means, axis=0)
    print(f"| mean | | {before:.3f} → {after:.3f} | | |\nby all four: {best()}\n")
    ranked = sorted(keys, key=lambda k: -np.mean([f1(sums[c][k]) for c in sums]))
    for key in [
        *ranked[:8],
        *(max((k for k in ranked if k.startswith(s + "|")), key=lambda k: -ranked.index(k)) for s in SHAPES),
    ]:
        print(f"{key}: " + ", ".join(f"{c} {f1(sums[c][key]):.3f}" for c in sums))


if __name__ == "__main__":
    main()
