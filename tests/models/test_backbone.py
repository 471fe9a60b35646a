"""Backbones: the same networks as torchvision's, whose weights they take, without importing it."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from geoglnet.config import BACKBONES
from geoglnet.models.backbone import MobileNet, build_backbone

RESNET_LEVELS = {f"layer{number}": f"c{number + 1}" for number in range(1, 5)}


def theirs(name: str) -> tuple[dict[str, torch.Tensor], nn.Module]:
    """torchvision's network with weights, running means and variances that all differ: its state, and c2…c5."""
    whole = torchvision.models.get_model(name, weights=None)
    generator = torch.Generator().manual_seed(0)
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
    levels = RESNET_LEVELS
    if name in MobileNet.ENDS:
        ends, _ = MobileNet.ENDS[name]
        levels = {f"features.{end - 1}": f"c{level + 2}" for level, end in enumerate(ends)}
    return whole.state_dict(), create_feature_extractor(whole, levels)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_computes_and_learns_what_torchvisions_does(name: str) -> None:
    torch.manual_seed(1)
    state, whole = theirs(name)
    ours = build_backbone(name)
    own = ours.state_dict()
    # In its order too, in which optimizers number the weights; what it has beyond is the classifier.
    assert [(key, state[key].shape) for key in state if key in own] == [(key, own[key].shape) for key in own]
    ours.load_state_dict({key: state[key].clone() for key in own})
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        for one, other in zip(ours.eval()(image), whole.eval()(image).values(), strict=True):
            assert torch.equal(one, other)
    if name in ("resnet34", "resnet101"):  # more of the blocks of the two others
        return
    for network in (ours, whole):
        maps = network.train()(image)
        sum(level.square().mean() for level in (maps.values() if isinstance(maps, dict) else maps)).backward()
    gradients = {key: weight.grad for key, weight in whole.named_parameters()}
    assert all(torch.equal(weight.grad, gradients[key]) for key, weight in ours.named_parameters())
    buffers = dict(whole.named_buffers())
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in ours.named_buffers())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small"])
def test_first_weights_are_drawn_as_torchvision_draws_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the draws that are overwritten, of which torchvision makes more for its classifier.
    monkeypatch.setattr(nn.Conv2d, "reset_parameters", lambda _: None)
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda _: None)
    torch.manual_seed(2)
    expected = torchvision.models.get_model(name, weights=None).state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in build_backbone(name).state_dict().items())
