"""The plugin finds the program, and has one clear sentence for each way in which it may be wrong."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest
from geoglnet_qgis import program as program_module
from geoglnet_qgis.environment import clean_environment
from geoglnet_qgis.program import Program, ProgramError, ask, ask_verb, find_program
from geoglnet_qgis.runner import run_program

import geoglnet
from geoglnet.models.shipped import shipped_models

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins for the program are POSIX scripts")


def make_program(path: Path, script: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def real_environment() -> dict[str, str]:
    """What the plugin gives the program, with this checkout's geoglnet."""
    return {**clean_environment(os.environ), "PYTHONPATH": str(Path(geoglnet.__file__).parents[1])}


REAL = Program((sys.executable, "-m", "geoglnet"))


def test_an_empty_setting_looks_on_the_path(tmp_path: Path) -> None:
    path = make_program(tmp_path / "bin" / "geoglnet")
    assert find_program("", {"PATH": str(path.parent)}).words == (str(path),)
    with pytest.raises(ProgramError, match="no geoglnet program on the PATH; install geoglnet"):
        find_program("  ", {"PATH": str(tmp_path)})


def test_a_setting_names_the_program_its_python_or_its_environment(tmp_path: Path) -> None:
    path = make_program(tmp_path / "Umgebung ü мир" / "bin" / "geoglnet")
    python = make_program(path.with_name("python3"))
    assert find_program(f'"{path}"', {}).words == (str(path),)
    assert find_program(str(python), {}).words == (str(python), "-m", "geoglnet")
    assert find_program(str(path.parents[1]), {}).words == (str(path),)
    assert find_program(str(path.parent), {}).words == (str(path),)


def test_an_environment_of_windows_has_its_program_in_scripts(tmp_path: Path) -> None:
    path = make_program(tmp_path / "Scripts" / "geoglnet.exe")
    assert find_program(str(tmp_path), {}, platform="win32").words == (str(path),)


def test_a_path_to_nothing_or_to_no_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="there is no geoglnet program at"):
        find_program(str(tmp_path / "geoglnet"), {})
    (tmp_path / "geoglnet").write_text("text")
    with pytest.raises(ProgramError, match="is not a program that can be started"):
        find_program(str(tmp_path), {})


def test_the_real_program_answers_quickly_with_its_options() -> None:
    answer = ask(REAL, real_environment())
    assert answer.version == geoglnet.__version__
    assert {"--labels", "--vector", "--progress"} <= set(answer.options_of("predict"))
    assert not answer.options_of("nothing")


def test_the_real_program_tells_models_and_device_when_asked_in_full() -> None:
    answer = ask(REAL, real_environment(), quick=False)
    assert answer.models == list(shipped_models())
    assert not answer.missing
    assert answer.device


def test_a_short_verb_gives_its_object_or_its_own_error() -> None:
    assert ask_verb(REAL, ["models", "buildings", "--json"], real_environment())["name"] == "buildings"
    with pytest.raises(ProgramError, match=r"no model|nothing"):
        ask_verb(REAL, ["info", "/nothing.safetensors", "--json"], real_environment())


WRONG = {
    "older_than_quick": ("import sys; sys.exit(\"Error: No such option '--quick'.\")", "older than this plugin needs; upgrade"),
    "older_than_options": ('print(\'{"version": "0.0.9", "protocol": 1}\')', r"geoglnet 0\.0\.9 at .* upgrade it there"),
    "newer": ('print(\'{"version": "9", "protocol": 2, "options": {}}\')', "upgrade this plugin"),
    "crashing": ("raise ImportError('libcudart.so.12')", r"exit code 1 .* It said: ImportError: libcudart"),
    "rubbish": ("print('Usage: something else')", "does not answer like geoglnet.* Usage: something else"),
    "silent": ("", "does not answer like geoglnet"),
    "binary": (r"import sys; sys.stdout.buffer.write(bytes(range(256)))", "does not answer like geoglnet"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_program_is_named_in_one_line(kind: str, tmp_path: Path) -> None:
    script, expected = WRONG[kind]
    path = make_program(tmp_path / "geoglnet", script)
    with pytest.raises(ProgramError, match=expected) as caught:
        ask(Program((str(path),)), clean_environment(os.environ))
    assert len(str(caught.value).splitlines()) == 1


def test_a_program_that_never_answers_is_given_up(tmp_path: Path) -> None:
    path = make_program(tmp_path / "geoglnet", "import time; time.sleep(1000)")
    with pytest.raises(ProgramError, match=r"did not answer within 0\.5 s"):
        ask(Program((str(path),)), {}, timeout_s=0.5)


def test_a_file_that_the_system_cannot_start_is_refused(tmp_path: Path) -> None:
    path = make_program(tmp_path / "geoglnet")
    path.write_bytes(b"\x7fELF broken")
    with pytest.raises(ProgramError, match="cannot be started"):
        ask(Program((str(path),)), {})


@pytest.mark.parametrize("starts", ["ask", "run"])
def test_nothing_is_imported_from_where_the_program_is_started(
    starts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python as program, with somebody's ``geoglnet`` in the shared temporary folder and in the current one."""
    marker = tmp_path / "executed"
    for name in ("geoglnet/__init__.py", "geoglnet/__main__.py", "json.py", "sitecustomize.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"open({str(marker)!r}, 'w').close()", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if starts == "ask":
        assert ask(REAL, real_environment()).version == geoglnet.__version__
    else:
        words = [*REAL.words, "models", "buildings", "--json"]
        assert run_program(words, real_environment(), lambda event: None).code == 0
    assert not marker.exists()
    assert not list(tmp_path.glob("geoglnet-run-*"))


def test_the_program_is_started_in_an_empty_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(program_module.__file__).parent)
    script = "import os; s = os.stat('.'); raise SystemExit(f'{s.st_mode & 0o777:o} {s.st_uid == os.getuid()} {os.listdir()}')"
    path = make_program(tmp_path / "geoglnet", script)
    with pytest.raises(ProgramError, match=r"700 True \[\]"):
        ask(Program((str(path),)), clean_environment(os.environ))


def test_the_path_is_searched_without_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_program(tmp_path / "bin" / "geoglnet.exe")
    make_program(tmp_path / "geoglnet")
    make_program(tmp_path / "geoglnet.exe")
    monkeypatch.chdir(tmp_path)
    for current in ("", ".", "bin/..", os.curdir):
        with pytest.raises(ProgramError, match="no geoglnet program on the PATH"):
            find_program("", {"PATH": current})
        assert find_program("", {"Path": f"{current};{path.parent}"}, platform="win32").words == (str(path),)
    with pytest.raises(ProgramError, match="geoglnet is not a whole path"):
        find_program("geoglnet", {})


def test_a_batch_file_is_refused_on_windows(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"is a batch file.* give the \.exe"):
        find_program(str(make_program(tmp_path / "geoglnet.BAT")), {}, platform="win32")
