"""A model of the authors' is blended as they do: patches flush and rounded, logits to the nearest pixel, summed."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from geoglnet.bands import Bands
from geoglnet.config import Compat, RegionConfig, Sharing
from geoglnet.legend import Legend
from geoglnet.models.manifest import Manifest
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import ArraySink, predict_scene
from geoglnet.raster.scene import ArrayScene
from geoglnet.types import Shape
from geoglnet.windows import footprints, patch_windows
from tests.networks import small

REGION = RegionConfig(region_size=160, overview_size=64, patch_size=64, patch_overlap=16, margin=48)

RAW = Bands(mean=(0.0,) * 3, std=(1.0,) * 3)  # as the authors' network takes values


@torch.inference_mode()
def test_labels_are_the_argmax_of_summed_nearest_logits() -> None:
    legend = Legend(("a", "b", "c"), ((0, 0, 0),) * 3)
    for sharing in (Sharing.GLOBAL_TO_LOCAL, Sharing.BIDIRECTIONAL):
        network = small(compat=Compat.OFFICIAL, sharing=sharing)
        manifest = Manifest("m", network.config, REGION, legend, 1.0, (0.5, 2.0), 1.0, bands=RAW)
        pixels = np.random.default_rng(0).integers(0, 256, (3, 160, 160), dtype=np.uint8)
        labels = ArraySink(Shape(160, 160))
        predict_scene(ArrayScene(pixels), network, manifest, labels, None, PredictConfig(device="cpu", batch_size=3))

        image, windows = torch.from_numpy(pixels).float()[None] / 255, patch_windows(Shape(160, 160), 64, 16)
        overview = F.interpolate(image, size=(64, 64), mode="bilinear", antialias=True)
        patches = torch.cat([image[(..., *window.toslices())] for window in windows])
        places = torch.from_numpy(footprints(windows, Shape(160, 160)))
        total = torch.zeros(3, 160, 160)
        for window, logits in zip(windows, network(overview, patches, places)[1].final, strict=True):
            total[(slice(None), *window.toslices())] += F.interpolate(logits[None], size=(64, 64), mode="nearest")[0]
        differing = (labels.array != total.argmax(0).numpy()).mean()
        assert differing < 1e-4  # ties to rounding
