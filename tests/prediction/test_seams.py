"""The seam report tells labels that were put together well from labels that were not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window

from geoglnet.legend import NO_CLASS
from geoglnet.prediction.journal import FinishedBlock
from geoglnet.prediction.seam_report import SeamReport, count_inner_borders, seam_report
from geoglnet.types import Shape

Labels = npt.NDArray[np.uint8]
SIDE = 16


def report_of(labels: Labels, side: int = SIDE) -> SeamReport:
    """The report of labels in square blocks, half of whose overlaps disagreed."""
    height, width = labels.shape
    rows, cols = range(0, height, side), range(0, width, side)
    blocks = []
    for top in rows:
        for left in cols:
            block = labels[top : top + side, left : left + side]
            pairs, borders = count_inner_borders(block)
            window = (left, top, block.shape[1], block.shape[0])
            blocks.append(FinishedBlock(top, left, window, compared=10, differing=5, pairs=pairs, borders=borders))

    def read(window: Window) -> Labels:
        return labels[window.toslices()]

    return seam_report(blocks, read, Shape(height, width), (rows[1:], cols[1:]))


def test_borders_that_follow_block_lines_stand_out() -> None:
    places = np.add.outer(np.arange(64) // SIDE, np.arange(64) // SIDE)
    seamed = (places % 2).astype(np.uint8)
    report = report_of(seamed)
    assert (report.on_lines, report.elsewhere, report.disagreement) == (1.0, 0.0, 0.5)
    assert report.excess == float("inf")
    noisy = seamed ^ (np.random.default_rng(0).random(seamed.shape) < 0.05)
    assert report_of(noisy).excess > 5


@given(seed=st.integers(0, 2**31))
def test_noise_has_as_many_borders_on_lines_as_elsewhere(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 2, (128, 128)).astype(np.uint8)
    assert report_of(labels).excess == pytest.approx(1, abs=0.2)


def test_nodata_is_no_border_and_one_block_has_no_seam() -> None:
    labels = np.zeros((32, 32), np.uint8)
    labels[:, 16:] = NO_CLASS
    assert report_of(labels).on_lines == 0
    alone = report_of(np.arange(256, dtype=np.uint8).reshape(16, 16) % 7)
    assert not alone.has_lines
    assert alone.excess == 1
    assert str(alone) == "seams: none, nothing was put together"
    nothing = report_of(np.full((32, 32), NO_CLASS, np.uint8))
    assert nothing.excess == 1
