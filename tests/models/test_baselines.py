"""The paper's baselines as parts: what they compute, how large they are, and that they stand where a branch stands."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from geoglnet.config import ARCHITECTURES, Branches, ModelConfig, Sharing
from geoglnet.errors import ConfigError
from geoglnet.models.backbone import load_backbone_weights
from geoglnet.models.baselines.fcn8s import Pools, Skips, _upsampling
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.network import Network, build_network
from tests.stubs import SMALL, manifest_of

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
LIBRARY = sorted(name for name, family in ARCHITECTURES.items() if not family.backbone and name != "fpn")


def baseline(architecture: str, branches: Branches = Branches.LOCAL, **changes: object) -> Network:
    pytest.importorskip("segmentation_models_pytorch") if architecture in LIBRARY else None
    backbone = ARCHITECTURES[architecture].backbone or "resnet18"
    plain = {"num_classes": 3, "backbone": backbone, "sharing": Sharing.NONE, "aggregate": False} | changes
    torch.manual_seed(0)
    return build_network(ModelConfig(**plain, architecture=architecture, branches=branches)).eval()


@contextmanager
def without_draws() -> Iterator[None]:
    """Begin with equal weights, where drawing them takes longer than the test."""

    def fill(tensor: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return tensor.fill_(1e-3)

    with mock.patch.object(torch.Tensor, "uniform_", fill), mock.patch.object(torch.Tensor, "normal_", fill):
        yield


@functools.cache
def shared(architecture: str, branches: Branches = Branches.LOCAL) -> Network:
    """One network of a kind for all tests that don't change it."""
    return baseline(architecture, branches)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_takes_any_size_as_patches_and_as_overviews(architecture: str) -> None:
    if architecture == "fcn8s":
        with without_draws():  # of half a GB, which is not kept
            local = baseline(architecture)
    else:
        local = shared(architecture)
    if architecture == "fpn":
        networks = {Branches.LOCAL: local, Branches.GLOBAL: shared(architecture, Branches.GLOBAL)}
    else:  # the same parts in either place
        whole = copy.copy(local)
        whole.config = replace(local.config, branches=Branches.GLOBAL)
        networks = {Branches.LOCAL: local, Branches.GLOBAL: whole}
    for branches, network in networks.items():
        for height, width in ((32, 32), (70, 101)):
            image = torch.randn(1, 3, height, width)
            with torch.no_grad():
                is_local = branches is Branches.LOCAL
                logits = network.segment(image, WHOLE).final if is_local else network.see(image).logits
            assert logits.shape[:2] == (1, 3)
            quarter = (-(-height // 4), -(-width // 4))
            assert tuple(logits.shape[2:]) in {(height, width), quarter}
            assert logits.isfinite().all()


@pytest.mark.parametrize("architecture", ["segnet", "icnet", "unet", "segformer"])
def test_logits_say_where_something_is(architecture: str) -> None:
    """A bright square moved by 64 px moves the logits by as much: nothing is shifted or stretched on its way."""
    network, image = shared(architecture), torch.zeros(1, 3, 256, 256)
    image[..., 64:128, 64:128] = 2
    with torch.no_grad():
        here = network.segment(image, WHOLE).final
        there = network.segment(image.roll((64, 64), (2, 3)), WHOLE).final
    factor = 256 // here.shape[-1]
    inner, moved = here[..., 64 // factor : 128 // factor, 64 // factor : 128 // factor], 128 // factor
    other = there[..., moved : moved + inner.shape[-2], moved : moved + inner.shape[-1]]
    assert (inner - other).abs().mean() < 0.25 * (here.amax() - here.amin())
    correlation = torch.corrcoef(torch.stack([inner.flatten(), other.flatten()]))[0, 1]
    assert correlation > 0.8


def test_fcn8s_crops_where_its_release_crops() -> None:
    """Of an image of 256 px with 100 px of zeros around it, pool3's cell 28 covers rows 124 to 131."""
    head, pool3 = Skips(1), torch.zeros(1, 256, 57, 57)
    pools = Pools(pool3, torch.zeros(1, 512, 28, 28), torch.zeros(1, 4096, 8, 8))
    with torch.no_grad():
        head.score_pool3.weight[:, 0] = 1
        pool3[:, 0, 28, 28] = 1
        logits = head(torch.zeros(1, 3, 256, 256), pools)[0, 0]
    assert logits.shape == (256, 256)
    center = float((logits.sum(1) * torch.arange(256.0)).sum() / logits.sum())
    assert abs(center - 127.5) < 4.5  # the release's offsets are known to be half a cell off


def test_learned_upsampling_starts_bilinear() -> None:
    image = torch.rand(1, 2, 6, 6)
    with torch.no_grad():
        ours = _upsampling(2, 2)(image)[..., 1:-1, 1:-1]
    theirs = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], atol=1e-6)


def test_segnet_puts_values_back_where_the_maxima_were() -> None:
    network = shared("segnet")
    encoded = network.backbone(torch.randn(1, 3, 70, 101))
    assert [tuple(size) for size in encoded.sizes] == [(70, 101), (35, 50), (17, 25), (8, 12), (4, 6)]
    assert all(where.max() < size[0] * size[1] for where, size in zip(encoded.places, encoded.sizes, strict=True))


def weightless(architecture: str, backbone: str, num_classes: int) -> Network:
    """On the meta device: sizes without numbers (SegFormer's encoder draws numbers while it is built, and moves there)."""
    with torch.device("cpu" if architecture == "segformer" else "meta"):
        return baseline(architecture, backbone=backbone, num_classes=num_classes).to("meta")


@pytest.mark.parametrize(
    ("architecture", "backbone", "num_classes", "published"),
    [
        ("fcn8s", "vgg16", 21, 134.5),
        ("segnet", "vgg16_bn", 21, 29.5),
        ("icnet", "resnet50_half", 19, 6.68),  # 26.7 MB of float32, as its authors released it
        ("segformer", "mit_b0", 150, 3.8),
        ("upernet", "resnet50", 150, 66.4 - 2.4),  # less an auxiliary head
        ("upernet", "resnet101", 150, 85.4 - 2.4),
    ],
)
def test_parameters_are_as_many_as_published(architecture: str, backbone: str, num_classes: int, published: float) -> None:
    network = weightless(architecture, backbone, num_classes)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ("architecture", "backbone", "num_classes", "shape", "published"),
    [
        ("segnet", "vgg16_bn", 12, (360, 640), 286 / 2),  # published as two operations each
        ("icnet", "resnet50_half", 19, (1024, 2048), 28.3),
        ("segformer", "mit_b0", 150, (512, 512), 8.4),
    ],
)
def test_multiply_adds_are_as_many_as_published(
    architecture: str, backbone: str, num_classes: int, shape: tuple[int, int], published: float
) -> None:
    network = weightless(architecture, backbone, num_classes)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *shape, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(published, rel=0.03)


def test_baselines_take_more_or_fewer_bands() -> None:
    for architecture in ("icnet", "unet"):
        network = baseline(architecture, in_channels=5)
        assert network.segment(torch.randn(1, 5, 64, 64), WHOLE).final.isfinite().all()


def torchvision_state(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None).state_dict()


def test_imagenet_weights_of_torchvision_reach_the_baselines_backbone(tmp_path: Path) -> None:
    network = baseline("segnet")
    state = {name: torch.randn(tensor.shape) for name, tensor in torchvision_state("vgg16_bn").items() if "features" in name}
    save_file(state, tmp_path / "vgg16_bn.safetensors")
    load_backbone_weights(*network.backbones(), str(tmp_path / "vgg16_bn.safetensors"))
    assert torch.equal(network.backbone.features[0].weight, state["features.0.weight"])


@pytest.mark.parametrize("architecture", ["segnet", "icnet", "unet"])
def test_weights_of_colors_reach_the_bands_of_their_names_in_baselines_too(architecture: str, tmp_path: Path) -> None:
    (source,), (target,) = baseline(architecture).backbones(), baseline(architecture, in_channels=4).backbones()
    save_file({name: tensor.contiguous() for name, tensor in source.state_dict().items()}, tmp_path / "a.safetensors")
    load_backbone_weights(target, str(tmp_path / "a.safetensors"), ("nir", "red", "green", "blue"))
    ours = target.state_dict()
    stems = [name for name, tensor in source.state_dict().items() if tensor.ndim == 4 and tensor.shape[1] == 3]
    assert len(stems) == (2 if architecture == "icnet" else 1)
    for name in stems:
        colors = source.state_dict()[name]
        expected = torch.cat([colors.mean(dim=1, keepdim=True), colors], dim=1) * 3 / 4
        torch.testing.assert_close(ours[name], expected)


def test_a_network_that_pools_everything_says_that_it_learns_from_batches_only() -> None:
    network = baseline("deeplabv3plus").train()
    with pytest.raises(ConfigError, match=r"cannot be trained on single images; set optim\.batch_size"):
        network.segment(torch.randn(1, 3, 64, 64), WHOLE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "unett"}, "unknown architecture 'unett'; did you mean 'unet'"),
        ({"architecture": "unet"}, "stands in one branch's place; set branches = 'local'"),
        ({"architecture": "fcn8s", "branches": Branches.LOCAL}, "has a backbone of its own; set backbone = 'vgg16'"),
    ],
)
def test_what_no_baseline_can_be_built_from_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(3, **changes)


def test_an_encoder_that_the_library_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="has no encoder 'resnet5'; did you mean"):
        baseline("unet", backbone="resnet5")


def test_baselines_predict_as_they_are() -> None:
    network = shared("icnet")
    assert network.for_inference() is network
    assert network.ring_size == 0


@pytest.mark.parametrize("branches", [Branches.LOCAL, Branches.GLOBAL])
def test_checkpoints_of_baselines_in_the_place_of_a_branch_are_read(tmp_path: Path, branches: Branches) -> None:
    """Before 0.1.0 a baseline's tensors were named as those of the branch that it stood for."""
    network = baseline("unet", branches)
    manifest = replace(manifest_of(SMALL), model=network.config)
    save_checkpoint(tmp_path / "now.safetensors", network, manifest, half=False)
    place = "local_branch." if branches is Branches.LOCAL else "global_branch."
    state = {place + name: tensor for name, tensor in load_file(tmp_path / "now.safetensors").items()}
    with safe_open(tmp_path / "now.safetensors", "pt") as opened:
        save_file(state, tmp_path / "former.safetensors", metadata=opened.metadata())
    former, _ = load_checkpoint(tmp_path / "former.safetensors")
    assert all(torch.equal(tensor, former.state_dict()[name]) for name, tensor in network.state_dict().items())
