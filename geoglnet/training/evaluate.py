"""Evaluation: a model's scores on held-out scenes, through the same predictor that ``predict`` uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import SourceConfig
from geoglnet.datasets.truth import Truth
from geoglnet.errors import ConfigError, DatasetError
from geoglnet.legend import Legend
from geoglnet.metrics import ConfusionMatrix
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from geoglnet.models.registry import model_path
from geoglnet.prediction.config import PredictConfig
from geoglnet.prediction.predictor import predict_scene
from geoglnet.progress import Progress, SilentProgress
from geoglnet.training.config import read_config


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores per scene; a model of few scenes carries no claim beyond them.

    Args:
        scenes: confusion matrix by scene name.
        total: all scenes' pixels in one matrix, as the paper scores.
    """

    scenes: dict[str, ConfusionMatrix]
    total: ConfusionMatrix

    def to_dict(self) -> dict[str, Any]:
        """IoU per class and mean, per scene and in total."""
        return {"scenes": {name: matrix.to_dict() for name, matrix in self.scenes.items()}, "total": self.total.to_dict()}


@dataclass(frozen=True, slots=True)
class _Scorer:
    """Sink that compares blocks with the truth as they are finished; nothing of the scene is kept."""

    truth: Truth
    matrix: ConfusionMatrix

    def write_block(self, window: Window, block: npt.NDArray[np.uint8]) -> None:
        self.matrix.update(self.truth.read_labels(window), block)


def evaluate(
    model: str,
    config_path: Path,
    folder: Path,
    *,
    config: PredictConfig | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on the validation sources of a configuration.

    Memory is the predictor's: scenes are scored block by block.

    Args:
        model: shipped name or checkpoint file.
        config_path: training configuration; its ``[[validation]]`` sources and legend are used.
        folder: data folder that the sources' patterns start from.
        config: device, batch size, precision.
        progress: receiver of plans, regions and rules.

    Raises:
        ConfigError: the model's legend is not the configuration's.
        DatasetError: there is no validation source, or its files cannot be used.
    """
    network, manifest = load_checkpoint(model_path(model))
    sources = read_config(config_path)
    _check_legends(manifest.legend, sources.legend)
    if not sources.validation:
        raise DatasetError(f"{sources.name} has no [[validation]] source; name at least one")
    return score(network, manifest, sources.validation, folder, config=config, progress=progress)


def score(
    network: GLNet,
    manifest: Manifest,
    sources: Sequence[SourceConfig],
    folder: Path,
    *,
    config: PredictConfig | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a network on labelled scenes; see :func:`evaluate`."""
    config, progress = config or PredictConfig(), progress or SilentProgress()
    scenes: dict[str, ConfusionMatrix] = {}
    reader = PairReader(folder, manifest.legend, manifest.resolution_m, progress)
    for pair in (pair for source in sources for pair in reader.iter_pairs(source)):
        scenes[Path(pair.name).name] = matrix = ConfusionMatrix(manifest.legend)
        with pair.file.open(progress) as scene:
            predict_scene(scene, network, manifest, _Scorer(pair.truth, matrix), None, config, progress)
    return Evaluation(scenes, _sum(manifest.legend, scenes))


def _check_legends(ours: Legend, theirs: Legend) -> None:
    if ours.names != theirs.names:
        raise ConfigError(f"the model's classes are {', '.join(ours.names)}; the configuration's {', '.join(theirs.names)}")


def _sum(legend: Legend, scenes: dict[str, ConfusionMatrix]) -> ConfusionMatrix:
    total = ConfusionMatrix(legend)
    for matrix in scenes.values():
        total.counts += matrix.counts
    return total
