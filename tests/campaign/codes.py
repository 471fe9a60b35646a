"""Rasters of codes, objects, quantities and probabilities, every option of what values mean, and legends of every format."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from geoglnet.raster.class_table import ClassTable
from geoglnet.vector.style import sld
from tests.campaign.harness import Bench, Unmade
from tests.campaign.mutations import chance, pick, spoil_bytes, spoil_text, spoil_tree, to_toml
from tests.campaign.stock import CRS, TRANSFORM
from tests.campaign.targets import CRSS, STOP_S, Rng, patience, polygon_options
from tests.rasters import write_raster

_ENDS = {
    "uint8": (0, 1, 2, 254, 255), "int8": (-128, -1, 0, 1, 127), "uint16": (0, 111, 523, 9022, 65535),
    "int16": (-32768, -9999, 0, 7, 32767), "uint32": (0, 1, 70_000, 2**31, 2**32 - 1),
    "int32": (-(2**31), -1, 0, 5, 2**31 - 1), "uint64": (0, 1, 2**32 - 1, 2**32, 2**64 - 1),
    "int64": (-(2**63), -(2**31), 0, 3, 2**63 - 1), "float32": (-9999, 0, 0.5, 3, np.nan),
    "float64": (-np.inf, 0.25, 1, 2**33, np.nan), "complex64": (0, 1, 2, 3, 1j),
}  # fmt: skip
_READINGS: dict[str, tuple[str, ...]] = {
    "--band": ("1", "2", "9", "0", "x"),
    "--breaks": ("0.5", "0,10,20", "1,1", "2,1", "nan", "inf", "1e400", "-1,0,1", "", ",", "x", ",".join(map(str, range(300)))),
    "--background": ("none", "0", "5", "-1", "255", "4294967295", "99999999999999999999", "x"),
    "--class-of": ("classes.tif", "small.tif", "codes.tif", "nowhere.tif"),
    "--legend": ("legend.csv", "legend.qml", "legend.sld", "legend.toml", "classes.tif", "nowhere.csv", "."),
}
_FLAGS = ("--argmax", "--instances", "--parts", "--whole-numbers")
# What belongs together, so that not all cases are refused.
_SENSIBLE: tuple[list[str], ...] = (
    [], ["--instances"], ["--instances", "--parts"], ["--instances", "--class-of", "classes.tif"], ["--breaks", "0,3"],
    ["--argmax"], ["--whole-numbers"], ["--band", "1"], ["--band", "1", "--breaks=-1,0.4"], ["--legend", "legend.csv"],
    ["--legend", "legend.qml"], ["--legend", "legend.sld"], ["--legend", "legend.toml"], ["--background", "none"],
)  # fmt: skip


def codes(rng: Rng, bench: Bench, is_good: bool) -> None:
    """Rasters of every type, with values at both ends of it, read in every way."""
    bench.take("gray.tif")
    folder, crs = bench.folder, CRS if is_good else pick(rng, CRSS)
    dtype = "int32" if is_good else pick(rng, list(_ENDS))
    bands = 1 if is_good else int(pick(rng, (1, 1, 1, 2, 3)))
    used = _write(rng, folder / "codes.tif", dtype, bands, crs, is_good)
    _write(rng, folder / "classes.tif", "uint8", 1, crs, is_good)
    write_raster(folder / "small.tif", np.zeros((1, 5, 5), np.uint8))
    _write_legends(rng, folder, used, is_good)
    if not is_good and chance(rng, 0.07):
        spoiled = folder / pick(rng, ("codes.tif", "classes.tif"))
        spoiled.write_bytes(spoil_bytes(rng, spoiled.read_bytes(), head=600))
    out = "o" + (".gpkg" if is_good else pick(rng, (".gpkg", ".gpkg", ".fgb", ".geojson", ".geojsonl", ".parquet")))
    words = ["--instances", "--class-of", "classes.tif"] if is_good else _reading(rng)
    more = [] if is_good or chance(rng, 0.5) else polygon_options(rng)
    bench.run(["vectorize", "codes.tif", out, *words, *more], [out], stop_after_s=patience(is_good, STOP_S))


def _reading(rng: Rng) -> list[str]:
    """Options of what the values mean: mostly some that go together."""
    if chance(rng, 0.6):
        return list(pick(rng, _SENSIBLE))
    words = [f"{name}={pick(rng, choices)}" for name, choices in _READINGS.items() if chance(rng, 0.3)]
    return words + [flag for flag in _FLAGS if chance(rng, 0.2)]


def _write(rng: Rng, path: Path, dtype: str, bands: int, crs: Any, is_good: bool) -> list[int]:
    """Write areas of a few values, and single pixels; return the codes among them."""
    height, width = (64, 80) if is_good else pick(rng, ((64, 80), (64, 80), (1, 1), (1, 90), (40, 1), (130, 70)))
    values = np.array(_ENDS[dtype], dtype)
    values = values[: int(rng.integers(1, len(values) + 1))]
    if np.dtype(dtype).kind == "f" and chance(rng, 0.5):
        values = np.array([0, 1, 2, 3], dtype)
    coarse = values[rng.integers(0, len(values), (bands, -(-height // 7), -(-width // 7)))]
    image = coarse.repeat(7, axis=1).repeat(7, axis=2)[:, :height, :width]
    is_speck = rng.random(image.shape) < pick(rng, (0, 0, 0.01, 0.3))
    image = np.where(is_speck, values[rng.integers(0, len(values), image.shape)], image)
    options: dict[str, Any] = {}
    if not is_good and chance(rng, 0.4):
        options["nodata"] = pick(rng, (*_ENDS[dtype], 0, 255, np.nan, -9999))
    if not is_good and chance(rng, 0.2):
        options["valid"] = rng.random((height, width)) < pick(rng, (0, 0.5, 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_raster(path, image, crs=crs, transform=TRANSFORM, **options)
            if not is_good and chance(rng, 0.2):
                with rasterio.open(path, "r+") as dst:
                    dst.scales, dst.offsets = (pick(rng, (0, 1e-4, -1, np.nan, 1e300)),) * bands, (0.5,) * bands
                    dst.descriptions = tuple(pick(rng, ("water", "a\nb", "", "é")) for _ in range(bands))
    except (RasterioError, ValueError, TypeError, OverflowError) as error:
        raise Unmade from error
    whole = values[np.isfinite(values)].real.tolist() if np.dtype(dtype).kind in "fc" else values.tolist()
    return [int(value) for value in whole]


def _write_legends(rng: Rng, folder: Path, used: list[int], is_good: bool) -> None:
    """Write the same legend in every format, most of them spoiled."""
    names = {code: pick(rng, ("water", "road <1>", "é", "", "a,b", "forest")) for code in used}
    table = ClassTable(names, {code: (int(code) % 256, 90, 200) for code in used})
    entries = "".join(
        f'<paletteEntry value="{code}" label="{escape(names[code])}" color="#0a5a{code % 256:02x}"/>' for code in used
    )
    tree = {"classes": [{"value": code, "name": names[code], "color": list(table.color_of(code))} for code in used]}
    texts = {
        "legend.csv": "code,name,color\n" + "".join(f'{code},"{names[code]}",#0a5a{code % 256:02x}\n' for code in used),
        "legend.qml": f'<qgis><pipe><rasterrenderer type="paletted">{entries}</rasterrenderer></pipe></qgis>',
        "legend.sld": sld([(str(code), table.color_of(code)) for code in used], "o"),
        "legend.toml": to_toml(tree if is_good or chance(rng, 0.5) else spoil_tree(rng, tree)),
    }
    for name, text in texts.items():
        spoiled = text if is_good or chance(rng, 0.4) else spoil_text(rng, text)
        content = spoiled.encode("utf-8", "surrogatepass")
        (folder / name).write_bytes(spoil_bytes(rng, content) if not is_good and chance(rng, 0.1) else content)
