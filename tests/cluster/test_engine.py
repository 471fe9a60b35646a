"""One call predicts a scene by several workers, with the bytes of one process; any of them may die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import geoglnet
from geoglnet.cli.main import geoglnet as program
from geoglnet.cluster.driving import drive
from geoglnet.cluster.finishing import finish, status
from geoglnet.cluster.planning import plan
from geoglnet.cluster.store import FolderStore
from geoglnet.cluster.worker import work
from geoglnet.engines.port import Here
from geoglnet.engines.processes import Processes
from geoglnet.errors import Canceled, ConfigError, OutputExistsError
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.progress import RecordedProgress, SilentProgress
from tests.cluster.conftest import assert_same, outputs_in, write_scene

CPU = PredictConfig(device="cpu", batch_size=9)
SIMPLE = {"simplify": "1.5px", "min_area_m2": 2}


def predict(scene: Path, folder: Path, model: Path, **options: Any) -> geoglnet.Prediction:
    paths = {f"{name}_path": path for name, path in outputs_in(folder).items()}
    return geoglnet.predict(scene, **paths, model=model, config=CPU, vector_config=SIMPLE, **options)


@pytest.fixture(scope="module")
def whole(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    predict(write_scene(folder), folder / "whole", model_path)
    return folder / "whole"


def planned(scene: Path, folder: Path, model: Path) -> FolderStore:
    store = FolderStore(folder / "run")
    options = {"model": str(model), "config": CPU, "vector_config": SIMPLE, "task_shape": (2, 2)}
    plan(store, scene, outputs_in(folder / "parts"), **options)
    return store


def test_an_engine_gives_the_bytes_and_the_handle_of_one_process(
    scene: Path, whole: Path, model_path: Path, tmp_path: Path
) -> None:
    done = predict(scene, tmp_path / "parts", model_path, engine=Here())
    assert_same(tmp_path / "parts", whole)
    assert done.num_polygons == len(done.polygons())
    assert (done.model, done.shape) == ("noisy", (96, 128))


@pytest.mark.slow
def test_two_processes_of_the_program_give_the_bytes_of_one(scene: Path, whole: Path, model_path: Path, tmp_path: Path) -> None:
    words = ["predict", str(scene), "--model", str(model_path), "--device", "cpu", "--batch", "9", "--simplify", "1.5px"]
    words += [
        "--min-area",
        "2",
        "--engine",
        "processes",
        "--workers",
        "2",
        "--vector",
        str(tmp_path / "parts" / "polygons.gpkg"),
    ]
    for name, path in outputs_in(tmp_path / "parts").items():
        words += [] if name == "vector" else [f"--{name}", str(path)]
    ran = CliRunner().invoke(program, words)
    assert ran.exit_code == 0, ran.output
    assert_same(tmp_path / "parts", whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_a_worker_that_is_killed_is_replaced_and_engines_and_shards_mix(
    kind: str, scene: Path, whole: Path, model_path: Path, tmp_path: Path
) -> None:
    store = planned(scene, tmp_path, model_path)

    class Kills(SilentProgress):
        """Kills the workers that are at work, once, when the first task is finished."""

        killed = 0

        def advance(self, amount: int = 1, **figures: float) -> None:
            if not self.killed:
                for place in _workers(kind):
                    os.kill(place, signal.SIGKILL)
                    self.killed += 1
            if len(status(store).finished) >= 3:
                raise Canceled

    engine = Processes(2)
    if kind == "ray":
        pytest.importorskip("ray")
        from geoglnet.engines.on_ray import OnRay

        engine = OnRay(2)
    progress = Kills()
    with pytest.raises(Canceled):
        drive(store, engine, progress=progress)
    assert progress.killed
    kept = len(status(store).finished)
    assert 3 <= kept < 4
    assert len(work(store).computed) == 4 - kept, "a shard ends what an engine has begun"
    finish(store)
    assert_same(tmp_path / "parts", whole)


def _workers(kind: str, parent: int = os.getpid()) -> list[int]:
    """One process that was started by this one, or by Ray for it."""
    name = "spawn_main" if kind == "processes" else "ray::_Actor"
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                text = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parents = _parents(int(folder.name))
            except (OSError, IndexError):
                continue
            if name in text and parent in parents:
                found.append(int(folder.name))
    return found[:1]


def _parents(process: int) -> list[int]:
    found = []
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(process)
    return found


def test_an_interrupted_run_says_how_to_go_on_and_does(scene: Path, whole: Path, model_path: Path, tmp_path: Path) -> None:
    class Stops(RecordedProgress):
        def advance(self, amount: int = 1, **figures: float) -> None:
            raise Canceled

    progress = Stops()
    with pytest.raises(Canceled):
        predict(scene, tmp_path / "parts", model_path, engine=Here(), progress=progress)
    folder = tmp_path / "parts" / "labels.tif.run"
    assert progress.messages("warning") == [f"finished tasks are kept in {folder}; continue with resume=True"]
    with pytest.raises(OutputExistsError, match=r"labels\.tif\.run is an interrupted run; pass resume=True to continue it"):
        predict(scene, tmp_path / "parts", model_path, engine=Here())
    predict(scene, tmp_path / "parts", model_path, engine=Here(), resume=True)
    assert_same(tmp_path / "parts", whole)


def test_an_unknown_engine_is_refused(scene: Path, model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown engine 'rey'; did you mean 'ray'"):
        predict(scene, tmp_path / "parts", model_path, engine="rey")


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_worker_and_loses_no_task(
    scene: Path, whole: Path, model_path: Path, tmp_path: Path
) -> None:
    store = planned(scene, tmp_path, model_path)
    code = (
        "import sys\nfrom geoglnet.cluster.driving import drive\nfrom geoglnet.cluster.store import FolderStore\n"
        "from geoglnet.engines.processes import Processes\nfrom pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    assert 'torch' not in sys.modules, 'who only hands out tasks needs none'\n"
        "    drive(FolderStore(Path(sys.argv[1])), Processes(1))\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    driver = subprocess.Popen([sys.executable, str(script), str(store.folder)])
    while not status(store).finished and driver.poll() is None:
        time.sleep(0.05)
    (worker,) = _workers("processes", driver.pid)
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists(), "a worker leaves with the process that it works for"
    assert status(store).finished
    before = {path.name: path.stat().st_mtime_ns for path in (store.folder / "tasks").iterdir()}
    work(store)
    assert all((store.folder / "tasks" / name).stat().st_mtime_ns == written for name, written in before.items())
    finish(store)
    assert_same(tmp_path / "parts", whole)
