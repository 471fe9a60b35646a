"""Scores under every convention in use, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.metrics import BoundaryScore, ConfusionMatrix, boundaries, conventions, near

BINARY = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)
LAND = Legend(("urban", "water", "forest"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))


def matrix(legend: Legend, truth: object, labels: object) -> ConfusionMatrix:
    counted = ConfusionMatrix(legend)
    counted.update(np.array(truth, np.uint8), np.array(labels, np.uint8))
    return counted


def test_unlabeled_pixels_are_ignored_or_counted_as_the_authors_do() -> None:
    found = matrix(LAND, [0, 0, 1, 255, 255], [0, 1, 1, 1, 2])
    assert found.iou()[:2].tolist() == [1 / 2, 1 / 2]
    assert np.isnan(found.iou()[2])
    assert found.iou(counting_unlabeled=True).tolist() == [1 / 2, 1 / 3, 0.0]
    assert found.mean_iou() == 1 / 2
    assert found.mean_iou(counting_unlabeled=True) == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert found.accuracy() == 2 / 3


def test_the_building_iou_of_inria_is_the_mean_without_the_background() -> None:
    found = matrix(BINARY, [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0])
    scores = conventions(BINARY, [found])
    assert scores["mean_iou"] == found.iou()[1] == 2 / 4
    assert scores["mean_iou_with_background"] == (2 / 4 + 2 / 4) / 2
    assert scores["accuracy"] == 4 / 6


def test_isic_scores_are_means_over_images_and_nothing_below_the_threshold() -> None:
    good = matrix(BINARY, [1, 1, 1, 1, 0], [1, 1, 1, 1, 1])  # 0.8
    poor = matrix(BINARY, [1, 1, 1, 1, 0], [1, 1, 0, 0, 0])  # 0.5
    empty = matrix(BINARY, [0, 0], [0, 0])  # nothing to find, nothing found
    invented = matrix(BINARY, [0, 0], [0, 1])
    unlabeled = matrix(BINARY, [255, 255], [0, 1])
    scores = conventions(BINARY, [good, poor, empty, invented, unlabeled])
    assert scores["image_iou"] == pytest.approx((0.8 + 0.5 + 1 + 0) / 4)
    assert scores["image_iou_65"] == pytest.approx((0.8 + 0 + 1 + 0) / 4)
    assert matrix(BINARY, [1] * 20, [1] * 13 + [0] * 7).image_iou(0.65) == 0.65  # at the threshold it counts


@given(
    arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 1, 2, 255])), arrays(np.uint8, (9, 11), elements=st.integers(0, 2))
)
def test_iou_is_the_definition_of_it(truth: np.ndarray, labels: np.ndarray) -> None:
    found, known = matrix(LAND, truth, labels), truth != 255
    for value, iou in enumerate(found.iou()):
        hits = ((truth == value) & (labels == value)).sum()
        union = (((truth == value) | (labels == value)) & known).sum()
        assert iou == hits / union if union else np.isnan(iou)


@given(arrays(bool, (12, 15)), st.integers(0, 5))
def test_near_is_a_euclidean_distance(points: np.ndarray, distance: int) -> None:
    expected = distance_transform_edt(~points) <= distance if points.any() else np.zeros_like(points)
    np.testing.assert_array_equal(near(points, distance), expected)


def square(shift: int) -> np.ndarray:
    labels = np.zeros((60, 60), np.uint8)
    labels[10 + shift : 40 + shift, 10:40] = 1
    return labels


@pytest.mark.parametrize(("shift", "f1"), [(0, 1.0), (3, 1.0), (8, 56 / 116)])
def test_boundaries_agree_within_the_tolerance(shift: int, f1: float) -> None:
    score = BoundaryScore(BINARY, 3)
    score.update(square(0), square(shift))
    assert score.mean_f1() == f1


def test_unlabeled_pixels_have_no_boundary() -> None:
    truth = square(0)
    truth[:, 40:] = 255
    assert not boundaries(truth)[:, 40:].any()
    assert not boundaries(truth)[12:38, 39].any()
    score = BoundaryScore(BINARY, 1)
    score.update(truth, square(0))
    assert score.mean_f1() == 1.0


@given(arrays(np.uint8, (40, 17), elements=st.integers(0, 2)), st.integers(0, 4), st.integers(3, 20))
def test_strips_with_a_margin_score_as_the_whole(labels: np.ndarray, tolerance: int, size: int) -> None:
    truth = np.roll(labels, 2, axis=0)
    whole, strips = BoundaryScore(LAND, tolerance), BoundaryScore(LAND, tolerance)
    whole.update(truth, labels)
    for top in range(0, 40, size):
        first, last = max(0, top - strips.margin), min(40, top + size + strips.margin)
        strips.update(truth[first:last], labels[first:last], slice(top - first, min(top + size, 40) - first))
    np.testing.assert_array_equal(whole.counts, strips.counts)


def test_maps_of_two_grids_and_negative_tolerances_are_refused() -> None:
    with pytest.raises(ConfigError, match="the same grid"):
        BoundaryScore(BINARY).update(np.zeros((2, 2), np.uint8), np.zeros((3, 2), np.uint8))
    with pytest.raises(ConfigError, match="tolerance -1 px"):
        BoundaryScore(BINARY, -1)
