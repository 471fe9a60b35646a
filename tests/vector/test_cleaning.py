"""Labels cleaned tile by tile are those of cleaning the whole raster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.windows import Window
from scipy.ndimage import binary_opening, gaussian_filter

from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.types import Shape
from geoglnet.vector import cleaning
from geoglnet.vector.cleaning import CleaningRules, clean_tile, fill_holes, open_labels, sieve_labels
from geoglnet.vector.polygonizer import vectorize
from geoglnet.vector.settings import VectorConfig
from geoglnet.vector.tiles import ArrayTiles
from geoglnet.vector.tracing import label_components
from geoglnet.windows import iter_cores
from tests.rasters import write_raster

LEGEND = Legend(("background", "roof", "road"), ((0, 0, 0), (250, 100, 0), (90, 90, 90)), background=0)
sides = st.integers(2, 24)
label_arrays = arrays(np.uint8, st.tuples(sides, sides), elements=st.sampled_from([0, 1, 2, 255]))
blocky = label_arrays.map(lambda labels: labels.repeat(2, axis=0).repeat(2, axis=1))


def sizes(labels: np.ndarray) -> np.ndarray:
    return label_components(labels).totals[:, 0]


@settings(max_examples=60)
@given(
    st.one_of(label_arrays, blocky),
    st.integers(4, 20),
    st.builds(
        CleaningRules,
        opening=st.integers(0, 2),
        sieve=st.sampled_from([0.0, 2.0, 5.0, 12.0]),
        fill_holes=st.booleans(),
        background=st.sampled_from([None, 0]),
        connectivity=st.sampled_from([4, 8]),
    ),
)
def test_tiles_cleaned_on_their_own_agree_with_the_whole_raster(
    labels: np.ndarray, tile_size: int, rules: CleaningRules
) -> None:
    source = ArrayTiles(labels)
    whole, is_exact = clean_tile(source, Window(0, 0, labels.shape[1], labels.shape[0]), rules)
    assert is_exact
    for window in iter_cores(Shape(*labels.shape), tile_size, margin=0):
        tile, is_exact = clean_tile(source, window, rules)
        assert is_exact
        np.testing.assert_array_equal(tile, whole[window.toslices()])
    np.testing.assert_array_equal(whole == 255, labels == 255)


def test_a_small_area_goes_to_the_neighbor_with_the_longest_border() -> None:
    labels = np.array([[1, 1, 1, 2, 2], [1, 0, 0, 2, 2], [1, 1, 1, 2, 2]], dtype=np.uint8)
    sieved, uncertain = sieve_labels(labels, 3)
    np.testing.assert_array_equal(sieved, [[1, 1, 1, 2, 2]] * 3)
    assert not uncertain.any()


def test_small_areas_behind_small_areas_follow_them() -> None:
    labels = np.array([[1, 1, 1, 2, 0, 2]], dtype=np.uint8)
    np.testing.assert_array_equal(sieve_labels(labels, 2)[0], [[1] * 6])


@settings(max_examples=40)
@given(label_arrays, st.integers(1, 9))
def test_after_sieving_only_clusters_without_a_large_neighbor_are_small(labels: np.ndarray, min_pixels: int) -> None:
    sieved, _ = sieve_labels(labels, min_pixels)
    before, after = label_components(labels), label_components(sieved)
    for number in np.flatnonzero(sizes(sieved) < min_pixels) + 1:
        place = after.ids == number
        assert (sieved[place] == labels[place]).all()
        assert before.totals[np.unique(before.ids[place]) - 1, 0].max() < min_pixels


def test_nothing_small_remains_of_a_smooth_raster() -> None:
    rng = np.random.default_rng(0)
    labels = np.argmax([gaussian_filter(rng.standard_normal((200, 200)), 2) for _ in range(4)], axis=0).astype(np.uint8)
    assert (sizes(labels) < 30).sum() > 20
    assert sizes(sieve_labels(labels, 30)[0]).min() >= 30


def test_a_window_says_where_more_of_the_raster_could_change_it() -> None:
    labels = np.zeros((9, 9), dtype=np.uint8)
    labels[:2, 3] = 1
    labels[5, 5] = 1
    _, uncertain = sieve_labels(labels, 4, open_sides=("top",))
    assert set(zip(*np.nonzero(uncertain), strict=True)) == {(0, 3), (1, 3)}
    assert not sieve_labels(labels, 4, open_sides=("left",))[1].any()


def test_with_eight_neighbors_a_diagonal_is_one_area() -> None:
    labels = np.eye(6, dtype=np.uint8)
    assert sieve_labels(labels, 6)[0].sum() == 0
    assert sieve_labels(labels, 6, connectivity=8)[0].sum() == 6


@settings(max_examples=40)
@given(arrays(np.uint8, st.tuples(st.integers(6, 24), st.integers(6, 24)), elements=st.sampled_from([0, 1])), st.integers(1, 2))
def test_opening_to_background_is_that_of_scipy_away_from_the_border(labels: np.ndarray, radius: int) -> None:
    inside = np.s_[2 * radius : -2 * radius, 2 * radius : -2 * radius]
    wanted = binary_opening(labels == 1, np.ones((2 * radius + 1,) * 2))
    opened = open_labels(labels, radius, background=0)
    np.testing.assert_array_equal(opened[inside], wanted[inside])


def test_without_background_neighbors_grow_into_what_is_thin() -> None:
    labels = np.ones((9, 9), dtype=np.uint8)
    labels[:, 5:] = 3
    labels[:, 4] = 2
    opened = open_labels(labels, 1, background=None)
    assert set(np.unique(opened)) == {1, 3}
    assert (opened[:, :4] == 1).all()
    assert (opened[:, 5:] == 3).all()


def test_only_background_that_one_class_encloses_is_a_hole() -> None:
    labels = np.zeros((12, 20), dtype=np.uint8)
    labels[1:7, 1:7] = 1
    labels[2:4, 2:4] = 0  # a hole
    labels[5, 4] = 255  # nodata is none
    labels[1:7, 10:16] = 1
    labels[3:5, 12:14] = 0
    labels[3, 11] = 2  # its neighbor is another class
    labels[9, 0] = 1
    filled = fill_holes(labels, 0, 256)
    changed = set(zip(*np.nonzero(filled != labels), strict=True))
    assert changed == {(2, 2), (2, 3), (3, 2), (3, 3)}
    assert (filled[2:4, 2:4] == 1).all()
    assert filled[5, 4] == 255
    assert fill_holes(labels, 0, 1)[2, 2] == 0


def test_noise_that_percolates_is_sieved_tile_by_tile_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "LARGEST_SIEVE_MARGIN", 8)
    monkeypatch.setattr(cleaning, "CLEANING_TILE_SIZE", 32)
    noise = np.random.default_rng(0).integers(0, 8, (1, 96, 96), dtype=np.uint8)
    labels, progress = write_raster(tmp_path / "labels.tif", noise), RecordedProgress()
    assert vectorize(labels, tmp_path / "out.gpkg", config=VectorConfig(sieve="6px"), progress=progress) > 0
    assert any("sieved tile by tile" in message for message in progress.messages("warning"))


def test_cleaning_leaves_only_the_polygons_behind(tmp_path: Path) -> None:
    labels = np.zeros((1, 64, 64), dtype=np.uint8)
    labels[0, 10:40, 10:40] = 1
    labels[0, 20:22, 20:22] = 0
    labels[0, 50, 50] = 1
    labels[0, 25, 40:60] = 1
    path = write_raster(tmp_path / "labels.tif", labels)
    config = VectorConfig(sieve="3m2", fill_holes=True, opening=1)
    assert vectorize(path, tmp_path / "out.gpkg", legend=LEGEND, config=config) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.tif", "out.gpkg"]
    with rasterio.open(path) as src:
        assert src.transform != Affine.identity()
    count = vectorize(path, tmp_path / "exact.gpkg", legend=LEGEND)
    assert count == 2


def test_filling_holes_without_background_is_told(tmp_path: Path) -> None:
    legend = Legend(("wood", "water"), ((0, 99, 0), (0, 0, 200)))
    path, progress = write_raster(tmp_path / "labels.tif", np.zeros((1, 8, 8), np.uint8)), RecordedProgress()
    vectorize(path, tmp_path / "out.gpkg", legend=legend, config=VectorConfig(fill_holes=True), progress=progress)
    assert "no class is background" in progress.messages("warning")[0]
