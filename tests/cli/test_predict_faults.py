"""What may happen to a long run: it is killed, the scene or the disk fails, somebody else writes. Nothing finished is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import geoglnet
from geoglnet.api.prediction import Prediction
from geoglnet.errors import ConfigError, OutputError, OutputExistsError, SceneError
from geoglnet.output import OutputFile
from geoglnet.prediction.facts import differences
from geoglnet.prediction.journal import Journal, read_journal
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.workspace import open_workspace, workspace_path
from geoglnet.progress import RecordedProgress, SilentProgress
from tests.rasters import noise, write_raster
from tests.served import Server

CPU = PredictConfig(device="cpu", batch_size=9)  # all patches of a region together, which costs a small network least
Run = Callable[..., Prediction]


class Stopped(Exception):  # noqa: N818 - a test's own
    """A run that is cut off."""


class StopAfter(SilentProgress):
    """Cuts a run off after some patches."""

    def __init__(self, patches: int) -> None:
        self.left = patches

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.left -= amount
        if self.left < 0:
            raise Stopped


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """112 × 128 px at 1 m: 3 × 4 blocks of the tiny model, with a hole."""
    image = noise(3, 112, 128)
    image[:, 20:60, 10:60] = 0
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", image, pixel_size=1.0, nodata=0)


@pytest.fixture(scope="module")
def whole(original: Path, tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Content of the outputs of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    geoglnet.predict(original, **outputs_in(folder), model=str(tiny_model_path), config=CPU)
    return contents(folder)


@pytest.fixture
def scene(original: Path, tmp_path: Path) -> Path:
    """The test's own copy, which it may change."""
    return Path(shutil.copy(original, tmp_path / "scene.tif"))


@pytest.fixture
def run(scene: Path, tiny_model_path: Path) -> Run:
    def predicted(folder: Path, scene: Any = scene, **given: Any) -> Prediction:
        return geoglnet.predict(scene, **outputs_in(folder), **{"model": str(tiny_model_path), "config": CPU, **given})

    return predicted


def outputs_in(folder: Path) -> dict[str, Path]:
    return {f"{name}_path": folder / f"{name}.tif" for name in ("labels", "confidence", "probabilities")}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """Folder of the run that something happens to."""
    folder = tmp_path / "cut"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("patches", [5, pytest.param(30, marks=pytest.mark.smoke), 60])
def test_a_run_that_was_cut_off_ends_with_the_bytes_of_one_that_was_not(
    run: Run, patches: int, cut: Path, whole: dict[str, bytes]
) -> None:
    with pytest.raises(Stopped):
        run(cut, progress=StopAfter(patches))
    assert [path.name for path in cut.iterdir()] in ([], ["labels.tif.unfinished"])
    progress = RecordedProgress()
    run(cut, resume=True, progress=progress)
    assert contents(cut) == whole
    if patches > 30:
        assert any("goes on after" in message for message in progress.messages("log"))


def test_a_run_can_be_cut_off_again_and_again(run: Run, cut: Path, whole: dict[str, bytes]) -> None:
    counts = []
    for _ in range(40):
        try:
            run(cut, resume=True, progress=StopAfter(25))
            break
        except Stopped:
            journal = read_journal(workspace_path(cut / "labels.tif") / "journal.jsonl")
            counts.append(0 if journal is None else len(journal.blocks))
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    assert contents(cut) == whole


def test_a_run_that_was_stopped_is_neither_lost_nor_taken_up_unasked(run: Run, cut: Path) -> None:
    with pytest.raises(Stopped):
        run(cut, progress=StopAfter(60))
    with pytest.raises(OutputExistsError, match=r"finished blocks of an interrupted run; pass resume=True .* overwrite=True"):
        run(cut)
    progress = RecordedProgress()
    run(cut, overwrite=True, progress=progress)
    assert not any("goes on" in message for message in progress.messages("log"))


def test_resuming_where_nothing_was_begun_begins(run: Run, cut: Path, whole: dict[str, bytes]) -> None:
    run(cut, resume=True)
    assert contents(cut) == whole


def test_a_changed_scene_model_or_option_is_refused_and_named(run: Run, scene: Path, cut: Path) -> None:
    with pytest.raises(Stopped):
        run(cut, progress=StopAfter(60))
    with pytest.raises(OutputError, match=r"unfinished run with other settings \(effort: 1, now 0.5\)"):
        run(cut, resume=True, config=replace(CPU, effort=0.5))
    with pytest.raises(OutputError, match=r"batch: 9, now 8"):
        run(cut, resume=True, config=replace(CPU, batch_size=8))
    with pytest.raises(OutputError, match=r"model: tiny \w+, now buildings \w+"):
        run(cut, resume=True, model="buildings")
    with rasterio.open(scene, "r+") as dst:
        dst.write(noise(3, 8, 8, seed=4), window=((0, 8), (0, 8)))
    with pytest.raises(OutputError, match=r"scene file 1, scene.tif: \d+ bytes, sha256 .*, now \d+ bytes, sha256"):
        run(cut, resume=True)
    run(cut, overwrite=True)


def test_a_block_that_was_removed_or_cut_is_computed_again(run: Run, cut: Path, whole: dict[str, bytes]) -> None:
    with pytest.raises(Stopped):
        run(cut, progress=StopAfter(60))
    first, second, *_ = sorted((cut / "labels.tif.unfinished" / "labels").glob("*.tif"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:50])
    run(cut, resume=True)
    assert contents(cut) == whole


def test_a_journal_torn_in_its_last_line_loses_only_that_line(run: Run, cut: Path, whole: dict[str, bytes]) -> None:
    with pytest.raises(Stopped):
        run(cut, progress=StopAfter(60))
    path = cut / "labels.tif.unfinished" / "journal.jsonl"
    before = read_journal(path)
    path.write_bytes(path.read_bytes()[:-20])
    after = read_journal(path)
    assert before is not None
    assert after is not None
    assert len(after.blocks) == len(before.blocks) - 1
    run(cut, resume=True)
    assert contents(cut) == whole


def test_a_journal_without_a_whole_first_line_is_none(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_bytes(b'{"format": 2, "ru')
    assert read_journal(tmp_path / "journal.jsonl") is None
    assert read_journal(tmp_path / "none.jsonl") is None


def test_a_damaged_journal_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text("nonsense\n")
    with pytest.raises(OutputError, match="is damaged"):
        read_journal(path)
    block = {"row": 0, "col": 0, "window": [0, 0, 8, 8], "sizes": {"labels": 9}}
    head = json.dumps({"format": 2, "run": "a", "facts": {}, "settings": {}})
    path.write_text(f"{head}\n{json.dumps({'block': block})}\n", encoding="utf-8")
    assert read_journal(path).blocks[0, 0].window == (0, 0, 8, 8)
    wrong = ({"num_valid": "9"}, {"row": True}, {"window": [0, 0, 8]}, {"sizes": {"labels": -1}}, {"sizes": 5}, {"pairs": 1.5})
    for entry in (*({"block": block | change} for change in wrong), [], 5, {"block": []}, {"ready": 5}, {"written": []}):
        path.write_text(f"{head}\n{json.dumps(entry)}\n", encoding="utf-8")
        with pytest.raises(OutputError, match="is damaged"):
            read_journal(path)
    for number in (1, 99):
        path.write_text(json.dumps({"format": number, "facts": {}}) + "\n")
        with pytest.raises(
            OutputError, match=rf"another geoglnet .*format {number}, not 2.*version that began it, or start over"
        ):
            read_journal(path)


def test_differences_are_named_both_ways() -> None:
    assert differences({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == ["b: 2, now none", "c: none, now 3"]


def test_two_runs_on_one_output_are_refused(run: Run, cut: Path) -> None:
    with (
        open_workspace(workspace_path(cut / "labels.tif"), {}, {}, resume=False, overwrite=False),
        pytest.raises(OutputError, match=r"another run is writing labels.tif; wait for it"),
    ):
        run(cut)


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_a_run_that_ends_between_a_name_and_the_journals_line_is_resumed(
    run: Run, monkeypatch: pytest.MonkeyPatch, kind: str, cut: Path, whole: dict[str, bytes]
) -> None:
    add = Journal.add_output

    def stop(journal: Journal, added: str) -> None:
        if added == kind:
            raise Stopped
        add(journal, added)

    monkeypatch.setattr(Journal, "add_output", stop)
    with pytest.raises(Stopped):
        run(cut)
    assert (cut / f"{kind}.tif").exists()
    monkeypatch.setattr(Journal, "add_output", add)
    run(cut, resume=True)
    assert contents(cut) == whole


def test_a_file_of_somebody_else_is_not_replaced_when_a_run_is_resumed(run: Run, cut: Path) -> None:
    with pytest.raises(Stopped):
        run(cut, progress=StopAfter(60))
    (cut / "confidence.tif").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"confidence\.tif exists"):
        run(cut, resume=True)
    assert (cut / "confidence.tif").read_text() == "mine"


def test_two_runs_that_share_any_output_exclude_each_other(run: Run, scene: Path, cut: Path) -> None:
    for name in ("labels.tif", "confidence.tif", "probabilities.tif"):
        with (
            OutputFile(cut / name).claimed(),
            pytest.raises(OutputError, match=rf"another run is writing {name}; wait for it, or stop it"),
        ):
            run(cut)
        assert [*cut.iterdir()] == []


def test_what_was_begun_under_one_name_is_finished_under_another(
    scene: Path, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(labels: Path | None, vector: Path, **given: Any) -> Prediction:
        return geoglnet.predict(scene, labels, vector_path=vector, model=str(tiny_model_path), config=CPU, **given)

    labels, first, second = (tmp_path / name for name in ("labels.tif", "first.gpkg", "second.gpkg"))
    for outputs, others in (((labels, first), (labels, second)), ((None, first), (labels, first))):
        with pytest.raises(Stopped):
            run(*outputs, progress=StopAfter(60))
        progress = RecordedProgress()
        done = run(*others, resume=True, progress=progress)
        assert any("goes on after" in message for message in progress.messages("log"))
        assert done.paths == {"labels": others[0], "vector": others[1]}
        assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "labels.tif", "labels.tif.aux.xml", others[1].name}
        for path in (*tmp_path.glob("labels*"), others[1]):
            path.unlink()


@pytest.mark.parametrize("kind", ["folder", "link", "file", "journal of another program"])
def test_a_folder_that_no_run_has_made_is_not_emptied(run: Run, tmp_path: Path, kind: str, cut: Path) -> None:
    place, precious = cut / "labels.tif.unfinished", tmp_path / "precious"
    target = precious if kind == "link" else place
    if kind == "file":
        place.write_text("precious")
    else:
        (target / "labels").mkdir(parents=True)
        (target / "notes.txt").write_text("precious")
    if kind == "link":
        place.symlink_to(precious)
    if kind.startswith("journal"):
        (target / "journal.jsonl").write_text("Dear diary\n")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError, match=r"labels\.tif\.unfinished was not made by geoglnet|is damaged"):
            run(cut, **options)
    assert [path.name for path in cut.iterdir()] == ["labels.tif.unfinished"]
    assert (place if kind == "file" else target / "notes.txt").read_text() == "precious"


def test_what_somebody_puts_into_a_runs_folder_stays(run: Run, cut: Path) -> None:
    with pytest.raises(Stopped):
        run(cut, progress=StopAfter(60))
    left = cut / "labels.tif.unfinished"
    for name in ("notes.txt", "labels/notes.txt"):
        (left / name).write_text("precious")
    run(cut, resume=True)
    assert sorted(str(path.relative_to(left)) for path in left.rglob("*")) == ["labels", "labels/notes.txt", "notes.txt"]


def test_no_output_is_an_input(run: Run, scene: Path, tiny_model_path: Path, tmp_path: Path, cut: Path) -> None:
    nested = {name: tmp_path / name for name in ("inner.vrt", "outer.vrt")}
    for path, source in zip(nested.values(), ("scene.tif", "inner.vrt"), strict=True):
        bands = "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">{source}'
            f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
            for band in (1, 2, 3)
        )
        path.write_text(f'<VRTDataset rasterXSize="128" rasterYSize="112">{bands}</VRTDataset>')
    mask = tmp_path / "mask.gpkg"
    mask.write_text("a mask")
    cases = (
        (scene, {"scene": nested["outer.vrt"]}, "a file of the scene"),
        (nested["inner.vrt"], {"scene": [nested["outer.vrt"], scene]}, "a file of the scene"),
        (mask, {"config": PredictConfig(device="cpu", mask_path=mask)}, "the mask"),
        (tiny_model_path, {}, "the model"),
    )
    for source, options, what in cases:
        for make in (os.symlink, os.link):
            for name in ("labels.tif", "confidence.tif"):
                make(source, cut / name)
                with pytest.raises(OutputError, match=rf"{name} is {what}; choose another output"):
                    run(cut, overwrite=True, **options)
                (cut / name).unlink()


def test_outputs_that_are_there_stay_when_the_rest_is_resumed(
    run: Run, monkeypatch: pytest.MonkeyPatch, cut: Path, whole: dict[str, bytes]
) -> None:
    from geoglnet.prediction import outputs

    write = outputs.write_cog

    def fail(source: Path, part: Path, **given: object) -> None:
        if "probabilities" in str(part):
            raise OutputError("the disk is full")
        write(source, part, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(outputs, "write_cog", fail)
    with pytest.raises(OutputError, match="the disk is full"):
        run(cut)
    made = (cut / "labels.tif").stat().st_mtime_ns
    monkeypatch.setattr(outputs, "write_cog", write)
    run(cut, resume=True)
    assert (cut / "labels.tif").stat().st_mtime_ns == made
    assert contents(cut) == whole


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting read-only needs root on Linux")
def test_a_read_only_folder_is_one_error_before_anything_is_computed(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs")
    try:
        with pytest.raises(OutputError, match="not writable"):
            run(folder)
    finally:
        subprocess.run(["umount", folder], check=True)


# Servers


@pytest.mark.parametrize("fault", ["drops", "hangs"])
def test_a_server_that_fails_ends_the_run_which_goes_on_when_it_is_back(
    run: Run, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, fault: str, cut: Path
) -> None:
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")
    if fault == "hangs":
        monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
        monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    image = noise(3, 64, 640)
    write_raster(server.folder / "far.tif", image, pixel_size=1.0, nodata=0, compress="NONE")  # larger than what GDAL caches
    scene = f"/vsicurl/{server.url}/far.tif"

    failing = server.folder.parent / fault

    class FailAfter(SilentProgress):
        left = 40

        def advance(self, amount: int = 1, **figures: float) -> None:
            self.left -= amount
            if self.left < 0:
                failing.touch()

    monkeypatch.setenv("CPL_VSIL_CURL_CACHE_SIZE", "16384")
    monkeypatch.setenv("VSI_CACHE", "NO")
    with pytest.raises(SceneError, match=r"far.tif cannot be read"):
        run(cut, scene=scene, progress=FailAfter())
    failing.unlink()
    run(cut, scene=scene, resume=True)
    (tmp_path / "undisturbed").mkdir()
    run(tmp_path / "undisturbed", scene=scene)
    assert contents(cut) == contents(tmp_path / "undisturbed")


# Signals: a process of its own


def command(scene: Path, model: Path, folder: Path, *more: str) -> list[str]:
    outputs = ["-o", str(folder / "labels.tif"), "--confidence", str(folder / "confidence.tif")]
    return [sys.executable, "-m", "geoglnet", "predict", str(scene), *outputs, "--model", str(model), "--device", "cpu", *more]


@pytest.fixture(scope="module")
def long_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 26 blocks."""
    return write_raster(tmp_path_factory.mktemp("long") / "long.tif", noise(3, 64, 416), pixel_size=1.0)


def long_outputs(folder: Path) -> dict[str, Path]:
    return {f"{name}_path": folder / f"{name}.tif" for name in ("labels", "confidence")}


@pytest.fixture(scope="module")
def long_whole(long_scene: Path, tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Content of the outputs of a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    geoglnet.predict(long_scene, **long_outputs(folder), model=str(tiny_model_path), config=PredictConfig(device="cpu"))
    return contents(folder)


def wait_for_blocks(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    path = folder / "labels.tif.unfinished" / "journal.jsonl"
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") <= count):
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 130, marks=pytest.mark.slow), (signal.SIGKILL, -9)]
)
def test_signals_leave_a_state_that_can_be_resumed(
    long_scene: Path, tiny_model_path: Path, stop: signal.Signals, code: int, cut: Path, long_whole: dict[str, bytes]
) -> None:
    with subprocess.Popen(command(long_scene, tiny_model_path, cut), stderr=subprocess.PIPE) as process:
        wait_for_blocks(cut, 5, process)
        process.send_signal(stop)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors.decode()
    if stop is not signal.SIGKILL:
        assert "continue with --resume" in errors.decode()
    left = {"labels.tif.unfinished"} | ({"labels.tif.part", "confidence.tif.part"} if stop is signal.SIGKILL else set())
    assert {path.name for path in cut.iterdir()} == left
    config = PredictConfig(device="cpu")
    geoglnet.predict(long_scene, **long_outputs(cut), model=str(tiny_model_path), config=config, resume=True)
    assert contents(cut) == long_whole


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_byte(
    long_scene: Path, tiny_model_path: Path, cut: Path, long_whole: dict[str, bytes]
) -> None:
    chance, kills = np.random.default_rng(0), 0
    while kills < 10:
        with subprocess.Popen(command(long_scene, tiny_model_path, cut, "--resume"), stderr=subprocess.DEVNULL) as process:
            wait_for_blocks(cut, 0, process)
            try:
                process.wait(float(chance.uniform(0, 1)))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                continue
        assert contents(cut) == long_whole  # it came to its end before it could be killed: once more
        for path in cut.iterdir():
            path.unlink()
    subprocess.run(command(long_scene, tiny_model_path, cut, "--resume"), check=True, stderr=subprocess.DEVNULL)
    assert contents(cut) == long_whole


def test_bad_options_are_refused() -> None:
    for given, message in (
        ({"effort": 1.5}, "effort 1.5"),
        ({"num_readers": 0}, "num_readers 0"),
        ({"bounds": (0, 1)}, "bounds"),
    ):
        with pytest.raises(ConfigError, match=message):
            PredictConfig(**given)  # type: ignore[arg-type]
