"""geoglnet: land-cover and building maps from scenes of any size, with GLNet (Chen et al., CVPR 2019).

Public names are resolved on first use, so that ``import geoglnet`` loads neither torch nor GDAL.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Any

__version__ = metadata.version("geoglnet")

_HOME = {
    "GLNet": "geoglnet.models.glnet",
    "ModelConfig": "geoglnet.config",
    "RegionConfig": "geoglnet.config",
    "Sharing": "geoglnet.config",
    "Branches": "geoglnet.config",
    "Legend": "geoglnet.legend",
    "GeoglnetError": "geoglnet.errors",
    "load_checkpoint": "geoglnet.models.checkpoint",
    "open_scene": "geoglnet.raster.scene",
    "iter_blocks": "geoglnet.api",
    "predict": "geoglnet.api",
    "vectorize": "geoglnet.api",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'geoglnet' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
