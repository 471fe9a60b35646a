"""What is compared: every system of the paper as changes to one training configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geoglnet.config import ARCHITECTURES, LEVELS, Branches, Sharing, Stage, suggestion
from geoglnet.errors import ConfigError
from geoglnet.training.train_config import TrainConfig

SHALLOW = (5,)
"""The one level of Table 2's shallow sharing; the paper does not say which."""

Changes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class System:
    """Something that is trained, scored and measured.

    Args:
        name: as files and options call it.
        title: as tables and figures call it.
        model: changes to the architecture.
        optim: changes to the training.
        own_stage: the stage that it is trained in, after those of ``begins_with``.
        begins_with: name of the system whose branches it takes.
        is_coarse_to_fine: trained on and predicted with the foreground's part of each region (paper §3.3).
        size: side of the overview or, of a system that sees patches, of a patch; the configuration's when 0.
    """

    name: str
    title: str
    model: Changes
    own_stage: Stage
    optim: Changes = field(default_factory=dict)
    begins_with: str = ""
    is_coarse_to_fine: bool = False
    size: int = 0

    @property
    def sees_whole(self) -> bool:
        """Tell whether it sees overviews only."""
        return self.model.get("branches") is Branches.GLOBAL

    def at(self, size: int) -> System:
        """Return the same system with another size of what it sees."""
        return replace(self, name=f"{self.name}@{size}", title=f"{self.title} {size}", size=size)

    def configured(self, config: TrainConfig, seed: int = 0) -> TrainConfig:
        """Return the configuration to train this system with; ``config`` is that of a GLNet.

        Raises:
            ConfigError: the system cannot be built with the configuration's settings.
        """
        # A system says itself what it shares: settings of the base configuration must not reach it.
        model = replace(config.model, compat=type(config.model.compat).NONE, shared_levels=LEVELS)
        weights = config.optim.backbone_weights
        family = ARCHITECTURES.get(self.model.get("architecture", ""))
        own = family.backbone if family else ""
        changes = dict(self.model) | ({"backbone": own} if own else {})
        if changes.get("architecture", "fpn") != "fpn" and not own:
            # segmentation-models-pytorch calls timm's encoders tu-NAME.
            changes["backbone"] = model.backbone.replace("timm/", "tu-")
        # Each stage adds its number to the seed (training.stages), so seeds are as far apart as there are stages.
        optim: dict[str, Any] = {"seed": seed * len(Stage), "is_joint": False, **self.optim}
        optim["backbone_weights"] = weights_for(own, weights) if own else weights
        return replace(
            config,
            name=f"{config.name}-{self.name}",
            model=replace(model, **changes),
            region=self._region(config),
            sample=self._sample(config),
            optim=replace(config.optim, **optim),
            # The study scores all systems itself, from their checkpoints.
            validation=(),
        )

    def _region(self, config: TrainConfig) -> Any:
        if not self.size:
            return config.region
        key = "overview_size" if self.sees_whole else "patch_size"
        return replace(config.region, **{key: self.size})

    def _sample(self, config: TrainConfig) -> Any:
        sizes: dict[str, Any] = {"coarse_to_fine": self.is_coarse_to_fine}
        if self.size and not self.sees_whole:
            # A training region may be smaller than a swept patch.
            sizes["patch_size"] = min(self.size, config.sample.region_size)
        return replace(config.sample, **sizes)


def weights_for(own_backbone: str, weights: str) -> str:
    """Return the weights for a baseline that has a backbone of its own; ``""`` where they are random."""
    if not weights or own_backbone == ARCHITECTURES["icnet"].backbone:
        return ""  # nobody has published ImageNet weights of a half-wide ResNet
    return weights if weights == "imagenet" else str(Path(weights).with_name(f"{own_backbone}.safetensors"))


_ONE = {"sharing": Sharing.NONE, "aggregate": False}
_BOTH = {"branches": Branches.BOTH, "aggregate": True}
_NO_SHARING = {**_BOTH, "sharing": Sharing.NONE}
_ONE_WAY = {**_BOTH, "sharing": Sharing.GLOBAL_TO_LOCAL}
_TWO_WAYS = {**_BOTH, "sharing": Sharing.BIDIRECTIONAL}

# The rows of Table 2, each with the one that its branches come from; then those of Table 4.
_GLNETS = (
    System("local", "Local only", {**_ONE, "branches": Branches.LOCAL}, Stage.LOCAL),
    System("global", "Global only", {**_ONE, "branches": Branches.GLOBAL}, Stage.GLOBAL),
    System("agg", "GLNet: Agg", _NO_SHARING, Stage.LOCAL, {"lambda_fmreg": 0.0}, "global"),
    System("agg-fmreg", "GLNet: Agg, Fmreg", _NO_SHARING, Stage.LOCAL, {}, "global"),
    System("shallow", "GLNet: G → L shallow", {**_ONE_WAY, "shared_levels": SHALLOW}, Stage.LOCAL, {}, "global"),
    System("one-way", "GLNet: G → L", _ONE_WAY, Stage.LOCAL, {}, "global"),
    System("bidirectional", "GLNet: G ⇌ L", _TWO_WAYS, Stage.BIDIRECTIONAL, {}, "one-way"),
    System("coarse-one-way", "GLNet: G → L, box", _ONE_WAY, Stage.LOCAL, {}, "global", True),
    System("coarse-to-fine", "GLNet: G ⇌ L, box", _TWO_WAYS, Stage.BIDIRECTIONAL, {}, "coarse-one-way", True),
)
BASELINES = {
    "unet": "UNet",
    "icnet": "ICNet",
    "pspnet": "PSPNet",
    "segnet": "SegNet",
    "deeplabv3plus": "DeepLabv3+",
    "fcn8s": "FCN-8s",
    "segformer": "SegFormer",
    "upernet": "UPerNet",
    "fpn": "FPN",
}


def _pair(architecture: str, title: str) -> tuple[System, System]:
    """Make a baseline's systems for patch inference and for global inference."""
    one = {**_ONE, "architecture": architecture}
    return (
        System(f"{architecture}-patches", f"{title}, patches", {**one, "branches": Branches.LOCAL}, Stage.LOCAL),
        System(f"{architecture}-global", f"{title}, global", {**one, "branches": Branches.GLOBAL}, Stage.GLOBAL),
    )


SYSTEMS = {s.name: s for s in (*_GLNETS, *(s for name, title in BASELINES.items() for s in _pair(name, title)))}


def find_system(name: str) -> System:
    """Find a system by name; ``NAME@SIZE`` sees another size.

    Raises:
        ConfigError: there is none; the nearest is suggested.
    """
    plain, at, size = name.partition("@")
    if plain not in SYSTEMS or (at and not size.isdecimal()):
        raise ConfigError(f"unknown system {name!r}{suggestion(plain, tuple(SYSTEMS))}")
    return SYSTEMS[plain].at(int(size)) if size else SYSTEMS[plain]
