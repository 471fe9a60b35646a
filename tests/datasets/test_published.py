"""DeepGlobe, Inria and ISIC from miniature copies of their published layouts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from geoglnet.datasets.deepglobe import DEEPGLOBE_LEGEND
from geoglnet.datasets.isic import ISIC_LEGEND, draw_split
from geoglnet.datasets.layouts import split_keys
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import DeepGlobeSource, InriaSource, IsicSource
from geoglnet.errors import DatasetError, LegendError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.torchgeo.inria import INRIA_LEGEND, is_first
from tests.miniature import blocks, colors, picture, write_deepglobe, write_image, write_inria, write_isic

SIX = Legend(DEEPGLOBE_LEGEND.names[:6], DEEPGLOBE_LEGEND.colors[:6])
AUTHORS = Legend(("unknown", *SIX.names), ((0, 0, 0), *SIX.colors), background=0)


def reader(folder: Path, legend: Legend, resolution_m: float = 0.5) -> PairReader:
    return PairReader(folder, legend, resolution_m, RecordedProgress())


def keys(pairs: list[Pair]) -> list[str]:
    return [Path(pair.name).stem.removesuffix("_sat") for pair in pairs]


def labels_of(pair: Pair) -> np.ndarray:
    return pair.read_region(slice(0, pair.shape.height), slice(0, pair.shape.width)).labels


@pytest.mark.parametrize("name", ["deepglobe", "inria"])
def test_the_authors_splits_have_the_published_sizes_and_share_no_tile(name: str) -> None:
    lists = [split_keys(f"{name}_{part}") for part in ("train", "crossvali", "test")]
    assert [len(part) for part in lists] == {"deepglobe": [454, 207, 142], "inria": [126, 27, 27]}[name]
    assert len(set().union(*lists)) == sum(len(part) for part in lists)


@pytest.mark.parametrize(
    ("layout", "source", "expected"),
    [
        ("flat", DeepGlobeSource(), "deepglobe_train"),
        ("flat", DeepGlobeSource(split="validation"), "deepglobe_crossvali"),
        ("flat", DeepGlobeSource(split="validation", splits="glnet_v1"), "deepglobe_test"),
        ("flat", DeepGlobeSource(split="test", splits="glnet_v1"), "deepglobe_crossvali"),
        ("torchgeo", DeepGlobeSource(splits="folders"), "deepglobe_train"),
        ("torchgeo", DeepGlobeSource(split="test", splits="folders"), "deepglobe_test"),
        ("glnet", DeepGlobeSource(split="validation", splits="folders"), "deepglobe_crossvali"),
        ("glnet", DeepGlobeSource(split="train"), "deepglobe_train"),
    ],
)
def test_deepglobe_is_found_in_every_layout_and_split(
    tmp_path: Path, layout: str, source: DeepGlobeSource, expected: str
) -> None:
    files = reader(write_deepglobe(tmp_path, layout), SIX)
    assert keys(list(files.iter_pairs(source))) == sorted(split_keys(expected)[:2])
    assert "DeepGlobe land-cover: 1 images without labels are left out" in files.progress.messages("log")
    (warning,) = files.progress.messages("warning") or [""]
    assert ("tiles are missing" in warning) is (source.splits != "folders")


def test_deepglobe_colors_become_the_models_classes_whatever_their_order(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    truth = blocks(7, seed=0)
    for legend, unknown in ((SIX, 255), (AUTHORS, 0)):
        (pair, *_) = reader(tmp_path, legend).iter_pairs(DeepGlobeSource())
        ours = np.array([legend.value_of(name) for name in SIX.names] + [unknown])[truth]
        np.testing.assert_array_equal(labels_of(pair), ours)


def test_masks_that_are_not_quite_pure_are_read_and_other_colors_are_errors_with_the_pixel(tmp_path: Path) -> None:
    write_deepglobe(tmp_path, per_split=1)
    (path,) = tmp_path.glob(f"{split_keys('deepglobe_train')[0]}_mask.png")
    mask = colors(blocks(7, seed=0))
    write_image(path, np.where(mask == 255, 250, 3).astype(np.uint8))
    (pair,) = reader(tmp_path, SIX).iter_pairs(DeepGlobeSource())
    np.testing.assert_array_equal(labels_of(pair), np.array([0, 1, 2, 3, 4, 5, 255])[blocks(7, seed=0)])
    mask[:, 40, 17] = (255, 0, 0)
    write_image(path, mask)
    with pytest.raises(DatasetError, match=r"_mask\.png has color \(255, 0, 0\) at row 40, column 17"):
        labels_of(pair)


def test_numbered_deepglobe_masks_need_their_order_said(tmp_path: Path) -> None:
    key, labels = split_keys("deepglobe_train")[0], blocks(7, seed=3)
    write_image(tmp_path / f"{key}_sat.jpg", picture(labels, 0))
    write_image(tmp_path / f"{key}_mask.png", labels[None])
    (pair,) = reader(tmp_path, SIX).iter_pairs(DeepGlobeSource())
    with pytest.raises(DatasetError, match="set the order of its classes: order = 'glnet'"):
        labels_of(pair)
    (theirs,) = reader(tmp_path, SIX).iter_pairs(DeepGlobeSource(order="torchgeo"))
    np.testing.assert_array_equal(labels_of(theirs), np.array([0, 1, 2, 3, 4, 5, 255])[labels])
    (authors,) = reader(tmp_path, SIX).iter_pairs(DeepGlobeSource(order="glnet"))
    np.testing.assert_array_equal(labels_of(authors), np.array([255, 0, 1, 2, 3, 4, 5])[labels])


def test_a_legend_that_lacks_a_class_of_the_data_set_is_refused(tmp_path: Path) -> None:
    files = reader(write_deepglobe(tmp_path), Legend(("urban", "water"), ((1, 1, 1), (2, 2, 2))))
    with pytest.raises(LegendError, match="DeepGlobe has class 'agriculture', the legend has urban, water"):
        list(files.iter_pairs(DeepGlobeSource()))


@pytest.mark.parametrize("source", [DeepGlobeSource(), InriaSource(), IsicSource()], ids=lambda s: s.kind)
def test_a_folder_of_another_layout_is_described(tmp_path: Path, source: DeepGlobeSource | InriaSource | IsicSource) -> None:
    legend = {"deepglobe": SIX, "inria": INRIA_LEGEND, "isic": ISIC_LEGEND}[source.kind]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.jpeg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"looked for .*; found 1 \.jpeg in pictures, such as pictures/holiday\.jpeg"):
        list(reader(tmp_path, legend).iter_pairs(source))
    with pytest.raises(DatasetError, match="absent is not a folder"):
        list(reader(tmp_path / "absent", legend).iter_pairs(source))


def test_a_tile_that_lies_twice_is_refused(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    with pytest.raises(DatasetError, match="lies twice"):
        list(reader(tmp_path, SIX).iter_pairs(DeepGlobeSource()))


def test_inria_tiles_keep_their_own_crs_and_their_own_labels(tmp_path: Path) -> None:
    pairs = list(reader(write_inria(tmp_path), INRIA_LEGEND, 0.3).iter_pairs(InriaSource(split="all")))
    assert sorted(keys(pairs)) == sorted(f"{city}{n}" for city in ("austin", "vienna") for n in (1, 2, 6, 8))
    assert {str(pair.file.crs) for pair in pairs} == {"EPSG:26914", "EPSG:31256"}
    for pair in pairs:
        number = int(Path(pair.name).stem[6:])
        np.testing.assert_array_equal(labels_of(pair), blocks(2, seed=number))


@pytest.mark.parametrize(
    ("split", "splits", "expected"),
    [
        ("train", "official", ["austin6", "austin8", "vienna6", "vienna8"]),
        ("validation", "official", ["austin1", "austin2", "vienna1", "vienna2"]),
        ("train", "glnet", None),
        ("validation", "glnet", None),
        ("test", "glnet", None),
    ],
)
def test_inria_splits_are_by_the_number_in_the_name(
    tmp_path: Path, split: str, splits: str, expected: list[str] | None
) -> None:
    lists = {"train": "inria_train", "validation": "inria_crossvali", "test": "inria_test"}
    there = {f"{city}{n}" for city in ("austin", "vienna") for n in (1, 2, 6, 8)}
    found = keys(list(reader(write_inria(tmp_path), INRIA_LEGEND, 0.3).iter_pairs(InriaSource(split=split, splits=splits))))
    assert sorted(found) == (expected or sorted(there & set(split_keys(lists[split]))))


def test_the_first_five_tiles_of_a_city_are_counted_by_their_own_number() -> None:
    assert [key for key in ("tyrol-w5", "tyrol-w6", "chicago15") if is_first(key)] == ["tyrol-w5"]


def test_inria_labels_have_two_values(tmp_path: Path) -> None:
    write_inria(tmp_path)
    (path,) = tmp_path.rglob("gt/austin1.tif")
    with rasterio.open(path, "r+") as dst:
        dst.write(np.full((1, 1, 1), 7, np.uint8), window=Window(col_off=10, row_off=20, width=1, height=1))
    (pair, *_) = reader(tmp_path, INRIA_LEGEND, 0.3).iter_pairs(InriaSource(split="all"))
    with pytest.raises(DatasetError, match=r"has label 7 at x 600003\.\d, y 2999993\.\d; known are 0, 255"):
        labels_of(pair)


def test_isic_splits_are_drawn_once_and_kept_in_a_file(tmp_path: Path) -> None:
    files = reader(write_isic(tmp_path), ISIC_LEGEND, 1.0)
    drawn = {split: keys(list(files.iter_pairs(IsicSource(split=split)))) for split in ("train", "validation", "test")}
    assert [len(drawn[split]) for split in drawn] == [8, 1, 1]
    assert len(set().union(*drawn.values())) == 10
    assert (tmp_path / "isic_split.csv").read_text().splitlines()[0] == "id,split"
    assert len([line for line in files.progress.messages("log") if "split of 10 images drawn with seed 0" in line]) == 1
    (tmp_path / "isic_split.csv").write_text("id,split\nISIC_0000003,test\n")
    assert keys(list(files.iter_pairs(IsicSource(split="test")))) == ["ISIC_0000003"]
    (tmp_path / "isic_split.csv").write_text("name,part\nISIC_0000003,test\n")
    with pytest.raises(DatasetError, match="has no column 'id'"):
        list(files.iter_pairs(IsicSource(split="test")))


def test_isic_splits_have_the_papers_sizes() -> None:
    split_of = draw_split([f"ISIC_{n:07}" for n in range(2594)], seed=0)
    assert [list(split_of.values()).count(name) for name in ("train", "validation", "test")] == [2074, 260, 260]
    assert split_of != draw_split(sorted(split_of), seed=1)


def test_isic_images_are_read_at_one_size_when_asked_for(tmp_path: Path) -> None:
    files = reader(write_isic(tmp_path), ISIC_LEGEND, 1.0)
    assert len({max(pair.shape) for pair in files.iter_pairs(IsicSource(split="all"))}) == 10
    resized = list(files.iter_pairs(IsicSource(split="all", longest_side=200)))
    assert {max(pair.shape) for pair in resized} == {200}
    share = [(labels_of(pair) == 1).mean() for pair in resized]
    own = [(labels_of(pair) == 1).mean() for pair in files.iter_pairs(IsicSource(split="all"))]
    np.testing.assert_allclose(share, own, atol=0.01)
