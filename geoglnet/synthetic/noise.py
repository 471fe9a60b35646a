"""Random fields: smooth at a chosen scale, cheap at any size."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from geoglnet.types import Shape

Field: TypeAlias = npt.NDArray[np.floating[Any]]


def smooth_noise(rng: np.random.Generator, shape: Shape, cell_size: float) -> Field:
    """Draw noise of about unit variance with features ``cell_size`` pixels wide: a random cubic B-spline surface."""
    # With features finer than pixels there would be more knots than pixels.
    cell_size = max(cell_size, 1.0)
    rows, cols = (_spline_basis(length, cell_size) for length in shape)
    knots = rng.standard_normal((rows.shape[1], cols.shape[1])).astype(np.float32)
    # Separable: one axis after the other, with a sparse basis each.
    surface = (cols @ (rows @ knots).T).T
    return np.ascontiguousarray(surface, dtype=np.float32) * np.float32(2.1)  # a cubic spline of unit knots has deviation 0.48


def fractal_noise(rng: np.random.Generator, shape: Shape, cell_size: float, octaves: int) -> Field:
    """Sum smooth noises, each half as wide and 0.6 as strong as the one before, scaled to about unit variance."""
    surface, power = np.zeros(shape, np.float32), 0.0
    for octave in range(octaves):
        weight = 0.6**octave
        surface += np.float32(weight) * smooth_noise(rng, shape, cell_size / 2**octave)
        power += weight**2
    # The octaves are independent, so their variances add up.
    surface /= np.float32(np.sqrt(power))
    return surface


def _spline_basis(length: int, cell_size: float) -> sparse.csr_matrix:
    """Compute the ``(length, knots)`` weights of uniform cubic B-splines, four in each row."""
    position = np.arange(length) / cell_size
    first = np.floor(position).astype(int)
    t = position - first
    # The four cubic B-splines that are not zero between two knots.
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    columns = first[:, None] + np.arange(4)
    rows = np.repeat(np.arange(length), 4)
    shape = (length, int(first[-1]) + 4)
    return sparse.csr_matrix((weights.astype(np.float32).ravel(), (rows, columns.ravel())), shape=shape)
