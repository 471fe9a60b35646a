"""Sources of kind "torchgeo": GeoDatasets that a configuration names by their class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torchgeo.datasets import RasterDataset

from geoglnet.cli.main import geoglnet
from geoglnet.config import RegionConfig
from geoglnet.datasets.reader import PairReader, open_dataset
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.datasets.sources import RastersSource, SourceConfig, TorchgeoSource, source_files
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.errors import ConfigError, DatasetError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from tests.miniature import OWN_TRANSFORM, SIZE, blocks, write_own
from tests.rasters import write_raster

pytestmark = pytest.mark.smoke

LEGEND = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)
SAMPLE = SampleConfig(64, 32, 2, 0.5)


class Scenes(RasterDataset):
    """Somebody's own images."""

    filename_glob = "scene_*.tif"


class Truths(RasterDataset):
    """Somebody's own labels."""

    filename_glob = "truth_*.tif"
    is_image = False


class OwnScenes(Scenes):
    """Read by a method of its own."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index)


class Both(Scenes):
    """Images and labels in one, as ``ChesapeakeCVPR`` has them."""

    def __getitem__(self, index: Any) -> Any:
        sample = super().__getitem__(index)
        return sample | {"mask": (sample["image"][0] > 100).long()}  # grays 40 and 165


HERE = "tests.torchgeo.test_class_paths"
OWN: dict[str, Any] = {
    "dataset": f"{HERE}.Scenes",
    "args": {"paths": "."},
    "labels": f"{HERE}.Truths",
    "labels_args": {"paths": "."},
}


def opened(folder: Path, *sources: SourceConfig, resolution_m: float = 1.0) -> Any:
    reader = PairReader(folder, LEGEND, resolution_m, RecordedProgress())
    dataset = open_dataset(sources, reader, RegionConfig(64, 32, 32, 8, 8), SAMPLE, AugmentConfig())
    dataset.length, dataset.seed = 4, 3
    return dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_own(tmp_path)


@pytest.mark.parametrize("resolution_m", [1.0, 2.0])
def test_samples_equal_those_of_the_same_files_as_rasters(folder: Path, resolution_m: float) -> None:
    by_pattern = opened(folder, RastersSource(images="scene_*.tif", labels="truth_*.tif"), resolution_m=resolution_m)
    by_class = opened(folder, TorchgeoSource(**OWN), resolution_m=resolution_m)
    assert [Path(scene.name).name for scene in by_class.scenes] == ["scene_0.tif", "scene_1.tif", "scene_2.tif"]
    for one, other in ((by_pattern[index], by_class[index]) for index in range(len(by_class))):
        for name in ("overview", "overview_labels", "patches", "patch_labels", "footprints"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("changes", [{"dataset": f"{HERE}.OwnScenes"}, {"dataset": f"{HERE}.Both", "labels": ""}])
def test_a_dataset_that_reads_in_its_own_way_gives_the_same_samples(folder: Path, changes: dict[str, Any]) -> None:
    by_pattern = opened(folder, RastersSource(images="scene_*.tif", labels="truth_*.tif"))
    by_class = opened(folder, TorchgeoSource(**{**OWN, **changes}))
    for one, other in ((by_pattern[index], by_class[index]) for index in range(len(by_class))):
        for name in ("overview", "overview_labels", "patches", "patch_labels", "footprints"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_a_layer_of_polygons_is_drawn_as_torchgeo_draws_it(folder: Path) -> None:
    source = TorchgeoSource(
        dataset="RasterDataset",
        args={"paths": [f"scene_{number}.tif" for number in range(3)]},
        labels="torchgeo.datasets.VectorDataset",
        labels_args={"paths": "buildings.gpkg"},
    )
    progress = RecordedProgress()
    pairs = list(PairReader(folder, LEGEND, 1.0, progress).iter_pairs(source))
    assert [Path(pair.name).name for pair in pairs] == ["scene_0.tif", "scene_1.tif"]
    assert "1 of 3 rasters have no labels in this split and are left out: scene_2.tif" in progress.messages("log")
    for number, pair in enumerate(pairs):
        labels = pair.read_labels(slice(0, SIZE), slice(0, SIZE))
        known = labels != 255  # the bounds of the layer: TorchGeo knows nothing of what lies beyond them
        assert known.mean() > 0.6
        np.testing.assert_array_equal(labels[known], blocks(2, seed=number)[known])


def test_splits_share_no_label_and_leave_none_out(folder: Path) -> None:
    seen = []
    for split in (0, 1):
        source = TorchgeoSource(
            **OWN,
            splits="random_grid_cell_assignment",
            splits_args={"fractions": [0.5, 0.5], "grid_size": 4},
            split=split,
            seed=7,
        )
        pairs = PairReader(folder, LEGEND, 1.0, RecordedProgress()).iter_pairs(source)
        labels = {Path(pair.name).name: pair.read_labels(slice(0, SIZE), slice(0, SIZE)) for pair in pairs}
        unknown = np.full((SIZE, SIZE), 255, np.uint8)
        seen.append(np.stack([labels.get(f"scene_{number}.tif", unknown) for number in range(3)]) != 255)
    assert not (seen[0] & seen[1]).any()
    assert (seen[0] | seen[1]).all()
    assert 0.4 < seen[0].mean() < 0.6


def test_a_split_by_places_or_times_is_made_of_plain_numbers_and_dates(tmp_path: Path) -> None:
    write_own(tmp_path)
    x, y = OWN_TRANSFORM @ (0, 0)
    rois = {"rois": [[x, y - SIZE, x + 40, y], [x + 40, y - SIZE, x + SIZE, y]]}
    source = TorchgeoSource(**OWN, splits="roi_split", splits_args=rois, split=1)
    (pair,) = PairReader(tmp_path, LEGEND, 1.0, RecordedProgress()).iter_pairs(source)
    labels = pair.read_labels(slice(0, SIZE), slice(0, SIZE))
    assert (labels[:, :40] == 255).all()
    assert (labels[:, 40:] != 255).all()
    for day in (1, 2):
        write_raster(tmp_path / f"dated_2020010{day}.tif", np.full((3, SIZE, SIZE), 9 * day, np.uint8), transform=OWN_TRANSFORM)
        write_raster(tmp_path / f"known_2020010{day}.tif", blocks(2, day)[None], transform=OWN_TRANSFORM)
    spans = {"lengths": [["2020-01-01", "2020-01-02"], ["2020-01-02", "2020-01-02T23:59:59.999999"]]}
    source = TorchgeoSource(
        dataset=f"{HERE}.Dated",
        args={"paths": "."},
        labels=f"{HERE}.Known",
        labels_args={"paths": "."},
        splits="time_series_split",
        splits_args=spans,
        split=1,
    )
    (pair,) = PairReader(tmp_path, LEGEND, 1.0, RecordedProgress()).iter_pairs(source)
    assert Path(pair.name).name == "dated_20200102.tif"
    np.testing.assert_array_equal(pair.read_labels(slice(0, SIZE), slice(0, SIZE)), blocks(2, 2))


class Dated(RasterDataset):
    filename_glob = "dated_*.tif"
    filename_regex = r".*_(?P<date>\d{8})\.tif"


class Known(Dated):
    filename_glob = "known_*.tif"
    is_image = False


def test_rasters_of_several_crs_are_read_at_the_models_resolution(folder: Path) -> None:
    source = TorchgeoSource(**{**OWN, "args": {"paths": ".", "crs": "EPSG:32735"}, "labels_args": {"paths": ".", "crs": 32735}})
    pairs = list(PairReader(folder, LEGEND, 2.0, RecordedProgress()).iter_pairs(source))
    for pair in pairs:
        # Six degrees west of its zone, in a CRS whose meters are longer there.
        assert pair.shape.height * pair.shape.width == pytest.approx(SIZE**2 / 4, rel=0.3)
        with pair.file.open() as scene:
            assert scene.pixel_size_m == pytest.approx(2, rel=0.01)
        assert set(np.unique(pair.read_labels(slice(0, pair.shape.height), slice(0, pair.shape.width)))) <= {0, 1, 255}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dataset": "torchgeo.datasets.NAIPS"}, ConfigError, "torchgeo.datasets has no 'NAIPS'; did you mean 'NAIP'"),
        ({"dataset": "torchgeo.nothing.NAIP"}, ConfigError, "No module named 'torchgeo.nothing'"),
        ({"dataset": "DeepGlobeLandCover"}, ConfigError, "'DeepGlobeLandCover' is no GeoDataset.*use kind = 'deepglobe'"),
        ({"dataset": "os.system"}, ConfigError, "'os.system' is no GeoDataset"),
        ({"args": {"path": "."}}, ConfigError, "unexpected keyword argument 'path'"),
        ({"args": {"paths": "nowhere"}}, DatasetError, "Scenes cannot be opened"),
        ({"args": {"paths": ".", "crs": "nonsense"}}, DatasetError, "Scenes cannot be opened: Invalid projection"),
        ({"splits": "random_split"}, ConfigError, "splits = 'random_split'"),
        ({"splits": "roi_split", "splits_args": {"rois": [[1, 2]]}}, ConfigError, "rois are lists of left, bottom"),
        ({"splits": "random_bbox_assignment", "splits_args": {"parts": 2}}, ConfigError, "random_bbox_assignment: .*'parts'"),
        (
            {"splits": "random_bbox_assignment", "splits_args": {"lengths": [0.5, 0.5]}, "split": 2},
            ConfigError,
            "split = 2 of random_bbox_assignment, which gives 2",
        ),
        ({"split": -1}, ConfigError, "must be 0 or more"),
        ({"dataset": ""}, ConfigError, "needs dataset = '…'"),
    ],
)
def test_what_cannot_be_opened_is_said(folder: Path, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        opened(folder, TorchgeoSource(**{**OWN, **changes}))


def test_its_files_are_known_so_that_no_output_replaces_them(folder: Path) -> None:
    found = {path.name for path in source_files(TorchgeoSource(**OWN), folder)}
    assert {"scene_0.tif", "truth_2.tif"} <= found


@pytest.mark.parametrize(
    "dataset",
    [
        'dataset = "torchgeo.datasets.RasterDataset"\nargs = { paths = ["scene_0.tif", "scene_1.tif"] }\n'
        'labels = "torchgeo.datasets.VectorDataset"\nlabels_args = { paths = "buildings.gpkg" }\n',
        f'dataset = "{HERE}.Both"\nargs = {{ paths = "." }}\n',
    ],
    ids=["images and polygons", "one that has both"],
)
def test_the_command_line_trains_and_scores_on_it(folder: Path, dataset: str) -> None:
    source = f'kind = "torchgeo"\n{dataset}splits = "random_grid_cell_assignment"\n'
    source += "splits_args = { fractions = [0.5, 0.5], grid_size = 2 }\nsplit = {split}\n"
    (folder / "mine.toml").write_text(
        'name = "mine"\nresolution_m = 1\n[legend]\nclasses = [{name = "background", color = [0, 0, 0]}, '
        '{name = "building", color = [255, 0, 0]}]\nbackground = 0\n'
        f"[[train]]\n{source.replace('{split}', '0')}[[validation]]\n{source.replace('{split}', '1')}"
        '[model]\nbackbone = "mobilenet_v3_small"\npyramid_channels = 8\nsmooth_channels = 4\n'
        "[region]\nregion_size = 96\noverview_size = 48\npatch_size = 64\npatch_overlap = 16\nmargin = 16\n"
        "[sample]\nregion_size = 96\npatch_size = 64\npatches_per_region = 1\n"
        '[optim]\nglobal_steps = 1\nlocal_steps = 1\nbatch_size = 2\nbackbone_weights = ""\n'
    )
    model = folder / "mine.safetensors"
    for words in (
        ["train", folder / "mine.toml", "--data", folder, "-o", model],
        ["evaluate", model, folder / "mine.toml", "--data", folder],
    ):
        ran = CliRunner().invoke(geoglnet, [str(word) for word in words])
        assert ran.exit_code == 0, ran.output
    assert "image iou" in ran.output
