"""Speed of ``predict`` on a CPU, end to end on one real scene, beside a U-Net slid over it as other toolkits do.

    python benchmarks/speed.py SCENE.tif [--size 2048] [--systems one_way one_way_unfolded …]

Every row is a process of its own with one thread of computation (``OMP_NUM_THREADS=1``), from opening the scene to the finished
label raster; starting Python and building the network are left out. Random weights, ResNet-50, 7 classes, float32: the cost
does not depend on the weights. ``buildings`` is the shipped model. The network's share is the CPU time of the thread that runs
the network, inside the network, of the CPU time of all threads.

The U-Net is that of segmentation-models-pytorch with the same backbone, slid as geoai does: windows of 512 px, softmax weighted
by the distance to the window's edge, an array of all classes for the whole scene. Its stride is 256 px there; 448 px beside it
is about the overlap that GLNet's patches have.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

import geoglnet
from geoglnet.config import ModelConfig, RegionConfig, Sharing
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.folding import FoldedGLNet
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from geoglnet.models.merging import Merge
from geoglnet.models.network import Network
from geoglnet.models.shipped import model_path
from geoglnet.prediction import run as run_module
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor

CLASSES = 7
SYSTEMS = ("one_way", "one_way_unfolded", "both_ways", "both_ways_unfolded", "buildings", "unet_448", "unet_256")
NAMES = {
    "one_way": "GLNet 𝒢 → ℒ, folded",
    "one_way_unfolded": "GLNet 𝒢 → ℒ, unfolded",
    "both_ways": "GLNet 𝒢 ⇌ ℒ, folded",
    "both_ways_unfolded": "GLNet 𝒢 ⇌ ℒ, unfolded",
    "buildings": "shipped `buildings`",
    "unet_448": "U-Net, stride 448",
    "unet_256": "U-Net, stride 256",
}


@dataclass
class Clock:
    """CPU seconds of one thread inside a network's methods; calls inside of calls count once."""

    seconds: float = 0.0
    _inside: threading.local = field(default_factory=threading.local)

    def timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            if getattr(self._inside, "yes", False):
                return method(*given, **options)
            self._inside.yes, started = True, time.thread_time()
            try:
                return method(*given, **options)
            finally:
                self._inside.yes = False
                self.seconds += time.thread_time() - started

        return call


class TimedMerge:
    """What a network merges maps in, its methods timed."""

    def __init__(self, merge: Merge, clock: Clock) -> None:
        self.add, self.maps = clock.timed(merge.add), clock.timed(merge.maps)


def watch(network: Network, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Wrap what a network is asked while regions are segmented; not its generators, which cut out patches between."""
    for name in ("see", "segment", "look", "merge", "refine", "aggregate"):
        if hasattr(network, name):
            setattr(network, name, wrap(getattr(network, name)))


def time_methods(network: Network, clock: Clock) -> None:
    """Time what a network is asked, and the merging of its maps."""
    watch(network, clock.timed)
    if isinstance(network, (GLNet, FoldedGLNet)):
        merge = network.merge
        network.merge = lambda maps: TimedMerge(merge(maps), clock)  # type: ignore[method-assign,assign,return-value]


def paper_model(sharing: Sharing, resolution_m: float) -> tuple[GLNet, Manifest]:
    """The paper's network with random weights, and its sizes."""
    torch.manual_seed(0)
    model = ModelConfig(CLASSES, "resnet50", sharing=sharing)
    legend = Legend(tuple(f"class {i}" for i in range(CLASSES)), tuple((30 * i, 99, 255 - 30 * i) for i in range(CLASSES)))
    manifest = Manifest(
        f"random {sharing.value}", model, RegionConfig(), legend, resolution_m, (0.01, 100.0), resolution_m, version="benchmark"
    )
    return GLNet(model).eval(), manifest


@contextmanager
def timed_network(*, is_folded: bool) -> Iterator[Clock]:
    """Have the tool time the network that it loads."""
    clock, for_inference = Clock(), GLNet.for_inference

    class TimedPredictor(Predictor):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            time_methods(self.segmenter.network, clock)

    run_module.Predictor = TimedPredictor  # type: ignore[attr-defined]
    if not is_folded:
        GLNet.for_inference = lambda network: network  # type: ignore[method-assign]
    try:
        yield clock
    finally:
        run_module.Predictor, GLNet.for_inference = Predictor, for_inference  # type: ignore[attr-defined,method-assign]


def predict_once(system: str, scene_path: Path, folder: Path, config: PredictConfig) -> tuple[float, float]:
    """CPU seconds inside the network and of the whole process, for one scene; loading the model is left out of both."""
    if system == "buildings":
        path = model_path("buildings")
    else:
        with rasterio.open(scene_path) as src:
            resolution_m = abs(src.transform.a)
        path = folder / "random.safetensors"
        sharing = Sharing.GLOBAL_TO_LOCAL if system.startswith("one_way") else Sharing.BIDIRECTIONAL
        save_checkpoint(path, *paper_model(sharing, resolution_m))
    loading = time.process_time()
    load_checkpoint(path)
    loading = time.process_time() - loading
    with timed_network(is_folded="unfolded" not in system) as clock:
        started = time.process_time()
        geoglnet.predict(scene_path, folder / "labels.tif", model=str(path), config=config)
        return clock.seconds, time.process_time() - started - loading


def slide_unet(scene_path: Path, labels_path: Path, stride: int, size: int = 512) -> tuple[float, float]:
    """CPU seconds inside the U-Net and of the whole, with arrays of the whole scene."""
    import segmentation_models_pytorch as smp

    network, clock = smp.Unet("resnet50", encoder_weights=None, classes=CLASSES).eval(), Clock()
    network = network.to(memory_format=torch.channels_last)
    forward = clock.timed(network.forward)
    ramp = np.minimum(1.0, np.minimum(np.arange(size) + 1, size - np.arange(size)) / (size - stride)).clip(0.1)
    weights = np.minimum.outer(ramp, ramp).astype(np.float32)
    started = time.process_time()
    with rasterio.open(scene_path) as src, torch.inference_mode():
        total = np.zeros((CLASSES, src.height, src.width), np.float32)
        count = np.zeros((src.height, src.width), np.float32)
        tops, lefts = ([*range(0, side - size, stride), side - size] for side in (src.height, src.width))
        for top in tops:
            for left in lefts:
                image = torch.from_numpy(src.read([1, 2, 3], window=Window(left, top, size, size))).float().div_(255)[None]
                scores = forward(image.contiguous(memory_format=torch.channels_last)).softmax(1)[0].numpy()
                total[:, top : top + size, left : left + size] += scores * weights
                count[top : top + size, left : left + size] += weights
        labels = (total / count).argmax(0).astype(np.uint8)
        with rasterio.open(labels_path, "w", **(src.profile | {"count": 1, "photometric": None, "compress": "LZW"})) as dst:
            dst.write(labels, 1)
    return clock.seconds, time.process_time() - started


def crop(scene_path: Path, size: int, path: Path) -> None:
    """The upper left of a scene, as the JPEG that it is."""
    with rasterio.open(scene_path) as src:
        image = src.read([1, 2, 3], window=Window(0, 0, size, size))
        profile = src.profile | {"height": size, "width": size, "count": 3, "photometric": "YCBCR", "compress": "JPEG"}
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(image)


def row(system: str, scene_path: Path) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder, wall = Path(name), time.monotonic()
        if system.startswith("unet"):
            inside, cpu = slide_unet(scene_path, folder / "labels.tif", int(system.removeprefix("unet_")))
        else:
            inside, cpu = predict_once(system, scene_path, folder, PredictConfig(device="cpu"))
        wall = time.monotonic() - wall
    with rasterio.open(scene_path) as src:
        megapixels = src.width * src.height / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return (
        f"| {NAMES[system]} | {cpu:.0f} | {cpu / megapixels:.2f} | {megapixels / cpu:.3f} | {inside / cpu:.1%} | {peak:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--systems", nargs="*", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(row(arguments.systems[0], arguments.scene))
        return
    print(
        "| system | CPU s | CPU s per Mpx | Mpx per CPU s | inside the network | peak MB |\n|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        crop(arguments.scene, arguments.size, scene)
        for system in arguments.systems:
            command = [sys.executable, __file__, str(scene), "--one", "--systems", system]
            ended = subprocess.run(
                command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
            )
            print(ended.stdout.strip() or f"| {NAMES[system]} | failed: {ended.stderr.strip()[-200:]} |", flush=True)


if __name__ == "__main__":
    main()
