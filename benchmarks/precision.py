"""Scores of models on their validation scenes in float32 and in bfloat16, and how many labels differ.

    python benchmarks/precision.py DATA [--models buildings landcover …] [--threads 1]

A precision is chosen by itself (``--precision auto``) for models whose file says that this was measured and cost no accuracy.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rasterio.windows import Window

from geoglnet.legend import NO_CLASS
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.shipped import model_path, shipped_models
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.training import scoring
from geoglnet.training.scoring import Evaluation, evaluate

CONFIGS = Path(__file__).parent.parent / "examples" / "configs"


def scored(model: str, data: Path, precision: str) -> tuple[Evaluation, list[np.ndarray], float]:
    """Scores, labels of all blocks in their order, and CPU seconds."""
    blocks: list[np.ndarray] = []
    write = scoring._Scorer.write_block

    def keep(self: scoring._Scorer, window: Window, block: np.ndarray) -> None:
        blocks.append(block.copy())
        write(self, window, block)

    scoring._Scorer.write_block = keep  # type: ignore[method-assign]
    try:
        started = time.process_time()
        config = PredictConfig(device="cpu", precision=precision)
        evaluation = evaluate(model, CONFIGS / f"{model}.toml", folder=data, config=config)
        return evaluation, blocks, time.process_time() - started
    finally:
        scoring._Scorer.write_block = write  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="*", default=shipped_models())
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| model | mean IoU float32 | bfloat16 | largest change of a class | labels that differ | CPU s |")
    print("|---|---|---|---|---|---|", flush=True)
    for model in arguments.models:
        legend = load_checkpoint(model_path(model))[1].legend
        (one, labels, before), (two, others, after) = (scored(model, arguments.data, p) for p in ("float32", "bfloat16"))
        totals = [evaluation.to_dict()["total"] for evaluation in (one, two)]
        change = max((abs(totals[0][name] - totals[1][name]), name) for name in legend.names if name in totals[0])
        known = sum(int((block != NO_CLASS).sum()) for block in labels)
        differing = sum(int((a != b).sum()) for a, b in zip(labels, others, strict=True))
        print(
            f"| {model} | {totals[0]['mean_iou']:.4f} | {totals[1]['mean_iou']:.4f} | {change[0]:.4f} ({change[1]}) | "
            f"{differing / known:.3%} | {before:.0f} / {after:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
