"""What a model brings along for its predictions: the temperature of its logits, and settings of polygons."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner

import geoglnet
from geoglnet import VectorConfig
from geoglnet.cli.main import geoglnet as program
from geoglnet.errors import CheckpointError, ConfigError, SceneError
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.manifest import Manifest, read_manifest
from tests.rasters import noise, write_raster
from tests.stubs import CPU

POLYGONS = {"simplify": "1.5px", "min_area_m2": 10, "min_confidence": 0.5}


@pytest.fixture(scope="module")
def speckled_path(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, changed to find many small buildings in noise."""
    network, manifest = load_checkpoint(tiny_model_path)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 4 - 2
    with torch.inference_mode():
        network.f_agg.weight *= 400
        logits = network.segment(image, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), network.see(image)).s_agg[0]
        network.f_agg.bias[1] -= (logits[1] - logits[0]).median()
    path = tmp_path_factory.mktemp("models") / "speckled.safetensors"
    save_checkpoint(path, network, replace(manifest, name="speckled"))
    return path


@pytest.fixture(scope="module")
def set_model_path(speckled_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with settings of polygons."""
    return changed(speckled_path, tmp_path_factory.mktemp("models") / "set.safetensors", polygons=POLYGONS)


def changed(source: Path, path: Path, **changes: Any) -> Path:
    network, manifest = load_checkpoint(source)
    save_checkpoint(path, network, replace(manifest, **changes))
    return path


def geometries(path: Path) -> list[bytes]:
    return sorted(geopandas.read_file(path, layer=path.stem).geometry.to_wkb())


def test_a_temperature_changes_confidence_and_no_label(speckled_path: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", noise(3, 32, 32), pixel_size=1.0)  # one patch: nothing is blended
    cool = changed(speckled_path, tmp_path / "cool.safetensors", temperature=0.25)
    found = {}
    for name, model in (("plain", speckled_path), ("cool", cool)):
        paths = {"labels_path": tmp_path / f"{name}.tif", "probabilities_path": tmp_path / f"{name}_p.tif"}
        geoglnet.predict(scene, **paths, model=model, config=CPU)
        with rasterio.open(paths["labels_path"]) as labels, rasterio.open(paths["probabilities_path"]) as probabilities:
            found[name] = labels.read(1), probabilities.read() / 254
    assert (found["plain"][0] == found["cool"][0]).all()
    sharper = found["plain"][1] ** 4
    expected = sharper / sharper.sum(axis=0)
    assert np.abs(expected - found["cool"][1]).max() < 0.02  # stored in steps of 1/254, of which the fourth power makes four
    assert np.abs(found["plain"][1] - found["cool"][1]).max() > 0.05


def test_polygons_are_made_by_the_models_settings(set_model_path: Path, scene_path: Path, tmp_path: Path) -> None:
    done = geoglnet.predict(scene_path, vector_path=tmp_path / "own.gpkg", model=set_model_path, config=CPU)
    assert "polygons by the model's settings (speckled): simplify 1.5px, min_area_m2 10, min_confidence 0.5" in done.rules
    config = VectorConfig(**POLYGONS)
    geoglnet.predict(scene_path, vector_path=tmp_path / "same.gpkg", model=set_model_path, config=CPU, vector_config=config)
    assert geometries(tmp_path / "own.gpkg") == geometries(tmp_path / "same.gpkg")
    assert done.polygons().area_m2.min() >= 10


def test_a_setting_that_is_given_replaces_the_models_own(set_model_path: Path, scene_path: Path, tmp_path: Path) -> None:
    def predict(name: str, settings: Any) -> list[bytes]:
        path = tmp_path / f"{name}.gpkg"
        geoglnet.predict(scene_path, vector_path=path, model=set_model_path, config=CPU, vector_config=settings)
        return geometries(path)

    assert predict("some", {"min_area_m2": 30}) == predict("all", VectorConfig(**POLYGONS | {"min_area_m2": 30}))
    assert predict("raw", VectorConfig()) == predict("none", {"simplify": None, "min_area_m2": 0.0, "min_confidence": 0.0})
    with pytest.raises(ConfigError, match="unknown setting of polygons 'min_aera_m2'; did you mean 'min_area_m2'"):
        predict("typo", {"min_aera_m2": 30})


def test_options_replace_the_models_own_settings(set_model_path: Path, scene_path: Path, tmp_path: Path) -> None:
    def run(name: str, *options: str) -> list[bytes]:
        words = [str(scene_path), "--vector", str(tmp_path / f"{name}.gpkg"), "--model", str(set_model_path), *options]
        done = CliRunner().invoke(program, ["predict", *words, "--device", "cpu", "--progress", "json"])
        assert done.exit_code == 0, done.output
        logs = [event["message"] for event in map(json.loads, done.stdout.splitlines()) if event["event"] == "log"]
        assert any("the model's settings" in log for log in logs) == ("--raw-polygons" not in options)
        return geometries(tmp_path / f"{name}.gpkg")

    own, raw = run("own"), run("raw", "--raw-polygons")
    assert len(raw) > len(own)
    assert len(own) < len(run("small", "--min-area", "0")) <= len(raw)
    assert len(run("rawlarge", "--raw-polygons", "--min-area", "10")) >= len(own)


def test_limits_in_meters_are_left_out_where_meters_are_unknown(set_model_path: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", noise(3, 64, 64), crs=None)
    done = geoglnet.predict(scene, vector_path=tmp_path / "out.gpkg", model=set_model_path, config=CPU)
    assert "polygons by the model's settings (speckled): simplify 1.5px, min_confidence 0.5" in done.rules
    with pytest.raises(SceneError, match="min_area_m2"):
        geoglnet.predict(
            scene, vector_path=tmp_path / "b.gpkg", model=set_model_path, config=CPU, vector_config={"min_area_m2": 3}
        )


def test_a_resumed_run_keeps_the_settings(set_model_path: Path, scene_path: Path, tmp_path: Path) -> None:
    from geoglnet.prediction.run import begin, take_over

    outputs = {"vector": tmp_path / "parts.gpkg"}
    with begin(scene_path, outputs, model=str(set_model_path), config=CPU) as run:
        run.compute([next(iter(run.missing()))])
        folder = run.folder
    with take_over(folder) as run:
        run.compute()
        run.finish()
    geoglnet.predict(scene_path, vector_path=tmp_path / "whole.gpkg", model=set_model_path, config=CPU)
    assert geometries(tmp_path / "parts.gpkg") == geometries(tmp_path / "whole.gpkg")


def test_models_without_such_settings_are_files_that_older_versions_read(set_model_path: Path, speckled_path: Path) -> None:
    assert read_manifest(speckled_path).format_version == 1
    assert not {"temperature", "polygons"} & read_manifest(speckled_path).to_dict().keys()
    manifest = read_manifest(set_model_path)
    assert (manifest.format_version, manifest.polygons) == (3, POLYGONS)
    assert geoglnet.load_model(set_model_path).report.facts["polygons"] == "simplify 1.5px, min_area_m2 10, min_confidence 0.5"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, r"temperature = 0.0 must be from 0\.01 to 100"),
        ({"temperature": float("nan")}, "temperature = nan must be"),
        ({"polygons": {"statistics_path": "/etc/passwd"}}, "unknown setting of polygons 'statistics_path'"),
        ({"polygons": {"simplify": ["1px"]}}, r"simplify = \['1px'\] is no setting of polygons"),
    ],
)
def test_settings_that_no_model_can_have_are_refused(speckled_path: Path, changes: dict[str, Any], message: str) -> None:
    plain = read_manifest(speckled_path).to_dict() | changes
    with pytest.raises(CheckpointError, match=message):
        Manifest.from_dict(plain)


def test_a_models_setting_that_has_no_meaning_is_the_models_fault(
    speckled_path: Path, scene_path: Path, tmp_path: Path
) -> None:
    model = changed(speckled_path, tmp_path / "wrong.safetensors", polygons={"simplify": "1.5 miles"})
    with pytest.raises(CheckpointError, match=r"settings of polygons of speckled cannot be used: '1.5 miles' must be"):
        geoglnet.predict(scene_path, vector_path=tmp_path / "out.gpkg", model=model, config=CPU)


def test_a_least_confidence_needs_a_confidence_raster(scene_path: Path, speckled_path: Path, tmp_path: Path) -> None:
    labels, confidence = tmp_path / "labels.tif", tmp_path / "confidence.tif"
    geoglnet.predict(scene_path, labels, confidence_path=confidence, model=speckled_path, config=CPU)
    config = VectorConfig(min_confidence=0.55)
    with pytest.raises(ConfigError, match=r"min_confidence = 0.55 needs the labels' confidence raster"):
        geoglnet.vectorize(labels, tmp_path / "out.gpkg", config=config)
    everything = geoglnet.vectorize(labels, tmp_path / "all.gpkg", confidence_path=confidence).polygons()
    sure = geoglnet.vectorize(labels, tmp_path / "sure.gpkg", confidence_path=confidence, config=config).polygons()
    assert 0 < len(sure) < len(everything)
    assert len(sure) == (everything.confidence >= 0.55).sum()
    with pytest.raises(ConfigError, match=r"min_confidence = 1\.5 must be from 0 to 1"):
        VectorConfig(min_confidence=1.5)
