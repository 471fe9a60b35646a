"""Mean and std of bands, measured on training scenes."""

from __future__ import annotations

import numpy as np
import pytest

from geoglnet.bands import Bands, ValueRange
from geoglnet.config import ScalingRule
from geoglnet.datasets import moments
from geoglnet.datasets.moments import measure_moments
from geoglnet.datasets.regions import DecodedScene, LabeledRegion
from geoglnet.errors import DatasetError, SceneError
from geoglnet.progress import RecordedProgress

BANDS = Bands(("red", "height"), scaling=(ScalingRule.REFLECTANCE, ValueRange(0, 30)))


def refuse(error: SceneError) -> None:
    raise error


def scene(seed: int, height: int = 300, width: int = 280) -> DecodedScene:
    rng = np.random.default_rng(seed)
    image = np.stack([rng.normal(40, 10, (height, width)), rng.normal(100 + seed, 50, (height, width))]).astype(np.float32)
    return DecodedScene(f"scene {seed}", LabeledRegion(image, np.zeros((height, width), np.uint8)))


def test_few_scenes_are_measured_whole_and_pixels_without_a_value_do_not_count() -> None:
    scenes, progress = [scene(0), scene(1)], RecordedProgress()
    scenes[0].whole.image[:, :100] = np.nan
    measured = measure_moments(scenes, [1, 1], BANDS, refuse, progress)
    values = np.concatenate([s.whole.image.reshape(2, -1) for s in scenes], axis=1).astype(np.float64)
    values = values[:, np.isfinite(values[0])] / 255
    assert measured.mean == pytest.approx(values.mean(axis=1), rel=1e-5)
    assert measured.std == pytest.approx(values.std(axis=1), rel=1e-5)
    assert "measured on 0.14 Mpx of training scenes: red 0.157 ± 0.0392, height" in progress.messages("log")[0]


def test_many_scenes_are_sampled_within_bounds_and_the_same_ones_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "MOST_WINDOWS", 5)
    reads: list[int] = []

    class Counted(DecodedScene):
        def read_valid(self, rows: slice, cols: slice) -> np.ndarray:
            reads.append((rows.stop - rows.start) * (cols.stop - cols.start))
            return super().read_valid(rows, cols)

    scenes = [Counted(f"{seed}", scene(seed).whole) for seed in range(4)]
    first, second = (measure_moments(scenes, [1, 1, 1, 0], BANDS, refuse, RecordedProgress()) for _ in range(2))
    assert first == second
    assert reads == [256 * 256] * 10
    assert first.mean == pytest.approx((40 / 255, 101 / 255), rel=0.02)


def test_a_band_that_never_changes_is_named() -> None:
    constant = scene(0)
    constant.whole.image[1] = 7
    with pytest.raises(DatasetError, match="band height is 7 of 255 everywhere in the training scenes"):
        measure_moments([constant], [1], BANDS, refuse, RecordedProgress())
    constant.whole.image[:] = np.nan
    with pytest.raises(DatasetError, match="no training scene has a valid pixel to measure"):
        measure_moments([constant], [1], BANDS, refuse, RecordedProgress())
