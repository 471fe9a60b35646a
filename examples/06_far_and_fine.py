"""Why two branches: scenes whose classes need what is far away and what is fine (paper §3.1), and who can tell them apart.

    python examples/06_far_and_fine.py far_and_fine [picture.png]

Draws 80 valleys to train on and 12 to score on, then compares the local branch alone, the global branch alone and GLNet by the
command line, each trained for 60 steps a stage: about a minute on one CPU thread. Needs the extra `train`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from geoglnet.synthetic.far_and_fine import write_far_and_fine

CONFIG = Path(__file__).parent / "configs/far_and_fine.toml"


def main(folder: Path, picture_path: Path | None) -> None:
    write_far_and_fine(folder / "train", range(80))
    write_far_and_fine(folder / "validation", range(1002, 1014))
    benchmark(folder, "table2", "local,global,one-way")
    benchmark(folder, "figure7", "global,local,one-way")
    if picture_path is not None:
        shutil.copy(folder / "comparison/figure7.png", picture_path)


def benchmark(folder: Path, target: str, systems: str) -> None:
    command = [sys.executable, "-m", "geoglnet", "benchmark", target, str(CONFIG), "--data", str(folder), "--own-data"]
    chosen = ["-o", str(folder / "comparison"), "--systems", systems, "--no-memory", "--device", "cpu"]
    subprocess.run([*command, *chosen], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
