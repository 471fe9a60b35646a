"""A scene that is not what it was any more is refused: between a stop and ``--resume``, and before outputs get their names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

import geoglnet
from geoglnet.api.prediction import Prediction
from geoglnet.errors import OutputError, SceneError
from geoglnet.prediction import source
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.progress import SilentProgress
from tests.rasters import noise, write_raster
from tests.served import Server

Run = Callable[..., Prediction]


class Stopped(Exception):  # noqa: N818 - a test's own
    """A run that is cut off."""


class After(SilentProgress):
    """Does something once, after some patches."""

    def __init__(self, act: Callable[[], object], patches: int = 12) -> None:
        self.act, self.left = act, patches

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.left -= amount
        if self.left < 0:
            self.left = 10**9
            self.act()


def stop() -> None:
    raise Stopped


@pytest.fixture
def run(tmp_path: Path, tiny_model_path: Path) -> Run:
    def predicted(scene: Any, name: str = "labels.tif", **options: Any) -> Prediction:
        return geoglnet.predict(
            scene, tmp_path / name, model=str(tiny_model_path), config=PredictConfig(device="cpu", batch_size=9), **options
        )

    return predicted


PLACE = Affine(1, 0, 500_000, 0, -1, 9_000_000)


def write_tiles(folder: Path, **profile: Any) -> tuple[Path, Path]:
    """Two tiles side by side, 64 × 96 px each."""
    image = noise(3, 64, 192)
    for number in (0, 1):
        place = PLACE @ Affine.translation(96 * number, 0)
        write_raster(folder / f"{number}.tif", image[:, :, 96 * number : 96 * number + 96], transform=place, **profile)
    return folder / "0.tif", folder / "1.tif"


def write_vrt(path: Path, sources: dict[str, str]) -> None:
    """A VRT of 192 × 64 px of the sources, each with its rectangles."""
    head = "<SRS>EPSG:32736</SRS><GeoTransform>500000, 1, 0, 9000000, 0, -1</GeoTransform>"
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{band}</SourceBand>{place}'
            "</SimpleSource>"
            for name, place in sources.items()
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    path.write_text(f'<VRTDataset rasterXSize="192" rasterYSize="64">{head}{bands}</VRTDataset>', encoding="utf-8")


def nested_vrt(folder: Path) -> Path:
    """A VRT of a VRT of two tiles."""
    write_tiles(folder)
    size = 'yOff="0" xSize="96" ySize="64"/>'
    places = [f'<SrcRect xOff="0" {size}<DstRect xOff="{left}" {size}' for left in (0, 96)]
    write_vrt(folder / "inner.vrt", {"0.tif": places[0], "1.tif": places[1]})
    write_vrt(folder / "outer.vrt", {"inner.vrt": ""})
    return folder / "outer.vrt"


def tile_index(folder: Path) -> Path:
    with rasterio.Env() as gdal:
        if "GTI" not in gdal.drivers():
            pytest.skip("tile indexes need GDAL 3.9")
    tiles = write_tiles(folder)
    boxes = [shapely.box(500_000 + x, 9_000_000 - 64, 500_000 + x + 96, 9_000_000) for x in (0, 96)]
    frame = geopandas.GeoDataFrame({"location": [str(tile) for tile in tiles]}, geometry=boxes, crs="EPSG:32736")
    frame.to_file(folder / "index.gti.gpkg", layer="index")
    return folder / "index.gti.gpkg"


SCENES: dict[str, Callable[[Path], Any]] = {
    "two files": lambda folder: list(write_tiles(folder)),
    "nested VRT": nested_vrt,
    "tile index": tile_index,
}


def rewrite_in_place(path: Path) -> None:
    """Other pixels, same size, same time of change; the same file."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[-200:] = bytes(255 - value for value in content[-200:])
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)


@pytest.mark.parametrize(("kind", "digested"), [*((kind, 2**28) for kind in SCENES), ("nested VRT", 0)])
def test_a_tile_rewritten_in_place_is_noticed_before_resuming_and_before_publishing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, digested: int
) -> None:
    monkeypatch.setattr(source, "DIGESTED_BYTES", digested)
    scene, tile = SCENES[kind](tmp_path), tmp_path / "1.tif"
    with pytest.raises(Stopped):
        run(scene, progress=After(stop))
    rewrite_in_place(tile)
    with pytest.raises(OutputError, match=r"unfinished run with other settings \(scene file \d, 1\.tif: \d+ bytes") as caught:
        run(scene, resume=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(SceneError, match=r"changed while it was read \(scene file \d, 1\.tif"):
        run(scene, "other.tif", progress=After(lambda: rewrite_in_place(tile)))
    assert not (tmp_path / "other.tif").exists()
    run(scene, overwrite=True)
    assert (tmp_path / "labels.tif").exists()


@pytest.mark.parametrize("kind", ["nested VRT", "tile index"])
def test_a_staged_copy_is_the_same_scene(run: Run, tmp_path: Path, kind: str) -> None:
    scene = SCENES[kind](tmp_path)
    run(scene, "whole.tif")
    with pytest.raises(Stopped):
        run(scene, progress=After(stop))
    for path in tmp_path.glob("[01].tif"):
        shutil.copy(path, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
        os.utime(path, (1e9, 1e9))
    run(scene, resume=True)
    assert (tmp_path / "labels.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_file_touched_during_the_run_is_no_other_scene(run: Run, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "a.tif", noise(3, 64, 192), pixel_size=1.0)
    run(scene, progress=After(lambda: os.utime(scene, (1e9, 1e9))))
    assert (tmp_path / "labels.tif").exists()


def test_a_mask_that_comes_beside_a_tile_is_a_change(run: Run, tmp_path: Path) -> None:
    scene = nested_vrt(tmp_path)
    with pytest.raises(Stopped):
        run(scene, progress=After(stop))
    write_raster(tmp_path / "1.tif.msk", np.zeros((1, 64, 96), np.uint8), crs=None)
    with pytest.raises(OutputError, match=r"1\.tif\.msk: none, now \d+ bytes"):
        run(scene, resume=True)


def test_a_served_file_with_another_etag_is_refused_before_resuming_and_before_publishing(
    run: Run, tmp_path: Path, server: Server
) -> None:
    path, url = tmp_path / "served" / "far.tif", f"{server.url}/far.tif"
    write_raster(path, noise(3, 64, 192), pixel_size=1.0, compress="NONE")
    with pytest.raises(Stopped):
        run(url, progress=After(stop))
    rewrite_in_place(path)
    with pytest.raises(OutputError, match=r"scene file 1, far\.tif: \d+ bytes, ETag \"\w+\", now \d+ bytes, ETag"):
        run(url, resume=True)
    with pytest.raises(SceneError, match=r"far\.tif changed while it was read"):
        run(url, "other.tif", progress=After(lambda: rewrite_in_place(path)))
    assert not (tmp_path / "other.tif").exists()
    run(url, "fresh.tif")
    run(path, "local.tif")
    with rasterio.open(tmp_path / "fresh.tif") as fresh, rasterio.open(tmp_path / "local.tif") as local:
        assert (fresh.read() == local.read()).all()  # nothing of the file before is left in a cache


def test_a_server_that_sends_other_ranges_than_asked_for_is_refused(run: Run, tmp_path: Path, server: Server) -> None:
    write_raster(tmp_path / "served" / "far.tif", noise(3, 64, 192), pixel_size=1.0, compress="NONE")
    (tmp_path / "wrong").touch()
    with pytest.raises(SceneError):
        run(f"{server.url}/far.tif")
    assert not (tmp_path / "labels.tif").exists()
