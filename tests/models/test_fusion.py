"""Fused convolutions give what convolution, normalization, sum and activation give one after another."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import nn

from geoglnet.models import fusion
from geoglnet.models.backbone import build_backbone
from geoglnet.models.fusion import FusedConv, fuse
from tests.networks import small


def trained(name: str) -> nn.Module:
    """A backbone with statistics, scales and shifts that a fold must not forget."""
    torch.manual_seed(0)
    backbone = build_backbone(name)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return backbone.eval()


def prepared(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    for part in module.modules():
        if isinstance(part, FusedConv):
            part.prepare(dtype)
    return module


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small"])
@torch.inference_mode()
def test_a_fused_backbone_gives_the_maps_of_the_backbone(name: str) -> None:
    backbone, image = trained(name), torch.randn(2, 3, 65, 70)
    expected = backbone(image)
    plain = fuse(backbone)(image)
    ordered = prepared(fuse(backbone))(image.contiguous(memory_format=torch.channels_last))
    for one, two, three in zip(expected, plain, ordered, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))
        torch.testing.assert_close(three, one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))
    assert all(torch.equal(one, two) for one, two in zip(backbone(image), expected, strict=True))  # it stays as it was


@pytest.mark.skipif(not fusion._is_fusible(torch.float32), reason="torch without oneDNN's fused convolution")
@torch.inference_mode()
def test_weights_in_the_layout_of_a_processor_come_back_when_they_are_moved() -> None:
    conv = FusedConv(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5).eval(), nn.ReLU6())
    weight, image = conv.weight.clone(), torch.randn(1, 3, 9, 9)
    expected = conv(image)
    conv.prepare(torch.float32)
    assert conv.weight is None
    torch.testing.assert_close(conv(image), expected)
    conv.to("cpu")
    assert torch.equal(conv.weight, weight)
    torch.testing.assert_close(conv(image), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_without_onednns_operation_the_network_computes_the_same(dtype: torch.dtype) -> None:
    overview, patches, places = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 64), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    logits = []
    for is_fusible in (True, False):
        with mock.patch.object(fusion, "_is_fusible", return_value=is_fusible and fusion._is_fusible(dtype)):
            network = small("mobilenet_v2").fold()
            assert network.prepare(dtype)
        logits.append(network.segment(patches, places, network.see(overview)).final)
    scale = float(logits[1].abs().max())
    torch.testing.assert_close(*logits, rtol=0, atol=scale * (1e-5 if dtype is torch.float32 else 0.05))


@pytest.mark.parametrize("backbone", [None, "mobilenet_v2", "resnet18"])
@torch.inference_mode()
def test_a_network_of_bfloat16_weights_is_close_to_the_one_of_float32(backbone: str | None) -> None:
    torch.manual_seed(1)
    overview, patches, places = torch.randn(1, 3, 64, 64), torch.randn(2, 3, 64, 64), torch.rand(2, 4) / 2
    places[:, 2:] += 0.5
    network, half = small(backbone).fold(), small(backbone).fold()
    assert half.prepare(torch.bfloat16)
    expected, got = (form.segment(patches, places, form.see(overview)).final for form in (network, half))
    assert got.dtype is torch.float32
    difference = (got - expected).abs().max() / expected.abs().max()
    assert 0 < difference < 0.05
