"""The campaign itself: a supervisor, a worker that it restarts when it dies, and a table of what happened."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign.faults import build_library
from tests.campaign.harness import CANCELED, DONE, OTHER_FILES, REFUSED, USAGE, Bench, Unmade

KEPT = 3  # failed cases kept of one fault
ENDS = {DONE: "done", REFUSED: "refused", USAGE: "usage", CANCELED: "stopped"}
FUZZ = ("model", "scene", "labels", "codes", "vector", "config", "options", "journal", "savepoint", "faults")
KILLS = ("kill_predict", "kill_vectorize", "kill_train")
_WEIGHTS = {"savepoint": 0.3, "faults": 1.5, "scene": 1.5}  # share of the time; 1 for others


def targets() -> dict[str, Any]:
    """Functions by kind of case."""
    from tests.campaign import codes, luck, vectors
    from tests.campaign import targets as hostile

    named = {kind: getattr(hostile, kind) for kind in FUZZ if hasattr(hostile, kind)}
    named |= {"vector": vectors.vector, "codes": codes.codes, "faults": luck.faults}
    return named | {kind: luck.kills(kind.removeprefix("kill_")) for kind in KILLS}


def run_case(target: Any, kind: str, number: int, seed: int, stock: Path, program: Any) -> tuple[Bench, str]:
    """One case, wholly given by its kind, number and seed; returns where it ran, and how it ended in a word."""
    place = Path(tempfile.mkdtemp(prefix="case-", dir=stock.parent)) / "work"
    place.mkdir()
    bench = Bench(place, stock, program)
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
    try:
        target(rng, bench, number == 0)
    except Unmade:
        return bench, "unmade"
    except Exception:  # a fault of the campaign's own is told like any other
        bench.problem(f"campaign: {traceback.format_exc()[-1500:]}")
    if number == 0 and bench.last is not None and bench.last.code != DONE:
        bench.problem(f"the good input is refused: {bench.last.err.strip()[-200:]}")
    return bench, "failed" if bench.problems else ENDS.get(bench.last.code if bench.last else 0, "failed")


def serve(stock: Path) -> None:
    """The worker: import everything, make the stock, then a case for every line on standard input."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; and threads do not live through a fork
    os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "GDAL_HTTP_TIMEOUT": "3", "GDAL_HTTP_MAX_RETRY": "0"}
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import geoglnet.api.prediction  # noqa: F401 - loaded before a case is timed
    import geoglnet.cli.main
    import geoglnet.training.fit  # noqa: F401
    from tests.campaign.stock import make_stock

    if not (stock / "ready").exists():
        make_stock(stock)
        (stock / "ready").touch()
    known = targets()
    print("ready", file=answers)
    for line in sys.stdin:
        kind, number, seed = json.loads(line)
        started = time.monotonic()
        bench, end = run_case(known[kind], kind, number, seed, stock, geoglnet.cli.main.main)
        killed = sum(run["code"] == -9 for run in bench.runs)
        told = {"end": end, "problems": bench.problems, "runs": bench.runs, "killed": killed, "folder": str(bench.folder)}
        print(json.dumps(told | {"seconds": time.monotonic() - started}), file=answers)


@dataclass
class Campaign:
    """What a campaign is, and what it has found.

    Args:
        seed: of all cases.
        failures: folder in which failed cases are kept.
    """

    seed: int
    failures: Path
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="geoglnet-campaign-")))
    ends: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    num_killed: int = 0
    _worker: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        (self.folder / "stock").mkdir()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was found until then is told
        self.library = build_library(self.folder)
        if self.library is None:
            print("no C compiler: only what Python itself writes can fail or be killed at")

    def case(self, kind: str, number: int) -> dict[str, Any]:
        """Run one case in the worker; a worker that dies was brought down by what the case had written."""
        worker = self._worker if self._worker and self._worker.poll() is None else self.start()
        assert worker.stdin is not None
        assert worker.stdout is not None
        print(json.dumps([kind, number, self.seed]), file=worker.stdin, flush=True)
        answer = worker.stdout.readline()
        died = {
            "end": "failed",
            "problems": ["crash: reading what the case had written"],
            "runs": [],
            "killed": 0,
            "seconds": 1.0,
        }
        told: dict[str, Any] = json.loads(answer) if answer else died
        self.ends.setdefault(kind, Counter())[told["end"]] += 1
        self.seconds[kind] += told["seconds"]
        self.num_killed += told["killed"]
        for problem in sorted(set(told["problems"])):
            self.found[f"{kind}: {problem}"] += 1
            if self.found[f"{kind}: {problem}"] <= KEPT:
                self._keep(kind, number, told)
                print(f"{kind} {number}: {problem}", flush=True)
        if told.get("folder"):
            shutil.rmtree(Path(told["folder"]).parent, ignore_errors=True)
        return told

    def close(self) -> None:
        """Stop the worker and remove what is not kept."""
        if self._worker and self._worker.stdin:
            self._worker.stdin.close()
            self._worker.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def table(self) -> str:
        """Cases by kind and by how they ended, then faults by how often they were met."""
        columns = ("done", "refused", "usage", "stopped", "unmade", "failed")
        lines = ["".join(["kind".ljust(16), "cases".rjust(8), *(name.rjust(9) for name in columns), "seconds".rjust(9)])]
        for kind, ends in self.ends.items():
            counts = [ends.total(), *(ends[name] for name in columns)]
            lines.append(f"{kind:<16}{counts[0]:>8}" + "".join(f"{n:>9}" for n in counts[1:]) + f"{self.seconds[kind]:>9.0f}")
        lines += ["", *(f"{count:>5} × {problem}" for problem, count in self.found.most_common())]
        total = sum(ends.total() for ends in self.ends.values())
        lines.append(
            f"{total} cases, {len(self.found)} faults, {self.num_killed} kills, {cpu_minutes():.1f} minutes of processor time"
        )
        return "\n".join(lines)

    def start(self) -> subprocess.Popen[str]:
        """Start the worker and wait until it has made the stock, half a minute the first time."""
        paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        if self.library:
            environment["LD_PRELOAD"] = str(self.library)
        code = "import sys, pathlib; from tests.campaign.loop import serve; serve(pathlib.Path(sys.argv[1]))"
        command = [sys.executable, "-c", code, str(self.folder / "stock")]
        self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._worker.stdout is not None
        if self._worker.stdout.readline() != "ready\n":
            raise SystemExit("the good inputs cannot be made; see above")
        return self._worker

    def _keep(self, kind: str, number: int, told: dict[str, Any]) -> None:
        """A failed case as a small folder: what was found, the commands, and the files that are not large."""
        kept = self.failures / f"{kind}-{self.seed}-{number}"
        if kept.exists():
            return
        kept.mkdir(parents=True)
        case = {"kind": kind, "number": number, "seed": self.seed, "replay": f"scripts/fuzz --replay {kept}"}
        (kept / "case.json").write_text(json.dumps(case | {"problems": told["problems"], "runs": told["runs"]}, indent=1))
        folder = Path(told.get("folder", ""))
        for path in folder.rglob("*") if told.get("folder") else ():
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= OTHER_FILES:
                (kept / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, kept / path.relative_to(folder))


def cpu_minutes() -> float:
    """Processor time of this process and of all that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) / 60


def fuzz() -> int:
    """``scripts/fuzz``."""
    parser = argparse.ArgumentParser(description="Feed geoglnet hostile input and bad luck; exit 1 when something was found.")
    parser.add_argument("minutes", type=float, nargs="?", default=1.0, help="how long, once the good inputs are made")
    parser.add_argument("--seed", type=int, default=None, help="of all cases; a new one each time when left out")
    parser.add_argument("--kinds", default=",".join(FUZZ), help=f"some of {','.join(FUZZ + KILLS)}")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder for failed cases")
    parser.add_argument("--replay", type=Path, help="folder of a failed case, to run that one again")
    parser.add_argument("--case", metavar="KIND:NUMBER", help="one case of the seed")
    given = parser.parse_args()
    seed = int(time.time()) if given.seed is None else given.seed
    if given.replay:
        case = json.loads((given.replay / "case.json").read_text())
        seed, given.case = case["seed"], f"{case['kind']}:{case['number']}"
    campaign = Campaign(seed, given.failures)
    try:
        if given.case:
            kind, _, number = given.case.partition(":")
            print(json.dumps(campaign.case(kind, int(number)), indent=1))
        else:
            print(f"seed {seed}", flush=True)
            _spend(campaign, given.kinds.split(","), given.minutes)
    except KeyboardInterrupt:
        print("stopped")
    finally:
        campaign.close()
    if not given.case:
        print(campaign.table())
    return int(bool(campaign.found))


def _spend(campaign: Campaign, kinds: list[str], minutes: float) -> None:
    """Cases in turn, so that every kind gets its share of the time."""
    numbers: Counter[str] = Counter()
    campaign.start()
    end, spent = time.monotonic() + 60 * minutes, dict.fromkeys(kinds, 0.0)
    while time.monotonic() < end:
        kind = min(kinds, key=lambda kind: spent[kind])
        spent[kind] += campaign.case(kind, numbers[kind])["seconds"] / _WEIGHTS.get(kind, 1.0) + 1e-3
        numbers[kind] += 1


def kill() -> int:
    """``scripts/kill``."""
    parser = argparse.ArgumentParser(
        description="Kill predict, vectorize and train at random moments and go on: the same bytes?"
    )
    parser.add_argument("count", type=int, nargs="?", default=20, help="how many kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder for failed cases")
    given = parser.parse_args()
    campaign, number = Campaign(given.seed, given.failures), 0
    try:
        while campaign.num_killed < given.count:
            campaign.case(KILLS[number % len(KILLS)], number // len(KILLS))
            number += 1
    except KeyboardInterrupt:
        print("stopped")
    finally:
        campaign.close()
    print(campaign.table())
    return int(bool(campaign.found))
