"""A scene computed by many gives what one process gives, whoever is killed, torn or damaged meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas
import pytest
import rasterio
from click.testing import CliRunner
from shapely.geometry import box

import geoglnet
from geoglnet.cli.main import geoglnet as program
from geoglnet.cluster.finishing import finish, status
from geoglnet.cluster.job import Task, job_in
from geoglnet.cluster.planning import plan
from geoglnet.cluster.records import MACHINE, Records
from geoglnet.cluster.shards import Shard
from geoglnet.cluster.store import FolderStore
from geoglnet.cluster.worker import work, worker_of
from geoglnet.config import Sharing
from geoglnet.errors import Canceled, OutputError, OutputExistsError, TasksFailedError
from geoglnet.prediction.outputs import OutputWriter
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.progress import RecordedProgress
from geoglnet.raster.scaling import Scaling
from tests.cluster.conftest import assert_same, outputs_in, write_model, write_scene

CPU = PredictConfig(device="cpu", batch_size=9)  # all patches of a region together, which costs a small network least
SIMPLE = {"simplify": "1.5px", "min_area_m2": 2}
WORK = """
import os, signal, sys
from pathlib import Path
from geoglnet.cluster.store import FolderStore
from geoglnet.cluster.worker import work
from geoglnet.progress import SilentProgress

class Dies(SilentProgress):
    left = int(sys.argv[2])
    def advance(self, amount=1, **figures):
        Dies.left -= amount
        if Dies.left < 0:
            os.kill(os.getpid(), signal.SIGKILL) if sys.argv[3] == "kill" else os._exit(7)

work(FolderStore(Path(sys.argv[1])), progress=Dies())
"""


def planned(scene: Path, folder: Path, model: Path, shape: tuple[int, int] | None = (2, 3), **options: Any) -> FolderStore:
    store = FolderStore(folder / "run")
    options = {"config": CPU, "vector_config": SIMPLE} | options
    plan(store, scene, outputs_in(folder / "parts"), model=str(model), task_shape=shape, **options)
    return store


def one_process(scene: Path, folder: Path, model: Path, **options: Any) -> Path:
    paths = {f"{name}_path": path for name, path in outputs_in(folder / "whole").items()}
    geoglnet.predict(scene, **paths, model=model, **({"config": CPU, "vector_config": SIMPLE} | options))
    return folder / "whole"


@pytest.fixture(scope="module")
def whole(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what one process makes of the scene."""
    folder = tmp_path_factory.mktemp("one")
    return one_process(write_scene(folder), folder, model_path)


def dying_worker(store: FolderStore, patches: int, how: str = "kill") -> int:
    words = [sys.executable, "-c", WORK, str(store.folder), str(patches), how]
    return subprocess.run(words, capture_output=True, timeout=600, check=False).returncode


@pytest.mark.parametrize(
    ("shards", "shape"),
    [(1, (3, 4)), (2, (2, 3)), pytest.param(3, (1, 2), marks=pytest.mark.slow), pytest.param(3, None, marks=pytest.mark.slow)],
)
def test_shards_and_odd_tasks_give_the_bytes_of_one_process(
    shards: int, shape: tuple[int, int] | None, scene: Path, whole: Path, model_path: Path, tmp_path: Path
) -> None:
    store = planned(scene, tmp_path, model_path, shape)
    for number in reversed(range(1, shards + 1)):
        work(store, shard=Shard(number, shards))
    done = finish(store)
    assert_same(tmp_path / "parts", whole)
    assert done.num_polygons == len(geopandas.read_file(done.paths["vector"], layer="polygons"))
    assert not store.folder.exists(), "what the outputs were made of is gone"


@pytest.mark.parametrize(
    ("sharing", "polygons", "has_mask"),
    [
        pytest.param(Sharing.BIDIRECTIONAL, {"connectivity": 8, "sieve": "3px"}, True, id="refined, masked"),
        pytest.param(Sharing.NONE, {"regularize": True, "opening": 1}, False, marks=pytest.mark.slow, id="regularized"),
    ],
)
def test_other_models_masks_and_polygons_give_the_bytes_of_one_process_too(
    sharing: Sharing, polygons: Mapping[str, Any], has_mask: bool, scene: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "other.safetensors", sharing)
    config = CPU
    if has_mask:
        mask = tmp_path / "mask.gpkg"
        with rasterio.open(scene) as src:
            left, bottom, right, top = src.bounds
            crs = src.crs
        shapes = [box(left + 5, bottom + 3, left + 60, top - 9), box(right - 30, bottom + 50, right - 7, top)]
        geopandas.GeoDataFrame(geometry=shapes, crs=crs).to_file(mask)
        config = PredictConfig(device="cpu", batch_size=9, mask_path=mask)
    store = planned(scene, tmp_path, model, config=config, vector_config=polygons)
    work(store)
    finish(store)
    assert_same(tmp_path / "parts", one_process(scene, tmp_path, model, config=config, vector_config=polygons))


@pytest.mark.slow
def test_what_killed_and_leaving_workers_have_finished_is_kept(
    scene: Path, whole: Path, model_path: Path, tmp_path: Path
) -> None:
    store = planned(scene, tmp_path, model_path)
    assert dying_worker(store, 60) == -9
    before = status(store)
    assert 0 < len(before.finished) < 4
    assert len(before.begun) == 1
    assert dying_worker(store, 5, "exit") == 7, "an exit in the midst of a task"
    with pytest.raises(OutputError, match=r"run lacks \d of 4 tasks \(task \d{6}_\d{6}.*\); compute them first"):
        finish(store)
    done = work(store)
    assert {*done.computed} == {*before.missing}, "nothing that was finished is computed again"
    finish(store)
    assert_same(tmp_path / "parts", whole)
    assert not store.folder.exists(), "not even temporary files of the dead are left"


@pytest.fixture
def computed(scene: Path, model_path: Path, tmp_path: Path) -> FolderStore:
    """A job of two tasks, both finished."""
    store = FolderStore(tmp_path / "run")
    plan(store, scene, {"labels": tmp_path / "labels.tif"}, model=str(model_path), config=CPU, task_shape=(3, 2))
    work(store)
    return store


def test_a_torn_record_or_a_raster_that_is_gone_is_one_more_task(computed: FolderStore) -> None:
    first, second = (path for path in sorted((computed.folder / "tasks").iterdir()))
    first.write_bytes(first.read_bytes()[:100])
    done = work(computed)
    assert (len(done.computed), done.found) == (1, 1)
    assert len(status(computed).finished) == 2
    raster = next((computed.folder / "labels").glob(f"{second.stem}-*.tif"))
    raster.write_bytes(raster.read_bytes()[:100])
    assert [task.name for task in work(computed).computed] == [second.stem]
    assert not work(computed).computed
    finish(computed)


def test_two_workers_at_one_task_agree(computed: FolderStore) -> None:
    job = job_in(computed)
    before = {path.name: path.stat().st_mtime_ns for path in (computed.folder / "tasks").iterdir()}
    with worker_of(computed, job) as worker:
        again = worker.run(job.tasks[0])
    assert again == Records(computed, job).finished(job.tasks[0])
    assert {path.name: path.stat().st_mtime_ns for path in (computed.folder / "tasks").iterdir()} == before, "the first counts"
    assert len([*(computed.folder / "labels").iterdir()]) == 2


def test_a_task_at_which_processes_die_is_named_and_all_others_are_finished(
    scene: Path, whole: Path, model_path: Path, tmp_path: Path
) -> None:
    store = planned(scene, tmp_path, model_path)
    records = Records(store, job_in(store))
    deadly = records.job.tasks[1]
    for _ in range(3):
        records.begin(deadly)
    ran = CliRunner().invoke(program, ["work", str(store.folder)])
    assert ran.exit_code == 4
    assert "Error: 1 of 4 tasks cannot be computed, all others are finished: task 000000_000003: 3 processes" in ran.output
    assert "pass --retry to compute them" in ran.output
    assert len(status(store).finished) == 3
    assert CliRunner().invoke(program, ["work", str(store.folder), "--retry"]).exit_code == 0
    finish(store)
    assert_same(tmp_path / "parts", whole)


def test_a_damaged_part_of_the_scene_costs_its_tasks_and_is_not_read_again(
    scene: Path, model_path: Path, tmp_path: Path
) -> None:
    with rasterio.open(scene) as src:
        start = int(src.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))  # of the tile at the lower right
    content = bytearray(scene.read_bytes())
    content[start + 50 : start + 1000] = bytes(950)
    scene.write_bytes(content)
    config = PredictConfig(device="cpu", batch_size=9, scaling=Scaling(400, 9800, "known"))
    store = planned(scene, tmp_path, model_path, (1, 4), config=config)
    with pytest.raises(TasksFailedError, match=r"2 of 3 tasks cannot be computed.*scene\.tif.*pass retry=True"):
        work(store)
    found = status(store)
    assert [task.row for task in found.finished] == [0], "only regions of the first row do not reach the tile"
    assert "ZIPDecode" in found.to_dict()["failed"][0]["error"]
    progress = RecordedProgress()
    with pytest.raises(TasksFailedError):
        work(store, progress=progress)
    assert not progress.events, "nothing is opened for what would fail again"
    with pytest.raises(OutputError, match=r"lacks 2 of 3 tasks \(task 000001_000000: .*ZIPDecode"):
        finish(store)


def test_a_full_disk_stops_the_worker_and_is_no_fault_of_the_task(
    scene: Path, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = planned(scene, tmp_path, model_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "replace", fail)
        with pytest.raises(OutputError, match="disk full while writing"):
            work(store)
    found = status(store)
    assert (found.finished, found.troubles, found.begun) == ({}, (), ())
    assert [path.name for path in store.folder.iterdir() if path.is_dir() and any(path.iterdir())] == []


def test_another_kind_of_machine_is_refused_unless_it_is_allowed(computed: FolderStore) -> None:
    (first, *_) = (computed.folder / "tasks").iterdir()
    first.unlink()
    facts = json.loads((computed.folder / MACHINE).read_text())
    facts["machine"]["processor"] = "SX-9"
    (computed.folder / MACHINE).write_text(json.dumps(facts))
    told = (
        r"was begun on another kind of machine \(processor: SX-9, now .*\), whose last bits differ; use one kind of machine, or"
    )
    with pytest.raises(OutputError, match=told + " allow_mixed=True"):
        work(computed)
    assert len(work(computed, allow_mixed=True).computed) == 1
    assert len(status(computed).to_dict()["machines"]) == 1, "a record says what it was computed on"


def test_a_scene_that_has_changed_is_refused(computed: FolderStore, scene: Path) -> None:
    content = bytearray(scene.read_bytes())
    content[-9] ^= 255
    scene.write_bytes(content)
    next((computed.folder / "tasks").iterdir()).unlink()
    for verb in (work, finish):
        with pytest.raises(OutputError, match=r"lacks 1 of 2|was planned with something else \(scene file 1"):
            verb(computed)


def test_a_finish_that_was_stopped_goes_on(
    scene: Path, whole: Path, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = planned(scene, tmp_path, model_path, (3, 4))
    work(store)

    def stop(*_: object) -> None:
        raise Canceled

    with monkeypatch.context() as stopped:
        stopped.setattr(OutputWriter, "_vectorize", stop)
        with pytest.raises(Canceled):
            finish(store)
    labels = tmp_path / "parts" / "labels.tif"
    written = labels.stat().st_mtime_ns
    finish(store)
    assert labels.stat().st_mtime_ns == written
    assert_same(tmp_path / "parts", whole)


def test_a_job_is_planned_once(computed: FolderStore, scene: Path, model_path: Path, tmp_path: Path) -> None:
    outputs = {"labels": tmp_path / "labels.tif"}
    again = plan(computed, scene, outputs, model=str(model_path), config=CPU, task_shape=(3, 2))
    assert again == job_in(computed)
    assert len(status(computed).finished) == 2
    with pytest.raises(OutputExistsError, match="run holds another job; choose another folder, or pass overwrite=True"):
        plan(computed, scene, outputs, model=str(model_path), config=CPU)
    other = plan(computed, scene, outputs, model=str(model_path), config=CPU, task_shape=(3, 4), overwrite=True)
    assert other.tasks == (Task(0, 0, 3, 4),)
    assert not status(computed).finished, "tasks of the other job do not count"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"full holds other files, such as notes\.txt; choose a folder that is new or empty"):
        plan(FolderStore(tmp_path / "full"), scene, outputs, model=str(model_path), config=CPU)


@pytest.mark.smoke
def test_the_verbs_plan_work_and_finish_and_only_work_loads_torch(scene: Path, model_path: Path, tmp_path: Path) -> None:
    run, labels = str(tmp_path / "run"), tmp_path / "labels.tif"
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom geoglnet.cli.main import geoglnet\n"
        "ended = CliRunner().invoke(geoglnet, sys.argv[1:])\nassert ended.exit_code == 0, ended.output\n"
        "assert 'torch' not in sys.modules\nprint(ended.stdout)"
    )

    def light(*words: str) -> str:
        ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=600, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    options = ["--model", str(model_path), "--batch", "9", "--task-shape", "3", "2", "--device", "cpu"]
    light("plan", str(scene), "-o", str(labels), "--run", run, *options)
    for shard in ("1/2", "2/2"):
        ran = CliRunner().invoke(program, ["work", run, "--shard", shard])
        assert ran.exit_code == 0, ran.output
        assert "1 task computed, 0 of this share were finished before" in ran.output
    found = json.loads(light("status", run, "--json"))
    assert (found["tasks"], found["finished"], found["missing"]) == (2, 2, [])
    light("finish", run)
    geoglnet.predict(scene, tmp_path / "whole.tif", model=model_path, config=CPU)
    assert labels.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    for words in (["work", run], ["finish", run], ["status", run]):
        ran = CliRunner().invoke(program, words)
        assert ran.exit_code == 1
        assert "run holds no job; plan one first, or give the place of one" in ran.output
