"""What a run amounts to is said, and checked, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import geoglnet
from geoglnet.cli.main import geoglnet as program
from geoglnet.errors import ConfigError, OutputExistsError
from geoglnet.prediction.run import begin
from geoglnet.progress import RecordedProgress
from tests.rasters import noise, write_raster
from tests.stubs import CPU


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", noise(3, 96, 128), pixel_size=1.0)


def test_an_estimate_counts_what_a_run_does_and_writes_nothing(scene: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    names = {"labels_path": tmp_path / "labels.tif", "confidence_path": tmp_path / "confidence.tif"}
    steps, rules = RecordedProgress(), RecordedProgress()
    expected = geoglnet.estimate(scene, **names, model=tiny_model_path, config=CPU, progress=rules)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]
    done = geoglnet.predict(scene, **names, model=tiny_model_path, config=CPU, progress=steps)
    assert expected.output_bytes == 2 * 96 * 128 == sum(done.labels().size for _ in names)
    assert expected.rule in steps.messages("log")
    assert set(rules.messages("log")) <= set(steps.messages("log"))


def test_a_dry_run_is_refused_where_the_run_would_be(scene: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lie outside of"):
        geoglnet.estimate(scene, tmp_path / "l.tif", model=tiny_model_path, config=geoglnet.PredictConfig(bounds=(0, 0, 9, 9)))
    (tmp_path / "there.tif").write_bytes(b"somebody's")
    with pytest.raises(OutputExistsError):
        geoglnet.estimate(scene, tmp_path / "there.tif", model=tiny_model_path)
    geoglnet.estimate(scene, tmp_path / "there.tif", model=tiny_model_path, config=CPU, overwrite=True)
    assert (tmp_path / "there.tif").read_bytes() == b"somebody's"


def test_a_dry_run_leaves_a_run_that_was_stopped_as_it_is(scene: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    with begin(scene, {"labels": tmp_path / "labels.tif"}, model=str(tiny_model_path), config=CPU) as run:
        run.compute([next(iter(run.missing()))])
        folder = run.folder
    words = ["predict", str(scene), "-o", str(tmp_path / "labels.tif"), "--model", str(tiny_model_path), "--device", "cpu"]
    ran = CliRunner().invoke(program, [*words, "--overwrite", "--dry-run", "--progress", "json"])
    assert ran.exit_code == 0, ran.output
    done = json.loads(ran.stdout.splitlines()[-1])
    assert done["message"].startswith("nothing written: ")
    assert done["outputs"]["patches"] > 1
    assert len(list(folder.rglob("*.tif"))) == 1
    assert not (tmp_path / "labels.tif").exists()
