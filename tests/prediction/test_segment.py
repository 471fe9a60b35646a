"""The tool on files: what it writes, what it says, and what it refuses before computing."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import rasterio
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window

import geoglnet
from geoglnet.api.prediction import Prediction
from geoglnet.errors import Canceled, ConfigError, OutputError, OutputExistsError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.prediction.blender import ZoneBuffer
from geoglnet.prediction.plan import Plan, PlannedRegion
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import ArraySink, predict_scene
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.progress import RecordedProgress, SilentProgress
from geoglnet.raster.scene import open_scene
from geoglnet.types import Shape
from tests.rasters import noise, write_raster
from tests.stubs import SMALL

CPU = PredictConfig(device="cpu", batch_size=9)  # all patches of a region together, which costs a small network least
SceneMaker = Callable[..., Path]


@pytest.fixture(scope="module")
def scene_path(make_scene: SceneMaker) -> Path:
    """Fewer blocks than in the scene of the other tests: 2 × 2."""
    return make_scene("four.tif", height=48, width=64)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def run(scene_path: Path, tiny_model_path: Path) -> Callable[..., Prediction]:
    def predicted(labels_path: Path | None = None, scene: Path = scene_path, **given: Any) -> Prediction:
        return geoglnet.predict(scene, labels_path, **{"model": str(tiny_model_path), "config": CPU, **given})

    return predicted


def test_all_files_appear_whole_and_nothing_else_stays(run: Callable[..., Prediction], tmp_path: Path) -> None:
    files = {"vector_path": tmp_path / "polygons.gpkg", "confidence_path": tmp_path / "confidence.tif"}
    segmented = run(tmp_path / "labels.tif", **files)
    assert names_in(tmp_path) == ["confidence.tif", "labels.tif", "labels.tif.aux.xml", "polygons.gpkg"]
    assert segmented.labels_path == tmp_path / "labels.tif"
    assert (segmented.shape, segmented.crs.to_epsg()) == (Shape(48, 64), 32633)
    polygons = pyogrio.read_info(tmp_path / "polygons.gpkg", layer="polygons")
    assert polygons["features"] == segmented.num_polygons
    with rasterio.open(tmp_path / "labels.tif") as labels, rasterio.open(tmp_path / "confidence.tif") as confidence:
        assert labels.tags()["GEOGLNET_MODEL"].startswith("tiny sha256:")
        assert labels.tags()["GEOGLNET_VERSION"] == geoglnet.__version__
        assert set(np.unique(labels.read(1))) <= {0, 1}
        assert confidence.read(1).min() >= 127


def test_the_files_hold_what_the_predictor_says(
    run: Callable[..., Prediction], scene_path: Path, tiny_model_path: Path, tmp_path: Path
) -> None:
    run(tmp_path / "labels.tif")
    network, manifest = load_checkpoint(tiny_model_path)
    expected = ArraySink(Shape(48, 64))
    with open_scene(scene_path, resolution_m=1.0) as scene:
        predict_scene(scene, network, manifest, expected, config=CPU)
    with rasterio.open(tmp_path / "labels.tif") as labels:
        np.testing.assert_array_equal(labels.read(1), expected.array)


def test_polygons_alone_need_no_label_file(run: Callable[..., Prediction], tmp_path: Path) -> None:
    segmented = run(vector_path=tmp_path / "polygons.gpkg")
    assert names_in(tmp_path) == ["polygons.gpkg"]
    assert segmented.labels_path is None


def test_nodata_stays_nodata_in_labels_confidence_and_polygons(
    run: Callable[..., Prediction], make_scene: SceneMaker, tmp_path: Path
) -> None:
    scene = make_scene("holes.tif", height=48, width=64, nodata=0)
    with rasterio.open(scene, "r+") as dst:
        dst.write(np.zeros((3, 24, 64), np.uint8), window=Window(0, 24, 64, 24))
    files = {"vector_path": tmp_path / "polygons.gpkg", "confidence_path": tmp_path / "confidence.tif"}
    run(tmp_path / "labels.tif", scene=scene, **files)
    for name in ("labels.tif", "confidence.tif"):
        with rasterio.open(tmp_path / name) as dataset:
            assert (dataset.read(1)[24:] == 255).all()
            assert (dataset.read(1)[:24] != 255).all()
    bounds = pyogrio.read_info(tmp_path / "polygons.gpkg", layer="polygons", force_total_bounds=True)["total_bounds"]
    assert bounds is None or bounds[1] >= 5000000 - 24


def _hole() -> npt.NDArray[np.bool_]:
    """Valid pixels of a scene of 3 × 4 blocks, of which some regions have none."""
    valid = np.ones((96, 128), bool)
    valid[:70, :90] = valid[80:90, 30:40] = False
    return valid


NODATA_OPTIONS: dict[str, Callable[[npt.NDArray[np.uint8], npt.NDArray[np.bool_]], dict[str, Any]]] = {
    "nodata value": lambda image, valid: {"image": np.where(valid, image, 0), "nodata": 0},
    "alpha": lambda image, valid: {"image": image, "alpha": valid * 255},
    "mask band": lambda image, valid: {"image": image, "valid": valid},
    "NaN": lambda image, valid: {"image": np.where(valid, image, np.nan).astype(np.float32)},
}


@pytest.mark.parametrize("kind", NODATA_OPTIONS)
def test_no_kind_of_nodata_gets_a_class_or_reaches_the_network_alone(
    run: Callable[..., Prediction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    valid, regions = _hole(), []
    given = NODATA_OPTIONS[kind](noise(3, *valid.shape), valid)
    scene = write_raster(tmp_path / "scene.tif", given.pop("image"), pixel_size=1.0, **given)
    computed = RegionSegmenter.probabilities

    def noticed(self: RegionSegmenter, planned: PlannedRegion, *given: Any) -> Any:
        regions.append(planned)
        return computed(self, planned, *given)

    monkeypatch.setattr(RegionSegmenter, "probabilities", noticed)
    names = ("labels", "confidence", "entropy", "probabilities")
    paths = {f"{name}_path": tmp_path / f"{name}.tif" for name in names}
    run(**paths, vector_path=tmp_path / "polygons.gpkg", scene=scene)
    for name in names:
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            assert ((dataset.read() == 255) == ~valid).all(), name
    with rasterio.open(tmp_path / "labels.tif") as labels:
        buildings = labels.read(1) == 1
    shapes = pyogrio.read_dataframe(tmp_path / "polygons.gpkg", layer="polygons").geometry
    outlined = rasterize(shapes, buildings.shape, transform=labels.transform).astype(bool)
    assert outlined.any()
    assert (outlined == buildings).all()
    assert all(valid[planned.reach.toslices()].any() for planned in regions)
    assert len(regions) < len(Plan(Shape(*valid.shape), SMALL))


def test_the_rules_applied_are_logged(run: Callable[..., Prediction], tmp_path: Path) -> None:
    progress = RecordedProgress()
    run(tmp_path / "labels.tif", progress=progress)
    logged = " / ".join(progress.messages("log"))
    assert "model tiny: bands 1, 2, 3 as red, green, blue, 1 m pixels" in logged
    assert not progress.messages("warning")
    stages = [event["stage"] for event in progress.events if event["event"] == "plan"]
    assert stages[0] == "segment"


def test_how_values_were_read_is_kept_in_the_tags(run: Callable[..., Prediction], tmp_path: Path, scene_path: Path) -> None:
    with rasterio.open(scene_path) as src:
        image = src.read().astype(np.float32) / 255
    image[:, :, :6] = -9999
    scene = write_raster(tmp_path / "scene.tif", image, pixel_size=1.0)
    run(tmp_path / "found.tif", scene=scene)
    run(tmp_path / "named.tif", scene=scene, config=PredictConfig(device="cpu", nodata=-9999))
    run(tmp_path / "plain.tif")
    tags, labels = {}, {}
    for name in ("found", "named", "plain"):
        with rasterio.open(tmp_path / f"{name}.tif") as src:
            tags[name], labels[name] = src.tags().get("GEOGLNET_VALUES"), src.read(1)
    assert tags["found"] == tags["named"] == "values 0 to 1 read as 0 to 255 (fractions); -9999 is no value"
    assert tags["plain"] is None, "8-bit values are read as they are"
    assert (labels["found"] == labels["named"]).all()
    assert (labels["found"][:, :6] == 255).all()
    assert (labels["found"][:, 6:] != 255).all()


def test_a_scene_coarser_than_the_model_is_warned_about(
    run: Callable[..., Prediction], make_scene: SceneMaker, tmp_path: Path
) -> None:
    coarse = make_scene("coarse.tif", height=9, width=9, transform=Affine(4, 0, 500000, 0, -4, 5000000))
    progress = RecordedProgress()
    segmented = run(tmp_path / "labels.tif", scene=coarse, progress=progress)
    (warning,) = progress.messages("warning")
    assert "the scene has 4 m pixels, model tiny was trained on 0.5 to 2 m" in warning
    assert segmented.shape == Shape(36, 36)


def test_a_finer_scene_is_averaged_down_and_logged(
    run: Callable[..., Prediction], make_scene: SceneMaker, tmp_path: Path
) -> None:
    fine = make_scene("fine.tif", transform=Affine(0.25, 0, 500000, 0, -0.25, 5000000))
    progress = RecordedProgress()
    segmented = run(tmp_path / "labels.tif", scene=fine, progress=progress)
    assert segmented.shape == Shape(20, 30)
    assert not progress.messages("warning")
    assert any("averaged down" in message for message in progress.messages("log"))


def test_a_scene_without_crs_works_in_pixels(run: Callable[..., Prediction], make_scene: SceneMaker, tmp_path: Path) -> None:
    scene = make_scene("plain.tif", height=48, width=64, crs=None)
    progress = RecordedProgress()
    segmented = run(tmp_path / "labels.tif", vector_path=tmp_path / "polygons.gpkg", scene=scene, progress=progress)
    assert segmented.crs is None
    with rasterio.open(tmp_path / "labels.tif") as labels:
        assert labels.crs is None
        assert labels.bounds == (500000, 4999952, 500064, 5000000)  # a transform without a CRS is kept
    assert segmented.shape == Shape(48, 64)
    assert any("no CRS" in message for message in progress.messages("log"))


def test_outputs_must_be_files_of_their_own(run: Callable[..., Prediction], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="share a file"):
        run(tmp_path / "a.tif", confidence_path=tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["scene.tif.msk", "scene.tif.ovr", "scene.tif.aux.xml", "labels.png", "labels.gpkg", "labels"])
def test_rasters_take_no_name_of_another_format(run: Callable[..., Prediction], tmp_path: Path, name: str) -> None:
    """GDAL would take the first three for parts of scene.tif."""
    with pytest.raises(ConfigError, match=rf"^{name}: confidence is written as a GeoTIFF; let its name end in \.tif$"):
        run(tmp_path / "labels.tif", confidence_path=tmp_path / name)
    assert not names_in(tmp_path)


@pytest.mark.parametrize("name", ["labels.tif", "polygons.gpkg", "confidence.tif"])
def test_an_existing_file_is_refused_before_computing(run: Callable[..., Prediction], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    progress = RecordedProgress()
    files = {"vector_path": tmp_path / "polygons.gpkg", "confidence_path": tmp_path / "confidence.tif"}
    with pytest.raises(OutputExistsError, match=name):
        run(tmp_path / "labels.tif", progress=progress, **files)
    assert not progress.events
    assert names_in(tmp_path) == [name]


def test_overwriting_replaces_the_sidecar_too(run: Callable[..., Prediction], tmp_path: Path) -> None:
    for name in ("confidence.tif", "confidence.tif.aux.xml"):
        (tmp_path / name).write_text("old")
    run(confidence_path=tmp_path / "confidence.tif", overwrite=True)
    assert names_in(tmp_path) == ["confidence.tif"]


def test_the_scene_itself_is_never_overwritten(run: Callable[..., Prediction], scene_path: Path) -> None:
    with pytest.raises(OutputError, match="is the scene itself"):
        run(scene_path, overwrite=True)


def test_canceling_leaves_nothing(run: Callable[..., Prediction], tmp_path: Path) -> None:
    class Impatient(SilentProgress):
        def advance(self, amount: int = 1, **figures: float) -> None:
            raise Canceled("stop")

    with pytest.raises(Canceled):
        run(tmp_path / "labels.tif", vector_path=tmp_path / "polygons.gpkg", progress=Impatient())
    assert names_in(tmp_path) == []


def test_a_full_disk_under_the_spool_is_one_error(
    run: Callable[..., Prediction], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ZoneBuffer, "put", write)
    with pytest.raises(OutputError, match="disk full"):
        run(tmp_path / "labels.tif")
    assert names_in(tmp_path) == []


def test_labels_stay_when_tracing_fails(
    run: Callable[..., Prediction], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def vectorize(*_: object, **__: object) -> int:
        raise OutputError("disk full")

    monkeypatch.setattr("geoglnet.vector.polygonizer.write_polygons", vectorize)
    with pytest.raises(OutputError, match="disk full"):
        run(tmp_path / "labels.tif", vector_path=tmp_path / "polygons.gpkg")
    assert names_in(tmp_path) == ["labels.tif", "labels.tif.aux.xml", "labels.tif.unfinished"]


def test_the_doors_of_the_api_write_the_same(scene_path: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    done = geoglnet.predict(
        scene_path, tmp_path / "labels.tif", vector_path=tmp_path / "a.gpkg", model=str(tiny_model_path), config=CPU
    )
    assert geoglnet.vectorize(tmp_path / "labels.tif", tmp_path / "b.gpkg").num_polygons == done.num_polygons
