"""Several rasters read as one scene, on the grid of the first."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.windows import Window

from geoglnet.bands import Bands
from geoglnet.errors import BandsError, SceneError
from geoglnet.progress import RecordedProgress
from geoglnet.raster.scaling import Scaling
from geoglnet.raster.scene import Pixels, RasterScene, open_scene
from tests.rasters import UTM, noise, write_raster

Factory = Callable[..., Path]
NAMES = ("red", "green", "blue", "height")
FOUR = Bands(NAMES, (0.5,) * 4, (0.2,) * 4)
METERS = Scaling(0, 255, "meters")  # values stay as they are
LEFT, TOP = 500_000, 9_000_000


def whole(scene: RasterScene) -> Pixels:
    return scene.read_window(Window(0, 0, scene.shape.width, scene.shape.height))


def plane(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A height, 10 to 200, at UTM coordinates."""
    return 10 + (x - LEFT) * 1.5 + (TOP - y) * 1.1


def centers(transform: Affine, height: int, width: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return transform.a * cols + transform.b * rows + transform.c, transform.d * cols + transform.e * rows + transform.f


def write_heights(path: Path, crs: str, transform: Affine, height: int, width: int, **profile: Any) -> Path:
    x, y = centers(transform, height, width)
    x, y = Transformer.from_crs(crs, UTM, always_xy=True).transform(x, y)
    heights = plane(np.asarray(x), np.asarray(y))[None].astype("float32")
    return write_raster(path, heights, crs=crs, transform=transform, **profile)


@pytest.mark.parametrize("resolution_m", [None, 1.3, 0.3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_rasters_of_one_grid_read_like_one_file(scene_factory: Factory, resolution_m: float | None, dtype: str) -> None:
    image = noise(4, 90, 130).astype(dtype)
    together = scene_factory(image, name="all.tif", photometric="minisblack")
    red = scene_factory(image[[2, 1, 0]], name="bgr.tif")
    height = scene_factory(image[3:], name="dsm.tif")
    options: dict[str, Any] = {"model_bands": FOUR, "resolution_m": resolution_m}
    with (
        open_scene(together, bands=(1, 2, 3, 4), **options) as one,
        open_scene(red, bands=(3, 2, 1), beside={"height": height}, **options) as two,
    ):
        assert (whole(one).image == whole(two).image).all()
        assert (two.bands, two.band_names) == ((3, 2, 1, 1), NAMES)
        with two.reopened() as again:
            assert (whole(again).image == whole(one).image).all()


def test_the_order_of_bands_is_the_models_wherever_they_lie(scene_factory: Factory) -> None:
    image = noise(4, 64, 64)
    rgb, height = scene_factory(image[:3], name="rgb.tif"), scene_factory(image[3:], name="dsm.tif")
    bands = Bands(("height", "red", "green", "blue"), (0.5,) * 4, (0.2,) * 4)
    with open_scene(rgb, beside={"height": height}, model_bands=bands) as scene:
        assert (whole(scene).image == image[[3, 0, 1, 2]]).all()
    with open_scene(rgb, beside={"height": height}) as scene:
        assert (whole(scene).image == image).all()


@pytest.mark.parametrize("resolution_m", [None, 1.25])
@pytest.mark.parametrize(
    ("crs", "transform", "shape"),
    [
        (UTM, Affine(1.7, 0, LEFT - 9, 0, -1.7, TOP + 8), (60, 70)),
        (UTM, Affine(0.13, 0, LEFT - 2, 0, -0.13, TOP + 3), (500, 600)),
        ("EPSG:32735", Affine(0.9, 0, 1_168_800, 0, -0.9, 8_993_600), (300, 300)),
        ("EPSG:4326", Affine(1e-5, 0, 32.9998, 0, -1e-5, -9.0465), (120, 120)),
    ],
)
def test_heights_of_any_grid_and_crs_lie_where_they_belong(
    tmp_path: Path, resolution_m: float | None, crs: str, transform: Affine, shape: tuple[int, int]
) -> None:
    if crs not in (UTM,):  # somewhere around the scene
        x, y = Transformer.from_crs(UTM, crs, always_xy=True).transform(LEFT + 30, TOP - 22)
        step = transform.a
        transform = Affine(step, 0, x - step * shape[1] / 2, 0, -step, y + step * shape[0] / 2)
    rgb = write_raster(tmp_path / "rgb.tif", noise(3, 90, 120))
    dsm = write_heights(tmp_path / "dsm.tif", crs, transform, *shape)
    progress = RecordedProgress()
    with open_scene(
        rgb, beside={"height": dsm}, model_bands=FOUR, resolution_m=resolution_m, scaling=METERS, progress=progress
    ) as scene:
        pixels, expected = whole(scene), plane(*centers(scene.transform, *scene.shape))
    inside = pixels.valid
    assert inside.mean() > 0.9
    assert np.abs(pixels.image[3][inside] - expected[inside]).max() < 1.0  # 0.5 of it the 8 bits
    assert "is resampled to the grid of" in "".join(progress.messages("log"))


def test_windows_hold_the_same_whatever_was_read_before(tmp_path: Path) -> None:
    rgb = write_raster(tmp_path / "rgb.tif", noise(3, 150, 200))
    dsm = write_raster(tmp_path / "dsm.tif", noise(1, 200, 200).astype("float32"), crs="EPSG:32735", transform=_around())
    windows = [Window(col, row, 70, 50) for row in (0, 37, 100) for col in (0, 55, 130)]
    with open_scene(rgb, beside={"height": dsm}, model_bands=FOUR, scaling=METERS) as scene:
        first = {str(window): scene.read_window(window).image.tobytes() for window in windows}
        random.Random(0).shuffle(windows)
        with scene.reopened() as again:
            assert {str(window): again.read_window(window).image.tobytes() for window in windows} == first


def _around() -> Affine:
    x, y = Transformer.from_crs(UTM, "EPSG:32735", always_xy=True).transform(LEFT + 50, TOP - 38)
    return Affine(0.8, 0, x - 80, 0, -0.8, y + 80)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("pixel_size", [0.5, 0.8])
def test_a_pixel_is_valid_where_all_rasters_are(tmp_path: Path, declared: bool, pixel_size: float) -> None:
    valid = np.ones((80, 80), bool)
    valid[:20] = False
    rgb = write_raster(tmp_path / "rgb.tif", noise(3, 80, 80), valid=valid)
    heights = np.full((1, 80, 80), 7, "float32") + np.arange(80, dtype="float32")
    heights[:, :, :40] = -9999
    dsm = write_raster(tmp_path / "dsm.tif", heights, pixel_size=pixel_size, **({"nodata": -9999} if declared else {}))
    progress = RecordedProgress()
    with open_scene(rgb, beside={"height": dsm}, model_bands=FOUR, scaling=METERS, progress=progress) as scene:
        pixels = whole(scene)
    edge = round(40 * pixel_size / 0.5)
    assert not pixels.valid[:20].any()
    assert not pixels.valid[:, : edge - 2].any()
    assert pixels.valid[20:, edge + 2 :].all()
    assert pixels.image[3][pixels.valid].min() >= 40  # nothing is mixed with -9999
    assert any("-9999 lies far from all other values" in text for text in progress.messages("warning")) is not declared


def test_a_raster_that_covers_a_part_of_the_scene_is_warned_about(tmp_path: Path) -> None:
    rgb = write_raster(tmp_path / "rgb.tif", noise(3, 80, 80))
    dsm = write_raster(tmp_path / "dsm.tif", noise(1, 40, 80), transform=Affine(0.5, 0, LEFT, 0, -0.5, TOP))
    progress = RecordedProgress()
    with open_scene(rgb, beside={"height": dsm}, model_bands=FOUR, progress=progress) as scene:
        assert whole(scene).valid.mean() == 0.5
    assert "covers about 50%" in progress.messages("warning")[0]


def test_rasters_without_place_are_read_pixel_by_pixel(tmp_path: Path) -> None:
    image = noise(4, 64, 64)
    rgb = write_raster(tmp_path / "rgb.png", image[:3], crs=None, driver="PNG")
    height = write_raster(tmp_path / "dsm.tif", image[3:])
    with open_scene(rgb, beside={"height": height}, model_bands=FOUR) as scene:
        assert (whole(scene).image == image).all()


def test_rasters_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    rgb = write_raster(tmp_path / "rgb.tif", noise(3, 80, 80))
    bare = write_raster(tmp_path / "bare.png", noise(1, 70, 80), crs=None, driver="PNG")
    far = write_raster(tmp_path / "far.tif", noise(1, 80, 80), transform=Affine(0.5, 0, LEFT + 900, 0, -0.5, TOP))
    complex_ = write_raster(tmp_path / "slc.tif", noise(1, 80, 80).astype("complex64"))
    for other, error, words in (
        (bare, BandsError, r"bare.png has 80 × 70 px, .*rgb.tif 80 × 80, and .*bare.png has no CRS"),
        (far, BandsError, r"far.tif does not overlap .*rgb.tif"),
        (complex_, SceneError, "holds complex values"),
    ):
        with pytest.raises(error, match=words):
            open_scene(rgb, beside={"height": other}, model_bands=FOUR)
    with pytest.raises(BandsError, match=r"takes no band 'hieght', which is named in beside=…; did you mean 'height'"):
        open_scene(rgb, beside={"hieght": far}, model_bands=FOUR)
    with pytest.raises(BandsError, match=r"rgb.tif has no band height .*add a raster with beside=…"):
        open_scene(rgb, model_bands=FOUR)


def test_a_band_of_nothing_but_nan_is_refused_and_a_constant_one_warned_about(tmp_path: Path) -> None:
    image = noise(3, 64, 64).astype("float32")
    flat, empty = image.copy(), image.copy()
    flat[1], empty[2] = 5, np.nan
    progress = RecordedProgress()
    open_scene(write_raster(tmp_path / "flat.tif", flat), model_bands=Bands(), progress=progress).close()
    assert any("band 2 (green) is 5 everywhere" in text for text in progress.messages("warning"))
    with pytest.raises(SceneError, match=r"band 3 \(blue\) has no value but NaN"):
        open_scene(write_raster(tmp_path / "empty.tif", empty), model_bands=Bands())
