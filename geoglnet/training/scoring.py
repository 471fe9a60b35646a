"""Evaluation: a model's scores on held-out scenes, through the same predictor that ``predict`` uses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geoglnet.bands import Bands
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import DeepGlobeSource, InriaSource, IsicSource, SourceConfig
from geoglnet.datasets.truth import Truth
from geoglnet.errors import ConfigError, DatasetError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.message import Keyword
from geoglnet.metrics import BoundaryScore, ConfusionMatrix, conventions, summed
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network
from geoglnet.models.shipped import model_path
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import predict_scene
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.scene import Scene
from geoglnet.training.pictures import PICTURE_SIZE, ScenePicture, as_rgb, decimation
from geoglnet.training.train_config import read_config
from geoglnet.types import Shape

BOUNDARY_TOLERANCE = 3
_STRIP = 512
_MOST_WORST = 2  # regions kept of each scene


@dataclass(frozen=True, slots=True)
class WorstRegion:
    """A region with many errors.

    Args:
        scene: its name.
        window: its core in the scene, at the model's resolution.
        wrong: how many labeled pixels were segmented as another class.
        labeled: how many are labeled.
        picture: what it looks like.
    """

    scene: str
    window: Window
    wrong: int
    labeled: int
    picture: ScenePicture

    @property
    def described(self) -> str:
        place = f"rows {self.window.row_off} to {self.window.row_off + self.window.height}"
        place += f", columns {self.window.col_off} to {self.window.col_off + self.window.width}"
        return f"{self.scene}, {place}: {self.wrong / max(1, self.labeled):.0%} of labeled pixels wrong"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores per scene; a model of few scenes carries no claim beyond them.

    Args:
        legend: classes.
        scenes: confusion matrix by scene name.
        boundaries: how well boundaries agree, by scene name.
        worst: some of each scene's regions with the most errors.
    """

    legend: Legend
    scenes: dict[str, ConfusionMatrix] = field(default_factory=dict)
    boundaries: dict[str, BoundaryScore] = field(default_factory=dict)
    worst: list[WorstRegion] = field(default_factory=list)

    def worst_regions(self, count: int) -> list[WorstRegion]:
        """Find the regions with the most wrong pixels."""
        return sorted((region for region in self.worst if region.wrong), key=lambda region: -region.wrong)[:count]

    @property
    def total(self) -> ConfusionMatrix:
        """Gather all scenes' pixels in one matrix, as the paper scores."""
        return summed(self.legend, list(self.scenes.values()))

    @property
    def conventions(self) -> dict[str, float]:
        """Scores of the whole under each convention; see :func:`~geoglnet.metrics.conventions`."""
        whole = BoundaryScore(self.legend)
        for score in self.boundaries.values():
            whole.counts += score.counts
        f1 = whole.mean_f1()
        return conventions(self.legend, list(self.scenes.values())) | ({"boundary_f1": f1} if np.isfinite(f1) else {})

    def scene_scores(self, name: str) -> dict[str, float]:
        """IoU per class, mean, and mean boundary F1 of a scene; what does not occur is left out."""
        f1 = self.boundaries[name].mean_f1() if name in self.boundaries else float("nan")
        return self.scenes[name].to_dict() | ({"boundary_f1": f1} if np.isfinite(f1) else {})

    def to_dict(self) -> dict[str, Any]:
        """IoU per class and mean, per scene and in total, and the total under each convention."""
        return {
            "scenes": {name: self.scene_scores(name) for name in self.scenes},
            "total": self.total.to_dict(),
            "conventions": self.conventions,
        }


@dataclass(frozen=True, slots=True)
class _Scorer:
    """Sink that compares blocks with the truth as they are finished, and keeps the labels in a temporary file."""

    truth: Truth
    matrix: ConfusionMatrix
    labels: npt.NDArray[np.uint8]
    worst: list[tuple[int, int, Window]] = field(default_factory=list)

    def write_block(self, window: Window, block: npt.NDArray[np.uint8]) -> None:
        truth = _seen(self.truth, window, block)
        self.matrix.update(truth, block)
        self.labels[window.toslices()] = block
        known = truth != NO_CLASS
        self.worst.append((int((truth != block)[known].sum()), int(known.sum()), window))
        self.worst.sort(key=lambda counted: -counted[0])
        del self.worst[_MOST_WORST:]


def evaluate(
    model: str,
    config_path: Path,
    folder: Path,
    *,
    split: str = "",
    config: PredictConfig | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on the validation sources of a configuration.

    Memory is the predictor's: scenes are scored block by block. A scene's labels lie in a temporary file (a byte per pixel).

    Args:
        model: shipped name or checkpoint file.
        config_path: training configuration; its ``[[validation]]`` sources and legend are used.
        folder: data folder that the sources' patterns start from.
        split: split of published data sets to score on, such as ``"test"``, instead of what the sources say.
        config: device, batch size, precision.
        progress: receiver of plans, regions and rules.

    Raises:
        ConfigError: the model's legend is not the configuration's, or no source has splits.
        DatasetError: there is no validation source, or its files cannot be used.
    """
    network, manifest = load_checkpoint(model_path(model))
    settings = read_config(config_path, progress=progress)
    _check_legends(manifest.legend, settings.legend)
    if not settings.validation:
        raise DatasetError(f"{settings.name} has no [[validation]] source; name at least one")
    sources = settings.validation if not split else tuple(_with_split(source, split) for source in settings.validation)
    return score(network, manifest, sources, folder, config=config, progress=progress)


def score(
    network: Network,
    manifest: Manifest,
    sources: Sequence[SourceConfig],
    folder: Path,
    *,
    config: PredictConfig | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a network on labeled scenes; see :func:`evaluate`."""
    config, progress = config or PredictConfig(), progress or SilentProgress()
    evaluation = Evaluation(manifest.legend)
    reader = PairReader(folder, manifest.legend, manifest.resolution_m, progress, bands=manifest.bands)
    for pair in (pair for source in sources for pair in reader.iter_pairs(source)):
        name = _unused_name(Path(pair.name), evaluation.scenes)
        evaluation.scenes[name] = matrix = ConfusionMatrix(manifest.legend)
        with pair.file.open(progress) as scene, tempfile.TemporaryFile() as spool:
            labels = np.memmap(spool, np.uint8, "w+", shape=pair.shape)
            scorer = _Scorer(pair.truth, matrix, labels)
            predict_scene(scene, network, manifest, scorer, None, config, progress)
            # In a second pass: a boundary's score needs pixels beyond the edges of its block.
            evaluation.boundaries[name] = _boundary_score(pair.truth, labels, manifest.legend)
            evaluation.worst.extend(
                WorstRegion(name, window, wrong, known, _picture(pair, scene, labels, window, manifest.bands))
                for wrong, known, window in scorer.worst
            )
    return evaluation


def _seen(truth: Truth, window: Window, block: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Truth of a window, without what the scene itself does not show."""
    return np.where(block == NO_CLASS, np.uint8(NO_CLASS), truth.read_labels(window))


def _iter_strips(shape: tuple[int, int], size: int, margin: int) -> Iterator[tuple[Window, slice]]:
    """Windows of strips with their margin, and which of their rows are not margin."""
    height, width = shape
    for top in range(0, height, size):
        first, last = max(0, top - margin), min(height, top + size + margin)
        yield (
            Window(col_off=0, row_off=first, width=width, height=last - first),
            slice(top - first, min(top + size, height) - first),
        )


def _boundary_score(truth: Truth, labels: npt.NDArray[np.uint8], legend: Legend) -> BoundaryScore:
    score = BoundaryScore(legend, BOUNDARY_TOLERANCE)
    for window, rows in _iter_strips(labels.shape, _STRIP, score.margin):
        block = np.asarray(labels[window.toslices()])
        score.update(_seen(truth, window, block), block, rows)
    return score


def _picture(pair: Pair, scene: Scene, labels: npt.NDArray[np.uint8], window: Window, bands: Bands) -> ScenePicture:
    """Shrink a region, its truth and its labels to a size that can be kept."""
    step = decimation(Shape(int(window.height), int(window.width)), PICTURE_SIZE)
    block = np.asarray(labels[window.toslices()])
    truth = _seen(pair.truth, window, block)
    image = as_rgb(scene.read_window(window).image, bands)
    return ScenePicture(image[::step, ::step], truth[::step, ::step], block[::step, ::step])


def _unused_name(path: Path, used: dict[str, ConfusionMatrix]) -> str:
    """Name a file, with as many of its folders as tell it from the others."""
    parts = path.parts
    names = ("/".join(parts[-count:]) for count in range(1, len(parts) + 1))
    return next((name for name in names if name not in used), f"{path} ({len(used)})")


def _with_split(source: SourceConfig, split: str) -> SourceConfig:
    if isinstance(source, (DeepGlobeSource, InriaSource, IsicSource)):
        return replace(source, split=split)
    raise ConfigError(f"a source of kind = {source.kind!r} has no split {split!r}; leave out " + Keyword("split"))


def _check_legends(ours: Legend, theirs: Legend) -> None:
    if ours.names != theirs.names:
        raise ConfigError(f"the model's classes are {', '.join(ours.names)}; the configuration's {', '.join(theirs.names)}")
