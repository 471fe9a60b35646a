"""Shared by all tests: a small scene and a small, untrained model."""

from __future__ import annotations

import os
import signal
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: on several threads tiny tensors mostly wait for each other
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import settings

# Last, so that what is installed is tested: ``tests.rasters`` and the like, in processes that tests start too.
sys.path.append(str(Path(__file__).parents[1]))

from tests.rasters import noise, write_raster
from tests.served import Server, serving
from tests.windows_rules import sitecustomize as windows_rules

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are shared: a slow example is no failure.
settings.register_profile("geoglnet", deadline=None)
settings.load_profile("geoglnet")

if os.environ.get(windows_rules.SWITCH) == "1":
    os.environ.update(windows_rules.environment())
    windows_rules.enforce()

collect_ignore = ["qgis"]  # another Python's, run by scripts/test-plugin

SceneMaker = Callable[..., Path]


@pytest.fixture(autouse=True)
def _blank_sheets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings end with a blank report.png, which takes as long as they do; tests marked ``draws`` get the real one."""
    module = sys.modules.get("geoglnet.training.score_sheet")  # not imported for it: most tests train nothing
    if module is not None and request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr(module, "draw_sheet", lambda *_, **__: module.Figure(figsize=(1, 1)))
    report = sys.modules.get("geoglnet.adaptation.pages")
    if report is not None and request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr(report, "draw_adaptation", lambda *_, **__: report.Figure(figsize=(1, 1)))


@pytest.fixture
def scene_factory(tmp_path: Path) -> SceneMaker:
    """:func:`rasters.write_raster` into the test's own folder: ``scene_factory(image, name="a.tif", nodata=0, …)``.

    ``image`` may be a ``(bands, height, width)`` shape, which is filled with noise.
    """

    def make(image: npt.NDArray[Any] | tuple[int, int, int], name: str = "scene.tif", **options: Any) -> Path:
        array = image if isinstance(image, np.ndarray) else noise(*image)
        return write_raster(tmp_path / name, array, **options)

    return make


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A web server of the folder ``served`` in the test's own."""
    with serving(tmp_path / "served") as served:
        yield served


@pytest.fixture(scope="session")
def make_scene(tmp_path_factory: pytest.TempPathFactory) -> SceneMaker:
    """Writes noise as a GeoTIFF with meter pixels in UTM; keywords go into rasterio's profile."""
    folder = tmp_path_factory.mktemp("scenes")

    def make(name: str = "scene.tif", count: int = 3, height: int = 80, width: int = 120, **profile: Any) -> Path:
        path = folder / name
        profile = {"dtype": "uint8", "crs": "EPSG:32633", "transform": Affine(1, 0, 500000, 0, -1, 5000000)} | profile
        image = np.random.default_rng(0).integers(1, 255, (count, height, width)).astype(profile["dtype"])
        with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, **profile) as dst:
            dst.write(image)
        return path

    return make


@pytest.fixture(scope="session")
def scene_path(make_scene: SceneMaker) -> Path:
    return make_scene()


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained two-class GLNet with the smallest backbone and small regions, at 1 m."""
    import torch

    from geoglnet.config import ModelConfig, RegionConfig
    from geoglnet.legend import Legend
    from geoglnet.models.checkpoint import save_checkpoint
    from geoglnet.models.glnet import GLNet
    from geoglnet.models.manifest import Manifest

    torch.manual_seed(0)
    model = ModelConfig(2, "mobilenet_v3_small", pyramid_channels=8, smooth_channels=4)
    region = RegionConfig(region_size=64, overview_size=32, patch_size=32, patch_overlap=8, margin=16)
    legend = Legend(("ground", "building"), ((0, 0, 0), (230, 75, 50)), background=0)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_checkpoint(path, GLNet(model), Manifest("tiny", model, region, legend, 1.0, (0.5, 2.0), 1.0))
    return path
