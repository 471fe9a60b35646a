"""A training that is killed and resumed ends with the weights of one that was not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from geoglnet.cli.main import geoglnet
from geoglnet.config import Sharing, Stage
from geoglnet.datasets.sources import source_files
from geoglnet.errors import CheckpointError, OutputError, OutputExistsError
from geoglnet.output import OutputFile
from geoglnet.training.fit import Start, fit, stage_path
from geoglnet.training.savepoint import Savepoint, read_savepoint, savepoint_path, write_savepoint
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import OptimConfig, TrainConfig, read_config
from tests.networks import small

CONFIG = """
name = "toy"
resolution_m = 1.0
assumed_pixel_size_m = 1.0
legend.classes = [{name = "ground", color = [1, 1, 1]}, {name = "roof", color = [255, 0, 0]}]
model = {backbone = "mobilenet_v3_small", pyramid_channels = 8, smooth_channels = 4, sharing = "bidirectional"}
region = {region_size = 96, overview_size = 48, patch_size = 64, patch_overlap = 16, margin = 16}
sample = {region_size = 96, patch_size = 64, patches_per_region = 1}
[[train]]
images = "image.tif"
labels = "label.tif"
pixel_size_m = 1.0
[optim]
global_steps = 3
local_steps = 4
bidirectional_steps = 2
batch_size = 2
cosine = true
ema_decay = 0.8
save_every_s = 0.0
backbone_weights = ""
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (3, 160, 160), dtype=np.uint8)
    labels = (image[0] > 127).astype(np.uint8)
    for name, array in (("image.tif", image), ("label.tif", labels[None])):
        profile = {"driver": "GTiff", "dtype": "uint8", "count": len(array), "height": 160, "width": 160}
        with rasterio.open(
            tmp_path / name, "w", crs="EPSG:32633", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), **profile
        ) as dst:
            dst.write(array)
    (tmp_path / "toy.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def command(folder: Path, name: str, *more: str) -> list[str]:
    paths = [str(folder / "toy.toml"), "--data", str(folder), "-o", str(folder / name)]
    return [sys.executable, "-m", "geoglnet", "train", *paths, "--progress", "json", *more]


@pytest.mark.parametrize(
    "steps",  # in the global, the local and the bidirectional stage
    [
        pytest.param(2, marks=pytest.mark.slow),
        pytest.param(5, marks=pytest.mark.smoke),
        pytest.param(8, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_weights(folder: Path, steps: int) -> None:
    fit(read_config(folder / "toy.toml"), folder, folder / "whole.safetensors")
    expected = load_file(folder / "whole.safetensors")
    with subprocess.Popen(
        command(folder, "cut.safetensors", "--set", "optim.workers=1"),
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    ) as running:
        for line in running.stdout:
            steps -= '"progress"' in line and ' stage"' in line
            if steps <= 0:
                break
        running.kill()
        running.communicate(timeout=60)  # ends when no process holds the pipe any more: its worker has gone too
    assert savepoint_path(folder / "cut.safetensors").exists()
    refused = CliRunner().invoke(geoglnet, command(folder, "cut.safetensors")[3:])
    assert refused.exit_code == 1
    assert "--resume" in refused.stderr
    assert CliRunner().invoke(geoglnet, command(folder, "cut.safetensors", "--resume")[3:]).exit_code == 0
    got = load_file(folder / "cut.safetensors")
    assert all(torch.equal(tensor, got[key]) for key, tensor in expected.items())
    assert not savepoint_path(folder / "cut.safetensors").exists()


@pytest.fixture
def config(folder: Path) -> TrainConfig:
    return read_config(folder / "toy.toml")


def test_another_configuration_is_refused_with_the_difference_named(tmp_path: Path, config: TrainConfig) -> None:
    path = savepoint_path(tmp_path / "m.safetensors")
    write_savepoint(path, config, Savepoint(Stage.LOCAL, {"done": 3}))
    assert read_savepoint(path, config) == Savepoint(Stage.LOCAL, {"done": 3})
    seldom = replace(config, optim=replace(config.optim, save_every_s=100.0))
    assert read_savepoint(path, seldom).stage is Stage.LOCAL
    other = replace(config, optim=replace(config.optim, gamma=1.0))
    with pytest.raises(CheckpointError, match=r"optim.gamma was 6.0 and is 1.0"):
        read_savepoint(path, other)


def test_a_training_keeps_the_precision_that_it_began_with(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Mock()
    optim = replace(config.optim, precision="auto", save_every_s=0.0)
    config = replace(config, optim=optim)
    monkeypatch.setattr("geoglnet.training.devices.has_bfloat16", lambda _: True)
    with monkeypatch.context() as patch:
        patch.setattr("geoglnet.training.fit.save_checkpoint", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(config, tmp_path, tmp_path / "m.safetensors", progress=said)
    assert "trains in bf16-mixed (optim.precision = auto)" in str(said.log.call_args_list)
    monkeypatch.setattr("geoglnet.training.devices.has_bfloat16", lambda _: False)
    with pytest.raises(CheckpointError, match=r"optim\.precision was 'bf16-mixed' and is '32-true'"):
        fit(config, tmp_path, tmp_path / "m.safetensors", start=Start(resume=True))


def test_a_savepoint_that_cannot_be_written_is_named(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 472\nframe #0")

    path = savepoint_path(tmp_path / "m.safetensors")
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OutputError, match=r"m.resume.pt cannot be written \(\[enforce fail .* 472.*\); choose another"):
        write_savepoint(path, config, Savepoint(Stage.LOCAL, {"done": 3}))
    assert list(tmp_path.glob("m.*")) == []


def test_what_is_no_savepoint_is_refused(tmp_path: Path, config: TrainConfig) -> None:
    path = tmp_path / "m.resume.pt"
    with pytest.raises(CheckpointError, match="nothing to resume"):
        read_savepoint(path, config)
    write_savepoint(path, config, Savepoint(Stage.LOCAL, {"done": 3}))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="not a whole savepoint"):
        read_savepoint(path, config)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "none"}, {"stage": []}, {"state": 5}, {"config": "["}, {"config": 5}, {"config": "[" * 900 + "]" * 900},
        {"config": "5"},
    ],
)  # fmt: skip
def test_a_savepoint_with_something_else_in_it_is_refused(tmp_path: Path, config: TrainConfig, change: dict[str, Any]) -> None:
    path = tmp_path / "m.resume.pt"
    write_savepoint(path, config, Savepoint(Stage.LOCAL, {"done": 3}))
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(CheckpointError, match=r"not a whole savepoint|belongs to another configuration"):
        read_savepoint(path, config)


@pytest.mark.parametrize(
    "change", [{"done": -1}, {"done": "x"}, {"done": 10**9}, {"network": {}}, {"network": 5}, {"random": 1}, {"optimizer": {}}]
)
def test_a_state_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    network = small()
    task = StageTask(network, Stage.GLOBAL, OptimConfig(), 10)
    task.optimizers = lambda: Mock(optimizer=torch.optim.Adam(network.parameters()))  # type: ignore[method-assign]
    task.lr_schedulers = lambda: None  # type: ignore[method-assign]
    state = task.state() | change

    def go_on() -> None:
        task.restore(state)
        task.on_train_start()

    with pytest.raises(CheckpointError, match=r"savepoint.*start the training anew"):
        go_on()


def test_a_training_replaces_none_of_its_inputs(folder: Path, tmp_path: Path, config: TrainConfig) -> None:
    image = next(path for source in config.train for path in source_files(source, folder))
    taken = tmp_path / "taken.safetensors"
    for name, source, start in (
        ("linked.safetensors", image, Start()),
        ("m.global.safetensors", image, Start()),
        ("m.safetensors", taken, Start(branches_from=taken)),
    ):
        taken.write_text("a checkpoint")
        os.link(source, tmp_path / name) if source != taken else (tmp_path / name).symlink_to(taken)
        checkpoint = tmp_path / ("linked.safetensors" if name.startswith("linked") else "m.safetensors")
        with pytest.raises(OutputError, match=rf"{name} is (a training file|the checkpoint to start from); choose another"):
            fit(config, folder, checkpoint, start=start, overwrite=True)
        (tmp_path / name).unlink()


def test_what_a_training_did_not_make_is_not_thrown_away(folder: Path, tmp_path: Path, config: TrainConfig) -> None:
    checkpoint = tmp_path / "m.safetensors"
    savepoint_path(checkpoint).write_text("notes")
    with pytest.raises(OutputError, match="is not a savepoint of a training"):
        fit(config, folder, checkpoint, overwrite=True)
    assert savepoint_path(checkpoint).read_text() == "notes"
    savepoint_path(checkpoint).unlink()
    (tmp_path / "m.run").mkdir()
    (tmp_path / "m.run" / "scores.csv").write_text("of an earlier one")
    with pytest.raises(OutputExistsError, match=r"scores\.csv exists"):
        fit(config, folder, checkpoint)


def test_two_trainings_of_one_checkpoint_exclude_each_other(folder: Path, tmp_path: Path, config: TrainConfig) -> None:
    checkpoint = tmp_path / "m.safetensors"
    for path in (checkpoint, stage_path(checkpoint, Stage.GLOBAL)):
        with OutputFile(path).claimed(), pytest.raises(OutputError, match=f"another run is writing {path.name}"):
            fit(config, folder, checkpoint)
    assert {path.name for path in tmp_path.iterdir()} == {"image.tif", "label.tif", "toy.toml"}


def test_a_training_that_ended_while_it_was_scored_is_only_scored(
    folder: Path, tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    optim = replace(config.optim, global_steps=1, local_steps=1, save_every_s=3600.0, precision="32-true")
    model = replace(config.model, sharing=Sharing.GLOBAL_TO_LOCAL)  # two stages are enough here
    config = replace(config, model=model, validation=config.train, optim=optim)
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    fit(config, folder, whole)
    with monkeypatch.context() as patch:
        patch.setattr("geoglnet.training.fit.score", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(config, folder, cut)
    assert not savepoint_path(cut).exists()
    with pytest.raises(OutputExistsError, match=r"cut\.safetensors: a training was interrupted here; pass resume=True"):
        fit(config, folder, cut)
    # A savepoint that is newer is of another training, which was to replace this one: it is what is resumed.
    write_savepoint(savepoint_path(cut), config, Savepoint(Stage.LOCAL, {}))
    os.utime(savepoint_path(cut), ns=(cut.stat().st_mtime_ns + 10**9,) * 2)
    with pytest.raises(CheckpointError, match="the savepoint counts"):
        fit(config, folder, cut, start=Start(resume=True))
    savepoint_path(cut).unlink()
    monkeypatch.setattr("geoglnet.training.fit.run_stage", Mock(side_effect=AssertionError("trained again")))
    fit(config, folder, cut, start=Start(resume=True))
    assert cut.read_bytes() == whole.read_bytes()
    assert (tmp_path / "cut.run" / "scores.json").read_bytes() == (tmp_path / "whole.run" / "scores.json").read_bytes()
    with pytest.raises(OutputExistsError, match=r"cut\.safetensors exists"):
        fit(config, folder, cut, start=Start(resume=True))
