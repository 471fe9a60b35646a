"""Ratios of foreground to background before and after the box of coarse-to-fine (Fig. 8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import SourceConfig
from geoglnet.errors import ConfigError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.coarse_to_fine import CoarseToFineConfig, background_of, foreground_place, foreground_ratio
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network
from geoglnet.prediction.device import resolve_device
from geoglnet.prediction.plan import Plan, PlannedRegion
from geoglnet.prediction.region import upload
from geoglnet.progress import Progress
from geoglnet.raster.scene import Scene
from geoglnet.types import Place


class Balance(NamedTuple):
    """Ratios of regions that have foreground: of the whole region, and inside its box where there is one."""

    before: list[float]
    after: list[float]


def balance(checkpoint: Path, sources: Sequence[SourceConfig], data: Path, device: str, progress: Progress) -> Balance:
    """Compute the ratios of foreground to background of all regions that have foreground.

    Args:
        checkpoint: of a network with a global branch, and classes of a background and one other.
        sources: of the scenes.
        data: folder that their patterns start from.
        device: to find boxes on.
        progress: told of the scenes.

    Raises:
        ConfigError: the network has no global branch, or other classes.
    """
    network, manifest = load_checkpoint(checkpoint)
    if not network.sees_overviews:
        raise ConfigError(f"{checkpoint.name} has no global branch to find the foreground with")
    finder = _Finder(network.to(resolve_device(device)), manifest, resolve_device(device))
    ratios = Balance([], [])
    reader = PairReader(data, manifest.legend, manifest.resolution_m, progress)
    for pair in (pair for source in sources for pair in reader.iter_pairs(source)):
        with pair.file.open(progress) as scene:
            _add(ratios, finder, pair, scene)
    return ratios


class _Finder(NamedTuple):
    """A global branch that looks for the foreground of regions."""

    network: Network
    manifest: Manifest
    device: torch.device

    @torch.inference_mode()
    def place(self, scene: Scene, planned: PlannedRegion) -> Place | None:
        region = self.manifest.region
        uploaded = upload(scene.read_window(planned.window), self.manifest, self.device)
        logits = self.network.see(uploaded.overview(region.overview_shape(planned.shape))).logits[0]
        likely: npt.NDArray[np.float32] = 1 - logits.softmax(dim=0)[background_of(self.manifest.legend)].cpu().numpy()
        return foreground_place(likely, planned.shape, region.patch_size, CoarseToFineConfig())


def _add(ratios: Balance, finder: _Finder, pair: Pair, scene: Scene) -> None:
    background = background_of(finder.manifest.legend)
    # The regions that predict would cut, each with the box that it would refine.
    for planned in Plan(scene.shape, finder.manifest.region).iter_regions():
        # With two classes the other one's number is 1 minus the background's; 255, no class, is neither.
        is_foreground = pair.truth.read_labels(planned.window) == 1 - background
        # Every image of Fig. 8 has a lesion; a region of a scene may have nothing to balance.
        if is_foreground.any():
            ratios.before.append(foreground_ratio(is_foreground))
            place = finder.place(scene, planned)
            # No box: the branch has missed the foreground, and coarse-to-fine would call all of it background.
            if place is not None:
                ratios.after.append(foreground_ratio(is_foreground, place))
