"""TorchGeo: datasets and samplers for people who work with it (``docs/torchgeo.md``); the one room that imports it."""

from geoglnet.torchgeo.global_local import GlobalLocalDataset, RegionQuery, collate, region_batch
from geoglnet.torchgeo.region_samplers import BalancedRegionSampler, GriddedRegionSampler, RandomRegionSampler, RegionGeoSampler

__all__ = [
    "BalancedRegionSampler",
    "GlobalLocalDataset",
    "GriddedRegionSampler",
    "RandomRegionSampler",
    "RegionGeoSampler",
    "RegionQuery",
    "collate",
    "region_batch",
]
