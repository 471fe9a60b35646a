"""Which share of a job's tasks a process takes."""

from __future__ import annotations

import pytest

from geoglnet.cluster.shards import Shard
from geoglnet.errors import ConfigError


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
def test_shares_are_disjoint_and_together_everything(count: int) -> None:
    tasks = list(range(10))
    shares = [Shard(number, count).of(tasks) for number in range(1, count + 1)]
    assert sorted(task for share in shares for task in share) == tasks
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("3/64", {"SLURM_ARRAY_TASK_ID": "5"}, Shard(3, 64)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_COUNT": "8"}, Shard(2, 8)),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "9"}, Shard(1, 9)),
        ("auto/6", {"JOB_COMPLETION_INDEX": "5"}, Shard(6, 6)),
        ("auto", {"JOB_COMPLETION_INDEX": "5", "GEOGLNET_SHARDS": "12"}, Shard(6, 12)),
        ("auto", {"BATCH_TASK_INDEX": "1", "BATCH_TASK_COUNT": "2"}, Shard(2, 2)),
        ("auto/4", {"PBS_ARRAY_INDEX": "3"}, Shard(4, 4)),
        # Submitted again, alone: it does all that is missing.
        ("auto", {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "1"}, Shard(1, 1)),
    ],
)
def test_schedulers_number_a_process(text: str, environment: dict[str, str], expected: Shard) -> None:
    assert Shard.parsed(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment", "told"),
    [
        ("0/3", {}, "there is no shard 0/3; they are counted from 1/3"),
        ("4/3", {}, "there is no shard 4/3"),
        ("third", {}, "'third' is no shard; give one such as 3/64, auto, or auto/64"),
        ("auto/x", {}, "'auto/x' is no shard"),
        ("auto", {}, r"no scheduler has numbered this process \(none of AWS_BATCH_JOB_ARRAY_INDEX, .* is set\)"),
        (
            "auto",
            {"JOB_COMPLETION_INDEX": "5"},
            "Kubernetes numbers this process 5 and does not tell of how many; give",
        ),
        (
            "auto",  # --array=3,9: two of ten are submitted again
            {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_COUNT": "2"},
            "SLURM_ARRAY_TASK_ID=9 is beyond the 2 that Slurm counts, as when some are submitted again; give the count",
        ),
    ],
)
def test_no_share_is_guessed(text: str, environment: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Shard.parsed(text, environment)
