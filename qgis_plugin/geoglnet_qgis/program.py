"""The geoglnet program: where it is, and whether it can do what it is asked to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .environment import private_folder
from .events import ProtocolError, check_protocol

QUICK_TIMEOUT_S = 60.0  # a fifth of a second, once the disk has its files
TEST_TIMEOUT_S = 300.0  # loads torch, from a cold disk and past a virus scanner
INSTALL = "install geoglnet in a Python environment of its own (pip install geoglnet) and name its program in the settings"
SETTINGS_PLACE = "Settings → Options → geoglnet"


class ProgramError(Exception):
    """The program is missing, too old, or not geoglnet; the message says what to do."""


@dataclass(frozen=True)
class Program:
    """A geoglnet that can be started.

    Args:
        words: what its command line begins with.
    """

    words: tuple[str, ...]

    @property
    def path(self) -> str:
        return self.words[0]


@dataclass(frozen=True)
class Answer:
    """What ``geoglnet doctor --json`` answers.

    Args:
        facts: everything it said.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> str:
        return str(self.facts.get("version", "?"))

    @property
    def models(self) -> list[str]:
        return [str(name) for name in self.facts.get("models", ())]

    @property
    def missing(self) -> list[str]:
        return [str(line) for line in self.facts.get("missing", ())]

    @property
    def device(self) -> str:
        gpus = self.facts.get("gpus") or []
        return ", ".join(str(name) for name in gpus) if gpus else "CPU only"

    def options_of(self, verb: str) -> Collection[str]:
        return self.facts["options"].get(verb, ())


def find_program(setting: str, environment: Mapping[str, str], *, platform: str = sys.platform) -> Program:
    """Find the program that a setting names: itself, a Python that has it, or the folder of a virtual environment.

    Args:
        setting: path; empty looks on PATH.
        environment: of the child, for its PATH.
        platform: ``sys.platform``'s word.

    Raises:
        ProgramError: there is nothing that can be started.
    """
    path = os.path.expanduser(setting.strip().strip('"'))
    if not path:
        found = _on_path(environment.get("PATH", environment.get("Path", "")), platform)
        if not found:
            raise ProgramError(f"no geoglnet program on the PATH; {INSTALL} ({SETTINGS_PLACE})")
        return Program((found,))
    if not os.path.isabs(path):
        raise ProgramError(f"{path} is not a whole path; give one that begins with the drive or root, in {SETTINGS_PLACE}")
    if os.path.isdir(path):
        path = _in_folder(path, platform)
    if not os.path.isfile(path):
        raise ProgramError(f"there is no geoglnet program at {path}; correct the path in {SETTINGS_PLACE}, or {INSTALL}")
    if platform != "win32" and not os.access(path, os.X_OK):
        raise ProgramError(f"{path} is not a program that can be started; correct the path in {SETTINGS_PLACE}")
    if platform == "win32" and path.lower().endswith((".bat", ".cmd")):
        raise ProgramError(
            f"{path} is a batch file, which reads names of layers as commands; give the .exe in {SETTINGS_PLACE}"
        )
    is_python = os.path.basename(path).lower().startswith("python")
    return Program((path, "-m", "geoglnet") if is_python else (path,))


def _on_path(path: str, platform: str) -> str:
    """Find the program in the folders of PATH; never in the current one, which ``shutil.which`` prefers on Windows."""
    separator, name = (";", "geoglnet.exe") if platform == "win32" else (":", "geoglnet")
    for folder in path.split(separator):
        candidate = os.path.join(folder, name)
        if os.path.isabs(folder) and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return ""


def _in_folder(folder: str, platform: str) -> str:
    places = ("Scripts", "geoglnet.exe") if platform == "win32" else ("bin", "geoglnet")
    direct = os.path.join(folder, places[1])
    return direct if os.path.isfile(direct) else os.path.join(folder, *places)


def ask(program: Program, environment: Mapping[str, str], *, quick: bool = True, timeout_s: float | None = None) -> Answer:
    """Ask the program about itself.

    Args:
        program: whom to ask.
        environment: the child's variables.
        quick: do not load torch and GDAL; then nothing is said about models, devices and what is missing.
        timeout_s: patience.

    Raises:
        ProgramError: it is not geoglnet, too old, crashes or does not answer.
    """
    words = [*program.words, "doctor", "--json", *(["--quick"] if quick else [])]
    text, stderr, code = _said(program, words, environment, timeout_s or (QUICK_TIMEOUT_S if quick else TEST_TIMEOUT_S))
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or "protocol" not in facts:
        raise ProgramError(_stranger(program, text, stderr, code))
    try:
        check_protocol(facts["protocol"])
    except ProtocolError as error:
        raise ProgramError(f"{program.path}: {error}") from error
    if not isinstance(facts.get("options"), dict):
        raise ProgramError(_too_old(program, str(facts.get("version", "?"))))
    return Answer(facts)


def ask_verb(program: Program, words: Sequence[str], environment: Mapping[str, str]) -> Mapping[str, Any]:
    """Run a short verb and return the JSON object that it prints.

    Raises:
        ProgramError: it failed, with its own words, or printed something else.
    """
    text, stderr, code = _said(program, [*program.words, *words], environment, TEST_TIMEOUT_S)
    if code != 0:
        lines = [line for line in stderr.splitlines() if line.strip()]
        raise ProgramError(lines[-1].removeprefix("Error: ") if lines else f"geoglnet failed with exit code {code}")
    try:
        plain = json.loads(text)
    except ValueError:
        plain = None
    if not isinstance(plain, dict):
        raise ProgramError(_stranger(program, text, stderr, code))
    return plain


def _said(program: Program, words: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> tuple[str, str, int]:
    try:
        with private_folder() as folder:
            ran = subprocess.run(
                list(words),
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{program.path} did not answer within {timeout_s:g} s; does it start in a terminal?") from error
    except OSError as error:
        raise ProgramError(
            f"{program.path} cannot be started ({error.strerror or error}); correct it in {SETTINGS_PLACE}"
        ) from error
    return ran.stdout.decode("utf-8", "replace"), ran.stderr.decode("utf-8", "replace"), ran.returncode


def _stranger(program: Program, text: str, stderr: str, code: int) -> str:
    lines = [line.strip() for line in (text + "\n" + stderr).splitlines() if line.strip()]
    last = f" It said: {lines[-1][:300]}" if lines else ""
    if "--quick" in stderr:  # click's own words about an option that it does not know
        return _too_old(program, "?")
    if code != 0:
        return f"{program.path} failed with exit code {code} when it was asked for its version; is geoglnet whole there?{last}"
    return f"{program.path} does not answer like geoglnet; correct the path in {SETTINGS_PLACE}.{last}"


def _too_old(program: Program, version: str) -> str:
    found = f"geoglnet {version} at {program.path}"
    return f"{found} is older than this plugin needs; upgrade it there: pip install --upgrade geoglnet"


def missing_options(words: Iterable[str], known: Collection[str]) -> list[str]:
    """List the options in a command that the program does not have."""
    return [word for word in words if word.startswith("--") and word not in known]
