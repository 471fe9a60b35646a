"""How a model is adapted: :class:`AdaptConfig`, and the recipe that follows from it, the model and what was drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from geoglnet.config import from_plain, respelled
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.datasets.sources import RastersSource
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.models.manifest import Manifest
from geoglnet.training.train_config import RECIPES, OptimConfig, TrainConfig

SHARES = (0.0, 0.25, 0.5, 0.75)
"""Shares of the old weights that are tried, where there are polygons to choose by."""
_STEPS, _MOST_STEPS = 60, 240
_PIXELS = 400_000  # known ones that the fewest steps are enough for
_AROUND_PX, _RADIUS_PX = 15, 4


@dataclass(frozen=True, slots=True)
class AdaptConfig:
    """What can be chosen about an adaptation.

    >>> AdaptConfig(minutes=5).minutes
    5

    Args:
        class_field: field of the polygons that names their class; found by its name and values when empty.
        layer: of the vector file; the first one with geometries when empty.
        minutes: most time that it may take, about.
        around_m: distance around what was drawn, in meters, within which everything else is background; 15 pixels of the model
            when 0. Beyond it nothing is known. Not used with an area.
        radius_m: of points, and half the width of strokes; 4 pixels of the model when 0.
        cross_validate: score by leaving out one third after the other, and learn from everything in the end; for polygons that
            lie too close to hold a part out. Takes four times as long.
        seed: of the division and of samples.
        steps: of the optimizer; by what is known and the time when 0.
        share: of the old weights in the new ones; chosen on polygons that were not learned from when negative.
        is_refit: once the new model was found better, train it once more with what was held out too; takes twice as long.
        is_forced: keep the new model whatever its scores are, for experiments.
        rehearse: weight of generated scenes beside the labels, for models that were trained on such.
        keep: weight of staying with what the old model says where nothing is known.
        is_parted: learn background between objects that touch, so that attached ones come apart.
        optim: settings of the optimizer that win over the recipe.

    Raises:
        ConfigError: a value that cannot be used.
    """

    class_field: str = ""
    layer: str = ""
    minutes: float = 10.0
    around_m: float = 0.0
    radius_m: float = 0.0
    cross_validate: bool = False
    seed: int = 0
    steps: int = 0
    share: float = -1.0
    is_refit: bool = False
    is_forced: bool = False
    rehearse: float = 0.25
    keep: float = 0.0
    is_parted: bool = False
    optim: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("minutes", 0.1, 10_000),
            ("around_m", 0, 1e5),
            ("radius_m", 0, 1e4),
            ("steps", 0, 10**6),
            ("share", -1, 1),
            ("rehearse", 0, 100),
            ("keep", 0, 100),
            ("seed", 0, 2**32 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least {low} and at most {high:g}")

    def around_px(self, resolution_m: float) -> float:
        """Distance around what was drawn, in pixels."""
        return self.around_m / resolution_m or _AROUND_PX

    def radius_px(self, resolution_m: float) -> float:
        """Radius of points, in pixels."""
        return self.radius_m / resolution_m or _RADIUS_PX


def training_of(manifest: Manifest, legend: Legend, config: AdaptConfig, source: RastersSource, name: str) -> TrainConfig:
    """Configure the training of an adaptation: the model's own sizes and augmentation, the recipe's optimizer."""
    learned = respelled(manifest.training)
    # With other classes the global branch has to learn them too.
    frozen = ("global", "statistics") if legend.names == manifest.legend.names else ("statistics",)
    chosen: dict[str, Any] = RECIPES["adapt"] | {"frozen": frozen, "start_share": 0.0, "recipe": "adapt", "seed": config.seed}
    optim = from_plain(OptimConfig, chosen | {"backbone_weights": "", "patches_at_once": 4} | dict(config.optim))
    lineage = {f"start_{key}": learned[key] for key in ("license", "attribution") if key in learned}
    return TrainConfig(
        name=name,
        resolution_m=manifest.resolution_m,
        legend=legend,
        model=replace(manifest.model, num_classes=legend.num_classes),
        train=(source,),
        region=manifest.region,
        sample=_sample(manifest, learned.get("sample")),
        augment=_known_part(AugmentConfig, learned.get("augment")),
        optim=optim,
        resolution_range_m=manifest.resolution_range_m,
        assumed_pixel_size_m=manifest.assumed_pixel_size_m,
        bands=manifest.bands,
        data=lineage,
    )


def _sample(manifest: Manifest, plain: Any) -> SampleConfig:
    """Samples as the model was trained on; of a model that does not say, regions as it sees them, with a few patches."""
    if isinstance(plain, Mapping) and plain:
        found: SampleConfig = _known_part(SampleConfig, plain)
        return replace(found, order="random", coarse_to_fine=False)
    region = manifest.region
    return SampleConfig(region_size=region.region_size, patch_size=region.patch_size, patches_per_region=2)


def _known_part(kind: Any, plain: Any) -> Any:
    """Read settings that a model was trained with, as far as this version knows them."""
    table = respelled(plain) if isinstance(plain, Mapping) else {}
    known = {one.name for one in fields(kind)}
    try:
        return from_plain(kind, {key: value for key, value in table.items() if key in known})
    except ConfigError:  # of a version with other rules: its settings are no reason to refuse the model
        return kind()


def steps_for(known_pixels: int) -> int:
    """Choose the number of steps: more where more is known, by the root of it."""
    return int(min(_MOST_STEPS, round(_STEPS * max(1.0, known_pixels / _PIXELS) ** 0.5)))
