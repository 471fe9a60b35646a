"""Estimates of a run before it begins: its patches, minutes and bytes."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from geoglnet.prediction.area import Area
from geoglnet.prediction.layers import Layer
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.progress import Rule
from geoglnet.raster.scene import Pixels
from geoglnet.types import Shape

_MEASURED_FROM = 500  # steps, of which a measurement is less than a hundredth
_LONG_MINUTES = 10.0  # what takes longer is said in a pipe too
_STATED_SECONDS = {"cpu": 0.3, "cuda": 0.01}  # of a patch of the size below, shipped models
_STATED_SIZE = 448


@dataclass(frozen=True, slots=True)
class Estimate:
    """Patches, time and bytes of a run.

    Args:
        steps: patches, or regions of a network that looks at nothing else.
        unit: which of them.
        seconds_per_step: how long one takes.
        is_measured: whether that was measured on this machine with this model; else it is the rate of the shipped models.
        output_bytes: of all rasters before they are compressed.
        device: for the message.
    """

    steps: int
    unit: str
    seconds_per_step: float
    is_measured: bool
    output_bytes: int
    device: str

    @classmethod
    def of(
        cls, steps: int, segmenter: RegionSegmenter, config: PredictConfig, area: Area, layers: Collection[Layer]
    ) -> Estimate:
        """Estimate a run of so many steps; where they are many, the time of one is measured."""
        is_measured = steps >= _MEASURED_FROM
        seconds = _measured(segmenter, config) if is_measured else _stated(segmenter, config)
        bands = sum(len(layer.bands(segmenter.manifest.legend)) for layer in layers)
        return cls(
            steps,
            "regions" if segmenter.sees_overviews_only else "patches",
            seconds * (config.effort if config.effort > 0 else 0.1),  # without effort the global branch still runs
            is_measured,
            int(area.window.height) * int(area.window.width) * bands,
            str(segmenter.device),
        )

    @property
    def minutes(self) -> float:
        """Estimate how long the network is at work."""
        return self.steps * self.seconds_per_step / 60

    @property
    def figures(self) -> dict[str, float]:
        """Give the figures for the event that begins the work."""
        return {"patches": self.steps, "minutes": float(f"{self.minutes:.2g}"), "output_bytes": self.output_bytes}

    @property
    def rule(self) -> str:
        """Say it in words, for the log."""
        rate = "measured on one" if self.is_measured else "at the shipped models' rate"
        line = (
            f"{self.steps:,} {self.unit} to segment: about {_duration(self.minutes)} on {self.device} ({rate}), "
            f"rasters of {self.output_bytes / 1e6:,.3g} MB before compression"
        )
        return Rule(line) if self.minutes >= _LONG_MINUTES else line


def _stated(segmenter: RegionSegmenter, config: PredictConfig) -> float:
    """Scale what a step of the shipped models takes, by the area of a patch and by the number of augmentations."""
    region = segmenter.manifest.region
    size = region.overview_size if segmenter.sees_overviews_only else region.patch_size
    return _STATED_SECONDS.get(segmenter.device.type, 0.05) * (size / _STATED_SIZE) ** 2 * (8 if config.augment else 1)


def _measured(segmenter: RegionSegmenter, config: PredictConfig) -> float:
    """Time a step at full effort, on as many as go through the network at once: a first pass warms up, a second is timed."""
    region = segmenter.manifest.region
    plain = RegionSegmenter(segmenter.network, segmenter.manifest, replace(config, effort=1.0))
    # A single patch where they go one by one; else a region, whose patches fill a batch.
    side = region.patch_size if plain.batch_size == 1 and not plain.sees_overviews_only else region.region_size
    planned = Plan(Shape(side, side), region).region(0, 0)
    pixels = Pixels(np.zeros((segmenter.manifest.model.in_channels, side, side), np.uint8), np.ones((side, side), bool))
    plain.probabilities(planned, pixels)
    started = time.perf_counter()
    float(plain.probabilities(planned, pixels)[0, 0, 0])  # waits for the device
    return (time.perf_counter() - started) / plain.num_steps(planned)


def _duration(minutes: float) -> str:
    if minutes < 1:
        return "a minute"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:,.0f} h"
