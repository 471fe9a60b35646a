"""Scenes drawn by rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from shapely.affinity import affine_transform

from geoglnet.errors import ConfigError, LegendError, OutputError, OutputExistsError
from geoglnet.legend import Legend
from geoglnet.synthetic import (
    GENERATED_LEGEND,
    LANDCOVER_OF,
    GeneratedScene,
    generate_scene,
    landcover_labels,
    write_generated,
)
from geoglnet.synthetic.noise import fractal_noise, smooth_noise
from geoglnet.types import Shape

SMALL = Shape(320, 400)


@pytest.fixture(scope="module")
def scene() -> GeneratedScene:
    return generate_scene(Shape(480, 640), seed=4, pixel_size_m=0.5)


def test_equal_seeds_give_equal_scenes_and_others_do_not() -> None:
    first, again, other = (generate_scene(SMALL, seed, 0.5) for seed in (1, 1, 2))
    assert (first.image == again.image).all()
    assert first.polygons == again.polygons
    assert (first.image != other.image).mean() > 0.5


def test_the_scene_is_an_image_in_a_utm_zone(scene: GeneratedScene) -> None:
    assert (scene.image.shape, scene.image.dtype) == ((3, 480, 640), np.uint8)
    assert scene.crs.is_projected
    assert (scene.transform.a, scene.transform.e) == (0.5, -0.5)
    assert 15 < scene.image.std() < 80


def test_a_village_has_buildings_roads_and_land_around(scene: GeneratedScene) -> None:
    shares = np.bincount(scene.labels.ravel(), minlength=9) / scene.labels.size
    found = dict(zip(GENERATED_LEGEND.names, shares, strict=True))
    assert 0.01 < found["building"] < 0.3
    assert 0.01 < found["road"] < 0.3
    assert found["ground"] > 0.05
    assert scene.labels.max() < GENERATED_LEGEND.num_classes


def test_polygons_partition_the_scene(scene: GeneratedScene) -> None:
    shapes = np.array([polygon.geometry for polygon in scene.polygons])
    assert shapely.is_valid(shapes).all()
    area = 480 * 640 * 0.25
    assert shapely.area(shapes).sum() == pytest.approx(shapely.union_all(shapes).area, rel=1e-6)
    assert 0.99 * area < shapely.area(shapes).sum() <= area * (1 + 1e-9)


def test_labels_are_the_polygons_burned(scene: GeneratedScene) -> None:
    pairs = [(p.geometry, GENERATED_LEGEND.value_of(p.class_name)) for p in scene.polygons]
    burned = rasterize(pairs, out_shape=scene.labels.shape, transform=scene.transform, fill=0, dtype="uint8")
    assert (burned == scene.labels).mean() > 0.999


def test_buildings_throw_shadows_away_from_the_sun(scene: GeneratedScene) -> None:
    """Beside houses, one side is darker than the opposite one by a good deal, in all of the scene alike."""
    gray = scene.image.mean(axis=0)
    inverse = ~scene.transform
    numbers = [inverse.a, inverse.b, inverse.d, inverse.e, inverse.c, inverse.f]
    houses = shapely.union_all([affine_transform(p.geometry, numbers) for p in scene.polygons if p.class_name == "building"])
    is_open = np.isin(scene.labels, [GENERATED_LEGEND.value_of(name) for name in ("ground", "grass", "road")])
    brightness = []
    for angle in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        beside = shapely.transform(houses, lambda points, a=angle: points + 4 * np.array([np.cos(a), np.sin(a)]))
        brightness.append(gray[is_open & (rasterize([beside], out_shape=gray.shape) == 1)].mean())
    assert max(brightness) > 1.15 * min(brightness)
    darkest, brightest = int(np.argmin(brightness)), int(np.argmax(brightness))
    assert (brightest - darkest) % 8 in (3, 4, 5)


def test_land_cover_has_the_names_of_its_legend_and_no_lone_trees(scene: GeneratedScene) -> None:
    names = ("urban", "agriculture", "rangeland", "forest", "water", "barren")
    legend = Legend(names, tuple((i, i, i) for i in range(6)))
    cover = landcover_labels(scene.labels, legend)
    assert set(LANDCOVER_OF.values()) == set(names)
    assert (cover[scene.labels == GENERATED_LEGEND.value_of("field")] == 1).all()
    assert (cover[scene.labels == GENERATED_LEGEND.value_of("building")] == 0).all()
    assert cover.max() < 6
    with pytest.raises(LegendError, match="no class"):
        landcover_labels(scene.labels, GENERATED_LEGEND)


def test_a_scene_smaller_than_a_yard_is_refused() -> None:
    with pytest.raises(ConfigError, match="50 × 100 m is too small"):
        generate_scene(Shape(400, 200), 0, 0.25)


@pytest.mark.parametrize("cell_size", [1, 7.5, 400])
def test_noise_has_about_unit_variance_at_every_scale(cell_size: float) -> None:
    rng = np.random.default_rng(0)
    samples = np.concatenate([smooth_noise(rng, Shape(60, 90), cell_size).ravel() for _ in range(200)])
    assert samples.std() == pytest.approx(1, abs=0.15)
    assert abs(samples.mean()) < 0.2
    assert fractal_noise(rng, Shape(60, 90), cell_size, 3).shape == (60, 90)


def test_files_are_written_and_read_back(tmp_path: Path) -> None:
    image_path, truth_path = write_generated(tmp_path / "demo", shape=SMALL, seed=3, pixel_size_m=0.5)
    assert (image_path.name, truth_path.name) == ("scene.tif", "truth.gpkg")
    expected = generate_scene(SMALL, 3, 0.5)
    with rasterio.open(image_path) as src:
        assert (src.read() == expected.image).all()
        assert (src.crs, src.transform) == (expected.crs, expected.transform)
    frame = pyogrio.read_dataframe(truth_path, layer="truth")
    assert list(frame["class_name"]) == [polygon.class_name for polygon in expected.polygons]
    assert frame.crs.to_epsg() == 32736
    assert frame["area_m2"].to_numpy() == pytest.approx(frame.geometry.area.to_numpy(), rel=2e-3)


def test_files_that_exist_are_kept_unless_told(tmp_path: Path) -> None:
    (tmp_path / "truth.gpkg").write_text("mine")
    with pytest.raises(OutputExistsError):
        write_generated(tmp_path, shape=SMALL, pixel_size_m=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["truth.gpkg"]
    write_generated(tmp_path, shape=SMALL, pixel_size_m=0.5, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        write_generated(tmp_path / "file", shape=SMALL)
