"""Command lines of the program, as lists of words; no shell ever sees them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

SAVEPOINT = ".resume.pt"  # the program's name for what a training that was cut off keeps
JOURNAL = "journal.jsonl"  # in such a folder
_BLOCK = re.compile(r"\d{6,}_\d{6,}\.tif")
_RUN_FILE = re.compile(r"journal(-\d+)?\.jsonl|lock|writer-\d+\.lock|geoglnet-\w+|\w+\.vrt")
UNFINISHED = ".unfinished"  # the program's suffix of a folder with finished blocks
EVENTS = ("--progress", "json", "--stop-on-stdin-eof")
OVERWRITE = "--overwrite"
LAYERS = {  # what `geoglnet predict` writes as rasters: title and help; a test compares the names with the program's table
    "labels": ("Labels", "Raster of class numbers with colors and names (.tif, cloud-optimized)."),
    "confidence": ("Confidence", "Raster with the probability of the chosen class, times 254 (.tif)."),
    "entropy": ("Entropy", "Raster of how uncertain the model is, 0 to 254 (.tif)."),
    "probabilities": ("Probabilities", "Raster with a band per class (.tif)."),
}


@dataclass(frozen=True)
class Shaping:
    """How polygons are made; shared by *Segment scene* and *Vectorize labels*.

    Args:
        tolerance: how far corners may move; 0 keeps every corner of a pixel.
        min_area_m2: smaller polygons are dropped.
        is_regularized: whether corners are squared.
        unit: of the tolerance, ``m`` or, where there is no CRS, ``px``.
    """

    tolerance: float = 0.0
    min_area_m2: float = 0.0
    is_regularized: bool = False
    unit: str = "m"

    def words(self) -> list[str]:
        words = []
        if self.tolerance > 0:
            words += ["--simplify", f"{_number(self.tolerance)}{self.unit}"]
        if self.min_area_m2 > 0:
            words += ["--min-area", _number(self.min_area_m2)]
        if self.is_regularized:
            words += ["--regularize"]
        return words


@dataclass(frozen=True)
class Segmentation:
    """Everything that *Segment scene* asks for; paths are absolute, empty ones are left out.

    Args:
        scene: raster.
        model: name of a shipped model, or a file.
        layers: rasters to write, by name (:data:`LAYERS`).
        polygons: vector file to write.
        doubtful: GeoPackage of the areas to check to write.
        bounds: left, bottom, right, top in the scene's CRS.
        area: file of polygons to segment within.
        shaping: how polygons are made.
        device: ``auto``, ``cpu``, ``cuda`` …
        batch: patches per step; 0 leaves it to the program.
        effort: 0 to 1; ``None`` leaves it to the program.
        pixel_size_m: meters per pixel of a raster without CRS.
        bands: names or numbers of bands in the model's order, or a preset.
        beside: other rasters, as NAME=FILE.
        is_resumed: whether to go on with a run that was stopped.
        replaces: whether outputs that exist are replaced.
    """

    scene: str
    model: str
    layers: Mapping[str, str] = field(default_factory=dict)
    polygons: str = ""
    doubtful: str = ""
    bounds: Sequence[float] = ()
    area: str = ""
    shaping: Shaping = Shaping()
    device: str = "auto"
    batch: int = 0
    effort: float | None = None
    pixel_size_m: float = 0.0
    bands: str = ""
    beside: Sequence[str] = ()
    is_resumed: bool = False
    replaces: bool = False

    def words(self) -> list[str]:
        named = {
            **{f"--{name.replace('_', '-')}": path for name, path in self.layers.items()},
            "--vector": self.polygons,
            "--uncertain": self.doubtful,
            "--mask": self.area,
            "--batch": str(self.batch) if self.batch > 0 else "",
            "--effort": "" if self.effort is None else _number(self.effort),
            "--pixel-size": _number(self.pixel_size_m) if self.pixel_size_m > 0 else "",
            "--bands": self.bands,
        }
        words = ["predict", self.scene, "--model", self.model, "--device", self.device]
        for option, value in named.items():
            words += [option, value] if value else []
        for other in self.beside:
            words += ["--with", other]
        if self.bounds:
            words += ["--bounds", *map(_number, self.bounds)]
        words += ["--resume"] if self.is_resumed else []
        words += [OVERWRITE] if self.replaces else []
        shaping = [*self.shaping.words(), *style_words(self.polygons)] if self.polygons else []
        return [*words, *shaping, *EVENTS]


KINDS = {  # what the values of a raster mean: names of ours, and titles
    "classes": "Codes of classes",
    "objects": "Objects: a row for each number",
    "parts": "Objects: a row for each connected part",
    "quantities": "Quantities, by breaks",
    "probabilities": "Probabilities: a band for each class",
}


@dataclass(frozen=True)
class Values:
    """What *Polygons from raster* asks about values; what is empty is left to the program.

    Args:
        kind: one of :data:`KINDS`.
        band: 1-based number; 0 for the only one.
        breaks: numbers with commas between.
        legend: file of names and colors.
        background: code without polygons, or ``none``.
        class_of: label raster that objects get their classes from.
    """

    kind: str = "classes"
    band: int = 0
    breaks: str = ""
    legend: str = ""
    background: str = ""
    class_of: str = ""

    def words(self) -> list[str]:
        is_object = self.kind in ("objects", "parts")
        named = {
            "--band": str(self.band) if self.band > 0 and self.kind != "probabilities" else "",
            "--breaks": self.breaks if self.kind == "quantities" else "",
            "--legend": self.legend,
            "--background": self.background,
            "--class-of": self.class_of if is_object else "",
        }
        words = ["--instances"] if is_object else ["--argmax"] if self.kind == "probabilities" else []
        words += ["--parts"] if self.kind == "parts" else []
        for option, value in named.items():
            words += [option, value] if value else []
        return words


def vectorize_words(
    labels: str,
    polygons: str,
    shaping: Shaping,
    confidence: str = "",
    *,
    values: Values = Values(),
    replaces: bool = False,
) -> list[str]:
    """``geoglnet vectorize``."""
    given = ["--confidence", confidence] if confidence else []
    given += values.words()
    given += [OVERWRITE] if replaces else []
    return ["vectorize", labels, polygons, *given, *shaping.words(), *style_words(polygons), *EVENTS]


def style_words(polygons: str) -> list[str]:
    """Ask for a style file beside formats that cannot hold a style; a GeoPackage brings its own."""
    return [] if polygons.lower().endswith(".gpkg") else ["--style", "qml"]


def unfinished(*outputs: str) -> set[str]:
    """Find what interrupted runs keep beside their first outputs: folders with the program's journal."""
    folders = {path + UNFINISHED for path in outputs if path}
    return {folder for folder in folders if not os.path.islink(folder) and _is_run(os.path.join(folder, JOURNAL))}


def remove_unfinished(*outputs: str, kept: Collection[str] = ()) -> None:
    """Remove what an interrupted run keeps, except folders that existed before it and anything it did not make."""
    for folder in unfinished(*outputs) - set(kept):
        with suppress(OSError):
            _remove_run(folder)


def _is_run(journal: str) -> bool:
    try:
        with open(journal, "rb") as file:
            return file.read(10) == b'{"format":'
    except OSError:
        return False


def _remove_run(folder: str) -> None:
    for name in sorted(os.listdir(folder), key=lambda name: name == JOURNAL):  # the journal last, which makes it a run's
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            for block in os.listdir(path):
                if _BLOCK.fullmatch(block):
                    os.remove(os.path.join(path, block))
            if not os.listdir(path):
                os.rmdir(path)
        elif _RUN_FILE.fullmatch(name):
            os.remove(path)
    os.rmdir(folder)


def train_words(
    configuration: str,
    folder: str,
    checkpoint: str,
    settings: Sequence[str] = (),
    *,
    is_resumed: bool = False,
    replaces: bool = False,
) -> list[str]:
    """``geoglnet train``; each of ``settings`` is KEY=VALUE."""
    given = [word for setting in settings for word in ("--set", setting)]
    given += ["--resume"] if is_resumed else []
    given += [OVERWRITE] if replaces else []
    return ["train", configuration, "--data", folder, "--checkpoint", checkpoint, *given, *EVENTS]


@dataclass(frozen=True)
class Adaptation:
    """Everything that *Adapt a model* asks for; paths are absolute, empty ones are left out.

    Args:
        model: to start from: name of a shipped model, or a file.
        scene: raster.
        drawn: vector file with what was drawn.
        checkpoint: model file to write.
        area: vector file of what was looked at.
        class_field: of the vector file; empty where all are of one class.
        legend: classes of the new model, with commas between.
        minutes: most time.
        device: ``auto``, ``cpu``, ``cuda`` …
        bands: names or numbers of bands in the model's order, or a preset.
        beside: other rasters, as NAME=FILE.
        pixel_size_m: meters per pixel of a raster without CRS.
        is_validated_across: whether to score by leaving out one third after the other.
        replaces: whether outputs that exist are replaced.
    """

    model: str
    scene: str
    drawn: str
    checkpoint: str
    area: str = ""
    class_field: str = ""
    legend: str = ""
    minutes: float = 10.0
    device: str = "auto"
    bands: str = ""
    beside: Sequence[str] = ()
    pixel_size_m: float = 0.0
    is_validated_across: bool = False
    replaces: bool = False

    def words(self) -> list[str]:
        named = {
            "--area": self.area,
            "--class-field": self.class_field,
            "--legend": self.legend,
            "--minutes": _number(self.minutes),
            "--bands": self.bands,
            "--pixel-size": _number(self.pixel_size_m) if self.pixel_size_m > 0 else "",
        }
        words = ["adapt", self.model, self.scene, self.drawn, "--checkpoint", self.checkpoint, "--device", self.device]
        for option, value in named.items():
            words += [option, value] if value else []
        for other in self.beside:
            words += ["--with", other]
        words += ["--cross-validate"] if self.is_validated_across else []
        words += [OVERWRITE] if self.replaces else []
        return [*words, *EVENTS]


def report_of(checkpoint: str) -> str:
    """Return where an adaptation leaves the page with its report."""
    return os.path.join(run_folder_of(checkpoint), "report.html")


def run_folder_of(checkpoint: str) -> str:
    """Return the folder that the program writes the log and the report of a model into."""
    return os.path.splitext(checkpoint)[0] + ".run"


def savepoint_of(checkpoint: str) -> str:
    """Return where an interrupted training keeps its savepoint."""
    return os.path.splitext(checkpoint)[0] + SAVEPOINT


def _number(value: float) -> str:
    """Format a number as the shortest decimal that reads back the same."""
    return repr(float(value)).removesuffix(".0")
