"""``train``: settings from the file, overrides from the command line, and what stopping it looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from geoglnet.cli.main import geoglnet

CONFIG = """
name = "tiny"
resolution_m = 0.5
[legend]
classes = [{ name = "ground", colour = [0, 0, 0] }, { name = "building", colour = [255, 0, 0] }]
[model]
backbone = "resnet18"
[[train]]
images = "*.tif"
polygons = "*.geojson"
[optim]
global_steps = 3
"""


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


def run_train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(geoglnet, ["train", *map(str, arguments)])


def test_overrides_win_over_the_file(config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr("geoglnet.training.fit.fit", lambda *args, **kwargs: calls.append((*args, kwargs)))
    checkpoint = tmp_path / "m.safetensors"
    changes = ("--set", "optim.global_steps=7", "--set", "model.backbone=resnet34")
    ran = run_train(config_path, "--data", tmp_path, "-o", checkpoint, *changes)
    assert (ran.exit_code, ran.stderr) == (0, f"checkpoint {checkpoint}\n")
    ((settings, folder, path, options),) = calls
    assert (settings.optim.global_steps, settings.model.backbone) == (7, "resnet34")
    assert (folder, path, options["overwrite"]) == (tmp_path, checkpoint, False)


def test_lightnings_way_of_stopping_is_a_cancelled_run(config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise SystemExit(1)

    monkeypatch.setattr("geoglnet.training.fit.fit", stopped)
    ran = run_train(config_path, "-o", "m.safetensors")
    assert ran.exit_code == 130
    assert ran.stderr == "Cancelled; no half-written file is left\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["missing.toml", "-o", "m.safetensors"], 1, "no configuration file missing.toml"),
        (["CONFIG"], 2, "Missing option '-o' / '--checkpoint'"),
        (["CONFIG", "-o", "m.safetensors", "--set", "optim.global_steps"], 2, "is not KEY=VALUE"),
        (["CONFIG", "-o", "m.safetensors", "--set", "optim.global_step=3"], 1, "did you mean 'global_steps'"),
        (["CONFIG", "-o", "m.safetensors"], 1, "no file matches"),
        (["CONFIG", "-o", "nowhere/m.safetensors"], 1, "folder nowhere does not exist"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    config_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], exit_code: int, words: str
) -> None:
    monkeypatch.chdir(config_path.parent)
    changed = [config_path if argument == "CONFIG" else argument for argument in arguments]
    ran = run_train(*changed, "--set", 'optim.backbone_weights=""') if exit_code == 1 else run_train(*changed)
    assert ran.exit_code == exit_code
    assert words in ran.stderr
    assert len(ran.stderr.splitlines()) == 1 or exit_code == 2
