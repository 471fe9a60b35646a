"""Training and evaluation on a small generated set: stages, baselines, errors, and a network that learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rasterio
import torch

import geoglnet
from geoglnet.config import ARCHITECTURES, Architecture, Branches, ScalingRule
from geoglnet.errors import CheckpointError, ConfigError, DatasetError, OutputExistsError
from geoglnet.legend import Legend
from geoglnet.metrics import ConfusionMatrix
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import Manifest, read_manifest
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.progress import RecordedProgress
from geoglnet.training.fit import Start, fit, global_only, local_only
from geoglnet.training.scoring import evaluate
from geoglnet.training.train_config import TrainConfig, read_config

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning", "ignore:.*does not have many workers.*")

CONFIG = """
name = "toy"
resolution_m = 1.0
assumed_pixel_size_m = 1.0
[legend]
classes = [{name = "ground", color = [1, 1, 1]}, {name = "roof", color = [255, 0, 0]}]
background = 0
[model]
backbone = "mobilenet_v3_small"
pyramid_channels = 8
smooth_channels = 4
[region]
region_size = 96
overview_size = 48
patch_size = 64
patch_overlap = 16
margin = 16
[[train]]
images = "*_image.tif"
labels = "*_label.tif"
pixel_size_m = 1.0
[[validation]]
images = "*_image.tif"
labels = "*_label.tif"
pixel_size_m = 1.0
[sample]
region_size = 96
patch_size = 64
patches_per_region = 1
[optim]
global_steps = 2
local_steps = 2
batch_size = 2
global_learning_rate = 0.01
local_learning_rate = 0.01
backbone_weights = ""
"""


class Trained(NamedTuple):
    """A checkpoint, its manifest, and what was reported while it came to be."""

    path: Path
    manifest: Manifest
    progress: RecordedProgress


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.toml").write_text(CONFIG)
    rng = np.random.default_rng(0)
    for name in "ab":
        roofs = np.kron(rng.random((10, 13)) < 0.3, np.ones((16, 16))).astype(np.uint8)[:150, :200]
        image = np.where(roofs, 200, 60)[None] + rng.integers(-30, 30, (3, *roofs.shape))
        labels = np.where(roofs, np.array([255, 0, 0])[:, None, None], 1)
        for kind, array in (("image", image), ("label", labels)):
            profile = {"driver": "GTiff", "width": 200, "height": 150, "count": 3, "dtype": "uint8"}
            with (
                pytest.warns(rasterio.errors.NotGeoreferencedWarning),
                rasterio.open(folder / f"{name}_{kind}.tif", "w", **profile) as dst,
            ):
                dst.write(array.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training of the configuration."""
    progress, path = RecordedProgress(), tmp_path_factory.mktemp("trained") / "toy.safetensors"
    return Trained(path, fit(read_config(folder / "toy.toml"), folder, path, progress=progress), progress)


@pytest.fixture
def config(folder: Path) -> TrainConfig:
    return read_config(folder / "toy.toml")


def test_training_writes_a_checkpoint_and_the_global_baseline(trained: Trained) -> None:
    assert read_manifest(trained.path) == trained.manifest
    assert set(trained.manifest.metrics["scenes"]) == {"a_image.tif", "b_image.tif"}
    events = trained.progress.events
    assert [e["stage"] for e in events if e["event"] == "plan"][1:3] == ["global stage", "local stage"]
    assert sum("loss" in e for e in events) == 4
    baseline, alone = load_checkpoint(trained.path.with_suffix(".global.safetensors"))
    assert alone.model.branches is Branches.GLOBAL
    whole, _ = load_checkpoint(trained.path)
    ours, theirs = whole.global_branch.state_dict(), baseline.global_branch.state_dict()
    assert all(torch.allclose(ours[n], theirs[n], rtol=2e-3, atol=1e-5) for n in ours)  # float16 beside float32


def test_a_trained_global_branch_can_be_gone_on_from(folder: Path, config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, validation=())
    fit(global_only(config), folder, tmp_path / "first.safetensors")
    progress = RecordedProgress()
    fit(config, folder, tmp_path / "second.safetensors", start=Start(tmp_path / "first.safetensors"), progress=progress)
    assert [e["stage"] for e in progress.events if e["event"] == "plan"][1:2] == ["local stage"]
    fit(local_only(config), folder, tmp_path / "local.safetensors")
    with pytest.raises(CheckpointError, match="no global branch"):
        fit(config, folder, tmp_path / "third.safetensors", start=Start(tmp_path / "local.safetensors"))


def test_the_same_seed_trains_the_same_weights(folder: Path, config: TrainConfig, tmp_path: Path, trained: Trained) -> None:
    fit(config, folder, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == trained.path.read_bytes()


def test_an_existing_checkpoint_stops_training_before_it_begins(folder: Path, config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "toy.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        fit(config, folder, tmp_path / "toy.safetensors")
    assert (tmp_path / "toy.safetensors").read_bytes() == b"precious"


@pytest.mark.slow
def test_a_network_learns_what_is_easy(folder: Path, tmp_path: Path) -> None:
    steps = {"optim.global_steps": 40, "optim.local_steps": 60, "optim.gamma": 2.0, "optim.cosine": True}
    fit(read_config(folder / "toy.toml", steps), folder, tmp_path / "toy.safetensors")
    evaluation = evaluate(str(tmp_path / "toy.safetensors"), folder / "toy.toml", folder)
    assert set(evaluation.scenes) == {"a_image.tif", "b_image.tif"}
    assert evaluation.total.to_dict()["roof"] > 0.6


def test_evaluation_refuses_another_legend(folder: Path, tmp_path: Path, trained: Trained) -> None:
    (tmp_path / "other.toml").write_text(CONFIG.replace("roof", "lake"))
    with pytest.raises(ConfigError, match="the model's classes are ground, roof"):
        evaluate(str(trained.path), tmp_path / "other.toml", folder)


def test_missing_training_data_are_named(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no file matches"):
        fit(config, tmp_path, tmp_path / "toy.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optim.gama", 2, "did you mean 'gamma'"),
        ("optim.batch_size", 0, "must be at least 1"),
        ("optim.batch_size", "six", "must be a whole number"),
        ("optim.precision", "8-bit", "bf16-mixed"),
        ("optim.fmreg", "cubic", "euclidean"),
        ("model.backbone", "resnet19", "did you mean 'resnet"),
        ("resolution", 1, "did you mean 'resolution_m'"),
        ("resolution_m", -1.0, "must be positive"),
        ("segment_resolution_m", 5.0, "outside the trained range 0.75 to 1.33 m"),
        ("sample.region_size.x", 1, "not a table"),
    ],
)
def test_a_wrong_setting_is_named(folder: Path, key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(folder / "toy.toml", {key: value})


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        read_config(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("name = [")
    with pytest.raises(ConfigError, match="not TOML"):
        read_config(tmp_path / "broken.toml")


def test_keys_as_older_versions_spelled_them_are_read_with_a_warning(folder: Path, config: TrainConfig, tmp_path: Path) -> None:
    former = (folder / "toy.toml").read_text().replace("color", "colour") + '[augment]\ncolour = 0.5\n[data]\nlicence = "CC0"\n'
    (tmp_path / "former.toml").write_text('scaling = "stretch"\n' + former)
    progress = RecordedProgress()
    read = read_config(tmp_path / "former.toml", progress=progress)
    assert read.legend == config.legend
    assert read.augment.color == 0.5
    assert read.data == {"license": "CC0"}
    (warning,) = progress.messages("warning")
    assert "colour is now color, licence is now license, scaling is now bands.scaling" in warning
    assert read.bands.scaling is ScalingRule.STRETCH


def test_the_number_of_bands_is_the_networks(folder: Path) -> None:
    bands = {"bands.names": ["nir"], "bands.mean": [0.5], "bands.std": [0.2]}
    assert read_config(folder / "toy.toml", bands).model.in_channels == 1
    with pytest.raises(ConfigError, match=r"model.in_channels = 3, but there are 1 bands \(nir\)"):
        read_config(folder / "toy.toml", bands | {"model.in_channels": 3})


def test_a_configuration_from_notepad_is_read(folder: Path, tmp_path: Path) -> None:
    text = (folder / "toy.toml").read_text(encoding="utf-8")
    (tmp_path / "notepad.toml").write_text(text, encoding="utf-8-sig", newline="\r\n")
    assert read_config(tmp_path / "notepad.toml") == read_config(folder / "toy.toml")


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "examples/configs").glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_configurations_can_be_read(path: Path) -> None:
    assert read_config(path).train


def test_scores_are_those_of_the_definition() -> None:
    matrix = ConfusionMatrix(Legend(("ground", "roof"), ((1, 1, 1), (255, 0, 0)), background=0))
    matrix.update(np.array([[0, 0, 1], [1, 255, 1]], np.uint8), np.array([[0, 1, 1], [1, 1, 255]], np.uint8))
    assert matrix.iou().tolist() == [1 / 2, 2 / 4]
    assert matrix.mean_iou() == 2 / 4  # the background class does not count
    with pytest.raises(ConfigError, match="the same grid"):
        matrix.update(np.zeros((2, 2), np.uint8), np.zeros((3, 2), np.uint8))


def test_the_configuration_in_the_readme_can_be_read(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(readme.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    assert read_config(tmp_path / "mine.toml").validation


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_new_family_of_networks_is_one_file_and_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "pixelwise", Architecture("tests.families:Pixelwise"))
    overrides = {
        "model.architecture": "pixelwise",
        "optim.local_steps": 80,
        "optim.gamma": 0.0,
        "optim.local_learning_rate": 0.03,
    }
    path = tmp_path / "pixelwise.safetensors"
    manifest = fit(read_config(folder / "toy.toml", overrides), folder, path)
    assert manifest.metrics["total"]["roof"] > 0.9  # trained and scored
    network, _ = load_checkpoint(path)
    assert type(network).__name__ == "Pixelwise"
    geoglnet.predict(folder / "a_image.tif", tmp_path / "labels.tif", model=path, config=PredictConfig(device="cpu"))
    with rasterio.open(tmp_path / "labels.tif") as labels, rasterio.open(folder / "a_label.tif") as truth:
        assert ((labels.read(1) == 1) == (truth.read(1) == 255)).mean() > 0.95
