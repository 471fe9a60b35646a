"""Several processes train as one would with the mean of their gradients; what they say and raise arrives."""

from __future__ import annotations

import time
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch.multiprocessing import ProcessRaisedException

from geoglnet.config import RegionConfig, Stage
from geoglnet.datasets.loading import RegionLoader
from geoglnet.datasets.regions import LabeledRegion
from geoglnet.datasets.samplers import RegionDataset, SampleConfig
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.errors import Canceled, ConfigError, SceneError
from geoglnet.legend import Legend
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from geoglnet.progress import Progress, RecordedProgress, SilentProgress
from geoglnet.training import devices
from geoglnet.training.devices import quiet_lightning
from geoglnet.training.stages import StageRun, run_stage
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import OptimConfig, TrainConfig
from geoglnet.types import Shape
from tests.networks import small

STEPS, RATE = 1, 1e-3
REGION = RegionConfig(region_size=96, overview_size=48, patch_size=64, patch_overlap=16, margin=16)


class Noise:
    """A scene whose three classes are thirds of its first band's range."""

    shape = Shape(160, 160)

    def __init__(self) -> None:
        self.image = np.random.default_rng(0).integers(0, 255, (3, *self.shape), dtype=np.uint8)

    def read_region(self, rows: slice, cols: slice) -> LabeledRegion:
        image = self.image[:, rows, cols]
        return LabeledRegion(image, image[0] // 86)

    def read_labels(self, rows: slice, cols: slice) -> np.ndarray:
        return self.read_region(rows, cols).labels


def config(**optim: object) -> TrainConfig:
    legend = Legend.from_dict({"classes": [{"name": name, "color": [v, v, v]} for v, name in enumerate("abc")]})
    settings = OptimConfig(
        local_steps=STEPS, batch_size=2, local_learning_rate=RATE, backbone_weights="", precision="32-true", **optim
    )  # type: ignore[arg-type]
    return TrainConfig("toy", 1.0, legend, small().config, train=(None,), region=REGION, optim=settings)  # type: ignore[arg-type]


def dataset() -> RegionDataset:
    sample = SampleConfig(region_size=96, patch_size=64, patches_per_region=1)
    return RegionDataset([Noise()], [1.0], REGION, sample, AugmentConfig(), length=0)


def manifest_of(settings: TrainConfig) -> Manifest:
    return Manifest("toy", settings.model, settings.region, settings.legend, 1.0, (0.5, 2.0), 1.0)


def by_hand(network: GLNet, settings: TrainConfig) -> GLNet:
    """Two copies of the network, each with half of every batch, and one mean of their gradients."""
    samples, manifest = dataset(), manifest_of(settings)
    samples.seed, samples.length = list(Stage).index(Stage.LOCAL), 2 * STEPS
    tasks = [StageTask(deepcopy(network), Stage.LOCAL, settings.optim, STEPS).train() for _ in range(2)]
    optimizers = [task.configure_optimizers() for task in tasks]
    for number, batch in enumerate(RegionLoader(samples, 1, 0, manifest.bands)):
        tasks[number % 2].differentiate(batch)
        if number % 2:
            for pair in zip(*(task._trained_parameters() for task in tasks), strict=True):
                gradient = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in pair]).mean(0)
                for parameter in pair:
                    parameter.grad = gradient.clone()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return tasks[0].network


def keep_advancing(progress: Progress) -> None:
    for _ in range(200):
        time.sleep(0.05)
        progress.advance()


@pytest.mark.slow
def test_two_processes_take_the_steps_of_their_mean_gradient() -> None:
    settings, progress = config(devices=2), RecordedProgress()
    network = small("mobilenet_v2")
    expected = by_hand(network, settings).state_dict()
    initial = deepcopy(network.state_dict())
    with quiet_lightning():  # as for users: where Slurm is installed, Lightning hints at srun
        run_stage(network, StageRun(Stage.LOCAL, settings, manifest_of(settings)), dataset(), progress)
    moved = {name: values for name, values in network.state_dict().items() if not torch.equal(values, initial[name])}
    assert len(moved) > 100
    differences = torch.cat([(values - expected[name]).abs().flatten().float() for name, values in moved.items()])
    # Adam's first step is the gradient's sign times the rate; that of a gradient of almost nothing is anybody's guess.
    assert differences.mean() < 0.05 * RATE
    assert differences.quantile(0.9) < 0.001 * RATE
    assert [event["event"] for event in progress.events].count("progress") == STEPS  # one of the two reports


def test_what_another_process_reports_arrives_and_its_receiver_can_stop_it() -> None:
    class Stopping(RecordedProgress):
        def log(self, message: str) -> None:
            super().log(message)
            raise Canceled("enough")

    progress = Stopping()
    with devices.relayed(progress) as relay:
        relay.plan("local stage", 4, "steps")
        relay.advance(loss=0.5)
        relay.warn("skipped")
        relay.log("stop here")
        with pytest.raises(Canceled):
            keep_advancing(relay)
    assert progress.events[:3] == [
        {"event": "plan", "stage": "local stage", "total": 4, "unit": "steps"},
        {"event": "progress", "amount": 1, "loss": 0.5},
        {"event": "warning", "message": "skipped"},
    ]


def test_an_error_of_ours_in_another_process_is_raised_here_as_itself() -> None:
    traceback = "\n\n-- Process 1 terminated with the following error:\nTraceback …\n{}\n"
    ours = traceback.format("geoglnet.errors.SceneError: a.jpg: cannot be decoded: row 7")
    with pytest.raises(SceneError, match=r"^a.jpg: cannot be decoded: row 7$"), devices.relayed(SilentProgress()):
        raise ProcessRaisedException(ours, 1, 123)
    with pytest.raises(ProcessRaisedException), devices.relayed(SilentProgress()):
        raise ProcessRaisedException(traceback.format("ZeroDivisionError: division by zero"), 1, 123)


def test_a_batch_is_shared_evenly_and_by_no_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="batch_size = 6 must be a multiple of devices = 4"):
        OptimConfig(devices=4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices.check_devices(2)
    with pytest.raises(ConfigError, match=r"optim.devices = 4, but this machine has 2"):
        devices.check_devices(4)
