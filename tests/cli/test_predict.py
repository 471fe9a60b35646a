"""``predict``, ``vectorize``, ``info`` and ``evaluate`` end to end, on a small scene with an untrained model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from geoglnet.cli.main import geoglnet
from geoglnet.cli.terminal import count_of
from tests.rasters import write_raster

pytestmark = pytest.mark.smoke
RASTERS = ("confidence", "entropy", "probabilities")  # outputs beside labels and polygons


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(geoglnet, [*map(str, arguments)])


@pytest.fixture(scope="module")
def outputs(scene_path: Path, tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    written = ("-o", folder / "labels.tif", "--vector", folder / "polygons.gpkg")
    written += tuple(word for kind in RASTERS for word in (f"--{kind}", folder / f"{kind}.tif"))
    ran = run(
        "predict", scene_path, *written, "--model", tiny_model_path, "--device", "cpu", "--batch", "9", "--progress", "json"
    )
    assert ran.exit_code == 0, ran.output
    (folder / "events.jsonl").write_text(ran.stdout)
    return folder


def test_how_values_are_read_is_said_in_a_pipe_too(tiny_model_path: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((3, 40, 40), np.float32)
    image[:, :20] = 7
    scene = write_raster(tmp_path / "scene.tif", image, pixel_size=1.0)
    words = (
        "predict",
        scene,
        "-o",
        tmp_path / "labels.tif",
        "--model",
        tiny_model_path,
        "--device",
        "cpu",
        "--batch",
        "9",
        "--nodata",
        "7",
    )
    ran = run(*words)
    note = "values 0 to 1 read as 0 to 255 (fractions); 7 is no value"
    assert ran.stderr.splitlines()[0] == f"Note: {note}"
    assert "Note" not in run(*words, "--overwrite", "--progress", "none").stderr
    with rasterio.open(tmp_path / "labels.tif") as src:
        assert ((src.read(1) == 255) == (np.arange(40) < 20)[:, None]).all()
    assert json.loads(run("info", scene, "--nodata", "7", "--json").stdout)["values"] == note


def test_all_outputs_that_were_asked_for_appear_and_nothing_else(outputs: Path) -> None:
    names = {path.name for path in outputs.iterdir() if not path.name.endswith(".aux.xml")}
    assert names == {"labels.tif", "polygons.gpkg", "events.jsonl", *(f"{kind}.tif" for kind in RASTERS)}


def test_labels_lie_on_the_scene(outputs: Path, scene_path: Path) -> None:
    with rasterio.open(scene_path) as scene, rasterio.open(outputs / "labels.tif") as labels:
        assert (labels.crs, labels.transform, labels.shape) == (scene.crs, scene.transform, scene.shape)
        assert labels.nodata == 255


def test_events_tell_plan_progress_and_what_was_written(outputs: Path) -> None:
    events = [json.loads(line) for line in (outputs / "events.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.index("plan") < kinds.index("progress")
    assert kinds[-1] == "done"
    assert events[-1]["outputs"]["labels"] == str(outputs / "labels.tif")
    last = [event for event in events if event["event"] == "progress"][-1]
    assert last["done"] == last["total"]


def test_vectorize_makes_the_same_polygons_again(outputs: Path, tmp_path: Path) -> None:
    ran = run("vectorize", outputs / "labels.tif", tmp_path / "again.gpkg")
    assert ran.exit_code == 0, ran.output
    count = json.loads((outputs / "events.jsonl").read_text().splitlines()[-1])["outputs"]["num_polygons"]
    assert ran.stderr == f"{count_of(count, 'polygon')} in {tmp_path / 'again.gpkg'}\n"


def test_without_labels_only_the_polygons_stay(scene_path: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    ran = run(
        "predict", scene_path, "--vector", tmp_path / "only.gpkg", "--model", tiny_model_path, "--device", "cpu", "--batch", "9"
    )
    assert ran.exit_code == 0, ran.output
    assert [path.name for path in tmp_path.iterdir()] == ["only.gpkg"]


def test_info_describes_a_scene_labels_and_a_model(outputs: Path, scene_path: Path, tiny_model_path: Path) -> None:
    scene = json.loads(run("info", scene_path, "--json").stdout)
    assert (scene["kind"], scene["width"], scene["crs"], scene["num_bands"]) == ("scene", 120, "EPSG:32633", 3)
    assert scene["pixel_size_m"] == pytest.approx(1, rel=1e-3)
    labels = json.loads(run("info", outputs / "labels.tif", "--json").stdout)
    assert (labels["kind"], labels["classes"]) == ("labels", ["ground", "building"])
    model = json.loads(run("info", tiny_model_path, "--json").stdout)
    assert (model["kind"], model["name"], model["resolution_m"]) == ("model", "tiny", 1.0)


def test_info_is_also_for_people(scene_path: Path, tiny_model_path: Path) -> None:
    assert "EPSG:32633" in run("info", scene_path).stdout
    assert "ground, building" in run("info", tiny_model_path).stdout
