"""What GDAL reads beside a raster (masks, statistics, world files) counts in archives and on servers as on a disk."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from geoglnet.raster.scene import open_scene
from tests.rasters import noise, write_raster
from tests.served import Server


def write_masked(folder: Path) -> list[Path]:
    """A raster whose left half a ``.msk`` hides, and one whose place is in a world file and an ``.aux.xml``."""
    masked = write_raster(folder / "masked.tif", noise(3, 64, 96), compress="NONE")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(masked, "r+") as dst:
        dst.write_mask(np.broadcast_to(np.arange(96) >= 48, (64, 96)))
    placed = write_raster(folder / "placed.jpg", noise(3, 64, 96), driver="JPEG", WORLDFILE="YES")
    return [masked, placed, *(folder / name for name in ("masked.tif.msk", "placed.wld", "placed.jpg.aux.xml"))]


@pytest.mark.parametrize("place", ["archive", "server"])
def test_sidecars_count_as_on_a_disk(tmp_path: Path, server: Server, place: str) -> None:
    files = write_masked(tmp_path / "served")
    assert all(file.exists() for file in files)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in files:
            archive.write(file, f"in/{file.name}")
    where = f"/vsizip/{tmp_path}/a.zip/in" if place == "archive" else server.url
    for file in files[:2]:
        with open_scene(file) as local, open_scene(f"{where}/{file.name}") as far:
            window = Window(0, 0, 96, 64)
            assert (far.crs, far.transform) == (local.crs, local.transform)
            assert far.crs is not None
            np.testing.assert_array_equal(far.read_window(window).valid, local.read_window(window).valid)
            assert far.read_window(window).valid.sum() == (64 * 48 if file == files[0] else 64 * 96)


@pytest.mark.parametrize(("name", "most"), [("plain.tif", 20), ("masked.tif", 32)])
def test_a_server_is_asked_for_sidecars_by_name_once_and_never_for_a_list(
    tmp_path: Path,
    server: Server,
    name: str,
    most: int,
) -> None:
    write_raster(tmp_path / "served" / "plain.tif", noise(3, 64, 96))
    write_masked(tmp_path / "served")
    with open_scene(f"{server.url}/{name}") as scene:
        scene.read_window(Window(0, 0, 96, 64))
        with scene.reopened() as again:
            again.read_window(Window(0, 0, 96, 64))
    assert len(server.requests) <= most, server.requests
    assert not any(request.endswith("served") for request in server.requests)


def test_a_query_is_not_asked_with_other_queries(tmp_path: Path, server: Server) -> None:
    """A server that overlooks what follows the question mark would give the raster as its own mask."""
    write_raster(tmp_path / "served" / "plain.tif", noise(3, 64, 96))
    with open_scene(f"/vsicurl/{server.url}/plain.tif?token=a") as scene:
        assert scene.read_window(Window(0, 0, 96, 64)).valid.all()
    assert {request.partition(" ")[2] for request in server.requests} == {"plain.tif"}
    assert len(server.requests) <= 3


def test_what_a_user_says_of_sidecars_wins(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    write_raster(tmp_path / "served" / "plain.tif", noise(3, 64, 96))
    with open_scene(f"{server.url}/plain.tif") as scene:
        scene.read_window(Window(0, 0, 96, 64))
    assert len(server.requests) <= 3
