"""Scenes of several rasters, from the command line to the journal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from click.testing import CliRunner

import geoglnet
from geoglnet.bands import Bands
from geoglnet.cli.main import geoglnet as program
from geoglnet.config import ModelConfig, RegionConfig
from geoglnet.errors import OutputError
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from geoglnet.prediction.layers import Layer
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor
from geoglnet.prediction.run import begin, join, take_over
from geoglnet.progress import RecordedProgress
from geoglnet.raster import products
from geoglnet.raster.scene import open_scene
from tests.rasters import noise, write_raster
from tests.served import Server

CPU = PredictConfig(device="cpu", batch_size=9)


@pytest.fixture(scope="module")
def four_band_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained GLNet of red, green, blue and height at 1 m."""
    torch.manual_seed(0)
    model = ModelConfig(2, "mobilenet_v3_small", pyramid_channels=8, smooth_channels=4, in_channels=4)
    region = RegionConfig(region_size=64, overview_size=32, patch_size=32, patch_overlap=8, margin=16)
    legend = Legend(("ground", "building"), ((0, 0, 0), (230, 75, 50)), background=0)
    bands = Bands(("red", "green", "blue", "height"), (0.5,) * 4, (0.2,) * 4)
    path = tmp_path_factory.mktemp("models") / "four.safetensors"
    save_checkpoint(path, GLNet(model), Manifest("four", model, region, legend, 1.0, (0.5, 2.0), 1.0, bands=bands))
    return path


@pytest.fixture
def rasters(tmp_path: Path) -> tuple[Path, Path]:
    rgb = write_raster(tmp_path / "rgb.tif", noise(3, 100, 150), pixel_size=1.0)
    place = Affine(1.5, 0, 500_000 - 5, 0, -1.5, 9_000_000 + 5)
    return rgb, write_raster(tmp_path / "dsm.tif", noise(1, 90, 120, seed=1), transform=place)


def labels(path: Path) -> bytes:
    with rasterio.open(path) as src:
        return bytes(src.read().tobytes())


def test_the_command_line_the_api_and_any_order_of_blocks_agree(
    four_band_model: Path, rasters: tuple[Path, Path], tmp_path: Path
) -> None:
    rgb, dsm = rasters
    out = tmp_path / "labels.tif"
    words = ["predict", str(rgb), "--with", f"height={dsm}", "--model", str(four_band_model), "-o", str(out)]
    ran = CliRunner().invoke(program, [*words, "--device", "cpu", "--batch", "9", "--progress", "json"])
    assert ran.exit_code == 0, ran.output
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    said = [event["message"] for event in events if event["event"] == "log"]
    assert any("bands 1, 2, 3, 1 as red, green, blue, height (band 1 of" in text for text in said)
    assert any("is resampled to the grid of" in text for text in said)

    again = tmp_path / "again.tif"
    geoglnet.predict(rgb, again, beside={"height": dsm}, model=four_band_model, config=CPU)
    assert labels(again) == labels(out)

    third = tmp_path / "third.tif"
    with begin(rgb, {"labels": third}, beside={"height": dsm}, model=str(four_band_model), config=CPU) as run:
        places, folder = list(run.missing()), run.folder
        run.compute(places[-1:])
    with join(folder) as run:
        run.compute(places[::-2])
    with take_over(folder) as run:
        run.compute()
        run.finish()
    assert labels(third) == labels(out)


def test_a_changed_second_raster_is_noticed_on_resume(
    four_band_model: Path, rasters: tuple[Path, Path], tmp_path: Path
) -> None:
    rgb, dsm = rasters
    out = tmp_path / "labels.tif"
    with begin(rgb, {"labels": out}, beside={"height": dsm}, model=str(four_band_model), config=CPU) as run:
        run.compute(list(run.missing())[:1])
        folder = run.folder
    with rasterio.open(dsm, "r+") as dst:
        dst.write(noise(1, 90, 120, seed=2))
    with pytest.raises(OutputError, match=r"scene file 2, dsm\.tif"), take_over(folder):
        pass


def test_a_changed_stac_item_is_noticed_on_resume(four_band_model: Path, rasters: tuple[Path, Path], tmp_path: Path) -> None:
    rgb, dsm = rasters
    colors = [{"name": name, "common_name": name} for name in ("red", "green", "blue")]
    assets = {"image": {"href": rgb.name, "type": "image/tiff", "eo:bands": colors}}
    assets |= {"height": {"href": dsm.name, "type": "image/tiff"}}
    item: dict[str, Any] = {"type": "Feature", "stac_version": "1.0.0", "id": "place", "properties": {}, "assets": assets}
    (tmp_path / "item.json").write_text(json.dumps(item))
    out = tmp_path / "labels.tif"
    with begin(tmp_path / "item.json", {"labels": out}, model=str(four_band_model), config=CPU) as run:
        run.compute(list(run.missing())[:1])
        folder = run.folder
    colors[0]["common_name"], colors[2]["common_name"] = "blue", "red"
    (tmp_path / "item.json").write_text(json.dumps(item))
    with pytest.raises(OutputError, match=r"scene file 3, item\.json"), take_over(folder):
        pass


def write_served_item(server: Server, rasters: tuple[Path, Path], hrefs: tuple[str, str]) -> str:
    """Put rasters on a server, with an item of them in a folder of its own; the item's address."""
    colors = [{"name": name, "common_name": name} for name in ("red", "green", "blue")]
    assets = {"image": {"href": hrefs[0], "type": "image/tiff", "eo:bands": colors}}
    assets |= {"height": {"href": hrefs[1], "type": "image/tiff"}} if hrefs[1] else {}
    (server.folder / "items").mkdir(exist_ok=True)
    for raster in rasters:
        shutil.copy(raster, server.folder / raster.name)
        shutil.copy(raster, server.folder / "items" / raster.name)
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "place", "assets": assets}
    (server.folder / "items" / "item.json").write_text(json.dumps(item))
    return f"{server.url}/items/item.json"


@pytest.mark.parametrize(
    "hrefs", [("./rgb.tif", "../dsm.tif"), ("/rgb.tif", "URL/dsm.tif?key=secret"), ("s3://items/rgb.tif", "")]
)
def test_an_item_at_an_address_is_a_scene(
    four_band_model: Path,
    rasters: tuple[Path, Path],
    server: Server,
    tmp_path: Path,
    hrefs: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # GDAL reads s3://items/rgb.tif as /vsis3/items/rgb.tif, from this "bucket".
    bucket = {"AWS_S3_ENDPOINT": server.url.partition("://")[2], "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
    for name, value in (bucket | {"AWS_NO_SIGN_REQUEST": "YES"}).items():
        monkeypatch.setenv(name, value)
    address = write_served_item(server, rasters, (hrefs[0], hrefs[1].replace("URL", server.url)))
    out, words = tmp_path / "labels.tif", ["--model", str(four_band_model), "--device", "cpu", "--batch", "9"]
    beside = [] if hrefs[1] else ["--with", f"height={server.url}/dsm.tif"]
    ran = CliRunner().invoke(program, ["predict", f"{address}?key=secret", *beside, "-o", str(out), *words])
    assert ran.exit_code == 0, ran.output
    described = CliRunner().invoke(program, ["info", address, *beside, "--model", str(four_band_model)])
    assert "place" in described.stdout.splitlines()[1]
    with rasterio.open(out) as src:
        assert src.tags()["GEOGLNET_SCENE"] == "item.json"
    geoglnet.predict(rasters[0], tmp_path / "local.tif", beside={"height": rasters[1]}, model=four_band_model, config=CPU)
    assert labels(out) == labels(tmp_path / "local.tif")


def test_an_item_that_changed_on_its_server_is_noticed_on_resume(
    four_band_model: Path, rasters: tuple[Path, Path], server: Server, tmp_path: Path
) -> None:
    address = write_served_item(server, rasters, ("rgb.tif", "dsm.tif"))
    with begin(address, {"labels": tmp_path / "labels.tif"}, model=str(four_band_model), config=CPU) as run:
        run.compute(list(run.missing())[:1])
        folder = run.folder
    with take_over(folder):
        pass
    with (server.folder / "items" / "item.json").open("a") as item:
        item.write(" ")
    with pytest.raises(OutputError, match=r"scene file 3, item\.json"), take_over(folder):
        pass


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("nowhere.json", "", "nowhere.json cannot be fetched (HTTP Error 404: Not Found); check the address"),
        ("page.json", "", "page.json is not JSON: it begins with '<html>Log in'; check the address"),
        ("item.json", "hangs", "item.json cannot be fetched (timed out); check the address and the network"),
        ("item.json", "drops", "item.json cannot be fetched (Remote end closed connection without response)"),
        ("s3://bucket/item.json", "", "is read from a file or an http(s) address"),
    ],
)
def test_an_item_that_cannot_be_had_ends_every_verb_in_one_line(
    four_band_model: Path, server: Server, tmp_path: Path, name: str, fault: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_PATIENCE_S", 0.3)
    (server.folder / "page.json").write_text("<html>Log in")
    (server.folder / "item.json").write_text("{}")
    if fault:
        (server.folder.parent / fault).touch()
    address = name if "://" in name else f"{server.url}/{name}"
    more = ["--model", str(four_band_model)]
    for verb in (["predict", address, "-o", str(tmp_path / "l.tif"), *more], ["info", address, *more], ["info", address]):
        ran = CliRunner().invoke(program, verb)
        assert ran.exit_code == 1
        assert ran.stderr.startswith("Error: ")
        assert words in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("l.*"))
    if fault:
        (server.folder.parent / fault).unlink()


def test_a_file_of_a_stac_item_is_never_overwritten(four_band_model: Path, rasters: tuple[Path, Path], tmp_path: Path) -> None:
    rgb, _ = rasters
    assets = {"image": {"href": rgb.name, "type": "image/tiff"}}
    (tmp_path / "item.json").write_text(json.dumps({"stac_version": "1.0.0", "id": "place", "assets": assets}))
    words = ["predict", str(tmp_path / "item.json"), "-o", str(rgb), "--overwrite", "--model", str(four_band_model)]
    ran = CliRunner().invoke(program, words)
    assert ran.exit_code == 1
    assert "rgb.tif is a file of the scene" in ran.stderr.splitlines()[-1]
    assert labels(rgb) == noise(3, 100, 150).tobytes()


def test_the_fourth_band_reaches_the_networks_output(four_band_model: Path, tmp_path: Path) -> None:
    # Confidence has 255 steps, and that of an untrained network lies within one of them: what is below a step is stored here.
    detail = Layer("detail", lambda probabilities: (probabilities[:1] * 2**14) % 1, "Write digits of a probability.")
    network, manifest = load_checkpoint(four_band_model)
    rgb = write_raster(tmp_path / "rgb.tif", noise(3, 64, 64), pixel_size=1.0)
    found = []
    for heights in (np.full((1, 64, 64), 128, np.uint8), noise(1, 64, 64, seed=1), np.full((1, 64, 64), 128, np.uint8)):
        dsm = write_raster(tmp_path / "dsm.tif", heights, pixel_size=1.0)
        with open_scene(rgb, beside={"height": dsm}, model_bands=manifest.bands) as scene:
            blocks = Predictor(network, manifest, CPU).iter_blocks(scene, (detail,))
            found.append(np.concatenate([pending.resolve().layers["detail"].ravel() for pending in blocks]))
    flat, rough, again = found
    assert (flat == again).all()
    assert (flat != rough).mean() > 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "has no band height (needed are red, green, blue, height; it has 1 red, 2 green, 3 blue)"),
        (["--with", "depth=dsm.tif"], "the model takes no band 'depth', which is named in --with; known: red, green, blue"),
        (["--with", "height=nowhere.tif"], "nowhere.tif does not exist"),
        (["--with", "height=rgb.tif"], "has no band height"),
        (["--with", "height=dsm.tif", "--bands", "1,2"], "2 bands are selected (1, 2), the model takes 3 (red, green, blue)"),
        (["--with", "height=dsm.tif", "--bands", "nir,red,green"], "has no band nir"),
        (["--with", "height=dsm.tif", "--bands", "red,red,green"], "name red twice"),
    ],
)
def test_bands_that_do_not_fit_are_refused_in_one_line(
    four_band_model: Path, rasters: tuple[Path, Path], tmp_path: Path, words: list[str], message: str
) -> None:
    placed = [word.replace("=", f"={tmp_path}/") for word in words]
    command = ["predict", str(rasters[0]), *placed, "--model", str(four_band_model), "-o", str(tmp_path / "l.tif")]
    ran = CliRunner().invoke(program, command)
    assert ran.exit_code == 1
    assert message in ran.stderr.splitlines()[-1]
    assert sum(line.startswith("Error") for line in ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["--with", "dsm.tif"], ["--with", "=a.tif"], ["--with", "a=1.tif", "--with", "a=2.tif"]])
def test_words_that_are_no_band_and_file_are_wrong_usage(rasters: tuple[Path, Path], words: list[str]) -> None:
    assert CliRunner().invoke(program, ["predict", str(rasters[0]), *words, "-o", "l.tif"]).exit_code == 2


def test_progress_names_what_was_taken_for_what(four_band_model: Path, rasters: tuple[Path, Path], tmp_path: Path) -> None:
    rgb, dsm = rasters
    with rasterio.open(rgb, "r+") as dst:
        dst.descriptions = ("blue", "green", "red")
    progress = RecordedProgress()
    done = geoglnet.predict(
        rgb, tmp_path / "l.tif", beside={"height": dsm}, model=four_band_model, config=CPU, progress=progress
    )
    assert f"{rgb}: bands 3 red, 2 green, 1 blue (by description)" in done.rules
