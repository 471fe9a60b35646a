"""Meters where they are known: on the Earth, on other bodies, in planes that lie nowhere; and what is refused elsewhere."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

import geoglnet
from geoglnet.bands import Bands
from geoglnet.errors import ConfigError, DatasetError, GeoglnetError, SceneError
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.progress import RecordedProgress
from geoglnet.raster.gdal import open_raster
from geoglnet.raster.grid import georeference, ground_pixel_size
from geoglnet.raster.scene import open_scene
from geoglnet.types import Shape
from geoglnet.vector.measures import ground_measures
from geoglnet.vector.polygon_reader import read_polygons
from geoglnet.vector.polygonizer import vectorize
from geoglnet.vector.settings import VectorConfig
from tests.rasters import write_raster

LOCAL = 'LOCAL_CS["Local Coordinates (m)",UNIT["metre",1]]'
FEET = 'LOCAL_CS["site",UNIT["foot",0.3048]]'
SITE = FEET.replace("site", "pole").replace("foot", "US survey foot").replace("0.3048", "0.304800609601219")
UNKNOWN = 'LOCAL_CS["Undefined Cartesian SRS with unknown unit",UNIT["unknown",1]]'
MOON, MOON_FLAT, MOON_POLE, MARS = "IAU_2015:30100", "IAU_2015:30110", "IAU_2015:30135", "IAU_2015:49902"
MOON_M, MARS_A, MARS_B = 1_737_400.0, 3_396_190.0, 3_376_200.0
DEGREE = math.pi / 180

GRAY = Bands(("gray",), (0.5,), (0.2,))


def local_raster(path: Path, crs: str) -> Path:
    """Labels with a square of 2 px and one of 60 px, of 0.2 units each."""
    labels = np.zeros((1, 100, 100), np.uint8)
    labels[:, 5:7, 5:7] = labels[:, 20:80, 20:80] = 1
    return write_raster(path, labels, crs=crs, transform=Affine(0.2, 0, 100, 0, -0.2, 200))


@pytest.mark.parametrize(
    ("crs", "pixel", "size"),
    [
        (LOCAL, 0.2, 0.2),
        (FEET, 0.2, 0.06096),
        (SITE, 0.2, 0.2 * 0.304800609601219),
        (MOON_FLAT, 0.2, 0.2),
        (MOON, 1e-5, 1e-5 * DEGREE * MOON_M),
        (MARS, 1e-5, 1e-5 * DEGREE * math.sqrt(MARS_A * MARS_B**2 / MARS_A)),
        ("EPSG:32633", 0.2, 0.2 / 0.9996),
    ],
)
def test_pixels_and_polygons_have_the_size_of_their_body_or_plane(crs: str, pixel: float, size: float) -> None:
    east = 500_000 if crs == "EPSG:32633" else 0
    transform = Affine(pixel, 0, east, 0, -pixel, 0)
    found = ground_pixel_size(CRS.from_user_input(crs), transform, Shape(20, 20))
    assert found is not None
    assert math.sqrt(found[0] * found[1]) == pytest.approx(size, rel=1e-5)
    squares = np.array([shapely.box(east, -4 * pixel, east + 4 * pixel, 0)])
    (area,), (perimeter,) = ground_measures(squares, CRS.from_user_input(crs))
    assert area == pytest.approx(16 * size**2, rel=1e-5)
    assert perimeter == pytest.approx(16 * size, rel=1e-2)  # Mars' degrees of latitude are longer than those of longitude


@pytest.mark.parametrize(
    ("crs", "bounds", "area"),
    [
        (MOON, (10, 20, 30, 40), MOON_M**2 * 20 * DEGREE * (math.sin(40 * DEGREE) - math.sin(20 * DEGREE))),
        (MOON_FLAT, (0, 0, 90 * DEGREE * MOON_M, 30 * DEGREE * MOON_M), MOON_M**2 * 90 * DEGREE * math.sin(30 * DEGREE)),
    ],
)
def test_large_polygons_of_another_body_have_the_area_of_its_ellipsoid(
    crs: str, bounds: tuple[float, float, float, float], area: float
) -> None:
    assert ground_measures(np.array([shapely.box(*bounds)]), crs)[0][0] == pytest.approx(area, rel=1e-4)


@pytest.mark.parametrize("crs", [UNKNOWN, "EPSG:4978"])
def test_without_a_known_unit_nothing_is_measured(crs: str) -> None:
    assert ground_pixel_size(CRS.from_user_input(crs), Affine(0.2, 0, 0, 0, -0.2, 0), Shape(20, 20)) is None
    areas, lengths = ground_measures(np.array([shapely.box(0, 0, 1, 1)]), CRS.from_user_input(crs))
    assert np.isnan([areas, lengths]).all()


@pytest.mark.parametrize(("crs", "area"), [(LOCAL, 144.0), (FEET, 144 * 0.3048**2), (MOON_FLAT, 144.0)])
def test_quantities_in_meters_work_where_the_unit_is_known(tmp_path: Path, crs: str, area: float) -> None:
    progress = RecordedProgress()
    labels = local_raster(tmp_path / "labels.tif", crs)
    config = VectorConfig(min_area_m2=1, simplify="1m", sieve="0.001m2")
    assert vectorize(labels, tmp_path / "a.gpkg", config=config, progress=progress) == 1
    assert geopandas.read_file(tmp_path / "a.gpkg", layer="a").area_m2[0] == pytest.approx(area, rel=1e-4)
    assert sum("meters are" in message for message in progress.messages("log")) == 1


@pytest.mark.parametrize(
    "wanted",
    [{"min_area_m2": 8.0}, {"min_hole_m2": 8.0}, {"simplify": "1m"}, {"sieve": "8m2"}],
    ids=lambda wanted: next(iter(wanted)),
)
def test_quantities_in_meters_are_refused_with_the_reason_before_any_work(
    tmp_path: Path, tiny_model_path: Path, wanted: dict[str, float]
) -> None:
    config, reason = VectorConfig(**wanted), "without a place on the Earth and without a known unit of length"  # type: ignore[arg-type]
    with pytest.raises(GeoglnetError, match=reason):
        vectorize(local_raster(tmp_path / "labels.tif", UNKNOWN), tmp_path / "a.gpkg", config=config)
    scene = write_raster(tmp_path / "scene.tif", np.ones((3, 40, 40), np.uint8), crs=UNKNOWN)
    progress = RecordedProgress()
    with pytest.raises(GeoglnetError, match=reason):
        geoglnet.predict(
            scene,
            vector_path=tmp_path / "b.gpkg",
            model=str(tiny_model_path),
            vector_config=config,
            progress=progress,
        )
    assert not any(event["event"] == "plan" for event in progress.events)
    assert not [*tmp_path.glob("[ab].gpkg*")]


def test_geojson_takes_coordinates_that_lie_nowhere_and_refuses_those_of_another_body(tmp_path: Path) -> None:
    vectorize(local_raster(tmp_path / "local.tif", LOCAL), tmp_path / "local.geojson")
    assert geopandas.read_file(tmp_path / "local.geojson").total_bounds.tolist() == pytest.approx([101, 184, 116, 199])
    with pytest.raises(ConfigError, match=r"(IAU_2015:30110|'Moon .*') cannot be transformed to longitude and latitude on"):
        vectorize(local_raster(tmp_path / "moon.tif", MOON_FLAT), tmp_path / "moon.geojson")


@pytest.mark.parametrize(
    ("scene", "mask"), [(MOON_FLAT, "EPSG:4326"), (LOCAL, "EPSG:32633"), ("EPSG:32633", MOON), (MARS, MOON)]
)
def test_a_mask_of_another_body_is_refused_in_one_line(tmp_path: Path, scene: str, mask: str) -> None:
    path = tmp_path / "mask.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=mask).to_file(path)
    with pytest.raises(DatasetError, match=r"cannot be reprojected from .* to .* body or plane; give") as raised:
        read_polygons(path, CRS.from_user_input(scene), around=(0, 0, 2, 2))
    assert len(str(raised.value)) < 300


def test_a_scene_of_known_units_is_read_at_the_models_resolution(tmp_path: Path) -> None:
    path = local_raster(tmp_path / "scene.tif", FEET)
    with open_scene(path, model_bands=GRAY, resolution_m=0.12192, assumed_pixel_size_m=7.0) as scene:
        assert scene.shape == Shape(50, 50)
        assert scene.pixel_size_m == pytest.approx(0.12192)
    progress = RecordedProgress()
    config = PredictConfig(assumed_pixel_size_m=0.5)
    with open_scene(
        local_raster(tmp_path / "unknown.tif", UNKNOWN),
        model_bands=GRAY,
        resolution_m=1.0,
        assumed_pixel_size_m=config.assumed_pixel_size_m,
        progress=progress,
    ) as scene:
        assert scene.shape == Shape(50, 50)
    assert any("without a known unit of length" in message for message in progress.messages("log"))


@pytest.mark.parametrize("place", ["itself", "its part"])
def test_a_crs_whose_text_is_not_in_utf_8_is_one_error(tmp_path: Path, place: str) -> None:
    path = write_raster(tmp_path / "a.tif", np.zeros((1, 16, 16), np.uint8), crs="EPSG:6344+5703")
    content = path.read_bytes()
    assert b"NAVD88" in content
    path.write_bytes(content.replace(b"NAVD88", b"NAVD8\xff"))
    if place == "itself":
        with pytest.raises(
            SceneError, match=r"a\.tif holds text that is not in UTF-8, mostly its CRS .* gdal_translate"
        ) as caught:
            open_raster(path)
        assert "\n" not in str(caught.value)
        return
    inner, outer = tmp_path / "inner.vrt", tmp_path / "outer.vrt"
    for vrt, source in ((inner, "a.tif"), (outer, "inner.vrt")):
        vrt.write_text(VRT.format(source))
    with open_raster(outer) as src:  # a part's CRS is not used
        assert (src.read(1) == 0).all()


VRT = """<VRTDataset rasterXSize="16" rasterYSize="16"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


def test_control_points_and_polynomials_that_cannot_be_read_are_not_used(tmp_path: Path) -> None:
    gcps = [GroundControlPoint(row, col, col, -row, 0) for row, col in ((0, 0), (0, 9), (9, 0))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for name in ("gcps.tif", "rpcs.tif"):
            with rasterio.open(tmp_path / name, "w", driver="GTiff", height=16, width=16, count=1, dtype="uint8") as dst:
                if name == "gcps.tif":
                    dst.gcps = gcps, CRS.from_user_input("EPSG:6344+5703")
    rpcs = '<PAMDataset><Metadata domain="RPC"><MDI key="LINE_OFF">no number</MDI></Metadata></PAMDataset>'
    (tmp_path / "rpcs.tif.aux.xml").write_text(rpcs)
    content = (tmp_path / "gcps.tif").read_bytes()
    assert b"NAVD88" in content
    (tmp_path / "gcps.tif").write_bytes(content.replace(b"NAVD88", b"NAVD8\xff"))
    for name, words in (("gcps.tif", "ground control points"), ("rpcs.tif", "rational polynomial coefficients")):
        with open_raster(tmp_path / name) as src:
            assert words in georeference(src).remark
