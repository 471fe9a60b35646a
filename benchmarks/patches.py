"""CPU time of one patch and one overview in the network, and of whole runs of ``predict``, beside another checkout.

    python benchmarks/patches.py --against ../geoglnet-before [--systems buildings one_way both_ways] [--rounds 5]
    python benchmarks/patches.py --against ../geoglnet-before --scene SCENE.tif [--threads 1]

Both checkouts run in processes that take turns, so that both feel the machine's other load; figures are medians of the rounds,
and of a round the least of several repetitions. ``one_way`` and ``both_ways`` are the paper's ResNet-50 with 7 classes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

SYSTEMS = ("buildings", "one_way", "both_ways")
HERE = Path(__file__).parent.parent


def timed(work: Any, repetitions: int) -> float:
    """Least CPU milliseconds of some repetitions."""
    seconds = []
    for _ in range(repetitions):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return 1000 * min(seconds)


def one(system: str, precision: str) -> dict[str, float]:
    """Time the network of the checkout that this process imports; a checkout without :meth:`prepare` autocasts."""
    import contextlib

    import torch

    import geoglnet
    from geoglnet.config import ModelConfig, RegionConfig, Sharing
    from geoglnet.models.checkpoint import load_checkpoint
    from geoglnet.models.glnet import GLNet

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if system == "buildings":
        network, manifest = load_checkpoint(Path(geoglnet.__file__).parent / "weights" / "buildings.safetensors")
        sizes = manifest.region
    else:
        sharing = Sharing.GLOBAL_TO_LOCAL if system == "one_way" else Sharing.BIDIRECTIONAL
        network, sizes = GLNet(ModelConfig(7, "resnet50", sharing=sharing)).eval(), RegionConfig()
    dtype = getattr(torch, precision)
    network = network.fold().to(memory_format=torch.channels_last).eval()
    is_native = getattr(network, "prepare", lambda dtype: False)(dtype)
    autocast = torch.autocast("cpu", dtype=dtype) if not is_native and precision != "float32" else contextlib.nullcontext()
    overview, patch = (
        torch.randn(1, 3, side, side).contiguous(memory_format=torch.channels_last)
        for side in (sizes.overview_size, sizes.patch_size)
    )
    share = sizes.patch_size / sizes.region_size
    place = torch.tensor([[0.3, 0.3, 0.3 + share, 0.3 + share]])
    with torch.inference_mode(), autocast:
        maps = network.see(overview)
        look = network.look if system == "both_ways" else network.segment
        repetitions = 12 if system == "buildings" else 4
        return {
            "overview": timed(lambda: network.see(overview), repetitions),
            "patch": timed(lambda: look(patch, place, maps), repetitions),
        }


def predicted(tree: Path, scene: Path, precision: str, threads: int) -> dict[str, float]:
    """Run ``predict`` of a checkout: CPU seconds, wall seconds and peak MiB of the process."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        command = [sys.executable, "-m", "geoglnet", "predict", str(scene), "-o", f"{folder}/labels.tif", "--device", "cpu"]
        child = subprocess.Popen(
            [*command, "--confidence", f"{folder}/confidence.tif", "--precision", precision],
            env=environment(tree, threads),
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = status
        if status:
            raise SystemExit(f"predict of {tree} failed")
        return {
            "cpu": used.ru_utime + used.ru_stime,
            "wall": time.monotonic() - started,
            "peak": used.ru_maxrss / 1024,
        }


def environment(tree: Path, threads: int) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)}


def measured(tree: Path, system: str, precision: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", system, precision]
    ended = subprocess.run(command, env=environment(tree, 1), cwd=tree, capture_output=True, text=True, check=True)
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(row[name] for row in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--systems", nargs="*", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(*arguments.one)))
        return
    trees = {"before": arguments.against.resolve(), "now": HERE}
    systems = ["predict"] if arguments.scene else arguments.systems
    print("| system | precision | figure | before | now | ratio |\n|---|---|---|---|---|---|", flush=True)
    for system in systems:
        rows: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(arguments.rounds):
            for precision in ("float32", "bfloat16"):
                for name, tree in trees.items():
                    found = (
                        predicted(tree, arguments.scene.resolve(), precision, arguments.threads)
                        if arguments.scene
                        else measured(tree, system, precision)
                    )
                    rows.setdefault((precision, name), []).append(found)
        for precision in ("float32", "bfloat16"):
            before, now = (medians(rows[precision, name]) for name in trees)
            reference = medians(rows["float32", "before"])
            for figure in before:
                print(
                    f"| {system} | {precision} | {figure} | {before[figure]:.4g} | {now[figure]:.4g} | "
                    f"{now[figure] / before[figure]:.2f} (of float32 before: {now[figure] / reference[figure]:.2f}) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
