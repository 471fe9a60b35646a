"""Adapting a tiny model to a drawn scene: division, verdict, files, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from click.testing import CliRunner, Result
from rasterio.windows import Window

import geoglnet
from geoglnet.adaptation import pages, polygon_choice
from geoglnet.adaptation.drawn import DrawingRules, Drawn, read_drawn
from geoglnet.adaptation.held_out import verdict
from geoglnet.adaptation.squares import CHOOSE, LEARN, SCORE, Squares
from geoglnet.adaptation.tally import Answer, Change, Crop, PolygonRules, tally
from geoglnet.cli.main import geoglnet as program
from geoglnet.config import ModelConfig, RegionConfig
from geoglnet.errors import DatasetError, LegendError
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.manifest import Manifest, read_manifest
from geoglnet.models.network import build_network
from geoglnet.progress import RecordedProgress
from geoglnet.types import Shape
from tests.rasters import write_raster

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning", "ignore:.*does not have many workers.*")

LEGEND = Legend(("background", "building"), ((32, 32, 32), (230, 75, 50)), background=0)
SIDE = 256
SAMPLE = {"region_size": 96, "patch_size": 64, "patches_per_region": 1}


class Place:
    """A folder with a scene, the polygons of its roofs, an area, and an untrained model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        roofs = np.zeros((SIDE, SIDE), bool)
        self.boxes = []
        for row in range(4, SIDE - 20, 32):
            for col in range(4, SIDE - 20, 32):
                height, width = rng.integers(10, 20, 2)
                roofs[row : row + height, col : col + width] = True
                self.boxes.append(shapely.box(500000 + col, 9e6 - row - height, 500000 + col + width, 9e6 - row))
        image = (np.where(roofs, 200, 60)[None] + rng.integers(-20, 20, (3, SIDE, SIDE))).astype(np.uint8)
        self.scene = write_raster(folder / "scene.tif", image, pixel_size=1.0)
        self.polygons = self.write("roofs.gpkg", self.boxes)
        self.area = self.write("area.gpkg", [shapely.box(500000, 9e6 - SIDE, 500000 + SIDE, 9e6)])
        model = ModelConfig(2, "mobilenet_v3_small", pyramid_channels=8, smooth_channels=4)
        self.manifest = Manifest(
            "tiny", model, RegionConfig(256, 64, 256, 0, 0), LEGEND, 1.0, (0.5, 2.0), 1.0, training={"sample": SAMPLE}
        )
        torch.manual_seed(0)
        self.model = folder / "tiny.safetensors"
        save_checkpoint(self.model, build_network(model), self.manifest)

    def write(self, name: str, shapes: list[Any], crs: int = 32736, **fields: Any) -> Path:
        geopandas.GeoDataFrame(fields, geometry=shapes, crs=crs).to_file(self.folder / name)
        return self.folder / name

    def adapt(self, polygons: Path, name: str = "new.safetensors", **options: Any) -> geoglnet.Adaptation:
        options.setdefault("progress", RecordedProgress())
        options.setdefault("settings", {"steps": 2, "share": 0.0, "rehearse": 0.0})
        return geoglnet.adapt(self.model, self.scene, polygons, self.folder / name, overwrite=True, **options)

    def read(self, polygons: Path, area: Path | None = None, radius: float = 2.0) -> tuple[Drawn, RecordedProgress]:
        progress = RecordedProgress()
        bounds = (500000, 9e6 - SIDE, 500000 + SIDE, 9e6)
        rules = DrawingRules("", "", 3.0, radius)
        return read_drawn(polygons, area, "EPSG:32736", bounds, LEGEND, rules, progress), progress

    def labels(self, drawn: Drawn) -> Any:
        transform = Affine(1, 0, 500000, 0, -1, 9e6)
        return drawn.truth_on(transform).read_labels(Window(col_off=0, row_off=0, width=SIDE, height=SIDE))

    def run(self, polygons: Path, *words: str | Path, scene: Path | None = None) -> Result:
        arguments = [self.model, scene or self.scene, polygons, "-o", self.folder / "cli.safetensors", *words]
        return CliRunner().invoke(program, ["adapt", *map(str, arguments)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def adapted(place: Place) -> tuple[geoglnet.Adaptation, RecordedProgress]:
    """An adaptation with all roofs, in an area."""
    progress = RecordedProgress()
    with pytest.MonkeyPatch.context() as patch:  # the picture takes longer than all else
        patch.setattr(pages, "draw_adaptation", lambda *_, **__: pages.Figure(figsize=(1, 1)))
        done = place.adapt(
            place.polygons, "first.safetensors", area_path=place.area, progress=progress, settings={"steps": 2, "rehearse": 0.0}
        )
    return done, progress


def test_an_adaptation_leaves_a_model_a_report_and_scores(
    place: Place, adapted: tuple[geoglnet.Adaptation, RecordedProgress]
) -> None:
    done, progress = adapted
    facts = json.loads((done.run_path / "adaptation.json").read_text())
    assert {path.name for path in done.run_path.iterdir()} >= {"report.png", "report.html", "adaptation.json", "losses.csv"}
    assert facts["steps"] == 2
    assert set(facts["measures"]) == {"iou", "boundary_f1", "polygon_f1"}
    assert facts["measures"]["iou"]["gain_interval"][0] <= facts["measures"]["iou"]["gain"]
    assert "to learn from" in facts["division"]
    assert "held out" in str(progress.events)
    assert done.table().shape == (6, 2)
    kept = read_manifest(done.checkpoint_path)
    assert kept.legend == LEGEND
    assert ("adapted_from" in kept.training) is done.is_better
    assert geoglnet.predict(place.scene, place.folder / "again.tif", model=done.model(), overwrite=True).shape == (SIDE, SIDE)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model(place: Place, adapted: tuple[geoglnet.Adaptation, RecordedProgress]) -> None:
    again = place.adapt(place.polygons, "first.safetensors", area_path=place.area, settings={"steps": 2, "rehearse": 0.0})
    assert again.outcome.changes == adapted[0].outcome.changes


def test_what_is_held_out_is_never_learned_from() -> None:
    roles = np.array([[LEARN, SCORE], [CHOOSE, LEARN]], np.uint8)
    squares = Squares(Window(col_off=10, row_off=20, width=60, height=64), 32, roles)
    found = squares.roles_of(Window(col_off=0, row_off=0, width=100, height=100))
    assert (found[20:52, 10:42] == LEARN).all()
    assert (found[20:52, 42:74] == SCORE).all()
    assert (found[:20] == 0).all()
    assert (found[:, :10] == 0).all()
    assert squares.square(1, 1) == Window(col_off=42, row_off=52, width=28, height=32)


def change(before: float, after: float, sd: float) -> Change:
    return Change(before, after, (0, 1), (0, 1), (0, 0), sd)


@pytest.mark.parametrize(
    ("iou", "boundary", "polygon", "is_better", "words"),
    [
        (change(0.5, 0.6, 0.02), change(0.4, 0.4, 0.01), change(0.3, 0.31, 0.01), True, "the new model is kept"),
        (change(0.5, 0.6, 0.02), change(0.4, 0.4, 0.01), change(0.237, 0.202, 0.01), False, "polygon F1 falls"),
        (change(0.5, 0.6, 0.02), change(0.4, 0.4, 0.01), change(0.237, 0.232, 0.01), True, "the new model is kept"),
        (change(0.5, 0.6, 0.02), change(0.4, 0.3, 0.01), change(0.3, 0.31, 0.01), False, "boundary F1 falls"),
        (change(0.5, 0.5, 0.02), change(0.4, 0.5, 0.01), change(0.3, 0.4, 0.01), False, "not better"),
        (change(0.5, 0.6, 0.02), change(0.4, 0.4, 0.01), change(float("nan"), float("nan"), 0.0), True, "new model"),
    ],
)
def test_a_model_is_kept_only_where_no_measure_falls_beyond_chance(
    iou: Change, boundary: Change, polygon: Change, is_better: bool, words: str
) -> None:
    kept, reason = verdict({"iou": iou, "boundary_f1": boundary, "polygon_f1": polygon})
    assert kept is is_better
    assert words in reason


def test_polygons_are_found_missed_and_false() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[2:12, 2:12] = truth[2:12, 20:30] = 1
    instances = np.zeros((40, 40), np.int32)
    instances[2:12, 2:12], instances[2:12, 20:30] = 1, 2
    window = Window(col_off=0, row_off=0, width=40, height=40)
    crop = Crop((0, 0), window, window, truth, instances, np.array([1, 1], np.uint8), np.array([True, True]))
    labels = np.zeros_like(truth)
    labels[2:12, 3:12] = labels[30:34, 30:34] = 1  # one found, one false, one missed
    sure = np.full_like(labels, 254)
    counts = tally([crop], [Answer(labels, sure)], LEGEND)
    assert counts.polygons[0, 1].tolist() == [1, 1, 1]
    assert counts.means()["polygon_f1"] == pytest.approx(0.5)
    assert counts.means()["iou"] == pytest.approx(90 / (200 + 16))
    perfect = tally([crop], [Answer(truth, sure)], LEGEND).means()
    assert perfect == {"iou": 1.0, "boundary_f1": 1.0, "polygon_f1": 1.0}


@pytest.mark.parametrize("rules", [PolygonRules(min_px=17), PolygonRules(min_confidence=0.6), PolygonRules(opening=2)])
def test_polygons_that_the_models_settings_drop_are_not_false(rules: PolygonRules) -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[2:12, 2:12] = 1
    window = Window(col_off=0, row_off=0, width=40, height=40)
    crop = Crop((0, 0), window, window, truth, truth.astype(np.int32), np.array([1], np.uint8), np.array([True]))
    labels, confidence = truth.copy(), np.full_like(truth, 200)
    labels[30:34, 30:34] = 1
    confidence[30:34, 30:34] = 150  # .59
    answer = Answer(labels, confidence)
    assert tally([crop], [answer], LEGEND).polygons[0, 1].tolist() == [1, 1, 0]
    assert tally([crop], [answer], LEGEND, rules).polygons[0, 1].tolist() == [1, 0, 0]


def test_without_an_area_only_the_surroundings_are_known(place: Place) -> None:
    drawn, _ = place.read(place.write("some.gpkg", place.boxes[:2]))
    labels = place.labels(drawn)
    roofs = sum(box.area for box in place.boxes[:2])
    assert (labels == 1).sum() == roofs
    assert 0 < (labels == 0).sum() < 2 * roofs
    assert labels[-1, -1] == 255
    assert "known near what was drawn" in drawn.described
    whole, _ = place.read(place.polygons, place.area)
    assert (place.labels(whole) == 255).sum() == 0


def test_of_areas_that_can_be_checked_those_count_that_are(place: Place) -> None:
    halves = [shapely.box(500000 + left, 9e6 - SIDE, 500000 + left + SIDE // 2, 9e6) for left in (0, SIDE // 2)]
    area = place.write("areas.gpkg", halves, checked=[False, True])
    drawn, _ = place.read(place.polygons, area)
    known = place.labels(drawn) != 255
    assert known[:, SIDE // 2 :].all()
    assert not known[:, : SIDE // 2].any()
    assert "known inside areas.gpkg where checked is set" in drawn.described
    area = place.write("areas.gpkg", halves, checked=[False, False])
    with pytest.raises(DatasetError, match="no area is marked as looked at; set 'checked'"):
        place.read(place.polygons, area)


def test_objects_that_touch_are_parted_for_learning_alone(place: Place) -> None:
    touching = [shapely.box(500010 + 10 * i, 9e6 - 30, 500020 + 10 * i, 9e6 - 10) for i in range(2)]
    drawn, _ = place.read(place.write("touching.gpkg", touching))
    window = Window(col_off=0, row_off=0, width=SIDE, height=SIDE)
    transform = Affine(1, 0, 500000, 0, -1, 9e6)
    assert drawn.truth_on(transform).read_labels(window)[20, 8:32].tolist() == [0] * 2 + [1] * 20 + [0] * 2
    parted = drawn.parted_on(transform).read_labels(window)[20, 8:32].tolist()
    assert parted == [0] * 2 + [1] * 9 + [0] * 2 + [1] * 9 + [0] * 2


def test_points_and_strokes_are_labels_of_their_width_but_no_objects(place: Place) -> None:
    marks = [shapely.Point(500050.5, 9e6 - 50.5), shapely.LineString([(500100, 9e6 - 20), (500100, 9e6 - 60)])]
    drawn, _ = place.read(place.write("marks.gpkg", marks, **{"class": ["building", "background"]}))
    labels = place.labels(drawn)
    assert labels[50, 50] == 1
    assert 9 <= (labels == 1).sum() <= 13  # π · 2²
    assert labels[40, 99] == 0
    assert len(drawn.objects) == 0
    lonely = place.write("lonely.gpkg", [shapely.Point(5.5e6, 1)] * 2, **{"class": ["building", "background"]})
    with pytest.raises(DatasetError, match=r"nothing of .* lies on the scene"):
        place.read(lonely)


def test_only_what_somebody_approved_counts(place: Place) -> None:
    flags = [i % 2 == 0 for i in range(len(place.boxes))]
    drawn, _ = place.read(place.write("flags.gpkg", place.boxes, approved=flags))
    assert len(drawn.objects) == len(place.boxes) / 2
    assert "only where approved is set" in drawn.described
    unset, _ = place.read(place.write("unset.gpkg", place.boxes, approved=["False"] * len(place.boxes)))
    assert len(unset.objects) == len(place.boxes)  # a field that nobody has used says nothing


def test_overlapping_classes_are_unknown_where_they_overlap(place: Place) -> None:
    shapes = [shapely.box(500010, 9e6 - 30, 500030, 9e6 - 10), shapely.box(500020, 9e6 - 30, 500040, 9e6 - 10)]
    drawn, progress = place.read(place.write("clash.gpkg", shapes, **{"class": ["building", "background"]}))
    assert "1 pairs of polygons of different classes overlap" in str(progress.events)
    assert place.labels(drawn)[20, [15, 25, 35]].tolist() == [1, 255, 0]


def test_other_classes_make_another_model(place: Place) -> None:
    names = ["pool" if i % 2 else "building" for i in range(len(place.boxes))]
    path = place.write("pools.gpkg", place.boxes, **{"class": names})
    done = place.adapt(path, legend=["background", "building", "pool"], area_path=place.area)
    assert done.outcome.after.legend.names == ("background", "building", "pool")
    if done.is_better:
        assert load_checkpoint(done.checkpoint_path)[1].legend.colors[1] == (230, 75, 50)
    with pytest.raises(LegendError, match=r"class 'pool' in 'class' \(32 features\), which the model lacks.*legend="):
        place.adapt(path)


def test_all_in_one_block_is_cross_validated_on_request(place: Place) -> None:
    path = place.write("corner.gpkg", [shapely.box(500010 + 9 * i, 9e6 - 20, 500016 + 9 * i, 9e6 - 14) for i in range(6)])
    with pytest.raises(DatasetError, match=r"lie in one block of 64 px.*cross_validate=True"):
        place.adapt(path)


@pytest.mark.slow
def test_each_third_is_held_out_once(place: Place) -> None:
    path = place.write("corner.gpkg", [shapely.box(500010 + 9 * i, 9e6 - 20, 500016 + 9 * i, 9e6 - 14) for i in range(6)])
    done = place.adapt(path, cross_validate=True, settings={"steps": 1, "share": 0.0, "rehearse": 0.0})
    assert len(done.outcome.before) >= 3
    assert "each third" in done.outcome.facts["division"]


@pytest.mark.parametrize(
    ("shapes", "fields", "words"),
    [
        ([shapely.LineString()], {}, "holds no polygons"),
        ([shapely.box(500010, 9e6 - 20, 500020, 9e6 - 10)], {}, "has 1 polygon on the scene; draw at least 2"),
        ([shapely.box(0, 0, 9, 9)] * 2, {}, "nothing of"),
        ([shapely.box(500010, 9e6 - 20, 500020, 9e6 - 10)] * 2, {"class": ["building", None]}, "have no 'class'"),
    ],
)
def test_what_cannot_be_learned_from_is_said_in_one_line(
    place: Place, shapes: list[Any], fields: dict[str, Any], words: str
) -> None:
    ran = place.run(place.write("bad.gpkg", shapes, **fields), "--overwrite")
    assert ran.exit_code == 1
    assert words in ran.stderr
    assert len([line for line in ran.stderr.splitlines() if not line.startswith("Note")]) == 1
    assert not (place.folder / "cli.safetensors").exists()


def test_the_command_line_prints_a_table(place: Place) -> None:
    ran = place.run(place.polygons, "--minutes", "0.1", "--area", place.area, "--overwrite")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.splitlines()[0].split() == ["MEASURE", "CLASS", "BEFORE", "AFTER", "GAIN", "(90", "%)"]
    assert "steps of about" in ran.stderr
    again = place.run(place.polygons)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr


def test_a_scene_far_from_the_models_resolution_and_other_bands_are_named(place: Place) -> None:
    coarse = write_raster(place.folder / "coarse.tif", np.zeros((3, 64, 64), np.uint8), pixel_size=20.0)
    ran = place.run(place.polygons, "--overwrite", scene=coarse)
    assert (ran.exit_code, "--resolution" in ran.stderr) == (1, True)
    gray = write_raster(place.folder / "gray.tif", np.zeros((2, 64, 64), np.uint8), pixel_size=1.0)
    ran = place.run(place.polygons, "--overwrite", scene=gray)
    assert ran.exit_code == 1
    assert "band" in ran.stderr


@pytest.mark.slow
def test_what_was_found_better_learns_from_everything_on_request(place: Place) -> None:
    progress = RecordedProgress()
    chosen = {"steps": 1, "share": 0.0, "rehearse": 0.0, "is_refit": True, "is_forced": True}
    done = place.adapt(place.polygons, area_path=place.area, settings=chosen, progress=progress)
    assert done.is_better
    assert "learns from what was held out too" in str(progress.events)
    assert [event["stage"] for event in progress.events if event["event"] == "plan"].count("local stage") == 2


def test_settings_of_polygons_follow_what_was_drawn(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, _ = place.read(place.polygons, place.area)
    window = Window(col_off=0, row_off=0, width=SIDE, height=SIDE)
    squares = Squares(window, SIDE, np.full((1, 1), LEARN, np.uint8))
    truth = place.labels(drawn)
    joined = truth.copy()
    joined[12:16] = 1  # a thin line through all roofs of the first row
    transform = Affine(1, 0, 500000, 0, -1, 9e6)
    job: Any = SimpleNamespace(
        manifest=place.manifest,
        new_manifest=place.manifest,
        legend=LEGEND,
        drawn=drawn,
        scene=SimpleNamespace(transform=transform, shape=Shape(SIDE, SIDE)),
        progress=RecordedProgress(),
    )
    monkeypatch.setattr(polygon_choice, "replace", lambda one, **_: one)
    for labels, expected in ((truth, {}), (joined, {"opening": 2, "min_confidence": 0.0})):
        answer = Answer(labels, np.full_like(labels, 254))
        monkeypatch.setattr(polygon_choice, "segment", lambda *_, answer=answer: [answer])
        assert polygon_choice.choose_polygons(job, None, squares) == expected  # type: ignore[arg-type]
    assert "settings of polygons by what was drawn: opening 2 px" in str(job.progress.events)
