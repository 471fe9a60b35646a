"""GLNet: shapes, sharing, no state, clear errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from geoglnet.config import BACKBONES, Branches, Sharing
from geoglnet.errors import BandsError, ConfigError
from geoglnet.models.sharing import crop
from tests.networks import small

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_logits_have_a_quarter_of_the_patch_size(backbone: str) -> None:
    network = small(backbone=backbone)
    with torch.inference_mode():
        maps, logits = network(torch.zeros(1, 3, 64, 96), torch.zeros(2, 3, 100, 64), WHOLE.repeat(2, 1))
    assert maps.logits.shape == (1, 3, 16, 24)
    assert logits.final.shape == (2, 3, 25, 16)
    assert logits.x_loc.shape == logits.x_glb.shape == (2, 16, 25, 16)


def test_the_context_reaches_every_patch_when_maps_are_shared() -> None:
    network, patch = small(aggregate=False), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        one, other = (network(overview, patch, WHOLE)[1].final for overview in torch.randn(2, 1, 3, 64, 64))
    assert not torch.allclose(one, other)


def test_without_sharing_and_aggregation_patches_stand_alone() -> None:
    network, patch = small(sharing=Sharing.NONE, aggregate=False), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        one, other = (network(overview, patch, WHOLE)[1].final for overview in torch.randn(2, 1, 3, 64, 64))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_patches_may_come_in_any_batch_and_order() -> None:
    network, patches = small(), torch.randn(4, 3, 64, 64)
    footprints = torch.tensor([[0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1], [0.5, 0, 1, 0.5], [0.4, 0.3, 0.9, 0.8]])
    with torch.inference_mode():
        maps = network.see(torch.randn(1, 3, 64, 64))
        together = network.segment(patches, footprints, maps).final
        order = [2, 0, 3, 1]
        alone = torch.cat([network.segment(patches[i : i + 1], footprints[i : i + 1], maps).final for i in order])
    torch.testing.assert_close(alone, together[order], rtol=1e-4, atol=1e-5)


def test_each_patch_reads_the_overview_it_belongs_to() -> None:
    network, patches, overviews = small(), torch.randn(3, 3, 64, 64), torch.randn(2, 3, 64, 64)
    index = torch.tensor([1, 0, 1])
    with torch.inference_mode():
        batched = network(overviews, patches, WHOLE.repeat(3, 1), index)[1].final
        single = torch.cat([network(overviews[[i]], patches[[k]], WHOLE)[1].final for k, i in enumerate(index.tolist())])
    torch.testing.assert_close(batched, single, rtol=1e-4, atol=1e-5)


def test_a_call_leaves_nothing_on_the_module() -> None:
    network = small()
    before = {name: set(vars(module)) for name, module in network.named_modules()}
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        network(torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 64), WHOLE)
    assert {name: set(vars(module)) for name, module in network.named_modules()} == before
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("branches", [Branches.GLOBAL, Branches.LOCAL])
def test_one_branch_alone_refuses_what_it_cannot_do(branches: Branches) -> None:
    network = small(branches=branches, sharing=Sharing.NONE, aggregate=False)
    if branches is Branches.GLOBAL:
        assert network.see(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 3, 16, 16)
        with pytest.raises(ConfigError, match="only a global branch"):
            network.segment(torch.zeros(1, 3, 64, 64), WHOLE)
    else:
        assert network.segment(torch.zeros(1, 3, 64, 64), WHOLE).final.shape == (1, 3, 16, 16)
        with pytest.raises(ConfigError, match="only a local branch"):
            network.see(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    "footprints",
    [[[0.0, 0.0, 1.0, 1.1]], [[-0.1, 0.0, 1.0, 1.0]], [[0.5, 0.0, 0.5, 1.0]], [[0.0, 0.0, 1.0, 1.0]] * 2, [[float("nan")] * 4]],
)
def test_footprints_outside_the_region_are_refused(footprints: list[list[float]]) -> None:
    network = small()
    maps = network.see(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ConfigError, match="footprints"):
        network.segment(torch.zeros(1, 3, 64, 64), torch.tensor(footprints), maps)


def test_segment_asks_for_the_maps_it_needs() -> None:
    with pytest.raises(ConfigError, match="see"):
        small().segment(torch.zeros(1, 3, 64, 64), WHOLE)


sides = st.floats(0.02, 0.45)


@settings(max_examples=50, deadline=None)
@given(top=sides, left=sides, height=sides, width=sides, h=st.integers(1, 20), w=st.integers(1, 20))
def test_a_crop_of_a_ramp_is_the_ramp(top: float, left: float, height: float, width: float, h: int, w: int) -> None:
    size = 64
    y, x = torch.meshgrid(*[(torch.arange(size) + 0.5) / size] * 2, indexing="ij")
    cropped = crop(torch.stack([y, x])[None], torch.tensor([[top, left, top + height, left + width]]), (h, w))[0]
    expected_y = top + (torch.arange(h) + 0.5) / h * height
    expected_x = left + (torch.arange(w) + 0.5) / w * width
    torch.testing.assert_close(cropped[0], expected_y[:, None].expand(h, w), atol=1e-5, rtol=0)
    torch.testing.assert_close(cropped[1], expected_x.expand(h, w), atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 12), factor=st.integers(1, 4))
def test_a_crop_of_everything_is_a_bilinear_resize(height: int, width: int, factor: int) -> None:
    source = torch.randn(1, 2, height, width)
    size = (height * factor, width * factor)
    resized = F.interpolate(source, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(crop(source, WHOLE, size), resized, atol=1e-5, rtol=1e-5)


def test_a_crop_keeps_exact_positions_in_bfloat16() -> None:
    source = torch.arange(500.0).expand(1, 1, 500, 500)
    footprint = torch.tensor([[0.0, 0.9, 0.1, 1.0]])
    with torch.autocast("cpu", torch.bfloat16):
        cropped = crop(source, footprint, (50, 50))
    torch.testing.assert_close(cropped[0, 0, 0], torch.arange(450.0, 500.0), atol=1e-2, rtol=0)


@pytest.mark.parametrize("backbone", ["torchvision/mnasnet0_5", "timm/lcnet_050"])
def test_any_network_of_torchvision_or_timm_can_be_a_backbone(backbone: str) -> None:
    if backbone.startswith("timm"):
        pytest.importorskip("timm", reason="timm is an extra")
    network = small(backbone=backbone)
    with torch.inference_mode():
        maps, logits = network(torch.randn(1, 3, 64, 96), torch.randn(1, 3, 64, 64), WHOLE)
    assert [m.shape[-2:] for m in maps.first.bottom_up] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert logits.final.shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("torchvision/resnet_none", "no network 'resnet_none'"),
        ("torchvision/vit_b_16", "takes no image of 128 px"),
        ("keras/resnet18", "unknown backbone"),
        ("timm/", "is not the plain name of a network"),
    ],
)
def test_networks_that_cannot_be_backbones_are_refused(backbone: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(backbone=backbone)


def test_a_timm_network_without_the_maps_is_refused() -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    with pytest.raises(ConfigError, match="timm"):
        small(backbone="timm/vit_tiny_patch16_224")
    with pytest.raises(ConfigError, match="timm"):
        small(backbone="timm/no_such_network")


def test_other_bands_replace_the_stem_of_any_backbone() -> None:
    for backbone in ("resnet18", "mobilenet_v3_small", "torchvision/mnasnet0_5"):
        network = small(backbone=backbone, in_channels=5)
        with torch.inference_mode():
            assert network.see(torch.zeros(1, 5, 64, 64)).logits.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_would_spoil_everything_are_refused(is_folded: bool, value: float) -> None:
    network = small().fold() if is_folded else small()
    spoilt = torch.zeros(1, 3, 64, 64)
    spoilt[0, 1, 5, 6] = value
    with pytest.raises(ConfigError, match="1 of 12288 values"):
        network.see(spoilt)
    maps = network.see(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ConfigError, match="NaN or infinite"):
        network.segment(spoilt, WHOLE, maps)
    with pytest.raises(BandsError, match=r"takes \(B, 3, h, w\)"):
        network.see(torch.zeros(1, 4, 64, 64))
