"""Outputs without a name of their own, such as ``.`` or ``/``: one line before any work, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from geoglnet.cli.main import geoglnet

CONFIG = """
name = "toy"
resolution_m = 1.0
legend.classes = [{name = "ground", color = [1, 1, 1]}, {name = "roof", color = [255, 0, 0]}]
model = {backbone = "mobilenet_v3_small", pyramid_channels = 4, smooth_channels = 2}
[[train]]
images = "*.tif"
labels = "*.tif"
"""
PREDICT = ["predict", "{scene}", "--model", "{model}", "--device", "cpu", "--batch", "9"]


@pytest.mark.parametrize("name", [".", "..", "/", ""])
@pytest.mark.parametrize(
    "words",
    [
        [*PREDICT, "-o"],
        [*PREDICT, "-o", "labels.tif", "--confidence"],
        [*PREDICT, "-o", "labels.tif", "--vector"],
        ["vectorize", "{scene}"],
        ["vectorize", "{scene}", "--style", "qml"],
        ["train", "toy.toml", "-o"],
        ["import-official", "{model}", "-o"],
        ["export", "{model}", "-o"],
    ],
    ids=" ".join,
)
def test_an_output_without_a_name_is_refused(
    words: list[str], name: str, scene_path: Path, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    Path("toy.toml").write_text(CONFIG)
    filled = [word.format(scene=scene_path, model=tiny_model_path) for word in words]
    ran = CliRunner().invoke(geoglnet, [*filled, name])
    assert (ran.exit_code, ran.stderr) == (1, f"Error: {name or '.'} is a folder; give a file name\n")
    assert [path.name for path in place.iterdir()] == ["toy.toml"]


def test_a_report_that_cannot_be_written_is_refused_before_the_scoring(tmp_path: Path, tiny_model_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(CONFIG)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "scores.csv").touch()
    words = ["evaluate", str(tiny_model_path), str(tmp_path / "toy.toml"), "-o", str(tmp_path / "old")]
    ran = CliRunner().invoke(geoglnet, words)
    assert ran.exit_code == 1
    assert "scores.csv exists; pass --overwrite" in ran.stderr  # not that the configuration has no validation scenes
