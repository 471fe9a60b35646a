"""A training configuration as the program reads it: TOML, from what a person chose in a dialog."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEADER = "# Written by the geoglnet plugin of QGIS.\n"
CONFIGURATION = "train.toml"
CLASS_COLUMN = "class"
BACKGROUND = "background"
BACKGROUND_COLOR = (32, 32, 32)
PALETTE = (  # Okabe and Ito's colors, which color-blind people can tell apart
    (230, 75, 50),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (230, 159, 0),
)
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "small": {  # what two CPU cores train in half an hour; the sizes of the shipped models
        "model": {"backbone": "mobilenet_v2", "pyramid_channels": 64, "smooth_channels": 32},
        "region": {"region_size": 1224, "overview_size": 448, "patch_size": 448, "patch_overlap": 50, "margin": 100},
        "sample": {"region_size": 640, "patch_size": 320, "patches_per_region": 2},
        "optim": {"batch_size": 4, "global_learning_rate": 1e-3, "local_learning_rate": 1e-3, "backbone_rate_factor": 0.2}
        | {"weight_decay": 0.01, "cosine": True, "ema_decay": 0.99, "gamma": 2.0, "fmreg": "mean_square"},
    },
    "paper": {"model": {"backbone": "resnet50"}, "region": {}, "sample": {}, "optim": {}},
}


@dataclass(frozen=True)
class Pair:
    """A raster, its polygons, and where these are complete, as file names in the data folder."""

    raster: str
    polygons: str
    area: str = ""


@dataclass(frozen=True)
class Training:
    """What *Train on layers* was asked for.

    Args:
        name: of the model.
        resolution_m: ground size of the pixels to train at.
        classes: names and colors, without the background.
        train, validation: pairs of files.
        size: a key of :data:`SIZES`.
        steps: of the global stage and of the local stage.
        backbone_weights: ``imagenet``, a file, or empty.
        assumed_pixel_size_m: of rasters without CRS; 0 where they have one.
        start: model to start from, a name or a file; its sizes and a gentle recipe win over :attr:`size`.
    """

    name: str
    resolution_m: float
    classes: Mapping[str, Sequence[int]]
    train: Sequence[Pair]
    validation: Sequence[Pair] = ()
    size: str = "small"
    steps: tuple[int, int] = (500, 500)
    backbone_weights: str = "imagenet"
    assumed_pixel_size_m: float = 0.0
    start: str = ""

    def to_toml(self) -> str:
        """Write the text of the configuration file."""
        size: Mapping[str, Mapping[str, Any]] = {"optim": {}} if self.start else SIZES[self.size]
        colors = {BACKGROUND: BACKGROUND_COLOR, **self.classes}
        classes = [{"name": name, "color": list(color)} for name, color in colors.items()]
        steps: dict[str, Any] = {"global_steps": self.steps[0], "local_steps": self.steps[1]}
        steps |= {"from": self.start} if self.start else {"backbone_weights": self.backbone_weights}
        assumed = {"assumed_pixel_size_m": self.assumed_pixel_size_m} if self.assumed_pixel_size_m else {}
        tables = {
            "": {"name": self.name, "resolution_m": self.resolution_m, **assumed},
            "[legend]": {"classes": classes, "background": 0},
            **{f"[{table}]": values for table, values in size.items() if table != "optim" and values},
            "[optim]": {**size["optim"], **steps},
        }
        parts = [HEADER]
        parts += [_table(heading, values) for heading, values in tables.items()]
        parts += [_table("[[train]]", self._source(pair)) for pair in self.train]
        parts += [_table("[[validation]]", self._source(pair)) for pair in self.validation]
        return "\n".join(parts)

    def _source(self, pair: Pair) -> dict[str, Any]:
        files = {"images": pair.raster, "polygons": pair.polygons, "class_column": CLASS_COLUMN, "unlabeled": "background"}
        if self.assumed_pixel_size_m:
            return {"kind": "images", **files, "pixel_size_m": self.assumed_pixel_size_m}
        return {"kind": "rasters", **files, **({"area": pair.area} if pair.area else {})}


def is_own_folder(folder: str) -> bool:
    """Return whether the plugin wrote the configuration in a folder, and so may replace its files."""
    try:
        with open(os.path.join(folder, CONFIGURATION), encoding="utf-8") as file:
            return file.readline() == HEADER
    except (OSError, UnicodeDecodeError):
        return False


def colors_for(names: Sequence[str], styled: Mapping[str, Sequence[int]] | None = None) -> dict[str, tuple[int, ...]]:
    """Choose a color for every class: the layer's own if its style has one, else from a palette."""
    own = styled or {}
    return {name: tuple(own.get(name, PALETTE[n % len(PALETTE)])) for n, name in enumerate(names)}


def _table(heading: str, values: Mapping[str, Any]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in values.items()]
    return "\n".join([heading, *lines] if heading else lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode("utf-8")  # TOML has no halves of surrogate pairs
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)
