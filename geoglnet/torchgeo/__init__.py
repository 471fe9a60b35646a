"""TorchGeo: datasets, samplers and tasks for people who work with it (``docs/torchgeo.md``); the one room that imports it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geoglnet.torchgeo.global_local import GlobalLocalDataset, RegionQuery, collate, region_batch
from geoglnet.torchgeo.inria import inria_cities
from geoglnet.torchgeo.pixel_frame import DeepGlobe, PixelFrameDataset
from geoglnet.torchgeo.predictions import Predictions
from geoglnet.torchgeo.pretrained import GLNet_Weights
from geoglnet.torchgeo.region_samplers import BalancedRegionSampler, GriddedRegionSampler, RandomRegionSampler, RegionGeoSampler

if TYPE_CHECKING:
    from geoglnet.torchgeo.glnet_datamodule import GLNetDataModule
    from geoglnet.torchgeo.glnet_task import GLNetCheckpoint, GLNetTask

__all__ = [
    "BalancedRegionSampler",
    "DeepGlobe",
    "GLNetCheckpoint",
    "GLNetDataModule",
    "GLNetTask",
    "GLNet_Weights",
    "GlobalLocalDataset",
    "GriddedRegionSampler",
    "PixelFrameDataset",
    "Predictions",
    "RandomRegionSampler",
    "RegionGeoSampler",
    "RegionQuery",
    "collate",
    "inria_cities",
    "region_batch",
]

# TorchGeo's tasks and datamodules import the libraries of all their networks, for seconds; samples need none of them.
_LATER = {
    "GLNetCheckpoint": "geoglnet.torchgeo.glnet_task",
    "GLNetDataModule": "geoglnet.torchgeo.glnet_datamodule",
    "GLNetTask": "geoglnet.torchgeo.glnet_task",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'geoglnet.torchgeo' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
