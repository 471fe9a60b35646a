"""Trainings that start from a model: what is taken over, what stays frozen, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch

from geoglnet.bands import Bands
from geoglnet.config import ScalingRule, Sharing, Stage
from geoglnet.errors import CheckpointError, ConfigError, ModelNotFoundError
from geoglnet.legend import Legend
from geoglnet.models.backbone import build_backbone, load_backbone_weights
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.network import build_network
from geoglnet.models.transfer import blend, transfer
from geoglnet.progress import RecordedProgress
from geoglnet.training.fit import Start, fit, make_manifest
from geoglnet.training.stages import stages_of
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import OptimConfig, TrainConfig, read_config
from tests.rasters import write_raster

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning", "ignore:.*does not have many workers.*")

CONFIG = """
name = "first"
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
images = "image.tif"
labels = "label.tif"
pixel_size_m = 1.0
[sample]
region_size = 96
patch_size = 64
patches_per_region = 1
[optim]
global_steps = 1
local_steps = 1
batch_size = 2
backbone_weights = ""
"""
SECOND = """
name = "second"
[[train]]
images = "image.tif"
labels = "label.tif"
pixel_size_m = 1.0
[optim]
from = "FIRST"
local_steps = 2
batch_size = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with its labels, and an untrained model of it."""
    folder = tmp_path_factory.mktemp("start")
    rng = np.random.default_rng(0)
    roofs = np.kron(rng.random((8, 8)) < 0.4, np.ones((16, 16))).astype(np.uint8)
    image = (np.where(roofs, 200, 60)[None] + rng.integers(-30, 30, (3, *roofs.shape))).astype(np.uint8)
    write_raster(folder / "image.tif", image)
    write_raster(folder / "label.tif", roofs[None])
    (folder / "first.toml").write_text(CONFIG)
    config = read_config(folder / "first.toml")
    torch.manual_seed(1)
    save_checkpoint(folder / "first.safetensors", build_network(config.model), make_manifest(config))
    (folder / "second.toml").write_text(SECOND.replace("FIRST", str(folder / "first.safetensors")))
    return folder


@pytest.fixture
def second(folder: Path) -> TrainConfig:
    return read_config(folder / "second.toml")


def test_what_a_configuration_leaves_out_is_the_models(folder: Path, second: TrainConfig) -> None:
    first = read_config(folder / "first.toml")
    assert (second.model, second.region, second.sample) == (first.model, first.region, first.sample)
    assert (second.legend, second.resolution_m) == (first.legend, first.resolution_m)
    assert (second.optim.recipe, second.optim.frozen) == ("adapt", ("global", "statistics"))
    assert second.data["start"].startswith("first ")
    changed = read_config(folder / "second.toml", {"optim.recipe": "paper", "region.margin": 32})
    assert (changed.optim.frozen, changed.region) == ((), replace(first.region, margin=32))


def test_a_training_starts_from_the_model_and_leaves_what_is_frozen(folder: Path, second: TrainConfig, tmp_path: Path) -> None:
    progress = RecordedProgress()
    fit(second, folder, tmp_path / "second.safetensors", progress=progress)
    before, after = (
        load_checkpoint(path)[0].state_dict() for path in (folder / "first.safetensors", tmp_path / "second.safetensors")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("global_branch") or "running" in name for name in changed)
    plans = [event["stage"] for event in progress.events if event["event"] == "plan"]
    assert "local stage" in plans
    assert "global stage" not in plans
    distance = max(float((before[name] - after[name]).abs().max()) for name in changed)
    assert distance < 0.01  # it has not begun from random weights


def test_classes_keep_their_logits_by_name_and_bands_their_weights(folder: Path) -> None:
    first, manifest = load_checkpoint(folder / "first.safetensors")
    legend = Legend(("roof", "water", "ground"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
    bands = Bands(("nir", "blue", "red"), (0.5,) * 3, (0.2,) * 3, ScalingRule.AS_IS)
    config = replace(manifest.model, num_classes=3)
    torch.manual_seed(2)
    network = build_network(config)
    drawn = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    whole = transfer(network, legend, bands.names, first, manifest, "first")
    ours, theirs = network.state_dict(), first.state_dict()
    assert torch.equal(ours["f_agg.weight"][0], theirs["f_agg.weight"][1])
    assert torch.equal(ours["f_agg.weight"][2], theirs["f_agg.weight"][0])
    assert torch.equal(ours["f_agg.weight"][1], drawn["f_agg.weight"][1])
    stem = next(name for name in theirs if name.endswith("weight") and theirs[name].shape[1:2] == (3,))
    assert torch.allclose(ours[stem][:, 1], theirs[stem][:, 2])
    assert torch.allclose(ours[stem][:, 0], theirs[stem].mean(dim=1))
    assert "f_agg.weight" not in whole
    assert stem in whole


def test_another_number_of_bands_is_started_from(folder: Path) -> None:
    first, manifest = load_checkpoint(folder / "first.safetensors")
    network = build_network(replace(manifest.model, in_channels=4))
    transfer(network, manifest.legend, ("red", "green", "blue", "nir"), first, manifest, "first")
    stems = [name for name, tensor in network.state_dict().items() if tensor.ndim == 4 and tensor.shape[1] == 4]
    assert all(torch.allclose(network.state_dict()[n][:, 0], first.state_dict()[n][:, 0] * 0.75) for n in stems[:1])


def test_another_architecture_is_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model.pyramid_channels = 8, not 16; leave it out"):
        fit(read_config(folder / "second.toml", {"model.pyramid_channels": 16}), folder, folder / "no.safetensors")
    with pytest.raises(ModelNotFoundError, match="did you mean 'buildings'"):
        read_config(folder / "second.toml", {"optim.from": "building"})


def test_the_refined_branch_of_the_model_is_gone_on_from(folder: Path, second: TrainConfig) -> None:
    first, manifest = load_checkpoint(folder / "first.safetensors")
    network = build_network(replace(manifest.model, sharing=Sharing.BIDIRECTIONAL))
    whole = transfer(network, manifest.legend, manifest.bands.names, first, manifest, "first")
    assert not any(name.startswith("refined_branch") for name in whole)  # begin() makes it of the global branch
    again = build_network(network.config)
    assert "refined_branch.pyramid.fuse.weight" in transfer(
        again, manifest.legend, manifest.bands.names, network, replace(manifest, model=network.config), "second"
    )


def test_averages_lie_between_start_and_end() -> None:
    network = torch.nn.Linear(2, 1)
    end = network.weight.detach().clone()
    blend(network, {"weight": torch.ones(1, 2)}, 0.25)  # type: ignore[arg-type]
    assert torch.allclose(network.weight, 0.25 + 0.75 * end)


def test_statistics_and_backbones_can_be_frozen(second: TrainConfig) -> None:
    network = build_network(second.model)
    task = StageTask(network, Stage.LOCAL, replace(second.optim, frozen=("statistics", "backbone")), 2).train()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert not any(p.requires_grad for part in network.backbones() for p in part.parameters())
    assert any(p.requires_grad for p in task.parameters())


def test_frozen_branches_have_no_stage(second: TrainConfig) -> None:
    optim = replace(second.optim, frozen=("global",), is_joint=True)
    assert stages_of(second.model, optim) == (Stage.LOCAL,)
    assert stages_of(second.model, replace(optim, frozen=())) == (Stage.JOINT,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frozen": ("globl",)}, "did you mean 'global'"),
        ({"start_share": 1.0}, "must be from 0 to below 1"),
        ({"start_share": 0.5}, "name it with from"),
    ],
)
def test_what_cannot_be_started_from_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OptimConfig(**changes)


def test_a_training_with_nothing_to_train_is_refused(folder: Path, second: TrainConfig, tmp_path: Path) -> None:
    path = folder / "first.safetensors"
    with pytest.raises(ConfigError, match=r"nothing to train: all branches are taken from .*start_from="):
        fit(read_config(folder / "first.toml"), folder, tmp_path / "m.safetensors", start=Start(branches_from=path))
    frozen = replace(second, optim=replace(second.optim, frozen=("global", "local")))
    with pytest.raises(ConfigError, match="nothing to train: frozen"):
        fit(frozen, folder, tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="would stay random"):
        fit(read_config(folder / "first.toml", {"optim.frozen": ["global"]}), folder, tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="but not both"):
        fit(second, folder, tmp_path / "m.safetensors", start=Start(branches_from=path))
    assert not (tmp_path / "m.safetensors").exists()


def test_without_a_network_a_shipped_model_gives_its_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("geoglnet.models.backbone._imagenet_state", offline)
    backbone, progress = build_backbone("mobilenet_v2"), RecordedProgress()
    load_backbone_weights(backbone, "imagenet", progress=progress)
    shipped, _ = load_checkpoint(Path(__file__).parents[2] / "geoglnet/weights/buildings.safetensors")
    theirs = next(iter(shipped.backbones())).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in backbone.state_dict().items() if tensor.ndim)
    assert "the backbone of the shipped model buildings is taken" in str(progress.events)
    with pytest.raises(CheckpointError, match="no shipped model has that backbone"):
        load_backbone_weights(build_backbone("resnet18"), "imagenet")
