"""Coarse-to-fine training: samples are narrowed to what the global branch takes for foreground."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from geoglnet.config import RegionConfig
from geoglnet.datasets.regions import DecodedScene, LabeledRegion
from geoglnet.datasets.samplers import RegionDataset, SampleConfig
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.models.coarse_to_fine import background_of
from geoglnet.models.manifest import Manifest
from geoglnet.training.focus import GlobalFocus, jittered
from geoglnet.types import Place, Shape
from tests.networks import small

LEGEND = Legend(("background", "lesion"), ((0, 0, 0), (255, 0, 0)), background=0)
REGION = RegionConfig(region_size=256, overview_size=64, patch_size=64, patch_overlap=16, margin=32)


class Fixed:
    """A focus that always sees the same part."""

    def __init__(self, place: Place | None) -> None:
        self.where = place

    def place(self, image: torch.Tensor, rng: np.random.Generator) -> Place | None:
        return self.where


@pytest.fixture
def dataset() -> RegionDataset:
    image = np.arange(256 * 256, dtype=np.uint32).reshape(1, 256, 256) // 256
    labels = np.zeros((256, 256), np.uint8)
    labels[60:140, 100:180] = 1
    scene = DecodedScene("scene", LabeledRegion(np.repeat(image, 3, axis=0).astype(np.uint8), labels))
    sample = SampleConfig(region_size=256, patch_size=64, patches_per_region=0, order="exhaustive")
    return RegionDataset([scene], [1.0], REGION, sample, AugmentConfig(False, 1, 1, 0), length=2)


def test_a_narrowed_sample_is_cut_from_its_part_alone(dataset: RegionDataset) -> None:
    whole = dataset[0]
    dataset.focus = Fixed((slice(50, 150), slice(90, 200)))
    narrow = dataset[0]
    assert narrow.overview.shape == whole.overview.shape == (3, 64, 64)
    assert narrow.overview_labels.shape == whole.overview_labels.shape == (256, 256)
    assert (narrow.overview[0, 0, 0] * 255).item() == pytest.approx(50, abs=1)  # its first row
    assert narrow.overview_labels.float().mean() > 3 * whole.overview_labels.float().mean()
    assert len(narrow.patches) == 2 * 2 < len(whole.patches)
    rows = (narrow.patches[:, 0, 0, 0] * 255).round().tolist()
    assert min(rows) == 50
    assert max(rows) == 150 - 64


def test_where_nothing_is_seen_the_sample_stays_whole(dataset: RegionDataset) -> None:
    whole = dataset[0]
    dataset.focus = Fixed(None)
    assert torch.equal(dataset[0].overview, whole.overview)


def test_the_focus_is_where_the_global_branch_sees_foreground(dataset: RegionDataset) -> None:
    network = small(num_classes=2)
    manifest = Manifest("m", network.config, REGION, LEGEND, 1.0, (0.5, 2.0), 1.0)
    focus = GlobalFocus.of(network, manifest, dataset)
    bias = focus.network.global_branch.pyramid.classify.bias
    image = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bias[1] -= 1000
        assert focus.place(image, np.random.default_rng(0)) is None
        bias[1] += 2000
        rows, cols = focus.place(image, np.random.default_rng(0))
    assert (rows.stop - rows.start, cols.stop - cols.start) > (180, 180)
    assert network.global_branch.pyramid.classify.bias[1].abs() < 100  # its own weights


def edges() -> Iterator[Place]:
    for start in (0, 37, 192):
        yield slice(start, start + 64), slice(max(0, start - 30), 256)


@pytest.mark.parametrize("place", list(edges()))
def test_jittered_parts_stay_inside_and_hold_a_patch(place: Place) -> None:
    parts = [jittered(place, Shape(256, 256), 64, np.random.default_rng(seed)) for seed in range(50)]
    for side in (side for part in parts for side in part):
        assert side.start >= 0
        assert side.start + 64 <= side.stop <= 256
    assert len({(rows.start, cols.start) for rows, cols in parts}) > 3


@pytest.mark.parametrize(
    "legend",
    [Legend(("a", "b", "c"), ((0, 0, 0),) * 3, background=0), Legend(("a", "b"), ((0, 0, 0),) * 2)],
)
def test_legends_without_one_foreground_are_refused(legend: Legend) -> None:
    with pytest.raises(ConfigError, match="background and one class"):
        background_of(legend)
