"""Targets of bad luck: a disk that fails while something is written, and a process that is killed.

However often it happens: what stands under a final name is whole, and going on afterwards gives the outputs of an
undisturbed run, byte by byte (GeoPackages, which carry the time they were written, row by row).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.campaign.faults import ERRORS, KINDS, Fault
from tests.campaign.harness import Bench, Ended
from tests.campaign.mutations import chance, pick
from tests.campaign.outputs import differences
from tests.campaign.stock import INPUTS

Rng = np.random.Generator
SECONDS = {"predict": 1.5, "vectorize": 0.7, "train": 4.0}  # about as long as a run takes
MOST_KILLS = 4  # of one output


def faults(rng: Rng, bench: Bench, is_good: bool) -> None:
    """The Nth write, fsync, rename, truncation or opening fails, then the disk is well again."""
    verb = "predict" if is_good else pick(rng, ("predict", "predict", "vectorize", "vectorize", "train"))
    words, inputs, outputs = INPUTS[verb]
    bench.take(*inputs)
    kind = pick(rng, [kind for kind in KINDS if _calls(bench, verb, kind)])
    nth = 2**30 if is_good else int(rng.integers(1, _calls(bench, verb, kind) + 1))
    error = ERRORS[pick(rng, [name for name in ERRORS if name != "kill"])]
    ended = bench.run(words, outputs, fault=Fault(kind, nth, error, chance(rng, 0.5)))
    if ended.code == 0:
        _compare(bench, verb)
    else:
        _finish(bench, verb)


def kills(verb: str) -> Callable[[Rng, Bench, bool], None]:
    """A target that kills runs of a verb, at a random time or at the Nth call that changes a file."""

    def target(rng: Rng, bench: Bench, is_good: bool) -> None:
        _, inputs, outputs = INPUTS[verb]
        bench.take(*inputs)
        for _ in range(0 if is_good else int(rng.integers(1, MOST_KILLS + 1))):
            if chance(rng, 0.5):
                ended = bench.run(_next(bench, verb), outputs, kill_after_s=float(rng.uniform(0.05, SECONDS[verb])))
            else:
                kind = pick(rng, [kind for kind in KINDS if _calls(bench, verb, kind)])
                most = _calls(bench, verb, kind)
                nth = int(rng.integers(1, most + 1)) if chance(rng, 0.5) else max(1, most - int(rng.integers(0, 12)))
                ended = bench.run(_next(bench, verb), outputs, fault=Fault(kind, nth))
            if ended.code == 0:
                break
        _finish(bench, verb)

    target.__doc__ = f"Runs of {verb} that are killed up to {MOST_KILLS} times."
    return target


def _calls(bench: Bench, verb: str, kind: str) -> int:
    return int(json.loads((bench.stock / f"{verb}.calls").read_text())[kind])


def _next(bench: Bench, verb: str) -> list[str]:
    """What a person would type after whatever happened."""
    words = list(INPUTS[verb][0])
    if verb == "vectorize":
        return [*words, "--overwrite"]
    if verb == "train" and not (bench.folder / "made.resume.pt").exists():
        return words
    return [*words, "--resume"]


def _finish(bench: Bench, verb: str) -> None:
    """Go on undisturbed, unless the run had come to its end."""
    outputs = INPUTS[verb][2]
    is_over = all((bench.folder / name).exists() for name in outputs) and not _rests(bench)
    if not is_over or verb == "vectorize":
        ended = bench.run(_next(bench, verb), outputs)
        if ended.code:
            bench.problem(f"cannot go on: {_reason(ended)}")
            return
    _compare(bench, verb)


def _compare(bench: Bench, verb: str) -> None:
    found = differences(bench.folder, bench.stock / f"{verb}.expected")
    for difference in found:
        bench.problem(f"not the outputs of an undisturbed run: {difference}")
    left = _rests(bench)
    if left:
        bench.problem(f"left behind at the end: {left[0]}")


def _rests(bench: Bench) -> list[str]:
    """Files of a run that is not over. The lock of a killed process lies there until the next run, and is none of them."""
    names = [path.name for path in bench.folder.iterdir() if not _is_lock(path)]
    return sorted(name for name in names if name.endswith((".unfinished", ".resume.pt", "-journal", "-wal")) or ".part" in name)


def _is_lock(path: Path) -> bool:
    return path.suffix == ".part" and path.is_dir() and [inner.name for inner in path.iterdir()] == ["geoglnet.lock"]


def _reason(ended: Ended) -> str:
    line = ended.err.strip().splitlines()[-1] if ended.err.strip() else ""
    return re.sub(r"/\S+/", "", line)[:150]
