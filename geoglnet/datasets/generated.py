"""Generated scenes as training scenes, so that shipped models know what ``geoglnet demo`` draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from geoglnet.bands import RGB, Bands
from geoglnet.config import ScalingRule, suggestion
from geoglnet.datasets.regions import LabeledRegion
from geoglnet.datasets.transforms import resample
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.raster.scaling import BandSample, choose_band_scaling
from geoglnet.synthetic import GENERATED_LEGEND, GeneratedScene, generate_scene, landcover_labels
from geoglnet.types import Shape

PIXEL_SIZE_M = 0.25  # scenes are painted at this size, or finer where the model is
SHAPE = Shape(1536, 2048)


def generated_region(
    seed: int,
    legend: Legend,
    resolution_m: float,
    bands: Bands = Bands(),  # noqa: B008 - it is frozen
) -> LabeledRegion:
    """Generate a scene at a model's resolution, with the model's bands, labeled by its legend.

    It has the bands red, green, blue, pan (their mean) and height in meters; colors are 8-bit values, which as reflectance
    are 0 to 1. With a class "building" in the legend, buildings are labeled and everything else is class 0; any other legend
    must be DeepGlobe's.

    Raises:
        ConfigError: the model has another band.
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
    values = torch.from_numpy(np.stack([_band(scene, name) for name in bands.names])).float()
    image, scaled = resample(values, torch.from_numpy(labels), size)
    if bands.is_8bit:
        return LabeledRegion(image.round().clamp(0, 255).to(torch.uint8).numpy(), scaled.numpy())
    samples = [
        BandSample(band, 1 / 255 if rule is ScalingRule.REFLECTANCE else 1.0)
        for rule, band in zip(bands.rules, image.numpy(), strict=True)
    ]
    return LabeledRegion(choose_band_scaling(samples, bands).apply(image.numpy()), scaled.numpy())


def _band(scene: GeneratedScene, name: str) -> npt.NDArray[Any]:
    """Return a band of a generated scene by its name."""
    bands: dict[str, npt.NDArray[Any]] = dict(zip(RGB, scene.image, strict=True)) | {"height": scene.height}
    if name == "pan":
        return np.asarray(scene.image.mean(axis=0))
    if name not in bands:
        raise ConfigError(f"generated scenes have no band {name!r}{suggestion(name, (*bands, 'pan'))}")
    return bands[name]
