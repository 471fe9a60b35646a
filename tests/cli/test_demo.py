"""``demo``: a scene and its truth in a folder, and the command that comes next works on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from geoglnet.cli.main import geoglnet
from geoglnet.types import Shape


@pytest.fixture(autouse=True)
def _small_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoglnet.synthetic.generator.DEFAULT_SHAPE", Shape(240, 240))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(geoglnet, [*map(str, arguments)])


def test_the_folder_is_made_and_holds_scene_and_truth(tmp_path: Path) -> None:
    ran = run("demo", tmp_path / "demo")
    assert ran.exit_code == 0, ran.output
    assert ran.stderr == f"{tmp_path / 'demo'}: scene.tif, truth.gpkg\n"
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"scene.tif", "truth.gpkg"}


def test_a_second_demo_does_not_overwrite_the_first(tmp_path: Path) -> None:
    run("demo", tmp_path)
    ran = run("demo", tmp_path)
    assert ran.exit_code == 1
    assert "exists; pass --overwrite" in ran.stderr
    assert run("demo", tmp_path, "--overwrite").exit_code == 0


def test_the_scene_can_be_described_and_segmented(tmp_path: Path, tiny_model_path: Path) -> None:
    run("demo", tmp_path)
    assert "scene" in run("info", tmp_path / "scene.tif").stdout
    ran = run(
        "predict",
        tmp_path / "scene.tif",
        "-o",
        tmp_path / "labels.tif",
        "--model",
        tiny_model_path,
        "--device",
        "cpu",
        "--batch",
        "9",
    )
    assert ran.exit_code == 0, ran.output
