"""The log of a run and the report of its scores."""

from __future__ import annotations

import csv
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from rasterio.windows import Window
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geoglnet.bands import Bands, ValueRange
from geoglnet.config import Branches, ModelConfig, ScalingRule, Sharing, Stage
from geoglnet.datasets.regions import DecodedScene, LabeledRegion, RegionBatch, collate, cut
from geoglnet.errors import OutputError, OutputExistsError
from geoglnet.legend import Legend
from geoglnet.metrics import BoundaryScore, ConfusionMatrix
from geoglnet.models.glnet import GLNet
from geoglnet.training.devices import silence_lightning
from geoglnet.training.pictures import ScenePicture, as_rgb, colored, decimation, errors, side_by_side
from geoglnet.training.runlog import LossPoint, RunLog, branch_labels, forget_losses, read_losses, specimen
from geoglnet.training.score_sheet import write_report
from geoglnet.training.scoring import Evaluation, WorstRegion
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import OptimConfig
from geoglnet.types import Shape

pytestmark = pytest.mark.draws

LEGEND = Legend(("ground", "roof"), ((1, 2, 3), (255, 0, 0)), background=0)
MEAN = STD = torch.full((3, 1, 1), 0.5)
BANDS = Bands(mean=(0.5,) * 3, std=(0.5,) * 3)


def batch() -> RegionBatch:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 96, 96, generator=generator)
    labels = torch.randint(0, 2, (96, 96), dtype=torch.uint8, generator=generator)
    places = [(slice(r, r + 64), slice(c, c + 64)) for r in (0, 32) for c in (0, 32)]
    return collate([cut(image, labels, Shape(48, 48), places)]).normalized(MEAN, STD)


def evaluation() -> Evaluation:
    truth = np.kron(np.eye(4, dtype=np.uint8), np.ones((20, 20), np.uint8))
    labels = np.roll(truth, 6, axis=1)
    found = Evaluation(LEGEND)
    for name in ("a.tif", "b.tif"):
        found.scenes[name], found.boundaries[name] = ConfusionMatrix(LEGEND), BoundaryScore(LEGEND)
        found.scenes[name].update(truth, labels)
        found.boundaries[name].update(truth, labels)
        picture = ScenePicture(as_rgb(np.stack([truth * 90] * 3)), truth, labels)
        found.worst.append(WorstRegion(name, Window(0, 0, 80, 80), int((truth != labels).sum()), truth.size, picture))
    return found


def test_a_report_holds_the_scores_and_a_sheet(tmp_path: Path) -> None:
    losses = [LossPoint(stage, step, 1 / (step + 1)) for stage in ("global", "local") for step in range(30)]
    found = evaluation()
    paths = write_report(tmp_path / "run", "a title", found, losses)
    assert [path.name for path in paths] == ["scores.json", "scores.csv", "report.png"]
    scores = json.loads(paths[0].read_text())
    assert scores["total"]["roof"] == pytest.approx(found.total.iou()[1])
    with paths[1].open(newline="") as opened:
        rows = {row["scene"]: row for row in csv.DictReader(opened)}
    assert list(rows) == ["a.tif", "b.tif", "all"]
    assert float(rows["a.tif"]["boundary_f1"]) == pytest.approx(found.boundaries["a.tif"].mean_f1(), abs=1e-6)
    assert rows["a.tif"]["image_iou"] == ""
    with pytest.raises(OutputExistsError, match=r"scores\.json exists"):
        write_report(tmp_path / "run", "a title", found)
    write_report(tmp_path / "run", "a title", Evaluation(LEGEND), overwrite=True)  # nothing scored yet


def test_the_worst_regions_are_those_with_the_most_wrong_pixels() -> None:
    picture = ScenePicture(*(np.zeros((2, 2), np.uint8) for _ in range(3)))
    regions = [WorstRegion(name, Window(0, 0, 10, 10), wrong, 100, picture) for name, wrong in (("a", 5), ("b", 50), ("c", 0))]
    assert [region.scene for region in Evaluation(LEGEND, worst=regions).worst_regions(4)] == ["b", "a"]
    assert regions[1].described == "b, rows 0 to 10, columns 0 to 10: 50% of labeled pixels wrong"


def test_pictures_show_classes_and_errors_in_color() -> None:
    labels, truth = np.array([[0, 1, 255]], np.uint8), np.array([[0, 0, 255]], np.uint8)
    assert colored(labels, LEGEND).tolist() == [[[1, 2, 3], [255, 0, 0], [90, 90, 90]]]
    assert errors(truth, labels).tolist() == [[[235, 235, 235], [200, 30, 30], [90, 90, 90]]]
    assert as_rgb(np.zeros((1, 4, 5), np.uint8)).shape == (4, 5, 3)

    assert side_by_side([colored(labels, LEGEND)] * 3).shape == (1, 3 * 3 + 2 * 4, 3)
    assert [decimation(Shape(*shape), 400) for shape in ((400, 10), (401, 10), (10, 4000))] == [1, 2, 10]


def test_pictures_show_red_green_and_blue_by_name_and_stretch_what_is_not_8_bit() -> None:
    bands = Bands(("nir", "blue", "green", "red"), (0.5,) * 4, (0.2,) * 4)
    image = np.arange(4 * 20, dtype=np.uint8).reshape(4, 4, 5)
    assert (as_rgb(image, bands) == np.moveaxis(image[[3, 2, 1]], 0, -1)).all()
    dark = replace(bands, scaling=ScalingRule.REFLECTANCE)
    shown = as_rgb(image.astype(np.float32) / 10, dark)
    assert (shown.dtype, shown.min(), shown.max()) == (np.uint8, 0, 255)
    height = Bands(("height",), (0.1,), (0.1,), ValueRange(0, 30))
    assert as_rgb(np.full((1, 4, 5), np.nan, np.float32), height).shape == (4, 5, 3)


def test_a_specimen_shows_its_region_as_it_is() -> None:
    one = specimen(batch(), BANDS, LEGEND)
    image = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(one.picture, np.moveaxis((image * 255).round().numpy(), 0, -1), atol=1)
    assert one.panel({"s_glb": np.zeros((96, 96), np.uint8)}).shape == (96, 3 * 96 + 2 * 4, 3)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["s_glb", "s_loc", "s_agg"]),
        ({"sharing": Sharing.BIDIRECTIONAL}, ["s_glb", "s_loc", "s_agg"]),
        ({"branches": Branches.GLOBAL, "sharing": Sharing.NONE, "aggregate": False}, ["s_glb"]),
        ({"branches": Branches.LOCAL, "sharing": Sharing.NONE, "aggregate": False}, ["s_loc"]),
    ],
)
def test_every_branch_shows_what_it_sees_and_keeps_its_mode(changes: dict[str, object], names: list[str]) -> None:
    torch.manual_seed(0)
    network = GLNet(ModelConfig(2, "mobilenet_v2", pyramid_channels=8, smooth_channels=4, **changes)).train()
    for part in network.children():
        part.eval()
    found = branch_labels(network, batch())
    assert list(found) == names
    assert all(labels.shape == (96, 96) and labels.max() <= 1 for labels in found.values())
    assert network.training
    assert not any(part.training for part in network.children())


class FakeTrainer:
    """As much of a trainer as a log looks at."""

    is_global_zero = True
    callback_metrics: ClassVar = {"loss": torch.tensor(0.5)}


def log_steps(folder: Path, stage: Stage, first: int, last: int) -> None:
    torch.manual_seed(0)
    network = GLNet(ModelConfig(2, "mobilenet_v2", pyramid_channels=8, smooth_channels=4))
    task = StageTask(network, stage, OptimConfig(), steps=16)
    task.done = first
    log = RunLog(folder, stage, [specimen(batch(), BANDS, LEGEND)])
    log.on_train_start(FakeTrainer(), task)
    for step in range(first, last):
        task.done = step + 1
        log.on_train_batch_end(FakeTrainer(), task, None, None, step)
    log.teardown(FakeTrainer(), task, "fit")


def test_a_log_goes_on_where_an_interrupted_run_resumes(tmp_path: Path) -> None:
    log_steps(tmp_path, Stage.GLOBAL, 0, 4)
    log_steps(tmp_path, Stage.LOCAL, 0, 5)
    log_steps(tmp_path, Stage.LOCAL, 3, 6)
    assert [(p.stage, p.step) for p in read_losses(tmp_path)] == [
        *(("global", step) for step in range(4)), *(("local", step) for step in range(6))
    ]  # fmt: skip
    log_steps(tmp_path, Stage.GLOBAL, 2, 3)
    assert [(p.stage, p.step) for p in read_losses(tmp_path)] == [("global", step) for step in range(3)]
    forget_losses(tmp_path)
    assert read_losses(tmp_path) == []


def test_tensorboard_gets_losses_and_pictures(tmp_path: Path) -> None:
    log_steps(tmp_path, Stage.GLOBAL, 0, 4)
    events = EventAccumulator(str(tmp_path / "global"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    (tag,) = events.Tags()["images"]
    assert tag == "scene, truth, s_glb, s_loc, s_agg/0"
    assert [event.step for event in events.Images(tag)] == [0, 2, 4]


def test_a_log_that_cannot_be_written_is_named_and_its_thread_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file cannot be written \(File exists\); .* continue with resume=True"):
        log_steps(tmp_path / "file", Stage.GLOBAL, 0, 1)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    silence_lightning()

    class Writer(threading.Thread):
        __module__ = "tensorboard.summary"

        def run(self) -> None:
            raise self._args[0]  # type: ignore[attr-defined]

    for error, said in ((OSError("no room"), False), (ValueError("a bug"), True)):
        thread = Writer(args=(error,))
        thread.start()
        thread.join()
        assert (str(error) in capsys.readouterr().err) is said


def test_scenes_in_memory_are_scenes() -> None:
    scene = DecodedScene("a", LabeledRegion(np.zeros((3, 5, 6), np.uint8), np.ones((5, 6), np.uint8)))
    assert scene.shape == (5, 6)
    assert scene.read_labels(slice(1, 3), slice(0, 2)).shape == (2, 2)
