"""Survey of labels: finds out once, before regions are drawn, where each class is, on a coarse lattice of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoglnet.datasets.regions import LabeledScene
from geoglnet.errors import SceneError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.progress import Progress, SilentProgress

STEP = 16
"""Distance in pixels between the rows and columns of the lattice."""
_STRIP = 1024

Places = npt.NDArray[np.int32]


def _stop(error: SceneError) -> None:
    """Raise the error about a damaged scene."""
    raise error


@dataclass(frozen=True, slots=True)
class Survey:
    """Places with labels.

    Args:
        places: by label, ``(n, 3)`` of scene index, row and column; 12 bytes per 256 labeled pixels.
    """

    places: dict[int, Places]

    def __bool__(self) -> bool:
        return bool(self.places)

    def labeled_scenes(self) -> set[int]:
        """Return the indexes of the scenes that have labels."""
        return {int(index) for places in self.places.values() for index in np.unique(places[:, 0])}

    def is_labeled(self, scene: int, row: int, col: int, size: int) -> bool:
        """Return whether a square of a scene holds a labeled place."""
        for places in self.places.values():
            # Places are sorted by scene, so those of one scene are found by bisection.
            low, high = np.searchsorted(places[:, 0], (scene, scene + 1))
            rows, cols = places[low:high, 1] - row, places[low:high, 2] - col
            if ((rows >= 0) & (rows < size) & (cols >= 0) & (cols < size)).any():
                return True
        return False

    def absent(self, legend: Legend) -> list[str]:
        """List the classes of the legend that no scene has."""
        return [name for value, name in enumerate(legend.names) if value not in self.places]


def survey(
    scenes: Sequence[LabeledScene],
    leave_out: Callable[[SceneError], None] = _stop,
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> Survey:
    """Survey the labels of all scenes.

    Args:
        scenes: scenes to survey.
        leave_out: called with the error of a damaged scene, which then counts as unlabeled; left out, the error is raised.
        progress: receives the stage ``survey labels`` in scenes.

    Raises:
        DatasetError: labels that cannot be used.
        SceneError: a scene is damaged.
    """
    found: dict[int, list[Places]] = {}
    progress.plan("survey labels", len(scenes), "scenes")
    for index, scene in enumerate(scenes):
        try:
            seen = _places(scene)
        except SceneError as error:
            leave_out(error)  # without places, the scene is never drawn
            continue
        for value, rows_and_cols in seen.items():
            places = np.insert(rows_and_cols, 0, index, axis=1)
            found.setdefault(value, []).append(places.astype(np.int32))
        progress.advance()
    return Survey({value: np.concatenate(parts) for value, parts in sorted(found.items())})


def _places(scene: LabeledScene) -> dict[int, npt.NDArray[np.int64]]:
    """Find ``(n, 2)`` rows and columns of each label, strip by strip; a label between the lattice's points gets one place."""
    found: dict[int, list[npt.NDArray[np.int64]]] = {}
    height, width = scene.shape
    for row in range(0, height, _STRIP):
        labels = scene.read_labels(slice(row, min(row + _STRIP, height)), slice(0, width))
        for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=NO_CLASS + 1)[:NO_CLASS]):
            places = np.argwhere(labels[::STEP, ::STEP] == value) * STEP
            if not len(places):  # a rare class may be smaller than the lattice, and must be drawn all the same
                places = np.array([divmod(int(np.argmax(labels == value)), width)])
            found.setdefault(int(value), []).append(np.add(places, (row, 0)))
    return {value: np.concatenate(parts) for value, parts in found.items()}
