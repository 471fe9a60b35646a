"""The job files in examples/cluster say what the program understands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from geoglnet.cli.main import geoglnet
from geoglnet.cluster.shards import COUNT_VARIABLE, Shard

FILES = Path(__file__).parents[2] / "examples" / "cluster"


def parsed(words: list[str]) -> dict[str, object]:
    """What the program makes of a command; wrong options are refused."""
    assert words[0] == "geoglnet"
    group = click.Context(geoglnet, **geoglnet.context_settings)  # without it, click would remember a help without -h
    command = geoglnet.get_command(group, words[1])
    assert command is not None
    return command.make_context(words[1], words[2:], parent=group).params


def test_kubernetes_numbers_each_pod_as_many_as_there_are() -> None:
    job = yaml.safe_load((FILES / "kubernetes.yaml").read_text())
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert parsed(container["command"])["shard"] == "auto"
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert int(variables[COUNT_VARIABLE]) == spec["completions"]
    shards = [Shard.parsed("auto", {**variables, "JOB_COMPLETION_INDEX": str(n)}) for n in range(spec["completions"])]
    assert {shard.number for shard in shards} == {*range(1, 17)}
    (rule,) = (rule for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "FailIndex")
    assert rule["onExitCodes"]["values"] == [4]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert "backoffLimitPerIndex" in spec, "FailIndex is allowed with it only"
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "as a podFailurePolicy asks for"


def test_aws_batch_gives_up_what_cannot_be_computed_and_tries_preempted_jobs_again() -> None:
    job = json.loads((FILES / "aws-batch.json").read_text())
    assert parsed(job["containerOverrides"]["command"])["shard"] == "auto"
    first, second, _ = job["retryStrategy"]["evaluateOnExit"]
    assert (first["onExitCode"], first["action"], second["action"]) == ("4", "EXIT", "RETRY")
    size = job["arrayProperties"]["size"]
    environment = {"AWS_BATCH_JOB_ARRAY_INDEX": str(size - 1), "AWS_BATCH_JOB_ARRAY_SIZE": str(size)}
    assert Shard.parsed("auto", environment) == Shard(size, size)


@pytest.mark.parametrize("name", ["slurm.sbatch", "slurm-ray.sbatch"])
def test_slurm_scripts_are_scripts_whose_commands_are_understood(name: str) -> None:
    script = FILES / name
    if bash := shutil.which("bash"):
        subprocess.run([bash, "-n", str(script)], check=True)
    text = script.read_text().replace("\\\n", " ")
    commands = re.findall(r"^(?:exec| *srun[^\n]*?--)? *(geoglnet [^\n]*)$", text, flags=re.MULTILINE)
    assert commands
    for command in commands:
        words = command.replace('"$1"', "one").replace('"$2"', "two.tif").split()
        assert parsed(words)["resume" if "predict" in words else "shard"]


def test_the_slurm_script_starts_a_worker_with_the_number_of_its_place(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    program = tmp_path / "geoglnet"
    program.write_text('#!/bin/sh\necho "$OMP_NUM_THREADS" "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "3"}
    ran = subprocess.run(
        [bash, str(FILES / "slurm.sbatch"), "/shared/a run"], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "3 work /shared/a run --shard auto --progress none\n"
