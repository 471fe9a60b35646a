"""``train`` and ``evaluate`` through the real command line, on miniature copies of every kind of data set."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result
from torchvision.models._api import WeightsEnum

from geoglnet.cli.main import geoglnet
from geoglnet.datasets.layouts import split_keys
from geoglnet.models.backbone import build_backbone
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import read_manifest
from tests.miniature import (
    write_chesapeake_cvpr,
    write_deepglobe,
    write_fields,
    write_image,
    write_inria,
    write_isic,
    write_layer_of,
    write_naip,
    write_own,
)

LANDCOVER = """
[legend]
classes = [{name = "urban", color = [0, 255, 255]}, {name = "agriculture", color = [255, 255, 0]},
  {name = "rangeland", color = [255, 0, 255]}, {name = "forest", color = [0, 255, 0]},
  {name = "water", color = [0, 0, 255]}, {name = "barren", color = [255, 255, 255]}]
"""
BUILDINGS = """
[legend]
classes = [{name = "background", color = [0, 0, 0]}, {name = "building", color = [255, 0, 0]}]
background = 0
"""
COVER = """
[legend]
classes = [{name = "water", color = [0, 0, 255]}, {name = "forest", color = [0, 255, 0]},
  {name = "building", color = [255, 0, 0]}]
"""
RGBN = """
[bands]
names = ["red", "green", "blue", "nir"]
scaling = "as_is"
"""
COUNTS = """
[bands]
names = ["red", "nir", "nir08"]
scaling = {range = [0, 10000]}
"""
NAIP = """kind = "torchgeo"
dataset = "torchgeo.datasets.NAIP"
args = {{ paths = "naip" }}
labels = "torchgeo.datasets.ChesapeakeDE"
labels_args = {{ paths = "chesapeake" }}
values = {{ 11 = "water", 41 = "forest", 22 = "building" }}
splits = "random_grid_cell_assignment"
splits_args = {{ fractions = [0.5, 0.5], grid_size = 4 }}
split = {split}
"""
CVPR = """kind = "rasters"
images = "*-{split}_tiles/*_naip-new.tif"
bands = ["RGBN"]
labels = "*-{split}_tiles/*_lc.tif"
values = {{ 1 = "water", 2 = "forest", 4 = "barren" }}
ignore = [15]
"""
FIELDS = """kind = "torchgeo"
dataset = "torchgeo.datasets.Sentinel2"
args = {{ paths = "sentinel2", bands = ["B04", "B08", "B8A"] }}
labels = "torchgeo.datasets.VectorDataset"
labels_args = {{ paths = "fields.gpkg" }}
splits = "roi_split"
splits_args = {{ rois = [[500000, 8999040, 500480, 9000000], [500480, 8999040, 500960, 9000000]] }}
split = {split}
"""
SIZES = """
[model]
backbone = "mobilenet_v3_small"
pyramid_channels = 8
smooth_channels = 4
[region]
region_size = 96
overview_size = 48
patch_size = 64
patch_overlap = 16
margin = 16
[sample]
region_size = 96
patch_size = 64
patches_per_region = 1
[optim]
global_steps = 1
local_steps = 1
batch_size = 2
backbone_weights = ""
"""


@dataclass(frozen=True)
class Case:
    """A kind of data set: how it is written, and how a configuration names it."""

    write: Callable[[Path], object]
    legend: str
    resolution_m: float
    train: str
    validation: str
    scenes: int


CASES = {
    "deepglobe": Case(
        write_deepglobe, LANDCOVER, 0.5, 'kind = "deepglobe"', 'kind = "deepglobe"\nsplit = "validation"', 2
    ),
    "inria": Case(
        write_inria, BUILDINGS, 0.3, 'kind = "inria"\nsplits = "official"',
        'kind = "inria"\nsplits = "official"\nsplit = "validation"', 4,
    ),
    "isic": Case(
        write_isic, BUILDINGS.replace("building", "lesion"), 1.0, 'kind = "isic"\nlongest_side = 96',
        'kind = "isic"\nsplit = "validation"\nlongest_side = 96', 1,
    ),
    "vector": Case(
        write_own, BUILDINGS, 1.0,
        'kind = "rasters"\nimages = "scene_0.tif"\npolygons = "buildings.gpkg"\nclass_column = "kind"\n'
        'unlabeled = "background"',
        'kind = "rasters"\nimages = "scene_1.tif"\nlabels = "truth_*.tif"', 1,
    ),
    # As TorchGeo lays them out.
    "torchgeo's deepglobe": Case(
        lambda root: write_deepglobe(root, "torchgeo"), LANDCOVER, 0.5, 'kind = "deepglobe"\nsplits = "folders"',
        'kind = "deepglobe"\nsplits = "folders"\nsplit = "test"', 2,
    ),
    "torchgeo's inria": Case(
        lambda root: write_inria(root, folder="AerialImageDataset"), BUILDINGS, 0.3, 'kind = "inria"\nsplits = "official"',
        'kind = "inria"\nsplits = "official"\nsplit = "validation"', 4,
    ),
    "naip & chesapeake": Case(
        write_naip, COVER + RGBN, 1.0, NAIP.format(split=0), NAIP.format(split=1), 2,
    ),
    "chesapeake cvpr": Case(
        write_chesapeake_cvpr, COVER.replace("building", "barren") + RGBN, 1.0,
        CVPR.format(split="train"), CVPR.format(split="val"), 1,
    ),
    "sentinel2 & vector": Case(
        write_fields, BUILDINGS.replace("building", "field") + COUNTS, 10.0, FIELDS.format(split=0), FIELDS.format(split=1), 1,
    ),
}  # fmt: skip


def write_config(folder: Path, case: Case) -> Path:
    path = folder / "config.toml"
    path.write_text(
        f'name = "mini"\nresolution_m = {case.resolution_m}\n'
        f"{case.legend}[[train]]\n{case.train}\n[[validation]]\n{case.validation}\n{SIZES}"
    )
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(geoglnet, [str(argument) for argument in arguments])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """People's own rasters, with a configuration that trains on them."""
    write_own(tmp_path)
    write_config(tmp_path, CASES["vector"])
    return tmp_path


def train(folder: Path, *arguments: str) -> Result:
    return run("train", folder / "config.toml", "--data", folder, "-o", folder / "m.safetensors", *arguments)


@pytest.mark.smoke
@pytest.mark.parametrize("kind", CASES)
def test_every_kind_of_data_set_is_trained_and_scored_with_one_command_each(tmp_path: Path, kind: str) -> None:
    case = CASES[kind]
    case.write(tmp_path)
    write_config(tmp_path, case)
    trained = train(tmp_path)
    assert trained.exit_code == 0, trained.stderr
    assert {path.name for path in (tmp_path / "m.run").iterdir()} >= {"losses.csv", "scores.json", "scores.csv", "report.png"}
    written = ("-o", tmp_path / "scores")
    scored = run("evaluate", tmp_path / "m.safetensors", tmp_path / "config.toml", "--data", tmp_path, *written)
    assert scored.exit_code == 0, scored.stderr
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert len(scores["scenes"]) == case.scenes
    assert read_manifest(tmp_path / "m.safetensors").metrics["total"] == pytest.approx(
        scores["total"], abs=0.05
    )  # half precision
    with (tmp_path / "scores" / "scores.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["scene"] for row in rows] == [*scores["scenes"], "all"]
    assert float(rows[-1]["mean_iou"]) == pytest.approx(scores["total"]["mean_iou"], abs=1e-5)
    assert (tmp_path / "scores" / "report.png").read_bytes().startswith(b"\x89PNG")
    for scene in scores["scenes"]:
        assert scene in scored.stdout


def test_a_backbone_begins_with_torchgeos_weights_of_its_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which are downloaded where there is a network, and replaced here."""
    state = build_backbone("resnet18", 13).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: state)
    case = CASES["sentinel2 & vector"]
    case.write(tmp_path)
    text = write_config(tmp_path, case).read_text()
    weights = 'backbone_weights = "ResNet18_Weights.SENTINEL2_ALL_MOCO"\nglobal_learning_rate = 1e-9'
    text = text.replace('backbone_weights = ""', weights)
    (tmp_path / "config.toml").write_text(text.replace("mobilenet_v3_small", "resnet18"))
    trained = train(tmp_path)
    assert trained.exit_code == 0, trained.stderr
    network, manifest = load_checkpoint(tmp_path / "m.safetensors")
    expected = state["conv1.weight"][:, [3, 7, 8]] * (13 / 3)  # B04, B08 and B8A of red, nir and nir08
    assert manifest.bands.names == ("red", "nir", "nir08")
    torch.testing.assert_close(next(iter(network.backbones())).conv1.weight, expected, rtol=2e-3, atol=1e-3)  # half precision


@pytest.mark.smoke
@pytest.mark.slow
def test_the_program_itself_trains(own: Path) -> None:
    arguments = ["train", "config.toml", "-o", "m.safetensors", "--set", "optim.workers=1", "--progress", "json"]
    ran = subprocess.run([sys.executable, "-m", "geoglnet", *arguments], cwd=own, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [e["stage"] for e in events if e["event"] == "plan"][:3] == ["survey labels", "global stage", "local stage"]
    written = events[-1]["outputs"]
    assert (written["checkpoint"], written["run"]) == ("m.safetensors", "m.run")
    assert 0 <= written["scores"]["conventions"]["accuracy"] <= 1
    assert any("1 training scenes" in e["message"] for e in events if e["event"] == "log")


def test_another_split_of_a_published_set_is_scored_when_asked_for(tmp_path: Path, tiny_model_path: Path) -> None:
    write_inria(tmp_path)
    config = write_config(tmp_path, CASES["inria"])
    config.write_text(config.read_text().replace('"background"', '"ground"').replace('splits = "official"\n', ""))
    arguments = ("evaluate", tiny_model_path, config, "--data", tmp_path)
    tested = run(*arguments, "--split", "test")
    assert tested.exit_code == 1
    assert "Inria has class" in tested.stderr or "no class 'background'" in tested.stderr
    write_own(tmp_path)
    config = write_config(tmp_path, CASES["vector"])
    config.write_text(config.read_text().replace('"background", color', '"ground", color'))
    own = run(*arguments, "--split", "test")
    assert own.exit_code == 1
    assert "a source of kind = 'rasters' has no split 'test'" in own.stderr


def test_scores_are_not_written_over_unless_asked_for(own: Path) -> None:
    assert train(own).exit_code == 0
    arguments = ("evaluate", own / "m.safetensors", own / "config.toml", "--data", own, "-o", own / "m.run")
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "scores.json exists; pass --overwrite" in refused.stderr
    assert run(*arguments, "--overwrite").exit_code == 0


def one_line(ran: Result, *words: str) -> None:
    assert ran.exit_code == 1, ran.stdout + ran.stderr
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("Warning")]
    assert len(lines) == 1, ran.stderr
    for word in words:
        assert word in lines[0]


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    key = split_keys("deepglobe_train")[0]
    write_image(tmp_path / f"{key}_mask.png", np.zeros((3, 50, 60), np.uint8))
    write_config(tmp_path, CASES["deepglobe"])
    one_line(train(tmp_path), f"{key}_mask.png is 60 × 50 px", "96 × 96 px", "give a label image of the image's size")


def test_an_illegal_color_is_named_with_its_pixel(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    key = split_keys("deepglobe_train")[0]
    mask = np.zeros((3, 96, 96), np.uint8)
    mask[:, 70, 20] = (120, 60, 200)
    write_image(tmp_path / f"{key}_mask.png", mask)
    write_config(tmp_path, CASES["deepglobe"])
    one_line(train(tmp_path), f"{key}_mask.png has color (120, 60, 200) at row 70, column 20")


def test_an_empty_vector_layer_is_named(own: Path) -> None:
    (own / "buildings.gpkg").unlink()
    write_layer_of(own / "buildings.gpkg", {}, "EPSG:32736")
    one_line(train(own), "buildings.gpkg holds no polygons")


def test_a_class_that_the_legend_lacks_is_named(own: Path) -> None:
    config = own / "config.toml"
    config.write_text(config.read_text().replace('"building", color', '"roof", color'))
    one_line(train(own), "has class 'building' in 'kind'", "which the legend lacks (background, roof)", "values = {…}")


def test_a_vector_layer_in_another_crs_is_reprojected_and_that_is_said(own: Path) -> None:
    geopandas.read_file(own / "buildings.gpkg").to_crs(3857).to_file(own / "buildings.gpkg", driver="GPKG")
    ran = train(own, "--progress", "json")
    assert ran.exit_code == 0, ran.stderr
    messages = [json.loads(line).get("message", "") for line in ran.stdout.splitlines()]
    assert "buildings.gpkg is in EPSG:3857, its raster in EPSG:32736: polygons are reprojected" in messages


@pytest.mark.parametrize("kind", ["deepglobe", "inria", "isic"])
def test_a_folder_of_another_layout_is_described(tmp_path: Path, kind: str) -> None:
    write_own(tmp_path)
    write_config(tmp_path, CASES[kind])
    one_line(train(tmp_path), "looked for", "found 6 .tif, 1 .gpkg")


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_jpeg_damaged_in_the_middle_of_an_epoch_is_named_and_skipped_only_when_asked_for(
    tmp_path: Path, workers: int
) -> None:
    write_deepglobe(tmp_path)
    write_config(tmp_path, CASES["deepglobe"])
    key = split_keys("deepglobe_train")[1]
    path = tmp_path / f"{key}_sat.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    settings = ("--set", "sample.cache_mb=0", "--set", f"optim.workers={workers}", "--set", "optim.global_steps=4")
    one_line(train(tmp_path, *settings), f"{key}_sat.jpg cannot be read", "truncated or damaged")
    ran = train(tmp_path, *settings, "--skip-corrupt", "--overwrite")
    assert ran.exit_code == 0, ran.stderr
    assert f"Warning: skipped: {path} cannot be read" in ran.stderr


def test_a_damaged_georeferenced_raster_is_skipped_too(own: Path) -> None:
    config = own / "config.toml"
    config.write_text(config.read_text().replace('"scene_0.tif"', '"scene_*.tif"'))
    with rasterio.open(own / "scene_1.tif") as src:
        assert src.count == 3
    (own / "scene_2.tif").write_bytes(b"II*")
    one_line(train(own), "scene_2.tif is not a raster")
    assert train(own, "--skip-corrupt").exit_code == 0


def test_an_unknown_kind_and_key_are_named_with_the_nearest(own: Path) -> None:
    one_line(train(own, "--set", "sample.region_sise=96"), "unknown key 'region_sise'", "did you mean 'region_size'")
    config = own / "config.toml"
    config.write_text(config.read_text().replace('kind = "rasters"', 'kind = "raster"', 1))
    one_line(train(own), "unknown kind = 'raster' of a source; did you mean 'rasters'")
