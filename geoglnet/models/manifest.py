"""The manifest: everything a checkpoint says about itself. Loads no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from geoglnet.bands import Bands
from geoglnet.config import POLYGON_SETTINGS, ModelConfig, RegionConfig, from_plain, respelled, suggestion, to_plain
from geoglnet.errors import CheckpointError, ConfigError
from geoglnet.legend import Legend
from geoglnet.plain import check_text, shortened
from geoglnet.types import StrPath

FORMAT_VERSION = 3  # 2: bands that are scaled each for itself; 3: temperature, settings of polygons. Written is the oldest
MANIFEST_KEY = "geoglnet"
_BAND_KEYS = {"names": "bands", "mean": "mean", "std": "std", "scaling": "scaling"}  # in format 1 they lie beside the rest
_LONGEST = 16_000_000  # scores of 50,000 scenes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model is, what it takes, what it gives, and how it came about.

    Args:
        name: short name, as the list of models shows it.
        model: architecture.
        region: region, overview and patch sizes.
        legend: classes in logit order.
        resolution_m: ground size of a pixel that the network was trained at.
        resolution_range_m: ground sizes of scenes that it was trained for; others are read resampled and warned about.
        assumed_pixel_size_m: pixel size taken for a scene that has no CRS.
        bands: which it takes, in order, and how their values reach it.
        temperature: logits are divided by it before they become probabilities, which makes confidence a chance of being right
            (Guo et al. 2017); classes stay what they are.
        polygons: settings that polygons of its labels are best made with, by their names in
            :class:`~geoglnet.vector.settings.VectorConfig`; ``predict`` uses them unless it is told others.
        training: data, license, attribution, split, settings.
        metrics: scores with their split.
        version: geoglnet that wrote it.

    Raises:
        ConfigError: parts that contradict each other.
    """

    name: str
    model: ModelConfig
    region: RegionConfig
    legend: Legend
    resolution_m: float
    resolution_range_m: tuple[float, float]
    assumed_pixel_size_m: float
    bands: Bands = field(default_factory=Bands)
    temperature: float = 1.0
    polygons: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""

    def __post_init__(self) -> None:
        if self.model.num_classes != self.legend.num_classes:
            raise ConfigError(f"the network has {self.model.num_classes} classes, its legend {self.legend.num_classes}")
        if len(self.bands) != self.model.in_channels:
            raise ConfigError(f"{self.model.in_channels} input channels but {len(self.bands)} bands ({self.bands})")
        if not self.bands.is_measured:
            raise ConfigError(f"bands {self.bands} have no mean and std; give one of each per band, or train the model")
        for name in ("resolution_m", "assumed_pixel_size_m"):
            if not 1e-6 <= getattr(self, name) <= 1e9:
                raise ConfigError(f"{name} = {getattr(self, name)} must be a positive size in meters")
        low, high = self.resolution_range_m
        if not 0 <= low <= high <= 1e12:
            raise ConfigError(f"resolution_range_m = {[low, high]} must be two sizes in meters, in order")
        self._check_prediction()
        for name, text in (("name", self.name), ("version", self.version)):
            check_text(name, text)
            if len(text) > 255:
                raise ConfigError(f"{name} = {shortened(text)} has {len(text)} characters; use at most 255")

    def _check_prediction(self) -> None:
        """Check what predictions are made with beside the network."""
        if not 0.01 <= self.temperature <= 100:
            raise ConfigError(f"temperature = {self.temperature} must be from 0.01 to 100")
        for name, value in self.polygons.items():
            if name not in POLYGON_SETTINGS:
                raise ConfigError(f"unknown setting of polygons {shortened(name)}{suggestion(name, POLYGON_SETTINGS)}")
            if not isinstance(value, bool | int | float | str) or len(str(value)) > 40:
                raise ConfigError(f"{name} = {shortened(value)} is no setting of polygons")

    @property
    def format_version(self) -> int:
        """Oldest version of the format that says all of it."""
        if self.temperature != 1 or self.polygons:
            return 3
        return 1 if self.bands.is_8bit else 2

    @property
    def measured_precisions(self) -> tuple[str, ...]:
        """Name the precisions beside float32 in which the model's scores were measured and are the same."""
        found = self.metrics.get("precisions", {})
        return tuple(found) if isinstance(found, Mapping) else ()

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        plain = to_plain(self) | {"model": to_plain(self.model), "region": to_plain(self.region)}
        plain |= self.bands.to_dict() | {"bands": list(self.bands.names)}
        plain.pop("names")
        if self.format_version < 3:  # which older versions of geoglnet read
            del plain["temperature"], plain["polygons"]
        else:
            plain["polygons"] = dict(self.polygons)
        return plain | {"legend": self.legend.to_dict(), "training": dict(self.training), "metrics": dict(self.metrics)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Manifest:
        """Inverse of :meth:`to_dict`.

        Raises:
            CheckpointError: a part is missing or cannot be used.
        """
        try:
            parts = {name: plain[name] for name in ("model", "region", "legend") if name in plain}
            if len(parts) < 3:
                raise ConfigError(f"it lacks {', '.join(sorted({'model', 'region', 'legend'} - parts.keys()))}")
            legend = Legend.from_dict(parts["legend"])
            training = respelled(plain.get("training", {}))
            kept = {key: value for key, value in plain.items() if key not in _BAND_KEYS.values()}
            bands = Bands.from_dict({name: plain[key] for name, key in _BAND_KEYS.items() if key in plain})
            model, region = from_plain(ModelConfig, parts["model"]), from_plain(RegionConfig, parts["region"])
            made = {"model": model, "region": region, "legend": legend, "training": training, "bands": bands}
            return from_plain(cls, {**kept, **made})
        except ConfigError as error:
            raise CheckpointError(f"manifest cannot be used: {error}") from error


def read_manifest(path: StrPath) -> Manifest:
    """Read what a checkpoint says about itself, without its tensors.

    Raises:
        CheckpointError: the file is missing, truncated, not ours, or of a newer format.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"no model file at {path}; give a .safetensors file or the name of a shipped model")
    try:
        with safe_open(path, framework="numpy") as opened:  # the header needs no torch
            header = opened.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); copy or download it again") from error
    if MANIFEST_KEY not in header:
        raise CheckpointError(f"{path} is a safetensors file without a geoglnet manifest; train or import a model first")
    return _manifest(path, header[MANIFEST_KEY])


def model_digest(path: StrPath) -> str:
    """sha256 of a model file, the identity that outputs are tagged with."""
    with Path(path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _manifest(path: StrPath, text: str) -> Manifest:
    if len(text) > _LONGEST:
        raise CheckpointError(f"{path} has a manifest of {len(text)} characters; at most {_LONGEST} are read")
    try:
        plain: Any = json.loads(text)
    except (ValueError, RecursionError) as error:  # a nesting that Python's parser gives up on
        raise CheckpointError(f"{path} has a manifest that cannot be read ({error}); get the file again") from error
    found = plain.pop("format_version", None) if isinstance(plain, dict) else None
    # type() and not isinstance(): JSON's true would pass for 1.
    if type(found) is not int or found < 1:
        raise CheckpointError(
            f"{path} has a manifest whose format_version = {shortened(found)} is no whole number from 1; get the file again"
        )
    if found > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {shortened(found)}, this geoglnet reads up to {FORMAT_VERSION}; upgrade geoglnet"
        )
    try:
        return Manifest.from_dict(plain)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
