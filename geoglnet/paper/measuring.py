"""What one region costs: memory as the paper measures it, time and arithmetic; in a process of its own.

    python -m geoglnet.paper.measuring CHECKPOINT DEVICE FIGURES.json

Batch 1, no gradients, float32. On CUDA the process's memory is asked of the driver (NVML where ``pynvml`` is installed, else
what the device has less of), and the bare context is subtracted and stated; beside it stands what PyTorch's allocator gave out
and reserved. On a CPU it is the peak of the resident set over the idle process, which has all libraries loaded and no weights.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch

from geoglnet.errors import GeoglnetError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import Manifest
from geoglnet.paper.study import read_json, write_json
from geoglnet.prediction.device import resolve_device
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor
from geoglnet.prediction.run import begin
from geoglnet.raster.scene import ArrayScene

MB = 1e6
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class MeasuringError(GeoglnetError, RuntimeError):
    """A measuring process that came to grief."""


def measured(checkpoint: Path, device: str, path: Path, coarse_to_fine: bool = False) -> Mapping[str, Any]:
    """Measure a checkpoint on one region in a fresh process, or read the figures that an earlier run kept.

    Args:
        checkpoint: of the system.
        device: ``"cpu"``, ``"cuda"`` …
        path: JSON file that the figures are kept in.
        coarse_to_fine: predict the foreground's part of the region only.

    Raises:
        MeasuringError: the process failed; its own error is quoted.
    """
    if not path.exists():
        kind = ["coarse-to-fine"] if coarse_to_fine else []
        # -P: nothing is imported from the folder that this was started in.
        command = [sys.executable, "-P", "-m", "geoglnet.paper.measuring", str(checkpoint), device, str(path), *kind]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if ran.returncode:
            # A process that the kernel kills for want of memory leaves no message.
            last = (ran.stderr.strip().splitlines() or [f"ended by signal {-ran.returncode}: out of memory?"])[-1]
            raise MeasuringError(f"measuring {checkpoint.name} on {device} failed: {last}")
    return read_json(path)


def measure(checkpoint: Path, device_name: str, coarse_to_fine: bool = False) -> dict[str, Any]:
    """Measure this process; memory first, before anything else has been predicted."""
    device = resolve_device(device_name)
    # Before the weights are loaded: they are part of what inference takes.
    meter = Meter(device)
    network, manifest = load_checkpoint(checkpoint)
    parameters = sum(parameter.nbytes for parameter in network.parameters())
    config = PredictConfig(device=str(device), batch_size=1, coarse_to_fine=coarse_to_fine)
    predictor = Predictor(network, manifest, config)
    # As in a run: where the predictor has folded the network, the unfolded half of it is freed.
    del network
    scene = ArrayScene(picture(manifest))
    meter.begin()
    _run(predictor, scene)
    memory = meter.figures()
    seconds, cpu_seconds = _run(predictor, scene)  # the second time: the first one also sets libraries up
    area = scene.image[0].size / 1e6
    with_files = _with_files(checkpoint, scene, config)
    return {
        "device": _name_of(device),
        "region_size": manifest.region.region_size,
        **memory,
        "parameters_mb": round(parameters / MB, 1),
        "mpx_per_s": round(area / seconds, 4),
        "cpu_s_per_mpx": round(cpu_seconds / area, 2),
        "mpx_per_s_with_files": round(area / with_files, 4),
    }


class Meter:
    """Memory of this process: idle when it is made, and the most since it began.

    On a CPU the peak counts weights, the region's pixels and all that inference needs, over the idle process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.zeros(1, device=device)  # the context
            torch.cuda.synchronize(device)
        torch.nn.functional.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(3, 3, 3, 3))  # what the libraries set up once
        gc.collect()
        self.idle = used_bytes(device)

    def begin(self) -> None:
        """Forget peaks: those of loading are not inference's."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        elif _CLEAR.exists():
            # proc(5): writing 5 resets VmHWM, the peak of the resident set.
            _CLEAR.write_text("5", encoding="ascii")

    def figures(self) -> dict[str, float]:
        """Return MB (10⁶ bytes): the idle process (or bare context), the peak above it, and on CUDA what PyTorch reports."""
        if self.device.type != "cuda":
            return {"idle_mb": round(self.idle / MB, 1), "memory_mb": round((_peak_rss() - self.idle) / MB, 1)}
        torch.cuda.synchronize(self.device)
        return {  # the allocator gives nothing back by itself, so that what is used now is the most there was
            "idle_mb": round(self.idle / MB, 1),
            "memory_mb": round((used_bytes(self.device) - self.idle) / MB, 1),
            "allocated_mb": round(torch.cuda.max_memory_allocated(self.device) / MB, 1),
            "reserved_mb": round(torch.cuda.max_memory_reserved(self.device) / MB, 1),
        }


def used_bytes(device: torch.device) -> int:
    """Return the bytes this process uses: of the GPU's memory, or resident in main memory."""
    if device.type != "cuda":
        # Other systems than Linux tell the peak only; of an idle process that is about what it uses.
        return _status("VmRSS") or _peak_rss()
    own = _nvml_bytes(device)
    if own is not None:
        return own
    # Of the whole device: right as long as no other process uses it.
    free, total = torch.cuda.mem_get_info(device)
    return int(total - free)


def _nvml_bytes(device: torch.device) -> int | None:
    """Return this process's GPU memory by NVML; ``None`` without ``pynvml`` or in containers (other PIDs)."""
    if find_spec("pynvml") is None:
        return None
    nvml: Any = import_module("pynvml")
    nvml.nvmlInit()
    # By UUID: NVML counts all devices, CUDA those of CUDA_VISIBLE_DEVICES only.
    handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode())
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    mine = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    # NVML has no figure per process under Windows' display driver model.
    return int(mine[0]) if mine and mine[0] else None


def _status(name: str) -> int:
    """Read a size of this process on Linux; 0 elsewhere."""
    if not _STATUS.exists():
        return 0
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines() if ":" in line)
    return int(lines[name].split()[0]) * 1024  # "kB" in /proc are KiB


def _peak_rss() -> int:
    """Return the peak resident memory: since the meter began on Linux, since the process began elsewhere."""
    if find_spec("resource") is None:
        raise MeasuringError("this system does not tell a process its peak memory; measure on Linux or macOS, or on CUDA")
    resource: Any = import_module("resource")  # not on Windows
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage gives bytes on macOS, KiB on Linux
    return _status("VmHWM") or int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _run(predictor: Predictor, scene: ArrayScene) -> tuple[float, float]:
    """Time one region in memory up to its finished blocks, in seconds and CPU seconds."""
    started, cpu_started = time.perf_counter(), time.process_time()
    for pending in predictor.iter_blocks(scene):
        pending.resolve()
    return time.perf_counter() - started, time.process_time() - cpu_started


def _with_files(checkpoint: Path, scene: ArrayScene, config: PredictConfig) -> float:
    """Time the way from a GeoTIFF to a label raster, including loading the model, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.tif"
        bands, height, width = scene.image.shape
        profile = {"driver": "GTiff", "dtype": "uint8", "count": bands, "height": height, "width": width, "tiled": True}
        with rasterio.open(path, "w", **profile, compress="deflate", photometric="rgb" if bands == 3 else None) as dst:
            dst.write(scene.image)
        started = time.monotonic()
        with begin(path, {"labels": Path(folder) / "labels.tif"}, model=str(checkpoint), config=config) as run:
            run.compute()
            run.finish()
        return time.monotonic() - started


def picture(manifest: Manifest) -> npt.NDArray[np.uint8]:
    """Make a ``(C, h, w)`` uint8 picture of a region, rough at two scales; its content does not affect the cost."""
    size, bands = manifest.region.region_size, manifest.model.in_channels
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (bands, size // 64 + 1, size // 64 + 1), dtype=np.uint8).repeat(64, 1).repeat(64, 2)
    image: npt.NDArray[np.uint8] = coarse[:, :size, :size] + rng.integers(0, 40, (bands, size, size), dtype=np.uint8)
    return image


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def main() -> None:
    """Measure in this process, as :func:`measured` asks."""
    checkpoint, device, path, *kind = sys.argv[1:]
    write_json(Path(path), measure(Path(checkpoint), device, bool(kind)))


if __name__ == "__main__":
    main()
