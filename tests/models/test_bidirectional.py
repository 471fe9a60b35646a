"""Bidirectional sharing: merging at exact places, two rounds, and which levels are shared."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geoglnet.config import LEVELS, ModelConfig, Sharing
from geoglnet.errors import ConfigError
from geoglnet.models.branch import SharedMaps
from geoglnet.models.glnet import GLNet
from geoglnet.models.merging import Merge
from geoglnet.models.sharing import EXACT, crop, place
from geoglnet.types import Shape
from geoglnet.windows import footprints, patch_windows
from tests.networks import region_of, small

BIDIRECTIONAL = {"sharing": Sharing.BIDIRECTIONAL}
WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def level_2_only(maps: Tensor) -> SharedMaps:
    return SharedMaps((maps, None, None, None), *(((None,) * 4,) * 3))


def merged(maps: list[Tensor], places: Tensor, size: tuple[int, int]) -> Tensor:
    merge = Merge(level_2_only(torch.zeros(1, maps[0].shape[0], *size)), EXACT)
    for local, footprint in zip(maps, places, strict=True):
        merge.add(level_2_only(local[None]), footprint[None])
    found = merge.maps().bottom_up[0]
    assert found is not None
    return found[0]


def ramp(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([y, x])


@settings(max_examples=40)
@given(height=st.integers(70, 900), width=st.integers(70, 900), patch_size=st.integers(40, 300), cells=st.integers(8, 40))
def test_merging_the_crops_of_a_ramp_gives_the_ramp(height: int, width: int, patch_size: int, cells: int) -> None:
    windows = patch_windows(Shape(height, width), patch_size, patch_size // 4)
    places = torch.from_numpy(footprints(windows, Shape(height, width)))
    fine = 4 * cells  # a patch's map has finer cells than the merged one
    crops = crop(ramp(fine * 4, fine * 4)[None], places, (fine, fine))
    got, expected = merged(list(crops), places, (cells, cells)), ramp(cells, cells)
    half_a_cell = 0.5 * patch_size / min(height, width) / fine  # past its outer cells' centers a map has no slope
    assert (got - expected).abs().max() <= half_a_cell + 1e-5
    torch.testing.assert_close(got[:, 2:-2, 2:-2].mean((1, 2)), expected[:, 2:-2, 2:-2].mean((1, 2)), atol=2e-3, rtol=0)


@settings(max_examples=40)
@given(
    height=st.integers(40, 5000),
    width=st.integers(40, 5000),
    patch_size=st.integers(32, 700),
    cells=st.sampled_from((1, 16, 125)),
)
def test_constant_maps_merge_to_the_constant_wherever_patches_lie(height: int, width: int, patch_size: int, cells: int) -> None:
    windows = patch_windows(Shape(height, width), patch_size, patch_size // 8)[:400]
    places = torch.from_numpy(footprints(windows, Shape(height, width)))
    got = merged([torch.full((1, 5, 7), 3.5)] * len(windows), places, (cells, cells))
    uncovered = got == 0
    assert ((got - 3.5).abs() < 1e-5)[~uncovered].all()
    if len(windows) < 400:
        assert not uncovered.any()


def test_cells_that_no_patch_covers_are_zero_and_overlaps_are_means() -> None:
    places = torch.tensor([[0.0, 0.0, 1.0, 0.5], [0.0, 0.25, 1.0, 0.75]])
    got = merged([torch.full((1, 4, 4), 1.0), torch.full((1, 4, 4), 3.0)], places, (4, 4))[0]
    assert got.tolist() == [[1, 2, 3, 0]] * 4


def test_a_patch_gives_to_the_cells_whose_centers_it_covers() -> None:
    rows, cols, values = place(torch.ones(1, 4, 4), (0.2, 0.0, 0.6, 1.0), (10, 4))
    assert (rows, cols) == (slice(2, 6), slice(0, 4))
    assert values.shape == (1, 4, 4)


def test_merging_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to merge"):
        Merge(level_2_only(torch.zeros(1, 1, 4, 4)), EXACT).maps()


@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("shape", [Shape(96, 96), Shape(64, 64), Shape(150, 100), Shape(70, 200)])
def test_two_rounds_equal_everything_at_once_in_regions_of_any_shape(shape: Shape, is_folded: bool) -> None:
    network = small(**BIDIRECTIONAL)
    overview, patches, places = region_of(shape)
    form = network.fold() if is_folded else network
    with torch.inference_mode():
        maps, whole = network(overview, patches, places)
        seen = form.see(overview)
        batches = [(patches[i : i + 3], places[i : i + 3]) for i in range(0, len(patches), 3)]
        got = torch.cat(list(form.iter_logits(overview, seen, batches)))
    ring = slice(form.ring_size // 4, -(form.ring_size // 4)) if is_folded else slice(None)
    assert maps.refined is not None
    got, expected = (logits[..., ring, ring] - logits[:, :1, ring, ring] for logits in (got, whole.final))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sharing", [Sharing.GLOBAL_TO_LOCAL, Sharing.BIDIRECTIONAL])
def test_what_a_patch_shows_reaches_patches_far_from_it_only_through_the_way_back(sharing: Sharing) -> None:
    network = small("resnet18", sharing=sharing)
    overview, patches, places = region_of(Shape(200, 200))
    with torch.inference_mode():
        before = network(overview, patches, places)[1].final
        patches[-1] += 1
        after = network(overview, patches, places)[1].final
    moved = (after[0] - before[0]).abs().max() / before[0].abs().max()
    assert moved > 1e-3 if sharing is Sharing.BIDIRECTIONAL else moved < 1e-5


def test_the_order_of_patches_does_not_matter() -> None:
    network = small(**BIDIRECTIONAL)
    overview, patches, places = region_of(Shape(150, 100))
    order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        seen = network.see(overview)
        straight = torch.cat(list(network.iter_logits(overview, seen, [(patches, places)])))
        shuffled = torch.cat(list(network.iter_logits(overview, seen, [(patches[order], places[order])])))
    torch.testing.assert_close(shuffled, straight[order], rtol=1e-4, atol=1e-5)


def test_a_batch_of_regions_is_merged_region_by_region() -> None:
    network = small(**BIDIRECTIONAL)
    regions = [region_of(Shape(96, 96), seed) for seed in (0, 1)]
    index = torch.arange(2).repeat_interleave(len(regions[0][1]))
    with torch.inference_mode():
        together = network(*(torch.cat(parts) for parts in zip(*regions, strict=True)), index)[1].final
        single = torch.cat([network(*region)[1].final for region in regions])
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


def test_segmenting_before_refining_is_refused() -> None:
    network = small(**BIDIRECTIONAL)
    for form in (network, network.fold()):
        maps = form.see(torch.zeros(1, 3, 64, 64))
        with pytest.raises(ConfigError, match="refine"):
            form.segment(torch.zeros(1, 3, 64, 64), WHOLE, maps)
    one_way = small()
    maps = one_way.see(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ConfigError, match="only a bidirectional network"):
        one_way.refine(torch.zeros(1, 3, 64, 64), maps, level_2_only(torch.zeros(1)))


def test_bidirectional_sharing_without_f_agg_is_refused() -> None:
    with pytest.raises(ConfigError, match="f_agg"):
        ModelConfig(3, sharing=Sharing.BIDIRECTIONAL, aggregate=False)


@pytest.mark.parametrize("levels", [(), (3, 2), (2, 2), (1,), (6,)])
def test_levels_that_there_are_not_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="shared_levels"):
        ModelConfig(3, shared_levels=levels)


@pytest.mark.parametrize("levels", [(2,), (5,), (3, 4), LEVELS])
@pytest.mark.parametrize("sharing", [Sharing.GLOBAL_TO_LOCAL, Sharing.BIDIRECTIONAL])
def test_shallow_sharing_doubles_the_channels_of_its_level_only(levels: tuple[int, ...], sharing: Sharing) -> None:
    network = GLNet(ModelConfig(3, "mobilenet_v2", 3, 8, 4, sharing=sharing, shared_levels=levels))
    alone = network.global_branch.pyramid
    takers = [network.local_branch] + ([network.refined_branch] if network.refined_branch else [])
    for pyramid in (branch.pyramid for branch in takers):
        for stage in ("laterals", "smooth_first", "smooth_second"):
            pairs = zip(LEVELS, getattr(alone, stage), getattr(pyramid, stage), strict=True)
            assert all(taker.in_channels == own.in_channels * (1 + (level in levels)) for level, own, taker in pairs)
        assert pyramid.fuse.in_channels == (4 + len(levels)) * 4


def test_the_rows_of_table_2_differ_only_in_the_configured_parts() -> None:
    """Parameters that a row has and the row above has not (or has of another shape)."""
    rows = {
        "aggregation": {"sharing": Sharing.NONE},
        "shallow": {"shared_levels": (5,)},
        "deep": {},
        "bidirectional": BIDIRECTIONAL,
    }
    shapes = {name: {k: p.shape for k, p in small(**row).state_dict().items()} for name, row in rows.items()}

    def new(row: str, above: str) -> set[str]:
        changed = {name for name, shape in shapes[row].items() if shapes[above].get(name) != shape}
        return {name.rsplit(".", 1)[0] for name in changed}

    level_5 = {f"local_branch.pyramid.{part}.3" for part in ("laterals", "smooth_first", "smooth_second")}
    others = {f"local_branch.pyramid.{part}.{i}" for part in ("laterals", "smooth_first", "smooth_second") for i in (0, 1, 2)}
    assert new("shallow", "aggregation") == {*level_5, "local_branch.pyramid.fuse"}
    assert new("deep", "shallow") == {*others, "local_branch.pyramid.fuse"}
    assert {name.split(".")[0] for name in new("bidirectional", "deep")} == {"refined_branch"}
