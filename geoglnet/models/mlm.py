"""Properties of a model in STAC's machine learning extension (MLM 1.4), for catalogs that list models beside imagery."""

from __future__ import annotations

from typing import Any

from geoglnet.bands import ValueRange
from geoglnet.config import ScalingRule
from geoglnet.models.manifest import Manifest

EXTENSION = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"


def mlm_properties(manifest: Manifest) -> dict[str, Any]:
    """Describe a model by the properties of a STAC item, plain values for JSON.

    >>> from geoglnet.models.manifest import read_manifest
    >>> from geoglnet.models.shipped import model_path
    >>> described = mlm_properties(read_manifest(model_path("buildings")))
    >>> described["mlm:tasks"], [part["name"] for part in described["mlm:input"]]
    (['semantic-segmentation'], ['overview', 'patches'])
    """
    region, bands = manifest.region, manifest.bands
    inputs = {
        "overview": (region.overview_size, f"a region of {region.region_size} px, decimated"),
        "patches": (region.patch_size, "crops of the region at full resolution"),
    }
    classes = [
        {"value": value, "name": name, "color_hint": "{:02X}{:02X}{:02X}".format(*color)}
        for value, (name, color) in enumerate(zip(manifest.legend.names, manifest.legend.colors, strict=True))
    ]
    described = {
        "mlm:name": manifest.name,
        "mlm:architecture": "GLNet" if manifest.model.has_pyramid else manifest.model.architecture,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "pytorch",
        "mlm:pretrained": True,
        "mlm:input": [
            {
                "name": name,
                "description": description,
                "bands": list(bands.names),
                "input": _array((-1, len(bands), size, size), ("batch", "bands", "height", "width"), "float32"),
                "value_scaling": _scaling(manifest),
                "resize_type": None,
            }
            for name, (size, description) in inputs.items()
        ],
        "mlm:output": [
            {
                "name": "labels",
                "tasks": ["semantic-segmentation"],
                "result": _array((-1, -1), ("height", "width"), "uint8"),
                "classification:classes": classes,
            }
        ],
        "mlm:hyperparameters": {"resolution_m": manifest.resolution_m, "backbone": manifest.model.backbone},
    }
    return described | {"license": manifest.training["license"]} if "license" in manifest.training else described


def _array(shape: tuple[int, ...], order: tuple[str, ...], dtype: str) -> dict[str, Any]:
    return {"shape": list(shape), "dim_order": list(order), "data_type": dtype}


def _scaling(manifest: Manifest) -> list[dict[str, Any]]:
    """List what is done to each band: scaling to 0–1, then normalization."""
    steps: list[dict[str, Any]] = []
    for rule, mean, std in zip(manifest.bands.rules, manifest.bands.mean, manifest.bands.std, strict=True):
        if isinstance(rule, ValueRange):
            steps.append({"type": "min-max", "minimum": rule.low, "maximum": rule.high})
        elif rule in (ScalingRule.BY_TYPE, ScalingRule.AS_IS):
            steps.append({"type": "min-max", "minimum": 0, "maximum": 255})
        else:
            steps.append({"type": "processing", "format": "text", "expression": rule.value})
        steps.append({"type": "z-score", "mean": mean, "stddev": std})
    return steps
