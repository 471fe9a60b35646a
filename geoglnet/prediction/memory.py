"""How much memory of a device a region takes, found without the device: everything runs on tensors without numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import torch

from geoglnet.config import FOREIGN
from geoglnet.models.checkpoint import Blank
from geoglnet.models.demand import LiveBytes
from geoglnet.models.manifest import Manifest, read_manifest
from geoglnet.models.network import network_builder
from geoglnet.models.shipped import model_path
from geoglnet.prediction.device import available_bytes
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.raster.scene import Pixels
from geoglnet.types import Shape

BATCHES = (32, 16, 8, 4, 2, 1)
_AMPLE = 16e9  # bytes that every batch fits into, or nearly: not worth the seconds that an estimate takes
_META = torch.device("meta")
_ROOM = 1.25  # for what convolutions ask for beside their maps, and for blocks that do not fit together
_CONTEXT = 500e6  # bytes that CUDA and its libraries take in every process, about


def region_bytes(manifest: Manifest, config: PredictConfig, batch_size: int) -> int:
    """Count the bytes of weights, maps and probabilities that are alive at once while a whole region is segmented.

    Of the tensors, not of the device: a process takes a quarter and half a gigabyte more; see :func:`needed_bytes`.

    Args:
        manifest: of the model; its weights are not read.
        config: precision and device.
        batch_size: patches that go through the network together.
    """
    precision = "float32" if config.precision == "auto" else config.precision
    # Every patch runs, once: neither effort nor turns make more maps at a time.
    plain = PredictConfig(batch_size=batch_size, precision=precision)
    build = network_builder(manifest.model)  # imported before: torch computes while its libraries are imported
    with Blank():
        network = build(manifest.model).eval().for_inference()
    segmenter = RegionSegmenter(network, manifest, plain, device=_META)
    side = manifest.region.region_size
    planned = Plan(Shape(side, side), manifest.region).region(0, 0)
    is_8bit = manifest.bands.is_8bit
    image = np.zeros((manifest.model.in_channels, side, side), np.uint8 if is_8bit else np.float32)
    visible = np.zeros((side, side), bool)
    for patch in planned.patches[:: max(1, batch_size)][:2]:
        # Of any more batches each would take what the second does, which is made while the first is not gone.
        visible[patch.window.toslices()] = True
    with LiveBytes() as live:
        segmenter.probabilities(planned, Pixels(image, np.ones((side, side), bool)), visible=visible)
    weights = sum(tensor.nbytes for tensor in segmenter.network.state_dict().values())
    return int(weights + live.peak)


def needed_bytes(manifest: Manifest, config: PredictConfig, batch_size: int, *, is_gpu: bool = True) -> int:
    """Estimate what a process takes of a device's memory for a region; on a CPU beside its libraries."""
    return int(_ROOM * region_bytes(manifest, config, batch_size) + (_CONTEXT if is_gpu else 0))


def fitting_batch(manifest: Manifest, config: PredictConfig, free: int | None) -> int:
    """Choose the patches per step that a GPU is begun with: as many as a region has, or the most that fit.

    Args:
        manifest: of the model.
        config: precision.
        free: bytes that the device can give; ``None`` where nobody says.
    """
    side = manifest.region.region_size
    most = Plan(Shape(side, side), manifest.region).region(0, 0).num_patches
    sizes = sorted({min(size, most) for size in BATCHES}, reverse=True)
    if free is None or free >= _AMPLE:
        return sizes[0]
    # CUDA's own part is taken already, as somebody has asked how much is free.
    return next((n for n in sizes if _ROOM * region_bytes(manifest, config, n) <= free), 1)


def with_batch(config: PredictConfig, manifest: Manifest, device: torch.device) -> PredictConfig:
    """Settle the batch of a run on a GPU that nobody has chosen one for."""
    if config.batch_size is not None or device.type != "cuda" or manifest.model.architecture in FOREIGN:
        return config
    return replace(config, batch_size=fitting_batch(manifest, config, available_bytes(device)))


def enlarged(manifest: Manifest, factor: int) -> Manifest:
    """Take a model's regions and their overviews larger, so that the decimation is the same."""
    sizes = {name: factor * getattr(manifest.region, name) for name in ("region_size", "overview_size", "margin")}
    return replace(manifest, region=replace(manifest.region, **sizes))


def estimates(model: str, device: str) -> list[dict[str, str | int]]:
    """Estimate megabytes of a device, which need not be here, by precision, size of regions and batch.

    Args:
        model: name of a shipped model, or a ``.safetensors`` file.
        device: as in :class:`~geoglnet.prediction.predict_config.PredictConfig`.

    Raises:
        ModelNotFoundError: no such model.
        CheckpointError: the model file cannot be used.
    """
    manifest, is_gpu = read_manifest(model_path(model)), device.startswith("cuda")
    choices = product(("float32", "bfloat16"), (manifest, enlarged(manifest, 2)), (1, 8, 32) if is_gpu else (1,))
    return [
        {
            "precision": precision,
            "region_px": sized.region.region_size,
            "batch": batch_size,
            "megabytes": round(needed_bytes(sized, PredictConfig(precision=precision), batch_size, is_gpu=is_gpu) / 1e6),
        }
        for precision, sized, batch_size in choices
    ]
