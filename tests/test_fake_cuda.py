"""Prediction on a CUDA device that is not there: no two devices meet, and the host waits for nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_no_mode_of_prediction_mixes_devices_or_waits_for_the_gpu_but_once_per_region() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.fake_cuda"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(rows) == 14
    for row in rows:
        if row["mode"] == "a patch that waits":  # what a wait looks like
            assert any(place.endswith(" number") for place in row["waits"])
            continue
        is_chosen_by_values = row["mode"] in ("half effort", "coarse to fine")
        assert sum(row["waits"].values()) <= (row["regions"] if is_chosen_by_values else 0), row
