"""Scenes of every kind, read at every resolution."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.windows import Window

from geoglnet.bands import BandRule, Bands, ValueRange
from geoglnet.config import ScalingRule
from geoglnet.errors import BandsError, ConfigError, SceneError, SceneNotFoundError
from geoglnet.prediction.source import Source
from geoglnet.progress import RecordedProgress
from geoglnet.raster.band_choice import choose_bands
from geoglnet.raster.gdal import BLOCK_CACHE_BYTES, environment
from geoglnet.raster.grid import BARE_TRANSFORM, is_usable
from geoglnet.raster.mosaic import mosaic_of
from geoglnet.raster.scaling import Scaling
from geoglnet.raster.scene import ArrayScene, Pixels, Scene, open_scene
from geoglnet.types import Shape
from geoglnet.vector.tiles import DatasetTiles
from tests.rasters import noise, write_raster

Factory = Callable[..., Path]


def whole(scene: Scene) -> Pixels:
    return scene.read_window(Window(col_off=0, row_off=0, width=scene.shape.width, height=scene.shape.height))


def disc(height: int = 120, width: int = 160) -> np.ndarray:
    """Valid pixels of a scene with a round hole and a missing corner."""
    rows, cols = np.mgrid[:height, :width]
    valid = (rows - 60) ** 2 + (cols - 80) ** 2 > 30**2
    valid[:25, :31] = False
    return valid


# ---- windows


@pytest.fixture(scope="module")
def noisy_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raster(tmp_path_factory.mktemp("noisy") / "a.tif", noise(3, 170, 233), pixel_size=0.1)


@given(resolution=st.sampled_from([0.1, 0.06, 0.094, 0.106, 0.137, 0.25, 0.33, 1.0]), data=st.data())
@settings(max_examples=60, deadline=None)
def test_overlapping_windows_agree_wherever_they_lie(noisy_path: Path, resolution: float, data: st.DataObject) -> None:
    with open_scene(noisy_path, resolution_m=resolution) as scene:
        height, width = scene.shape
        row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        window = Window(col, row, data.draw(st.integers(1, width - col)), data.draw(st.integers(1, height - row)))
        part, image = scene.read_window(window).image, whole(scene).image
    expected = image[(slice(None), *window.toslices())]
    assert np.abs(part.astype(int) - expected).max() <= 1


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    pixel_size=st.floats(0.02, 30),
    resolution=st.floats(0.02, 30),
)
@settings(max_examples=60, deadline=None)
def test_the_grid_covers_the_bounds_of_the_scene_exactly(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, pixel_size: float, resolution: float
) -> None:
    path = tmp_path_factory.mktemp("grid") / "a.tif"
    write_raster(path, noise(3, height, width), pixel_size=pixel_size)
    with rasterio.open(path) as src, open_scene(path, resolution_m=resolution) as scene:
        corner = scene.transform @ (scene.shape.width, scene.shape.height)
        assert corner == pytest.approx((src.bounds.right, src.bounds.bottom), rel=1e-12)
        assert scene.transform @ (0, 0) == (src.bounds.left, src.bounds.top)
        assert min(scene.shape) >= 1


def test_a_coarser_grid_holds_the_exact_averages(scene_factory: Factory) -> None:
    image = noise(3, 64, 96)
    with open_scene(scene_factory(image, pixel_size=0.25), resolution_m=1) as scene:
        assert scene.shape == (16, 24)
        expected = image.reshape(3, 16, 4, 24, 4).mean(axis=(2, 4))
        assert np.abs(whole(scene).image - expected).max() <= 0.5


def test_a_finer_grid_is_interpolated(scene_factory: Factory) -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8) * 5, (3, 30, 40)).copy()
    with open_scene(scene_factory(ramp, pixel_size=1.0), resolution_m=0.5) as scene:
        row = whole(scene).image[0, 20].astype(int)
    assert scene.shape == (60, 80)
    assert set(np.diff(row)[3:-3]) <= {2, 3}


def test_pyramid_levels_of_the_file_do_not_show(scene_factory: Factory) -> None:
    image = noise(3, 512, 512)
    path = scene_factory(image, name="a.tif", pixel_size=0.1)
    plain = Path(shutil.copy(path, path.with_name("plain.tif")))
    with rasterio.open(path, "r+") as dst:
        dst.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    for resolution in (0.15, 0.25, 0.9):
        with open_scene(path, resolution_m=resolution) as scene, open_scene(plain, resolution_m=resolution) as same:
            window = Window(col_off=3, row_off=5, width=scene.shape.width // 2, height=scene.shape.height // 3)
            difference = np.abs(scene.read_window(window).image.astype(int) - same.read_window(window).image)
        # far below the raster's resolution we average averages, with a slightly different share for pixels on borders
        assert (difference.max() <= 1) if resolution < 0.4 else (difference.mean() < 4)


@pytest.mark.parametrize("window", [Window(-1, 0, 5, 5), Window(0, 0, 65, 5), Window(60, 0, 5, 5), Window(3, 3, 0, 1)])
def test_a_window_outside_the_scene_is_refused(scene_factory: Factory, window: Window) -> None:
    with open_scene(scene_factory((3, 64, 64))) as scene, pytest.raises(ConfigError, match="not inside a scene of 64 × 64 px"):
        scene.read_window(window)


def test_an_array_is_a_scene_too() -> None:
    image = noise(3, 20, 30)
    valid = np.arange(600).reshape(20, 30) % 7 > 0
    scene = ArrayScene(image, valid, Affine(0.5, 0, 5e5, 0, -0.5, 9e6), CRS.from_epsg(32736))
    pixels = scene.read_window(Window(col_off=4, row_off=2, width=10, height=5))
    assert (pixels.image == image[:, 2:7, 4:14]).all()
    assert (pixels.valid == valid[2:7, 4:14]).all()
    assert (scene.shape, scene.num_bands) == ((20, 30), 3)
    assert scene.pixel_size_m == pytest.approx(0.5, rel=1e-3)
    assert whole(ArrayScene(image)).valid.all()
    with pytest.raises(SceneError, match="give \\(bands, height, width\\) uint8"):
        ArrayScene(image[0])


# ---- resolution


def test_resampling_is_said_in_one_line(scene_factory: Factory) -> None:
    progress = RecordedProgress()
    with open_scene(scene_factory((3, 64, 64), pixel_size=0.1), resolution_m=0.2, progress=progress) as scene:
        assert scene.pixel_size_m == pytest.approx(0.2, rel=1e-3)
    assert progress.messages("log") == ["0.1 m pixels read at 0.2 m"]


def test_a_resolution_within_5_percent_leaves_pixels_alone(scene_factory: Factory) -> None:
    image, progress = noise(3, 64, 64), RecordedProgress()
    with open_scene(scene_factory(image, pixel_size=0.1), resolution_m=0.1045, progress=progress) as scene:
        assert (whole(scene).image == image).all()
    assert progress.messages("log") == []


def test_web_mercator_pixels_are_measured_on_the_ground(scene_factory: Factory) -> None:
    progress = RecordedProgress()
    transform = Affine(0.0746, 0, 9_500_000, 0, -0.0746, 3_200_000)  # 27.6° N
    path = scene_factory((3, 64, 64), crs="EPSG:3857", transform=transform)
    with open_scene(path, resolution_m=0.2, progress=progress) as scene:
        assert scene.shape == (21, 21)
    assert progress.messages("log") == ["0.0746 m pixels (0.066 m on the ground) read at 0.2 m"]


def test_degrees_become_square_pixels_on_the_ground(scene_factory: Factory) -> None:
    transform = Affine(1e-5, 0, 25, 0, -1e-5, 60)  # 0.56 m × 1.11 m
    with open_scene(scene_factory((3, 200, 200), crs="EPSG:4326", transform=transform), resolution_m=1) as scene:
        assert scene.shape == (223, 112)
        assert scene.pixel_size_m == pytest.approx(1, rel=0.01)


def test_a_rotated_scene_stays_rotated(scene_factory: Factory) -> None:
    transform = Affine.translation(5e5, 9e6) @ Affine.rotation(30) @ Affine.scale(0.25, -0.25)
    with open_scene(scene_factory((3, 80, 120), transform=transform), resolution_m=0.5) as scene:
        assert scene.shape == (40, 60)
        assert scene.transform.almost_equals(transform @ Affine.scale(2), precision=1e-9)


def test_a_scene_without_crs_works_in_pixels_and_says_so(scene_factory: Factory) -> None:
    progress = RecordedProgress()
    path = scene_factory((3, 64, 64), name="photo.jpg", driver="JPEG", crs=None)
    with open_scene(path, resolution_m=1, assumed_pixel_size_m=0.5, progress=progress) as scene:
        assert scene.shape == (32, 32)
        assert scene.crs is None
        assert scene.pixel_size_m is None
    assert progress.messages("log") == ["no CRS: works in pixels; pixels taken as 0.5 m", "0.5 m pixels read at 1 m"]
    with open_scene(path, resolution_m=1) as scene:
        assert scene.shape == (64, 64)


def test_a_bare_picture_lies_where_qgis_draws_it_columns_and_negative_rows(scene_factory: Factory) -> None:
    path = scene_factory((3, 64, 64), name="photo.jpg", driver="JPEG", crs=None)
    with open_scene(path, resolution_m=1, assumed_pixel_size_m=0.5) as scene:
        assert scene.transform @ (0, 0) == (0, 0)
        assert scene.transform @ (scene.shape.width, scene.shape.height) == (64, -64)


def test_ground_control_points_alone_are_no_crs(scene_factory: Factory) -> None:
    path = scene_factory((3, 64, 64), crs=None)
    points = [GroundControlPoint(r, c, 30 + c / 1e5, -6 - r / 1e5) for r, c in ((0, 0), (0, 64), (64, 0), (64, 64))]
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "r+") as dst:
        dst.gcps = (points, CRS.from_epsg(4326))
    progress = RecordedProgress()
    with open_scene(path, progress=progress) as scene:
        assert scene.crs is None
        assert scene.transform == BARE_TRANSFORM
    assert "scene.tif has ground control points but no transform (use them with gdalwarp" in progress.messages("warning")[0]


def test_rational_polynomials_alone_are_no_crs(scene_factory: Factory) -> None:
    path = scene_factory((3, 64, 64), crs=None)
    numbers = {"line": 32, "samp": 32, "lat": -6, "long": 30, "height": 500}
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "r+") as dst:
        dst.rpcs = RPC(
            **{f"{name}_off": value for name, value in numbers.items()},
            **{f"{name}_scale": 1.0 for name in numbers},
            **{f"{axis}_{part}_coeff": [1.0] + [0.0] * 19 for axis in ("line", "samp") for part in ("num", "den")},
        )
    progress = RecordedProgress()
    with open_scene(path, progress=progress) as scene:
        assert (scene.crs, scene.transform) == (None, BARE_TRANSFORM)
    assert (
        "rational polynomial coefficients (RPC) but no transform (use them with gdalwarp -rpc"
        in progress.messages("warning")[0]
    )


VRT = '<VRTDataset rasterXSize="64" rasterYSize="64">{head}{bands}</VRTDataset>'
VRT_BAND = (
    '<VRTRasterBand dataType="Byte" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
    "<SourceBand>{number}</SourceBand></SimpleSource></VRTRasterBand>"
)


def write_vrt(path: Path, source: str, *, head: str = "", num_bands: int = 3) -> Path:
    """A VRT of a raster of 64 × 64 px beside it."""
    bands = "".join(VRT_BAND.format(number=number, name=source) for number in range(1, num_bands + 1))
    path.write_text(VRT.format(head=head, bands=bands), encoding="utf-8")
    return path


PLACELESS = {
    "zeros": "0,0,0,0,0,0",
    "no width": "100,0,0,200,0,-1",
    "flat": "100,1,0,200,0,0",
    "denormal": "4.6e-310,4.6e-310,1e-323,4.6e-310,1e-323,4.6e-310",
    "parallel": "10,1,1,10,1,1",
    "nearly parallel": "10,1,1,10,1,1.0000000001",
    "infinite": "inf,1,0,200,0,-1",
    "no number": "100,nan,0,200,0,-1",
    "finer than its coordinates": "1e18,0.2,0,3057000,0,-0.2",
    "immense": "0,1e300,0,0,0,-1e300",
}


@pytest.mark.parametrize("numbers", PLACELESS.values(), ids=PLACELESS)
def test_a_transform_that_places_no_pixel_is_no_georeference(scene_factory: Factory, numbers: str) -> None:
    image, progress = noise(3, 64, 64), RecordedProgress()
    head = f"<SRS>EPSG:32736</SRS><GeoTransform>{numbers}</GeoTransform>"
    path = write_vrt(scene_factory(image, crs=None).with_name("a.vrt"), "scene.tif", head=head)
    with open_scene(path, resolution_m=1, assumed_pixel_size_m=1, progress=progress) as scene:
        assert (scene.crs, scene.transform, scene.pixel_size_m) == (None, BARE_TRANSFORM, None)
        assert (whole(scene).image == image).all()
    (warning,) = progress.messages("warning")
    assert "has the unusable geotransform " in warning
    assert " (its CRS, EPSG:32736, is not used); it is read without georeference, in pixels" in warning


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.2, 1e-15, 350000, -1e-15, -0.2, 3057000),
        Affine(1e-7, 0, 179.9, 0, -1e-7, 89.9),
        Affine(0.01, 0, 2.0e7, 0, 0.01, 2.0e7),
        Affine.translation(5e5, 9e6) @ Affine.rotation(45) @ Affine.shear(60) @ Affine.scale(1, -40),
        Affine(1e5, 0, -1.8e7, 0, -1e5, 9e6),
    ],
)
def test_transforms_of_real_rasters_are_kept(transform: Affine) -> None:
    assert is_usable(transform, Shape(40_000, 40_000))


def test_a_crs_without_a_place_on_earth_and_without_a_unit_has_no_ground_size(scene_factory: Factory) -> None:
    local = 'LOCAL_CS["Undefined Cartesian SRS with unknown unit",UNIT["unknown",1]]'
    with open_scene(scene_factory((3, 64, 64), crs=local), resolution_m=1, assumed_pixel_size_m=0.5) as scene:
        assert scene.pixel_size_m is None
        assert scene.shape == (32, 32)


@pytest.mark.parametrize("name", ["resolution_m", "assumed_pixel_size_m"])
def test_sizes_must_be_positive(scene_factory: Factory, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = 0"):
        open_scene(scene_factory((3, 64, 64)), **{name: 0})


# ---- valid pixels


def _nodata(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    write_raster(path, np.where(valid, image, 0), nodata=0)


def _alpha(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    write_raster(path, image, alpha=valid * 255)


def _alpha_and_nodata(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    write_raster(path, image, alpha=valid * 255, nodata=0)


def _16_bit_alpha(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    write_raster(path, image.astype(np.uint16) * 30, alpha=valid * 65535)


def _16_bit_alpha_of_8_bit_values(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    write_raster(path, image.astype(np.uint16) * 30, alpha=valid * 255)


def _dataset_mask(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    write_raster(path, image, valid=valid)


def _nan(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    write_raster(path, np.where(valid, image / 255, np.nan).astype(np.float32))


def _declared_nan(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    write_raster(path, np.where(valid, image / 255, np.nan).astype(np.float32), nodata=np.nan)


def _nan_beside_nodata(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    missing = np.where(np.arange(valid.size).reshape(valid.shape) % 2, np.nan, -9999)
    write_raster(path, np.where(valid, image / 255, missing).astype(np.float32), nodata=-9999)


def _infinite(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    write_raster(path, np.where(valid, image / 255, np.inf).astype(np.float64))


def _int16(path: Path, image: np.ndarray, valid: np.ndarray) -> None:
    write_raster(path, np.where(valid, image.astype(np.int16) * 9 - 2000, -32768).astype(np.int16), nodata=-32768)


WRITERS = (
    _nodata,
    _alpha,
    _alpha_and_nodata,
    _16_bit_alpha,
    _16_bit_alpha_of_8_bit_values,
    _dataset_mask,
    _nan,
    _declared_nan,
    _nan_beside_nodata,
    _infinite,
    _int16,
)


_SCALINGS = dict.fromkeys((_nan, _declared_nan, _nan_beside_nodata, _infinite), Scaling(0, 1)) | {
    _dataset_mask: Scaling(),
    _nodata: Scaling(),
    _alpha: Scaling(),
    _alpha_and_nodata: Scaling(),
    _16_bit_alpha: Scaling(0, 255 * 30),
    _16_bit_alpha_of_8_bit_values: Scaling(0, 255 * 30),
    _int16: Scaling(-2000, 255 * 9 - 2000),
}
"""What undoes each writer's change of values."""


@pytest.mark.parametrize("write", WRITERS)
def test_every_kind_of_missing_pixel_is_invalid(tmp_path: Path, write: Callable[..., None]) -> None:
    path, valid = tmp_path / "a.tif", disc()
    write(path, noise(3, *valid.shape), valid)
    with open_scene(path) as scene:
        assert scene.num_bands == 3
        assert (whole(scene).valid == valid).all()


@pytest.mark.parametrize("write", WRITERS)
def test_a_resampled_pixel_is_valid_when_half_of_it_is(tmp_path: Path, write: Callable[..., None]) -> None:
    path, valid = tmp_path / "a.tif", disc()
    write(path, np.full((3, *valid.shape), 200, np.uint8), valid)
    coverage = valid.reshape(30, 4, 40, 4).mean(axis=(1, 3))
    with open_scene(path, resolution_m=2) as scene:
        pixels = whole(scene)
    assert pixels.valid[coverage == 1].all()
    assert not pixels.valid[coverage < 0.25].any()
    assert pixels.valid[coverage > 0.75].all()
    assert len(np.unique(pixels.image[:, pixels.valid])) == 1, "invalid pixels do not leak into valid ones"


@pytest.mark.parametrize("resolution", [0.34, 0.8, 1.3, 2.0])
@pytest.mark.parametrize("write", WRITERS)
def test_scattered_gaps_leave_the_same_share_and_averages_however_they_are_told(
    tmp_path: Path, write: Callable[..., None], resolution: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoglnet.raster.band_reader.STRIP_PIXELS", 2000)  # several strips in a small scene
    image, valid = noise(3, 160, 144), np.random.default_rng(1).random((160, 144)) > 0.05
    read = {}
    for name, how in (("mask", _dataset_mask), ("this", write)):
        how(tmp_path / f"{name}.tif", image, valid)
        with open_scene(tmp_path / f"{name}.tif", resolution_m=resolution, scaling=_SCALINGS[how]) as scene:
            read[name] = whole(scene)
    assert abs(read["this"].valid.mean() - read["mask"].valid.mean()) <= 0.001
    both = read["this"].valid & read["mask"].valid
    if resolution > 0.5:  # what is interpolated beside a gap differs
        assert np.abs(read["this"].image[:, both].astype(int) - read["mask"].image[:, both]).max() <= 1
    with open_scene(tmp_path / "this.tif", resolution_m=resolution, scaling=_SCALINGS[write]) as scene:
        part = Window(col_off=7, row_off=11, width=20, height=15)
        pixels = scene.read_window(part)
    assert np.abs(pixels.image[:, pixels.valid].astype(int) - read["this"].image[:, 11:26, 7:27][:, pixels.valid]).max() <= 1


def test_a_pixel_with_nodata_in_one_band_is_a_color(scene_factory: Factory) -> None:
    image = np.full((3, 64, 64), 9, np.uint8)
    image[0, 0, 0], image[:, 5, 5] = 0, 0
    with open_scene(scene_factory(image, nodata=0)) as scene:
        valid = whole(scene).valid
    assert valid[0, 0]
    assert not valid[5, 5]
    assert (~valid).sum() == 1


# ---- bands and values


def test_color_bands_are_found_by_their_interpretation(scene_factory: Factory) -> None:
    image = noise(4, 64, 64)
    path = scene_factory(image)
    with rasterio.open(path, "r+") as dst:
        dst.colorinterp = [rasterio.enums.ColorInterp[name] for name in ("undefined", "blue", "green", "red")]
    with open_scene(path) as scene:
        assert scene.bands == (4, 3, 2)
        assert (whole(scene).image == image[[3, 2, 1]]).all()


def test_alpha_is_never_an_image_band(scene_factory: Factory) -> None:
    path = scene_factory(noise(1, 64, 64), alpha=np.full((64, 64), 255))
    with rasterio.open(path, "r+") as dst:
        dst.colorinterp = [rasterio.enums.ColorInterp.alpha, rasterio.enums.ColorInterp.gray]
    with rasterio.open(path) as src:
        assert choose_bands(src, ["gray"]) == (2,)
        assert choose_bands(src) == (2,)
        with pytest.raises(BandsError):
            choose_bands(src, ["red", "height"])


def test_bands_can_be_chosen_and_repeated(scene_factory: Factory) -> None:
    image = noise(2, 64, 64)
    with open_scene(scene_factory(image), bands=[2, 1, 2]) as scene:
        assert (whole(scene).image == image[[1, 0, 1]]).all()


@pytest.mark.parametrize("bands", [[0], [1, 4], []])
def test_bands_that_are_not_there_are_refused(scene_factory: Factory, bands: list[int]) -> None:
    with pytest.raises((BandsError, ConfigError), match=r"has bands 1 to 3|'0' are neither"):
        open_scene(scene_factory((3, 64, 64)), bands=bands)


def test_a_gray_band_is_read_for_each_color_with_a_warning(scene_factory: Factory) -> None:
    image, progress = noise(1, 64, 64), RecordedProgress()
    with open_scene(scene_factory(image), model_bands=Bands(), progress=progress) as scene:
        assert scene.bands == (1, 1, 1)
        assert (whole(scene).image == image).all()
    assert "1 (unnamed) as red" in progress.messages("warning")[0]


def test_one_band_is_not_enough_for_a_model_of_other_bands(scene_factory: Factory) -> None:
    path = scene_factory((1, 64, 64))
    with pytest.raises(BandsError, match=r"scene\.tif has 1 image band, 2 are needed \(nir, red\); choose another"):
        open_scene(path, model_bands=Bands(("nir", "red"), (0.5, 0.5), (0.2, 0.2)))
    with open_scene(path) as scene:
        assert scene.num_bands == 1


def test_a_raster_with_nothing_but_alpha_has_no_image(scene_factory: Factory) -> None:
    path = scene_factory((1, 64, 64))
    with rasterio.open(path, "r+") as dst:
        dst.colorinterp = [ColorInterp.alpha]
    for bands in (None, Bands()):
        with pytest.raises(BandsError, match="has an alpha band and nothing else; give another raster"):
            open_scene(path, model_bands=bands)


def test_palette_images_are_told_how_to_become_colors(scene_factory: Factory) -> None:
    path = scene_factory((1, 64, 64), photometric="palette")
    with rasterio.open(path, "r+") as dst:
        dst.write_colormap(1, {0: (1, 2, 3)})
    with pytest.raises(BandsError, match="gdal_translate -expand rgb"):
        open_scene(path, model_bands=Bands())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
def test_every_number_type_is_read_as_8_bits(scene_factory: Factory, dtype: str) -> None:
    image, progress = noise(3, 64, 64), RecordedProgress()
    with open_scene(scene_factory(image.astype(dtype)), progress=progress) as scene:
        assert (whole(scene).image == image).all()
    assert len(progress.messages("log")) == (dtype != "uint8")


def test_16_bit_scenes_are_stretched_by_one_rule_for_all_windows(scene_factory: Factory) -> None:
    image = noise(3, 128, 128).astype(np.uint16) * 40
    image[:, :64] //= 4
    progress = RecordedProgress()
    with open_scene(scene_factory(image), progress=progress) as scene:
        dark = scene.read_window(Window(col_off=0, row_off=0, width=128, height=64)).image
        bright = scene.read_window(Window(col_off=0, row_off=64, width=128, height=64)).image
    assert dark.max() < 80 < bright.max() == 255
    assert "2nd to 98th percentile" in progress.messages("log")[0]


@pytest.mark.parametrize("resolution", [0.5, 2.0, 0.34])
@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("int16", -9999), ("float32", -9999.5), ("uint16", 65535)])
def test_a_value_can_be_named_that_is_none(tmp_path: Path, dtype: str, nodata: float, resolution: float) -> None:
    valid = disc()
    image = np.where(valid, np.full((3, *valid.shape), 200), nodata).astype(dtype)
    plain = write_raster(tmp_path / "plain.tif", image)
    declared = write_raster(tmp_path / "declared.tif", image, nodata=nodata)
    with open_scene(declared, resolution_m=resolution, scaling=Scaling()) as scene:
        expected = whole(scene)
    with open_scene(plain, resolution_m=resolution, scaling=Scaling(), nodata=nodata) as scene, scene.reopened() as again:
        for pixels in (whole(scene), whole(again)):
            assert (pixels.valid == expected.valid).all()
            assert (pixels.image[:, pixels.valid] == 200).all(), "nothing leaks"


@pytest.mark.parametrize(("dtype", "none"), [("int16", -9999), ("float32", -9999), ("int32", -(2**31))])
def test_a_collar_that_nobody_declared_is_found_and_said(tmp_path: Path, dtype: str, none: int) -> None:
    valid, progress = disc(), RecordedProgress()
    image = np.where(valid, noise(3, *valid.shape).astype(dtype), np.array(none, dtype))
    with open_scene(write_raster(tmp_path / "a.tif", image), progress=progress) as scene:
        pixels = whole(scene)
        assert (pixels.valid == valid).all()
        assert (pixels.image[:, valid] == image[:, valid].astype(int)).all()
        assert scene.values_rule.endswith(f"; {none} is no value")
    assert f"{none} lies far from all other values" in progress.messages("warning")[0]
    assert "choose another value with nodata=…" in progress.messages("warning")[0]


def test_a_side_of_one_color_is_doubted_but_kept(tmp_path: Path) -> None:
    image, progress = noise(3, 64, 64).astype(np.float32), RecordedProgress()
    image[:, :, :9] = 241
    with open_scene(write_raster(tmp_path / "a.tif", image), progress=progress) as scene:
        assert whole(scene).valid.all()
    assert (
        "all bands are 241 along one of its sides; if that means nodata, pass nodata=241.0" in progress.messages("warning")[0]
    )


@pytest.mark.parametrize(("name", "rule"), [("height", ValueRange(0, 20)), ("red", ValueRange(0, 20))])
@pytest.mark.parametrize("value", [0, 40])
def test_ground_of_height_0_is_no_collar(tmp_path: Path, name: str, rule: ValueRange, value: float) -> None:
    """Roofs and trees stand apart from the ground around them, as an orthophoto does from its collar."""
    progress = RecordedProgress()
    heights = np.full((1, 64, 64), value, np.float32)
    heights[:, 20:50, 20:50] = 4 + noise(1, 30, 30) / 50
    bands = Bands((name,), (0.5,), (0.2,), rule)
    with open_scene(write_raster(tmp_path / "a.tif", heights), model_bands=bands, progress=progress) as scene:
        is_valid = whole(scene).valid
    is_ground = name == "height" and value == 0  # 40 m are outside of the range
    assert bool(progress.messages("warning")) is not is_ground
    assert is_valid[20:50, 20:50].all()
    assert is_valid[0].all() == (is_ground or value == 40)


def test_one_glint_does_not_turn_a_scene_black(scene_factory: Factory) -> None:
    image, progress = noise(3, 64, 64), RecordedProgress()
    bright = (image / 255).astype(np.float32)
    bright[:, 10:12, 10:12] = 1.02
    with open_scene(scene_factory(bright), progress=progress) as scene:
        found = whole(scene).image
    image[:, 10:12, 10:12] = 255
    assert (found == image).all()
    assert progress.messages("warning") == []


def test_the_callers_scaling_is_used(scene_factory: Factory) -> None:
    image = np.full((3, 64, 64), 100, np.uint8)
    with open_scene(scene_factory(image), scaling=Scaling(50, 150)) as scene:
        assert (whole(scene).image == 128).all()


def test_a_model_may_want_8_bit_values_stretched_too(scene_factory: Factory) -> None:
    dark, progress = noise(3, 128, 128) // 4, RecordedProgress()
    path = scene_factory(dark)
    with open_scene(path) as scene:
        assert whole(scene).image.max() < 64
    with open_scene(path, model_bands=Bands(scaling=ScalingRule.STRETCH), progress=progress) as scene:
        stretched = whole(scene).image
    assert stretched.min() == 0
    assert stretched.max() == 255
    assert "2nd to 98th percentile" in progress.messages("log")[0]


# ---- what cannot be read


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(SceneNotFoundError, match=r"none\.tif does not exist"):
        open_scene(tmp_path / "none.tif")
    with pytest.raises(FileNotFoundError):
        open_scene("x" * 400)


def test_a_file_that_is_no_raster_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.tif").write_text("no pixels here")
    for path in (tmp_path / "notes.tif", tmp_path, "/vsizip/none.zip/a.tif", "NETCDF:none.nc:band"):
        with pytest.raises(SceneError, match="not a raster that GDAL can read") as caught:
            open_scene(path)
        assert "\n" not in str(caught.value)


def test_a_file_cut_in_half_names_itself_and_the_window(scene_factory: Factory) -> None:
    path = scene_factory((3, 256, 256))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_scene(path) as scene:
        scene.read_window(Window(col_off=0, row_off=0, width=64, height=20))  # this part is there
        with pytest.raises(SceneError, match=r"scene\.tif cannot be read \(10 × 16 px at column 200, row 240") as caught:
            scene.read_window(Window(col_off=200, row_off=240, width=10, height=16))
    assert "\n" not in str(caught.value)


def test_a_missing_part_of_a_vrt_is_named_and_nothing_is_said_to_be_damaged(tmp_path: Path) -> None:
    """Each time: of the second one GDAL says nothing, when it has read a VRT within a VRT, and gives zeros."""
    write_raster(tmp_path / "a.tif", noise(1, 64, 64))
    write_vrt(tmp_path / "inner.vrt", "a.tif", num_bands=1)
    with open_scene(write_vrt(tmp_path / "outer.vrt", "inner.vrt", num_bands=1), bands=[1]) as scene:
        whole(scene)
    path = write_vrt(tmp_path / "a.vrt", "gone.tif")
    for name in (path, write_vrt(tmp_path / "around.vrt", "a.vrt"), write_vrt(tmp_path / "b.vrt", "gone.vrt"), path):
        with pytest.raises(SceneError, match=r"\w\.vrt cannot be read, its part .*gone\.\w+ does not exist") as caught:
            open_scene(name, bands=[1])
        assert not any(word in str(caught.value) for word in ("truncated", "damaged", "fetch", "\n"))


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_values_are_refused_and_their_amplitude_is_read(tmp_path: Path, dtype: str) -> None:
    image = noise(3, 64, 64).astype(np.float32)
    profile = {"driver": "GTiff", "count": 3, "height": 64, "width": 64, "crs": "EPSG:32736", "dtype": dtype}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, transform=Affine(1, 0, 5e5, 0, -1, 9e6)) as dst:
        dst.write((image * (3 + 4j)).astype(np.complex64))
    with pytest.raises(SceneError, match=rf"a\.tif holds complex values \({dtype}") as caught:
        open_scene(tmp_path / "a.tif")
    amplitude = str(caught.value).rpartition(" ")[2]
    with open_scene(amplitude, scaling=Scaling(0, 255 * 5)) as scene:
        assert (whole(scene).image == image).all()
    with pytest.raises(SceneError, match="complex"):
        mosaic_of([tmp_path / "a.tif", tmp_path / "a.tif"])
    with rasterio.open(tmp_path / "a.tif") as src, pytest.raises(BandsError):
        DatasetTiles(src)


def test_descriptions_in_a_string_are_called_by_their_kind() -> None:
    service = (
        "<GDAL_WMS>\n <Service name='TMS'><ServerUrl>http://127.0.0.1:9/${z}/${x}/${y}.png</ServerUrl></Service>\n</GDAL_WMS>"
    )
    with pytest.raises(SceneError, match=r"^<GDAL_WMS> \(described in a string\) cannot be opened") as caught:
        open_scene(service)
    assert "\n" not in str(caught.value)
    assert Source.of(service).name == "<GDAL_WMS> (described in a string)"


def test_a_stac_item_names_its_assets(tmp_path: Path) -> None:
    assets = {"visual": {"href": "https://example.org/a.tif"}, "thumbnail": {"href": "a.png"}}
    path = tmp_path / "item.json"
    path.write_text(json.dumps({"type": "Feature", "stac_version": "1.0.0", "geometry": None, "assets": assets}))
    with pytest.raises(SceneError, match=r"item\.json is a STAC item.*assets: visual \(https://example\.org/a\.tif\), thumb"):
        open_scene(path)
    path.write_text("[1, 2]")
    with pytest.raises(SceneError, match="not a raster"):
        open_scene(path)


def test_a_jpeg_cut_in_half_is_not_read_as_gray(scene_factory: Factory) -> None:
    path = scene_factory((3, 256, 256), name="photo.jpg", driver="JPEG", crs=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_scene(path) as scene, pytest.raises(SceneError, match=r"photo\.jpg cannot be read"):
        whole(scene)


def test_a_jpeg_with_damaged_bytes_is_not_read_as_garbage(scene_factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scene_factory((3, 256, 256), name="photo.jpg", driver="JPEG", crs=None)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 500] = b"\xfe" * 500
    path.write_bytes(content)
    with open_scene(path) as scene, pytest.raises(SceneError, match=r"photo\.jpg cannot be read \(.*Corrupt JPEG"):
        whole(scene)
    monkeypatch.setenv("GDAL_ERROR_ON_LIBJPEG_WARNING", "NO")  # what the user set wins
    with open_scene(path) as scene:
        assert whole(scene).valid.all()


def test_a_container_without_bands_offers_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "two.gpkg"
    for table, append in (("first", "NO"), ("second", "YES")):
        write_raster(path, noise(3, 64, 64), driver="GPKG", RASTER_TABLE=table, APPEND_SUBDATASET=append)
    with pytest.raises(BandsError, match=r"two\.gpkg has no bands; name one of its parts, such as GPKG:.*:first"):
        open_scene(path)
    with open_scene(f"GPKG:{path}:first") as scene:
        assert scene.num_bands == 3


def test_virtual_paths_and_mosaics_are_scenes(scene_factory: Factory, tmp_path: Path) -> None:
    image = noise(3, 64, 64)
    path = scene_factory(image)
    shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path, path.name)
    rasterio.shutil.copy(path, tmp_path / "mosaic.vrt", driver="VRT")
    for name in (
        f"/vsizip/{tmp_path}/zipped.zip/{path.name}",
        f"zip://{tmp_path}/zipped.zip!{path.name}",
        tmp_path / "mosaic.vrt",
    ):
        with open_scene(name) as scene:
            assert (whole(scene).image == image).all()


def test_a_tile_index_is_a_mosaic(scene_factory: Factory, tmp_path: Path) -> None:
    with rasterio.Env() as gdal:
        if "GTI" not in gdal.drivers():
            pytest.skip("tile indexes need GDAL 3.9")
    image = noise(3, 64, 128)
    tiles = []
    for left in (0, 64):
        place = Affine.translation(500_000 + left, 9_000_000) @ Affine.scale(1, -1)
        tiles.append(scene_factory(image[:, :, left : left + 64], name=f"{left}.tif", transform=place))
    boxes = [shapely.box(500_000 + left, 9_000_000 - 64, 500_000 + left + 64, 9_000_000) for left in (0, 64)]
    index = geopandas.GeoDataFrame({"location": list(map(str, tiles))}, geometry=boxes, crs="EPSG:32736")
    index.to_file(tmp_path / "index.gti.gpkg", layer="index")
    for name in (tmp_path / "index.gti.gpkg", f"GTI:{tmp_path}/index.gti.gpkg"):
        with open_scene(name) as scene:
            assert (whole(scene).image == image).all()
            assert [Path(path).name for path in scene.file_paths] == ["index.gti.gpkg", "0.tif", "64.tif"]


def test_the_block_cache_is_small_while_we_read() -> None:
    with environment():
        assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == BLOCK_CACHE_BYTES == 64 * 2**20


def test_shapes_have_names(scene_factory: Factory) -> None:
    with open_scene(scene_factory((3, 64, 80))) as scene:
        assert scene.shape == Shape(height=64, width=80)
        assert scene.name.endswith("scene.tif")


# ---- values of models that are not 8-bit ones


def named(rule: BandRule | tuple[BandRule, ...], *names: str) -> Bands:
    return Bands(names or ("red", "green", "blue"), scaling=rule)


def test_a_model_of_reflectance_gets_it_unrounded(scene_factory: Factory) -> None:
    values = (np.arange(3 * 40 * 50).reshape(3, 40, 50) % 4096 + 1000).astype(np.uint16)
    path = scene_factory(values)
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = [1e-4] * 3, [-0.1] * 3
    progress = RecordedProgress()
    with open_scene(path, model_bands=named(ScalingRule.REFLECTANCE), progress=progress) as scene:
        image = whole(scene).image
    assert image.dtype == np.float32
    assert np.abs(image / 255 - (values * 1e-4 - 0.1)).max() < 1e-6
    assert "after the raster's scale 0.0001 and offset -0.1" in progress.messages("log")[-1]


def test_bands_of_one_raster_follow_their_own_rules(scene_factory: Factory) -> None:
    values = np.random.default_rng(0).random((2, 40, 50)).astype(np.float32)
    values[1] = 100 + 20 * values[1]
    bands = named((ScalingRule.REFLECTANCE, ValueRange(100, 120)), "red", "height")
    with open_scene(scene_factory(values), model_bands=bands) as scene, scene.reopened() as again:
        image = whole(scene).image
        assert (whole(again).image == image).all()
    expected = np.stack([values[0], (values[1] - 100) / 20]) * 255
    assert np.abs(image - expected).max() < 1e-2


def test_a_pixel_that_lacks_one_band_is_invalid(scene_factory: Factory) -> None:
    values = np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)
    values[1, 3:9, 5:20] = -9999
    values[0, 40, 50] = np.nan
    progress = RecordedProgress()
    bands = named((ScalingRule.REFLECTANCE, ValueRange(0, 1)), "red", "height")
    with open_scene(scene_factory(values), model_bands=bands, progress=progress) as scene:
        pixels = whole(scene)
    expected = np.ones((64, 64), bool)
    expected[3:9, 5:20] = expected[40, 50] = False
    assert (pixels.valid == expected).all()
    assert np.isfinite(pixels.image).all()
    assert "band height is -9999 in 2.2% of the pixels, far from its other values" in progress.messages("warning")[0]


def test_a_band_without_any_value_is_named(scene_factory: Factory) -> None:
    values = np.ones((2, 64, 64), np.float32)
    values[1] = np.nan
    with pytest.raises(SceneError, match=r"band 2 \(height\) has no value but NaN, so no pixel is valid"):
        open_scene(scene_factory(values), model_bands=named(ScalingRule.PERCENTILES, "red", "height"))


def test_ends_that_the_user_gives_hold_for_every_band(scene_factory: Factory) -> None:
    values = np.arange(2 * 8 * 8, dtype=np.uint16).reshape(2, 8, 8) * 10
    with open_scene(
        scene_factory(values), model_bands=named(ScalingRule.AS_IS, "red", "nir"), scaling=Scaling(0, 1000)
    ) as scene:
        assert np.abs(whole(scene).image - values * 0.255).max() < 1e-3


def test_a_collar_does_not_darken_a_stretched_scene(scene_factory: Factory) -> None:
    values = np.random.default_rng(0).integers(1000, 5000, (3, 64, 64)).astype(np.uint16)
    with open_scene(scene_factory(values, name="plain.tif")) as plain:
        expected = plain.scaling
    values[:, :12] = values[:, :, :12] = 241
    progress = RecordedProgress()
    with open_scene(scene_factory(values), progress=progress) as scene:
        assert scene.scaling.low == pytest.approx(expected.low, abs=20)
        assert scene.scaling.high == pytest.approx(expected.high, abs=20)
        assert whole(scene).valid.all()
    assert "all bands are 241 along one of its sides; if that means nodata" in progress.messages("warning")[0]


@pytest.mark.parametrize(("value", "is_nodata"), [(0, True), (65535, True), (995, False)])
def test_a_frame_that_stands_apart_is_no_value(scene_factory: Factory, value: int, is_nodata: bool) -> None:
    values = np.random.default_rng(0).integers(1000, 5000, (3, 64, 64)).astype(np.uint16)
    values[:, :12] = value
    progress = RecordedProgress()
    with open_scene(scene_factory(values), progress=progress) as scene:
        pixels = whole(scene)
    assert pixels.valid[12:].all()
    assert pixels.valid[:12].any() != is_nodata
    assert ("apart from all other values, and read as nodata, in 18.8%" in progress.messages("warning")[0]) == is_nodata


def test_water_along_a_side_is_not_taken_for_a_frame(scene_factory: Factory) -> None:
    values = np.random.default_rng(0).integers(0, 5000, (3, 64, 64)).astype(np.uint16)
    values[:, :12] = 0
    with open_scene(scene_factory(values)) as scene:
        assert whole(scene).valid.all()
