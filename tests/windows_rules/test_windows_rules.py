"""What would go wrong on Windows: files that are open when they are to go, and results that another program holds open."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from click.testing import CliRunner, Result
from geoglnet_qgis import runner
from geoglnet_qgis.environment import clean_environment
from geoglnet_qgis.runner import Outcome, run_program

from geoglnet.cli.main import geoglnet
from geoglnet.errors import OutputError
from geoglnet.output import OutputFile, is_held
from tests.rasters import write_raster
from tests.windows_rules import sitecustomize as windows_rules

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the rule is simulated through Linux's /proc")


@pytest.fixture(autouse=True)
def _enforced() -> Iterator[None]:
    with windows_rules.enforced():
        yield


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(geoglnet, [*map(str, arguments)])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def holding_process(path: Path) -> subprocess.Popen[bytes]:
    with path.open("rb") as file:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=file)


@pytest.mark.parametrize("holder", ["file", "memory map", "raster", "another process", "link"])
def test_the_simulated_rule_refuses_what_windows_refuses(tmp_path: Path, holder: str) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other.tif"
    folder.mkdir()
    path = write_raster(folder / "open.tif", np.ones((1, 8, 8), np.uint8))
    other.write_bytes(b"")
    (tmp_path / "link.tif").symlink_to(path)
    hold: dict[str, Callable[[], object]] = {
        "file": lambda: path.open("rb"),
        "memory map": lambda: np.memmap(path, mode="r"),
        "raster": lambda: rasterio.open(path),
        "another process": lambda: holding_process(path),
        "link": lambda: (tmp_path / "link.tif").open("rb"),
    }
    held = hold[holder]()
    try:
        moves = (path.unlink, lambda: path.rename(other), lambda: other.replace(path), lambda: folder.rename(tmp_path / "new"))
        for move in moves:
            with pytest.raises(PermissionError, match="used by another process"):
                move()
        assert is_held(path)
    finally:
        if isinstance(held, subprocess.Popen):
            held.kill()
            held.wait()
        elif hasattr(held, "close"):
            held.close()
        del held
    assert not is_held(path)
    (tmp_path / "link.tif").unlink()
    path.replace(other)
    other.unlink()
    folder.rmdir()
    assert names(tmp_path) == set()


@pytest.mark.parametrize("held", ["labels.tif", "labels.tif.aux.xml"])
def test_an_output_that_is_shown_elsewhere_is_refused_before_the_work(tmp_path: Path, held: str) -> None:
    for name in ("labels.tif", "labels.tif.aux.xml"):
        (tmp_path / name).write_text("old")
    with (
        (tmp_path / held).open(),
        pytest.raises(OutputError, match=r"labels\.tif is open in another program \(QGIS\?\); close"),
    ):
        OutputFile(tmp_path / "labels.tif", overwrite=True)


def test_an_output_that_cannot_be_replaced_at_the_end_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoglnet.output._WAITS_S", (0.01,))
    path, sidecar = tmp_path / "labels.tif", tmp_path / "labels.tif.aux.xml"
    for old in (path, sidecar, tmp_path / "labels (2).tif.aux.xml"):
        old.write_text("old")
    output = OutputFile(path, overwrite=True)

    def write_while_shown() -> None:
        with path.open(), output as part_path:
            part_path.write_text("new")
            part_path.with_name(f"{part_path.name}.aux.xml").write_text("new names")

    with pytest.raises(
        OutputError, match=r"another program has it open \(QGIS\?\); the new one is kept as .*labels \(3\)\.tif$"
    ):
        write_while_shown()
    assert (path.read_text(), sidecar.read_text()) == ("old", "old")
    assert (tmp_path / "labels (3).tif").read_text() == "new"
    assert (tmp_path / "labels (3).tif.aux.xml").read_text() == "new names"
    assert not {name for name in names(tmp_path) if ".part" in name}


def test_a_scanner_that_looks_at_a_new_file_is_waited_for(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "labels.tif") as part_path:
        part_path.write_text("new")
        scanner = part_path.open()
        threading.Timer(0.05, scanner.close).start()
    assert names(tmp_path) == {"labels.tif"}


@pytest.fixture(scope="module")
def labels_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = np.random.default_rng(0).random((64, 80)) < 0.4
    return write_raster(tmp_path_factory.mktemp("labels") / "labels.tif", labels[None].astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.gpkg", ("--sieve", "20px", "--style", "qml")),
        pytest.param("out.gpkg", ("--fill-holes", "--workers", "2"), marks=pytest.mark.slow),
        ("out.parquet", ("--opening", "1")),
        ("out.fgb", ("--regularize", "--simplify", "1px")),
        ("out.geojson", ("--smooth",)),
    ],
)
def test_vectorize_removes_no_file_that_is_open(labels_path: Path, tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    for more in ((), ("--overwrite",)):
        ran = run("vectorize", labels_path, tmp_path / name, *options, *more)
        assert ran.exit_code == 0, ran.output
    assert names(tmp_path) == {name} | ({"out.qml"} if "qml" in options else set())


def test_predict_removes_no_file_that_is_open(scene_path: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    files = {kind: f"{kind}.tif" for kind in ("labels", "confidence", "entropy", "probabilities")} | {"vector": "polygons.gpkg"}
    outputs = [word for kind, name in files.items() for word in (f"--{kind}", tmp_path / name)]
    for more in ((), ("--overwrite", "--sieve", "4px")):
        ran = run("predict", scene_path, *outputs, "--model", tiny_model_path, "--device", "cpu", "--batch", "9", *more)
        assert ran.exit_code == 0, ran.output
    assert {name for name in names(tmp_path) if not name.endswith(".aux.xml")} == set(files.values())


def test_polygons_that_qgis_shows_meanwhile_are_kept_beside_the_shown_ones(
    scene_path: Path, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoglnet.output._WAITS_S", (0.01,))
    path = tmp_path / "polygons.gpkg"
    words = (
        "predict",
        scene_path,
        "--vector",
        path,
        "--model",
        tiny_model_path,
        "--device",
        "cpu",
        "--batch",
        "9",
        "--overwrite",
    )
    path.write_text("old")
    with path.open():
        early = run(*words)
        assert (early.exit_code, names(tmp_path)) == (1, {"polygons.gpkg"})
        monkeypatch.setattr("geoglnet.output.OutputFile._check", lambda _: None)
        late = run(*words)
    assert late.exit_code == 1
    assert f"the new one is kept as {tmp_path / 'polygons (2).gpkg'}" in late.output
    assert path.read_text() == "old"
    assert pyogrio.read_info(tmp_path / "polygons (2).gpkg", layer="polygons")["features"] > 0


def plugin_run(words: tuple[str | Path, ...], is_canceled: Callable[[], bool] = lambda: False) -> Outcome:
    """The program as the plugin starts it, in a process that obeys the rule."""
    environment = clean_environment({**os.environ, **windows_rules.environment()}, kept=("PYTHONPATH",))
    program = [sys.executable, "-m", "geoglnet", *map(str, words), "--progress", "json", "--stop-on-stdin-eof"]
    return run_program(program, environment, lambda event: None, is_canceled, hear=lambda line: None, grace_s=60.0)


@pytest.mark.slow
def test_what_the_plugin_starts_leaves_nothing_behind(
    scene_path: Path, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        "predict",
        scene_path,
        "--vector",
        tmp_path / "out.gpkg",
        "--model",
        tiny_model_path,
        "--device",
        "cpu",
        "--batch",
        "9",
    )
    monkeypatch.setattr(runner, "IS_WINDOWS", True)  # it stops the program by the end of its input
    monkeypatch.setattr(runner, "_own_group", lambda: {"start_new_session": True})
    stopped = plugin_run(words, is_canceled=lambda: True)
    assert not stopped.is_success
    assert names(tmp_path) <= {"out.gpkg.unfinished"}
    assert plugin_run((*words, "--resume", "--sieve", "4px")).is_success
    assert names(tmp_path) == {"out.gpkg"}
