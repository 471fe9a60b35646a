"""A folded network of a fixed region can be exported, and the program that comes out equals it."""

from __future__ import annotations

import pytest
import torch

from geoglnet.config import Branches, Compat, Sharing
from geoglnet.errors import ConfigError
from geoglnet.models.export import RegionNetwork
from geoglnet.types import Shape
from tests.networks import region_of, small

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"backbone": "resnet18"}, marks=pytest.mark.slow),
        pytest.param({"sharing": Sharing.BIDIRECTIONAL}, marks=pytest.mark.slow),  # tracing the merge takes half a minute
        pytest.param({"compat": Compat.OFFICIAL}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_exported_program_equals_the_network(changes: dict[str, object]) -> None:
    overview, patches, footprints = region_of(Shape(90, 110))
    folded = small(**changes).fold()
    region = RegionNetwork(folded, footprints).eval()
    with torch.no_grad():
        program = torch.export.export(region, (overview, patches))
        other = region_of(Shape(90, 110), seed=7)
        expected = torch.cat(list(folded.iter_logits(other[0], folded.see(other[0]), [(other[1], footprints)])))
        got = program.module()(other[0], other[1])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_a_local_branch_alone_has_no_region_to_export() -> None:
    alone = small(branches=Branches.LOCAL, sharing=Sharing.NONE, aggregate=False).fold()
    with pytest.raises(ConfigError, match="knows no regions"):
        RegionNetwork(alone, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    with pytest.raises(ConfigError, match="footprints"):
        RegionNetwork(small().fold(), torch.tensor([[0.0, 0.0, 1.0, 1.5]]))
