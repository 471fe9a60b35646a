"""Coarse-to-fine beside the whole network on labeled binary scenes: IoU, patches, and the balance of Fig. 8.

    python benchmarks/coarse_to_fine.py MODEL [MODEL ...] --config CONFIG.toml --data FOLDER [--picture ratios.png]

For every region that has foreground in its truth, the ratio of foreground to background pixels is taken in the region and in
the part that the global branch chooses (the paper's blue and red bars); nearer to 1 is more balanced.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from geoglnet.config import RegionConfig
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.truth import Truth
from geoglnet.metrics import ConfusionMatrix
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.coarse_to_fine import foreground_ratio
from geoglnet.models.manifest import Manifest
from geoglnet.models.shipped import model_path
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor
from geoglnet.prediction.region import Wanted
from geoglnet.prediction.segmenter import CoarseToFineSegmenter
from geoglnet.progress import SilentProgress
from geoglnet.raster.scene import Scene
from geoglnet.training.train_config import read_config


@dataclass
class Tally:
    """What a way of predicting gave and cost."""

    matrix: ConfusionMatrix
    patches: int = 0
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    missed: int = 0


def resized(region: RegionConfig, sizes: tuple[int, int, int] | None) -> RegionConfig:
    """Other sizes, decimated by the same factor."""
    if sizes is None:
        return region
    size, patch, margin = sizes
    overview = round(size * region.overview_size / region.region_size)
    return RegionConfig(size, overview, patch, region.patch_overlap, margin)


def counting(predictor: Predictor, tally: Tally) -> None:
    """Count the patches that reach the local branch."""

    def count(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _maps: Any) -> None:
        tally.patches += len(inputs[0])

    predictor.segmenter.network.backbone.register_forward_hook(count)


def run(predictor: Predictor, scene: Scene, truth: Truth, tally: Tally) -> None:
    for pending in predictor.iter_blocks(scene):
        block = pending.resolve()
        tally.matrix.update(truth.read_labels(block.window), block.labels)


def balance(predictor: Predictor, manifest: Manifest, scene: Scene, truth: Truth, tally: Tally) -> None:
    segmenter = predictor.segmenter
    if not isinstance(segmenter, CoarseToFineSegmenter):
        raise TypeError("coarse-to-fine was not asked for")
    for planned in Plan(scene.shape, manifest.region).iter_regions():
        roofs: npt.NDArray[np.bool_] = truth.read_labels(planned.window) == 1
        if not roofs.any():
            continue
        pixels = scene.read_window(planned.window)
        place = segmenter.foreground(Wanted(planned, planned.window, pixels, pixels.valid))
        tally.before.append(foreground_ratio(roofs))
        if place is not None:
            tally.after.append(foreground_ratio(roofs, place))
        tally.missed += int(roofs.sum()) - (0 if place is None else int(roofs[place].sum()))


def draw(rows: dict[str, Tally], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(rows), figsize=(4.5 * len(rows), 3), squeeze=False)
    bins = np.linspace(0, 2, 21)
    for axis, (name, tally) in zip(axes[0], rows.items(), strict=True):
        axis.hist(np.clip(tally.before, 0, 2), bins, color="tab:blue", alpha=0.6, label="whole regions")
        axis.hist(np.clip(tally.after, 0, 2), bins, color="tab:red", alpha=0.6, label="parts that are refined")
        axis.set(title=name, xlabel="foreground : background", ylabel="regions")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenes", choices=["validation", "train"], default="validation", help="which of CONFIG's scenes")
    parser.add_argument(
        "--region", type=int, nargs=3, metavar=("REGION", "PATCH", "MARGIN"), help="sizes instead of the model's"
    )
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    drawn: dict[str, Tally] = {}
    print("| model | coarse-to-fine | IoU | patches | median fg:bg of regions | of parts | foreground outside parts |")
    print("|---|---|---|---|---|---|---|")
    for model in arguments.models:
        for is_coarse in (False, True):
            network, manifest = load_checkpoint(model_path(model))
            manifest = replace(manifest, region=resized(manifest.region, arguments.region))
            tally = Tally(ConfusionMatrix(manifest.legend))
            predictor = Predictor(network, manifest, PredictConfig(coarse_to_fine=is_coarse))
            counting(predictor, tally)
            reader = PairReader(arguments.data, manifest.legend, manifest.resolution_m, SilentProgress())
            for source in getattr(read_config(arguments.config), arguments.scenes):
                for pair in reader.iter_pairs(source):
                    with pair.file.open(SilentProgress()) as scene:
                        run(predictor, scene, pair.truth, tally)
                        if is_coarse:
                            balance(predictor, manifest, scene, pair.truth, tally)
            line = f"| {Path(model).stem} | {'yes' if is_coarse else 'no'} | {tally.matrix.to_dict()['mean_iou']:.3f} "
            line += f"| {tally.patches} |"
            if is_coarse:
                drawn[Path(model).stem] = tally
                before, after = np.median(tally.before), np.median(tally.after)
                share = tally.missed / max(1, tally.matrix.counts[1].sum())
                line += f" {before:.2f} | {after:.2f} | {share:.1%} |"
            print(line, flush=True)
    if arguments.picture:
        draw(drawn, arguments.picture)


if __name__ == "__main__":
    main()
