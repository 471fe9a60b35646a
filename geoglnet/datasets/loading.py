"""Loading: samples are prepared in other processes, batched and normalized; errors reach this process unchanged."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing
from torch.utils.data import DataLoader, Dataset, Sampler

from geoglnet.bands import Bands
from geoglnet.datasets.regions import RegionBatch, RegionSample, collate
from geoglnet.datasets.samplers import RegionDataset
from geoglnet.errors import GeoglnetError
from geoglnet.progress import Progress, SilentProgress


def worker_context(modules: Sequence[str]) -> BaseContext:
    """Choose how workers begin: a fork of this process would copy the locks of GDAL and OpenMP, so none is made of it.

    On Linux a server forks them that has done nothing but import; elsewhere each is a new process, which imports torch for
    seconds (no fork is safe on macOS, and Windows has none).

    Args:
        modules: that the server imports. The first call in a process decides.
    """
    context: BaseContext = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload(list(modules))
    return context


def _end_with_parent(_: int) -> None:
    """End this worker when the process that it works for is killed: torch watches the server that forked it, which lives on."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True, slots=True)
class _Careful(Dataset[RegionSample | GeoglnetError]):
    """Samples, or the errors of making them, as values: torch would wrap a worker's error in its traceback."""

    samples: RegionDataset

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> RegionSample | GeoglnetError:
        try:
            return self.samples[index]
        except GeoglnetError as error:
            return error


@dataclass(frozen=True, slots=True)
class _Load:
    """A batch as it leaves a worker: an error instead of it, or the damaged files that were skipped with it."""

    batch: RegionBatch | GeoglnetError
    skipped: tuple[str, ...] = ()

    def pin_memory(self) -> _Load:
        """Move the batch to memory that a GPU reads by itself; torch calls this by its name."""
        return self if isinstance(self.batch, GeoglnetError) else replace(self, batch=self.batch.pin_memory())


@dataclass(frozen=True, slots=True)
class _Collate:
    """Function that makes a normalized batch of samples, picklable for workers."""

    mean: Tensor
    std: Tensor

    def __call__(self, samples: Sequence[RegionSample | GeoglnetError]) -> _Load:
        whole = [sample for sample in samples if isinstance(sample, RegionSample)]
        failed = [sample for sample in samples if isinstance(sample, GeoglnetError)]
        if failed:  # one is enough: it ends the training
            return _Load(failed[0])
        return _Load(collate(whole).normalized(self.mean, self.std), tuple(name for s in whole for name in s.skipped))


@dataclass(frozen=True, slots=True)
class _Share(Sampler[int]):
    """Samples in order, dealt out to the processes that train together, so that they see what one alone would see."""

    samples: RegionDataset

    def __iter__(self) -> Iterator[int]:
        # Every process takes every n-th sample: together, a step of all of them sees what one large batch would.
        rank, count = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
        return iter(range(rank, len(self.samples), count))

    def __len__(self) -> int:
        return len(self.samples) // (distributed.get_world_size() if distributed.is_initialized() else 1)


class RegionLoader(DataLoader[Any]):
    """Batches of region samples; warns once about each damaged file that was skipped.

    Args:
        dataset: source of samples.
        batch_size: samples per batch, in each process where several train together.
        workers: number of processes that prepare samples; with 0 this process does.
        bands: mean and standard deviation to normalize with.
        progress: receives warnings.
    """

    def __init__(
        self,
        dataset: RegionDataset,
        batch_size: int,
        workers: int,
        bands: Bands,
        progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
    ) -> None:
        # Shaped to be broadcast over (n, C, h, w).
        self.mean, self.std = (torch.tensor(values).reshape(-1, 1, 1) for values in (bands.mean, bands.std))
        modules = sorted({type(scene).__module__ for scene in dataset.scenes})
        super().__init__(
            _Careful(dataset),
            batch_size=batch_size,
            sampler=_Share(dataset),
            num_workers=workers,
            multiprocessing_context=worker_context([__name__, *modules]) if workers else None,
            worker_init_fn=_end_with_parent,
            persistent_workers=workers > 0,
            collate_fn=_Collate(self.mean, self.std),
            pin_memory=torch.cuda.is_available(),  # else a copy to the GPU waits for itself
        )
        self.progress = progress
        self.skipped: dict[str, int] = {}

    def __iter__(self) -> Iterator[RegionBatch]:  # type: ignore[override]
        """Yield batches.

        Raises:
            GeoglnetError: a sample could not be made, in this process or in a worker.
        """
        for load in super().__iter__():
            for reason in load.skipped:
                self._warn(reason)
            if isinstance(load.batch, GeoglnetError):
                raise load.batch
            yield load.batch

    def _warn(self, reason: str) -> None:
        """Count a skipped file, and warn about it the first time."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        if self.skipped[reason] == 1:
            self.progress.warn(f"skipped: {reason}")
