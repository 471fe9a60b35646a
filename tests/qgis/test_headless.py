"""``qgis_process``: a QGIS without windows, as scripts and servers use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import enable_plugin, processes_with, qgis_environment

PATIENCE_S = 240.0


@pytest.fixture
def environment(profile: Path) -> dict[str, str]:
    """A virgin profile with the plugin enabled."""
    enable_plugin(profile)
    return qgis_environment(profile)


def command(qgis_process: str, scene: Path, folder: Path, *options: str) -> list[str]:
    paths = [f"INPUT={scene}", f"LABELS={folder / 'l.tif'}", f"POLYGONS={folder / 'p.gpkg'}"]
    return [qgis_process, *options, "run", "geoglnet:segmentscene", "--", *paths]


def test_qgis_process_segments_in_a_dirty_environment(
    qgis_process: str, environment: dict[str, str], scene_path: Path, tmp_path: Path
) -> None:
    # What QGIS's launchers export for the Python, PROJ and GDAL of its bundle; here these are Debian's.
    dirty = {"PYTHONHOME": "/usr", "PYTHONPATH": "/usr/lib/python3/dist-packages", "PYTHONEXECUTABLE": "/usr/bin/python3"}
    dirty |= {"PROJ_LIB": "/nowhere/proj", "PROJ_DATA": "/nowhere/proj", "GDAL_DATA": "/nowhere/gdal"}
    ran = subprocess.run(
        command(qgis_process, scene_path, tmp_path, "--json"),
        env={**environment, **dirty, "LANG": "C"},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    results = json.loads(ran.stdout)["results"]
    assert results["NUM_POLYGONS"] > 0
    assert Path(results["LABELS"]).is_file()
    assert Path(results["POLYGONS"]).is_file()


def test_qgis_process_replaces_no_file_unasked(
    qgis_process: str, environment: dict[str, str], scene_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.gpkg").write_bytes(b"drawn by hand")
    ran = subprocess.run(
        command(qgis_process, scene_path, tmp_path), env=environment, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert ran.returncode != 0
    assert "Replace existing files" in (ran.stderr + ran.stdout).decode("utf-8", "replace")
    assert (tmp_path / "p.gpkg").read_bytes() == b"drawn by hand"
    assert not (tmp_path / "l.tif").exists()


def test_a_failure_is_an_exit_code_and_a_sentence(qgis_process: str, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "scene.tif").write_bytes(b"no raster")
    environment["GEOGLNET_PROGRAM"] = "/nowhere/geoglnet"
    ran = subprocess.run(
        [qgis_process, "run", "geoglnet:modelinformation", "--", "MODEL=buildings"],
        env=environment,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 1
    assert b"there is no geoglnet program at /nowhere/geoglnet" in ran.stderr + ran.stdout


@pytest.fixture
def running(
    qgis_process: str, environment: dict[str, str], demo: Path, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """A run in the midst of its work: the process, the scene, and the folder it writes to."""
    scene = tmp_path / "to end.tif"
    scene.hardlink_to(demo / "scene.tif")
    folder = tmp_path / "results"
    folder.mkdir()
    with subprocess.Popen(
        command(qgis_process, scene, folder),  # with --json, QGIS 3.22 lets SIGINT pass unheard
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where the tests are a background job, it is ignored
    ) as process:
        wait_for(lambda: any(folder.iterdir()), "work to begin")
        yield process, scene, folder
        process.kill()


def wait_for(happened, what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_however_qgis_process_ends_the_program_ends_too_and_cleans_up(
    number: int, running: tuple[subprocess.Popen[bytes], Path, Path]
) -> None:
    process, scene, folder = running
    assert len(list(processes_with(str(scene)))) >= 2
    os.kill(process.pid, number)
    assert process.wait(timeout=PATIENCE_S) != 0
    wait_for(lambda: not list(processes_with(str(scene))), "the program to end")
    left = {path.name for path in folder.iterdir()}
    # What is left is finished blocks to go on from, and the folders of the outputs, which the next run takes over.
    kept = {"l.tif.unfinished", "l.tif.part", "p.gpkg.part"}
    assert left == set() if number == signal.SIGINT else left <= kept
