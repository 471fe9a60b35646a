"""Parts of a VRT or a tile index that cannot be read are noticed, whatever GDAL has gone through in the process before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from rasterio.windows import Window

from geoglnet.datasets.coding import legend_coding
from geoglnet.datasets.truth import ImageTruth
from geoglnet.errors import OutputError, SceneError
from geoglnet.legend import Legend
from geoglnet.raster import failures
from geoglnet.raster.scene import RasterScene, open_scene
from geoglnet.raster.writer import num_valid_pixels
from geoglnet.types import Shape
from tests.prediction.test_scene_changes import PLACE, nested_vrt, tile_index, write_tiles, write_vrt
from tests.rasters import noise, write_raster
from tests.served import Server

LEFT, RIGHT = Window(0, 0, 96, 64), Window(96, 0, 96, 64)


def two_parts(folder: Path, first: str = "0.tif", second: str = "1.tif") -> Path:
    size = 'yOff="0" xSize="96" ySize="64"/>'
    places = [f'<SrcRect xOff="0" {size}<DstRect xOff="{left}" {size}' for left in (0, 96)]
    write_vrt(folder / "two.vrt", {first: places[0], second: places[1]})
    return folder / "two.vrt"


def read_nested_vrt(folder: Path) -> None:
    """After that GDAL 3.10 remembers, for all VRTs of the process, which parts could not be opened."""
    folder.mkdir()
    with open_scene(nested_vrt(folder)) as scene:
        scene.read_window(LEFT)


def spoil(path: Path) -> None:
    path.write_bytes(b"junk" * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def fails_each_time(scene: RasterScene) -> None:
    for _ in range(3):
        with pytest.raises(SceneError, match=r"(two\.vrt|index\.gti\.gpkg) cannot be read") as caught:
            scene.read_window(RIGHT)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("harm", [spoil, cut, Path.unlink])
@pytest.mark.parametrize("resolution_m", [None, 2.0])
def test_a_part_that_is_harmed_while_it_is_read_fails_each_time(
    tmp_path: Path, harm: Callable[[Path], None], resolution_m: float | None
) -> None:
    write_tiles(tmp_path, compress="NONE")
    read_nested_vrt(tmp_path / "before")
    path = two_parts(tmp_path)
    with open_scene(path) as scene, open_scene(path, resolution_m=resolution_m) as coarse:
        assert scene.read_window(LEFT).image.any()
        harm(tmp_path / "1.tif")
        fails_each_time(scene)
        if resolution_m is not None:
            with pytest.raises(SceneError, match=r"two\.vrt cannot be read"):
                coarse.read_window(Window(40, 0, 56, 32))


def test_threads_that_a_user_gives_gdal_lose_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two or more, GDAL 3.10 fills large windows with zeros where it cannot read."""
    monkeypatch.setenv("VRT_NUM_THREADS", "4")
    monkeypatch.setenv("GTI_NUM_THREADS", "4")
    for number in (0, 1):
        write_raster(tmp_path / f"{number}.tif", noise(1, 1100, 1100), compress="NONE", tiled=True)
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{number}.tif</SourceFilename><SourceBand>1</SourceBand>'
        '<SrcRect xOff="0" yOff="0" xSize="1100" ySize="1100"/>'
        f'<DstRect xOff="{1100 * number}" yOff="0" xSize="1100" ySize="1100"/></SimpleSource>'
        for number in (0, 1)
    )
    band = f'<VRTRasterBand dataType="Byte" band="1">{sources}</VRTRasterBand>'
    vrt = f'<VRTDataset rasterXSize="2200" rasterYSize="1100">{band}</VRTDataset>'
    (tmp_path / "large.vrt").write_text(vrt, encoding="utf-8")
    cut(tmp_path / "1.tif")
    with open_scene(tmp_path / "large.vrt") as scene, pytest.raises(SceneError, match=r"large\.vrt cannot be read"):
        scene.read_window(Window(0, 0, 2200, 1100))
    legend = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)
    truth = ImageTruth(tmp_path / "large.vrt", legend_coding(legend, {}, ()), Shape(1100, 2200))
    with pytest.raises(SceneError, match=r"large\.vrt cannot be read"):
        truth.read_labels(Window(0, 0, 2200, 1100))


@pytest.mark.parametrize("make", [two_parts, tile_index])
def test_a_server_that_loses_a_part_fails_the_read_each_time(
    tmp_path: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Path],
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    read_nested_vrt(tmp_path / "before")
    write_tiles(tmp_path / "served", compress="NONE")
    urls = [f"{server.url}/0.tif", f"{server.url}/1.tif"]
    if make is tile_index:
        tile_index(tmp_path / "before")
        boxes = [shapely.box(500_000 + x, 9_000_000 - 64, 500_000 + x + 96, 9_000_000) for x in (0, 96)]
        frame = geopandas.GeoDataFrame({"location": [f"/vsicurl/{url}" for url in urls]}, geometry=boxes, crs="EPSG:32736")
        frame.to_file(tmp_path / "index.gti.gpkg", layer="index")
        path = tmp_path / "index.gti.gpkg"
    else:
        path = two_parts(tmp_path, *urls)
        path.write_text(
            path.read_text(encoding="utf-8").replace('relativeToVRT="1"', 'relativeToVRT="0"').replace("http", "/vsicurl/http"),
            encoding="utf-8",
        )
    with open_scene(path) as scene:
        assert scene.read_window(LEFT).image.any()
        (tmp_path / "served" / "1.tif").unlink()
        fails_each_time(scene)
    with open_scene(path) as scene:  # the state that GDAL is in is not the scene's
        fails_each_time(scene)
    assert server.requests


@pytest.mark.parametrize("name", ["junk.tif", "junk.vrt", "junk.jpg"])
def test_a_part_that_is_no_raster_is_named_before_any_pixel_is_read(tmp_path: Path, name: str) -> None:
    write_tiles(tmp_path)
    spoil(tmp_path / name)
    with pytest.raises(
        SceneError, match=rf"two\.vrt cannot be read, its part .*{name} is not a raster that GDAL can read"
    ) as caught:
        open_scene(two_parts(tmp_path, "0.tif", name))
    assert "\n" not in str(caught.value)


def test_black_parts_are_read_as_they_are(tmp_path: Path) -> None:
    """A window of zeros that are pixels is checked, and passes."""
    image = noise(3, 64, 96)
    image[:, 10:50] = 0
    write_raster(tmp_path / "0.tif", image, transform=PLACE)
    write_raster(tmp_path / "1.tif", np.zeros_like(image), transform=PLACE)
    with open_scene(two_parts(tmp_path)) as scene:
        assert not scene.read_window(RIGHT).image.any()
        np.testing.assert_array_equal(scene.read_window(LEFT).image, image)
        with scene.reopened() as again:
            np.testing.assert_array_equal(again.read_window(Window(90, 5, 50, 9)).image[:, :5, :6], image[:, 5:10, 90:])
    assert num_valid_pixels(two_parts(tmp_path)) == 192 * 64


def test_without_libtiff_the_errors_that_gdal_signals_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_libtiffs", lambda: iter(()))
    monkeypatch.setattr(failures, "_failed_writes", failures._failed_writes.__wrapped__)
    with failures.writing(tmp_path / "a.tif"):
        pass
    with (
        pytest.raises(OutputError, match=r"a\.tif cannot be written \(TIFFAppendToStrip:Write error\)"),
        failures.writing(tmp_path / "a.tif"),
    ):
        logging.getLogger("rasterio._err").info(
            "GDAL signalled an error: err_no=%r, msg=%r", 1, "TIFFAppendToStrip:Write error"
        )
