"""The campaign finds what is planted for it: a search that never finds anything proves nothing."""

from __future__ import annotations

import faulthandler
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import geopandas
import pytest
import shapely
from numpy.random import default_rng

from tests.campaign.faults import Fault, build_library
from tests.campaign.harness import Bench, Ended, problems_of_ending
from tests.campaign.mutations import nested, spoil_bytes, spoil_tree, to_json, to_toml
from tests.campaign.outputs import fault_of_output

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, /proc and limits of Linux")
KEPT: list[bytearray] = []


def refuses(text: str = "Error: x.tif is not a raster\n") -> None:
    sys.stderr.write(text)
    raise SystemExit(1)


def raises() -> None:
    raise ValueError("planted")


def hangs() -> None:
    while True:
        pass


def takes_memory() -> None:
    KEPT.append(bytearray(os.urandom(1) * 200_000_000))


def crashes() -> None:
    faulthandler.disable()
    os.abort()


def leaves_a_file() -> None:
    Path("labels.tif.part").mkdir()
    Path("labels.tif.part", "part.tif").write_text("half", encoding="utf-8")
    refuses()


def changes_its_input() -> None:
    Path("scene.tif").write_text("gone", encoding="utf-8")


def leaves_an_output_that_is_none() -> None:
    Path("labels.tif").write_text("half", encoding="utf-8")


def leaves_a_temporary_file() -> None:
    (Path(os.environ["TMPDIR"]) / "spool").touch()


def says_it_twice() -> None:
    refuses("Error: first\nError: second\n")


def keeps_what_has_no_name() -> None:
    Path("labels (2).qml").write_text("whole", encoding="utf-8")
    Path("labels.tif.part").mkdir()
    Path("labels.tif.part", "part.tif").write_text("whole", encoding="utf-8")
    refuses(f"Error: labels.qml cannot be replaced; the new one is kept as {Path('labels (2).qml').absolute()}\n")


def leaks() -> None:
    sys.stderr.write("ERROR 1: from below\ndone\n")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (refuses, None),
        (raises, "traceback: ValueError"),
        (hangs, "crash: SIGXCPU (more CPU time than its input can need)"),
        (takes_memory, "memory"),
        (crashes, "crash: SIGABRT"),
        (leaves_a_file, "part left behind after exit code 1: labels.tif.part"),
        (changes_its_input, "input changed: scene.tif"),
        (leaves_an_output_that_is_none, "is not whole"),
        (leaves_a_temporary_file, "left behind in the temporary folder"),
        (says_it_twice, "2 lines that say why"),
        (keeps_what_has_no_name, "part left behind after exit code 1: labels.tif.part"),
        (leaks, "leak on stderr: ERROR"),
    ],
)
def test_what_is_planted_is_found(tmp_path: Path, program: Callable[[], None], words: str | None) -> None:
    (tmp_path / "work").mkdir()
    bench = Bench(tmp_path / "work", tmp_path, program, cpu_s=1 if program is hangs else 20, memory=100_000_000)
    (bench.folder / "scene.tif").write_text("good")
    bench.run(["predict"], ["labels.tif"] if program is not changes_its_input else [])
    problems = [problem for problem in bench.problems if problem != "done, but an output is missing"]
    assert [words in problem for problem in problems] == [True] if words else not problems, problems


def write_x_part() -> None:
    Path("x.part.tif").write_text("whole", encoding="utf-8")


def test_an_output_whose_name_looks_like_a_part_is_none_left_behind(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    bench = Bench(tmp_path / "work", tmp_path, write_x_part)
    bench.run(["predict"], ["x.part.tif"])
    assert [problem for problem in bench.problems if "left behind" in problem] == []


def test_an_output_of_which_gdal_warns_is_not_whole(tmp_path: Path) -> None:
    layer = geopandas.GeoDataFrame({"a": [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32633")
    layer.to_file(tmp_path / "a.gpkg", engine="pyogrio")
    assert fault_of_output(tmp_path / "a.gpkg") == ""
    with closing(sqlite3.connect(tmp_path / "a.gpkg")) as database:
        database.execute("PRAGMA user_version = 0")
        database.commit()
    assert "user_version" in fault_of_output(tmp_path / "a.gpkg")


def test_a_run_that_is_stopped_or_killed_is_judged_by_that(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    bench = Bench(tmp_path / "work", tmp_path, lambda: time.sleep(60))
    assert bench.run(["predict"], kill_after_s=0.05).code == -9
    assert not bench.problems
    assert problems_of_ending(Ended(130, "", "Canceled; no half-written file is left\n"), stops=True) == []
    assert problems_of_ending(Ended(130, "", "Canceled; no half-written file is left\n"))
    assert problems_of_ending(Ended(130, "", "Error: no x\nCanceled; no half-written file is left\n"), stops=True) == []


def test_the_nth_call_fails_in_python_and_below_it(tmp_path: Path) -> None:
    code = (
        "import errno, os, pathlib, sys; from tests.campaign.faults import *\n"
        "folder = pathlib.Path(sys.argv[1]); count = arm(Fault('rename', 2, errno.EIO), folder)\n"
        "for number in range(3):\n"
        "    (folder / 'a').touch()\n"
        "    try: os.replace(folder / 'a', folder / 'b'); print('renamed')\n"
        "    except OSError as error: print(error.strerror)\n"
        "print(count()['rename'])"
    )
    library = build_library(tmp_path)
    (tmp_path / "work").mkdir()
    for preloaded in ["", *([str(library)] if library else [])]:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "LD_PRELOAD": preloaded}
        words = [sys.executable, "-c", code, str(tmp_path / "work")]
        ran = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        assert ran.stdout.split("\n")[:4] == ["renamed", "Input/output error", "renamed", "3"]


def test_a_fault_that_kills_is_no_crash_of_the_programs(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    bench = Bench(tmp_path / "work", tmp_path, lambda: Path("a").write_text("b", encoding="utf-8"))
    assert bench.run([], fault=Fault("open", 1)).code == -9
    assert bench.problems == []


def test_cases_are_given_by_their_seed() -> None:
    tree = {"a": [1, {"b": "text"}], "c": 2.0}
    for make in (lambda rng: to_json(spoil_tree(rng, tree)), lambda rng: spoil_bytes(rng, bytes(range(200)))):
        assert [make(default_rng(n)) for n in range(20)] == [make(default_rng(n)) for n in range(20)]
        assert len({make(default_rng(n)) for n in range(20)}) > 15
    assert to_toml({"a": nested(3000)}).count("[") == 3000
