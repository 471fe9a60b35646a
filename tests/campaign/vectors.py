"""Vector files of every geometry type and format, as masks and as polygons to train on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely

from tests.campaign.harness import Bench, Unmade
from tests.campaign.mutations import chance, pick, spoil_bytes, spoil_text, spoil_tree, to_json, to_toml
from tests.campaign.stock import CONFIG, MADE
from tests.campaign.targets import CRSS, TRAIN_S, Rng, patience

_WKTS = (
    "POINT (500010 4999990)", "MULTIPOINT (500010 4999990, 500020 4999980)", "LINESTRING (500000 5000000, 500080 4999940)",
    "POLYGON ((500010 4999990, 500060 4999990, 500060 4999950, 500010 4999950, 500010 4999990))",
    "POLYGON Z ((500010 4999990 1, 500060 4999990 2, 500060 4999950 3, 500010 4999990 1))",
    "POLYGON M ((500010 4999990 1, 500060 4999990 2, 500060 4999950 3, 500010 4999990 1))",
    "POLYGON ((500010 4999990, 500060 4999950, 500060 4999990, 500010 4999950, 500010 4999990))",
    "MULTIPOLYGON (((500000 5000000, 500080 5000000, 500080 4999940, 500000 5000000)), ((500010 4999990, 500060 4999990, "
    "500010 4999950, 500010 4999990)))",
    "GEOMETRYCOLLECTION (POINT (0 0), POLYGON ((500010 4999990, 500060 4999990, 500060 4999950, 500010 4999990)))",
    "CURVEPOLYGON (CIRCULARSTRING (500010 4999990, 500060 4999950, 500010 4999990))",
    "TIN Z (((500010 4999990 0, 500060 4999990 0, 500060 4999950 0, 500010 4999990 0)))",
    "POLYHEDRALSURFACE Z (((500010 4999990 0, 500060 4999990 0, 500060 4999950 0, 500010 4999990 0)))",
    "POLYGON EMPTY", "GEOMETRYCOLLECTION EMPTY", "MULTIPOLYGON EMPTY", "POLYGON ((0 0, 0 0, 0 0, 0 0))",
    "POLYGON ((-1e9 -1e9, 1e9 -1e9, 1e9 1e9, -1e9 1e9, -1e9 -1e9))", "POLYGON ((nan nan, 1 1, 2 2, nan nan))",
    "POLYGON ((1e300 0, -1e300 0, 0 1e300, 1e300 0))", "POLYGON ((-180 -90, 180 -90, 180 90, -180 90, -180 -90))",
)  # fmt: skip


def vector(rng: Rng, bench: Bench, is_good: bool) -> None:
    """Vector files of every geometry type and format, whole and damaged, as a mask and as polygons to train on."""
    bench.take("scene.tif", "tiny.safetensors")
    name = "polygons.gpkg"
    if is_good or chance(rng, 0.25):
        bench.take(name)
    else:
        name = _odd_polygons(rng, bench.folder)
    path = bench.folder / name
    if not is_good and chance(rng, 0.4):
        spoiled = spoil_text(rng, path.read_text("utf-8", "replace")).encode() if path.suffix == ".geojson" else b""
        path.write_bytes(spoiled or spoil_bytes(rng, path.read_bytes(), head=pick(rng, (100, 5000, 100_000))))
    if is_good or chance(rng, 0.7):
        words = ["predict", "scene.tif", "-o", "labels.tif", "--model", "tiny.safetensors", "--device", "cpu", "--mask", name]
        bench.run(words, ["labels.tif"])
    if is_good or not bench.runs:
        sources: list[dict[str, Any]] = [{"images": "scene.tif", "polygons": name, "unlabeled": "background"}]
        if not is_good and chance(rng, 0.3):
            sources[0] |= {"class_column": pick(rng, ("kind", "none", "fid", "geom"))}
        (bench.folder / "train.toml").write_text(to_toml(CONFIG | {"train": sources}))
        bench.run(["train", "train.toml", "-o", "made.safetensors"], MADE, stop_after_s=patience(is_good, TRAIN_S + 10))


def _odd_polygons(rng: Rng, folder: Path) -> str:
    texts = [pick(rng, _WKTS) for _ in range(int(rng.choice([1, 1, 2, 5])))]
    kind, crs = pick(rng, ("Unknown", "Unknown", "Polygon", "MultiPolygon", "GeometryCollection")), pick(rng, CRSS)
    way = rng.integers(6)
    if way == 0:
        (folder / "mask.csv").write_text("WKT,kind\n" + "".join(f'"{text}",roof\n' for text in texts))
        return "mask.csv"
    if way == 1:
        return _geojson(rng, folder)
    name, driver = pick(
        rng, (("mask.gpkg", "GPKG"), ("mask.fgb", "FlatGeobuf"), ("mask.shp", "ESRI Shapefile"), ("mask.parquet", ""))
    )
    shapes = [_shape(text) for text in texts]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if not driver:
                import geopandas

                geopandas.GeoDataFrame({"kind": ["roof"] * len(shapes)}, geometry=shapes, crs=crs).to_parquet(folder / name)
            else:
                pyogrio.raw.write(
                    folder / name, shapely.to_wkb(np.array(shapes, object)), [np.array(["roof"] * len(shapes), object)],
                    ["kind"],
                    geometry_type=kind, crs=crs, driver=driver,
                )  # fmt: skip
        except Exception as error:  # libraries refuse what we want to write in many ways
            raise Unmade from error
    return str(name)


def _shape(text: str) -> shapely.Geometry | None:
    try:
        with np.errstate(invalid="ignore"):
            return shapely.from_wkt(text, on_invalid="ignore")
    except NotImplementedError:  # curves, which come as CSV only
        return None


def _geojson(rng: Rng, folder: Path) -> str:
    ring = [[500010, 4999990], [500060, 4999990], [500060, 4999950], [500010, 4999950], [500010, 4999990]]
    tree: dict[str, Any] = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}},
        "features": [
            {"type": "Feature", "properties": {"kind": "roof"}, "geometry": {"type": "Polygon", "coordinates": [ring]}},
            {"type": "Feature", "properties": {"kind": "roof"}, "geometry": {"type": "MultiPolygon", "coordinates": [[ring]]}},
        ],
    }
    if chance(rng, 0.3):
        del tree["crs"]
    (folder / "mask.geojson").write_text(to_json(spoil_tree(rng, tree)))
    return "mask.geojson"
