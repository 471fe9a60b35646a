"""Folding is algebra: equal logits outside the declared ring, in every configuration, at lower cost."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from geoglnet.config import Branches, Compat, ModelConfig, Sharing
from geoglnet.errors import ConfigError
from geoglnet.models.glnet import GLNet
from tests.networks import small

ALONE = {"branches": Branches.LOCAL, "sharing": Sharing.NONE, "aggregate": False}
CONFIGURATIONS = {
    "sharing and f_agg": {},
    "sharing": {"aggregate": False},
    "f_agg": {"sharing": Sharing.NONE},
    "local only": ALONE,
    "shallow sharing": {"shared_levels": (4,)},
    "shallow sharing of the finest level": {"shared_levels": (2,)},
    "authors' geometry": {"compat": Compat.OFFICIAL},
    "bidirectional": {"sharing": Sharing.BIDIRECTIONAL},
    "bidirectional and shallow": {"sharing": Sharing.BIDIRECTIONAL, "shared_levels": (3, 5)},
    "bidirectional in the authors' geometry": {"sharing": Sharing.BIDIRECTIONAL, "compat": Compat.OFFICIAL},
}


def inputs(size: int = 128) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    footprints = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.31, 0.44, 0.83, 0.97]])
    return torch.randn(1, 3, 96, 96), torch.randn(2, 3, size, size), footprints


@torch.inference_mode()
def final(network: torch.nn.Module, overview: torch.Tensor, patches: torch.Tensor, footprints: torch.Tensor) -> torch.Tensor:
    maps = None if network.config.branches is Branches.LOCAL else network.see(overview)
    logits = torch.cat(list(network.iter_logits(overview, maps, [(patches, footprints)])))
    return logits - logits[:, :1]  # all that softmax sees


@pytest.mark.parametrize(
    ("configuration", "backbone"),
    [
        *((configuration, None) for configuration in CONFIGURATIONS),
        ("sharing and f_agg", "mobilenet_v2"),
        ("bidirectional", "mobilenet_v2"),
        ("authors' geometry", "resnet18"),
    ],
)
def test_folded_logits_equal_unfolded_ones_outside_the_ring(configuration: str, backbone: str | None) -> None:
    network, given = small(backbone, **CONFIGURATIONS[configuration]), inputs()
    folded = network.fold()
    expected, got = final(network, *given), final(folded, *given)
    ring = folded.ring_size // 4
    inside = (..., slice(ring, -ring), slice(ring, -ring))
    scale = expected.abs().max()
    assert (expected - got)[inside].abs().max() < 1e-5 * scale
    assert torch.equal(expected[inside].argmax(1), got[inside].argmax(1))


def test_the_ring_is_as_narrow_as_it_is_said_to_be() -> None:
    network, given = small(), inputs()
    folded = network.fold()
    difference = (final(network, *given) - final(folded, *given)).abs().amax(dim=(0, 1))
    ring = folded.ring_size // 4
    assert ring == 4
    assert difference[ring - 1, ring:-ring].max() > 1e-4  # one cell less would not do


def test_sizes_that_no_stride_divides_fold_too() -> None:
    network = small()
    given = inputs(size=117)
    ring = 5  # the last cell of a level reaches past the patch
    inside = (..., slice(ring, -ring), slice(ring, -ring))
    expected, got = final(network, *given), final(network.fold(), *given)
    torch.testing.assert_close(got[inside], expected[inside], rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_folding_costs_a_quarter_for_the_papers_network() -> None:
    with torch.device("meta"):
        network = GLNet(ModelConfig(7)).eval()
    network.to_empty(device="cpu")
    for tensor in network.state_dict().values():
        tensor.zero_()  # operations are counted, whatever the numbers
    given, costs = inputs(size=160), []
    for form in (network, network.fold()):
        with torch.inference_mode():
            maps = form.see(given[0])
            with FlopCounterMode(display=False) as counter:
                form.segment(given[1], given[2], maps)
        costs.append(counter.get_total_flops())
    assert costs[0] > 3.5 * costs[1]


def test_folding_keeps_the_network_as_it_was() -> None:
    network, given = small(), inputs()
    before = final(network, *given)
    network.fold()
    assert torch.equal(final(network, *given), before)


def test_a_network_without_a_local_branch_has_nothing_to_fold() -> None:
    with pytest.raises(ConfigError, match="nothing to fold"):
        small(branches=Branches.GLOBAL, sharing=Sharing.NONE, aggregate=False).fold()


def test_a_folded_network_refuses_what_the_network_refuses() -> None:
    folded = small().fold()
    maps = folded.see(torch.randn(1, 3, 96, 96))
    with pytest.raises(ConfigError, match="see"):
        folded.segment(torch.randn(1, 3, 64, 64), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    with pytest.raises(ConfigError, match="footprints"):
        folded.segment(torch.randn(1, 3, 64, 64), torch.tensor([[0.0, 0.0, 1.0, 2.0]]), maps)
    with pytest.raises(ConfigError, match="only a local branch"):
        small(**ALONE).fold().see(torch.randn(1, 3, 96, 96))
