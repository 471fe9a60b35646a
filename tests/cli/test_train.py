"""``train``: settings from the file, overrides from the command line, and what stopping it looks like."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from geoglnet.cli.main import geoglnet
from geoglnet.training.train_config import read_config

CONFIG = """
name = "tiny"
resolution_m = 0.5
[legend]
classes = [{ name = "ground", color = [0, 0, 0] }, { name = "building", color = [255, 0, 0] }]
[model]
backbone = "resnet18"
[[train]]
images = "*.tif"
polygons = "*.geojson"
[optim]
global_steps = 3
"""
SCORES = {"scenes": {}, "total": {"ground": 0.5, "building": 0.25, "mean_iou": 0.25}, "conventions": {"mean_iou": 0.25}}


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


def run_train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(geoglnet, ["train", *map(str, arguments)])


def test_overrides_win_over_the_file(config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def fit(*args: Any, **kwargs: Any) -> SimpleNamespace:
        calls.append((*args, kwargs))
        return SimpleNamespace(metrics=SCORES)

    monkeypatch.setattr("geoglnet.training.fit.fit", fit)
    checkpoint = tmp_path / "m.safetensors"
    changes = ("--set", "optim.global_steps=7", "--set", "model.backbone=resnet34")
    ran = run_train(config_path, "--data", tmp_path, "-o", checkpoint, *changes)
    assert (ran.exit_code, ran.stderr) == (0, f"checkpoint {checkpoint}: mean IoU 0.250 on the held-out scenes\n")
    assert "0.250" in ran.stdout.splitlines()[1]
    ((settings, folder, path, options),) = calls
    assert (settings.optim.global_steps, settings.model.backbone) == (7, "resnet34")
    assert (folder, path, options["overwrite"]) == (tmp_path, checkpoint, False)


def test_lightnings_way_of_stopping_is_a_canceled_run(config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise SystemExit(1)

    monkeypatch.setattr("geoglnet.training.fit.savepoint_path", stopped)
    ran = run_train(config_path, "-o", "m.safetensors")
    assert ran.exit_code == 130
    assert ran.stderr == "Canceled; no half-written file is left\n"


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


DEEP = "[" * 20_000 + "]" * 20_000


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("optim=5", r"optim = 5 must be a table: write [optim]"),
        ("train=[5]", "train = [5] must be a list of tables: write [[train]]"),
        ("train=5", "train = 5 must be a list of tables"),
        ("train={images='a'}", "must be a list of tables"),
        ("train=[]", "no [[train]] source"),
        ("train=[{kind=[1]}]", "kind = [1] must be text"),
        ("train=[{images=3, labels='b'}]", "images = 3 must be text"),
        ("train=[{images='a', labels='b', weight=nan}]", "weight = nan must be a finite number"),
        ("train=[{images='a', labels='b', values={1=2}}]", "values.1 = 2 must be text"),
        ("train=[{images='a', labels='b', ignore=[[]]}]", "ignore[0] = [] must be"),
        ("model=5", "model = 5 must be a table"),
        ("model.architecture=[1]", "architecture = [1] must be text"),
        ("model.pyramid_channels=1e3", "pyramid_channels = 1000.0 must be a whole number"),
        ("legend=5", "5 is not a table of a legend"),
        ("legend.classes=[1, 2]", "1 is not a table of a class"),
        ("legend.backgruond=0", "unknown key 'backgruond' of a legend; did you mean 'background'?"),
        ("name=7", "name = 7 must be text"),
        ("resolution_m='1'", "resolution_m = '1' must be a number"),
        ("resolution_m=true", "resolution_m = True must be a number"),
        ("resolution_range_m=[1]", "must be a list of 2"),
        ("optim.seed=-1", "seed = -1 must be at least 0"),
        ("optim.workers=-1", "workers = -1 must be at least 0"),
        ("optim.recipe=[]", "optim.recipe = [] must be text"),
        ("optim.precision=[1]", "precision = [1] is not one of auto, 32-true, bf16-mixed"),
        ("optim.gamma=inf", "gamma = inf must be a finite number"),
        ("optim.global_steps=0x" + "f" * 6000, "global_steps = a number of 24000 bits is too large"),
        ("augment.scale_max=1e9", "from 1/64 to 64"),
        ("sample.region_size=1000000000", "sample.region_size 1000000000 must be at most"),
        ("data={license=" + "[" * 40 + "]" * 40 + "}", "is nested more than 16 deep"),
        ("data={license=0x" + "f" * 6000 + "}", "too large a number"),
        ("a.b.c.d=1", "unknown key 'a.b.c.d'"),
        ("name=" + DEEP, "name = "),
    ],
)
def test_settings_of_the_wrong_kind_are_said_in_one_line(config_path: Path, setting: str, words: str) -> None:
    ran = run_train(config_path, "-o", config_path.with_suffix(".safetensors"), "--set", setting)
    assert ran.exit_code == 1, ran.exception
    assert len(ran.stderr.splitlines()) == 1
    assert len(ran.stderr) < 500
    assert words in ran.stderr


@pytest.mark.parametrize("text", [f"name = {DEEP}", "name = " + "9" * 5000, "\xff", "name = 'a"])
def test_a_file_that_is_no_toml_is_said_in_one_line(config_path: Path, text: str) -> None:
    config_path.write_text(text, encoding="latin-1")
    ran = run_train(config_path, "-o", config_path.with_suffix(".safetensors"))
    assert (ran.exit_code, len(ran.stderr.splitlines())) == (1, 1)
    assert "is not TOML" in ran.stderr


def test_a_date_in_the_data_becomes_text_that_a_model_file_can_keep(config_path: Path) -> None:
    data = read_config(config_path, {"data.license": date(2024, 1, 2)}).data
    assert json.dumps(data) == '{"license": "2024-01-02"}'
