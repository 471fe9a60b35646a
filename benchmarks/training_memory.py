"""Peak memory of a training step against the number of patches of its region, stage by stage.

    python benchmarks/training_memory.py [--backbone mobilenet_v2] [--patches 4 9 16 36 64] [--plot memory.png]

The region is 2448 px and its overview 500 px throughout; patches of 500 px lie ever more densely in it, so nothing changes but
their number. Each point is a process of its own: peak resident memory above that of the process with its batch, on the CPU; or
allocated memory on CUDA where there is one. The patches' own pixels (2 MB each in float32, with labels) are part of the batch.
Beside it, the same step with all patches at once, as a plain sum of losses would need it.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoglnet.config import ModelConfig, Sharing, Stage
from geoglnet.datasets.regions import RegionBatch
from geoglnet.models.glnet import GLNet
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import OptimConfig
from geoglnet.types import Shape
from geoglnet.windows import Window, footprints

REGION, PATCH, OVERVIEW = 2448, 500, 500
WIDTHS = {"mobilenet_v2": (64, 32)}
STAGES = (Stage.LOCAL, Stage.BIDIRECTIONAL, Stage.JOINT)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def batch_of(count: int) -> RegionBatch:
    """One region with patches on a square grid."""
    side = round(count**0.5)
    starts = np.linspace(0, REGION - PATCH, side).round().astype(int)
    windows = [Window(int(col), int(row), PATCH, PATCH) for row in starts for col in starts]
    labels = torch.randint(0, 7, (count, PATCH, PATCH))
    return RegionBatch(
        torch.rand(1, 3, OVERVIEW, OVERVIEW),
        torch.randint(0, 7, (1, OVERVIEW, OVERVIEW)),
        torch.rand(count, 3, PATCH, PATCH),
        labels,
        torch.from_numpy(footprints(windows, Shape(REGION, REGION))),
        torch.zeros(count, dtype=torch.long),
    )


def run_one(backbone: str, stage: Stage, count: int, at_once: int) -> float:
    torch.manual_seed(0)
    pyramid, smooth = WIDTHS.get(backbone, (256, 128))
    config = ModelConfig(7, backbone, pyramid_channels=pyramid, smooth_channels=smooth, sharing=Sharing.BIDIRECTIONAL)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = GLNet(config).to(device).to(memory_format=torch.channels_last)
    task = StageTask(network, stage, OptimConfig(patches_at_once=at_once), 1).to(device).train()
    batch = batch_of(count).to(device)
    before = torch.cuda.memory_allocated() / 2**20 if device.type == "cuda" else peak_mb()
    task.differentiate(batch)
    return (torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else peak_mb()) - before


def measure(backbone: str, stage: Stage, count: int, at_once: int) -> float:
    """MB of a step in a process of its own."""
    command = [sys.executable, __file__, "--one", stage.value, str(count), str(at_once), "--backbone", backbone]
    ended = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    return float(ended.stdout)


def plot(path: Path, counts: list[int], series: dict[str, list[float]], backbone: str) -> None:
    """Memory against the number of patches, one line per stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes: Any = figure.add_subplot()
    for name, values in series.items():
        axes.plot(counts[: len(values)], values, "--" if "at once" in name else "-", marker="o", markersize=4, label=name)
    axes.set(xlabel="500 px patches of one region", ylabel="MB above the batch", title=f"A training step's memory, {backbone}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--patches", type=int, nargs="*", default=[4, 9, 16, 36, 64])
    parser.add_argument("--at-once", type=int, default=2, help="patches that go through the network together")
    parser.add_argument("--most-at-once", type=int, default=16, help="how far the comparison with all at once goes")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        stage, count, at_once = arguments.one
        print(run_one(arguments.backbone, Stage(stage), int(count), int(at_once)))
        return
    counts, series = arguments.patches, {}
    print(f"| stage | {' | '.join(str(count) for count in counts)} |")
    print("|---" * (1 + len(counts)) + "|")
    rows = [(stage.value, stage, lambda _: arguments.at_once, counts) for stage in STAGES]
    rows.append(("local, all at once", Stage.LOCAL, lambda n: n, [n for n in counts if n <= arguments.most_at_once]))
    for name, stage, at_once, chosen in rows:
        series[name] = [measure(arguments.backbone, stage, count, at_once(count)) for count in chosen]
        print(f"| {name} | {' | '.join(f'{value:.0f}' for value in series[name])} |", flush=True)
    if arguments.plot:
        plot(arguments.plot, counts, series, arguments.backbone)


if __name__ == "__main__":
    main()
