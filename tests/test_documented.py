"""Every command and every line of Python in the README and the guides is run, on small scenes made for it."""

from __future__ import annotations

import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from shapely import box

import geoglnet
from geoglnet.cli.main import geoglnet as program
from tests import official
from tests.api.test_public import MINE, write_drawn
from tests.miniature import write_two_crs
from tests.rasters import write_raster

pytestmark = [
    pytest.mark.draws,
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning", "ignore:.*does not have many workers.*"),
]

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
NOT_RUN = {  # words in a command: why it is not run here
    "--device cuda": "needs a GPU",
    "https://": "needs a network",
    " benchmark ": "trains networks for minutes; it has tests of its own",
    " other.onnx": "needs somebody's model; tests/models/test_foreign.py makes some",
    " import-model ": "the same",
    " export ": "traces networks for minutes; it has tests of its own",
    " adapt ": "trains for minutes; it has tests of its own",
    " demo ": "the whole scene takes long; .ci/run runs it",
    " batch ": "needs a catalog; tests/cluster",
    " plan ": "writes no output yet; tests/cluster",
    " work ": "needs a plan; tests/cluster",
    " status ": "needs a plan; tests/cluster",
    " finish ": "needs a plan; tests/cluster",
    " train config.toml --data DATA -o mine.safetensors --resume": "needs a training that was cut off; test_training_resume",
}
OUTPUT_OPTIONS = {"-o", "--vector", "--uncertain", "--confidence", "--entropy", "--probabilities"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()]
    found = dict.fromkeys(shlex.join(shlex.split(line, comments=True)) for line in lines if line.startswith("geoglnet "))
    return [command for command in found if not any(words in f"{command} " for words in NOT_RUN)]


def outputs(words: list[str]) -> set[str]:
    """Files that a command writes."""
    if words[1] == "vectorize":
        return {words[3]}
    return {after for option, after in pairwise(words) if option in OUTPUT_OPTIONS}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages name."""
    pytest.importorskip("torchgeo")
    folder = tmp_path_factory.mktemp("documented")
    scene_path = geoglnet.demo(folder, shape=(384, 384))
    for name in ("held_out.tif", "a.tif", "b.tif", "c.tif"):
        shutil.copy(scene_path, folder / name)
    truth = geopandas.read_file(folder / "truth.gpkg", layer="truth")
    truth[truth.class_name == "building"].to_file(folder / "found.gpkg")
    truth[:3].to_file(folder / "district.gpkg")
    write_drawn(scene_path, folder / "drawn.gpkg")
    with rasterio.open(scene_path) as src:
        tiles = {"location": [str(folder / name) for name in ("a.tif", "b.tif")], "geometry": [box(*src.bounds)] * 2}
        geopandas.GeoDataFrame(geometry=[box(*src.bounds)], crs=src.crs).to_file(folder / "looked.gpkg")
        geopandas.GeoDataFrame(tiles, crs=src.crs).to_file(folder / "index.gti.gpkg", layer="index")
    gray = np.random.default_rng(0).integers(0, 256, (3, 240, 300), dtype=np.uint8)
    write_raster(folder / "scene.jpg", gray, crs=None, driver="JPEG")
    torch.save(official.random_state(7), folder / "path_g2l.pth")
    (folder / "config.toml").write_text(MINE.replace("buildings.gpkg", "found.gpkg"), encoding="utf-8")
    geoglnet.predict(scene_path, folder / "labels.tif", confidence_path=folder / "confidence.tif")
    geoglnet.train(folder / "config.toml", folder / "mine.safetensors", folder=folder)
    shutil.rmtree(folder / "mine.run")
    return write_two_crs(folder)


@pytest.fixture
def here(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same files in a folder of one's own, and in its ``DATA`` and ``demo``: what a command writes, no other sees."""
    for folder in (tmp_path, tmp_path / "DATA", tmp_path / "demo"):
        folder.mkdir(exist_ok=True)
        for path in filled.iterdir():
            (folder / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", commands())
def test_a_documented_command_runs(command: str, here: Path) -> None:
    words = shlex.split(command)
    for name in outputs(words):
        (here / name).unlink(missing_ok=True)
        (here / f"{name}.aux.xml").unlink(missing_ok=True)
        (here / name).with_suffix(".global.safetensors").unlink(missing_ok=True)
    ran = CliRunner().invoke(program, words[1:])
    assert ran.exit_code == 0, ran.output
    for name in outputs(words):
        assert (here / name).exists(), name


@pytest.mark.parametrize(
    ("page", "number"),
    [
        # tests/torchgeo/test_glnet_task.py runs the training script, with files of its own.
        (page, number)
        for page in PAGES
        for number, block in enumerate(blocks(page, "python"))
        if "Trainer(" not in block
    ],
    ids=str,
)
def test_documented_python_runs(page: Path, number: int, here: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("labels.tif", "labels.tif.aux.xml"):
        (here / name).unlink(missing_ok=True)
    exec(compile(blocks(page, "python")[number], str(page), "exec"), {})


def test_what_is_not_run_still_stands_in_the_pages() -> None:
    text = "".join(line + " \n" for page in PAGES for block in blocks(page, "bash") for line in block.splitlines())
    text = re.sub(" +", " ", re.sub(" #.*", " ", text))
    assert [words for words in NOT_RUN if words.strip() not in text] == []


def names_of_the_paper() -> list[str]:
    """What docs/paper.md says stands for each part of the paper: the last column of its first table, ``.x`` written out."""
    table = (PROJECT / "docs" / "paper.md").read_text(encoding="utf-8").split("## ")[1]
    found, owner = [], ""
    for row in table.splitlines():
        for name in re.findall(r"`([A-Za-z_.]+)`", row.rpartition("| ")[2] if row.count("|") < 4 else row.split("|")[3]):
            owner = owner if name.startswith(".") else name.rpartition(".")[0] or owner
            found.append(owner + name if name.startswith(".") else name)
    return found


def stands_for_something(name: str) -> bool:
    """Whether a name is a module of ours, or of something in one: ``models.glnet.GLNet``, ``GLNet.look``, ``FeatureMaps``."""
    package = PROJECT / "geoglnet"
    sources = {path.relative_to(package).with_suffix("").as_posix().replace("/", "."): path for path in package.rglob("*.py")}
    if name in sources:
        return True
    module, _, attribute = name.rpartition(".")
    texts = [sources[module]] if module in sources else [path for path in sources.values() if module or attribute]
    owner = rf"^class {module}\b.*?" if module and module not in sources else ""
    defined = rf"{owner}^ *(class |def |)({attribute})\b[(:= ]"
    return any(re.search(defined, path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL) for path in texts)


def test_the_code_has_what_the_papers_page_names() -> None:
    names = names_of_the_paper()
    assert len(names) > 30
    assert [name for name in names if not stands_for_something(name)] == []
    assert not stands_for_something("models.pyramid.Pyramid")
    assert not stands_for_something("GLNet.nothing")
