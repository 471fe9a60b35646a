"""Mean and standard deviation of a model's bands, measured on its training scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from geoglnet.bands import Bands
from geoglnet.datasets.regions import LabeledScene
from geoglnet.errors import DatasetError, SceneError
from geoglnet.progress import Progress, Rule
from geoglnet.types import Place

WINDOW_SIZE = 256
MOST_WINDOWS = (
    256  # 17 Mpx, of which a mean is known to a thousandth of the deviation; a second for GeoTIFFs, ten for JPEG 2000
)


def measure_moments(
    scenes: Sequence[LabeledScene],
    weights: Sequence[float],
    bands: Bands,
    leave_out: Callable[[SceneError], None],
    progress: Progress,
    seed: int = 0,
) -> Bands:
    """Measure mean and std of each band over valid pixels, and return the bands with them.

    Small sets are read whole, others in :data:`MOST_WINDOWS` windows, drawn as training samples are. Memory: one window.

    Args:
        scenes: training scenes.
        weights: how often each is drawn, relative to the others.
        bands: of the model.
        leave_out: called with the error of a damaged scene.
        progress: receives the outcome.
        seed: of the windows.

    Raises:
        DatasetError: there is no valid pixel, or a band has one value everywhere.
        SceneError: a scene is damaged, and ``leave_out`` raises its error.
    """
    count, mean, squares = 0, np.zeros(len(bands)), np.zeros(len(bands))
    for index, place in _windows(scenes, weights, np.random.default_rng(seed)):
        try:
            values = scenes[index].read_valid(*place).astype(np.float64) / 255
        except SceneError as error:
            leave_out(error)
            continue
        if not values.shape[1]:
            continue
        # Two sets as one (Chan, Golub and LeVeque 1979), which no large sum of squares can spoil.
        added, their_mean = values.shape[1], values.mean(axis=1)
        squares += values.var(axis=1) * added + (their_mean - mean) ** 2 * count * added / (count + added)
        mean += (their_mean - mean) * added / (count + added)
        count += added
    if not count:
        raise DatasetError("no training scene has a valid pixel to measure mean and std on; check nodata values and masks")
    std = np.sqrt(squares / count)
    for name, value, deviation in zip(bands.names, mean, std, strict=True):
        if deviation < 1e-6:
            raise DatasetError(
                f"band {name} is {255 * value:.6g} of 255 everywhere in the training scenes; leave it out or correct scaling"
            )
    measured = replace(bands, mean=_rounded(mean), std=_rounded(std))
    words = [f"{name} {m:.3g} ± {s:.3g}" for name, m, s in zip(bands.names, measured.mean, measured.std, strict=True)]
    progress.log(Rule(f"mean ± std of the bands, measured on {count / 1e6:.3g} Mpx of training scenes: {', '.join(words)}"))
    return measured


def _windows(scenes: Sequence[LabeledScene], weights: Sequence[float], rng: np.random.Generator) -> Iterator[tuple[int, Place]]:
    """Yield scene numbers with rows and columns: all of them where they are few, drawn ones otherwise."""
    counts = [-(-scene.shape.height // WINDOW_SIZE) * -(-scene.shape.width // WINDOW_SIZE) for scene in scenes]
    if sum(counts) <= MOST_WINDOWS:
        for index, scene in enumerate(scenes):
            for row in range(0, scene.shape.height, WINDOW_SIZE):
                for col in range(0, scene.shape.width, WINDOW_SIZE):
                    yield index, _place(scene, row, col)
        return
    shares = np.asarray(weights, np.float64)
    for index in rng.choice(len(scenes), MOST_WINDOWS, p=shares / shares.sum()).tolist():
        row, col = (int(rng.integers(max(0, side - WINDOW_SIZE) + 1)) for side in scenes[index].shape)
        yield index, _place(scenes[index], row, col)


def _place(scene: LabeledScene, row: int, col: int) -> Place:
    height, width = scene.shape
    return slice(row, min(row + WINDOW_SIZE, height)), slice(col, min(col + WINDOW_SIZE, width))


def _rounded(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
