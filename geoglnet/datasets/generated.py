"""Generated scenes as training scenes, so that shipped models know what ``geoglnet demo`` draws."""

from __future__ import annotations

import numpy as np
import torch

from geoglnet.datasets.regions import LabeledRegion
from geoglnet.datasets.transforms import resample
from geoglnet.legend import Legend
from geoglnet.synthetic import GENERATED_LEGEND, generate_scene, landcover_labels
from geoglnet.types import Shape

PIXEL_SIZE_M = 0.25  # scenes are painted at this size, or finer where the model is
SHAPE = Shape(1536, 2048)


def generated_region(seed: int, legend: Legend, resolution_m: float) -> LabeledRegion:
    """Generate a scene at a model's resolution, labeled by the model's legend.

    With a class "building" in the legend, buildings are labeled and everything else is class 0; any other legend must be
    DeepGlobe's.

    Raises:
        LegendError: the legend has neither a class "building" nor DeepGlobe's classes.
    """
    pixel_size_m = min(PIXEL_SIZE_M, resolution_m)
    scene = generate_scene(SHAPE, seed, pixel_size_m)
    if "building" in legend.names:
        is_building = scene.labels == GENERATED_LEGEND.value_of("building")
        labels = np.where(is_building, legend.value_of("building"), 0).astype(np.uint8)
    else:
        labels = landcover_labels(scene.labels, legend)
    factor = pixel_size_m / resolution_m
    size = round(SHAPE.height * factor), round(SHAPE.width * factor)
    image, scaled = resample(torch.from_numpy(scene.image).float(), torch.from_numpy(labels), size)
    return LabeledRegion(image.round().clamp(0, 255).to(torch.uint8).numpy(), scaled.numpy())
