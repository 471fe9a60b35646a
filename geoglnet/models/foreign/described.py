"""What models of others say about themselves, as manifests: STAC's machine learning extension, and Deepness's texts."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geoglnet.bands import RGB, BandRule, Bands, ValueRange
from geoglnet.config import Branches, ModelConfig, RegionConfig, ScalingRule, Sharing
from geoglnet.errors import CheckpointError, ConfigError
from geoglnet.legend import Legend, distinct_colors
from geoglnet.models.manifest import Manifest
from geoglnet.plain import checked, shortened

_AREA = 2048  # side of the region whose patches are blended before they reach the scene, about
_LONGEST = 1_000_000  # characters of a text that is parsed
HEADS = ("softmax", "sigmoid", "logits", "largest")
"""What comes out of each pixel: probabilities that add up to one; one probability; logits; or a score of each class, of
which the largest wins."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model of others; ``None`` where its file does not say.

    Args:
        name: of the model.
        classes: names in the order of its results.
        colors: of the classes, ``(red, green, blue)``.
        background: class that does not become polygons.
        resolution_m: ground size of its pixels.
        resolution_range_m: ground sizes that it is for.
        bands: with scaling and normalization.
        tile_size: side of its images.
        tile_overlap: pixels that neighboring images should share.
        head: one of :data:`HEADS`.
        threshold: probability from which a single class counts.
        training: license and the like.
    """

    name: str
    classes: tuple[str, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] | None = None
    background: int | None = None
    resolution_m: float | None = None
    resolution_range_m: tuple[float, float] | None = None
    bands: Bands | None = None
    tile_size: int | None = None
    tile_overlap: int | None = None
    head: str | None = None
    threshold: float = 0.5
    training: Mapping[str, Any] | None = None

    def manifest(self, architecture: str, ring: int = 0) -> Manifest:
        """Make the manifest that the predictor works with.

        Args:
            architecture: kind of the file.
            ring: pixels along an image's border that get no result.

        Raises:
            CheckpointError: something that nobody can guess is missing.
        """
        wanted = {"resolution_m": "resolution", "classes": "classes", "bands": "bands", "tile_size": "size"}
        missing = [option for field, option in wanted.items() if getattr(self, field) is None]
        if missing or not (self.classes and self.bands and self.tile_size and self.resolution_m):
            raise CheckpointError(
                f"{self.name} does not say its {', '.join(missing)}; describe it: geoglnet import-model {self.name}"
            )
        try:
            region = region_of(self.tile_size, max(self.tile_overlap or 0, 2 * ring + self.tile_size // 8))
            colors = self.colors or distinct_colors(len(self.classes))
            legend = Legend(self.classes, colors, background=self.background)
            model = ModelConfig(
                len(self.classes),
                "file",
                len(self.bands),
                branches=Branches.LOCAL,
                sharing=Sharing.NONE,
                aggregate=False,
                architecture=architecture,
            )
            sizes = self.resolution_range_m or (self.resolution_m / 2, self.resolution_m * 2)
            return Manifest(
                self.name.rpartition("/")[2],
                model,
                region,
                legend,
                self.resolution_m,
                sizes,
                self.resolution_m,
                self.bands,
                training=self.training or {},
            )
        except ConfigError as error:
            raise CheckpointError(f"{self.name} cannot be used: {error}") from error


def region_of(tile: int, overlap: int) -> RegionConfig:
    """Choose a region for a network that sees only patches: some of them, so that few are read and blended twice.

    Args:
        tile: side of the patches.
        overlap: pixels that neighboring ones share at least.

    Raises:
        ConfigError: sizes that do not fit into each other.
    """
    if not 32 <= tile <= RegionConfig.LARGEST // 4 or not 0 <= overlap < tile:
        raise ConfigError(f"images of {shortened(tile)} px that overlap by {shortened(overlap)} px cannot be predicted with")
    step = tile - overlap
    side = max(2, round((_AREA - overlap) / step)) * step + overlap
    side -= side % 2
    # The core has to be a multiple of a TIFF tile: the margin is chosen for that.
    margin = max(overlap // 2, tile // 8)
    margin += (side // 2 - margin) % 8
    return RegionConfig(side, min(side, max(32, tile)), tile, overlap, margin)


def facts_of_deepness(name: str, texts: Mapping[str, str], channels: int, results: int) -> Facts:
    """Read the texts by which Deepness and GeoDeep run a model.

    Args:
        name: of the file.
        texts: metadata of the ONNX file, by key.
        channels: of its images.
        results: channels of its result; one is the probability of a class beside the background.

    Raises:
        CheckpointError: a text that cannot be read, or a model of another kind.
    """
    kind = _parsed(name, texts, "model_type")
    if kind is not None and str(kind).lower() != "segmentor":
        raise CheckpointError(f"{name} is a {shortened(str(kind))} by its metadata; only models that segment are run")
    classes = _classes(name, _parsed(name, texts, "class_names", "names"), results)
    resolution = _number(name, texts, "resolution")
    size, overlap = _number(name, texts, "tile_size", "tiles_size"), _number(name, texts, "tiles_overlap")
    mean, std = (_parsed(name, texts, f"standardization_{what}") for what in ("mean", "std"))
    threshold = _number(name, texts, "seg_thresh")
    return Facts(
        name,
        classes,
        background=_background(classes, results),
        resolution_m=None if resolution is None else resolution / 100,
        bands=bands_of(name, channels, mean, std),
        tile_size=None if size is None else int(size),
        tile_overlap=None if overlap is None or size is None else int(size * overlap / 100),
        threshold=0.5 if threshold is None or not 0 < threshold < 1 else threshold,
    )


def bands_of(name: str, channels: int, mean: Any = None, std: Any = None, names: tuple[str, ...] = ()) -> Bands:
    """Name the bands of a model that says no more than how many there are, or check the names that were given.

    Raises:
        CheckpointError: as many means or names as there are no bands.
    """
    usual = {1: ("gray",), 3: RGB, 4: (*RGB, "nir")}
    chosen = names or usual.get(channels) or tuple(f"band{number}" for number in range(1, channels + 1))
    try:
        means = checked("standardization_mean", [0.0] * channels if mean is None else mean, tuple[float, ...])
        stds = checked("standardization_std", [1.0] * channels if std is None else std, tuple[float, ...])
        if len(chosen) != channels:
            raise ConfigError(f"{len(chosen)} band names ({', '.join(chosen)}) for images of {channels} bands")
        return Bands(chosen, means, stds)
    except ConfigError as error:
        raise CheckpointError(f"{name}: {error}") from error


def _parsed(name: str, texts: Mapping[str, str], *keys: str) -> Any:
    """Read the first of some texts that is there: JSON, or Python's way to write the same, which older files have."""
    for key in keys:
        text = texts.get(key)
        if text is None:
            continue
        if len(text) > _LONGEST:
            raise CheckpointError(f"{name} has {len(text)} characters of {key}; at most {_LONGEST} are read")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            if key == "model_type":
                return text
            raise CheckpointError(f"{name} has {key} = {shortened(text)} in its metadata, which cannot be read") from error
    return None


def _number(name: str, texts: Mapping[str, str], *keys: str) -> float | None:
    value = _parsed(name, texts, *keys)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise CheckpointError(f"{name} has {keys[0]} = {shortened(value)} in its metadata; it must be a number from 0")
    return float(value)


def _classes(name: str, plain: Any, results: int) -> tuple[str, ...] | None:
    if plain is None:
        return None
    first = plain[0] if isinstance(plain, list) and len(plain) == 1 else plain
    if not isinstance(first, dict) or sorted(map(str, first)) != sorted(map(str, range(len(first)))):
        raise CheckpointError(f"{name} has class names {shortened(plain)}; they must be numbered from 0, as in {{'0': 'road'}}")
    names = tuple(str(first[key]) for key in sorted(first, key=lambda key: int(str(key))))
    if results == 1 and len(names) == 1:
        names = ("background", *names)
    if len(names) != max(2, results):
        raise CheckpointError(f"{name} names {len(names)} classes ({', '.join(names)[:100]}) and gives {results} of them")
    return names


def _background(classes: tuple[str, ...] | None, results: int) -> int | None:
    is_named = bool(classes) and classes[0].strip("_ ").lower() in ("background", "bg")  # type: ignore[index]
    return 0 if results == 1 or is_named else None


def facts_of_mlm(name: str, properties: Mapping[str, Any]) -> Facts:
    """Read a model's description by STAC's machine learning extension, ours or another's.

    Args:
        name: of the file.
        properties: of the STAC item.

    Raises:
        CheckpointError: it describes another kind of model, or a part cannot be read.
    """
    try:
        inputs, outputs = (checked(key, properties.get(key), tuple[Any, ...]) for key in ("mlm:input", "mlm:output"))
        if len(inputs) != 1:
            raise ConfigError(f"{len(inputs)} inputs; models of one image are run")
        if "semantic-segmentation" not in checked("mlm:tasks", properties.get("mlm:tasks"), tuple[str, ...]):
            raise ConfigError(f"mlm:tasks = {shortened(properties.get('mlm:tasks'))}; only models that segment are run")
        known = checked("mlm:hyperparameters", properties.get("mlm:hyperparameters", {}), Any)
        classes = checked("classification:classes", outputs[0].get("classification:classes") or (), tuple[Any, ...])
        if [entry["value"] for entry in classes] != list(range(len(classes))):
            raise ConfigError("classes whose values do not count from 0")
        colors = tuple(_color(entry.get("color_hint")) for entry in classes)
        sizes = known.get("resolution_range_m")
        return Facts(
            name,
            tuple(str(entry.get("title") or entry.get("name")) for entry in classes) or None,
            None if None in colors else colors,  # type: ignore[arg-type]
            checked("background", known.get("background"), int | None),
            checked("resolution_m", known.get("resolution_m"), float | None),
            None if sizes is None else checked("resolution_range_m", sizes, tuple[float, float]),
            _bands_of_mlm(inputs[0], known),
            checked("tile_size", known.get("tile_size") or _side(inputs[0]), int | None),
            checked("tile_overlap", known.get("tile_overlap"), int | None),
            checked("head", known.get("head"), str | None),
            checked("threshold", known.get("threshold", 0.5), float),
            {"license": str(properties["license"])} if "license" in properties else {},
        )
    except (ConfigError, KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise CheckpointError(f"the description of {name} cannot be used: {shortened(str(error))[1:-1]}") from error


def _color(text: Any) -> tuple[int, int, int] | None:
    if not isinstance(text, str):
        return None
    red, green, blue = bytes.fromhex(text)
    return red, green, blue


def _side(described: Mapping[str, Any]) -> int | None:
    side: Any = described["input"]["shape"][-1]
    return side if isinstance(side, int) and side > 0 else None


def _bands_of_mlm(described: Mapping[str, Any], known: Mapping[str, Any]) -> Bands:
    """Make the bands of an input: names, and how values become what the network takes."""
    names = tuple(entry if isinstance(entry, str) else str(entry["name"]) for entry in described.get("bands") or ())
    steps = described.get("value_scaling") or [{"type": "scale", "value": 255}]
    steps = list(steps) * len(names) if len(steps) == 1 else list(steps)
    if len(steps) != len(names):
        raise ConfigError(f"{len(names)} bands and {len(steps)} steps of value_scaling; one each, or one for all")
    if known.get("written_by", "").startswith("geoglnet") and "scaling" in known:
        moments = {"mean": [0.0] * len(names), "std": [1.0] * len(names)}
        if "mean" in known:
            moments = {"mean": known["mean"], "std": known["std"]}
        return Bands.from_dict({"names": list(names), "scaling": known["scaling"], **moments})
    rules, means, stds = zip(*(_step(step) for step in steps), strict=True)
    return Bands(names, means, stds, rules)


def _step(step: Mapping[str, Any]) -> tuple[BandRule, float, float]:
    """Read a step of value scaling as a rule, a mean and a std on its scale of 0 to 1."""
    kind = step.get("type")
    if kind == "min-max":
        low, high = float(step["minimum"]), float(step["maximum"])
        return ScalingRule.AS_IS if (low, high) == (0, 255) else ValueRange(low, high), 0.0, 1.0
    if kind == "scale":
        value = float(step["value"])
        return ScalingRule.AS_IS if value == 255 else ValueRange(0.0, value), 0.0, 1.0
    if kind == "z-score":
        mean, std = float(step["mean"]), float(step["stddev"])
        if abs(mean) + std <= 2:  # of 8-bit values divided by 255, as torchvision's are
            return ScalingRule.AS_IS, mean, std
        if 0 <= mean <= 255 and mean + std <= 400:
            return ScalingRule.AS_IS, mean / 255, std / 255
        return ValueRange(0.0, 65535.0), mean / 65535, std / 65535
    if kind is None:
        return ValueRange(0.0, 1.0), 0.0, 1.0
    raise ConfigError(f"value_scaling of the type {shortened(kind)}; min-max, z-score and scale are read")
