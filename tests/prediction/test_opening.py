"""How a model's wishes about values reach the scene that is opened for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from affine import Affine

from geoglnet.bands import Bands
from geoglnet.config import ScalingRule
from geoglnet.errors import ResolutionError
from geoglnet.models.manifest import Manifest, read_manifest
from geoglnet.models.shipped import model_path
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.source import Source
from geoglnet.progress import RecordedProgress, SilentProgress
from geoglnet.raster.scaling import Scaling
from geoglnet.raster.scene import RasterScene
from tests.rasters import noise, write_raster
from tests.stubs import SMALL, manifest_of


@pytest.fixture
def dark_path(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "dark.tif", noise(3, 64, 64) // 4)


def opened(path: Path, manifest: Manifest, **config: object) -> RasterScene:
    with Source.of(path).open_for(manifest, PredictConfig(**config), SilentProgress()) as scene:  # type: ignore[arg-type]
        return scene


def test_a_model_that_was_trained_on_stretched_values_sees_them_stretched(dark_path: Path) -> None:
    plain = manifest_of(SMALL)
    stretching = Manifest.from_dict(replace(plain, bands=Bands(scaling=ScalingRule.STRETCH)).to_dict())
    assert opened(dark_path, plain).scaling.is_identity
    assert opened(dark_path, stretching).scaling.high <= 63


def test_values_given_by_the_caller_win_over_the_models_rule(dark_path: Path) -> None:
    stretching = replace(manifest_of(SMALL), bands=Bands(scaling=ScalingRule.STRETCH))
    assert opened(dark_path, stretching, scaling=Scaling(10, 50)).scaling == Scaling(10, 50)


@pytest.mark.parametrize(
    ("crs", "size", "config", "said"),
    [
        (
            "EPSG:32645",
            10.0,
            {},
            r"has 10 m pixels, 50 times the 0\.2 m .*use model='landcover-sentinel2', which is made .*resolution_m=10\.0 ",
        ),
        ("EPSG:32645", 1.0, {}, r"has 1 m pixels, 5 times .*use model='landcover', which is made"),
        ("EPSG:32645", 30.0, {}, r"has 30 m pixels, 150 times .*no shipped model is made .*resolution_m=30\.0 "),
        ("EPSG:4326", 1.0, {}, r"has 111 km pixels, .*no shipped model is made"),
        (None, 1.0, {"assumed_pixel_size_m": 10.0}, r"has 10 m pixels, 50 times .*model='landcover-sentinel2'"),
        ("EPSG:32645", 10.0, {"resolution_m": 1.0}, r"has 10 m pixels, 10 times the 1 m "),
    ],
)
def test_a_scene_much_coarser_than_the_model_is_refused_with_the_model_that_fits(
    tmp_path: Path, crs: str | None, size: float, config: dict[str, float], said: str
) -> None:
    scene = noise(3, 32, 32).astype("uint16") * 40
    scene[:, :4] = 60000  # no other line is said about a scene that is refused
    x, y = (10, 20) if crs == "EPSG:4326" else (500_000, 3_000_000)
    manifest = read_manifest(model_path("buildings"))
    path = write_raster(tmp_path / "coarse.tif", scene, crs=crs, transform=Affine(size, 0, x, 0, -size, y))
    progress = RecordedProgress()
    with pytest.raises(ResolutionError, match=said) as raised:
        Source.of(path).open_for(manifest, PredictConfig(**config), progress)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
    assert "buildings was trained on 0.05 to 0.4 m" in str(raised.value)
    assert not progress.messages("warning")


@pytest.mark.parametrize(
    ("size", "config"), [(0.8, {}), (0.803, {}), (10.0, {"resolution_m": 10.0}), (10.0, {"resolution_m": 2.5})]
)
def test_four_times_the_models_pixel_or_a_resolution_of_ones_own_is_read(
    tmp_path: Path, size: float, config: dict[str, float]
) -> None:
    path = write_raster(tmp_path / "scene.tif", noise(3, 32, 32), crs="EPSG:32645", pixel_size=size)
    scene = opened(path, read_manifest(model_path("buildings")), **config)
    assert scene.shape.height == pytest.approx(32 * size / config.get("resolution_m", 0.2), abs=1)
