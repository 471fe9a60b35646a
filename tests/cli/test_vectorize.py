"""``vectorize`` and ``predict --vector`` with all their options, as people type them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from click.testing import CliRunner, Result
from scipy.ndimage import gaussian_filter

from geoglnet.cli.main import geoglnet
from tests.rasters import write_raster

CLEAN = ("--sieve", "20px", "--fill-holes", "--opening", "1")
SHAPE = ("--simplify", "1.5px", "--smooth", "--min-area", "2", "--min-hole", "1")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(geoglnet, [*map(str, arguments)])


@pytest.fixture
def labels_path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    fields = [gaussian_filter(rng.standard_normal((200, 160)), 2) for _ in range(3)]
    return write_raster(tmp_path / "labels.tif", np.argmax(fields, axis=0).astype(np.uint8)[None])


def read(path: Path) -> pyogrio.read_dataframe:
    return pyogrio.read_dataframe(path, layer=path.stem)


@pytest.mark.smoke
def test_all_options_together_give_few_valid_polygons(labels_path: Path, tmp_path: Path) -> None:
    exact = run("vectorize", labels_path, tmp_path / "exact.gpkg")
    ran = run("vectorize", labels_path, tmp_path / "out.gpkg", *CLEAN, *SHAPE, "--connectivity", "8", "--style", "qml")
    assert (exact.exit_code, ran.exit_code) == (0, 0), ran.output
    before, after = read(tmp_path / "exact.gpkg"), read(tmp_path / "out.gpkg")
    assert 0 < len(after) < 0.7 * len(before)
    assert after.geometry.is_valid.all()
    assert after.area_m2.min() >= 2
    assert (tmp_path / "out.qml").exists()


def test_regularize_makes_right_angles(tmp_path: Path) -> None:
    labels = np.zeros((1, 80, 80), dtype=np.uint8)
    rows, cols = np.mgrid[:80, :80]
    labels[0] = (np.abs(rows + 0.5 * cols - 60) < 20) & (np.abs(cols - 0.5 * rows - 20) < 15)
    path = write_raster(tmp_path / "labels.tif", labels)
    assert run("vectorize", path, tmp_path / "out.gpkg", "--regularize").exit_code == 0
    (building,) = read(tmp_path / "out.gpkg").geometry
    assert len(building.exterior.coords) == 5
    assert building.area / building.minimum_rotated_rectangle.area == pytest.approx(
        1, rel=1e-4
    )  # a pixel is not square to the last meter


def test_predict_takes_the_same_options(scene_path: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    model = ("--model", tiny_model_path, "--device", "cpu", "--batch", "9")
    ran = run("predict", scene_path, "-o", tmp_path / "l.tif", "--vector", tmp_path / "a.gpkg", *model, *CLEAN, *SHAPE)
    assert ran.exit_code == 0, ran.output
    assert run("vectorize", tmp_path / "l.tif", tmp_path / "b.gpkg", *CLEAN, *SHAPE).exit_code == 0
    one, two = read(tmp_path / "a.gpkg"), read(tmp_path / "b.gpkg")
    assert list(one.geometry) == list(two.geometry)
    assert set(one.model) == set(two.model)
    assert all(str(name).startswith("tiny sha256:") for name in one.model)
    assert set(one.scene) == {scene_path.name}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--simplify", "2"), "'2' must be a number with a unit"),
        (("--simplify", "3m2"), "2px or 2m"),
        (("--sieve", "5m"), "2px or 2m2"),
        (("--connectivity", "6"), "--connectivity"),
        (("--opening", "65"), "--opening"),
        (("--workers", "0"), "--workers"),
        (("--style", "css"), "--style"),
    ],
)
def test_options_that_make_no_sense_exit_with_2(
    labels_path: Path, tmp_path: Path, arguments: tuple[str, str], words: str
) -> None:
    ran = run("vectorize", labels_path, tmp_path / "out.gpkg", *arguments)
    assert ran.exit_code == 2
    assert words in ran.stderr


def test_bad_rasters_are_one_line(tmp_path: Path) -> None:
    floats = write_raster(tmp_path / "floats.tif", np.zeros((1, 8, 8), np.float32))
    colors = write_raster(tmp_path / "colors.tif", np.zeros((3, 8, 8), np.uint8))
    many = write_raster(tmp_path / "many.tif", np.arange(2**32, 2**32 + 100).reshape(1, 10, 10))
    for path, words in ((floats, "holds float32 values"), (colors, "has 3 bands"), (many, "which does not fit 32 bits")):
        ran = run("vectorize", path, tmp_path / "out.gpkg")
        assert ran.exit_code == 1
        assert len(ran.stderr.splitlines()) == 1
        assert words in ran.stderr
    assert not (tmp_path / "out.gpkg").exists()


def write_label_vrt(tmp_path: Path, head: str, labels: np.ndarray) -> Path:
    write_raster(tmp_path / "bare.tif", labels, crs=None)
    source = '<SourceFilename relativeToVRT="1">bare.tif</SourceFilename>'
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource></VRTRasterBand>'
    height, width = labels.shape[1:]
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{head}{band}</VRTDataset>')
    return tmp_path / "a.vrt"


@pytest.mark.parametrize("numbers", ["0,0,0,0,0,0", "100,1,0,200,0,0", "10,1,1,10,1,1", "4.6e-310,4.6e-310,0,1,0,4.6e-310"])
@pytest.mark.parametrize("options", [(), ("--sieve", "20px")])
def test_labels_whose_transform_places_no_pixel_are_traced_in_pixels(
    tmp_path: Path, numbers: str, options: tuple[str, ...]
) -> None:
    head = f"<SRS>EPSG:32645</SRS><GeoTransform>{numbers}</GeoTransform>"
    labels = (np.indices((60, 80)).sum(axis=0) % 40 < 20).astype(np.uint8)[None]
    ran = run("vectorize", write_label_vrt(tmp_path, head, labels), tmp_path / "out.gpkg", *options)
    assert ran.exit_code == 0, ran.output
    (warning,) = [line for line in ran.output.splitlines() if line.startswith("Warning")]
    assert "has the unusable geotransform " in warning
    assert " (its CRS, EPSG:32645, is not used)" in warning
    traced = read(tmp_path / "out.gpkg")
    assert traced.geometry.is_valid.all()
    assert traced.area.sum() == labels.sum()
    assert traced.crs is None or not traced.crs.is_projected
    assert traced.area_m2.isna().all()


def test_what_gdal_says_of_a_failed_read_is_kept(tmp_path: Path) -> None:
    path = write_label_vrt(tmp_path, "", np.ones((1, 64, 64), np.uint8))
    (tmp_path / "bare.tif").unlink()
    ran = run("vectorize", path, tmp_path / "out.gpkg")
    assert ran.exit_code == 1
    (line,) = ran.output.splitlines()
    assert "bare.tif does not exist; restore it" in line
    assert not any(word in line for word in ("truncated", "damaged", "fetch"))


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_labels_are_refused_in_one_line(tmp_path: Path, dtype: str) -> None:
    profile = {"driver": "GTiff", "count": 1, "height": 64, "width": 64, "crs": "EPSG:32736", "dtype": dtype}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, transform=rasterio.Affine(1, 0, 5e5, 0, -1, 9e6)) as dst:
        dst.write(np.ones((1, 64, 64), np.complex64))
    ran = run("vectorize", tmp_path / "a.tif", tmp_path / "out.gpkg")
    assert ran.exit_code == 1
    (line,) = ran.output.splitlines()
    assert "holds complex values" in line


def test_one_class_everywhere_is_one_rectangle(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", np.ones((1, 300, 200), np.uint8))
    assert run("vectorize", path, tmp_path / "out.gpkg", "--simplify", "2px").exit_code == 0
    (polygon,) = read(tmp_path / "out.gpkg").geometry
    assert polygon.equals(shapely.box(*polygon.bounds))
    assert polygon.area == pytest.approx(300 * 200 / 4)


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb", "out.geojson", "out.geojsonl", "out.parquet"])
def test_a_full_disk_is_one_line_whatever_the_format(small_disk: Path, labels_path: Path, name: str) -> None:
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 120_000))
    ran = run("vectorize", labels_path, small_disk / name, "--sieve", "2px")
    assert ran.exit_code == 1, ran.output
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_canceled_run_leaves_neither_files_nor_processes(tmp_path: Path, workers: str) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (500, 500), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    labels = write_raster(tmp_path / "labels.tif", np.tile(noise, (3, 3))[None])
    command = [sys.executable, "-m", "geoglnet", "vectorize", labels, tmp_path / "out.fgb", "--workers", workers]
    process = subprocess.Popen(
        [*command, "--simplify", "1px", "--progress", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    while json.loads(process.stdout.readline())["event"] != "progress":
        pass
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=600)
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["labels.tif"]
    assert eventually(lambda: not group_lives(process.pid))


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def eventually(is_true: Callable[[], bool], seconds: float = 120) -> bool:
    until = time.monotonic() + seconds
    while not is_true() and time.monotonic() < until:
        time.sleep(0.05)
    return is_true()


def test_labels_keep_their_place_when_they_are_cleaned(labels_path: Path, tmp_path: Path) -> None:
    assert run("vectorize", labels_path, tmp_path / "out.gpkg", "--sieve", "10px").exit_code == 0
    with rasterio.open(labels_path) as src:
        west, south, east, north = src.bounds
    bounds = read(tmp_path / "out.gpkg").total_bounds
    assert bounds[0] >= west
    assert bounds[1] >= south
    assert bounds[2] <= east
    assert bounds[3] <= north
