"""Describe models of others, so that the predictor can run them: a STAC item beside the file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geoglnet.config import suggestion
from geoglnet.errors import CheckpointError, ConfigError
from geoglnet.models.foreign.described import HEADS, Facts, bands_of
from geoglnet.models.foreign.items import item_path_of
from geoglnet.models.foreign.onnx_file import OnnxFile, read_onnx
from geoglnet.models.foreign.onnx_network import OnnxNetwork
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.models.mlm import ImageProgram, mlm_item
from geoglnet.output import OutputFile
from geoglnet.types import StrPath


@dataclass(frozen=True, slots=True)
class Description:
    """What is said of a model of others, beside or instead of what its file says; ``None`` leaves that as it is.

    Args:
        resolution_m: ground size of its pixels.
        classes: names in the order of its results; of a single result the background's may be left out.
        background: class that does not become polygons.
        bands: names, in its order.
        mean: of each band, on a scale of 0 to 1.
        std: of each band, on that scale.
        size: side of its images, where any will do.
        overlap: pixels that neighboring images share.
        head: what comes out of each pixel; seen in its results when left out.

    Raises:
        ConfigError: an unknown head, or a size that nothing is predicted with.
    """

    resolution_m: float | None = None
    classes: tuple[str, ...] | None = None
    background: str | None = None
    bands: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    overlap: int | None = None
    head: str | None = None

    def __post_init__(self) -> None:
        if self.head is not None and self.head not in HEADS:
            raise ConfigError(f"unknown head {self.head!r}{suggestion(self.head, HEADS)}")

    def over(self, facts: Facts, results: int, channels: int) -> Facts:
        """Put what is said here over what a file says."""
        said: dict[str, Any] = {"resolution_m": self.resolution_m, "tile_size": self.size, "tile_overlap": self.overlap}
        said |= {"head": self.head}
        if self.classes is not None:
            whole = ("background", *self.classes) if results == 1 and len(self.classes) == 1 else self.classes
            said |= {"classes": whole, "background": 0 if results == 1 else None}
        found = replace(facts, **{name: value for name, value in said.items() if value is not None})
        if self.background is not None:
            if self.background not in (found.classes or ()):
                known = ", ".join(found.classes or ("none",))
                raise ConfigError(f"background = {self.background!r} is no class of {facts.name}; it has {known}")
            found = replace(found, background=(found.classes or ()).index(self.background))
        if self.bands or self.mean or self.std:
            told = found.bands or bands_of(facts.name, channels)
            names, mean, std = self.bands or told.names, self.mean or told.mean, self.std or told.std
            found = replace(found, bands=bands_of(facts.name, channels, mean, std, names))
        return found


@dataclass(frozen=True, slots=True)
class Imported:
    """What :func:`import_model` wrote.

    Args:
        path: of the description.
        manifest: of the model, as the predictor works with it.
        head: what comes out of each pixel.
    """

    path: Path
    manifest: Manifest
    head: str


def import_model(path: StrPath, description: Description | None = None, *, overwrite: bool = False) -> Imported:
    """Describe a model of others by a STAC item beside its file, after running it on a drawn image.

    >>> done = geoglnet.import_model("other.onnx")  # doctest: +SKIP

    Args:
        path: ``.onnx``.
        description: what its file does not say.
        overwrite: replace a description that is there; what it says is no longer used.

    Returns:
        How the model was understood.

    Raises:
        CheckpointError: the file cannot be used, or does not do what is said of it.
        ConfigError: a description that cannot be one.
        OutputExistsError: there is a description.
        OutputError: it cannot be written.
        ModuleNotFoundError: ONNX Runtime is not installed.
    """
    file, description = Path(path), description or Description()
    if file.suffix.lower() != ".onnx":
        raise CheckpointError(f"{file} is no .onnx file; other models are imported as ONNX (torch.onnx.export)")
    output = OutputFile(item_path_of(file), overwrite)
    found = read_onnx(file, is_described=False)
    channels = len(found.facts.bands) if found.facts.bands else 0
    described = _renewed(found, description.over(found.facts, found.results, channels))
    manifest = described.manifest
    network = OnnxNetwork(manifest.model, described)
    program = ImageProgram(
        manifest.region.patch_size,
        manifest.region.patch_overlap,
        described.batch,
        described.dtype,
        network.head,
        opset=described.opset,
        input_name=network.input_name,
        output_name=network.output_name,
        normalizes=False,
        threshold=described.facts.threshold,
    )
    item = mlm_item(manifest, file.name, program=program, sha256=model_digest(file), size=file.stat().st_size)
    with output as part_path:
        part_path.write_text(json.dumps(item, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Imported(output.path, manifest, network.head)


def _renewed(found: OnnxFile, facts: Facts) -> OnnxFile:
    """Check a description against the file it is of."""
    tile = found.facts.tile_size
    if found.is_fixed and facts.tile_size != tile:
        raise ConfigError(f"{found.path} takes images of {tile} px, not of {facts.tile_size}")
    if facts.classes is not None and len(facts.classes) != max(2, found.results):
        raise ConfigError(f"{found.path} gives {found.results} classes, not {len(facts.classes)}: {', '.join(facts.classes)}")
    return replace(found, facts=facts)
