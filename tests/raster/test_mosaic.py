"""Several scenes as one: each is placed right, with its colors, or refused in one line that names it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geoglnet.errors import SceneError
from geoglnet.raster.mosaic import mosaic_of
from geoglnet.raster.scene import open_scene
from tests.rasters import noise, write_raster

R, G, B, ALPHA, NONE = (
    ColorInterp.red,
    ColorInterp.green,
    ColorInterp.blue,
    ColorInterp.alpha,
    ColorInterp.undefined,
)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 9_000_000)
BESIDE = NORTH_UP @ Affine.translation(96, 0)


def write(path: Path, image: np.ndarray, transform: Affine, colors: tuple[ColorInterp, ...] = (R, G, B)) -> Path:
    write_raster(path, image, transform=transform, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as dst:
        dst.colorinterp = colors
    return path


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (Affine(0.5, 0, 500_048, 0, 0.5, 8_999_968), r"pixels of 0\.5 × 0\.5 in rows that run northwards, .* 0\.5 × 0\.5; "),
        (Affine(-0.5, 0, 500_096, 0, -0.5, 9_000_000), r"pixels of 0\.5 × 0\.5 in columns that run westwards, "),
        (Affine(0.5, 0, 500_048, 0, -1, 9_000_000), r"pixels of 0\.5 × 1, "),
        (Affine(0.25, 0, 500_048, 0, -0.25, 9_000_000), r"pixels of 0\.25 × 0\.25, "),
        (BESIDE @ Affine.rotation(30), r"pixels of 0\.5 × 0\.5 .*turned by 150°, "),
        (BESIDE @ Affine.translation(0.5, 0), r"lies 0\.50, 0\.00 px off the first scene's grid"),
    ],
)
def test_a_scene_of_another_grid_is_refused_for_what_it_is(tmp_path: Path, transform: Affine, said: str) -> None:
    first = write(tmp_path / "a.tif", noise(3, 64, 96), NORTH_UP)
    other = write(tmp_path / "b.tif", noise(3, 64, 96), transform)
    with pytest.raises(SceneError, match=rf"b\.tif (has )?{said}") as caught:
        mosaic_of([first, other])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", [0.5, -0.5])
def test_scenes_that_all_run_one_way_are_placed_right(tmp_path: Path, step: float) -> None:
    image = noise(3, 64, 192)
    place = Affine(0.5, 0, 500_000, 0, step, 9_000_000)
    paths = [write(tmp_path / f"{col}.tif", image[:, :, col : col + 96], place @ Affine.translation(col, 0)) for col in (96, 0)]
    with open_scene(mosaic_of(paths)) as scene:
        assert scene.transform == place
        np.testing.assert_array_equal(scene.read_window(Window(0, 0, 192, 64)).image, image)


@pytest.mark.parametrize(
    ("ours", "theirs", "order"),
    [
        ((R, G, B), (B, G, R), (2, 1, 0)),
        ((B, G, R), (R, G, B), (2, 1, 0)),
        ((R, G, B, NONE), (NONE, R, G, B), (1, 2, 3, 0)),
        ((R, G, B, ALPHA), (ALPHA, B, G, R), (3, 2, 1, 0)),
        ((R, G, B), (NONE, NONE, NONE), (0, 1, 2)),
        ((R, G, B, ALPHA), (R, G, B, NONE), (0, 1, 2, 3)),
        ((R, G, B), (NONE, G, R), None),
        ((NONE, NONE, NONE), (B, G, R), None),
    ],
)
def test_bands_go_where_their_colors_belong(
    tmp_path: Path, ours: tuple[ColorInterp, ...], theirs: tuple[ColorInterp, ...], order: tuple[int, ...] | None
) -> None:
    """``order``: where each band of the first scene's order stands in the other file; ``None``: nobody knows."""
    image = noise(len(ours), 64, 192)
    first = write(tmp_path / "a.tif", image[:, :, :96], NORTH_UP, ours)
    shuffled = np.empty_like(image[:, :, 96:])
    for band, place in enumerate(order or range(len(ours))):
        shuffled[place] = image[band, :, 96:]
    other = write(tmp_path / "b.tif", shuffled, BESIDE, theirs)
    if order is None:
        with pytest.raises(
            SceneError, match=r"b\.tif has the colors \w+, \w+, \w+, .*a\.tif \w+, \w+, \w+; give both the same"
        ):
            mosaic_of([first, other])
        return
    with open_scene(mosaic_of([first, other])) as scene:
        colors = [ours.index(color) for color in (R, G, B)]
        np.testing.assert_array_equal(scene.read_window(Window(0, 0, 192, 64)).image, image[colors])


def test_scenes_far_apart_are_refused_with_the_share_that_is_empty(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{name}.tif", noise(3, 64, 96), NORTH_UP @ Affine.translation(col, row))
        for name, col, row in (("a", 0, 0), ("b", 200, 0), ("far", 200_000, -150_000))
    ]
    said = r"3 scenes make a mosaic of 200096 × 150064 px, of which 99\.9999 % is empty \(.*a\.tif and .*far\.tif lie furthest"
    with pytest.raises(SceneError, match=rf"{said} apart\); predict them separately") as caught:
        mosaic_of(paths)
    assert "\n" not in str(caught.value)


def test_a_row_of_tiles_that_runs_aslant_is_a_mosaic(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{number}.tif", noise(3, 64, 64), NORTH_UP @ Affine.translation(500 * number, 500 * number))
        for number in range(12)
    ]
    with open_scene(mosaic_of(paths)) as scene:
        assert scene.shape == (5564, 5564)
        assert math.isclose(scene.read_window(Window(0, 0, 64, 64)).valid.mean(), 1)
        assert not scene.read_window(Window(100, 0, 64, 64)).valid.any()
