"""What each stage trains, what it leaves alone, and that memory-saving parts change nothing."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from geoglnet.config import Sharing, Stage
from geoglnet.datasets.regions import RegionBatch
from geoglnet.errors import ConfigError
from geoglnet.models.glnet import GLNet
from geoglnet.training.stages import strided_depthwise_in_float32
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import OptimConfig
from geoglnet.types import Shape
from tests.networks import region_of, small

TRAINED = {
    Stage.GLOBAL: {"global_branch"},
    Stage.LOCAL: {"local_branch", "f_agg"},
    Stage.BIDIRECTIONAL: {"refined_branch", "f_agg"},
    Stage.JOINT: {"global_branch", "local_branch", "f_agg"},
}


@pytest.fixture
def batch() -> RegionBatch:
    regions = [region_of(Shape(96, 96), seed) for seed in (0, 1)]
    overviews, patches, footprints = (torch.cat(parts) for parts in zip(*regions, strict=True))
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (len(patches), 64, 64), generator=generator)
    labels[0, :50] = 255  # so that parts have unequal numbers of labeled pixels
    index = torch.arange(2).repeat_interleave(len(patches) // 2)
    return RegionBatch(overviews, torch.randint(0, 3, (2, 96, 96), generator=generator), patches, labels, footprints, index)


def gradients(network: GLNet, stage: Stage, batch: RegionBatch, **optim: object) -> tuple[Tensor, dict[str, Tensor]]:
    task = StageTask(network, stage, OptimConfig(gamma=2.0, **optim), 10).eval()  # batch statistics depend on the parts
    network.zero_grad()
    loss = task.differentiate(batch)
    return loss, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("stage", Stage)
def test_a_stage_trains_its_parts_and_nothing_else(stage: Stage, batch: RegionBatch) -> None:
    network = small(sharing=Sharing.BIDIRECTIONAL)
    task = StageTask(network, stage, OptimConfig(), 10).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    task.differentiate(batch)
    moved = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == TRAINED[stage]
    changed = {name.split(".")[0] for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed <= TRAINED[stage]  # batch statistics


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("sharing", [Sharing.NONE, Sharing.GLOBAL_TO_LOCAL, Sharing.BIDIRECTIONAL])
def test_patches_in_parts_give_the_gradients_of_all_at_once(stage: Stage, sharing: Sharing, batch: RegionBatch) -> None:
    network = small(sharing=sharing).double()
    batch = replace(batch, overviews=batch.overviews.double(), patches=batch.patches.double())
    if stage is Stage.BIDIRECTIONAL and sharing is not Sharing.BIDIRECTIONAL:
        with pytest.raises(ConfigError, match="bidirectional stage"):
            StageTask(network, stage, OptimConfig(), 10)
        return
    whole, expected = gradients(network, stage, batch, patches_at_once=100)
    parts, got = gradients(network, stage, batch, patches_at_once=3)
    torch.testing.assert_close(parts, whole)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item() + 1e-9, msg=name)


def test_gradients_in_parts_are_those_of_the_plain_sum_of_losses(batch: RegionBatch) -> None:
    network = small()
    loss, got = gradients(network, Stage.JOINT, batch, patches_at_once=2, lambda_fmreg=0.0)
    task = StageTask(network, Stage.JOINT, OptimConfig(gamma=2.0, lambda_fmreg=0.0), 10).eval()
    network.zero_grad()
    maps = network.see(batch.overviews)
    plain = task.overview_loss(batch, maps) + task.patch_losses(batch, maps).focal
    plain.backward()
    torch.testing.assert_close(loss, plain.detach(), rtol=1e-4, atol=1e-5)
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            scale = parameter.grad.abs().max().item()
            torch.testing.assert_close(got[name], parameter.grad, rtol=1e-3, atol=1e-4 * scale + 1e-7, msg=name)


def test_the_lambda_term_and_only_it_leaves_the_global_branch_untouched(batch: RegionBatch) -> None:
    network = small()
    without, with_it = (gradients(network, Stage.JOINT, batch, lambda_fmreg=value)[1] for value in (0.0, 10.0))
    for name in without:
        same = torch.allclose(without[name], with_it[name], rtol=1e-4, atol=1e-7)
        if name.startswith(("global_branch", "f_agg")):
            assert same, name
    assert any(not torch.allclose(without[n], with_it[n], rtol=1e-2) for n in without if n.startswith("local_branch"))
    only_global = gradients(network, Stage.GLOBAL, batch)[1]
    assert any(  # the losses of the patches do reach it
        not torch.allclose(only_global[n], without[n], rtol=1e-2) for n in only_global if n.startswith("global_branch")
    )


def test_a_refined_branch_starts_as_the_global_branch() -> None:
    network = small(sharing=Sharing.BIDIRECTIONAL)
    overview, patches, footprints = region_of(Shape(96, 96))
    network.refined_branch.start_from(network.global_branch)
    with torch.inference_mode():
        maps, _ = network(overview, patches, footprints)
    torch.testing.assert_close(maps.refined.logits, maps.first.logits)
    torch.testing.assert_close(maps.refined.last, maps.first.last)


def test_the_local_stage_of_a_bidirectional_network_is_that_of_a_one_way_network(batch: RegionBatch) -> None:
    two_way, one_way = small(sharing=Sharing.BIDIRECTIONAL), small()
    one_way.load_state_dict({name: two_way.state_dict()[name] for name in one_way.state_dict()})
    assert gradients(two_way, Stage.LOCAL, batch)[0] == gradients(one_way, Stage.LOCAL, batch)[0]


def test_strided_depthwise_convolutions_are_trained_in_float32() -> None:
    network = small(backbone="mobilenet_v2")
    convolutions = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    dtypes: dict[str, torch.dtype] = {}
    for name, convolution in convolutions.items():
        convolution.register_forward_hook(lambda _, __, maps, name=name: dtypes.update({name: maps.dtype}))
    names = list(network.state_dict())
    overview, patches, footprints = region_of(Shape(96, 96))
    with torch.autocast("cpu", torch.bfloat16), strided_depthwise_in_float32(network):
        network(overview, patches, footprints)
        assert list(network.state_dict()) == names
    slow = {name for name, m in convolutions.items() if m.groups > 1 and m.stride == (2, 2)}
    assert len(slow) == 2 * 4  # in each branch
    assert {name for name, dtype in dtypes.items() if dtype == torch.float32} == slow
    assert {type(m) for m in convolutions.values()} == {nn.Conv2d}


def test_a_strided_depthwise_convolution_in_float32_trains_as_in_bfloat16() -> None:
    convolution = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False))
    maps = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    gradients = []
    for guard in (nullcontext(), strided_depthwise_in_float32(convolution)):
        convolution.zero_grad()
        with guard, torch.autocast("cpu", torch.bfloat16):
            convolution(maps).float().square().mean().backward()
        gradients.append(convolution[0].weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=0.02, atol=0.002)
    assert not torch.equal(*gradients)


def test_a_long_moving_average_forgets_the_initial_weights_in_a_short_stage() -> None:
    network = small()
    assert network.local_branch is not None
    task = StageTask(network, Stage.LOCAL, OptimConfig(ema_decay=0.999), 5)
    weight = next(network.local_branch.parameters())
    for step in range(5):
        with torch.no_grad():
            weight.fill_(float(step))
        assert task.average is not None
        task.average.take(network, step)
    task.finish()
    assert 3 < weight.mean().item() < 4  # the mean of the last steps, not the first step's 0
