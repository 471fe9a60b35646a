"""Prediction and training on a CUDA device that is not there: no two devices meet, and the host waits for nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_no_mode_mixes_devices_or_waits_for_the_gpu_but_once_per_region_or_step() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.fake_cuda"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(rows) == 21
    for row in rows:
        if row["mode"] in ("a patch that waits", "a step that waits"):  # what a wait looks like
            assert any(place.endswith(" number") for place in row["waits"])
            continue
        # By values patches are chosen; both ways, the host needs the places of the patches of a step, and whose they are.
        regions, steps = row.get("regions", 0), row.get("steps", 0)
        allowed = {"half effort": regions, "coarse to fine": regions, "train both ways": 2 * steps}
        assert sum(row["waits"].values()) <= allowed.get(row["mode"], 0), row
