"""Region samplers: seeded wholly, exhaustive or by class, damaged files named or passed over, in any number of processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoglnet.bands import Bands
from geoglnet.config import RegionConfig
from geoglnet.datasets.loading import RegionLoader
from geoglnet.datasets.regions import FILL_VALUE, DecodedScene, LabeledRegion, RegionBatch, RegionSample, collate
from geoglnet.datasets.samplers import RegionDataset, SampleConfig, Square, all_squares, read_filled
from geoglnet.datasets.survey import survey
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.errors import ConfigError, DatasetError, SceneError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.types import Shape

STILL = AugmentConfig(d4=False, scale_min=1, scale_max=1, color=0)
BANDS = Bands(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def scene_of(labels: np.ndarray, name: str = "scene") -> DecodedScene:
    image = np.stack([labels * 40, labels, np.arange(labels.size, dtype=np.uint8).reshape(labels.shape)])
    return DecodedScene(name, LabeledRegion(image.astype(np.uint8), labels.astype(np.uint8)))


def dataset(**changes: object) -> RegionDataset:
    rng = np.random.default_rng(1)
    scenes = [scene_of(rng.integers(0, 2, (200, 150))), scene_of(np.full((40, 300), 255))]
    plain = {"augment": AugmentConfig(), "sample": SampleConfig(96, 48, 2, 0.5), "length": 8, "seed": 3} | changes
    return RegionDataset(scenes, [1.0, 1.0], RegionConfig(96, 48, 48, 16, 16), **plain)


def same(one: RegionSample, other: RegionSample) -> bool:
    return torch.equal(one.overview, other.overview) and torch.equal(one.patches, other.patches)


def test_a_sample_depends_on_seed_and_index_only() -> None:
    ours, theirs = dataset(), dataset()
    backwards = [theirs[i] for i in reversed(range(8))][::-1]
    assert all(same(ours[i], backwards[i]) for i in range(8))
    assert not same(ours[0], ours[1])
    assert not same(ours[0], dataset(seed=4)[0])


def test_samples_for_overviews_alone_are_the_same_without_their_patches() -> None:
    whole, bare = dataset(), dataset(has_patches=False)
    batch = collate([bare[0], bare[1]])
    assert torch.equal(batch.overviews, torch.stack([whole[0].overview, whole[1].overview]))
    assert (len(batch.patches), len(batch.footprints), len(batch.overview_index)) == (0, 0, 0)


def test_a_loaded_batch_is_pinned_whole_where_a_gpu_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = RegionLoader(dataset(), 2, 0, BANDS)
    load = loader.collate_fn([dataset()[0]])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    pinned = load.pin_memory().batch
    assert all(torch.equal(getattr(pinned, f.name), getattr(load.batch, f.name) + 1) for f in fields(pinned))


def test_samples_of_scenes_smaller_than_a_region_are_filled_unlabeled() -> None:
    region = read_filled(scene_of(np.ones((20, 60))), -5, 30, 48)
    assert region.labels.shape == (48, 48)
    assert (region.labels != 255).sum() == 20 * 48
    assert (region.image[:, region.labels == 255] == FILL_VALUE).all()


@settings(max_examples=50, deadline=None)
@given(row=st.integers(-100, 200), col=st.integers(-100, 200), size=st.integers(1, 90))
def test_a_filled_square_holds_as_much_of_the_scene_as_fits(row: int, col: int, size: int) -> None:
    region = read_filled(scene_of(np.ones((50, 70))), row, col, size)
    assert region.labels.shape == (size, size)
    assert (region.labels == 1).sum() == min(size, 50) * min(size, 70)


def test_rare_classes_are_found_and_drawn() -> None:
    labels = np.zeros((640, 640))
    labels[320:340, 320:340] = 1
    assert set(survey([scene_of(labels)]).places) == {0, 1}
    sizes = RegionConfig(96, 48, 48, 16, 16), SampleConfig(96, 48, 1, 1.0)
    rare = RegionDataset([scene_of(labels)], [1.0], *sizes, STILL, length=40)
    seen = sum(bool((rare[i].overview_labels == 1).any()) for i in range(40))
    assert seen >= 10  # half of the samples on average; 1 in 40 without balancing


def test_scenes_without_a_label_are_refused() -> None:
    with pytest.raises(DatasetError, match="none of 1 training scenes has a labeled pixel"):
        RegionDataset([scene_of(np.full((40, 40), 255))], [1.0], RegionConfig(), SampleConfig(), AugmentConfig(), 1)


@pytest.mark.parametrize(
    "plain", [{"patch_size": 16}, {"patch_size": 5000}, {"patches_per_region": -1}, {"balanced_fraction": 2.0}]
)
def test_samples_that_cannot_be_drawn_are_refused(plain: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(plain))):
        SampleConfig(**plain)


@dataclass(frozen=True)
class DamagedScene:
    """A scene whose labels can be read and whose image cannot."""

    name: str = "broken.jpg"
    shape: Shape = Shape(120, 120)  # noqa: RUF009 - a tuple

    def read_region(self, rows: slice, cols: slice) -> LabeledRegion:
        raise SceneError("broken.jpg cannot be read; fetch it again")

    def read_labels(self, rows: slice, cols: slice) -> np.ndarray:
        return np.ones((rows.stop - rows.start, cols.stop - cols.start), np.uint8)


def damaged(augment: AugmentConfig = STILL, **sample: object) -> RegionDataset:
    plain = {"region_size": 96, "patch_size": 48, "patches_per_region": 1, "balanced_fraction": 0.0} | sample
    scenes = [scene_of(np.random.default_rng(1).integers(0, 2, (120, 120))), DamagedScene()]
    config = SampleConfig(**plain)
    return RegionDataset(scenes, [1.0, 1.0], RegionConfig(96, 48, 48, 16, 16), config, augment, length=12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=3), st.integers(32, 120))
def test_all_squares_cover_every_scene_with_the_fewest(shapes: list[tuple[int, int]], size: int) -> None:
    squares = all_squares([Shape(*shape) for shape in shapes], size)
    for index, (height, width) in enumerate(shapes):
        seen = np.zeros((height, width), bool)
        mine = [s for s in squares if s.scene == index]
        for square in mine:
            seen[square.row : square.row + size, square.col : square.col + size] = True
        assert seen.all()
        assert len(mine) == -(-height // size) * -(-width // size)


def test_a_round_of_exhaustive_sampling_holds_every_labeled_square_once() -> None:
    labels = np.full((192, 288), 255)
    labels[:96], labels[96:, :96] = 1, 0  # four of six squares
    config = SampleConfig(96, 48, 1, 0.0, order="exhaustive")
    drawn = RegionDataset([scene_of(labels)], [1.0], RegionConfig(96, 48, 48, 16, 16), config, STILL, length=8)
    assert len(drawn.squares) == 4
    rng = np.random.default_rng(0)
    rounds = [[drawn.sampler.draw(i, 96, rng) for i in range(4 * n, 4 * n + 4)] for n in range(5)]
    assert all(set(round_) == set(drawn.squares) for round_ in rounds)
    assert len({tuple(round_) for round_ in rounds}) > 1


@given(row=st.integers(-50, 50), size=st.integers(2, 200), factor=st.floats(0.5, 2))
def test_a_scaled_square_keeps_its_center(row: int, size: int, factor: float) -> None:
    scaled = Square(0, row, 7, size).scaled(factor)
    assert abs((scaled.row + scaled.size / 2) - (row + size / 2)) <= 1


def test_a_damaged_file_stops_training_and_is_named() -> None:
    with pytest.raises(SceneError, match=r"broken\.jpg"):
        [damaged()[i] for i in range(12)]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_another_process_arrives_whole(workers: int) -> None:
    with pytest.raises(SceneError) as caught:
        list(RegionLoader(damaged(), 4, workers, BANDS))
    assert str(caught.value) == "broken.jpg cannot be read; fetch it again"


def test_damaged_files_are_passed_over_with_one_warning_and_batches_are_the_same_in_any_number_of_workers() -> None:
    batches: list[list[RegionBatch]] = []
    for workers in (0, 2):
        progress = RecordedProgress()
        dataset = damaged(AugmentConfig(), patches_per_region=2, balanced_fraction=0.5, skip_corrupt=True)
        loader = RegionLoader(dataset, 4, workers, BANDS, progress)
        batches.append(list(loader))
        assert sum(len(batch.overviews) for batch in batches[-1]) == 12
        assert progress.messages("warning") == ["skipped: broken.jpg cannot be read; fetch it again"]
        assert sum(loader.skipped.values()) > 1
    for ours, theirs in zip(*batches, strict=True):
        assert torch.equal(ours.patches, theirs.patches)
        assert torch.equal(ours.overviews, theirs.overviews)


def test_nothing_but_damaged_files_is_an_error() -> None:
    only = damaged(skip_corrupt=True)
    only.scenes = [DamagedScene(), DamagedScene()]
    with pytest.raises(DatasetError, match="8 regions in a row are in damaged files"):
        only[0]


def test_regions_without_any_label_are_drawn_again() -> None:
    labels = np.full((600, 600), 255)
    labels[300:400, 300:400] = 1
    config = SampleConfig(96, 48, 1, 0.5)
    drawn = RegionDataset([scene_of(labels)], [1.0], RegionConfig(96, 48, 48, 16, 16), config, STILL, length=40)
    with_labels = sum(bool((drawn[i].overview_labels == 1).any()) for i in range(40))
    assert with_labels >= 30  # two thirds of the squares drawn anywhere hold none


def test_a_survey_tells_what_is_absent_and_where_labels_are() -> None:
    labels = np.full((200, 200), 255)
    labels[150:, 150:] = 2
    found = survey([scene_of(np.full((64, 64), 255)), scene_of(labels)])
    assert found.labeled_scenes() == {1}
    assert found.absent(Legend(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))) == ["a", "b"]
    assert found.is_labeled(1, 140, 140, 32)
    assert not found.is_labeled(1, 0, 0, 140)
    assert not found.is_labeled(0, 0, 0, 64)


def test_arrays_can_be_sampled_where_there_is_neither_gdal_nor_torchgeo() -> None:
    code = (
        "import sys\n"
        "for name in ('rasterio', 'torchgeo', 'pyproj', 'shapely', 'pyogrio', 'geopandas'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from geoglnet.bands import Bands\n"
        "from geoglnet.config import RegionConfig\n"
        "from geoglnet.datasets.loading import RegionLoader\n"
        "from geoglnet.datasets.regions import DecodedScene, LabeledRegion\n"
        "from geoglnet.datasets.samplers import RegionDataset, SampleConfig\n"
        "from geoglnet.datasets.transforms import AugmentConfig\n"
        "scene = DecodedScene('a', LabeledRegion(np.zeros((3, 99, 99), np.uint8), np.ones((99, 99), np.uint8)))\n"
        "config = RegionConfig(96, 48, 48, 16, 16), SampleConfig(96, 48, 1), AugmentConfig()\n"
        "loader = RegionLoader(RegionDataset([scene], [1.0], *config, length=2), 2, 0, Bands())\n"
        "print([tuple(batch.patches.shape) for batch in loader])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert ran.stdout.strip() == "[(2, 3, 48, 48)]"


def test_a_survey_misses_no_class_however_small() -> None:
    labels = np.zeros((200, 200))
    labels[101, 77] = 1
    found = survey([scene_of(labels)])
    assert found.places[1].tolist() == [[0, 101, 77]]
