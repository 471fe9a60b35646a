"""Pictures of scenes, truth, labels and errors: arrays to arrays, for logs and reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoglnet.bands import Bands
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.types import BandValues, Shape

Image = npt.NDArray[np.uint8]

PICTURE_SIZE = 400
"""Longest side of a kept picture, in pixels."""

_NOTHING, _RIGHT, _WRONG = (np.array(color, np.uint8) for color in ((90, 90, 90), (235, 235, 235), (200, 30, 30)))
_GAP = 4


@dataclass(frozen=True, slots=True)
class ScenePicture:
    """A scene and its labels, decimated.

    Args:
        image: ``(h, w, 3)`` uint8.
        truth: ``(h, w)`` uint8 labels.
        labels: ``(h, w)`` uint8 labels.
    """

    image: Image
    truth: Image
    labels: Image


def decimation(shape: Shape, longest: int) -> int:
    """Choose every how many pixels to keep one, so that the longer side has at most ``longest``."""
    return max(1, -(-max(shape) // longest))


def as_rgb(image: BandValues, bands: Bands = Bands()) -> Image:  # noqa: B008 - it is frozen
    """Show the red, green and blue bands of a ``(C, h, w)`` image by their names, else the first three, or the first alone.

    8-bit colors are shown as they are; all else is stretched between its percentiles, all shown bands together.

    Returns:
        ``(h, w, 3)``.
    """
    chosen = bands.rgb if bands.rgb is not None and len(image) == len(bands) else (0, 1, 2) if len(image) >= 3 else (0, 0, 0)
    shown = image[list(chosen)]
    if shown.dtype != np.uint8 or (bands.rgb is None and len(image) == len(bands)):
        finite = shown[np.isfinite(shown)]
        low, high = np.percentile(finite, (2, 98)) if finite.size else (0, 255)
        stretched = (shown - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))
        shown = np.rint(np.clip(np.nan_to_num(stretched), 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(shown, 0, -1))


def colored(labels: Image, legend: Legend) -> Image:
    """``(h, w, 3)`` labels in the legend's colors, gray where there is no class."""
    table = np.full((256, 3), _NOTHING, np.uint8)
    table[: legend.num_classes] = legend.colors
    return table[labels]


def errors(truth: Image, labels: Image) -> Image:
    """``(h, w, 3)``: light where right, red where wrong, gray where nothing is known."""
    picture = np.where((truth == labels)[..., None], _RIGHT, _WRONG)
    return np.where((truth == NO_CLASS)[..., None], _NOTHING, picture)


def side_by_side(pictures: Sequence[Image]) -> Image:
    """Join several pictures into one ``(h, w, 3)`` of the same height, with white gaps."""
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)
