"""Scenes drawn by rule, with their true polygons: for ``geoglnet demo``, for tests, and to mix into training."""

from geoglnet.synthetic.generator import (
    GENERATED_LEGEND,
    LANDCOVER_OF,
    GeneratedScene,
    TruePolygon,
    generate_scene,
    landcover_labels,
)
from geoglnet.synthetic.writing import write_generated

__all__ = [
    "GENERATED_LEGEND",
    "LANDCOVER_OF",
    "GeneratedScene",
    "TruePolygon",
    "generate_scene",
    "landcover_labels",
    "write_generated",
]
