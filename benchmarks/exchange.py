"""Exported models beside the predictor: labels, logits, sizes and CPU seconds a region, in one run.

python benchmarks/exchange.py FOLDER [MODEL ...]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from geoglnet.export.parity import drawn_images
from geoglnet.export.programs import ExportConfig, export_model
from geoglnet.export.region_graph import planned_region
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.shipped import model_path, shipped_models
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.raster.scene import Pixels

KINDS = (("onnx", "float32"), ("onnx", "float16"), ("pt2", "float32"))


def seconds(run: Callable[..., object], *arguments: object) -> float:
    """CPU seconds of the quicker of two calls."""
    spent = []
    for _ in range(2):
        started = time.process_time()
        run(*arguments)
        spent.append(time.process_time() - started)
    return min(spent)


def main() -> None:
    folder, *names = sys.argv[1:]
    torch.set_num_threads(1)
    print("| model | file | MB | equal labels | probabilities | logits | CPU s a region (predictor) |")
    print("|---|---|---|---|---|---|---|")
    for name in names or shipped_models():
        network, manifest = load_checkpoint(model_path(name))
        side = manifest.region.region_size
        image = drawn_images(1, len(manifest.bands), side)
        segmenter = RegionSegmenter(network.for_inference(), manifest, PredictConfig(device="cpu", precision="float32"))
        planned, valid = planned_region(manifest, side), np.ones((side, side), bool)
        pixels = Pixels(image[0] if manifest.bands.is_8bit else image[0].astype(np.float32), valid)
        eager = seconds(segmenter.probabilities, planned, pixels)
        for suffix, precision in KINDS:
            path = Path(folder, f"{name}-{precision}.{suffix}")
            done = export_model(name, path, ExportConfig(precision=precision), overwrite=True)
            values = image.astype(np.float32) / 255
            if suffix == "onnx":
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = 1
                session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                spent = seconds(session.run, None, {"image": values})
            else:
                module = torch.export.load(path).module()
                with torch.no_grad():
                    spent = seconds(module, torch.from_numpy(values))
            told = done.parity
            print(
                f"| {name} | {suffix}, {precision} | {path.stat().st_size / 1e6:.1f} | {told.equal_labels:.4%} | "
                f"{told.probability_error:.1e} | {told.logit_error:.1e} | {spent:.1f} ({eager:.1f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
