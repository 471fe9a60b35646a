"""What a prediction depends on, in words: the facts that a resumed run must have in common with the one before."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import torch

from geoglnet import __version__
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.prediction.block import Layer
from geoglnet.prediction.config import PredictConfig
from geoglnet.prediction.unchanged import SceneFiles
from geoglnet.raster.scene import RasterScene


def run_facts(
    scene: RasterScene,
    files: SceneFiles,
    checkpoint: tuple[Path, Manifest],
    config: PredictConfig,
    layers: Collection[Layer],
    device: torch.device,
) -> dict[str, str]:
    """All facts of a run, as text by name."""
    path, manifest = checkpoint
    return {
        "geoglnet": __version__,
        "torch": torch.__version__,
        "model": model_fact(manifest, path),
        "layers": ", ".join(layer.value for layer in layers),
        **_option_facts(config, device),
        **scene_facts(scene),
        **files.facts,
    }


def model_fact(manifest: Manifest, path: Path) -> str:
    """A model's name and the beginning of its hash."""
    return f"{manifest.name} {model_digest(path)[:16]}"


def _option_facts(config: PredictConfig, device: torch.device) -> dict[str, str]:
    facts = {
        "device": device.type,
        "precision": config.precision,
        "effort": f"{config.effort:g}",
        "coarse-to-fine": "on" if config.coarse_to_fine else "off",
        "tta": "on" if config.augment else "off",
        "bounds": "none" if config.bounds is None else " ".join(map(repr, config.bounds)),
        "mask": "none" if config.mask_path is None else _digest(config.mask_path),
    }
    # Which kernels run, and with them the last bits, depends on the batch, and on a CPU on the number of threads.
    threads = {"threads": str(torch.get_num_threads())} if device.type == "cpu" else {}
    return facts | {"batch": str(config.batch_size or "auto")} | threads


def scene_facts(scene: RasterScene) -> dict[str, str]:
    """Facts of how a scene is read."""
    height, width = scene.shape
    return {
        "scene grid": f"{width} × {height} px, transform {', '.join(map(repr, scene.transform[:6]))}",
        "scene values": ", ".join(["bands " + ", ".join(map(str, scene.bands)), scene.values_rule or str(scene.scaling)]),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
