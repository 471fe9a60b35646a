"""Files of other projects through info, predict, vectorize and ``--mask``, beside what rasterio and geopandas say of them.

Each file goes through in forks with limits of memory and time. What is read is compared with an independent reading: CRS,
transform and valid pixels with rasterio's; polygons with :func:`rasterio.features.shapes` and with counts of pixels; masks with
:func:`rasterio.features.rasterize`. What is refused has to say so in one line.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from tests.campaign.harness import DONE, Bench

PIXELS = Affine.identity()
MOST_PREDICTED = 300_000  # pixels, because a prediction takes longest
MOST_PIXELS = 1_000_000  # larger ones are read but not compared polygon by polygon
VECTORS = {".gpkg", ".shp", ".geojson", ".json", ".fgb", ".kml", ".gml", ".gpx", ".tab", ".mif", ".parquet", ".csv", ".dxf"}
SIDECARS = {".aux.xml", ".xml", ".prj", ".dbf", ".shx", ".cpg", ".qml", ".sld", ".tfw", ".wld", ".hdr", ".ovr", ".msk", ".py"}
TARGETS = ("info", "predict", "vectorize", "mask")


def raster_facts(path: Path) -> dict[str, Any] | None:
    """What rasterio knows of a raster; ``None`` where it opens none."""
    import rasterio
    from rasterio.enums import ColorInterp

    try:
        with rasterio.open(path) as src:
            colors = [color == ColorInterp.alpha for color in src.colorinterp]
            return {
                "count": src.count,
                "bands": [band for band, is_alpha in zip(src.indexes, colors, strict=True) if not is_alpha],
                "dtypes": list(src.dtypes),
                "shape": list(src.shape),
                "crs": src.crs.to_wkt() if src.crs else None,
                "transform": list(src.transform)[:6],
                "size": abs(src.transform.a) if src.transform.is_rectilinear and 1e-9 < abs(src.transform.a) < 1e9 else None,
            }
    except Exception:
        return None


def raster_fault_of_polygons(source: Path, polygons: Path, band: int, breaks: float | None) -> str | None:
    """Compare polygons with an independent reading of the raster."""
    import geopandas
    import rasterio
    import shapely
    from rasterio.features import shapes

    with rasterio.open(source) as src:
        values, valid = src.read(band), src.read_masks(band) > 0
        transform = src.transform
        if breaks is not None:
            valid &= ~np.isnan(values) if values.dtype.kind == "f" else True
            scaled = values * src.scales[band - 1] + src.offsets[band - 1] if src.scales[band - 1] != 1 else values
            values = (scaled >= np.array(breaks, scaled.dtype if scaled.dtype.kind == "f" else float)).astype(np.uint8)
            valid &= values == 1
    known, numbers = np.unique(values, return_inverse=True)
    frame = geopandas.read_file(polygons, layer=polygons.stem)
    if not frame.geometry.is_valid.all():
        return "an invalid polygon"
    a, b, c, d, e, f = tuple(transform)[:6]
    pixel = abs(a * e - b * d)
    if transform.is_identity or not np.isfinite(pixel) or pixel == 0:
        a, b, c, d, e, f = 1, 0, 0, 0, -1, 0  # columns and negative rows
        pixel = 1.0
    codes, counts = np.unique(values[valid], return_counts=True)
    areas = frame.geometry.area.groupby(frame.class_id).sum()
    if sorted(areas.index) != sorted(int(code) for code in codes):
        return f"codes {sorted(areas.index)[:5]} instead of {codes[:5].tolist()}"
    expected = counts * pixel
    if not np.allclose(areas.loc[[int(code) for code in codes]], expected, rtol=1e-6):
        return "areas differ from the pixels'"
    traced = shapes(numbers.reshape(values.shape).astype(np.int32), mask=valid, connectivity=4)
    wanted = Counter((shapely.normalize(shapely.geometry.shape(g)).wkb, int(known[int(v)])) for g, v in traced)
    determinant = a * e - b * d
    back = [e / determinant, -b / determinant, -d / determinant, a / determinant]

    def to_grid(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0] - c, points[:, 1] - f
        return np.rint(np.column_stack([x * back[0] + y * back[1], x * back[2] + y * back[3]])) + 0.0

    on_grid = shapely.transform(frame.geometry.values, to_grid)
    found = Counter((shapely.normalize(g).wkb, int(code)) for g, code in zip(on_grid, frame.class_id, strict=True))
    return None if found == wanted else f"{(wanted - found).total()} of {wanted.total()} polygons of GDAL's are missing"


def raster_fault_of_place(source: Path, made_crs: Any, made_transform: Any) -> str | None:
    """Compare CRS and transform of an output with the source's, as rasterio reads them."""
    import rasterio

    with rasterio.open(source) as src:
        if src.crs and made_crs is not None and made_crs not in (src.crs, _as_stored(src.crs)):
            return f"CRS {made_crs} instead of {src.crs}"
        is_placed = made_transform is not None and not src.transform.is_identity and src.transform.is_rectilinear
        is_placed = is_placed and abs(src.transform.determinant) > 1e-100  # GDAL leaves that of a PNM uninitialized
        if is_placed and not np.allclose(tuple(made_transform)[:6], tuple(src.transform)[:6], rtol=1e-9):
            return f"transform {tuple(made_transform)[:6]} instead of {tuple(src.transform)[:6]}"
    return None


def _as_stored(crs: Any) -> Any:
    """Return a CRS as GDAL reads it from a GeoTIFF that it has written: the keys of the format cannot say everything."""
    from rasterio.io import MemoryFile

    with MemoryFile() as file:
        with file.open(driver="GTiff", width=1, height=1, count=1, dtype="uint8", crs=crs, transform=Affine(1, 0, 9, 0, -1, 9)):
            pass
        with file.open() as stored:
            return stored.crs


def fault_of_labels(source: Path, labels: Path, said: str) -> str | None:
    """Compare the labels of a prediction with the scene: place, and pixels that have a class.

    Args:
        source: the scene.
        labels: what was predicted.
        said: standard error of the prediction; values that it reads as nodata though the file declares another are no fault.
    """
    import rasterio
    from rasterio.enums import ColorInterp

    with rasterio.open(labels) as made, rasterio.open(source) as src:
        is_same_grid = made.shape == src.shape
        fault = raster_fault_of_place(source, made.crs, made.transform if is_same_grid else None)
        if fault or not is_same_grid:
            return fault  # resampled, such as pixels that are not square: they cannot be compared one by one
        has_class = made.read(1) != 255
        masks = src.read_masks() > 0
        image = src.read()
        masks &= ~np.isnan(image) if image.dtype.kind in "fc" else True  # NaN has no value, whether the file says so or not
        for value in re.findall(r"(\S+) lies far from all other values and is read as nodata", said):
            masks &= image != np.array(float(value)).astype(image.dtype)
        for value in re.findall(r"all bands are (\S+) along one of its sides, .* and read as nodata", said):
            colors = image[[band != ColorInterp.alpha for band in src.colorinterp]]
            masks &= ~(colors == np.array(float(value)).astype(image.dtype)).all(axis=0)
    rules = [masks.all(axis=0), masks.any(axis=0), masks[: min(3, len(masks))].all(axis=0)]
    if any((has_class == valid).all() for valid in rules):
        return None
    return f"{int((has_class != rules[0]).sum())} valid pixels differ"


def fault_of_mask(vector: Path, labels: Path) -> str | None:
    """Compare what was predicted inside polygons with what rasterio burns of them, but for centers of pixels on a border."""
    import geopandas
    import rasterio
    import shapely
    from rasterio.features import rasterize

    frame = geopandas.read_file(vector)
    with rasterio.open(labels) as made:
        if frame.crs and frame.crs != made.crs:  # lines are straight in the CRS of the file
            west, south, east, north = frame.total_bounds
            frame = frame.set_geometry(frame.geometry.segmentize(max(east - west, north - south) / 2000)).to_crs(made.crs)
        # Negative is the area of a polygon whose hole is larger than its shell.
        areal = [g for g in frame.geometry if g is not None and not g.is_empty and g.area != 0]
        if not areal:
            return "a layer without areas was used"
        inside = rasterize(areal, out_shape=made.shape, transform=made.transform)
        rows, cols = np.nonzero((made.read(1) != 255) != inside.astype(bool))
        centers = shapely.points(*(made.transform * (cols + 0.5, rows + 0.5)))
        size, bounds = made.transform.a, made.bounds
    border = shapely.multilinestrings(shapely.get_rings(shapely.get_parts(areal)))
    different = int((shapely.distance(centers, border) > 0.1 * size).sum())
    west, south, east, north = shapely.bounds(border)
    if west < bounds.left - size or south < bounds.bottom - size or east > bounds.right + size or north > bounds.top + size:
        return f"the labels end at {tuple(bounds)}, the polygons at {(west, south, east, north)}"
    return f"{different} of {int(inside.sum())} pixels differ" if different else None


def in_fork(check: Callable[..., Any], *arguments: Any) -> Any:
    """Run a check in a process of its own: libraries may crash on these files."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        text = None
        try:
            os.close(reader)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                text = check(*arguments)
        except Exception as error:
            text = f"unchecked: {type(error).__name__}: {str(error)[:80]}"
        finally:
            os.write(writer, json.dumps(text).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        content = answer.read()
    os.waitpid(pid, 0)
    return json.loads(content) if content else "unchecked: the reader crashed"


class Peers:
    """Runs files and counts how they end, by target: right, refused, wrong, traceback, crash, unchecked.

    Args:
        work: empty folder to work in.
    """

    def __init__(self, work: Path) -> None:
        self.work, self.ends = work, {target: Counter[str]() for target in TARGETS}
        self.models = work.with_name("models")
        self.models.mkdir()
        self.reasons: Counter[str] = Counter()

    def run(self, target: str, path: Path, words: list[str], output: str, check: Callable[[Path, str], str | None]) -> None:
        """Run one command on one file, and note how it ended."""
        import geoglnet.cli.main

        bench = Bench(self.work, self.work, geoglnet.cli.main.main)
        ended = bench.run(words, [output] if output else [])
        made = self.work / output
        problems = [p for p in bench.problems if not p.startswith("memory")]
        if ended.code == DONE and not problems:
            fault = check(made, ended.err)
            kind = "right" if fault is None else "unchecked" if fault.startswith("unchecked") else "wrong"
        else:
            lines = [line for line in ended.err.splitlines() if line.startswith("Error")]
            fault = "; ".join(problems) or (lines[0] if lines else ended.err[-200:])
            is_refused = not problems and ended.code in (1, 2) and len(lines) == 1
            kind = (
                "refused" if is_refused else "traceback" if "Traceback" in ended.err else "crash" if ended.code < 0 else "wrong"
            )
            if is_refused:
                self.reasons[f"{target}: {re.sub(r'[^ ]*/[^ ]*|[0-9.]+', '…', fault)[:110]}"] += 1
        self.ends[target][kind] += 1
        if kind in ("wrong", "traceback", "crash", "unchecked"):
            print(f"{kind}: {target} {path}: {fault}", flush=True)
        for left in self.work.iterdir():
            if left.name != "scene.tif":
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def raster(self, path: Path, facts: dict[str, Any]) -> None:
        """Run a raster through info, vectorize and predict."""
        name = str(path)
        self.run("info", path, ["info", name, "--json"], "", lambda made, said: None)
        is_small = facts["shape"][0] * facts["shape"][1] <= MOST_PIXELS
        if not facts["bands"] or not is_small:
            return
        band, breaks = facts["bands"][0], None
        words = ["vectorize", name, "out.gpkg", "--progress", "none", "--band", str(band)]
        if facts["dtypes"][band - 1].startswith("float"):
            median = in_fork(_median, path, band)
            breaks = median if isinstance(median, float) else 0.0
            words.append(f"--breaks={breaks}")
        else:
            words += ["--background", "none"]
        self.run("vectorize", path, words, "out.gpkg", lambda made, said: self._polygons(path, made, band, breaks))
        if facts["shape"][0] * facts["shape"][1] > MOST_PREDICTED:
            return
        size = facts["size"] or 1.0
        ground_size = None if facts["crs"] is None else in_fork(_ground_size, path)
        model = model_at(self.models, ground_size if isinstance(ground_size, float) else size)
        words = ["predict", name, "-o", "out.tif", "--model", str(model), "--device", "cpu", "--progress", "none"]
        words += ["--pixel-size", "1"] if facts["crs"] is None else []
        self.run("predict", path, words, "out.tif", lambda made, said: in_fork(fault_of_labels, path, made, said))

    def _polygons(self, path: Path, made: Path, band: int, breaks: Any) -> str | None:
        return in_fork(raster_fault_of_polygons, path, made, band, None if breaks is None else float(breaks))

    def vector(self, path: Path) -> None:
        """Run a vector layer as the mask of a scene that lies around its areas."""
        scene = self.work / "scene.tif"
        unread = in_fork(_make_scene, path, scene)
        if not scene.exists():
            print(f"no scene for {path}: {unread}", flush=True)
            return
        ground_size = in_fork(_ground_size, scene)
        model = model_at(self.models, ground_size if isinstance(ground_size, float) else 1.0)
        words = ["predict", "scene.tif", "-o", "out.tif", "--mask", str(path), "--model", str(model), "--device", "cpu"]
        words += ["--progress", "none"]
        self.run("mask", path, words, "out.tif", lambda made, said: in_fork(fault_of_mask, path, made))
        scene.unlink()


def _median(path: Path, band: int) -> Any:
    import rasterio

    with rasterio.open(path) as src:
        values = src.read(band)[src.read_masks(band) > 0]
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else 0.0


def _ground_size(path: Path) -> Any:
    from geoglnet.raster.gdal import open_raster
    from geoglnet.raster.grid import georeference, ground_pixel_size, pixel_size_m
    from geoglnet.types import Shape

    with open_raster(path) as src:
        place = georeference(src)
        return pixel_size_m(ground_pixel_size(place.crs, place.transform, Shape(*src.shape)))


def _make_scene(vector: Path, scene: Path) -> str | None:
    """Write an image around the areas of a layer, in UTM of its middle where it is in degrees and not too wide.

    Returns:
        Why the image lies somewhere else: the layer has no areas, or cannot be read; it ought to be refused then.
    """
    import geopandas
    import rasterio

    crs, bounds, fault = "EPSG:32631", np.array([500_000.0, 0.0, 500_200.0, 200.0]), None
    try:
        frame = geopandas.read_file(vector)
        areas = frame[frame.geometry.notna() & (frame.geometry.area != 0)]
        if areas.crs is not None and areas.crs.is_geographic and np.ptp(areas.total_bounds[::2]) < 6:
            areas = areas.to_crs(areas.estimate_utm_crs())
        if np.isfinite(areas.total_bounds).all():
            crs, bounds = areas.crs, areas.total_bounds
        else:
            fault = "no areas"
    except Exception as error:
        fault = f"{type(error).__name__}: {str(error)[:80]}"
    size = np.ptp(bounds.reshape(2, 2), axis=0).max() / 160
    margin = 0 if size > 1 / 16 and getattr(crs, "is_geographic", False) else 20  # beyond 180°, polygons would appear twice
    left, top = bounds[0] - margin * size, bounds[3] + margin * size
    width, height = (int(extent / size) + 2 * margin for extent in np.ptp(bounds.reshape(2, 2), axis=0))
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": height, "width": width, "crs": crs}
    profile["transform"] = rasterio.Affine(size, 0, left, 0, -size, top)
    with rasterio.open(scene, "w", **profile) as dst:
        dst.write(np.random.default_rng(0).integers(1, 255, (3, height, width), dtype=np.uint8))
    return fault


def model_at(folder: Path, resolution_m: float) -> Path:
    """Save an untrained network of the smallest kind for a resolution."""
    import torch

    from geoglnet.config import ModelConfig, RegionConfig
    from geoglnet.legend import Legend
    from geoglnet.models.checkpoint import save_checkpoint
    from geoglnet.models.glnet import GLNet
    from geoglnet.models.manifest import Manifest

    path = folder / f"{resolution_m:.6g}.safetensors"
    if path.exists():
        return path
    torch.manual_seed(0)
    model = ModelConfig(2, "mobilenet_v3_small", pyramid_channels=8, smooth_channels=4)
    region = RegionConfig(region_size=256, overview_size=64, patch_size=64, patch_overlap=8, margin=16)
    legend = Legend(("ground", "building"), ((0, 0, 0), (230, 75, 50)), background=0)
    wide = (resolution_m * 0.5, resolution_m * 2.0)
    save_checkpoint(path, GLNet(model), Manifest("tiny", model, region, legend, resolution_m, wide, 1.0))
    return path


def _load_modules() -> None:
    """Load what the verbs and the checks use, so that not every fork does."""
    import geopandas  # noqa: F401
    import rasterio.features  # noqa: F401

    import geoglnet

    for place in ("api", "cli", "prediction", "raster", "vector"):
        for module in pkgutil.iter_modules([str(Path(geoglnet.__path__[0], place))], f"geoglnet.{place}."):
            importlib.import_module(module.name)


def _load_machine_code() -> None:
    """Trace a small raster of each type, so that not every fork loads the machine code anew."""
    from geoglnet.vector.pieces import TracingRules, trace_tile
    from geoglnet.vector.rows import FinishingRules, finish
    from geoglnet.vector.seams import Seams
    from geoglnet.vector.tiles import ArrayTiles
    from geoglnet.windows import iter_cores

    for dtype in (np.uint8, np.int64):
        tiles = ArrayTiles(np.indices((8, 8)).sum(axis=0).astype(dtype) % 3)
        seams = Seams(tiles.shape)
        for window in iter_cores(tiles.shape, 5, margin=0):
            whole, open_tile = trace_tile(tiles, window, TracingRules())
            for polygons in (whole, seams.join(open_tile)):
                finish(polygons, FinishingRules(PIXELS, None, tiles.shape))


def iter_files(folder: Path) -> Iterator[Path]:
    """Yield distinct files that may hold a raster or a layer, sorted."""
    seen = set[tuple[int, bytes]]()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith(".") or path.suffix.lower() in SIDECARS or path.stat().st_size == 0:
            continue
        with path.open("rb") as file:
            key = (path.stat().st_size, file.read(4096))
        if key not in seen:
            seen.add(key)
            yield path


def peer_files(argv: list[str] | None = None) -> int:
    """Run all files of the folders on the command line; print the table; return 1 where something was wrong."""
    folders = [Path(name).resolve() for name in (sys.argv[1:] if argv is None else argv)]
    if not folders or not all(folder.is_dir() for folder in folders):
        print("usage: scripts/peer_files FOLDER …", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; and threads do not live through a fork
    os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "GDAL_HTTP_TIMEOUT": "3", "GDAL_HTTP_MAX_RETRY": "0"}
    warnings.simplefilter("ignore")
    _load_modules()

    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        work = Path(name, "work")
        work.mkdir()
        _load_machine_code()
        peers, found = Peers(work), Counter[str]()
        with suppress(KeyboardInterrupt):  # the table of what has been run so far
            for path in (path for folder in folders for path in iter_files(folder)):
                facts: Any = in_fork(raster_facts, path)
                try:
                    if isinstance(facts, dict) and facts["count"]:
                        found["rasters"] += 1
                        peers.raster(path, facts)
                    elif path.suffix.lower() in VECTORS:
                        found["vector files"] += 1
                        peers.vector(path)
                except Exception as error:  # of a check: the other files go on
                    print(f"unchecked: {path}: {type(error).__name__}: {error}", flush=True)
                    found["files that could not be checked"] += 1
    print(", ".join(f"{count} {kind}" for kind, count in found.items()))
    kinds = ("right", "refused", "unchecked", "wrong", "traceback", "crash")
    print("| | " + " | ".join(kinds) + " |\n" + "|---" * (len(kinds) + 1) + "|")
    for target in TARGETS:
        print(f"| {target} | " + " | ".join(str(peers.ends[target][kind]) for kind in kinds) + " |")
    print(*(f"{count} × {reason}" for reason, count in peers.reasons.most_common(40)), sep="\n")
    return int(any(peers.ends[target][kind] for target in TARGETS for kind in kinds[3:]))
