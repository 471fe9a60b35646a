"""What bad input gets: one line that says what, the value found and the way out; nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from rasterio.transform import from_origin

from geoglnet.cli.main import geoglnet

Predict = Callable[..., Result]


@pytest.fixture
def predict(scene_path: Path, tiny_model_path: Path, tmp_path: Path) -> Predict:
    """Runs ``predict`` on a good scene with a good model, but for what a test changes."""

    def run(*extra: str, scene: str | Path = scene_path, model: str | Path = tiny_model_path, o: str = "out.tif") -> Result:
        arguments = [
            "predict",
            str(scene),
            "-o",
            str(tmp_path / o),
            "--model",
            str(model),
            "--device",
            "cpu",
            "--batch",
            "9",
            *extra,
        ]
        return CliRunner().invoke(geoglnet, arguments)

    return run


def assert_one_line(ran: Result, *words: str) -> None:
    assert isinstance(ran.exception, SystemExit), ran.exception
    assert ran.exit_code == 1
    lines = [line for line in ran.stderr.splitlines() if "kept in" not in line]
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_missing_scene_is_named(predict: Predict, tmp_path: Path) -> None:
    assert_one_line(predict(scene="nowhere.tif"), "nowhere.tif does not exist")
    assert names_in(tmp_path) == []


def test_a_file_that_is_no_raster_is_said_to_be_none(predict: Predict, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a raster")
    assert_one_line(predict(scene=text), "notes.txt is not a raster")
    assert names_in(tmp_path) == ["notes.txt"]


def test_an_empty_file_is_no_raster(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    assert_one_line(predict(scene=tmp_path / "empty.tif"), "empty.tif is not a raster")


def test_a_container_without_bands_of_its_own_is_refused(predict: Predict, tmp_path: Path) -> None:
    container = tmp_path / "two.gpkg"
    for name in ("first", "second"):
        profile = {"driver": "GPKG", "count": 3, "height": 64, "width": 64, "dtype": "uint8", "crs": "EPSG:32633"}
        place = {"transform": from_origin(500000, 5000000, 1, 1), "RASTER_TABLE": name, "APPEND_SUBDATASET": name == "second"}
        with rasterio.open(container, "w", **profile, **place) as dst:
            dst.write(np.ones((3, 64, 64), np.uint8))
    assert_one_line(predict(scene=container), "two.gpkg has no bands", "name one of its parts")


@pytest.mark.parametrize(("kind", "name"), [("labels", "out.gpkg"), ("confidence", "sure.GeoJSON")])
def test_a_raster_gets_no_name_of_a_vector_file(predict: Predict, tmp_path: Path, kind: str, name: str) -> None:
    ran = predict(o=name) if kind == "labels" else predict("--confidence", str(tmp_path / name))
    assert_one_line(ran, f"{name}: {kind} is written as a GeoTIFF; let its name end in .tif")
    assert names_in(tmp_path) == []


def test_too_few_bands_are_counted(predict: Predict, make_scene: Callable[..., Path]) -> None:
    ran = predict(scene=make_scene("two.tif", count=2))
    assert_one_line(ran, "two.tif has 2 image bands, 3 are needed")


def test_a_band_that_is_not_there_is_named(predict: Predict) -> None:
    assert_one_line(predict("--bands", "1,2,4"), "there is no band 4", "bands 1 to 3")


def test_too_few_chosen_bands_are_counted(predict: Predict, tmp_path: Path) -> None:
    assert_one_line(predict("--bands", "1,2"), "2", "3")
    assert names_in(tmp_path) == []


def test_a_truncated_scene_is_named_and_leaves_no_labels(
    predict: Predict, make_scene: Callable[..., Path], tmp_path: Path
) -> None:
    whole = make_scene("whole.tif", height=192, width=192, tiled=True, blockxsize=64, blockysize=64)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    ran = predict(scene=cut)
    assert_one_line(ran, "cut.tif cannot be read", "truncated or damaged")
    assert "finished blocks are kept in" in ran.stderr
    assert names_in(tmp_path) == ["cut.tif", "out.tif.unfinished"]


def test_an_unknown_model_gets_the_nearest_name(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoglnet.models.shipped.shipped_models", lambda: ("buildings", "landcover"))
    assert_one_line(predict(model="bulidings"), "no model 'bulidings'", "did you mean 'buildings'?")


def test_a_truncated_model_is_not_whole(predict: Predict, tiny_model_path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny_model_path.read_bytes()[:1000])
    assert_one_line(predict(model=cut), "cut.safetensors is not a whole safetensors file")
    assert names_in(tmp_path) == ["cut.safetensors"]


def test_a_foreign_file_is_no_model(predict: Predict, scene_path: Path) -> None:
    assert_one_line(predict(model=scene_path), "is not a whole safetensors file")


def test_a_foreign_safetensors_file_has_no_manifest(predict: Predict, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, foreign)
    assert_one_line(predict(model=foreign), "without a geoglnet manifest")


def test_a_model_of_a_newer_format_asks_for_an_upgrade(predict: Predict, tiny_model_path: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.safetensors"
    newer.write_bytes(with_format_version(tiny_model_path.read_bytes(), 99))
    assert_one_line(predict(model=newer), "format 99", "upgrade geoglnet")


def with_format_version(checkpoint: bytes, version: int) -> bytes:
    """The same checkpoint saying that it has another format version."""
    (length,) = struct.unpack("<Q", checkpoint[:8])
    header = json.loads(checkpoint[8 : 8 + length])
    manifest = json.loads(header["__metadata__"]["geoglnet"]) | {"format_version": version}
    header["__metadata__"]["geoglnet"] = json.dumps(manifest)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + checkpoint[8 + length :]


def test_a_missing_output_folder_is_named_before_any_work(predict: Predict, tmp_path: Path) -> None:
    assert_one_line(predict(o="nowhere/out.tif"), "nowhere does not exist; create it")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("option", ["-o", "--vector", "--confidence"])
def test_an_existing_output_is_refused_and_kept(predict: Predict, tmp_path: Path, option: str) -> None:
    old = tmp_path / {"-o": "old.tif", "--vector": "old.gpkg", "--confidence": "old.tif"}[option]
    old.write_text("old")
    assert_one_line(predict(option, str(old)), f"{old.name} exists; pass --overwrite")
    assert names_in(tmp_path) == [old.name]
    assert old.read_text() == "old"


def test_an_existing_output_is_replaced_when_asked(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "out.tif").write_text("old")
    ran = predict("--overwrite")
    assert ran.exit_code == 0, ran.output
    with rasterio.open(tmp_path / "out.tif") as labels:
        assert labels.dtypes == ("uint8",)


def test_the_scene_is_never_overwritten(predict: Predict, make_scene: Callable[..., Path], tmp_path: Path) -> None:
    scene = tmp_path / "scene.tif"
    shutil.copy(make_scene(), scene)
    assert_one_line(predict("--overwrite", scene=scene, o="scene.tif"), "is the scene itself")


def test_a_vector_format_that_is_not_written_is_refused(predict: Predict, tmp_path: Path) -> None:
    assert_one_line(predict("--vector", str(tmp_path / "out.shp")), "out.shp", ".gpkg")
    assert names_in(tmp_path) == []


def test_a_device_that_is_not_here_is_said(predict: Predict) -> None:
    assert_one_line(predict("--device", "cuda:77"), "cuda:77")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict"], "Missing argument 'SCENE"),
        (["predict", "scene.tif"], "nothing to write: give -o"),
        (["predict", "scene.tif", "-o", "l.tif", "--effort", "2"], "Invalid value for '--effort'"),
        (["predict", "scene.tif", "-o", "l.tif", "--bounds", "1", "2"], "requires 4 arguments"),
        (["predict", "scene.tif", "-o", "l.tif", "--batch", "0"], "Invalid value for '--batch'"),
        (["predict", "scene.tif", "-o", "l.tif", "--precision", "int8"], "Invalid value for '--precision'"),
        (["predict", "scene.tif", "-o", "l.tif", "--resolution", "0"], "Invalid value for '--resolution'"),
        (["predict", "scene.tif", "-o", "l.tif", "--scale", "255", "0"], "255 is not below 0"),
        (["predict", "scene.tif", "-o", "l.tif", "--bands", "0,1,2"], "'0,1,2' are neither band names"),
        (["predict", "scene.tif", "-o", "l.tif", "--with", "dsm.tif"], "'dsm.tif' is not NAME=FILE, as in height=dsm.tif"),
        (["vectorize", "labels.tif"], "Missing argument 'OUT.gpkg'"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], words: str) -> None:
    ran = CliRunner().invoke(geoglnet, arguments)
    assert ran.exit_code == 2
    assert words in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vectorize", "nowhere.tif", "out.gpkg"], "nowhere.tif"),
        (["info", "nowhere.tif"], "nowhere.tif does not exist"),
        (["info", "nowhere.safetensors"], "nowhere.safetensors"),
        (["models", "nothing"], "no shipped model 'nothing'"),
    ],
)
def test_the_other_verbs_say_it_in_one_line_too(arguments: list[str], words: str) -> None:
    assert_one_line(CliRunner().invoke(geoglnet, arguments), words)


def test_a_scene_is_no_label_raster(scene_path: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(geoglnet, ["vectorize", str(scene_path), str(tmp_path / "out.gpkg")])
    assert_one_line(ran, "scene.tif")
    assert names_in(tmp_path) == []


def test_an_error_is_an_event_too(predict: Predict) -> None:
    ran = predict("--progress", "json", scene="nowhere.tif")
    event = json.loads(ran.stdout.splitlines()[-1])
    assert (event["event"], event["kind"]) == ("error", "SceneNotFoundError")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # a file of it may be open a moment longer


def fill(disk: Path, free: int) -> Path:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - free))
    return ballast


def test_a_full_disk_is_one_line(predict: Predict, small_disk: Path) -> None:
    fill(small_disk, 0)
    assert_one_line(predict("--vector", str(small_disk / "out.gpkg"), o="disk/out.tif"), "disk", "full")
    assert names_in(small_disk) == ["ballast"]


@pytest.mark.parametrize("free", [30_000, 60_000])
def test_a_disk_that_fills_up_loses_nothing_and_the_run_goes_on_when_there_is_space(
    predict: Predict, small_disk: Path, tmp_path: Path, free: int
) -> None:
    ballast = fill(small_disk, free)
    ran = predict("--confidence", str(small_disk / "sure.tif"), o="disk/out.tif")
    assert_one_line(ran, "disk", "full")
    assert "kept in" in ran.stderr
    assert "out.tif.unfinished" in names_in(small_disk)
    ballast.unlink()
    again = predict("--confidence", str(small_disk / "sure.tif"), "--resume", o="disk/out.tif")
    assert again.exit_code == 0, again.output
    assert predict("--confidence", str(tmp_path / "sure.tif")).exit_code == 0
    for name in ("out.tif", "sure.tif"):
        assert (small_disk / name).read_bytes() == (tmp_path / name).read_bytes()
    assert names_in(small_disk) == ["out.tif", "out.tif.aux.xml", "sure.tif"]


def test_a_full_disk_while_tracing_leaves_no_polygons(make_scene: Callable[..., Path], small_disk: Path) -> None:
    labels = make_scene("noise.tif", count=1, height=100, width=100)
    ran = CliRunner().invoke(geoglnet, ["vectorize", str(labels), str(small_disk / "out.gpkg")])
    assert_one_line(ran, "disk", "full")
    assert names_in(small_disk) == []
