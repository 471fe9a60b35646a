"""Pictures of one scene by several systems, with the places where they differ most from the truth (Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.windows import Window

from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import SourceConfig
from geoglnet.errors import ConfigError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.paper.drawing import Panel
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import predict_scene
from geoglnet.progress import Progress
from geoglnet.raster.scene import Scene
from geoglnet.training.pictures import as_rgb, colored
from geoglnet.types import Labels, Place

SIZE = 1024  # most pixels along a side of what is drawn: the middle of larger scenes
ZOOM = 160  # or a third of a smaller side
NUM_ZOOMS = 2


class Sheet(NamedTuple):
    """What a figure is drawn of."""

    panels: list[Panel]
    zooms: list[Place]


def sheet(
    systems: Sequence[tuple[str, Path]], sources: Sequence[SourceConfig], data: Path, device: str, progress: Progress
) -> Sheet:
    """Picture the first labeled scene: the scene, its truth, and the labels of each system.

    Args:
        systems: title and checkpoint; the zoomed-in places are where the first errs most and the last does not.
        sources: of labeled scenes.
        data: folder that their patterns start from.
        device: to predict on.
        progress: told of patches.

    Raises:
        ConfigError: there is no system.
    """
    if not systems:
        raise ConfigError("no system to draw; train some first")
    panels: list[Panel] = []
    maps: list[Labels] = []
    for title, path in systems:
        network, manifest = load_checkpoint(path)
        pair = next(PairReader(data, manifest.legend, manifest.resolution_m, progress).iter_pairs(sources[0]))
        with pair.file.open(progress) as scene:
            labels = _Canvas.of(scene)
            predict_scene(scene, network, manifest, labels, None, PredictConfig(device=device), progress)
            place = _middle(labels.labels)
            maps.append(labels.labels[place])
            if not panels:
                panels += _given(pair, scene, place, manifest.legend)
                truth = _truth(pair, scene)[place]
        panels.append(Panel(title, colored(maps[-1], manifest.legend)))
    return Sheet(panels, zooms(truth, maps[0], maps[-1]))


def zooms(truth: Labels, worse: Labels, better: Labels) -> list[Place]:
    """Choose separate squares where one label map errs and the other does not."""
    size = min(ZOOM, *(side // 3 for side in truth.shape))
    # 1 where the worse map alone errs, −1 where the better one alone does.
    gain = ((worse != truth).astype(np.int64) - (better != truth)) * (truth != NO_CLASS)
    # A summed-area table gives the gain of every square of this size at once.
    sums = np.pad(gain, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    gains = (sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]).astype(np.float64)
    places: list[Place] = []
    while len(places) < NUM_ZOOMS and np.isfinite(gains).any():
        row, col = np.unravel_index(int(gains.argmax()), gains.shape)
        places.append((slice(int(row), int(row) + size), slice(int(col), int(col) + size)))
        # Squares that would overlap the one just chosen.
        gains[max(0, row - size) : row + size, max(0, col - size) : col + size] = -np.inf
    return places


class _Canvas(NamedTuple):
    """Sink that keeps all labels of a scene."""

    labels: Labels

    @classmethod
    def of(cls, scene: Scene) -> _Canvas:
        return cls(np.full(tuple(scene.shape), NO_CLASS, np.uint8))

    def write_block(self, window: Window, block: Labels) -> None:
        self.labels[window.toslices()] = block


def _middle(labels: Labels) -> Place:
    starts = [max(0, (side - SIZE) // 2) for side in labels.shape]
    rows, cols = (slice(start, start + SIZE) for start in starts)
    return rows, cols


def _truth(pair: Pair, scene: Scene) -> Labels:
    truth: Labels = pair.truth.read_labels(_whole(scene))
    return truth


def _given(pair: Pair, scene: Scene, place: Place, legend: Legend) -> list[Panel]:
    image = as_rgb(scene.read_window(_whole(scene)).image)[place]
    return [Panel("scene", image), Panel("truth", colored(_truth(pair, scene)[place], legend))]


def _whole(scene: Scene) -> Window:
    return Window(col_off=0, row_off=0, width=scene.shape.width, height=scene.shape.height)
