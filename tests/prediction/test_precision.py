"""Which precision ``auto`` comes to, and that runs do not mix two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import geoglnet
from geoglnet.errors import OutputError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import Manifest
from geoglnet.models.shipped import model_path
from geoglnet.prediction import device as device_module
from geoglnet.prediction.device import choose_precision
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.run import begin
from tests.rasters import noise, write_raster

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def measured() -> Manifest:
    return load_checkpoint(model_path("buildings"))[1]


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_has_amx", lambda: True)


@pytest.mark.usefixtures("amx")
def test_auto_is_bfloat16_for_a_model_that_was_measured_in_it_on_a_processor_that_has_it(measured: Manifest) -> None:
    assert choose_precision("auto", measured, CPU) == "bfloat16"
    assert choose_precision("float32", measured, CPU) == "float32"
    assert choose_precision("auto", measured, torch.device("cuda")) == "float32"
    for metrics in ({}, {"precisions": {}}, {"precisions": "bfloat16"}, {"precisions": None}):
        assert choose_precision("auto", replace(measured, metrics=metrics), CPU) == "float32"


def test_auto_is_float32_on_other_processors(measured: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert choose_precision("auto", measured, CPU) == "float32"
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert choose_precision("auto", measured, CPU) == "float32"


@pytest.mark.usefixtures("amx")
def test_a_run_is_not_resumed_in_another_precision(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", noise(3, 96, 96), pixel_size=0.2)
    config, paths = PredictConfig(device="cpu"), {"labels": tmp_path / "labels.tif"}
    with begin(scene, paths, model="buildings", config=config) as run:
        run.compute()
        assert run.workspace.journal.facts["precision"] == "bfloat16"
    with pytest.raises(OutputError, match="precision: bfloat16, now float32"):
        geoglnet.predict(scene, paths["labels"], model="buildings", config=replace(config, precision="float32"), resume=True)
