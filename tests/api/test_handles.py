"""Handles: what they show of files, what they refuse to read, bars that come and go, reports."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.warp import transform_bounds

import geoglnet
from geoglnet import optional
from geoglnet.api.bars import Bars, watched
from geoglnet.api.polygons import PolygonLayer
from geoglnet.api.prediction import Prediction
from geoglnet.api.session import Options
from geoglnet.errors import ConfigError, MemoryLimitError, OutputExistsError, SceneNotFoundError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.raster.picture import labels_picture, scene_picture
from geoglnet.vector.polygon_reader import count_polygons
from tests.browser import CHROMIUM, opened
from tests.conftest import SceneMaker
from tests.rasters import write_raster

pytest.importorskip("rioxarray")
pyplot = pytest.importorskip("matplotlib.pyplot")
LEGEND = Legend(("ground", "building"), ((0, 0, 0), (230, 75, 50)), background=0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, scene_path: Path, tiny_model_path: Path) -> Prediction:
    folder = tmp_path_factory.mktemp("handle")
    files = {"vector_path": folder / "polygons.gpkg", "confidence_path": folder / "confidence.tif"}
    return geoglnet.predict(scene_path, folder / "labels.tif", model=geoglnet.load_model(tiny_model_path), **files)


def test_labels_are_lazy_and_the_files_own(done: Prediction) -> None:
    labels = done.labels()
    with rasterio.open(done.paths["labels"]) as src:
        assert np.array_equal(labels[0, 10:30, 5:50].values, src.read(1)[10:30, 5:50])
        assert labels.rio.crs == src.crs
        assert labels.rio.transform() == src.transform
    assert labels[0, 500:600, 500:600].values.shape == (0, 0)
    assert done.open("confidence").shape == labels.shape
    with pytest.raises(ConfigError, match=r"no raster 'entropy' was written; there are labels, confidence: give"):
        done.open("entropy")


def test_more_than_the_limit_is_refused_and_the_way_out_works(done: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geoglnet.options, "limit_mb", 0.001)
    labels = done.labels()
    with pytest.raises(MemoryLimitError, match=r"0 MB would be read at once, more than limit_mb = 0\.001; take a part"):
        labels.load()
    with pytest.raises(MemoryError):
        labels.plot()
    assert labels[0, ::16, ::16].values.size == 40
    assert done.labels(limit_mb=1).values.size == 9600
    with pytest.raises(MemoryLimitError, match="the polygons would take about"):
        done.polygons()
    assert len(done.polygons(limit_mb=10)) == done.num_polygons


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> PolygonLayer:
    """Some dozens of squares."""
    folder = tmp_path_factory.mktemp("layer")
    cells = np.random.default_rng(0).random((20, 30)) < 0.2
    labels = np.kron(cells, np.ones((8, 8))).astype(np.uint8)[None]
    return geoglnet.vectorize(write_raster(folder / "labels.tif", labels), folder / "squares.gpkg", legend=LEGEND)


def test_polygons_within_bounds_are_those_that_touch_them(layer: PolygonLayer) -> None:
    whole = layer.polygons()
    left, _, _, top = whole.total_bounds
    bounds = (left, top - 60, left + 60, top)
    part = layer.polygons(bounds=bounds)
    assert 0 < len(part) < len(whole)
    assert len(part) == count_polygons(layer.path, limit_mb=1, bounds=bounds)
    too_small = 2e-6 * layer.path.stat().st_size
    with pytest.raises(MemoryLimitError):
        layer.polygons(limit_mb=too_small)
    assert len(layer.polygons(bounds=bounds, limit_mb=too_small)) == len(part)
    parquet = geoglnet.vectorize(layer.labels_path, layer.path.with_suffix(".parquet"), legend=LEGEND)
    assert len(parquet.polygons(bounds=bounds)) == len(part) == count_polygons(parquet.path, limit_mb=1, bounds=bounds)


def test_many_polygons_are_not_put_into_one_page(layer: PolygonLayer) -> None:
    with pytest.raises(MemoryLimitError, match=r"polygons are more than one map takes \(10\); give bounds"):
        layer.explore(limit=10)
    content = content_of(layer.explore(limit=10_000).html)
    assert len(content["polygons"]) == len(content["class_of"]) == layer.num_polygons > 10


def content_of(page: str) -> dict[str, Any]:
    """What a map's page shows."""
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


def overlays(page: str) -> list[tuple[np.ndarray, list[list[float]]]]:
    """Pictures in a page, with their corners."""
    pictures = content_of(page)["pictures"]
    codes = [re.fullmatch("data:image/(png|webp);base64,(.+)", picture["image"]) for picture in pictures]
    images = [pyplot.imread(io.BytesIO(base64.b64decode(code[2])), format=code[1]) for code in codes if code]
    return [(image, picture["corners"]) for image, picture in zip(images, pictures, strict=True)]


def places_of(content: dict[str, Any]) -> list[np.ndarray]:
    """``(n, 2)`` coordinates of all rings, as the page's script restores them."""
    rings = [ring for polygon in content["polygons"] for part in polygon for ring in part]
    steps = [np.cumsum(np.reshape(ring, (-1, 2)), axis=0) for ring in rings]
    return [np.array(content["origin"]) + content["step"] * places for places in steps]


def test_a_map_has_the_scene_the_polygons_and_the_legend_in_their_place(done: Prediction, tmp_path: Path) -> None:
    done.explore(size=60).save(tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    left, bottom, right, top = transform_bounds(done.crs, "EPSG:4326", *rasterio.open(done.paths["labels"]).bounds)
    (picture, corners), _ = overlays(page)
    assert np.allclose(corners, [[bottom, left], [top, right]], atol=1e-6)
    assert 55 <= max(picture.shape[:2]) <= 66
    content = content_of(page)
    frame = done.polygons().to_crs(4326)
    assert len(content["polygons"]) == done.num_polygons == len(frame)
    rings = places_of(content)
    assert np.abs(rings[0] - shapely.get_coordinates(frame.geometry.iloc[0].exterior)[:-1]).max() < 1e-7
    assert content["attributes"]["area_m2"] == frame.area_m2.round(1).tolist()
    assert content["attributes"]["confidence"] == frame.confidence.round(2).tolist()
    lons, lats = np.concatenate(rings).T
    assert left - 1e-6 <= lons.min() < lons.max() <= right + 1e-6
    assert bottom - 1e-6 <= lats.min() < lats.max() <= top + 1e-6
    assert "#e64b32" in page
    assert "openstreetmap" in page


DRAWS = """
<script>
window.addEventListener("load", () => setTimeout(() => {
  const before = colors();
  map.setZoom(map.getZoom() + 1);
  setTimeout(() => { document.title = [before, colors()].join(" "); }, 300);
}, 300));
function colors() {  // of the canvas, that belong to the class
  const canvas = document.querySelector("canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 0; i < pixels.length; i += 4) count += pixels[i] > 200 && pixels[i + 1] < 120 && pixels[i + 3] > 0;
  return count;
}
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to run a page's scripts (Debian: apt-get install chromium)")
def test_a_page_draws_its_polygons_without_a_network(layer: PolygonLayer, tmp_path: Path) -> None:
    page = layer.explore().html
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page.replace("https://leafletjs.com", ""))
    dom = opened(page.replace("</body>", f"{DRAWS}</body>", 1), tmp_path)
    found = re.search(r"<title>(\d+) (\d+)</title>", dom)
    assert found is not None, "the page's scripts failed"
    before, after = map(int, found.groups())
    assert after > before > 1000


def test_a_scene_without_crs_is_plotted_and_explored_in_pixels(
    scene_factory: SceneMaker, tiny_model_path: Path, tmp_path: Path
) -> None:
    path = scene_factory((3, 64, 96), "bare.tif", crs=None, transform=None)
    done = geoglnet.predict(path, tmp_path / "labels.tif", model=tiny_model_path, vector_path=tmp_path / "v.gpkg")
    axes = done.plot(size=48)
    assert [image.get_extent() for image in axes.images] == [[0, 96, -64, 0]] * 2
    pyplot.close(axes.figure)
    page = done.explore(size=48).html
    assert not content_of(page)["is_earth"]
    assert next(corners for _, corners in overlays(page)) == [[-64, 0], [0, 96]]


def test_a_plot_shows_labels_over_the_scene_in_the_legends_colors(done: Prediction) -> None:
    axes = done.plot(size=40)
    scene, labels = axes.images
    assert max(scene.get_array().shape[:2]) == 40
    colors = {tuple(color) for color in labels.get_array().reshape(-1, 4)}
    assert colors <= {(230, 75, 50, 255), (0, 0, 0, 0)}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["building"]
    pyplot.close(axes.figure)


def test_polygons_alone_can_be_plotted(done: Prediction, tmp_path: Path) -> None:
    layer = geoglnet.vectorize(done.paths["labels"], tmp_path / "again.fgb")
    assert layer.num_polygons == done.num_polygons
    axes = layer.plot()
    assert axes.collections
    pyplot.close(axes.figure)
    assert str(layer.report).startswith(f"Traced {done.paths['labels']}\n  polygons  {layer.num_polygons}")
    layer.path.unlink()
    with pytest.raises(SceneNotFoundError, match=r"again\.fgb does not exist; check whether it was moved"):
        layer.polygons()


def test_a_picture_of_a_part_has_the_colors_and_the_place_of_that_part(scene_factory: SceneMaker) -> None:
    labels = np.zeros((1, 60, 100), np.uint8)
    labels[0, :30, :50] = 1
    labels[0, 30:, 50:] = 255
    path = scene_factory(labels, "labels.tif")
    with rasterio.open(path) as src:
        west, south, east, north = src.bounds
    picture = labels_picture(path, LEGEND, size=50)
    assert picture.bounds == (west, south, east, north)
    assert picture.image[:15, :25].reshape(-1, 4).tolist() == [[230, 75, 50, 255]] * 375
    assert not picture.image[15:, :, 3].any()
    middle = (west + east) / 2
    right = labels_picture(path, LEGEND, size=500, bounds=(middle, south, east + 1000, north))
    assert right.bounds == (middle, south, east, north)
    assert not right.image[..., 3].any()
    with pytest.raises(ConfigError, match="lie outside of"):
        labels_picture(path, LEGEND, size=50, bounds=(east + 10, south, east + 20, north))


def test_a_picture_of_a_scene_is_transparent_where_nothing_is_valid(scene_factory: SceneMaker) -> None:
    image = np.full((3, 40, 60), 90, np.uint8)
    image[:, :, 30:] = 0
    picture = scene_picture([scene_factory(image, nodata=0)], size=30)
    assert picture.image.shape == (20, 30, 4)
    assert picture.image[:, :15].reshape(-1, 4).tolist() == [[90, 90, 90, 255]] * 300
    assert not picture.image[:, 15:, 3].any()


def test_the_report_says_what_was_done_by_which_rules(done: Prediction, scene_path: Path) -> None:
    assert done.report.title == f"Segmented {scene_path}"
    assert done.report.facts["pixels"] == "120 × 80, 1 metre of the CRS each"
    assert any("model tiny: bands 1, 2, 3" in note for note in done.report.notes)
    assert "<th>polygons</th>" in done.report._repr_html_()
    assert json.loads(json.dumps(done.report.to_dict()))["facts"]["labels"] == str(done.paths["labels"])
    assert repr(done).startswith("<geoglnet.Prediction 120 × 80 px by 'tiny'")


def test_bars_are_drawn_when_wanted_and_gone_when_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> str:
        with watched(None) as told, caplog.at_level(logging.INFO, "geoglnet"):
            told.plan("segment", 3, "patches")
            told.advance(2, loss=0.5)
            told.advance()
            told.log("a rule")
            told.warn("a surprise")
        assert (told.rules, told.warnings) == (["a rule"], ["a surprise"])
        return capsys.readouterr().err

    monkeypatch.setattr(geoglnet.options, "progress", True)
    assert re.search(r"segment: 100%.*3/3.*loss=0\.5", work())
    monkeypatch.setattr(geoglnet.options, "progress", False)
    assert "segment" not in work()
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"] * 2


def test_a_bar_is_closed_when_the_tool_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geoglnet.options, "progress", True)
    bars = Bars()
    monkeypatch.setattr("geoglnet.api.bars.Bars", lambda: bars)

    def fail() -> None:
        with watched(None) as told:
            told.plan("segment", 3, "patches")
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert bars.bar is None


def test_progress_of_ones_own_replaces_the_bars(scene_path: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    progress = RecordedProgress()
    done = geoglnet.predict(scene_path, tmp_path / "labels.tif", model=tiny_model_path, progress=progress)
    assert list(done.rules) == progress.messages("log")
    assert {event["stage"] for event in progress.events if event["event"] == "plan"} >= {"segment"}


@pytest.mark.parametrize(("written", "progress"), [("0", False), ("off", False), ("1", True), ("", "auto"), ("dunno", "auto")])
def test_the_environment_switches_bars(written: str, progress: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from geoglnet.api import session

    monkeypatch.setenv("GEOGLNET_PROGRESS", written)
    assert session._from_environment().progress == progress


def test_options_refuse_what_they_cannot_use() -> None:
    with pytest.raises(ConfigError, match=r"options\.progress = 'yes' must be True, False or 'auto'"):
        Options(progress="yes")
    with pytest.raises(ConfigError, match=r"options\.limit_mb = 0 must be positive"):
        Options(limit_mb=0)
    with pytest.raises(AttributeError):
        Options().limit = 3  # type: ignore[attr-defined]


def test_a_model_knows_its_card_and_what_it_is(tiny_model_path: Path) -> None:
    buildings, tiny = geoglnet.load_model("buildings"), geoglnet.load_model(tiny_model_path)
    assert buildings.card.startswith("# buildings")
    assert tiny.card == str(tiny.report)
    assert tiny.report.facts["classes"] == "ground, building"
    assert tiny.num_parameters == sum(p.numel() for p in tiny.network.parameters())


def test_a_demo_scene_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = geoglnet.demo(tmp_path, shape=(256, 256))
    with pytest.raises(OutputExistsError, match=r"scene\.tif exists"):
        geoglnet.demo(tmp_path, shape=(256, 256))
    assert geoglnet.demo(tmp_path, shape=(240, 256), overwrite=True) == path


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch, done: Prediction) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(optional, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"matplotlib is not installed; pip install 'geoglnet\[notebook\]'"):
        done.plot()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'geoglnet\[train\]'"):
        geoglnet.train("mine.toml", "mine.safetensors")
