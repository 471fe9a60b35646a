"""How a model's wishes about values reach the scene that is opened for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rasters import noise, write_raster
from stubs import SMALL, manifest_of

from geoglnet.config import ScalingRule
from geoglnet.models.manifest import Manifest
from geoglnet.prediction.config import PredictConfig
from geoglnet.prediction.opening import Source
from geoglnet.progress import SilentProgress
from geoglnet.raster.scaling import Scaling
from geoglnet.raster.scene import RasterScene


@pytest.fixture
def dark_path(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "dark.tif", noise(3, 64, 64) // 4)


def opened(path: Path, manifest: Manifest, **config: object) -> RasterScene:
    with Source.of(path).open_for(manifest, PredictConfig(**config), SilentProgress()) as scene:  # type: ignore[arg-type]
        return scene


def test_a_model_that_was_trained_on_stretched_values_sees_them_stretched(dark_path: Path) -> None:
    plain = manifest_of(SMALL)
    stretching = Manifest.from_dict(replace(plain, scaling=ScalingRule.STRETCH).to_dict())
    assert opened(dark_path, plain).scaling.is_identity
    assert opened(dark_path, stretching).scaling.high <= 63


def test_values_given_by_the_caller_win_over_the_models_rule(dark_path: Path) -> None:
    stretching = replace(manifest_of(SMALL), scaling=ScalingRule.STRETCH)
    assert opened(dark_path, stretching, scaling=Scaling(10, 50)).scaling == Scaling(10, 50)
