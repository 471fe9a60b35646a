"""Memory counted without computing, and baselines refused where it is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from geoglnet.cli.main import geoglnet
from geoglnet.config import Branches, RegionConfig
from geoglnet.errors import CapacityError
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import save_checkpoint
from geoglnet.models.demand import largest_side, map_bytes, training_bytes
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from geoglnet.prediction import device
from geoglnet.prediction.device import available_bytes, check_capacity, check_training_capacity
from geoglnet.types import Shape
from tests.models.test_baselines import shared
from tests.stubs import manifest_of

CPU = torch.device("cpu")


def test_what_is_alive_at_once_is_counted() -> None:
    """Image 3, then maps of 8, 4 and 2 channels of 16 × 16: at most image, 8 and 4 together; in place costs nothing."""
    chain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
    )
    pixel = 16 * 16 * 4
    assert map_bytes(chain, Shape(16, 16)) == (3 + 8 + 4) * pixel
    assert training_bytes(chain, Shape(16, 16)) == (3 + 8 + 4 + 2) * pixel


def test_a_skip_connection_stays_alive() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            kept = self.first(image)
            return torch.cat([kept, self.second(kept)], dim=1)

    assert map_bytes(Skip(), Shape(16, 16)) == (3 + 8 + 8 + 16) * 16 * 16 * 4


@pytest.mark.parametrize("architecture", ["segnet", "icnet", "unet"])
def test_maps_grow_with_the_area_and_nothing_is_changed(architecture: str) -> None:
    branch = shared(architecture)
    assert branch is not None
    small, large = (map_bytes(branch, Shape(side, side)) for side in (256, 1024))
    assert 15 < large / small < 17
    assert all(parameter.device == CPU for parameter in branch.parameters())


def test_the_largest_side_is_found() -> None:
    assert largest_side(lambda side: side * side, 100_000) == 288
    assert largest_side(lambda side: side * side, 10) == 0


def model_of(network: GLNet, overview_size: int, patch_size: int) -> Manifest:
    region = RegionConfig(region_size=2448, overview_size=overview_size, patch_size=patch_size)
    return replace(manifest_of(region), model=network.config)


def test_a_baseline_that_cannot_take_the_size_says_which_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    network = shared("segnet", Branches.GLOBAL)
    monkeypatch.setattr(device, "available_bytes", lambda device: 2 * 10**9)
    check_capacity(network, model_of(network, 1024, 500), CPU)
    message = (
        r"segnet needs 5\.\d GB for 2448 × 2448 px, and cpu has 2\.0 GB left: it can take (\d+) px\. Make region\.overview_size"
    )
    with pytest.raises(CapacityError, match=message) as refused:
        check_capacity(network, model_of(network, 2448, 500), CPU)
    largest = int(str(refused.value).split("it can take ")[1].split(" ")[0])
    check_capacity(network, model_of(network, largest, 500), CPU)
    with pytest.raises(CapacityError):
        check_capacity(network, model_of(network, largest + 32, 500), CPU)


def test_training_takes_more_than_segmenting_and_is_refused_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    network = shared("segnet", Branches.GLOBAL)
    monkeypatch.setattr(device, "available_bytes", lambda device: 2 * 10**9)
    check_training_capacity(network, (256, 500), 1, CPU)
    with pytest.raises(CapacityError, match=r"segnet needs .* GB for 1024 × 1024 px"):
        check_training_capacity(network, (1024, 500), 1, CPU)


def test_predict_refuses_before_it_reads_anything(tmp_path: Path, scene_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = shared("icnet", Branches.GLOBAL)
    manifest = replace(model_of(network, 2448, 500), legend=Legend(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2))))
    save_checkpoint(tmp_path / "m.safetensors", network, manifest)
    monkeypatch.setattr(device, "available_bytes", lambda device: 10**8)
    arguments = ["predict", str(scene_path), "-o", str(tmp_path / "labels.tif"), "--model", str(tmp_path / "m.safetensors")]
    ran = CliRunner().invoke(geoglnet, [*arguments, "--device", "cpu"])
    assert ran.exit_code == 1
    assert "icnet needs 0.7 GB for 2448 × 2448 px, and cpu has 0.1 GB left: it can take" in ran.stderr
    assert not (tmp_path / "labels.tif").exists()


def test_this_machine_has_memory() -> None:
    free = available_bytes(CPU)
    assert free is None or free > 10**8
