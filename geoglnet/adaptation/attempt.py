"""One attempt at adapting a model: train on some squares, choose how much of the old weights to keep, label the others."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from rasterio.windows import Window

from geoglnet.adaptation.adapt_config import SHARES, AdaptConfig, steps_for
from geoglnet.adaptation.drawn import Drawn
from geoglnet.adaptation.keeping import KeepingTask
from geoglnet.adaptation.squares import CHOOSE, LEARN, PartTruth, Squares
from geoglnet.adaptation.tally import MEASURES, Answer, Crop, PolygonRules, Tally, crops_of, tally
from geoglnet.config import Stage
from geoglnet.datasets.generated import generated_region
from geoglnet.datasets.regions import DecodedScene, LabeledRegion, LabeledScene, fill_of
from geoglnet.datasets.samplers import RegionDataset
from geoglnet.datasets.survey import survey
from geoglnet.datasets.truth import Truth
from geoglnet.errors import DatasetError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network, build_network
from geoglnet.models.transfer import blend, transfer
from geoglnet.prediction.area import Area
from geoglnet.prediction.layers import CONFIDENCE, LABELS
from geoglnet.prediction.plan import Plan, meets
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor
from geoglnet.progress import Progress, Rule, SilentProgress
from geoglnet.raster.scene import Scene
from geoglnet.training.runlog import RunLog
from geoglnet.training.stages import StageRun, run_stage, stages_of
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import TrainConfig
from geoglnet.types import BandValues, Labels, Shape

_FALLBACK_SHARE = 0.5
"""Share of the old weights where no polygons are spared to choose it by."""
_RESERVE = 0.8
"""Of the minutes, for steps and predictions; the rest is for reading, drawing and what cannot be foreseen."""


@dataclass(frozen=True, slots=True)
class AdaptTask:
    """Everything that stays the same while a model is adapted."""

    network: Network
    manifest: Manifest
    legend: Legend
    scene: Scene
    drawn: Drawn
    window: Window
    training: TrainConfig
    config: AdaptConfig
    predicting: PredictConfig
    progress: Progress
    run_folder: Path
    digest: str
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds_spent(self) -> float:
        """Time since it began."""
        return time.monotonic() - self.began

    @property
    def seconds_left(self) -> float:
        """Time that is left of the minutes."""
        return max(1.0, 60 * self.config.minutes - self.seconds_spent)

    @property
    def new_manifest(self) -> Manifest:
        """Describe the new network: the old one's manifest with the new classes."""
        return replace(self.manifest, legend=self.legend, model=self.training.model)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The part of a scene around what was drawn, with labels of some squares; a labeled scene to train on."""

    scene: Scene
    truth: Truth
    window: Window

    @property
    def name(self) -> str:
        return self.scene.name

    @property
    def shape(self) -> Shape:
        return Shape(int(self.window.height), int(self.window.width))

    def read_region(self, rows: slice, cols: slice) -> LabeledRegion:
        window = self._placed(rows, cols)
        pixels = self.scene.read_window(window)
        image = np.where(pixels.valid, pixels.image, fill_of(pixels.image.dtype))
        return LabeledRegion(image, np.where(pixels.valid, self.truth.read_labels(window), np.uint8(NO_CLASS)))

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        return self.read_region(rows, cols).labels

    def read_valid(self, rows: slice, cols: slice) -> BandValues:
        pixels = self.scene.read_window(self._placed(rows, cols))
        return pixels.image[:, pixels.valid]

    def _placed(self, rows: slice, cols: slice) -> Window:
        top, left = int(self.window.row_off), int(self.window.col_off)
        return Window.from_slices(slice(rows.start + top, rows.stop + top), slice(cols.start + left, cols.stop + left))


def segment(job: AdaptTask, network: Network, manifest: Manifest, crops: Sequence[Crop]) -> list[Answer]:
    """Label the windows of crops, by the classes of the new model; only the blocks that they meet are computed."""
    scene, plan = job.scene, Plan(job.scene.shape, manifest.region)
    blocks = frozenset(
        (row, col)
        for row in range(len(plan.row_edges) - 1)
        for col in range(len(plan.col_edges) - 1)
        if any(meets(plan.region(row, col).core, crop.window) for crop in crops)
    )
    whole = Area(scene.shape, Window(col_off=0, row_off=0, width=scene.shape.width, height=scene.shape.height))
    # The network may be trained on: what predicts is a copy, which is moved and folded.
    predictor = Predictor(copy.deepcopy(network).eval(), manifest, job.predicting)
    with tempfile.TemporaryFile() as spool:  # sparse: takes as much disk as there are blocks
        found = np.memmap(spool, np.uint8, "w+", shape=(2, *scene.shape))
        wanted = (LABELS, CONFIDENCE)
        for pending in predictor.iter_blocks(scene, wanted, area=whole, blocks=blocks, progress=job.progress):
            block = pending.resolve()
            for kind, layer in enumerate(wanted):
                found[kind][block.window.toslices()] = block.layers[layer.name][0]
        table = np.full(256, NO_CLASS, np.uint8)
        for value, name in enumerate(manifest.legend.names):
            table[value] = job.legend.names.index(name) if name in job.legend.names else NO_CLASS
        table[NO_CLASS] = NO_CLASS
        windows = [crop.window.toslices() for crop in crops]
        return [Answer(table[found[0][window]], np.array(found[1][window])) for window in windows]


def counted(job: AdaptTask, network: Network, manifest: Manifest, crops: Sequence[Crop]) -> tuple[Tally, list[Labels]]:
    """Label crops and count what is right; polygons are those of the manifest's settings."""
    answers = segment(job, network, manifest, crops)
    rules = PolygonRules.of(manifest.polygons, manifest.resolution_m)
    return tally(crops, answers, job.legend, rules), [answer.labels for answer in answers]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one division of the drawn gave.

    Args:
        network: the new one, averaged with the old.
        steps: that it was trained for.
        share: of the old weights in it.
        seconds: that training took.
        chosen_by: how many squares decided about the share.
        polygons: settings of polygons that suit it.
    """

    network: Network
    steps: int
    share: float
    seconds: float
    chosen_by: int
    polygons: Mapping[str, Any] = field(default_factory=dict)


def attempt(job: AdaptTask, squares: Squares, seconds: float, steps: int = 0) -> Attempt:
    """Train on the squares to learn from, and choose the share of the old weights on those to choose by.

    Args:
        job: what is adapted to what.
        squares: the division.
        seconds: that are left for it.
        steps: of the optimizer; by what is known and the time when 0.
    """
    config = job.training
    torch.manual_seed(config.optim.seed)
    network = build_network(config.model)
    whole = transfer(network, job.legend, config.bands.names, job.network, job.manifest, job.manifest.name)
    start = {name: tensor.clone() for name, tensor in network.state_dict().items() if name in whole}
    dataset = _dataset(job, squares)
    stages = stages_of(config.model, config.optim)
    steps = steps or job.config.steps or _steps(job, network, dataset, stages, seconds)
    optim = replace(config.optim, global_steps=steps, local_steps=steps, bidirectional_steps=steps)
    config = replace(config, optim=optim)
    began = time.monotonic()
    for stage in stages:
        # The old model answers for what is unknown, where its answers are comparable: same classes, same global maps.
        keeps = job.config.keep and "global" in optim.frozen and job.legend.names == job.manifest.legend.names
        task_of = partial(KeepingTask, teacher=job.network, weight=job.config.keep) if keeps else StageTask
        run = StageRun(stage, config, job.manifest, None, [RunLog(job.run_folder, stage, [])], task_of=task_of)
        run_stage(network, run, dataset, job.progress)
    spent = time.monotonic() - began
    network.eval().requires_grad_(False)
    chosen_by = len(squares.of_role(CHOOSE))
    share = job.config.share
    if share < 0:
        share = _chosen_share(job, network, start, squares) if chosen_by else _FALLBACK_SHARE
    blend(network, start, share)
    return Attempt(network, steps, share, spent, chosen_by)


def _dataset(job: AdaptTask, squares: Squares) -> RegionDataset:
    """Samples of the squares to learn from, and of generated scenes where the model was trained on such."""
    config = job.training
    margin = config.sample.region_size // 2
    top, left = max(0, int(job.window.row_off) - margin), max(0, int(job.window.col_off) - margin)
    bottom = min(job.scene.shape.height, int(job.window.row_off + job.window.height) + margin)
    right = min(job.scene.shape.width, int(job.window.col_off + job.window.width) + margin)
    window = Window(col_off=left, row_off=top, width=right - left, height=bottom - top)
    drawn = job.drawn.parted_on if job.config.is_parted else job.drawn.truth_on
    truth = PartTruth(drawn(job.scene.transform), squares, (LEARN,))
    place: LabeledScene = Surroundings(job.scene, truth, window)
    depth = len(config.bands) * (1 if config.bands.is_8bit else 4) + 1
    if place.shape.height * place.shape.width * depth <= config.sample.cache_mb * 2**20:
        place = DecodedScene(place.name, place.read_region(slice(0, place.shape.height), slice(0, place.shape.width)))
    scenes, weights = [place], [1.0]
    sources = job.manifest.training.get("sources", [])
    is_generated = any(isinstance(s, dict) and s.get("kind") == "generated" for s in sources)
    if is_generated and job.config.rehearse and job.legend.names == job.manifest.legend.names:
        scenes.append(DecodedScene("generated scene 1", generated_region(1, job.legend, config.resolution_m, config.bands)))
        weights.append(job.config.rehearse)
        job.progress.log("a generated scene is rehearsed beside what was drawn, as the model was trained on such")
    surveyed = survey(scenes)
    if not any((places[:, 0] == 0).any() for places in surveyed.places.values()):
        raise DatasetError("nothing is left to learn from when a part is held out; draw more, further apart")
    return RegionDataset(
        scenes, weights, config.region, config.sample, config.augment, length=0, surveyed=surveyed, bands=config.bands
    )


def _steps(job: AdaptTask, network: Network, dataset: RegionDataset, stages: Sequence[Stage], seconds: float) -> int:
    """Choose the number of steps: by what is known, as far as the time goes, which two trial steps measure."""
    rows, cols = (slice(0, side) for side in dataset.scenes[0].shape)
    known = int((dataset.scenes[0].read_labels(rows, cols) != NO_CLASS).sum())
    wanted = steps_for(known)
    each = sum(_seconds_of_step(job, network, dataset, stage) for stage in stages)
    possible = max(1, int(_RESERVE * seconds / each))
    steps = min(wanted, possible)
    job.progress.log(Rule(f"{steps} steps of about {each:.1f} s: about {max(1, round(steps * each / 60))} min"))
    if possible < wanted:
        job.progress.warn(f"{wanted} steps would suit {known} labeled pixels; the time allows {possible}")
    return steps


class _Watch(Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.times.append(time.monotonic())


def _seconds_of_step(job: AdaptTask, network: Network, dataset: RegionDataset, stage: Stage) -> float:
    """Measure a step on a copy of the network: the third, for the first ones warm up."""
    optim = replace(job.training.optim, global_steps=3, local_steps=3, bidirectional_steps=3)
    config, watch = replace(job.training, optim=optim), _Watch()
    run_stage(copy.deepcopy(network), StageRun(stage, config, job.manifest, None, [watch]), dataset, SilentProgress())
    return watch.times[-1] - watch.times[-2]


def _chosen_share(job: AdaptTask, network: Network, start: dict[str, torch.Tensor], squares: Squares) -> float:
    """Try shares of the old weights on squares that were not learned from, and take the best one."""
    crops = crops_of(job.drawn, squares, squares.of_role(CHOOSE), job.scene.transform, job.scene.shape)
    found = {}
    for share in SHARES:
        mixed = copy.deepcopy(network)
        blend(mixed, start, share)
        means = counted(replace(job, progress=SilentProgress()), mixed, job.new_manifest, crops)[0].means()
        found[share] = float(np.nanmean([means[name] for name in MEASURES]))
    told = ", ".join(f"{share:g} → {value:.3f}" for share, value in found.items())
    best = max(found, key=lambda share: (found[share], share))
    job.progress.log(f"share of the old weights by the squares to choose by (mean of IoU, boundary and polygon F1): {told}")
    return best
