"""The example configurations with other bands than three colors, on miniature files of the kinds that they name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyogrio.raw import write as write_layer
from rasterio.features import rasterize
from rasterio.warp import transform_bounds

import geoglnet
from geoglnet.datasets import generated
from geoglnet.models.manifest import read_manifest
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.progress import RecordedProgress
from geoglnet.training.fit import fit
from geoglnet.training.train_config import read_config
from geoglnet.types import Shape
from tests.products import place_of, write_safe
from tests.rasters import UTM, noise, write_raster

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning", "ignore:.*does not have many workers.*")

CONFIGS = Path(__file__).parents[2] / "examples/configs"
CPU = PredictConfig(device="cpu")
TINY: dict[str, Any] = {
    "model.backbone": "mobilenet_v3_small",
    "model.pyramid_channels": 8,
    "model.smooth_channels": 4,
    "region.region_size": 96,
    "region.overview_size": 48,
    "region.patch_size": 64,
    "region.patch_overlap": 16,
    "region.margin": 16,
    "sample.region_size": 96,
    "sample.patch_size": 64,
    "sample.patches_per_region": 1,
    "optim.global_steps": 1,
    "optim.local_steps": 1,
    "optim.batch_size": 2,
    "optim.precision": "32-true",
    "optim.backbone_weights": "",
}
TEN = {"B02": 10, "B03": 10, "B04": 10, "B08": 10} | dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20)


def write_polygons(path: Path, shapes: dict[str, shapely.Polygon]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [np.array(list(shapes), object)]
    about = {"geometry_type": "Polygon", "crs": UTM, "driver": "GPKG"}
    write_layer(path, shapely.to_wkb(np.array(list(shapes.values()))), fields, ["class"], **about)


def test_ten_bands_of_sentinel_2_are_trained_on_and_predicted_from_products(tmp_path: Path) -> None:
    water = shapely.box(600_000, 8_998_800, 600_600, 9_000_000)
    forest = shapely.box(600_600, 8_998_800, 601_200, 9_000_000)

    def reflectances(code: str, pixel_m: int) -> np.ndarray:
        """Dark water on the left, brighter forest on the right, brightest at B12; stored with an offset."""
        size = 1200 // pixel_m
        is_forest = rasterize([forest], (size, size), transform=place_of(pixel_m))
        return 1100 + is_forest * 200 * (1 + list(TEN).index(code)) + noise(1, size, size)[0] // 4

    for folder in ("products", "held_out"):
        safe = write_safe(tmp_path / folder, TEN, reflectances)
        write_polygons(safe.with_suffix(".gpkg"), {"water": water, "forest": forest})
    config = read_config(CONFIGS / "sentinel2-l2a.toml", TINY)
    progress = RecordedProgress()
    manifest = fit(config, tmp_path, tmp_path / "ten.safetensors", progress=progress)
    assert len(manifest.bands) == len(TEN) == manifest.model.in_channels
    assert read_manifest(tmp_path / "ten.safetensors").bands == manifest.bands
    # Reflectance after the product's own offsets, which are -1000 for B04 and -900 for B8A.
    mean = dict(zip(manifest.bands.names, manifest.bands.mean, strict=True))
    assert (mean["red"], mean["nir08"]) == pytest.approx((0.043, 0.103), abs=0.01)
    assert not [text for text in progress.messages("warning") if "reflectance" in text]
    archive = Path(shutil.make_archive(str(tmp_path / "product"), "zip", tmp_path / "held_out", safe.name))
    for scene, name in ((safe, "folder.tif"), (archive, "zip.tif")):
        done = geoglnet.predict(scene, tmp_path / name, model=tmp_path / "ten.safetensors", config=CPU)
        assert any("swir22 (B12)" in rule for rule in done.rules)
    with rasterio.open(tmp_path / "folder.tif") as folder, rasterio.open(tmp_path / "zip.tif") as zipped:
        assert (folder.shape, folder.crs.to_string()) == ((120, 120), UTM)
        assert (folder.read() == zipped.read()).all()


def test_colors_and_heights_of_other_rasters_and_generated_scenes_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "SHAPE", Shape(320, 320))
    roof = shapely.box(500_009, 8_999_976, 500_021, 8_999_990)
    place = Affine(0.3, 0, 500_000, 0, -0.3, 9_000_000)
    coarse = Affine(0.9, 0, 499_990, 0, -0.9, 9_000_010)
    for folder in (tmp_path, tmp_path / "held_out"):
        for name in ("ortho", "heights"):
            (folder / name).mkdir(parents=True)
        write_raster(folder / "ortho" / "a.tif", noise(3, 120, 120), transform=place)
        heights = rasterize([roof], (64, 64), transform=coarse)[None] * np.float32(8)
        write_raster(folder / "heights" / "a.tif", heights, transform=coarse)
        write_polygons(folder / "labels" / "a.gpkg", {"building": roof})
    config = read_config(CONFIGS / "buildings-height.toml", TINY)
    progress = RecordedProgress()
    manifest = fit(config, tmp_path, tmp_path / "four.safetensors", progress=progress)
    assert manifest.bands.names == ("red", "green", "blue", "height")
    assert any("is resampled to the grid of" in text for text in progress.messages("log"))
    held_out = tmp_path / "held_out"
    options = {"beside": {"height": held_out / "heights" / "a.tif"}, "model": tmp_path / "four.safetensors", "config": CPU}
    geoglnet.predict(held_out / "ortho" / "a.tif", tmp_path / "labels.tif", **options)
    with rasterio.open(tmp_path / "labels.tif") as src:
        assert set(np.unique(src.read(1)).tolist()) <= {0, 1}
        assert transform_bounds(src.crs, UTM, *src.bounds)[0] == pytest.approx(500_000, abs=0.5)


def test_scores_are_those_of_one_file_when_bands_are_selected_and_heights_lie_beside(tmp_path: Path) -> None:
    """``evaluate`` reads ``bands`` and ``beside`` of its sources as training does."""
    image = noise(4, 96, 96)
    roof = shapely.box(500_006, 8_999_980, 500_020, 8_999_992)
    place = Affine(0.3, 0, 500_000, 0, -0.3, 9_000_000)
    for name, bands in (("one", image), ("bgr", image[2::-1]), ("height", image[3:])):
        write_raster(tmp_path / f"{name}.tif", bands, transform=place, photometric="minisblack")
        write_polygons(tmp_path / f"{name}.gpkg", {"building": roof})
    text = (CONFIGS / "buildings-height.toml").read_text(encoding="utf-8")
    before, after = text.split("[[train]]", 1)[0], text[text.index("[region]") :]
    sources = {
        "one.toml": 'images = "one.tif"\nbands = [1, 2, 3, 4]\npolygons = "one.gpkg"',
        "two.toml": 'images = "bgr.tif"\nbands = ["BGR"]\nbeside = { height = "height.tif" }\npolygons = "bgr.gpkg"',
        "wrong.toml": 'images = "bgr.tif"\nbands = ["RGB"]\nbeside = { height = "height.tif" }\npolygons = "bgr.gpkg"',
    }
    for name, source in sources.items():
        kinds = "\n".join(f'[[{kind}]]\n{source}\nunlabeled = "background"' for kind in ("train", "validation"))
        (tmp_path / name).write_text(f"{before}\n{kinds}\n{after}", encoding="utf-8")
    fit(read_config(tmp_path / "one.toml", TINY | {"optim.global_steps": 2}), tmp_path, tmp_path / "m.safetensors")
    scores = {
        name: geoglnet.evaluate(tmp_path / "m.safetensors", tmp_path / name, folder=tmp_path, predict_config=CPU)
        for name in sources
    }
    one, two, wrong = (scores[name].evaluation.total for name in sources)
    assert one.to_dict() == two.to_dict()
    assert one.to_dict().keys() == wrong.to_dict().keys()
