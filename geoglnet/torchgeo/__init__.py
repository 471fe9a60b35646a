"""TorchGeo: datasets and samplers for people who work with it (``docs/torchgeo.md``); the one room that imports it."""

from geoglnet.torchgeo.global_local import GlobalLocalDataset, RegionQuery, collate, region_batch
from geoglnet.torchgeo.inria import inria_cities
from geoglnet.torchgeo.pixel_frame import DeepGlobe, PixelFrameDataset
from geoglnet.torchgeo.predictions import Predictions
from geoglnet.torchgeo.region_samplers import BalancedRegionSampler, GriddedRegionSampler, RandomRegionSampler, RegionGeoSampler
from geoglnet.torchgeo.weights import GLNet_Weights

__all__ = [
    "BalancedRegionSampler",
    "DeepGlobe",
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
