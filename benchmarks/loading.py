"""Region samples per second with 0, 1 and 2 worker processes, from decoded scenes and from files.

    python benchmarks/loading.py CONFIG.toml --data DATA [--set sample.region_size=2448] [--batches 12]

Samples are drawn as `geoglnet train` draws them, without a network. CPU seconds are those of all processes together.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace
from pathlib import Path

from geoglnet.bands import Bands
from geoglnet.datasets.loading import RegionLoader
from geoglnet.datasets.reader import PairReader, open_dataset
from geoglnet.progress import SilentProgress
from geoglnet.training.train_config import TrainConfig, read_config

BANDS = Bands(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def measure(config: TrainConfig, folder: Path, workers: int, batches: int) -> tuple[float, float]:
    """Regions per wall second, once what was prepared beforehand is used up, and CPU seconds per region."""
    reader = PairReader(folder, config.legend, config.resolution_m, SilentProgress())
    dataset = open_dataset(config.train, reader, config.region, config.sample, config.augment)
    warm, size = 1 + 2 * workers, config.optim.batch_size  # each process prepares two batches ahead
    dataset.length = (batches + warm) * size
    started_cpu, iterator = cpu_seconds(), iter(RegionLoader(dataset, size, workers, BANDS))
    for _ in range(warm):
        next(iterator)
    started = time.perf_counter()
    for _ in iterator:
        pass
    wall = time.perf_counter() - started
    del iterator  # the processes end, and their time counts
    return batches * size / wall, (cpu_seconds() - started_cpu) / dataset.length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    overrides = {key: int(value) for key, value in (text.split("=") for text in args.set)}
    config = read_config(args.config, overrides)
    print(f"regions of {config.sample.region_size} px, batches of {config.optim.batch_size}")
    print(f"{'scenes':<10}{'workers':>8}{'regions/s':>11}{'CPU s per region':>18}")
    for name, cache_mb in (("decoded", config.sample.cache_mb), ("files", 0)):
        for workers in (0, 1, 2):
            changed = replace(config, sample=replace(config.sample, cache_mb=cache_mb))
            rate, cpu = measure(changed, args.data, workers, args.batches)
            print(f"{name:<10}{workers:>8}{rate:>11.2f}{cpu:>18.3f}", flush=True)


if __name__ == "__main__":
    main()
