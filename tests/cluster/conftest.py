"""A scene of 3 × 4 blocks with a hole, and models that find three classes in noise."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import torch

from geoglnet.config import RegionConfig, Sharing
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import save_checkpoint
from geoglnet.models.manifest import Manifest
from tests.networks import small
from tests.rasters import noise, write_raster

REGION = RegionConfig(region_size=64, overview_size=32, patch_size=32, patch_overlap=8, margin=16)
LEGEND = Legend(("ground", "building", "water"), ((0, 0, 0), (230, 75, 50), (60, 120, 240)), background=0)


def write_model(path: Path, sharing: Sharing) -> Path:
    network = small("mobilenet_v3_small", sharing=sharing)
    with torch.no_grad():  # so that all classes come, in pieces
        if sharing is Sharing.BIDIRECTIONAL:
            torch.manual_seed(0)
            torch.nn.init.normal_(network.f_agg.weight)
            network.f_agg.weight -= network.f_agg.weight.mean(dim=(1, 2, 3), keepdim=True)
            network.f_agg.bias.zero_()
        network.f_agg.weight *= 20
    save_checkpoint(path, network, Manifest("noisy", network.config, REGION, LEGEND, 1.0, (0.5, 2.0), 1.0))
    return path


def write_scene(folder: Path) -> Path:
    """96 × 128 px at 1 m, 16 bits to be stretched, in tiles, with a hole."""
    image = noise(3, 96, 128).astype(np.uint16) * 37 + 400
    image[:, 20:60, 15:70] = 0
    return write_raster(folder / "scene.tif", image, pixel_size=1.0, nodata=0, compress="deflate")


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "noisy.safetensors", Sharing.GLOBAL_TO_LOCAL)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path)


def outputs_in(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    rasters = ("labels", "confidence", "entropy", "probabilities")
    return {name: folder / f"{name}.tif" for name in rasters} | {"vector": folder / "polygons.gpkg"}


def assert_same(made: Path, whole: Path) -> None:
    """Rasters have the same bytes, and polygons the same rows in the same order."""
    assert {path.name for path in made.iterdir()} == {path.name for path in whole.iterdir()}
    for path in whole.glob("*.tif*"):
        assert (made / path.name).read_bytes() == path.read_bytes(), path.name
    ours, theirs = (geopandas.read_file(folder / "polygons.gpkg", layer="polygons") for folder in (made, whole))
    assert len(theirs) > 5
    assert (ours.geometry.to_wkb() == theirs.geometry.to_wkb()).all()
    assert ours.drop(columns="geometry").equals(theirs.drop(columns="geometry"))
