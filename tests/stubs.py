"""A network whose logits are its pixels, and scenes to give it, for tests of the predictor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st
from torch import Tensor

from geoglnet.config import Branches, ModelConfig, RegionConfig, Sharing
from geoglnet.legend import Legend
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network, PatchLogits, RegionLogits, RegionMaps
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.raster.scene import ArrayScene

CLASSES = 3
CPU = PredictConfig(device="cpu")
SMALL = RegionConfig(region_size=64, overview_size=32, patch_size=32, patch_overlap=8, margin=16)


def manifest_of(region: RegionConfig, branches: Branches = Branches.BOTH, classes: int = CLASSES) -> Manifest:
    shares = branches is Branches.BOTH
    model = ModelConfig(
        classes,
        "mobilenet_v2",
        pyramid_channels=8,
        smooth_channels=4,
        branches=branches,
        sharing=Sharing.GLOBAL_TO_LOCAL if shares else Sharing.NONE,
        aggregate=shares,
    )
    legend = Legend(tuple(f"class {i}" for i in range(classes)), tuple((i, i, i) for i in range(classes)))
    return Manifest("stub", model, region, legend, 1.0, (0.5, 2.0), 1.0)


class StubNetwork(Network):
    """A network whose logits are its pixels (the brightest band is the class), and that remembers its calls."""

    def __init__(self, config: ModelConfig, fits: int = 1000) -> None:
        super().__init__(config)
        self.fits = fits
        self.overviews: list[Tensor] = []
        self.patches: list[Tensor] = []
        self.footprints: list[Tensor] = []

    def see(self, overviews: Tensor) -> RegionMaps:
        self.overviews.append(overviews)
        return RegionLogits(overviews)

    def segment(
        self, patches: Tensor, footprints: Tensor, maps: RegionMaps | None = None, overview_index: Tensor | None = None
    ) -> PatchLogits:
        if len(patches) > self.fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        assert (maps is None) == (self.config.branches is Branches.LOCAL)
        self.patches.append(patches)
        self.footprints.append(footprints)
        return PatchLogits(s_loc=patches)


def untiled(scene: ArrayScene, manifest: Manifest) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """What the stub says of the scene as a whole: labels, and 254 times the probability."""
    mean, std = (np.array(v, np.float32)[:, None, None] * 255 for v in (manifest.bands.mean, manifest.bands.std))
    probabilities = torch.from_numpy((scene.image - mean) / std).softmax(0).numpy()
    labels = probabilities.argmax(axis=0).astype(np.uint8)
    confidence = 254 * probabilities.max(axis=0)
    if scene.valid is not None:
        labels[~scene.valid], confidence[~scene.valid] = 255, 255
    return labels, confidence


@st.composite
def region_configs(draw: st.DrawFn) -> RegionConfig:
    core = 16 * draw(st.integers(1, 4))
    margin = draw(st.integers(0 if core >= 32 else 8, core))
    size = core + 2 * margin
    patch = draw(st.integers(32, size))
    overlap = draw(st.integers(0, patch // 2 + 4))
    return RegionConfig(region_size=size, overview_size=32, patch_size=patch, patch_overlap=overlap, margin=margin)


@st.composite
def scenes(draw: st.DrawFn) -> ArrayScene:
    """A scene without ties between bands, some of it invalid: scattered pixels, a collar, whole blocks, or everything."""
    height, width = draw(st.integers(1, 160)), draw(st.integers(1, 160))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = np.array([20, 120, 230], np.uint8)[chance.random((3, height, width)).argsort(axis=0)]
    valid = np.ones((height, width), bool)
    pattern = draw(st.sampled_from(["none", "scattered", "collar", "blocks", "all"]))
    if pattern == "scattered":
        valid = chance.random((height, width)) < 0.7
    elif pattern == "collar":
        valid[: height // 3] = valid[:, width // 2 :] = False
    elif pattern == "blocks":
        coarse = chance.random((height // 40 + 1, width // 40 + 1)) < 0.5
        valid = coarse.repeat(40, axis=0).repeat(40, axis=1)[:height, :width]
    elif pattern == "all":
        valid[:] = False
    return ArrayScene(image, valid)


def random_scene(height: int, width: int) -> ArrayScene:
    return ArrayScene(np.random.default_rng(7).integers(0, 256, (3, height, width), dtype=np.uint8))
