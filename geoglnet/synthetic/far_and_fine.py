"""Generated scenes whose classes depend on both distant and fine details: the dilemma of paper §3.1, made on purpose.

A scene is a valley with fields. The crop of a field is visible in its finest texture alone: dots (an orchard) or rows (a
vineyard), of the same mean color, so that the decimated overview shows plain fields. Whether a field is irrigated is not
visible near it, but at one side of the valley only: a lake or a dune, further from every field than a patch is wide. The class
of a field is both together. So a network that sees patches alone cannot know the water, one that sees overviews alone cannot
know the crop, and neither can do better on fields than guess one of two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.raster.failures import writing

FAR_AND_FINE_LEGEND = Legend(
    ("open ground", "lake", "dune", "irrigated orchard", "dry orchard", "irrigated vineyard", "dry vineyard"),
    ((190, 180, 160), (40, 110, 200), (230, 190, 90), (20, 130, 60), (150, 190, 60), (130, 40, 130), (220, 130, 170)),
)
FIELDS = ("irrigated orchard", "dry orchard", "irrigated vineyard", "dry vineyard")
PERIOD = 4
"""Pixels from dot to dot and from row to row; invisible in an overview decimated by this factor."""

_GROUND, _FIELD = 120.0, 105.0
_LANDMARKS = {"lake": (60.0, 95.0, 150.0), "dune": (165.0, 135.0, 75.0)}
_CONTRAST, _NOISE = 70.0, 6.0

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Valley:
    """Sizes of a scene.

    Args:
        size: side of the scene in pixels.
        distance: least distance of any field to the lake or dune; a patch no wider than this never shows both.
        landmark_size: width of the lake or dune.
        field_size: side of a field.
        num_fields: number of fields that are tried; those that would touch another are left out.

    Raises:
        ConfigError: there is no room for a field.
    """

    size: int = 256
    distance: int = 64
    landmark_size: int = 40
    field_size: int = 40
    num_fields: int = 24

    def __post_init__(self) -> None:
        if self.first_row + self.field_size > self.size:
            raise ConfigError(f"a valley of {self.size} px has no room for a field {self.first_row} px from its border")

    @property
    def first_row(self) -> int:
        """First row on which fields may begin, counted from the landmark's side."""
        return self.landmark_size + self.distance


def far_and_fine_region(seed: int, valley: Valley = Valley()) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw a scene and its labels by :data:`FAR_AND_FINE_LEGEND`; the same for the same seed.

    Args:
        seed: seed of everything that is drawn.
        valley: sizes.

    Returns:
        ``(3, size, size)`` uint8 image, and ``(size, size)`` uint8 labels.
    """
    rng = np.random.default_rng(seed)
    side = valley.size
    image, labels = np.full((3, side, side), _GROUND, np.float32), np.zeros((side, side), np.uint8)
    landmark = str(rng.choice(list(_LANDMARKS)))
    _draw_landmark(image, labels, landmark, valley, rng)
    for row, col in _field_corners(valley, rng):
        place = np.s_[row : row + valley.field_size, col : col + valley.field_size]
        # Independent of the landmark: neither of them says anything about the other.
        crop = str(rng.choice(["orchard", "vineyard"]))
        image[:, *place] = _texture(crop, valley.field_size, rng)
        water = "irrigated" if landmark == "lake" else "dry"
        labels[place] = FAR_AND_FINE_LEGEND.value_of(f"{water} {crop}")
    # Noise and a random brightness of the whole scene: else the mean color alone could give a class away.
    image += rng.normal(0, _NOISE, image.shape).astype(np.float32) + np.float32(rng.uniform(-15, 15))
    turns = int(rng.integers(4))  # the landmark may be on any side
    image, labels = np.rot90(image, turns, (1, 2)), np.rot90(labels, turns)
    return np.ascontiguousarray(image.round().clip(0, 255), np.uint8), np.ascontiguousarray(labels)


def _draw_landmark(image: Image, labels: npt.NDArray[np.uint8], name: str, valley: Valley, rng: np.random.Generator) -> None:
    """Draw a lake or a dune along the first rows, with a wavy shore."""
    cols = np.arange(valley.size)
    waves = np.sum([np.sin(cols / valley.size * np.pi * k + rng.uniform(0, 6.3)) / k for k in (2, 4, 7)], axis=0)
    shore = valley.landmark_size * (0.75 + 0.12 * waves)
    is_landmark = np.arange(valley.size)[:, None] < shore.clip(8, valley.landmark_size)
    image[:, is_landmark] = np.array(_LANDMARKS[name], np.float32)[:, None]
    labels[is_landmark] = FAR_AND_FINE_LEGEND.value_of(name)


def _field_corners(valley: Valley, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw the upper left corners of fields that neither touch each other nor come too close to the landmark."""
    corners: list[tuple[int, int]] = []
    last, apart = valley.size - valley.field_size, valley.field_size + 8
    for _ in range(valley.num_fields):
        row, col = int(rng.integers(valley.first_row, last + 1)), int(rng.integers(0, last + 1))
        # Rejection: a corner too near to another field is dropped, not moved.
        if all(max(abs(row - r), abs(col - c)) >= apart for r, c in corners):
            corners.append((row, col))
    return corners


def _texture(crop: str, size: int, rng: np.random.Generator) -> Image:
    """Draw the brightness of a field, ``(size, size)``: dots or rows, of equal mean and equal variance."""
    # A product of two sines has half the variance of one, hence the root of 2.
    first, second = (np.sin((np.arange(size) + rng.uniform(0, PERIOD)) / PERIOD * 2 * np.pi) for _ in range(2))
    if crop == "orchard":
        wave = np.sqrt(2) * first[:, None] * second
    else:
        wave = np.broadcast_to(first[:, None] if rng.random() < 0.5 else second, (size, size))
    field: Image = (_FIELD + 0.5 * _CONTRAST * wave).astype(np.float32)
    return field


def write_far_and_fine(folder: Path, seeds: Iterable[int], valley: Valley = Valley()) -> list[Path]:
    """Write scenes as ``scene_<seed>.tif`` with ``labels_<seed>.tif`` beside, at 1 m in UTM; existing files are replaced.

    Args:
        folder: made where it is missing.
        seeds: seed of each scene.
        valley: sizes.

    Returns:
        Paths of the scenes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in seeds:
        image, labels = far_and_fine_region(seed, valley)
        _write(folder / f"labels_{seed}.tif", labels[None])
        paths.append(_write(folder / f"scene_{seed}.tif", image))
    return paths


def _write(path: Path, bands: npt.NDArray[np.uint8]) -> Path:
    """Write ``(bands, h, w)`` uint8 as a GeoTIFF."""
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "dtype": "uint8", "count": count, "height": height, "width": width, "compress": "deflate"}
    place = {"crs": "EPSG:32633", "transform": Affine(1, 0, 5e5, 0, -1, 5e6)}
    with writing(path), rasterio.open(path, "w", **profile, **place) as dst:
        dst.write(bands)
    return path
