"""Shares of a job's tasks: which one a process takes, by number or by what a scheduler tells it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from geoglnet.errors import ConfigError

ItemT = TypeVar("ItemT")
COUNT_VARIABLE = "GEOGLNET_SHARDS"
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True, slots=True)
class _Scheduler:
    """How a scheduler numbers the processes of an array: variables of the number, of the first number, and of their count."""

    name: str
    index: str
    first: str | None = None
    count: str | None = None
    first_number: int = 0


# Those that a process inside another one's job may see stand last.
SCHEDULERS = (
    _Scheduler("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", count="AWS_BATCH_JOB_ARRAY_SIZE"),
    _Scheduler("Google Cloud Batch", "BATCH_TASK_INDEX", count="BATCH_TASK_COUNT"),
    _Scheduler("Kubernetes", "JOB_COMPLETION_INDEX"),
    _Scheduler("Slurm", "SLURM_ARRAY_TASK_ID", first="SLURM_ARRAY_TASK_MIN", count="SLURM_ARRAY_TASK_COUNT"),
    _Scheduler("PBS", "PBS_ARRAY_INDEX"),
)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several shares, numbered from 1.

    >>> Shard(2, 3).of(["a", "b", "c", "d", "e"])
    ('b', 'e')

    Args:
        number: which.
        count: of how many.

    Raises:
        ConfigError: there is no such share.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError(f"there is no shard {self.number}/{self.count}; they are counted from 1/{self.count}")

    def of(self, items: Sequence[ItemT]) -> tuple[ItemT, ...]:
        """Choose the share: every n-th item, so that neighbors, which take equally long, are spread."""
        return tuple(items[self.number - 1 :: self.count])

    @classmethod
    def parsed(cls, text: str, environment: Mapping[str, str] = os.environ) -> Shard:
        """Read ``3/64``, ``auto``, or ``auto/64`` where the scheduler does not tell how many there are.

        Args:
            text: as it was written.
            environment: variables of the process.

        Raises:
            ConfigError: it is none of these, or no scheduler has numbered this process.
        """
        match = _SHARD.fullmatch(text)
        if match:
            return cls(int(match[1]), int(match[2]))
        word, _, count = text.partition("/")
        if word != "auto" or (count and not count.isdecimal()):
            raise ConfigError(f"{text!r} is no shard; give one such as 3/64, auto, or auto/64")
        return _by_scheduler(environment, count)


def _by_scheduler(environment: Mapping[str, str], count: str) -> Shard:
    for scheduler in SCHEDULERS:
        if (index := environment.get(scheduler.index, "")).isdecimal():
            break
    else:
        names = ", ".join(scheduler.index for scheduler in SCHEDULERS)
        raise ConfigError(f"no scheduler has numbered this process (none of {names} is set); give a shard such as 3/64")
    first = environment.get(scheduler.first or "", "0")
    count = count or environment.get(COUNT_VARIABLE, "") or environment.get(scheduler.count or "", "")
    if not (count.isdecimal() and first.isdecimal()):
        raise ConfigError(
            f"{scheduler.name} numbers this process {index} and does not tell of how many; give auto/64, or set "
            f"{COUNT_VARIABLE}=64"
        )
    number = int(index) - int(first) + 1
    if number > int(count):
        raise ConfigError(
            f"{scheduler.index}={index} is beyond the {count} that {scheduler.name} counts, as when some are submitted again; "
            f"give the count of the first time, such as auto/{int(index) + 1}"
        )
    return Shard(number, int(count))
