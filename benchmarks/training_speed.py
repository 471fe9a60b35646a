"""CPU seconds of a training step, of one checkout of geoglnet beside another.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py examples/configs/buildings.toml --data DATA --against OTHER_CHECKOUT

Both train the same steps of every stage of a configuration, each of its own copy of it, in turns and in processes of their
own. The CPU seconds are those of all processes, from one step to the next: the median over the steps of a stage, but for the
first ones, and then over the rounds. Without ``--against`` this checkout is measured alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parents[1]
WARM_UP = 3  # steps before the first that counts: the allocator and oneDNN's kernels are made ready
AHEAD = 2  # steps after the last that counts: workers still prepare samples then, as in the middle of a training


def cpu_seconds() -> float:
    """CPU seconds of this process and of all that it has started."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


class Marks:
    """A Progress that notes CPU seconds after every step, by stage."""

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = {}
        self.stage = ""

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        self.stage = stage

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.stages.setdefault(self.stage, []).append(cpu_seconds())

    def log(self, message: str) -> None:
        print(message, file=sys.stderr)

    def warn(self, message: str) -> None:
        print(message, file=sys.stderr)


def measure(config_path: Path, data: Path, steps: int, overrides: dict[str, object]) -> dict[str, float]:
    """Train here, and give the CPU seconds of the median step of each stage."""
    import geoglnet  # the checkout's whose turn it is

    all_steps = WARM_UP + steps + AHEAD
    counts = dict.fromkeys(("optim.global_steps", "optim.local_steps", "optim.bidirectional_steps"), all_steps)
    marks = Marks()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint_path = Path(folder) / "trained.safetensors"
        whole = counts | {"validation": []} | overrides  # nothing is scored
        geoglnet.train(config_path, checkpoint_path, folder=data, overrides=whole, progress=marks)
    return {
        stage: statistics.median(b - a for a, b in pairwise(taken[WARM_UP - 1 : WARM_UP + steps]))
        for stage, taken in marks.stages.items()
        if stage.endswith(" stage")
    }


def measured(checkout: Path, args: argparse.Namespace) -> dict[str, float]:
    """Measure a checkout in a process of its own."""
    words = [str(args.config), "--data", str(args.data.resolve()), "--steps", str(args.steps), "--here"]
    words += [word for text in args.set for word in ("--set", text)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    words = [sys.executable, str(Path(__file__).resolve()), *words]
    ended = subprocess.run(words, env=environment, cwd=checkout, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--against", type=Path)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        overrides = {key: int(value) if value.isdigit() else value for key, value in (t.split("=", 1) for t in args.set)}
        print(json.dumps(measure(args.config, args.data, args.steps, overrides)))
        return
    checkouts = {"this": HERE} | ({} if args.against is None else {"other": args.against.resolve()})
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for _ in range(args.rounds):
        for name, checkout in checkouts.items():
            rounds[name].append(measured(checkout, args))
            print(name, {stage: round(seconds, 3) for stage, seconds in rounds[name][-1].items()}, flush=True)
    for stage in rounds["this"][0]:
        medians = {name: statistics.median(one[stage] for one in found) for name, found in rounds.items()}
        times = f", {medians['other'] / medians['this']:.2f} times" if "other" in medians else ""
        print(f"{stage}: CPU s per step {', '.join(f'{name} {value:.3f}' for name, value in medians.items())}{times}")


if __name__ == "__main__":
    main()
