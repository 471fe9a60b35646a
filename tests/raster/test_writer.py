"""Label rasters written block by block, also on a disk that fills up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.windows import Window

from geoglnet.errors import OutputError
from geoglnet.legend import Legend
from geoglnet.raster.cog import write_cog
from geoglnet.raster.writer import LabelWriter, num_valid_pixels, tile_size
from geoglnet.types import Shape
from tests.campaign.faults import build_library

UTM = CRS.from_epsg(32736)
TRANSFORM = Affine(0.5, 0, 5e5, 0, -0.5, 9e6)


def noisy_labels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (height, width), dtype=np.uint8)


def cores(shape: Shape, size: int) -> Iterator[Window]:
    for row in range(0, shape.height, size):
        for col in range(0, shape.width, size):
            yield Window(col, row, min(size, shape.width - col), min(size, shape.height - row))


def write_labels(path: Path, labels: np.ndarray, core_size: int = 512) -> None:
    shape = Shape(*labels.shape)
    with LabelWriter(path, shape, transform=TRANSFORM, crs=UTM, core_size=core_size) as writer:
        for core in cores(shape, core_size):
            writer.write_block(core, labels[core.toslices()])


@given(st.integers(1, 400).map(lambda n: 16 * n))
def test_tiles_divide_the_cores_and_are_powers_of_two(core_size: int) -> None:
    tile = tile_size(core_size)
    assert core_size % tile == 0
    assert tile in (16, 32, 64, 128, 256, 512)
    assert tile == 512 or core_size % (2 * tile)


def test_cores_that_tiles_cannot_fill_are_refused() -> None:
    with pytest.raises(OutputError, match="cores of 100 px"):
        tile_size(100)


@pytest.mark.parametrize(("shape", "core_size"), [((300, 500), 64), ((1, 1), 16), ((2048, 1100), 1024)])
def test_what_is_written_is_read_back(tmp_path: Path, shape: tuple[int, int], core_size: int) -> None:
    labels = noisy_labels(*shape)
    labels[: shape[0] // 3] = 255
    write_labels(tmp_path / "a.tif", labels, core_size)
    with rasterio.open(tmp_path / "a.tif") as src:
        assert (src.read(1) == labels).all()
        assert (src.nodata, src.crs, src.transform) == (255, UTM, TRANSFORM)
        assert src.block_shapes == [(tile_size(core_size), tile_size(core_size))]
        assert src.compression.name == "deflate"
    assert num_valid_pixels(tmp_path / "a.tif") == (labels != 255).sum()


def test_tiles_of_nodata_take_no_space(tmp_path: Path) -> None:
    write_labels(tmp_path / "empty.tif", np.full((4096, 4096), 255, np.uint8))
    assert (tmp_path / "empty.tif").stat().st_size < 3000


def test_a_raster_without_crs_is_written_without_a_warning(tmp_path: Path) -> None:
    with LabelWriter(tmp_path / "a.tif", Shape(16, 16), transform=Affine.identity(), crs=None, core_size=16) as writer:
        writer.write_block(Window(0, 0, 16, 16), np.zeros((16, 16), np.uint8))
    assert num_valid_pixels(tmp_path / "a.tif") == 256


@pytest.mark.parametrize("window", [Window(8, 0, 64, 64), Window(0, 0, 60, 64), Window(64, 0, 64, 64)])
def test_windows_that_cut_tiles_are_refused(tmp_path: Path, window: Window) -> None:
    with (
        LabelWriter(tmp_path / "a.tif", Shape(100, 100), transform=TRANSFORM, crs=UTM, core_size=64) as writer,
        pytest.raises(OutputError, match="whole 64 px tiles"),
    ):
        writer.write_block(window, np.zeros((window.height, window.width), np.uint8))


def test_blocks_must_fill_their_windows(tmp_path: Path) -> None:
    with LabelWriter(tmp_path / "a.tif", Shape(64, 64), transform=TRANSFORM, crs=UTM, core_size=64) as writer:
        for block in (np.zeros((64, 63), np.uint8), np.zeros((64, 64), np.int32)):
            with pytest.raises(OutputError, match="does not fill"):
                writer.write_block(Window(0, 0, 64, 64), block)


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/a\.tif cannot be written"):
        LabelWriter(tmp_path / "none" / "a.tif", Shape(64, 64), transform=TRANSFORM, crs=UTM, core_size=64)


def test_an_exception_inside_is_not_hidden_by_closing(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyError),
        LabelWriter(tmp_path / "a.tif", Shape(64, 64), transform=TRANSFORM, crs=UTM, core_size=64),
    ):
        raise KeyError


# ---- a disk that fills up


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("size", [1536, 9216])
def test_a_full_disk_is_an_error_whether_found_when_writing_or_when_closing(small_disk: Path, size: int) -> None:
    with pytest.raises(OutputError, match="disk full while writing") as caught:
        write_labels(small_disk / "a.tif", noisy_labels(size, size))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def large_labels_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "tiles.tif"
    write_labels(path, noisy_labels(1024, 1024))
    return path


LEGEND = Legend(tuple(f"class {i}" for i in range(200)), ((0, 0, 0),) * 200)


@pytest.mark.parametrize("free", [100, 500, 900, 1300])
def test_a_cog_on_a_full_disk_is_an_error(large_labels_path: Path, small_disk: Path, free: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={free}k", str(small_disk)], check=True)
    with pytest.raises(OutputError, match="disk full while writing") as caught:
        write_cog(large_labels_path, small_disk / "b.tif", legend=LEGEND)
    assert "\n" not in str(caught.value)


def test_a_cog_that_just_fits_is_whole(large_labels_path: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=5m", str(small_disk)], check=True)
    write_cog(large_labels_path, small_disk / "b.tif", legend=LEGEND)
    with rasterio.open(small_disk / "b.tif") as src:
        assert (src.read(1) == noisy_labels(1024, 1024)).all()


def test_a_block_lost_on_the_way_to_the_disk_is_noticed(tmp_path: Path) -> None:
    writer = LabelWriter(tmp_path / "a.tif", Shape(64, 128), transform=TRANSFORM, crs=UTM, core_size=64)
    writer.write_block(Window(0, 0, 64, 64), np.zeros((64, 64), np.uint8))
    writer.num_valid += 4096
    with pytest.raises(OutputError, match="4096 of 8192 pixels did not reach the file") as caught:
        writer.close()
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_behind_our_back_is_noticed(tmp_path: Path) -> None:
    writer = LabelWriter(tmp_path / "a.tif", Shape(1024, 1024), transform=TRANSFORM, crs=UTM, core_size=512)
    for core in cores(writer.shape, 512):
        writer.write_block(core, noisy_labels(512, 512))
    writer.abandon()
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:400_000])
    with pytest.raises(OutputError, match="cannot be written"):
        writer.close()


# ---- writes that fail one at a time

EVERY_WRITE = """
import errno, json, sys
from pathlib import Path
from geoglnet.errors import OutputError
from tests.campaign.faults import Fault, arm
from tests.raster.test_writer import *

folder, kind, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
error = getattr(errno, sys.argv[4])
labels = noisy_labels(size, size)
write_labels(folder.with_name("tiles.tif"), labels)

def write():
    if kind == "cog":
        write_cog(folder.with_name("tiles.tif"), folder / "a.tif", legend=None, tags={"A": "b" * 300})
    else:
        write_labels(folder / "a.tif", labels)

count = arm(Fault("", 0), folder)
write()
num_writes, ends = count()["write"], {False: set(), True: set()}
for nth in range(1, num_writes + 1):
    for lasts in ends:
        for path in folder.iterdir():
            path.unlink()
        arm(Fault("write", nth, error, lasts), folder)
        try:
            write()
            ends[lasts].add(f"{nth}: done")
        except OutputError as failure:
            ends[lasts].add(str(failure).replace(str(folder), ""))
        except BaseException as failure:
            ends[lasts].add(f"{nth}: {failure!r}")
print(json.dumps([num_writes, *map(sorted, ends.values())]))
"""


@pytest.mark.parametrize(("kind", "size", "error"), [("cog", 80, "ENOSPC"), ("cog", 600, "EDQUOT"), ("tiles", 600, "EIO")])
def test_no_write_that_fails_once_or_from_then_on_is_lost_or_speaks_on_stderr(
    tmp_path: Path, kind: str, size: int, error: str
) -> None:
    library = build_library(tmp_path)
    if sys.platform != "linux" or library is None:
        pytest.skip("needs a C compiler and LD_PRELOAD")
    (tmp_path / "out").mkdir()
    words = [sys.executable, "-c", EVERY_WRITE, str(tmp_path / "out"), kind, str(size), error]
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    num_writes, once, from_then_on = json.loads(ran.stdout)
    assert num_writes > 10
    said = "/a.tif cannot be written (Input/output error); choose another output"
    expected = ["disk full while writing /a.tif; free some space or choose another output" if error != "EIO" else said]
    assert (once, from_then_on) == (expected, expected)
    assert ran.stderr == ""
