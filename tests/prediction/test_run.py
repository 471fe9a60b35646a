"""A run is computed by one process or by many, in any order, with any of them killed: the bytes are the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest

import geoglnet
from geoglnet.errors import OutputError, OutputExistsError, SceneError
from geoglnet.prediction import workspace
from geoglnet.prediction.facts import RunSettings
from geoglnet.prediction.journal import JOURNAL
from geoglnet.prediction.layers import LABELS
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.run import begin, join, take_over
from geoglnet.progress import RecordedProgress
from geoglnet.raster.scaling import Scaling
from geoglnet.raster.scene import open_scene
from geoglnet.vector.settings import VectorConfig
from tests.rasters import noise, write_raster

CPU = PredictConfig(device="cpu", batch_size=9)  # all patches of a region together, which costs a small network least
WORK = """
import json, os, signal, sys
from geoglnet.prediction.run import join
from geoglnet.progress import SilentProgress

class Dies(SilentProgress):
    def __init__(self, patches):
        self.left = patches
    def advance(self, amount=1, **figures):
        self.left -= amount
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

folder, blocks, patches = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
with join(folder, progress=Dies(patches)) as run:
    run.compute(map(tuple, blocks))
"""


VECTOR = VectorConfig(simplify="1.2345678px", min_area_m2=2)


def write_scene(folder: Path) -> Path:
    """96 × 128 px at 1 m, 16 bits to be stretched: 3 × 4 blocks of the tiny model, with a hole."""
    image = noise(3, 96, 128).astype(np.uint16) * 37 + 400
    image[:, 20:60, 15:70] = 0
    return write_raster(folder / "scene.tif", image, pixel_size=1.0, nodata=0)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path)


@pytest.fixture(scope="module")
def whole(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what one process makes of the scene."""
    folder = tmp_path_factory.mktemp("one")
    paths = {f"{name}_path": path for name, path in paths_in(folder / "whole").items()}
    geoglnet.predict(write_scene(folder), **paths, model=tiny_model_path, config=CPU, vector_config=VECTOR)
    return folder / "whole"


def paths_in(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    return {name: folder / f"{name}.tif" for name in ("labels", "confidence")} | {"vector": folder / "polygons.gpkg"}


def worker(folder: Path, blocks: Collection[tuple[int, int]], patches: int = 10**9) -> subprocess.Popen[str]:
    """A process that computes blocks, and is killed after some patches."""
    words = [sys.executable, "-c", WORK, str(folder), json.dumps(list(blocks)), str(patches)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=folder.parent)


def assert_same(made: Path, whole: Path) -> None:
    assert {path.name for path in made.iterdir()} == {path.name for path in whole.iterdir()}
    for path in whole.glob("*.tif*"):
        assert (made / path.name).read_bytes() == path.read_bytes(), path.name
    ours, theirs = (geopandas.read_file(folder / "polygons.gpkg", layer="polygons") for folder in (made, whole))
    assert (ours.geometry.to_wkb() == theirs.geometry.to_wkb()).all()
    assert ours.drop(columns="geometry").equals(theirs.drop(columns="geometry"))


@pytest.mark.smoke
def test_two_processes_compute_halves_and_a_third_finishes_with_the_bytes_of_one(
    scene: Path, whole: Path, tiny_model_path: Path, tmp_path: Path
) -> None:
    parts = paths_in(tmp_path / "parts")
    with begin(scene, parts, model=str(tiny_model_path), config=CPU, vector_config=VECTOR) as run:
        places, folder = list(run.missing()), run.folder
    assert len(places) == 12
    assert {path.name for path in parts["labels"].parent.iterdir()} == {"labels.tif.unfinished"}, "nothing is held any more"
    workers = [worker(folder, places[half::2]) for half in (0, 1)]  # every other block: all zones are recomputed
    for process in workers:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert (folder / "journal-1.jsonl").exists()
    assert (folder / JOURNAL).read_bytes().count(b"\n") == 1, "who began has computed nothing"
    progress = RecordedProgress()
    with take_over(folder, progress=progress) as run:
        assert not list(run.missing())
        run.finish()
    assert not [event for event in progress.events if event.get("stage") == "segment"]
    assert_same(tmp_path / "parts", whole)


def test_what_a_killed_process_has_finished_is_kept_and_another_goes_on(
    scene: Path, whole: Path, tiny_model_path: Path, tmp_path: Path
) -> None:
    parts = paths_in(tmp_path / "parts")
    with begin(scene, parts, model=str(tiny_model_path), config=CPU, vector_config=VECTOR) as run:
        places, folder = list(run.missing()), run.folder
    dying = worker(folder, places[:9], patches=45)
    dying.communicate(timeout=600)
    assert dying.returncode == -9
    journal = folder / "journal-1.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"block": {"row": 2, "co')  # torn off in a line
    with join(folder) as run:
        missing = list(run.missing())
        assert 3 < len(missing) < 12
        run.compute([places[0], places[-1]])  # one of them is finished
        assert len(list(run.missing())) < len(missing)
    with take_over(folder) as run:
        with pytest.raises(OutputError, match=r"lacks blocks, such as that in row \d, column \d; compute them first"):
            run.finish()
        run.compute()
        run.finish()
    assert_same(tmp_path / "parts", whole)


@pytest.fixture
def begun(scene: Path, tiny_model_path: Path, tmp_path: Path) -> Path:
    """The folder of a run with three finished blocks."""
    with begin(scene, {"labels": tmp_path / "labels.tif"}, model=str(tiny_model_path), config=CPU) as run:
        run.compute([(0, 0), (0, 1), (2, 3)])
    return run.folder


def test_who_has_joined_cannot_finish_and_keeps_others_from_beginning_anew(
    begun: Path, scene: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_PATIENCE_S", 0.1)
    with join(begun) as first, join(begun) as second:
        assert (first.workspace.number, second.workspace.number) == (1, 2)
        with pytest.raises(OutputError, match="cannot finish it; take the run over when all have ended"):
            first.finish()
        for options in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(OutputError, match=r"another run is writing labels\.tif; wait for it, or stop it"):
                geoglnet.predict(scene, begun.with_suffix(""), model=tiny_model_path, config=CPU, **options)
        first.compute([(1, 1)])
        assert (1, 1) not in second.missing()
        second.compute([(1, 1), (1, 2)])
    with take_over(begun) as run:
        assert {(0, 0), (1, 1), (1, 2)} <= run.missing().finished
        with pytest.raises(OutputError, match=r"another run is writing labels\.tif"), join(begun):
            pass
    with pytest.raises(OutputExistsError, match="5 finished blocks of an interrupted run; pass resume=True to continue it"):
        geoglnet.predict(scene, begun.with_suffix(""), model=tiny_model_path, config=CPU)
    geoglnet.predict(scene, begun.with_suffix(""), model=tiny_model_path, config=CPU, resume=True)
    assert not begun.exists()


def test_a_block_that_is_written_twice_stays_whole_when_the_second_writer_fails(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = begun / LABELS.name / "000000_000000.tif"
    before = block.read_bytes()
    with join(begun) as run:
        run.workspace.journal.blocks.clear()

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(workspace.os, "fsync", fail)
        with pytest.raises(OutputError, match="disk full"):
            workspace.write_behind(
                run.predictor.iter_blocks(run.scene, run.layers, area=run.area, blocks={(0, 0)}), run.workspace.store
            )
    assert block.read_bytes() == before


def test_a_scene_that_changed_is_refused_by_every_way_in(begun: Path, scene: Path) -> None:
    with join(begun) as run:
        shutil.copy(scene, scene.with_suffix(".old"))
        content = bytearray(scene.read_bytes())
        content[-100:] = bytes(255 - value for value in content[-100:])
        scene.write_bytes(content)
        with pytest.raises(SceneError, match="changed while it was read"):
            run.compute([(2, 0)])
    for way in (join, take_over):
        with pytest.raises(OutputError, match=r"unfinished run with other settings \(scene"), way(begun):
            pass


def test_a_folder_without_a_run_is_refused_and_not_made(tmp_path: Path) -> None:
    for way in (join, take_over):
        told = "holds no unfinished run; begin one, or give the folder of one"
        with pytest.raises(OutputError, match=told), way(tmp_path / "labels.tif.unfinished"):
            pass
    assert not [*tmp_path.iterdir()]


def test_a_journal_of_the_first_format_is_refused_with_the_way_out(begun: Path, scene: Path, tiny_model_path: Path) -> None:
    head, *entries = (begun / JOURNAL).read_text(encoding="utf-8").splitlines()
    head = json.dumps({"format": 1, "facts": json.loads(head)["facts"]})
    (begun / JOURNAL).write_text("\n".join([head, *entries, ""]), encoding="utf-8")
    for options in ({}, {"resume": True}):
        with pytest.raises(OutputError, match="with the version that began it, or start over with overwrite=True and without"):
            geoglnet.predict(scene, begun.with_suffix(""), model=tiny_model_path, config=CPU, **options)
    geoglnet.predict(scene, begun.with_suffix(""), model=tiny_model_path, config=CPU, overwrite=True)
    assert not begun.exists()


def test_settings_come_back_from_the_journal_as_they_were_with_what_was_measured(scene: Path, tmp_path: Path) -> None:
    config = PredictConfig(bounds=(1.1, 2, 3, 4), bands=(3, 2, 1), nodata=0.1, mask_path=tmp_path / "mask.gpkg", effort=1 / 3)
    vector = VectorConfig(simplify="1.23457m", sieve="20m2", statistics_path=tmp_path / "dsm.tif", style="qml")
    outputs = {"labels": tmp_path / "l.tif", "vector": tmp_path / "v.gpkg"}
    settings = RunSettings((str(scene), "/vsicurl/https://x/y.tif"), tmp_path / "m.safetensors", outputs, config, vector, True)
    with open_scene(scene, scaling=Scaling(0.1, 1000 / 3, "measured"), nodata=0.1) as opened:
        found = RunSettings.from_dict(json.loads(json.dumps(settings.to_dict(opened))), tmp_path)
    assert found.config.scaling == Scaling(0.1, 1000 / 3, "measured")
    assert replace(found, config=replace(found.config, scaling=None)) == settings
    with pytest.raises(OutputError, match=r"the settings of .* are damaged \(.*\); remove it to begin again"):
        RunSettings.from_dict({"config": {}, "vector_config": 5}, tmp_path)
