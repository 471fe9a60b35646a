"""Samples of every sampler are the same in this process, in two workers, and in two processes that share each epoch."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from geoglnet.config import RegionConfig
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.legend import Legend
from geoglnet.torchgeo import BalancedRegionSampler, GlobalLocalDataset, GriddedRegionSampler, RandomRegionSampler, collate
from geoglnet.torchgeo.adapter import ImageRasters, LabelRasters
from tests.miniature import write_own

LEGEND = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)
KEYS = ("image", "mask", "patches", "patch_masks", "footprints")


def opened(folder: Path) -> GlobalLocalDataset:
    paths = [[str(folder / f"{name}_{number}.tif") for number in range(2)] for name in ("scene", "truth")]
    images = ImageRasters(paths[0], cache=False)
    labels = LabelRasters(paths[1], crs=images.crs, res=images.res, cache=False)
    return GlobalLocalDataset(
        images & labels, LEGEND, region=RegionConfig(64, 32, 32, 8, 8), sample=SampleConfig(64, 32, 2), augment=AugmentConfig()
    )


def samplers(dataset: GlobalLocalDataset, **shares: int) -> list[Any]:
    return [
        RandomRegionSampler(dataset, 64, length=6, generator=1, **shares),
        GriddedRegionSampler(dataset, 64, shuffle=True, generator=2, **shares),
        BalancedRegionSampler(dataset, 64, length=6, generator=3, **shares),
    ]


def share(folder: str, rank: int) -> list[list[list[Any]]]:
    """The samples of two epochs of one of two processes, by sampler."""
    dataset = opened(Path(folder))
    return [
        [[dataset[place][key].numpy() for key in KEYS] for _ in range(2) for place in sampler]
        for sampler in samplers(dataset, num_replicas=2, rank=rank)
    ]


@pytest.mark.slow
def test_two_workers_make_the_samples_that_one_process_makes(tmp_path: Path) -> None:
    dataset = opened(write_own(tmp_path))
    places = [place for sampler in samplers(dataset) for place in sampler]  # one loader for all: starting workers takes seconds
    alone, together = (
        list(DataLoader(dataset, 4, sampler=places, num_workers=workers, collate_fn=collate, multiprocessing_context=context))
        for workers, context in ((0, None), (2, "spawn"))
    )
    assert len(alone) == len(together) == -(-len(places) // 4)
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in (*KEYS, "overview_index", "transform"))


@pytest.mark.slow
def test_two_processes_make_the_epochs_that_one_makes(tmp_path: Path) -> None:
    dataset = opened(write_own(tmp_path))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        shares = pool.starmap(share, [(str(tmp_path), rank) for rank in range(2)])
    for number, sampler in enumerate(samplers(dataset)):
        expected = [[dataset[place][key].numpy() for key in KEYS] for _ in range(2) for place in sampler]
        dealt = [sample for step in zip(shares[0][number], shares[1][number], strict=True) for sample in step]
        assert len(dealt) == len(expected)  # even numbers, so that nothing is filled up
        for one, other in zip(dealt, expected, strict=True):
            assert all((a == b).all() for a, b in zip(one, other, strict=True))
