"""Adaptation of models to a country that they never saw: 10, 30 and 100 polygons, several seeds and recipes, one row per cell.

    python benchmarks/adaptation.py DATA OUT --bases FOLDER [--cell banepa,30,0,adapt] [--imagenet mobilenet_v2.safetensors]
    python benchmarks/adaptation.py DATA OUT --table

DATA holds oam_buildings (and dubai_landcover for the cells of `dubai`). FOLDER holds a model trained without each country,
`without_banepa.safetensors` and so on; `buildings` stands in where one is missing and `--shipped` is given, and of `dubai` the
base is the shipped `landcover`.

A cell adapts with N polygons of the country's largest scene: all whose middles lie in a part of it at a corner that the seed
chooses. That part is the area that was looked at. It is scored on what lies beyond the part of the largest N, and on all other
scenes of the country, by the base and by what was made of it. Each cell is a process of its own, whose CPU time and peak memory
are kept, and a JSON file in OUT; what is there is not computed again. Without --cell all missing ones are, one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
from PIL import Image

import geoglnet
from geoglnet.adaptation.held_out import measure
from geoglnet.adaptation.tally import MEASURES, Tally, joined
from geoglnet.prediction.source import Source

SCENES = {
    "zanzibar": ("zanzibar_tz_a",),
    "kampala": ("kampala_ug_a", "kampala_ug_b"),
    "catanduanes": ("catanduanes_ph_b", "catanduanes_ph_a"),
    "banepa": ("banepa_np_c", "banepa_np_a", "banepa_np_b"),
}
"""Scenes of each country; the first is adapted to."""
COUNTS, SEEDS = (10, 30, 100), (0, 1, 2)
CORNERS = (("left", "top"), ("right", "bottom"), ("left", "bottom"), ("right", "top"))
FEWEST_LEFT = 20  # polygons of the adapted scene that are left to score on, where the country has no other scene
WHOLE: dict[str, Any] = {"rehearse": 0.0, "share": 0.0, "is_forced": True}
RECIPES: dict[str, dict[str, Any]] = {
    "adapt": {},  # the defaults
    "no-choice": {"share": 0.0},
    "half": {"share": 0.5},
    "no-rehearsal": {"rehearse": 0.0},
    "keep": {"keep": 1.0},
    "keep-strong": {"keep": 5.0},
    "fast": {"optim": {"local_learning_rate": 3e-4}},
    "slow": {"optim": {"local_learning_rate": 3e-5}},
    "more-steps": {"steps": 120},
    "statistics": {"optim": {"frozen": ["global"]}},
    "decoder": {"optim": {"frozen": ["global", "statistics", "backbone"]}},
    "both-branches": {"optim": {"frozen": ["statistics"]}},
    "refit": {"is_refit": True},
    "refit-parted": {"is_refit": True, "is_parted": True},
    "parted": {"is_parted": True},
    "parted-keep": {"is_parted": True, "keep": 1.0},
    "forced": {"is_forced": True},
    # Beside: everything trained on at a usual rate, and from ImageNet with the same number of steps.
    "naive": WHOLE | {"optim": {"frozen": [], "global_learning_rate": 1e-3, "local_learning_rate": 1e-3}},
    "imagenet": WHOLE | {"optim": {"frozen": [], "global_learning_rate": 1e-3, "local_learning_rate": 1e-3}},
}
TILES = {"learn": ("t4_001", "t5_001", "t6_001", "t7_001"), "score": tuple(f"t2_00{n}" for n in range(1, 10))}
DUBAI = {1: "building", 2: "land", 3: "road", 4: "vegetation", 5: "water"}


@dataclass(frozen=True)
class Cell:
    """One adaptation."""

    country: str
    count: int
    seed: int
    recipe: str

    @property
    def name(self) -> str:
        return f"{self.country}-{self.count}-{self.seed}-{self.recipe}"


@dataclass(frozen=True)
class Task:
    """A scene with what is drawn on it and the area that was looked at."""

    scene: Path
    polygons: Path
    area: Path | None


def corner_box(bounds: Any, corner: tuple[str, str], share: float) -> shapely.Polygon:
    """The part of a rectangle within a share of its sides from one corner."""
    left, bottom, right, top = bounds
    width, height = share * (right - left), share * (top - bottom)
    x = left if corner[0] == "left" else right - width
    y = bottom if corner[1] == "bottom" else top - height
    return shapely.box(x, y, x + width, y + height)


def distances(polygons: geopandas.GeoDataFrame, bounds: Any, corner: tuple[str, str]) -> np.ndarray:
    """The share of the sides of a rectangle that its part at a corner needs to hold each polygon's middle."""
    left, bottom, right, top = bounds
    x = (polygons.centroid.x.to_numpy() - left) / (right - left)
    y = (polygons.centroid.y.to_numpy() - bottom) / (top - bottom)
    return np.maximum(x if corner[0] == "left" else 1 - x, y if corner[1] == "bottom" else 1 - y)


def tasks_of(data: Path, work: Path, cell: Cell) -> tuple[Task, list[Task], int]:
    """What a cell adapts to, what it is scored on, and how many polygons it really has."""
    if cell.country == "dubai":
        return canvas(data, work, "learn"), [canvas(data, work, "score")], len(TILES["learn"])
    names = SCENES[cell.country]
    paths = [next((data / "oam_buildings").glob(f"*/{name}.tif")) for name in names]
    with rasterio.open(paths[0]) as src:
        bounds, crs = src.bounds, src.crs
    polygons = geopandas.read_file(paths[0].with_suffix(".geojson")).to_crs(crs)
    whole = shapely.box(*bounds)
    polygons = polygons[polygons.centroid.within(whole)]
    corner = CORNERS[cell.seed % len(CORNERS)]
    order = np.sort(distances(polygons, bounds, corner))
    most = min(max(COUNTS), len(order) - (FEWEST_LEFT if len(names) == 1 else 0))
    ends = [float(order[n - 1] + 1e-6) if n < len(order) else 1.0 for n in (min(cell.count, most), most)]
    learn = written(work, "learn", polygons, corner_box(bounds, corner, ends[0]), crs, paths[0])
    scored = [Task(path, path.with_suffix(".geojson"), whole_area(work, path)) for path in paths[1:]]
    if ends[1] < 1:
        rest = whole.difference(corner_box(bounds, corner, ends[1]))
        scored.insert(0, written(work, "score", polygons, rest, crs, paths[0]))
    return learn, scored, min(cell.count, most)


def written(work: Path, name: str, polygons: geopandas.GeoDataFrame, area: shapely.Polygon, crs: Any, scene: Path) -> Task:
    """Write the polygons whose middles lie in an area, and the area, cut where polygons that lie mostly outside begin."""
    inside = polygons[polygons.centroid.within(area)]
    inside[["geometry"]].to_file(work / f"{name}.gpkg")
    geopandas.GeoDataFrame(geometry=[area], crs=crs).to_file(work / f"{name}_area.gpkg")
    return Task(scene, work / f"{name}.gpkg", work / f"{name}_area.gpkg")


def whole_area(work: Path, path: Path) -> Path:
    """Write the outline of a scene."""
    with rasterio.open(path) as src:
        target = work / f"{path.stem}_area.gpkg"
        geopandas.GeoDataFrame(geometry=[shapely.box(*src.bounds)], crs=src.crs).to_file(target)
    return target


def canvas(data: Path, work: Path, part: str) -> Task:
    """Put tiles of Dubai, which lie nowhere, into one image with their labels as polygons; 0 is nothing."""
    from rasterio.features import shapes

    images, masks = [], []
    for tile in TILES[part]:
        path = next((data / "dubai_landcover").glob(f"*/{tile}.jpg"))
        images.append(np.asarray(Image.open(path).convert("RGB")))
        masks.append(np.asarray(Image.open(path.with_name(f"{tile}_mask.png"))))
    gap = 64
    height, width = sum(i.shape[0] + gap for i in images), max(i.shape[1] for i in images)
    image, mask = np.zeros((3, height, width), np.uint8), np.zeros((height, width), np.uint8)
    row = 0
    for one, labels in zip(images, masks, strict=True):
        image[:, row : row + one.shape[0], : one.shape[1]] = np.clip(np.moveaxis(one, -1, 0), 1, 255)
        mask[row : row + one.shape[0], : one.shape[1]] = labels
        row += one.shape[0] + gap
    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8", "nodata": 0}
    with rasterio.open(work / f"{part}.tif", "w", **profile) as dst:
        dst.write(image)
    found = [(shapely.geometry.shape(s), DUBAI[int(v)]) for s, v in shapes(mask, mask > 0) if int(v) in DUBAI]
    frame = geopandas.GeoDataFrame({"class": [n for _, n in found]}, geometry=[g for g, _ in found])
    frame[frame.area > 50].to_file(work / f"{part}.gpkg")  # pixels; smaller ones are noise of the masks
    return Task(work / f"{part}.tif", work / f"{part}.gpkg", None)


def base_of(bases: Path | None, country: str, *, shipped: bool) -> str:
    """The model that never saw a country."""
    if country == "dubai":
        return "landcover"
    path = (bases or Path()) / f"without_{country}.safetensors"
    if path.is_file():
        return str(path)
    if shipped:
        return "buildings"
    sys.exit(f"no {path}; train it, or pass --shipped")


def blank(base: str, imagenet: Path, path: Path) -> str:
    """Make a model like the base, with ImageNet's weights in its backbones and random ones elsewhere."""
    import torch

    from geoglnet.models.backbone import load_backbone_weights
    from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
    from geoglnet.models.network import build_network
    from geoglnet.models.shipped import model_path

    _, manifest = load_checkpoint(model_path(base))
    torch.manual_seed(0)
    network = build_network(manifest.model)
    for backbone in network.backbones():
        load_backbone_weights(backbone, str(imagenet), manifest.bands.names)
    save_checkpoint(path, network, manifest, overwrite=True)
    return str(path)


def scored(model: str, tasks: list[Task]) -> Tally:
    """Score a model on tasks together."""
    return joined([measure(model, Source.of(t.scene), t.polygons, area_path=t.area) for t in tasks])


def plain(tally: Tally) -> dict[str, Any]:
    """Means, and each class of more than one."""
    classes = {n: dict(zip(tally.legend.names, v.tolist(), strict=True)) for n, v in tally.per_class().items()}
    return tally.means() | ({"classes": classes} if len(tally.legend.polygon_values) > 1 else {})


def adapt_cell(work: Path, base: str, learn: Task, cell: Cell, settings: dict[str, Any], minutes: float) -> None:
    """Run in a process of its own: adapt, and leave the facts."""
    legend = ["building", "land", "road", "vegetation", "water"] if cell.country == "dubai" else None
    done = geoglnet.adapt(
        base,
        learn.scene,
        learn.polygons,
        work / "new.safetensors",
        area_path=learn.area,
        legend=legend,
        seed=cell.seed,
        minutes=minutes,
        settings=settings,
        overwrite=True,
    )
    (work / "facts.json").write_text(json.dumps(done.outcome.facts))


def run_cell(args: argparse.Namespace, cell: Cell) -> dict[str, Any]:
    """Adapt in a child, score base and result, and write the row."""
    work = args.out / "work" / cell.name
    work.mkdir(parents=True, exist_ok=True)
    base = base_of(args.bases, cell.country, shipped=args.shipped)
    learn, tasks, used = tasks_of(args.data, work, cell)
    start = base
    if cell.recipe == "imagenet":
        start = blank(base, args.imagenet, work / "imagenet.safetensors")
    job = {"base": start, "learn": [str(p) if p else None for p in (learn.scene, learn.polygons, learn.area)]}
    job |= {"minutes": args.minutes, "cell": [cell.country, cell.count, cell.seed, cell.recipe]}
    (work / "job.json").write_text(json.dumps(job))
    began = time.monotonic()
    child = subprocess.Popen([sys.executable, "-W", "ignore", __file__, str(args.data), str(args.out), "--child", str(work)])
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{cell.name}: the adaptation failed")
    row = {
        "country": cell.country,
        "count": cell.count,
        "used": used,
        "seed": cell.seed,
        "recipe": cell.recipe,
        "base": base,
        "wall_s": round(time.monotonic() - began, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "facts": json.loads((work / "facts.json").read_text()),
    }
    # The base is scored once for all recipes of the same division.
    kept = args.out / "work" / f"base-{cell.country}-{cell.seed}.json"
    if cell.country == "dubai":
        row["before"] = {}
    elif kept.is_file():
        row["before"] = json.loads(kept.read_text())
    else:
        row["before"] = plain(scored(base, tasks))
        kept.write_text(json.dumps(row["before"]))
    row["after"] = plain(scored(str(work / "new.safetensors"), tasks))
    if args.forgetting and cell.country != "dubai":
        others = [n for c, names in SCENES.items() if c != cell.country for n in names[:1]]
        paths = [next((args.data / "oam_buildings").glob(f"*/{name}.tif")) for name in others]
        old = [Task(p, p.with_suffix(".geojson"), whole_area(work, p)) for p in paths]
        row["forgetting"] = {"before": plain(scored(base, old)), "after": plain(scored(str(work / "new.safetensors"), old))}
    return row


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """Cells that are asked for."""
    if args.cell:
        country, count, seed, recipe = args.cell.split(",")
        yield Cell(country, int(count), int(seed), recipe)
        return
    for seed in args.seeds:
        for count in args.counts:
            for recipe in args.recipes:
                for country in args.countries:
                    yield Cell(country, count, seed, recipe)


def print_table(out: Path) -> None:
    """Mean ± sd over seeds of each measure before and after, per country, count and recipe, and the mean over countries."""
    rows = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["recipe"], row["count"], row["country"]].append(row)
        if row["country"] != "dubai":
            groups[row["recipe"], row["count"], "all"].append(row)
    print(
        "| recipe | polygons | country | n | kept | "
        + " | ".join(f"{m}: before → after (gain ± sd)" for m in MEASURES)
        + " | s | MB |"
    )
    print("|---" * (7 + len(MEASURES)) + "|")
    for (recipe, count, country), members in sorted(groups.items()):
        parts = []
        for name in MEASURES:
            after = np.array([r["after"][name] for r in members], float)
            before = np.array([r["before"].get(name, np.nan) for r in members], float)
            gains = after - before
            if country == "all":  # of each seed, the mean over countries
                seeds = sorted({r["seed"] for r in members})
                gains = np.array([np.mean([g for g, r in zip(gains, members, strict=True) if r["seed"] == s]) for s in seeds])
            sd = gains.std(ddof=1) if len(gains) > 1 else float("nan")
            parts.append(f"{before.mean():.3f} → {after.mean():.3f} ({gains.mean():+.3f} ± {sd:.3f})")
        kept = sum(r["facts"]["is_better"] for r in members)
        wall, peak = max(r["wall_s"] for r in members), max(r["peak_mb"] for r in members)
        print(
            f"| {recipe} | {count} | {country} | {len(members)} | {kept} | " + " | ".join(parts) + f" | {wall:.0f} | {peak} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bases", type=Path)
    parser.add_argument("--shipped", action="store_true", help="use `buildings` where a base is missing")
    parser.add_argument("--imagenet", type=Path, help="weights of MobileNetV2, for the recipe `imagenet`")
    parser.add_argument("--cell", help="COUNTRY,POLYGONS,SEED,RECIPE")
    parser.add_argument("--countries", nargs="+", default=[*SCENES])
    parser.add_argument("--counts", nargs="+", type=int, default=[*COUNTS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[*SEEDS])
    parser.add_argument("--recipes", nargs="+", default=["adapt"], choices=[*RECIPES])
    parser.add_argument("--forgetting", action="store_true", help="score the first scene of the other countries too")
    parser.add_argument("--minutes", type=float, default=60, help="more than enough: machines are shared, steps must not vary")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        job = json.loads((args.child / "job.json").read_text())
        scene, polygons, area = (Path(p) if p else None for p in job["learn"])
        cell = Cell(*job["cell"])
        adapt_cell(args.child, job["base"], Task(scene, polygons, area), cell, RECIPES[cell.recipe], job["minutes"])  # type: ignore[arg-type]
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for cell in () if args.table else cells(args):
        path = args.out / f"{cell.name}.json"
        if path.is_file():
            continue
        row = run_cell(args, cell)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(row, indent=1))
        part.rename(path)
        gains = ", ".join(f"{n} {row['before'].get(n, float('nan')):.3f} → {row['after'][n]:.3f}" for n in MEASURES)
        print(f"{cell.name} ({row['used']} polygons, {row['wall_s']} s, {row['peak_mb']} MB): {gains}", flush=True)
    print_table(args.out)


if __name__ == "__main__":
    main()
