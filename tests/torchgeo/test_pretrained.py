"""TorchGeo's pretrained weights in our backbones, and our networks in TorchGeo's manner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchgeo.models import ResNet18_Weights, ResNet50_Weights
from torchvision.models._api import WeightsEnum

import geoglnet
from geoglnet.bands import Bands, ValueRange
from geoglnet.config import ScalingRule
from geoglnet.errors import CheckpointError, ConfigError
from geoglnet.models.backbone import build_backbone, load_backbone_weights
from geoglnet.raster.band_names import SENTINEL_2
from geoglnet.torchgeo import GLNet_Weights
from geoglnet.torchgeo.pretrained import BandTransforms, bands_of

ALL = tuple(SENTINEL_2.values())
MOCO = ResNet18_Weights.SENTINEL2_ALL_MOCO
State = dict[str, torch.Tensor]


def timm_state(name: str, count: int) -> State:
    """The state that TorchGeo's files have: timm's network without its classifier, here with random weights."""
    torch.manual_seed(3)
    network = timm.create_model(name, in_chans=count)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return {key: tensor for key, tensor in network.state_dict().items() if not key.startswith("fc.")}


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> State:
    """TorchGeo downloads this instead of its files."""
    made = timm_state("resnet18", 13)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: made)
    return made


@pytest.mark.smoke
def test_a_backbone_with_torchgeos_weights_computes_what_its_own_network_does(state: State) -> None:
    """Band order, normalization of batches, strides: timm's network with features_only is the reference."""
    theirs = timm.create_model("resnet18", in_chans=13, features_only=True, out_indices=(1, 2, 3, 4))
    theirs.load_state_dict(state)
    ours = build_backbone("resnet18", 13)
    load_backbone_weights(ours, str(MOCO), ALL)
    image = torch.rand(2, 13, 64, 96)
    with torch.inference_mode():
        for one, other in zip(ours.eval()(image), theirs.eval()(image), strict=True):
            torch.testing.assert_close(one, other)


def test_bands_find_their_weights_by_common_name_or_by_code_in_any_order(state: State) -> None:
    stem = state["conv1.weight"]
    for bands in (("nir", "red", "swir22"), ("B8", "B04", "b12"), ("B08", "red", "B12")):
        ours = build_backbone("resnet18", 3)
        load_backbone_weights(ours, "ResNet18_Weights.SENTINEL2_ALL_MOCO", bands)
        torch.testing.assert_close(ours.conv1.weight.data, stem[:, [7, 3, 12]] * (13 / 3))
    mixed = build_backbone("resnet18", 2)
    load_backbone_weights(mixed, str(MOCO), ("height", "nir08"))
    torch.testing.assert_close(mixed.conv1.weight.data, torch.stack([stem.mean(dim=1), stem[:, 8]], dim=1) * 6.5)
    with pytest.raises(ConfigError, match="knows none of the bands height, vv; name them by codes or common names: coastal"):
        load_backbone_weights(mixed, str(MOCO), ("height", "vv"))
    with pytest.raises(ConfigError, match=r"TorchGeo has no weights 'ResNet18_Weights\.NOTHING'"):
        load_backbone_weights(mixed, "ResNet18_Weights.NOTHING", ALL)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_are_read_from_a_file_too(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    state, path = timm_state("resnet50", 13), tmp_path / f"resnet50_sentinel2_all_moco{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    ours = build_backbone("resnet50", 13)
    load_backbone_weights(ours, str(path), ALL)
    assert all(torch.equal(tensor, state[key]) for key, tensor in ours.state_dict().items())
    with pytest.raises(CheckpointError, match="takes 13 bands, resnet50 4; use weights for red, green and blue"):
        load_backbone_weights(build_backbone("resnet50", 4), str(path), ("red", "green", "blue", "nir"))
    inside = build_backbone("timm/resnet50", 13)  # a library's own network
    load_backbone_weights(inside, str(path), ALL)
    assert torch.equal(inside.body.conv1.weight, state["conv1.weight"])


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Path}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth is not a state of weights"):
        load_backbone_weights(build_backbone("resnet18"), str(tmp_path / "evil.pth"))


@pytest.mark.parametrize(
    "weights", [w for w in (*ResNet18_Weights, *ResNet50_Weights) if hasattr(w.transforms, "modules") and "CLOSP" not in w.name]
)
def test_bands_are_scaled_and_normalized_as_the_weights_transforms_do(weights: WeightsEnum) -> None:
    bands = bands_of(weights)
    assert len(bands) == weights.meta["in_chans"]
    lows, highs = zip(*((rule.low, rule.high) for rule in bands.rules if isinstance(rule, ValueRange)), strict=True)
    low, high = (torch.tensor(values)[:, None, None] for values in (lows, highs))
    image = low + (high - low) * torch.rand(len(bands), 224, 224)
    steps = [step for step in weights.transforms.modules() if hasattr(step, "mean")]
    expected = image.clone()
    for step in steps:  # without resizing and cropping, which GLNet does in its own way
        expected = step(expected)
    expected = expected.reshape(image.shape)
    torch.testing.assert_close(BandTransforms(bands)(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.smoke
def test_get_model_builds_on_torchgeos_weights_in_both_branches(state: State) -> None:
    network = geoglnet.get_model("glnet", weights=MOCO, num_classes=4, pyramid_channels=8, smooth_channels=4)
    assert (network.config.backbone, network.config.in_channels) == ("resnet18", 13)
    backbones = list(network.backbones())
    assert len(backbones) == 2
    for backbone in backbones:
        assert torch.equal(backbone.conv1.weight, state["conv1.weight"])
    some = geoglnet.get_model("glnet", weights=str(MOCO), bands=("red", "nir"), num_classes=4)
    assert next(iter(some.backbones())).conv1.weight.shape[1] == 2
    with pytest.raises(CheckpointError, match=r"ResNet18_Weights\.SENTINEL2_ALL_MOCO lacks .* tensors of resnet50"):
        geoglnet.get_model("glnet", weights=MOCO, backbone="resnet50", num_classes=4)


@pytest.mark.smoke
@pytest.mark.parametrize("weights", list(GLNet_Weights))
def test_shipped_models_are_weights_with_transforms_and_meta(weights: Any) -> None:
    assert weights.name.lower().replace("_", "-") in geoglnet.models.shipped.shipped_models()
    network = geoglnet.get_model(weights=weights)
    state = weights.get_state_dict(progress=True)
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())
    assert network.config.num_classes == weights.meta["num_classes"] == len(weights.meta["categories"])
    assert network.config.in_channels == weights.meta["in_chans"]
    image = weights.transforms(torch.randint(0, 256, (1, weights.meta["in_chans"], 128, 128)))
    assert network.see(image).logits.shape[1] == weights.meta["num_classes"]
    described = json.loads(json.dumps(weights.meta["mlm"]))
    assert [c["name"] for c in described["mlm:output"][0]["classification:classes"]] == weights.meta["categories"]
    assert described["mlm:input"][0]["bands"] == weights.meta["bands"]


def test_get_model_takes_names_files_and_enums_and_refuses_contradictions(tmp_path: Path) -> None:
    expected = geoglnet.load_model("landcover")
    for weights in ("landcover", GLNet_Weights.LANDCOVER, expected.path):
        found = geoglnet.get_model("glnet", weights=weights, num_classes=6, bands=("red", "green", "blue"))
        assert all(torch.equal(tensor, found.state_dict()[key]) for key, tensor in expected.network.state_dict().items())
    with pytest.raises(ConfigError, match="landcover has num_classes = 6, not 2; leave it out"):
        geoglnet.get_model(weights="landcover", num_classes=2)
    with pytest.raises(ConfigError, match="has architecture = 'fpn', not 'fcn8s'"):
        geoglnet.get_model("fcn8s", weights="landcover")
    with pytest.raises(ConfigError, match="no network 'glnett'; did you mean 'glnet'"):
        geoglnet.get_model("glnett", num_classes=2)
    assert geoglnet.get_model(num_classes=3, backbone="mobilenet_v2").config.architecture == "fpn"


def test_transforms_stretch_what_is_stretched_in_prediction() -> None:
    image = torch.linspace(100, 300, 10_000).reshape(1, 100, 100)
    made = BandTransforms(Bands(("nir",), (0.0,), (1.0,), ScalingRule.PERCENTILES))(image)
    assert (made < 0).float().mean() == pytest.approx(0.02, abs=1e-3)
    assert (made > 1).float().mean() == pytest.approx(0.02, abs=1e-3)
