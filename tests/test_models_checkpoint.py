"""Checkpoints: whole, ours, readable without torch, refused in one line otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from geoglnet.config import ModelConfig, RegionConfig, from_plain, to_plain
from geoglnet.errors import CheckpointError, ConfigError, ModelNotFoundError, OutputExistsError
from geoglnet.legend import Legend
from geoglnet.models.backbone import build_backbone, load_backbone_weights
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import FORMAT_VERSION, MANIFEST_KEY, Manifest, model_digest, read_manifest
from geoglnet.models.registry import model_path

LEGEND = Legend(("background", "building"), ((0, 0, 0), (200, 60, 40)), background=0)
MANIFEST = Manifest(
    name="test",
    model=ModelConfig(2, "mobilenet_v2", pyramid_channels=8, smooth_channels=4),
    region=RegionConfig(96, 48, 48, 16, 16),
    legend=LEGEND,
    resolution_m=0.2,
    resolution_range_m=(0.1, 0.4),
    assumed_pixel_size_m=0.2,
    training={"licence": "none", "split": ["a", "b"]},
    metrics={"building": 0.5},
)


@pytest.fixture
def network() -> GLNet:
    torch.manual_seed(1)
    return GLNet(MANIFEST.model).eval()


@pytest.fixture
def path(tmp_path: Path, network: GLNet) -> Path:
    save_checkpoint(tmp_path / "model.safetensors", network, MANIFEST)
    return tmp_path / "model.safetensors"


def test_a_checkpoint_gives_back_network_and_manifest(path: Path, network: GLNet) -> None:
    loaded, manifest = load_checkpoint(path)
    assert manifest == MANIFEST
    assert not loaded.training
    assert all(t.dtype is torch.float32 for t in loaded.state_dict().values() if t.is_floating_point())
    overview, patch, whole = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 64), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    with torch.inference_mode():
        expected, got = (n(overview, patch, whole)[1].final for n in (network, loaded))
    assert (expected - got).abs().max() < 5e-3 * expected.abs().max()


def test_full_precision_is_exact(tmp_path: Path, network: GLNet) -> None:
    save_checkpoint(tmp_path / "full.safetensors", network, MANIFEST, half=False)
    loaded, _ = load_checkpoint(tmp_path / "full.safetensors")
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in network.state_dict().items())


def test_a_checkpoint_is_not_overwritten_unasked(path: Path, network: GLNet) -> None:
    before = model_digest(path)
    with pytest.raises(OutputExistsError, match="overwrite"):
        save_checkpoint(path, network, MANIFEST)
    assert model_digest(path) == before


def test_others_may_read_what_the_umask_lets_them(path: Path) -> None:
    beside = path.with_suffix(".txt")
    beside.touch()
    assert path.stat().st_mode == beside.stat().st_mode


def test_reading_a_manifest_loads_no_torch(path: Path) -> None:
    code = (
        "import sys; from geoglnet.models.manifest import read_manifest;"
        f"read_manifest({str(path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", [0, 4, 100, -5])
def test_a_truncated_file_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    for read in (read_manifest, load_checkpoint):
        with pytest.raises(CheckpointError, match=r"not a whole safetensors file|does not hold"):
            read(path)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="without a geoglnet manifest"):
        load_checkpoint(foreign)
    (tmp_path / "pickle.pth").write_bytes(b"\x80\x04garbage that nobody unpickles")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(tmp_path / "pickle.pth")
    with pytest.raises(CheckpointError, match="no model file"):
        load_checkpoint(tmp_path / "absent.safetensors")


def rewrite(path: Path, **changes: object) -> None:
    header = {"format_version": FORMAT_VERSION, **MANIFEST.to_dict(), **changes}
    save_file(load_file(path), path, metadata={MANIFEST_KEY: json.dumps(header)})


def test_a_newer_format_asks_for_an_upgrade(path: Path) -> None:
    rewrite(path, format_version=FORMAT_VERSION + 1)
    with pytest.raises(CheckpointError, match="upgrade geoglnet"):
        read_manifest(path)


def test_a_manifest_that_does_not_fit_the_tensors_is_refused(path: Path) -> None:
    rewrite(path, model=to_plain(replace(MANIFEST.model, pyramid_channels=16)))
    with pytest.raises(CheckpointError, match="does not hold the network"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "changes", [{"legend": None}, {"model": {"backbone": "resnet999"}}, {"unheard_of": 1}, {"mean": [0.5]}]
)
def test_a_manifest_that_cannot_be_used_is_refused(path: Path, changes: dict[str, object]) -> None:
    rewrite(path, **changes)
    with pytest.raises(CheckpointError, match="manifest cannot be used"):
        read_manifest(path)


def test_a_manifest_checks_its_parts_against_each_other() -> None:
    with pytest.raises(ConfigError, match="3 classes, its legend 2"):
        replace(MANIFEST, model=replace(MANIFEST.model, num_classes=3))


def test_configs_survive_the_round_trip_through_plain_values() -> None:
    assert from_plain(ModelConfig, to_plain(MANIFEST.model)) == MANIFEST.model
    with pytest.raises(ConfigError, match="did you mean 'backbone'"):
        from_plain(ModelConfig, {"num_classes": 2, "backbon": "resnet18"})


def test_an_unknown_model_name_suggests_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoglnet.models.registry.shipped_models", lambda: ("buildings", "landcover"))
    with pytest.raises(ModelNotFoundError, match="did you mean 'buildings'"):
        model_path("bulidings")


@pytest.mark.parametrize("bands", [3, 5])
def test_backbone_weights_load_from_a_local_file(tmp_path: Path, bands: int) -> None:
    source = build_backbone("resnet18")
    save_file(source.state_dict(), tmp_path / "resnet18.safetensors")
    target = build_backbone("resnet18", in_channels=bands)
    load_backbone_weights(target, str(tmp_path / "resnet18.safetensors"))
    assert torch.equal(source.layer4[0].conv1.weight, target.layer4[0].conv1.weight)
    grey = torch.full((1, bands, 64, 64), 0.3)
    if bands == 3:
        torch.testing.assert_close(source.eval()(grey)[0], target.eval()(grey)[0])
    else:
        torch.testing.assert_close(source.conv1(torch.full((1, 3, 64, 64), 0.3)), target.conv1(grey), rtol=1e-3, atol=1e-4)


def test_backbone_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(build_backbone("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    with pytest.raises(CheckpointError, match="lacks"):
        load_backbone_weights(build_backbone("mobilenet_v2"), str(tmp_path / "resnet18.safetensors"))
    with pytest.raises(CheckpointError, match="no backbone weights"):
        load_backbone_weights(build_backbone("resnet18"), str(tmp_path / "absent.safetensors"))
