"""Building IoU of one scene in the forms in which sensors and programs deliver it, with the rules by which each was read.

    python benchmarks/sensors.py SCENE.tif POLYGONS.geojson [--size 2048] [--model buildings]

A crop from the middle of an 8-bit RGB scene is written as uint16, reflectance, percent, in other orders of bands and with a
collar around it, and every form is predicted as the command line would. Scored is the crop, on the grid of each form's labels.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.features import rasterize
from rasterio.windows import Window
from rasterio.windows import bounds as window_bounds
from rasterio.windows import transform as window_transform
from shapely import box

import geoglnet
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.progress import RecordedProgress

COLLAR = 96  # px around the scene
COLORS = ("red", "green", "blue")
GENERAL = re.compile("m pixels|^seams:|to segment:")  # printed of every form alike


@dataclass(frozen=True)
class Form:
    """The scene in one form.

    Args:
        name: for the table.
        image: ``(C, H, W)`` of any type.
        names: descriptions of the bands.
        unit: scale and offset to declare.
        has_alpha: whether the last band is alpha.
        options: of ``predict`` that a user would pass.
        collar: pixels without a value around the scene.
    """

    name: str
    image: npt.NDArray[Any]
    names: tuple[str, ...] = ()
    unit: tuple[float, float] | None = None
    has_alpha: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    collar: int = 0


def iter_forms(rgb: npt.NDArray[np.uint8]) -> Iterator[Form]:
    """Yield the forms of an 8-bit RGB image, itself first."""
    yield Form("uint8", rgb)
    wide = rgb.astype(np.uint16) * 37 + 500
    yield Form("uint16, × 37 + 500", wide)
    fractions = rgb / np.float32(255)
    fractions[0, 5, 5] = 1.02
    yield Form("reflectance, float32, one glint of 1.02", fractions)
    yield Form("reflectance, float16 values", fractions.astype(np.float16).astype(np.float32))
    yield Form("percent, float32", fractions * 100)
    stored = np.rint((rgb / 255 + 0.1) * 10_000).astype(np.uint16)
    yield Form("uint16 with scale 0.0001 and offset −0.1", stored, unit=(1e-4, -0.1))
    four = np.concatenate([rgb[::-1], 255 - rgb[1:2]])
    yield Form("BGR with descriptions", rgb[::-1], COLORS[::-1])
    yield Form("BGRN with descriptions", four, (*COLORS[::-1], "nir"))
    yield Form("BGRN with descriptions, uint16", four.astype(np.uint16) * 37 + 500, (*COLORS[::-1], "nir"))
    yield Form("BGR without, --bands BGR", rgb[::-1], options={"bands": "BGR"})
    yield Form("BGRN without, --bands BGRN", four, options={"bands": "BGRN"})
    yield Form("RGBA", np.concatenate([rgb, np.full_like(rgb[:1], 255)]), has_alpha=True)
    for name, image, value, options in (
        ("uint8, collar of 0, --nodata 0", rgb, 0, {"nodata": 0.0}),
        ("uint16, collar of 0", wide, 0, {}),
        ("int16, collar of −9999", rgb.astype(np.int16) * 37, -9999, {}),
        ("float32, collar of −9999", fractions, -9999, {}),
        ("percent, collar of −9999", fractions * 100, -9999, {}),
    ):
        framed = np.pad(image, ((0, 0), (COLLAR, COLLAR), (COLLAR, COLLAR)), constant_values=value)
        yield Form(name, framed, options=options, collar=COLLAR)


def write_form(path: Path, form: Form, profile: dict[str, Any]) -> None:
    count, height, width = form.image.shape
    profile = profile | {"transform": profile["transform"] * Affine.translation(-form.collar, -form.collar)}
    size = {"count": count, "height": height, "width": width, "dtype": form.image.dtype}
    with rasterio.open(path, "w", **(profile | size)) as dst:
        dst.write(form.image)
        if form.names:
            dst.descriptions = form.names
            dst.colorinterp = [ColorInterp.undefined] * count
        if form.has_alpha:
            dst.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
        if form.unit:
            dst.scales, dst.offsets = [form.unit[0]] * count, [form.unit[1]] * count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("polygons", type=Path)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--model", default="buildings")
    args = parser.parse_args()
    with rasterio.open(args.scene) as src:
        size = min(args.size, src.height, src.width)
        window = Window((src.width - size) // 2, (src.height - size) // 2, size, size)
        rgb = src.read((1, 2, 3), window=window)
        profile = {"driver": "GTiff", "crs": src.crs, "transform": window_transform(window, src.transform)}
    crop = box(*window_bounds(window, src.transform))
    truth = geopandas.read_file(args.polygons).to_crs(profile["crs"])
    print(f"{args.scene.name}: {size} × {size} px\n")
    print("| form | IoU | difference | labels unlike the first | bands and rules that were printed |\n|---|---|---|---|---|")
    first: npt.NDArray[np.uint8] | None = None
    reference = 0.0
    with tempfile.TemporaryDirectory() as folder:
        scene, out = Path(folder, "scene.tif"), Path(folder, "labels.tif")
        for form in iter_forms(rgb):
            write_form(scene, form, profile)
            said = RecordedProgress()
            options = {key: value for key, value in form.options.items() if key in ("bands", "nodata")}
            config = PredictConfig(device="cpu", **options)
            geoglnet.predict(scene, out, model=args.model, config=config, overwrite=True, progress=said)
            texts = [str(text).replace(str(scene), "scene") for text in said.messages("log") + said.messages("warning")]
            rules = "; ".join(text for text in texts if not GENERAL.search(text)) or "none"
            with rasterio.open(out) as src:
                labels = src.read(1)
                burnt = rasterize(truth.geometry, labels.shape, transform=src.transform).astype(bool)
                is_scored = rasterize([crop], labels.shape, transform=src.transform).astype(bool) & (labels != 255)
            building = (labels == 1) & is_scored
            iou = float((building & burnt).sum() / ((building | burnt) & is_scored).sum())
            first, reference = (labels, iou) if first is None else (first, reference)
            unlike = f"{np.mean(labels != first):.2%}" if labels.shape == first.shape else "another grid"
            print(f"| {form.name} | {iou:.4f} | {iou - reference:+.4f} | {unlike} | {rules} |", flush=True)


if __name__ == "__main__":
    main()
