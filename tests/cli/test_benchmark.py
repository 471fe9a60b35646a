"""``geoglnet benchmark`` through the real command line, on miniature copies of the data sets."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from geoglnet.cli.main import geoglnet
from geoglnet.models.manifest import read_manifest
from geoglnet.paper.systems import SYSTEMS, find_system
from geoglnet.paper.targets import TARGETS
from geoglnet.training.train_config import read_config
from tests.cli.test_train_sets import CASES, write_config

pytestmark = pytest.mark.slow  # trains and measures several networks


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(geoglnet, [str(argument) for argument in arguments])


BOTH = ("--systems", "icnet-patches,one-way", "--seeds", "0,1", "--no-memory")


class Place:
    """A folder with a data set, its configuration, and what benchmarks leave."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        CASES[kind].write(folder)
        self.config = write_config(folder, CASES[kind])
        self.out = folder / "out"

    def benchmark(self, target: str, *arguments: str) -> Result:
        fixed = ("--data", self.folder, "-o", self.out, "--steps", "1", "--device", "cpu")
        return run("benchmark", target, self.config, *fixed, *arguments)


@pytest.fixture(scope="module")
def landcover(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """DeepGlobe, with ICNet on patches and GLNet trained and scored over two seeds, and GLNet measured."""
    place = Place(tmp_path_factory.mktemp("landcover"), "deepglobe")
    unmeasured = place.benchmark("table3", "--systems", "icnet-patches", "--seeds", "0,1", "--no-memory")
    assert unmeasured.exit_code == 0, unmeasured.output
    measured = place.benchmark("table3", "--systems", "one-way", "--seeds", "0,1")
    assert measured.exit_code == 0, measured.output
    made = place.benchmark("table3", *BOTH)
    assert made.exit_code == 0, made.output
    place.text = made.stdout
    return place


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("lesions"), "isic")


def test_a_table_has_the_papers_columns_beside_ours(landcover: Place) -> None:
    lines = [line for line in landcover.text.splitlines() if line.startswith("| ")]
    heads, icnet, one_way = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert heads[:4] == ["system", "mIoU %, paper", "mIoU %, here", "seeds"]
    assert icnet[:2] == ["ICNet, patches", "35.5"]
    assert one_way[:2] == ["GLNet: G → L", "70.9"]
    here = dict(zip(heads, one_way, strict=True))
    assert here["seeds"] == "0 1"
    assert "±" in here["mIoU %, here"]
    assert here["memory MB, paper"] == "1395"
    assert float(here["memory MB, here"]) > 5
    assert float(here["Mpx/s"]) > float(here["Mpx/s with files"]) > 0
    assert here["steps"] == "2"  # a global stage and a local one
    assert "MB when idle (libraries loaded, no weights); one region of 96 px, batch 1" in landcover.text


def test_a_table_is_kept_as_markdown_and_csv_with_every_seed(landcover: Place) -> None:
    assert landcover.text in (landcover.out / "table3.md").read_text(encoding="utf-8")
    with (landcover.out / "table3.csv").open(encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["system"], row["seed"]) for row in rows] == [
        ("icnet-patches", "0"), ("icnet-patches", "1"), ("one-way", "0"), ("one-way", "1"),
    ]  # fmt: skip
    scores = json.loads((landcover.out / "one-way.1.json").read_text(encoding="utf-8"))
    assert float(rows[3]["miou"]) == scores["conventions"]["mean_iou"]
    assert float(rows[3]["water"]) == scores["total"]["water"]


def test_glnet_begins_with_the_global_branch_of_its_seed(landcover: Place) -> None:
    for seed in (0, 1):
        assert (landcover.out / f"global.{seed}.safetensors").exists()
    seeds = [read_manifest(landcover.out / f"one-way.{seed}.safetensors").training["optim"]["seed"] for seed in (0, 1)]
    assert seeds == [0, 4]


def test_what_is_there_is_not_done_again(landcover: Place) -> None:
    before = {path: path.stat().st_mtime_ns for path in landcover.out.glob("*.safetensors")}
    before |= {path: path.stat().st_mtime_ns for path in landcover.out.glob("*.memory.json")}
    again = landcover.benchmark("table3", *BOTH)
    assert again.stdout == landcover.text
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_figure_1a_is_drawn_from_what_there_is(landcover: Place) -> None:
    drawn = landcover.benchmark("figure1a", "--dry", "--seeds", "0,1")
    assert drawn.exit_code == 0, drawn.output
    assert "| UNet, global | 38.4 | – |" in drawn.stdout
    with Image.open(landcover.out / "figure1a.png") as picture:
        assert min(picture.size) > 400
        assert len(picture.convert("RGB").getcolors(2**24)) > 50
    assert (landcover.out / "figure1a.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_figure_1b_sweeps_sizes_of_the_global_image(landcover: Place) -> None:
    drawn = landcover.benchmark("figure1b", "--sizes", "48,96", "--systems", "icnet-global@48,icnet-global@96", "--no-memory")
    assert drawn.exit_code == 0, drawn.output
    assert read_manifest(landcover.out / "icnet-global@96.0.safetensors").region.overview_size == 96
    assert "ICNet, global 48" in drawn.stdout
    assert "ICNet, global 96" in drawn.stdout


def test_todays_systems_stand_beside_the_papers_when_they_are_named(landcover: Place) -> None:
    made = landcover.benchmark("table3", "--systems", "icnet-patches,segformer-global", "--dry")
    assert made.exit_code == 0, made.output
    assert "| SegFormer, global 96 | – | – |" in made.stdout


def test_figure_7_shows_systems_side_by_side_with_zoom_ins(landcover: Place) -> None:
    drawn = landcover.benchmark("figure7", "--systems", "global,agg-fmreg")
    assert drawn.exit_code == 0, drawn.output
    assert "Global only, GLNet: Agg, Fmreg" in drawn.stdout
    with Image.open(landcover.out / "figure7.png") as picture:
        assert picture.width > 4 * 200


def test_models_that_are_there_already_are_taken(landcover: Place, tmp_path: Path) -> None:
    ours = landcover.out / "one-way.{seed}.safetensors"
    out = tmp_path / "taken"
    made = run("benchmark", "table2", landcover.config, "--data", landcover.folder, "-o", out, "--systems", "one-way",
               "--checkpoint", f"one-way={ours}", "--steps", "1", "--device", "cpu", "--no-memory")  # fmt: skip
    assert made.exit_code == 0, made.output
    assert not list(out.glob("*.safetensors"))
    assert json.loads((out / "one-way.0.json").read_text())["total"] == json.loads(
        (landcover.out / "one-way.0.json").read_text()
    )["total"]  # fmt: skip


def test_figure_8_counts_regions_before_and_after_the_box(lesions: Place) -> None:
    drawn = lesions.benchmark("figure8")
    assert drawn.exit_code == 0, drawn.output
    assert "| whole regions |" in drawn.stdout
    assert (lesions.out / "figure8.png").exists()


def test_table_4_trains_coarse_to_fine_and_scores_as_isic_does(lesions: Place) -> None:
    made = lesions.benchmark("table4", "--systems", "coarse-one-way", "--no-memory")
    assert made.exit_code == 0, made.output
    assert "| GLNet: G → L, Bbox | 73.9 |" in made.stdout
    assert read_manifest(lesions.out / "coarse-one-way.0.safetensors").training["sample"]["coarse_to_fine"] is True


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("table6", (), "unknown table or figure 'table6'; did you mean 'table"),
        ("table4", (), "needs a background and one other class, such as ISIC's lesion; the configuration's classes are urban"),
        ("table7", (), "or pass --own-data to leave out the paper's numbers"),
        ("table3", ("--systems", "icnet-patch"), "unknown system 'icnet-patch'; did you mean 'icnet-patches'"),
        ("table3", ("--seeds", "0,x"), "is not a list of whole numbers"),
        ("table3", ("--checkpoint", "one-way"), "give SYSTEM=FILE"),
        ("table2", ("--systems", "agg", "--checkpoint", "agg=none.safetensors"), "no checkpoint none.safetensors of agg"),
        ("table2", ("--systems", "global", "--set", "optim.gamma=5.0"), "holds figures of another configuration (other optim)"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_said_in_one_line(
    landcover: Place, target: str, arguments: tuple[str, ...], message: str
) -> None:
    ran = landcover.benchmark(target, *arguments)
    assert ran.exit_code in (1, 2)
    assert message in ran.stderr
    assert "Traceback" not in ran.output


def test_the_papers_numbers_are_left_out_for_other_data(landcover: Place) -> None:
    made = landcover.benchmark("table7", "--own-data", "--dry")
    assert made.exit_code == 0, made.output
    assert "71.2" not in made.stdout


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_a_change_to_one_configuration(landcover: Place, name: str) -> None:
    config = read_config(landcover.config, {"model.sharing": "bidirectional"})
    system = find_system(name)
    changed = system.configured(config, seed=1)
    assert changed.train == config.train
    assert changed.augment == config.augment
    assert changed.name == f"mini-{name}"
    if system.begins_with:
        before = find_system(system.begins_with).configured(config, seed=1)
        assert before.model.backbone == changed.model.backbone


def test_every_row_of_every_table_and_figure_names_a_system() -> None:
    for target in TARGETS.values():
        assert target.systems((500, 1000))
