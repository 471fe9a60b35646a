"""Models in STAC's machine learning extension (MLM 1.5), for catalogs that list models beside imagery."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from geoglnet.bands import Bands, ValueRange
from geoglnet.config import ScalingRule
from geoglnet.models.manifest import Manifest

EXTENSION = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
COMMON_NAMES = (
    *("pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071", "rededge075", "rededge078"),
    *("nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12"),
)
"""Names of bands that STAC knows (``eo:common_name``); any other word is a name that only we and its readers know."""

_KINDS = {  # how the file was saved, and its media type
    "safetensors": ("safetensors.torch.save_file", "application/octet-stream; application=safetensors"),
    "pt2": ("torch.export.save", "application/zip; application=pytorch"),
    "onnx": ("onnx", "application/octet-stream; framework=onnx"),
}
_WORLD = [-180.0, -90.0, 180.0, 90.0]


@dataclass(frozen=True, slots=True)
class ImageProgram:
    """A network as one function of an image, as ``geoglnet export`` writes it and other programs do.

    Args:
        side: pixels of the image's sides.
        overlap: pixels that neighboring images should share.
        batch: images at a time; ``None`` for any number.
        precision: number type that it computes in; images and results are float32.
        head: what comes out of each pixel: ``"softmax"`` or ``"sigmoid"`` probabilities, or ``"logits"``.
        opset: of ONNX; ``None`` of another format.
        input_name: of its only input.
        output_name: of its only output.
        normalizes: whether values are normalized inside.
        threshold: probability from which the only class counts, where the head is ``"sigmoid"``.
    """

    side: int
    overlap: int
    batch: int | None = None
    precision: str = "float32"
    head: str = "softmax"
    opset: int | None = None
    input_name: str = "image"
    output_name: str = "probabilities"
    normalizes: bool = True
    threshold: float = 0.5


def mlm_properties(manifest: Manifest, program: ImageProgram | None = None) -> dict[str, Any]:
    """Describe a model by the properties of a STAC item, plain values for JSON.

    >>> from geoglnet.models.manifest import read_manifest
    >>> from geoglnet.models.shipped import model_path
    >>> described = mlm_properties(read_manifest(model_path("buildings")))
    >>> described["mlm:tasks"], [part["name"] for part in described["mlm:input"]]
    (['semantic-segmentation'], ['overview', 'patches'])

    Args:
        manifest: of the model.
        program: how it was exported; ``None``: it is the checkpoint itself.
    """
    described = {
        "mlm:name": manifest.name,
        "mlm:architecture": "GLNet" if manifest.model.has_pyramid else manifest.model.architecture,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "PyTorch" if program is None or program.opset is None else "ONNX",
        "mlm:pretrained": True,
        "mlm:input": _inputs(manifest) if program is None else [_image(manifest, program)],
        "mlm:output": [_output(manifest, program)],
        "mlm:hyperparameters": _hyperparameters(manifest, program),
    }
    return described | {"license": manifest.training["license"]} if "license" in manifest.training else described


def mlm_item(
    manifest: Manifest, file_name: str, *, program: ImageProgram | None = None, sha256: str = "", size: int = 0
) -> dict[str, Any]:
    """Describe a model's file by a STAC item that is valid with MLM 1.5, plain values for JSON.

    Args:
        manifest: of the model.
        file_name: of the model, beside the item.
        program: how it was exported; ``None``: the file is the checkpoint itself.
        sha256: of the file.
        size: of the file in bytes.
    """
    west, south, east, north = _WORLD
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    artifact, media = _KINDS["safetensors" if program is None else "pt2" if program.opset is None else "onnx"]
    asset: dict[str, Any] = {
        "href": f"./{file_name}",
        "type": media,
        "title": manifest.name,
        "roles": ["mlm:model", "mlm:weights", "data"],
    }
    # STAC 1.1 allows bands among the properties only where an asset has some; MLM wants them there.
    asset |= {"bands": [{"name": name} for name in manifest.bands.names]}
    asset |= {"mlm:artifact_type": artifact} | ({"file:size": size, "file:checksum": f"1220{sha256}"} if sha256 else {})
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSION, *([FILE] if sha256 else [])],
        "id": manifest.name,
        # Nobody knows where a model is of use; its card says where it was tried.
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": _WORLD,
        "properties": {
            "datetime": None,
            "start_datetime": "1900-01-01T00:00:00Z",
            "end_datetime": "9999-12-31T23:59:59Z",
            "description": f"{manifest.name}: {', '.join(manifest.legend.names)} at {manifest.resolution_m:g} m pixels",
            "bands": [_band(name) for name in manifest.bands.names],
            **_licensed(mlm_properties(manifest, program)),
        },
        "links": [],
        "assets": {"model": asset},
    }


def _licensed(properties: dict[str, Any]) -> dict[str, Any]:
    """Write a license as STAC wants it: an identifier of SPDX, or the word for all others."""
    license_text = properties.pop("license", None)
    if license_text is None:
        return properties
    is_identifier = isinstance(license_text, str) and license_text.replace("-", "").replace(".", "").isalnum()
    return properties | {"license": license_text if is_identifier else "other"}


def _band(name: str) -> dict[str, Any]:
    return {"name": name} | ({"eo:common_name": name} if name in COMMON_NAMES else {})


def _inputs(manifest: Manifest) -> list[dict[str, Any]]:
    region = manifest.region
    sizes = {
        "overview": (region.overview_size, f"a region of {region.region_size} px, decimated"),
        "patches": (region.patch_size, "crops of the region at full resolution"),
    }
    return [
        _input(name, description, manifest.bands, (-1, len(manifest.bands), size, size), _normalizing(manifest.bands))
        for name, (size, description) in sizes.items()
    ]


def _image(manifest: Manifest, program: ImageProgram) -> dict[str, Any]:
    shape = (program.batch or -1, len(manifest.bands), program.side, program.side)
    if not program.normalizes:
        what = "an image at the model's resolution"
        return _input(program.input_name, what, manifest.bands, shape, _normalizing(manifest.bands))
    what = "a region at the model's resolution, values from 0 to 1; it is normalized inside"
    return _input(program.input_name, what, manifest.bands, shape, _to_unit(manifest.bands))


def _input(name: str, what: str, bands: Bands, shape: tuple[int, ...], scaling: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "description": what,
        "bands": list(bands.names),
        "input": _array(shape, ("batch", "bands", "height", "width"), "float32"),
        "value_scaling": scaling,
        "resize_type": None,
    }


def _output(manifest: Manifest, program: ImageProgram | None) -> dict[str, Any]:
    classes = [
        {
            "value": value,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "-", name).strip("-") or f"class-{value}",  # what the extension allows
            "title": name,
            "description": name,
            "color_hint": "{:02X}{:02X}{:02X}".format(*color),
        }
        for value, (name, color) in enumerate(zip(manifest.legend.names, manifest.legend.colors, strict=True))
    ]
    if program is None:
        name, result = "labels", _array((-1, -1), ("height", "width"), "uint8")
    else:
        shape = (program.batch or -1, manifest.legend.num_classes, program.side, program.side)
        name, result = program.output_name, _array(shape, ("batch", "classes", "height", "width"), "float32")
    return {"name": name, "tasks": ["semantic-segmentation"], "result": result, "classification:classes": classes}


def _hyperparameters(manifest: Manifest, program: ImageProgram | None) -> dict[str, Any]:
    """List what a reader needs beside the fields of MLM; names are ours."""
    known: dict[str, Any] = {
        "resolution_m": manifest.resolution_m,
        "resolution_range_m": list(manifest.resolution_range_m),
        "assumed_pixel_size_m": manifest.assumed_pixel_size_m,
        "scaling": manifest.bands.to_dict()["scaling"],
        "backbone": manifest.model.backbone,
        "written_by": f"geoglnet {version('geoglnet')}",
    }
    if manifest.legend.background is not None:
        known["background"] = manifest.legend.background
    if manifest.polygons:
        known["polygons"] = dict(manifest.polygons)
    if program is not None and not program.normalizes:
        known |= {"mean": list(manifest.bands.mean), "std": list(manifest.bands.std), "threshold": program.threshold}
    if program is not None:
        known |= {"tile_size": program.side, "tile_overlap": program.overlap, "head": program.head}
        known |= {"precision": program.precision} | ({} if program.opset is None else {"opset": program.opset})
    return known


def _array(shape: tuple[int, ...], order: tuple[str, ...], dtype: str) -> dict[str, Any]:
    return {"shape": list(shape), "dim_order": list(order), "data_type": dtype}


def _to_unit(bands: Bands) -> list[dict[str, Any]]:
    """Say of each band how its values come to 0–1."""
    return [
        _measured(rule) or {"type": "min-max", **dict(zip(("minimum", "maximum"), _ends(rule), strict=True))}
        for rule in bands.rules
    ]


def _normalizing(bands: Bands) -> list[dict[str, Any]]:
    """Say of each band how its values become what the network takes, scaling and normalization in one."""
    steps = []
    for rule, mean, std in zip(bands.rules, bands.mean, bands.std, strict=True):
        low, high = _ends(rule)
        z_score = {"type": "z-score", "mean": low + mean * (high - low), "stddev": std * (high - low)}
        steps.append(_measured(rule, f", less {mean:g}, divided by {std:g}") or z_score)
    return steps


def _ends(rule: Any) -> tuple[float, float]:
    if isinstance(rule, ValueRange):
        return rule.low, rule.high
    return (0, 1) if rule is ScalingRule.REFLECTANCE else (0, 255)


def _measured(rule: Any, then: str = "") -> dict[str, Any] | None:
    """Name a rule whose ends are measured on the scene; no type of MLM's says that."""
    if rule not in (ScalingRule.STRETCH, ScalingRule.PERCENTILES):
        return None
    words = f"from the 2nd to the 98th percentile of the scene to 0 to 1{then}"
    return {"type": "processing", "format": "text", "expression": words}
