"""Runs cases in forks of one process that has everything imported, judges how they end, and keeps those that end badly.

A *target* is a function ``(rng, bench)``: it makes hostile input below ``bench.folder`` and calls :meth:`Bench.run` with the
words of a command line, once or several times. What every ending has to fulfill is judged here, by :meth:`Bench.judge`; what
one case has to fulfill besides, the target says by :meth:`Bench.problem`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign.faults import Fault, arm

CPU_S, WALL_S, GRACE_S = 40, 240, 60  # of one run; after the grace a run that was asked to stop hangs
MEMORY = 1_500_000_000  # bytes beyond what the imports take
OTHER_FILES = 200_000  # bytes: larger files of a failed case are not kept, the seed makes them again
DONE, REFUSED, USAGE, CANCELED = 0, 1, 2, 130
Rng = np.random.Generator


class Unmade(Exception):  # noqa: N818 - no fault
    """The input of this case cannot be made here."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit code (negative: by that signal) and what it said."""

    code: int
    out: str
    err: str
    calls: dict[str, int] = field(default_factory=dict)  # by kind, where a fault was wanted
    was_stopped: bool = False


@dataclass
class Bench:
    """Where one case runs.

    Args:
        folder: current folder of the runs, empty at first.
        stock: good inputs, see :mod:`campaign.stock`.
        program: what is run in the fork, with the words of the command line as ``sys.argv[1:]``.
    """

    folder: Path
    stock: Path
    program: Callable[[], Any]
    problems: list[str] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    last: Ended | None = None
    cpu_s: float = CPU_S
    memory: int = MEMORY

    def take(self, *names: str) -> None:
        """Copy good inputs into the folder, with their times."""
        for name in names:
            source = self.stock / name
            if source.is_dir():
                shutil.copytree(source, self.folder / name)
            else:
                shutil.copy2(source, self.folder / name)

    def problem(self, text: str) -> None:
        """Say that the case failed; equal texts are one fault."""
        self.problems.append(text)

    def run(
        self,
        words: Sequence[str],
        outputs: Sequence[str] = (),
        *,
        fault: Fault | None = None,
        kill_after_s: float | None = None,
        stop_after_s: float | None = None,
    ) -> Ended:
        """Run the program once, and judge how it ended.

        Args:
            words: of the command line.
            outputs: names that it may write, below the folder.
            fault: bad luck that it has.
            kill_after_s: kill it then.
            stop_after_s: ask it to stop then, because it may rightly go on for days.
        """
        before = _digests(self.folder)
        ended = self._fork(words, fault, kill_after_s, stop_after_s)
        self.last = ended
        told = {"fault": vars(fault)} if fault else {}
        self.runs.append({"argv": list(words), "code": ended.code, "stderr": ended.err[-4000:]} | told)
        is_meant = kill_after_s is not None or (fault is not None and not fault.error)
        if ended.code != -signal.SIGKILL or not is_meant:
            self.judge(ended, before, outputs, stops=ended.was_stopped or "--stop-on-stdin-eof" in words)
        return ended

    def judge(self, ended: Ended, before: dict[str, str], outputs: Sequence[str], *, stops: bool) -> None:
        """Whatever the input was: one line or a result, whole outputs, nothing else touched."""
        from tests.campaign.outputs import fault_of_output

        self.problems += problems_of_ending(ended, stops=stops)
        after = _digests(self.folder)
        for name, digest in before.items():
            if not self._is_mine(name, outputs) and after.get(name) != digest and not _is_state(name):
                self.problem(f"input {'changed' if name in after else 'removed'}: {name}")
        for name in sorted(after.keys() - before.keys()):
            if self._is_mine(name, outputs) or (_is_state(name) and ended.code != DONE) or self._is_said(name, ended):
                continue
            self.problem(f"left behind after exit code {ended.code}: {re.sub('[0-9a-f]{6,}', '…', name)}")
        kept = {name.partition("/")[0] for name in before}  # of a run that was killed before this one
        for name in (path.name for path in self.folder.iterdir() if ".part" in path.name and path.name not in kept):
            if not self._is_mine(name, outputs) and not self._is_said(name, ended):
                self.problem(f"part left behind after exit code {ended.code}: {name}")
        for name in outputs:
            fresh = name in after and before.get(name) != after[name]
            fault = fault_of_output(self.folder / name) if fresh or (ended.code == DONE and name in after) else None
            if fault:
                self.problem(f"output after exit code {ended.code} is not whole: {Path(name).suffix}: {fault}")
            if ended.code == DONE and name not in after:
                self.problem("done, but an output is missing")

    def _is_said(self, name: str, ended: Ended) -> bool:
        """Whether a file is a finished output that could not get its name, and its place was said; or what lies beside it."""
        found = re.search(r"the new one is kept as (.+)$", ended.err, re.MULTILINE)
        place = str(self.folder / name)
        return found is not None and (place.startswith(found[1]) or found[1].startswith(f"{place}/"))

    def _is_mine(self, name: str, outputs: Sequence[str]) -> bool:
        """Whether a file belongs to an output."""
        place = Path(name)
        return any(
            name in (output, *(output + suffix for suffix in (".aux.xml", ".ovr", ".msk")))
            or place in (Path(output).with_suffix(suffix) for suffix in (".qml", ".sld"))
            or name.startswith(str(Path(output).with_suffix(".run")) + "/")
            or place in (Path(output).with_suffix(f".{stage}{Path(output).suffix}") for stage in ("global", "local"))
            for output in outputs
            if Path(output).name
        )

    def _fork(
        self,
        words: Sequence[str],
        fault: Fault | None,
        kill_after_s: float | None,
        stop_after_s: float | None,
    ) -> Ended:
        logs = Path(tempfile.mkdtemp(dir=self.folder.parent))
        (logs / "tmp").mkdir()
        for name in ("out", "err", "resident"):
            (logs / name).touch()
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: there are none that matter
            pid = os.fork()
        if pid == 0:
            _become_program(self, words, logs, fault)
        limit = time.monotonic() + WALL_S
        stop = None if stop_after_s is None else started + stop_after_s
        kill = None if kill_after_s is None else started + kill_after_s
        was_stopped = False
        while True:
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                break
            now = time.monotonic()
            if now > limit:
                self.problem(f"hang: not over after {'being asked to stop' if was_stopped else f'{WALL_S} s'}")
            if now > limit or (kill and now > kill):
                os.kill(pid, signal.SIGKILL)
                limit, kill = now + 60, None
            if stop and now > stop:
                os.kill(pid, signal.SIGTERM)
                stop, was_stopped, limit = None, True, now + GRACE_S
            time.sleep(0.004)
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)  # processes of its own
        code = os.waitstatus_to_exitcode(status)
        out, err = ((logs / name).read_text(encoding="utf-8", errors="surrogateescape") for name in ("out", "err"))
        counted = logs / "calls"
        calls = json.loads(counted.read_text()) if counted.exists() else {}
        resident = (logs / "resident").read_text()  # empty of a program that was killed before it had begun
        if resident and usage.ru_maxrss * 1024 > int(resident) + self.memory:
            self.problem("memory: more than its input can need")
        if any((logs / "tmp").iterdir()) and code >= 0:
            names = sorted(re.sub(r"\d+|_?[a-z0-9_]{8}$", "…", path.name) for path in (logs / "tmp").iterdir())
            self.problem(f"left behind in the temporary folder: {names[0]}")
        shutil.rmtree(logs)
        return Ended(code, out, err, calls, was_stopped)


def _become_program(bench: Bench, words: Sequence[str], logs: Path, fault: Fault | None) -> None:
    """The fork: the program with its own streams, folder and limits. Does not return."""
    code = 70
    try:
        os.setsid()
        for number, name in ((0, os.devnull), (1, logs / "out"), (2, logs / "err")):
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
            for number, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        os.environ["TMPDIR"], tempfile.tempdir = str(logs / "tmp"), None
        os.chdir(bench.folder)
        for module in list(sys.modules.values()):  # a warning that was given before the fork is given again
            vars(module).get("__warningregistry__", {}).clear() if hasattr(module, "__dict__") else None
        (logs / "resident").write_text(str(_memory()[1]))
        _set_limits(bench.cpu_s)
        sys.argv = ["geoglnet", *words]
        count = arm(fault, bench.folder) if fault else None
        code = _call(bench.program)
        if count is not None:
            (logs / "calls").write_text(json.dumps(count()))
    except BaseException:  # the fork must not go on as the harness
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _call(program: Callable[[], Any]) -> int:
    try:
        program()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # what the interpreter would do
        traceback.print_exc()
        return 1
    return 0


def _set_limits(cpu_s: float) -> None:
    size, _ = _memory()
    for name, limit in (
        (resource.RLIMIT_AS, size + 2 * MEMORY),
        (resource.RLIMIT_CPU, int(cpu_s + time.process_time())),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 1_000_000_000),
    ):
        resource.setrlimit(name, (limit, resource.getrlimit(name)[1]))


def problems_of_ending(ended: Ended, *, stops: bool = False) -> list[str]:
    """What is wrong with an exit code and what was said with it."""
    lines = ended.err.splitlines()
    if "Traceback (most recent call last)" in ended.err:
        return [_traceback(ended.err)]
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        last = re.sub(r"0x[0-9a-f]+|\d+", "…", lines[-1])[:100] if lines else ""
        return [f"crash: {name}{' (more CPU time than its input can need)' if name == 'SIGXCPU' else ''} {last}".rstrip()]
    if "which may be too little" in ended.err:  # the program takes its failure for one of the limit that we set
        return [f"failed for want of addresses, it says: {_anonymous(lines[-1])}"]
    if "out of memory" in ended.err:
        return ["memory: said to be out of it"]
    allowed = {DONE: (), REFUSED: ("Error: ",), USAGE: ("Usage: ", "Try ", "Error: "), CANCELED: ("Canceled",)}
    if ended.code not in allowed or (ended.code == CANCELED and not stops):
        return [f"exit code {ended.code}: {lines[-1][:100] if lines else ''}"]
    said = [line for line in lines if line and not line.startswith(("Warning: ", "Note: "))]
    if ended.code == DONE:
        return [f"leak on stderr: {_anonymous(line)}" for line in said[:-1]]
    if ended.code == CANCELED and len(said) == 2 and said[0].startswith("Error: "):
        said = said[1:]  # it was asked to stop when it had just said why it ends
    strays = [line for line in said if not line.startswith(allowed[ended.code])]
    errors = [line for line in said if line.startswith(("Error: ", "Canceled"))]
    if strays:
        return [f"leak on stderr: {_anonymous(line)}" for line in strays[:3]]
    return [] if len(errors) == 1 else [f"{len(errors)} lines that say why, with exit code {ended.code}"]


def _anonymous(line: str) -> str:
    return re.sub(r"/\S+|'[^']*'|\d+", "…", line)[:120]


def _traceback(text: str) -> str:
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', text)
    ours = [(Path(path).name, name) for path, _, name in frames if "/geoglnet/" in path] or [("", "")]
    kinds = re.findall(
        r"^([A-Za-z_][\w.]*(?:Error|Exception|Warning|Interrupt|Exit|Invalid\w*|\w*)): ?(.*)$", text, re.MULTILINE
    )
    kind, message = kinds[-1] if kinds else (text.splitlines()[-1][:60], "")
    return f"traceback: {kind} in {ours[-1][0]}:{ours[-1][1]} ({_anonymous(message)[:80]})"


def _is_state(name: str) -> bool:
    """Whether a file is what a run that did not end keeps to go on from."""
    return ".unfinished/" in name or ".part/" in name or name.endswith(".resume.pt") or ".run/" in name


def _digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its name there."""
    found = {}
    for place, folders, files in os.walk(os.fsencode(folder)):
        for name in files + [name for name in folders if os.path.islink(os.path.join(place, name))]:  # noqa: PTH114, PTH118
            path = os.path.join(place, name)  # noqa: PTH118
            key = os.fsdecode(os.path.relpath(path, os.fsencode(folder)))
            if os.path.islink(path):  # noqa: PTH114
                found[key] = f"link to {os.readlink(path)!r}"  # noqa: PTH115
            else:
                with open(path, "rb") as file:  # noqa: PTH123
                    found[key] = hashlib.file_digest(file, "blake2b").hexdigest()
    return found


def _memory() -> tuple[int, int]:
    """Bytes of this process's addresses, and of its memory."""
    size, resident, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(size) * resource.getpagesize(), int(resident) * resource.getpagesize()
