"""Training configuration: one TOML file says what is trained on what, and how."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from geoglnet.bands import Bands
from geoglnet.config import (
    ARCHITECTURES,
    FORMER_KEYS,
    LEVELS,
    ModelConfig,
    RegionConfig,
    from_plain,
    respelled,
    suggestion,
)
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.datasets.sources import SourceConfig, source_from_plain
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.models.manifest import model_digest, read_manifest
from geoglnet.models.shipped import model_path
from geoglnet.plain import checked, shortened
from geoglnet.progress import Progress


class Regularization(Enum):
    """Form of the feature map regularization: the paper's Euclidean norm or the authors' mean square."""

    EUCLIDEAN = "euclidean"
    MEAN_SQUARE = "mean_square"


RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},  # the defaults of OptimConfig
    "official": {
        # Values of the authors' scripts, where they differ from the paper's (§4.1).
        "gamma": 3.0,
        "fmreg": "mean_square",
        "global_learning_rate": 5e-5,
        "weight_decay": 5e-4,
        "patches_at_once": 6,
    },
    "adapt": {
        # To go on from a model with few labels: what it knows of whole regions stays, and no statistics are taken of one place.
        # Found by experiments (benchmarks/adaptation.py).
        "frozen": ("global", "statistics"),
        "global_steps": 60,
        "local_steps": 60,
        "batch_size": 4,
        "global_learning_rate": 1e-4,
        "local_learning_rate": 1e-4,
        "cosine": True,
        "gamma": 2.0,
        "fmreg": "mean_square",
        "start_share": 0.25,
    },
}
FROZEN = ("global", "local", "backbone", "statistics")
"""What :attr:`OptimConfig.frozen` may name."""


CHANGING_NO_WEIGHT = ("save_every_s", "workers")
"""Settings of :class:`OptimConfig` with any value of which a training has the same result."""


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """How weights are updated; defaults are the paper's (§4.1) as far as steps allow.

    Args:
        recipe: named set of values for what the configuration leaves out: ``"paper"``, ``"official"`` for the authors' code, or
            ``"adapt"`` to go on from a model with few labels (see :data:`RECIPES`).
        start_from: shipped model or checkpoint that every stage starts from (``from`` in a file). Its architecture, bands and
            sizes are those of the configuration where it says nothing; classes of the same name keep their logits.
        frozen: what does not learn: ``"global"`` or ``"local"`` (a branch, whose stage is left out), ``"backbone"`` (of every
            branch), ``"statistics"`` (means and variances of batch normalization).
        start_share: share of the model started from in the average of weights that is kept in the end.
        global_steps: optimizer steps of the global stage.
        local_steps: of the local stage.
        bidirectional_steps: of the bidirectional stage, when sharing is bidirectional.
        is_joint: train both branches at once, with all losses, in ``local_steps`` steps, instead of one after the other.
        batch_size: regions per step, over all devices together.
        devices: GPUs (or, without one, processes on the CPU) that share each step, with equal parts of the batch; batch
            statistics are each device's own.
        patches_at_once: patches that go through the network together; memory is bounded by it, results are not changed beyond
            rounding, except for batch statistics.
        global_learning_rate: of the global branch.
        local_learning_rate: of the local branch and f_agg.
        backbone_rate_factor: learning rate of pretrained backbones, relative to the rest of the branch.
        weight_decay: decoupled (AdamW; the authors' Adam has it coupled); 0 is Adam.
        cosine: fall to zero along a half cosine after a short warm-up, instead of staying constant.
        ema_decay: decay of the moving average of weights that is kept in the end, smaller in the first steps; 0 keeps the last
            weights.
        gamma: focal loss exponent.
        lambda_fmreg: weight of the feature map regularization.
        fmreg: its form.
        precision: ``"32-true"``, ``"bf16-mixed"``, or ``"auto"``: the second where the device has instructions for bfloat16.
            A training keeps what it began with.
        backbone_weights: ``"imagenet"``, a name of TorchGeo's, as ``"ResNet50_Weights.SENTINEL2_ALL_MOCO"``, a file relative to
            the data folder (safetensors, or a state of PyTorch), or empty for random weights.
        save_every_s: seconds between savepoints, which a training that was cut off is resumed from.
        seed: of weights and samples.
        workers: processes that prepare samples.
    """

    recipe: str = "paper"
    start_from: str = ""
    frozen: tuple[str, ...] = ()
    start_share: float = 0.0
    # The authors' 120, 50 and 120 epochs, of 75 whole batches of six of DeepGlobe's 454 training images.
    global_steps: int = 9000
    local_steps: int = 3750
    bidirectional_steps: int = 9000
    is_joint: bool = False
    batch_size: int = 6
    devices: int = 1
    patches_at_once: int = 12
    global_learning_rate: float = 1e-4  # §4.1, as the next
    local_learning_rate: float = 2e-5
    backbone_rate_factor: float = 1.0
    weight_decay: float = 0.0
    cosine: bool = False
    ema_decay: float = 0.0
    gamma: float = 6.0  # §4.1
    lambda_fmreg: float = 0.15  # §3.2.3, "empirically fixed"
    fmreg: Regularization = Regularization.EUCLIDEAN
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    backbone_weights: str = "imagenet"
    save_every_s: float = 60.0
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        # Annotations are checked for TOML only; a program may pass anything.
        if self.precision not in ("auto", "32-true", "bf16-mixed"):
            raise ConfigError(f"precision = {self.precision!r} must be 'auto', '32-true' or 'bf16-mixed'")
        if self.recipe not in RECIPES:
            raise ConfigError(f"unknown recipe {self.recipe!r}{suggestion(self.recipe, tuple(RECIPES))}")
        for name in ("global_steps", "local_steps", "bidirectional_steps", "batch_size", "devices", "patches_at_once"):
            _check_range(self, name, 1, 10**9)
        for name in ("global_learning_rate", "local_learning_rate", "backbone_rate_factor", "weight_decay", "lambda_fmreg"):
            _check_range(self, name, 0, 1e6)
        _check_range(self, "gamma", 0, 100)
        _check_range(self, "save_every_s", 0, 1e9)
        _check_range(self, "seed", 0, 2**32 - 1)
        _check_range(self, "workers", 0, 1024)
        if self.batch_size % self.devices:
            raise ConfigError(f"batch_size = {self.batch_size} must be a multiple of devices = {self.devices}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay = {self.ema_decay} must be from 0 to below 1")
        self._check_start()

    def _check_start(self) -> None:
        for part in self.frozen:
            if part not in FROZEN:
                raise ConfigError(f"frozen = {shortened(part)} is no part of a network{suggestion(str(part), FROZEN)}")
        if not 0 <= self.start_share < 1:
            raise ConfigError(f"start_share = {self.start_share} must be from 0 to below 1")
        if self.start_share and not self.start_from:
            raise ConfigError(f"start_share = {self.start_share} averages with a model; name it with from = '…'")


def _check_range(config: Any, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    if not low <= value <= high:
        raise ConfigError(f"{name} = {shortened(value)} must be at least {low} and at most {high}")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything a training run needs.

    Args:
        name: of the model.
        resolution_m: ground pixel size to train at.
        legend: classes.
        model: architecture (``num_classes`` follows the legend, ``in_channels`` the bands).
        train: sources of training scenes.
        validation: sources of held-out scenes.
        region: region, overview and patch sizes when segmenting.
        sample: sizes and numbers of training samples.
        augment: how far samples are varied.
        optim: how weights are updated.
        segment_resolution_m: ground pixel size to read scenes at when segmenting, where a size within the trained range
            does better on held-out scenes than ``resolution_m``.
        resolution_range_m: ground pixel sizes that the model is meant for.
        assumed_pixel_size_m: pixel size taken for scenes without a CRS.
        bands: that the model takes, and how their values reach it, in training and ever after.
        data: license, attribution and split of the data, kept in the checkpoint.
    """

    name: str
    resolution_m: float
    legend: Legend
    model: ModelConfig
    train: tuple[SourceConfig, ...]
    validation: tuple[SourceConfig, ...] = ()
    region: RegionConfig = field(default_factory=RegionConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    segment_resolution_m: float = 0.0
    resolution_range_m: tuple[float, float] = (0.0, 1e9)
    assumed_pixel_size_m: float = 0.0
    bands: Bands = field(default_factory=Bands)
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1e-6 <= self.resolution_m <= 1e9:
            raise ConfigError(f"resolution_m = {self.resolution_m} must be positive, in meters")
        low, high = self.resolution_range_m
        if not 0 <= low <= high <= 1e12:
            raise ConfigError(f"resolution_range_m = {[low, high]} must be two sizes in meters, in order")
        for name in ("segment_resolution_m", "assumed_pixel_size_m"):
            if getattr(self, name):
                _check_range(self, name, 1e-6, 1e9)
        low, high = self.augment.scale_min * self.resolution_m, self.augment.scale_max * self.resolution_m
        if self.segment_resolution_m and not low <= self.segment_resolution_m <= high:
            raise ConfigError(
                f"segment_resolution_m = {self.segment_resolution_m} is outside the trained range {low:g} to {high:g} m; "
                "widen augment.scale_min and scale_max, or train at another resolution_m"
            )
        if len(self.bands) != self.model.in_channels:
            count = f"{len(self.bands)} bands ({self.bands})"
            raise ConfigError(f"model.in_channels = {self.model.in_channels}, but there are {count}")
        if not self.train:
            raise ConfigError(f"{self.name} has no [[train]] source; name at least one")


_PARTS = {"region": RegionConfig, "sample": SampleConfig, "augment": AugmentConfig, "optim": OptimConfig}


def read_config(path: Path, overrides: Mapping[str, Any] | None = None, progress: Progress | None = None) -> TrainConfig:
    """Read a TOML file.

    Args:
        path: the file.
        overrides: values by dotted key, such as ``{"optim.global_steps": 100}``; they win over the file. A baseline's
            ``model.architecture`` brings its own backbone, one branch and no sharing with it.
        progress: receiver of a warning about keys that have another spelling today.

    Raises:
        ConfigError: the file is missing or malformed, or a key is unknown (the nearest known one is suggested).
    """
    try:
        # utf-8-sig: TOML knows no byte order mark, which editors on Windows write.
        plain = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"no configuration file {path}; examples/configs has some to start from") from error
    except (OSError, ValueError, RecursionError) as error:  # a nesting or a number that Python's parser gives up on
        raise ConfigError(f"{path} is not TOML: {error}") from error
    if "model.architecture" in (overrides or {}):
        plain["model"] = _table(plain, "model") | alone((overrides or {})["model.architecture"])
    for key, value in (overrides or {}).items():
        _set(plain, key, value)
    renamed = _respell(plain)
    if renamed and progress is not None:
        progress.warn(f"{path}: {', '.join(renamed)}; the old name is still read, please change it")
    return _build(plain)


def _respell(plain: dict[str, Any]) -> list[str]:
    """Bring the keys of a configuration to their present names, in place, and say of each that had another."""
    former: set[str] = set()

    def present(table: Any) -> Any:
        if isinstance(table, dict):
            former.update(FORMER_KEYS.keys() & table.keys())
        return respelled(table)

    legend = plain.get("legend")
    for owner, key in ((legend, "classes"), (plain, "train"), (plain, "validation")):
        if isinstance(owner, dict) and isinstance(owner.get(key), list):
            owner[key] = [present(table) for table in owner[key]]
    plain.update({key: present(plain[key]) for key in ("augment", "data") if key in plain})
    words = [f"{key} is now {FORMER_KEYS[key]}" for key in sorted(former)]
    if "scaling" in plain and isinstance(plain.setdefault("bands", {}), dict):
        plain["bands"].setdefault("scaling", plain.pop("scaling"))
        words.append("scaling is now bands.scaling")
    return words


def alone(architecture: str) -> dict[str, Any]:
    """List what an architecture implies for the other settings of a model; nothing where it is GLNet's."""
    family = ARCHITECTURES.get(architecture) if isinstance(architecture, str) else None
    if family is None or family.has_both:
        return {}
    rest: dict[str, Any] = {"branches": "local", "sharing": "none", "shared_levels": list(LEVELS), "aggregate": False}
    return rest | ({"backbone": family.backbone} if family.backbone else {})


_OWN = ("num_classes", "in_channels")
"""Settings of a model that follow the legend and the bands, and not the model that is started from."""


def _with_start(plain: dict[str, Any]) -> dict[str, Any]:
    """Fill in what a configuration leaves out from the model that it starts from, if it names one."""
    optim = _table(plain, "optim")
    if "from" in optim:  # a word of Python, which no field can be called; what a program says wins over the file
        optim = {"start_from": optim["from"]} | {key: value for key, value in optim.items() if key != "from"}
    source = checked("optim.from", optim.get("start_from", ""), str)
    if not source:
        return plain | ({"optim": optim} if optim else {})
    manifest = read_manifest(model_path(source))
    start, learned = manifest.to_dict(), respelled(manifest.training)
    tables = {name: start[name] for name in ("model", "region")} | {"bands": manifest.bands.to_dict()}
    tables["model"] = {key: value for key, value in tables["model"].items() if key not in _OWN}
    for name in ("sample", "augment"):
        known = {field.name for field in dataclasses.fields(_PARTS[name])}
        table = respelled(learned.get(name, {}))
        tables[name] = {key: value for key, value in table.items() if key in known} if isinstance(table, Mapping) else {}
    filled = {name: table | _table(plain, name) for name, table in tables.items()}
    filled["bands"] = _table(plain, "bands") or tables["bands"]
    values = {name: start[name] for name in ("legend", "resolution_range_m", "assumed_pixel_size_m")}
    values["resolution_m"] = learned.get("resolution_m", manifest.resolution_m)
    lineage = {"start": f"{manifest.name} {model_digest(model_path(source))[:16]}"}
    lineage |= {f"start_{key}": learned[key] for key in ("license", "attribution") if key in learned}
    filled["data"] = lineage | _table(plain, "data")
    return values | plain | filled | {"optim": {"recipe": "adapt", "backbone_weights": ""} | optim}


def _build(plain: dict[str, Any]) -> TrainConfig:
    plain = _with_start(plain)
    if "legend" not in plain:
        raise ConfigError("the configuration has no [legend]; give classes = [{name, color}, …]")
    legend = Legend.from_dict(plain["legend"])
    if "optim" in plain:
        chosen = _table(plain, "optim")
        recipe = checked("optim.recipe", chosen.get("recipe", "paper"), str)
        plain["optim"] = RECIPES.get(recipe, {}) | chosen  # what the file says wins over the recipe
    parts: dict[str, Any] = {name: from_plain(kind, _table(plain, name)) for name, kind in _PARTS.items() if name in plain}
    parts["bands"] = Bands.from_dict(_table(plain, "bands"))
    chosen = _table(plain, "model")
    num_bands = len(parts["bands"])
    implied = {"num_classes": legend.num_classes, "in_channels": num_bands} | alone(chosen.get("architecture", ""))
    model = from_plain(ModelConfig, implied | chosen)
    sources = {key: _sources(key, plain[key]) for key in ("train", "validation") if key in plain}
    return from_plain(TrainConfig, plain | parts | sources | {"legend": legend, "model": model})


def _sources(key: str, tables: Any) -> tuple[SourceConfig, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{key} = {shortened(tables)} must be a list of tables: write [[{key}]] above each source")
    return tuple(map(source_from_plain, tables))


def _table(plain: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = plain.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{key} = {shortened(table)} must be a table: write [{key}] above its settings")
    return table


def _set(plain: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    if len(path) > 2:
        raise ConfigError(f"unknown key {shortened(key)}; settings are named as in optim.batch_size")
    for name in path:
        plain = plain.setdefault(name, {})
        if not isinstance(plain, dict):
            raise ConfigError(f"{key}: {name} is not a table")
    plain[last] = value
