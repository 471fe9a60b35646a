"""Finished label rasters: valid COGs with colors and class names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from geoglnet.errors import LegendError, SceneError, SceneNotFoundError
from geoglnet.legend import Legend
from geoglnet.output import OutputFile
from geoglnet.progress import RecordedProgress
from geoglnet.raster.cog import LEGEND_TAG, read_legend, write_cog
from geoglnet.raster.gdal import open_raster
from geoglnet.raster.writer import LabelWriter
from geoglnet.types import Shape

LEGEND = Legend(
    ("background", "roof & <shed>", 'the "wood"', "água"), ((0, 0, 0), (230, 75, 50), (0, 160, 0), (0, 0, 255)), background=0
)
TAGS = {"GEOGLNET_MODEL": "buildings <1>", "GEOGLNET_VERSION": "0.1.0"}


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    blobs = np.random.default_rng(0).integers(0, 4, (40, 60))
    blobs[:9, :14] = 255
    return np.kron(blobs, np.ones((40, 32), np.uint8)).astype(np.uint8)[:1500, :1800]


def write_source(path: Path, labels: np.ndarray, crs: CRS | None = None) -> Path:
    transform = Affine(1e-5, 0, 30, 0, -1e-5, -6) if crs and crs.is_geographic else Affine(0.5, 0, 5e5, 0, -0.5, 9e6)
    with LabelWriter(path, Shape(*labels.shape), transform=transform, crs=crs, core_size=2048) as writer:
        writer.write_block(Window(0, 0, labels.shape[1], labels.shape[0]), labels)
    return path


@pytest.fixture(scope="module")
def cog_path(tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("cog")
    write_cog(write_source(folder / "tiles.tif", labels, CRS.from_epsg(32736)), folder / "a.tif", legend=LEGEND, tags=TAGS)
    return folder / "a.tif"


def test_the_cog_is_valid(cog_path: Path) -> None:
    is_valid, errors, warnings = cog_validate(cog_path, strict=True)
    assert (is_valid, errors, warnings) == (True, [], [])


def test_the_cog_holds_the_labels_colors_and_tags(cog_path: Path, labels: np.ndarray) -> None:
    with rasterio.open(cog_path) as src:
        assert (src.read(1) == labels).all()
        assert (src.nodata, src.colorinterp, src.block_shapes) == (255, (ColorInterp.palette,), [(512, 512)])
        colors = src.colormap(1)
        assert [colors[value][:3] for value in range(4)] == list(LEGEND.colors)
        assert colors[255][3] == 0
        assert src.tags().items() >= TAGS.items()
        assert src.crs == CRS.from_epsg(32736)
        assert src.transform == Affine(0.5, 0, 5e5, 0, -0.5, 9e6)


def test_pyramid_levels_hold_only_labels(cog_path: Path, labels: np.ndarray) -> None:
    with rasterio.open(cog_path) as src:
        assert src.overviews(1) == [2, 4]
    for level in (0, 1):
        with rasterio.open(cog_path, OVERVIEW_LEVEL=level) as src:
            found = src.read(1)
        assert set(np.unique(found)) <= {0, 1, 2, 3, 255}
        step = 2 ** (level + 1)
        assert (found == labels[::step, ::step]).mean() > 0.99, "blobs are even-sized, so the majority is what lies there"


@pytest.mark.parametrize("code", ["EPSG:4326", "EPSG:3857", "EPSG:2193", "ESRI:102113", None])
def test_any_crs_survives(tmp_path: Path, labels: np.ndarray, code: str | None) -> None:
    crs = None if code is None else CRS.from_string(code)
    source = write_source(tmp_path / "tiles.tif", labels[:100, :100], crs)
    write_cog(source, tmp_path / "a.tif", legend=LEGEND)
    with open_raster(source) as expected, open_raster(tmp_path / "a.tif") as found:
        assert (found.crs, found.transform) == (crs, expected.transform)


def test_gdal_reads_the_class_names_and_the_attribute_table(cog_path: Path, tmp_path: Path) -> None:
    rasterio.shutil.copy(cog_path, tmp_path / "seen.vrt", driver="VRT")  # writes down what GDAL knows of the file
    band = ElementTree.parse(tmp_path / "seen.vrt").find("VRTRasterBand")
    assert band is not None
    assert [category.text for category in band.iterfind("CategoryNames/Category")] == list(LEGEND.names)
    table = ElementTree.parse(f"{cog_path}.aux.xml").find(".//GDALRasterAttributeTable")
    assert table is not None
    assert [name.text for name in table.iterfind("FieldDefn/Name")] == ["Value", "Class", "R", "G", "B"]
    assert [[cell.text for cell in row] for row in table.iterfind("Row")][1] == ["1", "roof & <shed>", "230", "75", "50"]


def test_equal_labels_make_equal_bytes(tmp_path: Path, labels: np.ndarray, cog_path: Path) -> None:
    write_cog(write_source(tmp_path / "tiles.tif", labels, CRS.from_epsg(32736)), tmp_path / "a.tif", legend=LEGEND, tags=TAGS)
    assert (tmp_path / "a.tif").read_bytes() == cog_path.read_bytes()


def test_a_raster_of_quantities_has_averaged_levels_and_no_classes(tmp_path: Path) -> None:
    steps = np.tile(np.array([[0, 100], [200, 100]], np.uint8), (512, 512))
    write_cog(write_source(tmp_path / "tiles.tif", steps, CRS.from_epsg(3857)), tmp_path / "a.tif", legend=None)
    with rasterio.open(tmp_path / "a.tif", OVERVIEW_LEVEL=0) as src:
        assert (src.read(1) == 100).all()
    assert not (tmp_path / "a.tif.aux.xml").exists()
    assert read_legend(tmp_path / "a.tif") is None


def test_the_stage_is_reported(tmp_path: Path, labels: np.ndarray) -> None:
    progress = RecordedProgress()
    write_cog(write_source(tmp_path / "tiles.tif", labels[:64, :64]), tmp_path / "a.tif", legend=LEGEND, progress=progress)
    assert [event["event"] for event in progress.events] == ["plan", "progress"]


def test_a_source_that_is_damaged_is_named(tmp_path: Path, labels: np.ndarray) -> None:
    source = write_source(tmp_path / "tiles.tif", labels)
    source.write_bytes(source.read_bytes()[:3000])
    with pytest.raises(SceneError, match=r"tiles\.tif cannot be read"):
        write_cog(source, tmp_path / "a.tif", legend=LEGEND)


def test_the_sidecar_travels_with_its_raster_and_an_old_one_is_dropped(tmp_path: Path, labels: np.ndarray) -> None:
    source, path = write_source(tmp_path / "tiles.tif", labels[:64, :64]), tmp_path / "labels.tif"
    (tmp_path / "labels.tif.aux.xml").write_text("statistics of an older file")
    with OutputFile(path, overwrite=True) as part_path:
        write_cog(source, part_path, legend=LEGEND)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.tif", "labels.tif.aux.xml", "tiles.tif"]
    assert "água" in (tmp_path / "labels.tif.aux.xml").read_text(encoding="utf-8")
    with OutputFile(path, overwrite=True) as part_path:
        write_cog(source, part_path, legend=None)
    assert not (tmp_path / "labels.tif.aux.xml").exists()


# ---- legends of rasters that others wrote


def test_our_legend_is_read_back_whole(cog_path: Path) -> None:
    assert read_legend(cog_path) == LEGEND


def test_without_our_tag_names_and_colors_make_the_legend(cog_path: Path, tmp_path: Path) -> None:
    rasterio.shutil.copy(cog_path, tmp_path / "a.vrt", driver="VRT")
    text = (tmp_path / "a.vrt").read_text(encoding="utf-8")
    (tmp_path / "a.vrt").write_text(text.replace(LEGEND_TAG, "SOMETHING"), encoding="utf-8")
    assert read_legend(tmp_path / "a.vrt") == Legend(LEGEND.names, LEGEND.colors)


def test_names_without_colors_become_grays(scene_factory: Callable[..., Path]) -> None:
    path = scene_factory((1, 64, 64))
    sidecar = '<PAMDataset><PAMRasterBand band="1"><CategoryNames>{}</CategoryNames></PAMRasterBand></PAMDataset>'
    names = "<Category>land</Category><Category>sea</Category>"
    path.with_name("scene.tif.aux.xml").write_text(sidecar.format(names))
    assert read_legend(path) == Legend(("land", "sea"), ((0, 0, 0), (128, 128, 128)))


def test_a_raster_that_names_nothing_has_no_legend(scene_factory: Callable[..., Path]) -> None:
    path = scene_factory((1, 64, 64))
    assert read_legend(path) is None
    path.with_name("scene.tif.aux.xml").write_text("<PAMDataset>torn")
    assert read_legend(path) is None


def test_a_tag_that_is_no_legend_is_an_error(scene_factory: Callable[..., Path]) -> None:
    path = scene_factory((1, 64, 64))
    for text in ("{", '{"classes": 3}'):
        with rasterio.open(path, "r+") as dst:
            dst.update_tags(**{LEGEND_TAG: text})
        with pytest.raises(LegendError, match=f"tag {LEGEND_TAG} is not a legend"):
            read_legend(path)


def test_legends_of_missing_files_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(SceneNotFoundError):
        read_legend(tmp_path / "none.tif")
