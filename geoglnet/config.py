"""Configurations: one frozen dataclass per thing that can be chosen, checked when it is made, stored whole in checkpoints."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar, get_type_hints

from geoglnet.errors import ConfigError
from geoglnet.plain import checked, shortened
from geoglnet.types import Shape

BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
)
BACKBONE_LIBRARIES = ("torchvision", "timm")
"""Any of their networks with maps at strides 4, 8, 16 and 32 is a backbone too, as ``"timm/convnext_tiny"``."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # no folder, no address, no "hf-hub:"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A family of networks.

    Args:
        builder: ``"module:name"`` of what makes a :class:`~geoglnet.models.network.Network` of a :class:`ModelConfig`.
        backbone: the only one that it can have; any when empty.
        has_both: whether it may see overviews and patches; others see either.
    """

    builder: str
    backbone: str = ""
    has_both: bool = False


_BASELINES = "geoglnet.models.baselines"
ARCHITECTURES = {
    "fpn": Architecture("geoglnet.models.glnet:GLNet", has_both=True),
    "fcn8s": Architecture(f"{_BASELINES}.fcn8s:FCN8s", "vgg16"),
    "segnet": Architecture(f"{_BASELINES}.segnet:SegNet", "vgg16_bn"),
    "icnet": Architecture(f"{_BASELINES}.icnet:ICNet", "resnet50_half"),
    "unet": Architecture(f"{_BASELINES}.library:LibraryNetwork"),
    "pspnet": Architecture(f"{_BASELINES}.library:LibraryNetwork"),
    "deeplabv3plus": Architecture(f"{_BASELINES}.library:LibraryNetwork"),
    "segformer": Architecture(f"{_BASELINES}.library:LibraryNetwork"),
    "upernet": Architecture(f"{_BASELINES}.library:LibraryNetwork"),
}
"""The families, by the name that configurations and models give them. GLNet's is ``"fpn"``, after its branches. A new family
is one line here."""

FOREIGN = ("onnx",)
"""Networks that other programs saved, by the kind of their file: read from it, never built."""

LEVELS = (2, 3, 4, 5)
"""Levels of a branch's maps: 2 at 1/4 of the image, 5 at 1/32 (after conv2 to conv5)."""


POLYGON_SETTINGS = (
    "simplify",
    "smooth",
    "regularize",
    "sieve",
    "fill_holes",
    "opening",
    "min_area_m2",
    "min_hole_m2",
    "min_confidence",
)
"""Settings of polygons (:class:`~geoglnet.vector.settings.VectorConfig`) that a model may bring along."""


class Sharing(Enum):
    """Direction of deep feature map sharing (paper §3.2.2).

    >>> [sharing.value for sharing in Sharing]
    ['none', 'global_to_local', 'bidirectional']
    """

    NONE = "none"
    GLOBAL_TO_LOCAL = "global_to_local"
    BIDIRECTIONAL = "bidirectional"


class Compat(Enum):
    """Whose geometry maps are shared in: exact positions, or the authors' code with its rounding (``docs/paper.md``)."""

    NONE = "none"
    OFFICIAL = "official"


class ScalingRule(Enum):
    """Rule by which a model's inputs are scaled.

    Two rules scale all bands together, to whole numbers of 0 to 255. ``BY_TYPE``: 8-bit values as they are, others stretched.
    ``STRETCH``: 8-bit values too are stretched between their percentiles, for dark imagery (of satellites, mostly).

    The others scale each band for itself and keep its precision. ``AS_IS``: 0 to 255 as they are. ``REFLECTANCE``: 0 to 1,
    after the raster's scale and offset. ``PERCENTILES``: between the 2nd and 98th percentile of the band in the whole scene.
    A fixed range is a :class:`~geoglnet.bands.ValueRange`.
    """

    BY_TYPE = "by_type"
    STRETCH = "stretch"
    AS_IS = "as_is"
    REFLECTANCE = "reflectance"
    PERCENTILES = "percentiles"


class Stage(Enum):
    """What a training run updates.

    ``GLOBAL``: the global branch. ``LOCAL``: the local branch and f_agg, above a frozen global branch. ``BIDIRECTIONAL``: the
    refined global branch and f_agg, above both. ``JOINT``: global branch, local branch and f_agg at once.
    """

    GLOBAL = "global"
    LOCAL = "local"
    BIDIRECTIONAL = "bidirectional"
    JOINT = "joint"


class Branches(Enum):
    """Which branches a network has: both (GLNet), or one alone (the paper's baselines of Table 2).

    >>> [branches.value for branches in Branches]
    ['both', 'global', 'local']
    """

    BOTH = "both"
    GLOBAL = "global"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Architecture of a GLNet (paper §3.2, §4.1).

    >>> ModelConfig(num_classes=7, sharing=Sharing.BIDIRECTIONAL).levels_into_global
    (2, 3, 4, 5)

    Args:
        num_classes: logit channels.
        backbone: one of :data:`BACKBONES`, or ``"torchvision/NAME"`` or ``"timm/NAME"``; used in both branches (weights are
            not shared). Other architectures than ``"fpn"`` have one of their own (:data:`ARCHITECTURES`), or take an encoder of
            segmentation-models-pytorch by its name there.
        in_channels: bands of the image.
        pyramid_channels: width of the FPN's top-down and first-smooth maps (256 in the paper's code).
        smooth_channels: width of the second-smooth maps (128); the last map has four times as many.
        branches: both, or one alone.
        sharing: direction of deep feature map sharing.
        shared_levels: levels whose maps are shared, in every stage of the FPN: all four (the paper's "deep") or a single one
            ("shallow").
        aggregate: whether f_agg makes the final logits (else the local branch's are final).
        compat: exact geometry of sharing, or the authors'.
        architecture: one of :data:`ARCHITECTURES`. ``"fpn"`` is GLNet; the others are the paper's baselines, which see either
            patches or overviews.

    Raises:
        ConfigError: a value that no network can be built from.
    """

    num_classes: int
    backbone: str = "resnet50"
    in_channels: int = 3
    pyramid_channels: int = 256
    smooth_channels: int = 128
    branches: Branches = Branches.BOTH
    sharing: Sharing = Sharing.GLOBAL_TO_LOCAL
    shared_levels: tuple[int, ...] = LEVELS
    aggregate: bool = True
    compat: Compat = Compat.NONE
    architecture: str = "fpn"

    MOST_CHANNELS: ClassVar[int] = 8192

    def __post_init__(self) -> None:
        self._check_architecture()
        for name in ("num_classes", "in_channels", "pyramid_channels", "smooth_channels"):
            if not 1 <= getattr(self, name) <= self.MOST_CHANNELS:
                raise ConfigError(
                    f"{name} = {shortened(getattr(self, name))} must be at least 1 and at most {self.MOST_CHANNELS}"
                )
        alone = self.branches is not Branches.BOTH
        if alone and (self.sharing is not Sharing.NONE or self.aggregate):
            raise ConfigError(
                f"branches = {self.branches.value!r} has nothing to share or aggregate; set sharing = 'none', aggregate = false"
            )
        self._check_sharing()

    def _check_architecture(self) -> None:
        if self.architecture in FOREIGN:
            if self.branches is not Branches.LOCAL:
                raise ConfigError(f"architecture = {self.architecture!r} sees patches; set branches = 'local'")
            return
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(
                f"unknown architecture {shortened(self.architecture)}{suggestion(self.architecture, tuple(ARCHITECTURES))}"
            )
        family = ARCHITECTURES[self.architecture]
        library, slash, inner = self.backbone.rpartition("/")
        # Names come from model files of strangers: timm would download or open what an address or a folder names.
        if not _PLAIN_NAME.fullmatch(inner):
            raise ConfigError(
                f"backbone = {shortened(self.backbone)} is not the plain name of a network; "
                "folders, URLs and hubs are not opened"
            )
        if slash and not (self.has_pyramid and library in BACKBONE_LIBRARIES):
            raise ConfigError(f"unknown backbone {shortened(self.backbone)}{suggestion(self.backbone, BACKBONES)}")
        if self.has_pyramid and not slash and self.backbone not in BACKBONES:
            raise ConfigError(f"unknown backbone {shortened(self.backbone)}{suggestion(self.backbone, BACKBONES)}")
        if family.backbone and self.backbone != family.backbone:
            raise ConfigError(
                f"architecture = {self.architecture!r} has a backbone of its own; set backbone = {family.backbone!r}"
            )
        if not family.has_both and self.branches is Branches.BOTH:
            raise ConfigError(
                f"architecture = {self.architecture!r} stands in one branch's place; set branches = 'local' (it sees patches) "
                "or 'global' (it sees overviews), sharing = 'none', aggregate = false"
            )

    def _check_sharing(self) -> None:
        if not self.shared_levels or list(self.shared_levels) != [lv for lv in LEVELS if lv in self.shared_levels]:
            raise ConfigError(f"shared_levels = {list(self.shared_levels)} must be some of 2, 3, 4, 5, each once, in order")
        if self.compat is Compat.OFFICIAL and self.shared_levels != LEVELS:
            raise ConfigError("compat = 'official' shares all levels, as the authors' code does; leave shared_levels out")
        if self.sharing is Sharing.BIDIRECTIONAL and not self.aggregate:
            raise ConfigError("sharing = 'bidirectional' reaches the labels through f_agg only; set aggregate = true")

    @property
    def has_pyramid(self) -> bool:
        """Tell whether the network is a GLNet, whose branches are pyramids with maps that can be shared and folded."""
        return self.architecture == "fpn"

    @property
    def levels_into_local(self) -> tuple[int, ...]:
        """Levels whose global maps the local branch takes."""
        return () if self.sharing is Sharing.NONE else self.shared_levels

    @property
    def levels_into_global(self) -> tuple[int, ...]:
        """Levels whose local maps the refined global branch takes."""
        return self.shared_levels if self.sharing is Sharing.BIDIRECTIONAL else ()


@dataclass(frozen=True, slots=True)
class RegionConfig:
    """Sizes in pixels at the model's resolution (paper §4.1).

    >>> RegionConfig().overview_shape(Shape(2448, 1224))
    Shape(height=500, width=250)

    Args:
        region_size: side of the square that the global branch sees whole.
        overview_size: side of the overview that a full region is decimated to.
        patch_size: side of a full-resolution patch.
        patch_overlap: least overlap of neighboring patches.
        margin: width around a core that is read but not kept; neighbors are blended across half of it.

    Raises:
        ConfigError: sizes that do not fit into each other.
    """

    region_size: int = 2448
    overview_size: int = 500
    patch_size: int = 500
    patch_overlap: int = 50
    margin: int = 200

    TILE_SIZE: ClassVar[int] = 16
    LARGEST: ClassVar[int] = 32_768
    """Of a region; a patch or an overview, which a network sees whole, has at most a quarter of it."""

    def __post_init__(self) -> None:
        for name, most in (
            ("region_size", self.LARGEST),
            ("patch_size", self.LARGEST // 4),
            ("overview_size", self.LARGEST // 4),
        ):
            if getattr(self, name) > most:
                raise ConfigError(f"{name} {shortened(getattr(self, name))} must be at most {most}")
        if not 32 <= self.patch_size <= self.region_size:
            raise ConfigError(f"patch_size {self.patch_size} must be from 32 to region_size {self.region_size}")
        if not 32 <= self.overview_size <= self.region_size:
            raise ConfigError(f"overview_size {self.overview_size} must be from 32 to region_size {self.region_size}")
        if not 0 <= self.patch_overlap < self.patch_size:
            raise ConfigError(f"patch_overlap {self.patch_overlap} must be from 0 to below patch_size {self.patch_size}")
        if self.patch_size - self.patch_overlap < self.patch_size / 32:
            raise ConfigError(
                f"patch_overlap {self.patch_overlap} leaves steps of {self.patch_size - self.patch_overlap} px between patches "
                f"of {self.patch_size}; use at most half of patch_size"
            )
        if self.margin < 0 or self.core_size < max(self.TILE_SIZE, self.margin) or self.core_size % self.TILE_SIZE:
            raise ConfigError(
                f"region_size {self.region_size} less twice the margin {self.margin} leaves a core of {self.core_size}: "
                f"it must be a positive multiple of {self.TILE_SIZE} (a TIFF tile) and no smaller than the margin"
            )

    @property
    def core_size(self) -> int:
        """Side of the part of a region that is kept."""
        return self.region_size - 2 * self.margin

    @property
    def blend_size(self) -> int:
        """Width past a core's end over which it fades into the next."""
        return self.margin // 2

    def overview_shape(self, region: Shape) -> Shape:
        """Return the shape of a region's overview; a region at the scene's edge is decimated as much as a full one."""
        # At least 32 px: the backbone's deepest maps have a stride of 32.
        factor = self.overview_size / self.region_size
        return Shape(max(32, round(region.height * factor)), max(32, round(region.width * factor)))


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


ConfigT = TypeVar("ConfigT", bound=_Dataclass)


def to_plain(config: _Dataclass) -> dict[str, Any]:
    """Convert a flat dataclass to plain values of JSON and TOML: enums by value, tuples as lists, ``None`` left out."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None:
            plain[field.name] = value.value if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value
    return plain


def from_plain(kind: type[ConfigT], plain: Mapping[str, Any]) -> ConfigT:
    """Make a dataclass from plain values, the inverse of :func:`to_plain`; the annotations of its fields are the schema.

    Raises:
        ConfigError: not a table, an unknown key (the nearest known one is suggested), a missing key, or a value of the wrong
            kind.
    """
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{shortened(plain)} must be a table of {kind.__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in plain:
        if key not in fields:
            raise ConfigError(f"unknown key {shortened(key)} for {kind.__name__}{suggestion(str(key), tuple(fields))}")
    missing = [n for n, f in fields.items() if n not in plain and f.default is f.default_factory is dataclasses.MISSING]
    if missing:
        raise ConfigError(f"{kind.__name__} lacks {', '.join(missing)}")
    hints = _hints(kind)
    return kind(**{key: checked(key, value, hints[key]) for key, value in plain.items()})


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    """Evaluate the annotations of a dataclass, which takes longer than checking against them."""
    return get_type_hints(kind)


FORMER_KEYS = {"colour": "color", "licence": "license", "unlabelled": "unlabeled"}
"""Keys as they were spelled before 0.1.0, in configurations and models that people keep."""


def respelled(table: Any) -> Any:
    """Rename the keys of a table that have an older spelling; what is no table stays as it is.

    >>> respelled({"name": "roof", "colour": [230, 75, 50]})
    {'name': 'roof', 'color': [230, 75, 50]}
    """
    if not isinstance(table, Mapping) or not FORMER_KEYS.keys() & table.keys():
        return table
    return {FORMER_KEYS[key] if FORMER_KEYS.get(key, key) not in table else key: value for key, value in table.items()}


def suggestion(word: str, known: tuple[str, ...]) -> str:
    """Write the end of an error message: the nearest known word, or all of them."""
    # The best match of difflib (Ratcliff and Obershelp), if it is close enough to be a typing error.
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
