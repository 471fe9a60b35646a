"""Training through TorchGeo's datasets, samplers and Lightning's Trainer, beside that of `geoglnet train`: CPU and memory.

    python benchmarks/torchgeo_training.py [--rounds 5] [--steps 8] [--batch-size 4]

Both take the same rasters and labels, sizes, network and stage, in turns, and each is measured in CPU seconds of this process:
loading of samples alone, and whole steps of training. Memory is by how much the process grows in each path's work of a round.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
import torch
from affine import Affine
from lightning import Trainer
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset

from geoglnet.config import ModelConfig, RegionConfig, Stage
from geoglnet.datasets.loading import RegionLoader
from geoglnet.datasets.reader import PairReader, open_dataset
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.datasets.sources import RastersSource
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.legend import Legend
from geoglnet.models.network import build_network
from geoglnet.progress import SilentProgress
from geoglnet.torchgeo import BalancedRegionSampler, GLNetTask, GlobalLocalDataset, collate
from geoglnet.training.devices import quiet_lightning
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import OptimConfig

LEGEND = Legend(("ground", "building"), ((0, 0, 0), (230, 75, 50)), background=0)
REGION = RegionConfig(region_size=448, overview_size=128, patch_size=128, patch_overlap=16, margin=64)
SAMPLE = SampleConfig(region_size=448, patch_size=128, patches_per_region=4)
AUGMENT = AugmentConfig(scale_min=1, scale_max=1)  # a query has one scale
OPTIM = OptimConfig(backbone_weights="")
MODEL = ModelConfig(2, backbone="mobilenet_v3_small", pyramid_channels=64, smooth_channels=32)
TILE, TILES = 1024, 4


class Labels(RasterDataset):
    filename_glob = "truth_*.tif"
    is_image = False


def write_tiles(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(TILES):
        labels = np.kron(rng.integers(0, 2, (TILE // 32, TILE // 32)), np.ones((32, 32), int)).astype(np.uint8)
        image = (60 + 90 * labels + rng.integers(0, 60, (3, TILE, TILE))).astype(np.uint8)
        profile = {
            "driver": "GTiff",
            "width": TILE,
            "height": TILE,
            "dtype": "uint8",
            "crs": "EPSG:32736",
            "compress": "deflate",
        }
        profile["transform"] = Affine(1, 0, 500_000 + number * TILE, 0, -1, 9_000_000)
        for name, array in (("scene", image), ("truth", labels[None])):
            with rasterio.open(folder / f"{name}_{number}.tif", "w", count=len(array), tiled=True, **profile) as dst:
                dst.write(array)


def trainer(steps: int) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(max_steps=steps, accelerator="cpu", enable_model_summary=False, use_distributed_sampler=False, **quiet)


class Ours:
    """The path of `geoglnet train`."""

    def __init__(self, folder: Path, batch_size: int, steps: int) -> None:
        reader = PairReader(folder, LEGEND, 1.0, SilentProgress())
        source = RastersSource(images="scene_*.tif", labels="truth_*.tif")
        self.dataset = open_dataset([source], reader, REGION, SAMPLE, AUGMENT)
        self.dataset.length, self.batch_size, self.steps = batch_size * steps, batch_size, steps
        network = build_network(MODEL).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.task = StageTask(network, Stage.JOINT, OPTIM, steps)

    def loader(self) -> RegionLoader:
        self.dataset.first += self.dataset.length
        return RegionLoader(self.dataset, self.batch_size, 0, self.dataset.bands)

    def load(self) -> None:
        for _ in self.loader():
            pass

    def train(self) -> None:
        trainer(self.steps).fit(self.task.train(), self.loader())


class TorchGeos:
    """Through TorchGeo."""

    def __init__(self, folder: Path, batch_size: int, steps: int) -> None:
        images = RasterDataset([str(path) for path in sorted(folder.glob("scene_*.tif"))])
        dataset = GlobalLocalDataset(images & Labels(str(folder)), LEGEND, region=REGION, sample=SAMPLE, augment=AUGMENT)
        sampler = BalancedRegionSampler(dataset, SAMPLE.region_size, length=batch_size * steps, generator=0)
        self.loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler, collate_fn=collate)
        settings = {"pyramid_channels": MODEL.pyramid_channels, "smooth_channels": MODEL.smooth_channels}
        self.task = GLNetTask(2, backbone=MODEL.backbone, model=settings, stage="joint", optim={"backbone_weights": ""})
        self.steps = steps

    def load(self) -> None:
        for _ in self.loader:
            pass

    def train(self) -> None:
        trainer(self.steps).fit(self.task, self.loader)


def held_mb() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss / 2**20)


def cpu(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    args = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name, quiet_lightning():
        write_tiles(Path(name))
        paths = [kind(Path(name), args.batch_size, args.steps) for kind in (Ours, TorchGeos)]
        for path in paths:  # opens and decodes files, and what torch makes at first
            path.load()
            path.train()
        grown: list[list[float]] = [[], []]
        used: dict[str, list[list[float]]] = {"load": [[], []], "train": [[], []]}
        for _ in range(args.rounds):
            for number, path in enumerate(paths):
                before = held_mb()
                for what, both in used.items():
                    both[number].append(cpu(getattr(path, what)))
                grown[number].append(held_mb() - before)
        held = held_mb()
    regions = args.batch_size * args.steps
    print(f"{args.rounds} rounds of {regions} regions of {SAMPLE.region_size} px; CPU s per region")
    print(f"{'':<8}{'geoglnet train':>16}{'through TorchGeo':>18}{'speed':>8}")
    for what, both in used.items():
        ours, theirs = (statistics.median(seconds) / regions for seconds in both)
        print(f"{what:<8}{ours:>16.4f}{theirs:>18.4f}{ours / theirs:>8.2f}")
    print(f"MB held at the end: {held:.0f}; grown in each round:")
    for name, growth in zip(("geoglnet train", "through TorchGeo"), grown, strict=True):
        print(f"  {name:<18}", *(f"{mb:+.0f}" for mb in growth))


if __name__ == "__main__":
    main()
