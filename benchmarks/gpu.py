"""Speed and memory of ``predict`` on a GPU, end to end from JPEG and DEFLATE COGs. One command, nothing to prepare:

    python benchmarks/gpu.py [--scenes SCENE.tif …] [--sizes 5000 20000] [--precisions float32 bfloat16]

Without ``--scenes`` a generated scene is tiled. Every row is a process of its own: the paper's network (ResNet-50, 7 classes,
random weights, folded), from opening the scene to the finished label raster, the model's loading included. Columns:

* Mpx/s: pixels of the scene per second of wall time, reading and writing included.
* GPU busy: share of that time in which the network had work queued, by events around it; the rest is waiting for the host.
* TFLOP/s, and as a share of what a large matrix product reaches on this device in this precision: the roofline at hand.
* memory: ``allocated`` and ``reserved`` are PyTorch's peaks; ``process`` is what the driver counts (NVML's or nvidia-smi's
  figure, sampled), context and libraries included; ``context`` is that of a process that did nothing but make one.

The paper's whole processes, for scenes of one region: 1395 MB one way, 1865 MB bidirectional, 2663 MB in training.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio.shutil
import torch
from peak_memory import write_mosaic
from speed import paper_model, watch
from torch.utils.flop_counter import FlopCounterMode

import geoglnet
from geoglnet.config import Sharing
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.prediction import run as run_module
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor
from geoglnet.raster.scene import open_scene
from geoglnet.synthetic import write_generated
from geoglnet.types import Shape

COMPRESSIONS = {"jpeg": {"COMPRESS": "JPEG"}, "deflate": {"COMPRESS": "DEFLATE", "PREDICTOR": "YES"}}
SHARINGS = {"one_way": Sharing.GLOBAL_TO_LOCAL, "both_ways": Sharing.BIDIRECTIONAL}
COLUMNS = (
    *("sharing", "precision", "scene", "Mpx/s", "GPU busy", "TFLOP/s", "of the roofline"),
    *("allocated MB", "reserved MB", "process MB", "context MB"),
)


class Busy:
    """Notes when calls of a network begin and end on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._spans = device, []

    def noted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        if self._device.type != "cuda":
            return method

        def call(*given: Any, **options: Any) -> Any:
            begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begun.record()
            try:
                return method(*given, **options)
            finally:
                ended.record()
                self._spans.append((begun, ended))

        return call

    def seconds(self) -> float:
        torch.cuda.synchronize(self._device)
        return sum(begun.elapsed_time(ended) for begun, ended in self._spans) / 1e3


@contextmanager
def sampled_process_mb() -> Iterator[list[float]]:
    """The driver's figure for this process, every fifth of a second; empty where nobody tells it."""
    found: list[float] = []
    is_over = threading.Event()

    def sample() -> None:
        while not is_over.wait(0.2):
            value = process_mb()
            if value is not None:
                found.append(value)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


def process_mb() -> float | None:
    """What the driver counts for this process: NVML, else nvidia-smi, else the device's memory in use by anybody."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return _process_mb_by_command()
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
    ours = [p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid == os.getpid()]
    return ours[0] / 2**20 if ours and ours[0] else _device_mb()


def _process_mb_by_command() -> float | None:
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return _device_mb()
    used = {pid: size for pid, _, size in (line.partition(", ") for line in lines)}
    size = used.get(str(os.getpid()), "")
    return float(size) if size.isdigit() else _device_mb()  # a container may hide its processes' numbers


def _device_mb() -> float | None:
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20


def scene_flops(network: Any, manifest: Any, shape: Shape, device: torch.device) -> float:
    """Operations of a scene: those of its regions' overviews, and of every patch; regions at the edges count as whole ones."""
    plan = Plan(shape, manifest.region)
    network = network.to(device)
    one, two = (_counted(network, manifest, plan, count, device) for count in (1, 2))
    return len(plan) * (2 * one - two) + plan.num_patches * (two - one)


def _counted(network: Any, manifest: Any, plan: Plan, num_patches: int, device: torch.device) -> float:
    planned = plan.region(0, 0)
    overview = torch.zeros(1, 3, *manifest.region.overview_shape(planned.shape), device=device)
    patches = torch.zeros(num_patches, 3, *planned.patch_shape, device=device)
    footprints = torch.tensor([[0.1, 0.1, 0.3, 0.3]], device=device).repeat(num_patches, 1)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        list(network.iter_logits(overview, network.see(overview), [(patches, footprints)]))
    return float(counter.get_total_flops())


def roofline(device: torch.device, precision: str) -> float:
    """FLOP/s of a large matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    first, second = (torch.randn(side, side, device=device, dtype=getattr(torch, precision)) for _ in range(2))
    for rounds in (3, 20):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        for _ in range(rounds):
            first @ second
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return 2.0 * side**3 * rounds / (time.perf_counter() - started)


def row(scene_path: Path, sharing_name: str, precision: str, device_name: str) -> str:
    sharing = SHARINGS[sharing_name]
    device = torch.device(device_name)
    context = None
    if device.type == "cuda":
        torch.zeros(1, device=device)
        context = process_mb()
    with open_scene(scene_path) as scene:
        resolution_m, shape = scene.pixel_size_m or 1.0, scene.shape
    wrapped: list[Busy] = []

    class Watched(Predictor):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            wrapped.append(Busy(device))
            watch(self.segmenter.network, wrapped[-1].noted)

    run_module.Predictor = Watched  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as name, sampled_process_mb() as sampled:
        checkpoint = Path(name) / "random.safetensors"
        save_checkpoint(checkpoint, *paper_model(sharing, resolution_m))
        config = PredictConfig(device=device_name, precision=precision)
        warm = Path(name) / "warm.tif"
        with rasterio.open(scene_path) as src:
            x, y = src.transform @ (0, 0)
            right, bottom = src.transform @ (600, 600)
        geoglnet.predict(  # kernels are chosen and libraries loaded
            scene_path,
            warm,
            model=str(checkpoint),
            config=PredictConfig(device=device_name, precision=precision, bounds=(x, bottom, right, y)),
        )
        wrapped.clear()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        done = geoglnet.predict(scene_path, Path(name) / "labels.tif", model=str(checkpoint), config=config)
        busy = wrapped[0].seconds() / done.seconds if device.type == "cuda" else float("nan")
        network, manifest = load_checkpoint(checkpoint)
    rate = scene_flops(network.eval().fold(), manifest, shape, device) / done.seconds
    memory = [float("nan")] * 2
    if device.type == "cuda":
        memory = [torch.cuda.max_memory_allocated(device) / 2**20, torch.cuda.max_memory_reserved(device) / 2**20]
    figures = (*memory, max(sampled, default=float("nan")), float("nan") if context is None else context)
    speed = shape.height * shape.width / 1e6 / done.seconds
    return (
        f"| {sharing_name} | {precision} | {scene_path.stem} | {speed:.2f} | {busy:.0%} | {rate / 1e12:.3f} "
        f"| {rate / roofline(device, precision):.0%} | {' | '.join(f'{figure:.0f}' for figure in figures)} |"
    )


def write_scenes(scene_paths: Sequence[Path], sizes: Sequence[int], folder: Path) -> list[Path]:
    """COGs of every size and compression."""
    if not scene_paths:
        scene_paths = [write_generated(folder / "generated", shape=Shape(2048, 2048))[0]]
    written = []
    for size in sizes:
        mosaic = folder / f"{size}.vrt"
        write_mosaic(scene_paths, size, size, mosaic)
        for name, options in COMPRESSIONS.items():
            path = folder / f"{size}_{name}.tif"
            rasterio.shutil.copy(
                mosaic, path, driver="COG", OVERVIEWS="NONE", BIGTIFF="IF_SAFER", NUM_THREADS="ALL_CPUS", **options
            )
            written.append(path)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, nargs="*", default=[])
    parser.add_argument("--sizes", type=int, nargs="*", default=[5000, 20000])
    parser.add_argument("--precisions", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--sharings", nargs="*", default=list(SHARINGS), choices=list(SHARINGS))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(row(arguments.one, arguments.sharings[0], arguments.precisions[0], arguments.device))
        return
    if arguments.device.startswith("cuda"):
        if not torch.cuda.is_available():
            sys.exit("no GPU here; --device cpu --sizes 700 tries the script out")
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {os.cpu_count()} CPU threads\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for scene in write_scenes(arguments.scenes, arguments.sizes, Path(folder)):
            for sharing in arguments.sharings:
                for precision in arguments.precisions:
                    command = [sys.executable, __file__, "--one", str(scene), "--sharings", sharing]
                    command += ["--precisions", precision, "--device", arguments.device]
                    ended = subprocess.run(command, capture_output=True, text=True, check=False)
                    failed = f"| {sharing} | {precision} | {scene.stem} | failed: {ended.stderr.strip()[-300:]} |"
                    print(ended.stdout.strip() if not ended.returncode else failed, flush=True)


if __name__ == "__main__":
    main()
