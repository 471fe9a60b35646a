"""Weights in TorchGeo's manner: its own for our backbones, and those of shipped GLNets as a ``WeightsEnum``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models._api import Weights, WeightsEnum

from geoglnet.bands import RGB, Bands, ValueRange
from geoglnet.config import ModelConfig, ScalingRule
from geoglnet.errors import ConfigError
from geoglnet.models.backbone import fill_backbone
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import read_manifest
from geoglnet.models.mlm import mlm_properties
from geoglnet.models.network import Network, build_network
from geoglnet.models.shipped import model_path
from geoglnet.raster.band_names import LANDSAT_5, LANDSAT_8, SENTINEL_2
from geoglnet.torchgeo.adapter import weights_by_name

_CODES = {"SENTINEL2": SENTINEL_2, "LANDSAT_OLI": LANDSAT_8, "LANDSAT_TM": LANDSAT_5, "LANDSAT_ETM": LANDSAT_5}
_BYTES, _COUNTS = 255.0, 10_000.0  # values of 8 bits, and reflectance in counts
_CLIP = (-1, 5)  # times the range
_TAILS = (0.02, 0.98)  # of a stretch by percentiles


def pretrained_state(weights: WeightsEnum | str, bands: Sequence[str]) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Fetch weights of a backbone (downloaded once), and name the bands that they take.

    Args:
        weights: member of one of TorchGeo's enums, or its name, as ``"ResNet50_Weights.SENTINEL2_ALL_MOCO"``.
        bands: names of the network's bands: where one of them is a band's code (``B02``), the band gets that name, and its STAC
            common name otherwise.

    Raises:
        ConfigError: TorchGeo has no such weights, or they know none of the bands.
    """
    chosen = find_weights(weights) if isinstance(weights, str) else weights
    coded = {_code(name): name for name in bands}
    names = tuple(coded.get(_code(code), name) for code, name in _named_bands(chosen))
    if not set(names) & set(bands):
        raise ConfigError(
            f"{chosen!r} knows none of the bands {', '.join(bands)}; name them by codes or common names: {', '.join(names)}"
        )
    return chosen.get_state_dict(progress=True), names


def find_weights(name: str) -> WeightsEnum:
    """Find weights of TorchGeo by name.

    Raises:
        ConfigError: there are none of that name.
    """
    try:
        found: WeightsEnum = weights_by_name(name)
    except ValueError as error:
        raise ConfigError(f"TorchGeo has no weights {name!r}; see torchgeo.models.list_models()") from error
    return found


def bands_of(weights: WeightsEnum | str) -> Bands:
    """Describe the bands that weights of TorchGeo were trained on, scaled and normalized as its ``transforms`` do.

    >>> bands = bands_of("ResNet50_Weights.SENTINEL2_ALL_MOCO")
    >>> bands.names[1:4], bands.scaling, bands.std[0]
    (('blue', 'green', 'red'), ValueRange(low=0.0, high=10000.0), 1.0)

    Raises:
        ConfigError: there are no such weights, or their transforms normalize nothing.
    """
    chosen = find_weights(weights) if isinstance(weights, str) else weights
    names = tuple(name for _, name in _named_bands(chosen))
    mean, std = torch.zeros(len(names)), torch.ones(len(names))
    steps = [step for step in chosen.transforms.modules() if hasattr(step, "mean") and hasattr(step, "std")]
    if not steps:
        raise ConfigError(f"the transforms of {chosen!r} normalize nothing; describe its bands with Bands(…)")
    for step in steps:  # each is applied to the results of those before it
        mean = mean + std * torch.as_tensor(step.mean, dtype=torch.float32).flatten()
        std = std * torch.as_tensor(step.std, dtype=torch.float32).flatten()
    rules = tuple(_range_of(float(m), float(s)) for m, s in zip(mean, std, strict=True))
    scales = torch.tensor([rule.high - rule.low for rule in rules])
    mean, std = (mean - torch.tensor([rule.low for rule in rules])) / scales, std / scales
    return Bands(names, tuple(mean.tolist()), tuple(std.tolist()), rules)


def network_on(weights: WeightsEnum | str, bands: Sequence[str] = (), **options: Any) -> Network:
    """Build a network whose backbones have weights of TorchGeo; the rest is random.

    Args:
        weights: member of one of TorchGeo's enums, or its name.
        bands: names of the network's bands; those of the weights when left out.
        options: of :class:`~geoglnet.ModelConfig`; the backbone is that of the weights when left out.

    Raises:
        CheckpointError: the weights are of another backbone.
        ConfigError: no such weights, or options that no network can have.
    """
    chosen = find_weights(weights) if isinstance(weights, str) else weights
    bands = tuple(bands) or tuple(name for _, name in _named_bands(chosen))
    network = build_network(ModelConfig(**{"backbone": chosen.meta["model"], "in_channels": len(bands), **options}))
    state, theirs = pretrained_state(chosen, bands)
    for backbone in network.backbones():
        fill_backbone(backbone, state, bands, theirs=theirs, source=repr(chosen))
    return network


class BandTransforms(nn.Module):
    """Scale and normalize an image as a model's bands say; the ``transforms`` of :class:`GLNet_Weights`.

    Where the rule is percentiles, they are those of the image itself; ``geoglnet predict`` takes those of the whole scene.

    Args:
        bands: of a model, measured.
    """

    def __init__(self, bands: Bands) -> None:
        super().__init__()
        self.bands = bands

    def forward(self, image: Tensor) -> Tensor:
        """``(…, C, h, w)`` values as they are in the files → what the network takes."""
        parts = []
        joint = self.bands.joint_rule is ScalingRule.STRETCH
        for index, (rule, mean, std) in enumerate(zip(self.bands.rules, self.bands.mean, self.bands.std, strict=True)):
            band = image[..., index, :, :].float()
            if isinstance(rule, ValueRange):
                low, high = rule.low, rule.high
            elif rule in (ScalingRule.STRETCH, ScalingRule.PERCENTILES):
                low, high = (torch.quantile((image if joint else band).float(), tail).item() for tail in _TAILS)
            else:
                low, high = 0.0, 1.0 if rule is ScalingRule.REFLECTANCE else _BYTES
            scaled = (band - low) / max(high - low, 1e-12)
            # As of scenes: bands that are scaled each for itself keep what lies around their range.
            parts.append((scaled.clamp(*((0, 1) if self.bands.is_8bit else _CLIP)) - mean) / std)
        return torch.stack(parts, dim=-3)


def _shipped(name: str) -> Weights:
    path = model_path(name)
    manifest = read_manifest(path)
    meta = {
        "model": "glnet",
        "in_chans": len(manifest.bands),
        "bands": list(manifest.bands.names),
        "num_classes": manifest.legend.num_classes,
        "categories": list(manifest.legend.names),
        "legend": manifest.legend,
        "resolution_m": manifest.resolution_m,
        "dataset": manifest.training.get("attribution"),
        "license": manifest.training.get("license"),
        "publication": "https://arxiv.org/abs/1905.06368",
        "mlm": mlm_properties(manifest),
    }
    return Weights(url=str(path), transforms=BandTransforms(manifest.bands), meta=meta)


class GLNet_Weights(WeightsEnum):  # type: ignore[misc]  # noqa: N801 - as TorchGeo's are called
    """The models inside the package. ``meta`` has classes and bands and, as ``"mlm"``, STAC's properties of such models."""

    BUILDINGS = _shipped("buildings")
    LANDCOVER = _shipped("landcover")
    LANDCOVER_SENTINEL2 = _shipped("landcover-sentinel2")
    LANDCOVER_SENTINEL2_RGBN = _shipped("landcover-sentinel2-rgbn")

    def get_state_dict(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        """Read the weights from the package; nothing is downloaded. Arguments are those of torch's downloads, and not used."""
        state: Mapping[str, Any] = load_checkpoint(self.url)[0].state_dict()
        return state


def _named_bands(weights: WeightsEnum) -> list[tuple[str, str]]:
    """List code and common name of the bands that weights take."""
    codes = weights.meta.get("bands") or RGB[: weights.meta["in_chans"]]
    known = next((table for sensor, table in _CODES.items() if weights.name.startswith(sensor)), {})
    return [(str(code), known.get(_code(code), str(code).lower())) for code in codes]


def _code(name: str) -> str:
    """Return the number in a band's code, ``"8A"`` of ``B8a``, ``B08A`` or ``SR_B8A``; other names as they are."""
    found = re.fullmatch(r"(?:SR_)?B0*(\d+A?)", name.upper())
    return found[1] if found else name


def _range_of(mean: float, std: float) -> ValueRange:
    """Find the range of values that a normalization is made for."""
    if mean < 0:
        return ValueRange(mean - 5 * std, mean + 5 * std)  # decibels
    return ValueRange(0.0, next((most for most in (_BYTES, _COUNTS) if mean + std <= most), mean + 5 * std))
