"""How a verb ends: exit codes, one line on stderr, an event on stdout."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from geoglnet.cli.options import bands_option, device_option, progress_options
from geoglnet.cli.terminal import Reporter
from geoglnet.cli.verb import Verb
from geoglnet.errors import Canceled, MemoryLimitError, SceneError
from geoglnet.message import Keyword
from tests.rasters import write_raster


def run_verb(error: BaseException | None, *arguments: str) -> Result:
    @click.command(cls=Verb)
    @progress_options
    @bands_option
    @device_option
    def verb(reporter: Reporter, bands: str | None, device: str) -> None:
        if error is not None:
            raise error
        reporter.done(f"{bands} {device}", {})

    return CliRunner().invoke(verb, arguments)


def test_our_error_is_one_line_and_exit_code_1() -> None:
    ran = run_verb(SceneError("scene.tif cannot be read;\n  copy it again"))
    assert (ran.exit_code, ran.stdout, ran.stderr) == (1, "", "Error: scene.tif cannot be read; copy it again\n")


def test_an_error_names_the_option_that_helps_here() -> None:
    error = SceneError("scene.tif has 4 bands; choose " + Keyword("bands"))
    assert run_verb(error).stderr == "Error: scene.tif has 4 bands; choose --bands\n"
    assert json.loads(run_verb(error, "--progress", "json").stdout)["message"] == "scene.tif has 4 bands; choose --bands"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Canceled("stop")])
def test_a_canceled_run_exits_with_130_and_says_so(error: BaseException) -> None:
    ran = run_verb(error)
    assert (ran.exit_code, ran.stderr) == (130, "Canceled; no half-written file is left\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't\nallocate memory"), "out of memory"),
        (MemoryLimitError("too large to be read at once"), "Error: too large to be read"),
        (OSError(errno.ENOSPC, "No space left on device", "out.tif"), "disk full while writing out.tif"),
        (PermissionError(errno.EACCES, "Permission denied", "out.tif"), "Permission denied: 'out.tif'"),
    ],
)
def test_the_machines_own_limits_are_one_line_too(error: BaseException, words: str) -> None:
    ran = run_verb(error)
    assert ran.exit_code == 1
    assert words in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_missing_extra_is_named_with_its_command() -> None:
    ran = run_verb(ModuleNotFoundError("No module named 'lightning'", name="lightning.pytorch"))
    assert (ran.exit_code, ran.stderr) == (1, "Error: lightning.pytorch is not installed; pip install 'geoglnet[train]'\n")


def test_a_missing_module_of_our_own_is_a_bug() -> None:
    assert isinstance(run_verb(ModuleNotFoundError("no", name="geoglnet.nothing")).exception, ModuleNotFoundError)


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in run_verb(SceneError("broken"), "--debug").stderr


def test_a_bug_is_not_dressed_up() -> None:
    assert isinstance(run_verb(ZeroDivisionError("bug")).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(SceneError("broken"), "SceneError"), (KeyboardInterrupt(), "Canceled"), (click.UsageError("no"), "UsageError")],
)
def test_errors_are_events_too_when_events_were_asked_for(error: BaseException, kind: str) -> None:
    ran = run_verb(error, "--progress", "json")
    event = json.loads(ran.stdout)
    assert (event["v"], event["event"], event["kind"]) == (1, "error", kind)
    assert ran.stderr


@pytest.mark.parametrize("arguments", [("--progress", "json", "--bnads", "1"), ("--progress=json", "--bands", "0,1")])
def test_wrong_usage_is_an_event_too(arguments: tuple[str, ...]) -> None:
    ran = run_verb(None, *arguments)
    assert ran.exit_code == 2
    assert json.loads(ran.stdout)["kind"] == "UsageError"


@pytest.mark.parametrize("bands", ["", "0,1,2", "1;2", "1,,2", "-1"])
def test_bands_that_are_neither_names_nor_numbers_are_wrong_usage(bands: str) -> None:
    ran = run_verb(None, "--bands", bands)
    assert ran.exit_code == 2
    assert "nor numbers from 1 (3,2,1)" in ran.stderr


@pytest.mark.parametrize("device", ["gpu", "cuda:", "CPU0"])
def test_a_device_that_does_not_exist_anywhere_is_wrong_usage(device: str) -> None:
    ran = run_verb(None, "--device", device)
    assert ran.exit_code == 2
    assert "use auto, cpu, cuda" in ran.stderr


def test_options_arrive_as_the_api_wants_them() -> None:
    assert run_verb(None, "--bands", "3, 2,1", "--device", "cuda:1").stderr == "3, 2,1 cuda:1\n"


# The rest needs a process of its own.

WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.{sigint})
import click
from geoglnet.cli.process import prepare_environment, stop_on_terminate
from geoglnet.cli.options import progress_options
from geoglnet.cli.verb import Verb

@click.command(cls=Verb)
@progress_options
def verb(reporter):
    reporter.plan("wait", 600, "naps")
    for _ in range({naps}):
        time.sleep(0.05)

prepare_environment()
stop_on_terminate()
verb()
"""


def start(arguments: list[str], naps: int = 600, sigint: str = "default_int_handler") -> subprocess.Popen[str]:
    """A verb that waits; ``sigint`` is how it finds SIGINT, which the tests themselves may have been told to ignore."""
    command = [sys.executable, "-c", WAITING.format(naps=naps, sigint=sigint), "--progress", "json", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def wait_for_plan(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert '"plan"' in process.stdout.readline()


@pytest.mark.parametrize("stop", [lambda p: p.send_signal(signal.SIGINT), lambda p: p.terminate()], ids=["int", "term"])
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_signals_cancel_with_130(stop: Callable[[subprocess.Popen[str]], None]) -> None:
    with start([]) as process:
        wait_for_plan(process)
        stop(process)
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert json.loads(stdout.splitlines()[-1])["kind"] == "Canceled"
    assert stderr == "Canceled; no half-written file is left\n"


@pytest.mark.parametrize("sigint", ["default_int_handler", "SIG_IGN"])
def test_it_stops_when_stdin_ends(sigint: str) -> None:
    with start(["--stop-on-stdin-eof"], sigint=sigint) as process:
        wait_for_plan(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=120)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read()
        process.stderr.read()
    assert process.returncode == 130


def test_it_stops_when_its_parent_dies_and_nobody_reads_any_more() -> None:
    with start(["--stop-on-stdin-eof"]) as process:
        wait_for_plan(process)
        for pipe in (process.stdout, process.stderr, process.stdin):
            assert pipe is not None
            pipe.close()
        assert process.wait(timeout=120) == 130


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_program_can_cancel_with_sigint_even_where_it_was_ignored() -> None:
    with start(["--stop-on-stdin-eof"], sigint="SIG_IGN") as process:
        wait_for_plan(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130


def test_the_watch_does_not_disturb_an_ordinary_end() -> None:
    with start(["--stop-on-stdin-eof"], naps=1) as process:
        wait_for_plan(process)
        assert process.wait(timeout=120) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "from geoglnet.cli.main import main; import sys; sys.argv = ['geoglnet', '--help']; main()"
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    os.close(write_end)
    assert "Traceback" not in ran.stderr


def test_foreign_gdal_and_proj_data_are_forgotten() -> None:
    code = (
        "from geoglnet.cli.process import prepare_environment; prepare_environment()\n"
        "from rasterio.crs import CRS; print(CRS.from_epsg(32633).to_epsg())"
    )
    environment = {**os.environ, "PROJ_LIB": "/nowhere", "PROJ_DATA": "/nowhere", "GDAL_DATA": "/nowhere"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.stdout == "32633\n"


PROGRAM = f'"{sys.executable}" -m geoglnet'
posix_only = pytest.mark.skipif(sys.platform != "linux", reason="a shell and /dev/full")


@posix_only
@pytest.mark.parametrize(
    ("command", "code", "stdout", "stderr"),
    [
        ("models 2>&-", 0, "buildings", ""),
        ("models >&- 2>&-", 0, "", ""),
        ("info nowhere.tif <&- >&-", 1, "", "Error: nowhere.tif does not exist"),
        ("models >/dev/full", 1, "", "Error: what this command prints cannot be written: No space left on device\n"),
        ("predict --help >/dev/full", 1, "", "Error: what this command prints cannot be written: No space left on device\n"),
        ("models >/dev/full 2>&1", 1, "", ""),
        ("models | true", 0, "", ""),
        ("nope 2>/dev/full", 1, "", ""),
    ],
)
def test_standard_streams_that_are_closed_or_full_end_in_no_traceback(
    command: str, code: int, stdout: str, stderr: str
) -> None:
    ran = subprocess.run(f"{PROGRAM} {command}", shell=True, capture_output=True, text=True, check=False)
    assert ran.returncode == code
    assert stdout in ran.stdout
    assert ran.stderr.startswith(stderr)
    assert len(ran.stderr.splitlines()) == bool(stderr)


@posix_only
@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "--progress json >/dev/full 2>/dev/full"])
def test_a_run_whose_progress_cannot_be_printed_finishes_its_outputs(
    scene_path: Path, tiny_model_path: Path, tmp_path: Path, streams: str
) -> None:
    command = f"{PROGRAM} predict {scene_path} -o {tmp_path}/labels.tif --model {tiny_model_path} --batch 9 {streams}"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert ran.returncode == (1 if "full" in streams else 0)
    assert ran.stderr in ("", f"{tmp_path}/labels.tif")
    with rasterio.open(tmp_path / "labels.tif") as labels:  # with nothing of what was printed in it
        assert labels.count == 1


@posix_only
def test_too_little_address_space_is_one_line() -> None:
    limited = f"ulimit -v 600000; {PROGRAM} predict scene.tif -o labels.tif"
    ran = subprocess.run(limited, shell=True, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: the address space of this process is limited to 0.6 GB")
    assert len(ran.stderr.splitlines()) == 1


@posix_only
@pytest.mark.parametrize(
    ("settings", "encoding"),
    [
        ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii"),  # names arrive as bytes that it lacks
        ({"LANG": "C", "LC_ALL": "", "PYTHONIOENCODING": "cp1252"}, "cp1252"),
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
    ],
)
def test_no_encoding_of_a_terminal_stops_a_run_or_loses_a_name(tmp_path: Path, settings: dict[str, str], encoding: str) -> None:
    labels = np.repeat(np.array([[[0, 1]]], np.uint8), 8, axis=1)
    write_raster(tmp_path / "Straße.tif", labels)
    categories = "<Category>Größe</Category><Category>建物 é</Category>"
    sidecar = f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames></PAMRasterBand></PAMDataset>'
    (tmp_path / "Straße.tif.aux.xml").write_text(sidecar, encoding="utf-8")
    words = [sys.executable, "-m", "geoglnet", "vectorize", "Straße.tif", "建 ö.geojson"]
    ran = subprocess.run(words, cwd=tmp_path, env=os.environ | settings, capture_output=True, check=True)
    assert ran.stderr == "2 polygons in 建 ö.geojson\n".encode(encoding, "backslashreplace")
    features = json.loads((tmp_path / "建 ö.geojson").read_text(encoding="utf-8"))["features"]
    assert {feature["properties"]["class_name"] for feature in features} == {"Größe", "建物 é"}
    missing = subprocess.run([*words[:3], "info", "Füße.tif"], env=os.environ | settings, capture_output=True, check=False)
    line = "Error: Füße.tif does not exist; check the path\n"
    assert missing.stderr in (line.encode(encoding, "backslashreplace"), line.encode())  # click takes ASCII for a mistake


@posix_only
def test_a_line_of_gdals_that_is_not_in_utf_8_prints_no_traceback(tmp_path: Path) -> None:
    band = '<VRTRasterBand dataType="B\xffyte" band="1"></VRTRasterBand>'
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="8" rasterYSize="8">{band}</VRTDataset>', encoding="latin-1")
    ran = subprocess.run(f"{PROGRAM} info {tmp_path}/a.vrt", shell=True, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"Error: {tmp_path}/a.vrt")
    assert len(ran.stderr.splitlines()) == 1
