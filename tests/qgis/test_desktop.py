"""The desktop on a virtual screen: what a person sees and does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from machine import REPOSITORY, crop, enable_plugin, processes_with, qgis_environment

SCRIPTS = Path(__file__).parent / "desktop"
PATIENCE_S = 360
PICTURES = os.environ.get("GEOGLNET_PICTURES")  # folder to keep them in, of a larger scene; docs/ has two

pytestmark = [
    pytest.mark.desktop,
    pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="no xvfb-run on this machine"),
]


def play(name: str, profile: Path, folder: Path, **more: str) -> dict[str, Any]:
    """Run a scenario in a QGIS of its own; everything that it noted."""
    program = shutil.which("qgis.bin") or "qgis"
    environment = qgis_environment(
        profile, GEOGLNET_DESKTOP_FOLDER=str(folder), GEOGLNET_DESKTOP_SCRIPTS=str(SCRIPTS), QT_QPA_PLATFORM="xcb", **more
    )
    if name == "install":
        del environment["QGIS_PLUGINPATH"]
    screen = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24"]
    words = [*screen, program, "--noversioncheck", "--nologo", "--code", str(SCRIPTS / f"{name}.py")]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            said, _ = process.communicate()
    log = folder / "log.jsonl"
    assert log.exists(), said.decode("utf-8", "replace")[-3000:]
    facts: dict[str, Any] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        facts.update(json.loads(line))
    assert "error" not in facts, facts["error"]
    assert facts["ended"], said.decode("utf-8", "replace")[-3000:]
    return facts


def test_a_person_segments_watches_cancels_and_works_in_batches(
    profile: Path, scene_path: Path, demo: Path, tmp_path: Path
) -> None:
    enable_plugin(profile)
    folder = Path(PICTURES or tmp_path / "desktop")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    large = tmp_path / "large.tif"
    large.hardlink_to(demo / "scene.tif")
    scene = scene_path if PICTURES is None else crop(demo / "scene.tif", tmp_path / "village.tif", (1500, 700, 1100, 800))
    second = crop(demo / "scene.tif", tmp_path / "second.tif", (1200, 900, 240, 200))
    found = play(
        "use",
        profile,
        folder,
        GEOGLNET_DESKTOP_SCENE=str(scene),
        GEOGLNET_DESKTOP_LARGE=str(large),
        GEOGLNET_DESKTOP_SECOND=str(second),
    )
    assert {"geoglnet", "Segment scene", "Vectorize labels", "Polygons from raster", "Adapt a model", "Train on layers"} <= set(
        found["toolbox"]
    )
    assert 3 < found["live"] < 100
    assert re.search(r"^segment: (1 patch|\d+ patches), about \d+ min", found["log"], re.MULTILINE)
    assert found["order"] == ["polygons", "labels", scene.stem]
    assert found["classes"] == ["background", "building"]
    assert found["styles"] == ["building"]
    assert found["polygons"] > 0
    assert found["before_cancel"]
    assert "canceled" in found["canceled"]
    assert found["left"] == []
    assert list(processes_with(str(large))) == []
    assert found["batch"] == [
        "batch 0.gpkg",
        "batch 0.tif",
        "batch 0.tif.aux.xml",
        *(f"batch 1.{suffix}" for suffix in ("gpkg", "tif", "tif.aux.xml")),
    ]
    assert "geoglnet" not in found["providers"]


TINY = """
name = "tiny"
resolution_m = 0.5
[legend]
classes = [{ name = "background", color = [32, 32, 32] }, { name = "building", color = [230, 75, 50] }]
background = 0
[model]
backbone = "mobilenet_v3_small"
pyramid_channels = 8
smooth_channels = 4
[region]
region_size = 128
overview_size = 64
patch_size = 64
patch_overlap = 8
margin = 16
[[train]]
kind = "rasters"
images = "village.tif"
polygons = "drawn.gpkg"
unlabeled = "background"
[sample]
region_size = 128
patch_size = 64
patches_per_region = 1
[optim]
global_steps = 1
local_steps = 1
batch_size = 2
backbone_weights = ""
"""


def test_adapting_in_the_desktop_shows_time_and_scores(profile: Path, demo: Path, program: str, tmp_path: Path) -> None:
    enable_plugin(profile)
    folder = Path(PICTURES or tmp_path / "desktop")
    folder.mkdir(exist_ok=True)
    scene = crop(demo / "scene.tif", tmp_path / "village.tif", (1200, 700, 800, 800))
    words = ["ogr2ogr", "-where", "class_name = 'building'", "-select", "class_name", "-nln", "drawn"]
    subprocess.run([*words, str(tmp_path / "drawn.gpkg"), str(demo / "truth.gpkg"), "truth"], check=True)
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    model = tmp_path / "tiny.safetensors"
    train = [program, "train", str(tmp_path / "tiny.toml"), "--data", str(tmp_path), "-o", str(model)]
    subprocess.run(train, check=True, capture_output=True)
    places = {"SCENE": scene, "DRAWN": tmp_path / "drawn.gpkg", "MODEL": model}
    found = play("adapt", profile, folder, **{f"GEOGLNET_DESKTOP_{name}": str(path) for name, path in places.items()})
    assert found["written"]
    assert re.search(r"steps of about .* min", found["log"])
    assert "held out" in found["log"]
    assert "IoU: " in found["log"]


def test_the_zip_installs_into_a_virgin_profile_and_unloads(profile: Path, tmp_path: Path) -> None:
    subprocess.run([str(REPOSITORY / "scripts" / "package-plugin"), str(tmp_path)], check=True, capture_output=True)
    (zip_path,) = tmp_path.glob("geoglnet_qgis-*.zip")
    folder = tmp_path / "desktop"
    folder.mkdir()
    found = play("install", profile, folder, GEOGLNET_DESKTOP_ZIP=str(zip_path))
    assert "geoglnet" not in found["before"]
    assert "geoglnet" in found["after"]
    assert found["active"] is True
    assert found["algorithms"] == 6
    assert Path(found["folder"]).is_relative_to(profile)
    assert "geoglnet" not in found["unloaded"]
    assert found["still_there"] is False
