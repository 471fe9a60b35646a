"""What ``--effort`` saves and costs: IoU against patches on labeled scenes, beside as many patches chosen by lot.

    python benchmarks/effort.py buildings --config examples/configs/buildings.toml --data DATA [--region 1224 224 100]
        [--picture curve.png]

DATA is the folder that CONFIG's scenes lie in; those of its validation are scored. Patches by lot are averaged over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from coarse_to_fine import resized
from torch import Tensor

from geoglnet.datasets.reader import PairReader
from geoglnet.metrics import ConfusionMatrix
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.shipped import model_path
from geoglnet.prediction.effort import Selection, choose_selection
from geoglnet.prediction.plan import PlannedPatch, PlannedRegion
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.progress import SilentProgress
from geoglnet.training.train_config import read_config

EFFORTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SEEDS = (0, 1, 2)


@dataclass
class Counted:
    """A selection that counts what it chose, and of how many."""

    inner: Selection
    chosen: int = 0
    offered: int = 0
    is_trivial: bool = False

    def __call__(
        self, planned: PlannedRegion, patches: Sequence[PlannedPatch], probabilities: Tensor
    ) -> Sequence[PlannedPatch]:
        found = self.inner(planned, patches, probabilities)
        self.chosen, self.offered = self.chosen + len(found), self.offered + len(patches)
        return found


@dataclass
class ByLot:
    """A share of the patches, whatever the global branch says."""

    share: float
    seed: int
    is_trivial: bool = False
    _dice: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._dice = np.random.default_rng(self.seed)

    def __call__(
        self, planned: PlannedRegion, patches: Sequence[PlannedPatch], probabilities: Tensor
    ) -> Sequence[PlannedPatch]:
        order = self._dice.permutation(len(patches))[: round(self.share * len(patches))]
        return [patch for index, patch in enumerate(patches) if index in order]


class Scenes:
    """The labeled scenes of a configuration, scored with a model."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        network, manifest = load_checkpoint(model_path(arguments.model))
        self.manifest = replace(manifest, region=resized(manifest.region, arguments.region))
        self.config = PredictConfig(device="cpu")
        self.predictor = Predictor(network, self.manifest, self.config)
        self._reader = PairReader(arguments.data, self.manifest.legend, self.manifest.resolution_m, SilentProgress())
        self._sources = read_config(arguments.config).validation

    def score(self, select: Selection) -> tuple[float, float]:
        """IoU (of the foreground, or the mean), and the share of the patches that ran."""
        counted = Counted(select)
        self.predictor.segmenter = RegionSegmenter(self.predictor.segmenter.network, self.manifest, self.config, counted)
        matrix = ConfusionMatrix(self.manifest.legend)
        for source in self._sources:
            for pair in self._reader.iter_pairs(source):
                with pair.file.open(SilentProgress()) as scene:
                    for pending in self.predictor.iter_blocks(scene):
                        block = pending.resolve()
                        matrix.update(pair.truth.read_labels(block.window), block.labels)
        return float(np.nanmean(matrix.iou()[list(self.manifest.legend.polygon_values)])), counted.chosen / counted.offered


def draw(rows: Sequence[tuple[float, float, float, float]], title: str, path: Path) -> None:
    from matplotlib import pyplot as plt

    efforts, shares, found, by_lot = (list(column) for column in zip(*rows, strict=True))
    figure, axis = plt.subplots(figsize=(5.5, 3.6))
    axis.plot(np.multiply(shares, 100), found, "o-", color="tab:blue", label="where the global branch is unsure")
    axis.plot(np.multiply(shares, 100), by_lot, "x--", color="tab:gray", label="by lot")
    for effort, share, iou in zip(efforts, shares, found, strict=True):
        axis.annotate(f"{effort:g}", (100 * share, iou), textcoords="offset points", xytext=(3, 5), fontsize=7)
    axis.set(title=title, xlabel="patches run, %  (numbers: --effort)", ylabel="IoU")
    axis.legend(loc="lower right")
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--region", type=int, nargs=3, metavar=("REGION", "PATCH", "MARGIN"), help="instead of the model's")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    scenes = Scenes(arguments)
    rows = []
    print("| effort | patches run | IoU | IoU of as many by lot |\n|---|---|---|---|", flush=True)
    for effort in EFFORTS:
        iou, share = scenes.score(choose_selection(effort, scenes.manifest.legend.background))
        lots = [iou] if share in (0, 1) else [scenes.score(ByLot(share, seed))[0] for seed in SEEDS]
        rows.append((effort, share, iou, float(np.mean(lots))))
        print(f"| {effort:g} | {share:.0%} | {iou:.3f} | {np.mean(lots):.3f} |", flush=True)
    if arguments.picture:
        sizes = scenes.manifest.region
        draw(rows, f"{arguments.model}, patches of {sizes.patch_size} px", arguments.picture)


if __name__ == "__main__":
    main()
