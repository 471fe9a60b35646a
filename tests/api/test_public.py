"""The public names: help() of each says what it takes, gives and raises, with an example that runs; types survive."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import geopandas
import pytest
import rasterio
from shapely import box

import geoglnet
from geoglnet import _HOME

PROJECT = Path(__file__).parents[2]
NAMES = sorted(name for name in geoglnet.__all__ if name != "__version__")
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(geoglnet, name))]
CONFIGS = ["ModelConfig", "RegionConfig", "PredictConfig", "VectorConfig", "Legend"]
NEEDS_EXTRA = {"Adaptation", "Training", "Scores", "adapt", "train", "evaluate"}

MINE = """
name = "mine"
resolution_m = 0.5
[legend]
classes = [{ name = "background", color = [32, 32, 32] }, { name = "building", color = [230, 75, 50] }]
background = 0
[model]
backbone = "mobilenet_v3_small"
pyramid_channels = 8
smooth_channels = 4
[region]
region_size = 96
overview_size = 48
patch_size = 64
patch_overlap = 16
margin = 16
[[train]]
kind = "rasters"
images = "scene.tif"
polygons = "buildings.gpkg"
unlabeled = "background"
[[validation]]
kind = "rasters"
images = "held_out.tif"
polygons = "buildings.gpkg"
unlabeled = "background"
[sample]
region_size = 96
patch_size = 64
patches_per_region = 1
[optim]
global_steps = 2
local_steps = 2
batch_size = 2
backbone_weights = ""
"""


def write_drawn(scene_path: Path, path: Path) -> None:
    """Write a lattice of squares on a scene, as if somebody had drawn roofs all over it."""
    with rasterio.open(scene_path) as src:
        left, bottom, right, top = src.bounds
    side = (right - left) / 8
    corners = [
        (left + (i + 0.3) * side, bottom + (j + 0.3) * side) for i in range(8) for j in range(int((top - bottom) / side))
    ]
    squares = [box(x, y, x + side / 3, y + side / 3) for x, y in corners]
    geopandas.GeoDataFrame(geometry=squares, crs=src.crs).to_file(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples run: a small scene with its truth, labels of it, a configuration and a model trained for two steps."""
    folder = tmp_path_factory.mktemp("examples")
    scene_path = geoglnet.demo(folder, shape=(320, 400))
    (folder / "held_out.tif").write_bytes(scene_path.read_bytes())
    truth = geopandas.read_file(folder / "truth.gpkg", layer="truth")
    truth[truth.class_name == "building"].to_file(folder / "buildings.gpkg")
    (folder / "mine.toml").write_text(MINE, encoding="utf-8")
    write_drawn(scene_path, folder / "drawn.gpkg")
    return folder


@pytest.fixture(scope="module")
def filled(folder: Path) -> Path:
    geoglnet.predict(folder / "scene.tif", folder / "labels.tif")
    geoglnet.train(folder / "mine.toml", folder / "mine.safetensors", folder=folder)
    return folder


@pytest.fixture
def example_folder(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with links to the files, so that examples write what they like."""
    for path in filled.iterdir():
        if path.suffix != ".run":
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(geoglnet.options, "progress", "auto")
    monkeypatch.setattr(geoglnet.options, "limit_mb", 512.0)
    return tmp_path


def doc(name: str) -> str:
    found = getattr(geoglnet, name)
    return inspect.getdoc(type(found) if name == "options" else found) or ""


@pytest.mark.parametrize("name", NAMES)
def test_the_example_in_the_help_of_a_public_name_runs(name: str, example_folder: Path) -> None:
    if name in NEEDS_EXTRA:
        pytest.importorskip("torchgeo")
    for taken in (
        ("labels.tif", "labels.tif.aux.xml") if name == "predict" else ("mine.safetensors",) if name == "Training" else ()
    ):
        (example_folder / taken).unlink(missing_ok=True)
    home = sys.modules[_HOME[name]]
    examples = doctest.DocTestParser().get_doctest(doc(name), dict(vars(home)), name, _HOME[name], 0)
    assert examples.examples, f"help(geoglnet.{name}) has no example"
    said: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples, out=said.append)
    assert not failed, "".join(said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_help_of_a_function_names_every_argument_its_return_and_what_it_raises(name: str) -> None:
    text = doc(name)
    assert re.search(r"^(Returns|Yields):$", text, re.MULTILINE)
    assert re.search(r"^Raises:$", text, re.MULTILINE)
    for parameter in inspect.signature(getattr(geoglnet, name)).parameters:
        assert re.search(rf"^    {parameter}: \S", text, re.MULTILINE), parameter


@pytest.mark.parametrize("name", CONFIGS)
def test_the_help_of_a_value_names_every_field_and_what_it_raises(name: str) -> None:
    text = doc(name)
    assert re.search(r"^Raises:$", text, re.MULTILINE)
    for field in inspect.signature(getattr(geoglnet, name)).parameters:
        assert re.search(rf"^    {field}: \S", text, re.MULTILINE), field


@pytest.mark.parametrize(
    "name", ["predict", "iter_blocks", "vectorize", "train", "adapt", "evaluate", "demo", "load_model", "open_scene"]
)
def test_the_help_of_what_reads_scenes_says_what_it_costs_in_memory(name: str) -> None:
    assert re.search(r"[Mm]emory|a window costs", doc(name))


def test_type_checkers_see_the_same_names_as_programs() -> None:
    tree = ast.parse(Path(inspect.getfile(geoglnet)).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    declared = {alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert declared == _HOME


DOWNSTREAM = """
from pathlib import Path

import geoglnet

done = geoglnet.predict(
    Path("scene.tif"), "labels.tif", model=geoglnet.load_model("buildings"), config=geoglnet.PredictConfig(effort=0.5)
)
size: tuple[int, int] = done.shape
count: int | None = done.num_polygons
print(done.report.facts["model"], done.labels().shape, len(done.polygons()))
layer = geoglnet.vectorize("labels.tif", "out.gpkg", config=geoglnet.VectorConfig(simplify="1px"))
number: int = layer.num_polygons
trained = geoglnet.train("mine.toml", "mine.safetensors", overrides={"optim.global_steps": 5})
best: float = geoglnet.evaluate(trained.model(), "mine.toml").mean_iou
for block in geoglnet.iter_blocks("scene.tif", layers=["labels", "confidence"]):
    print(block.labels.mean())
with geoglnet.open_scene("scene.tif", resolution_m=0.5) as scene:
    print(scene.pixel_size_m)
network, manifest = geoglnet.load_checkpoint("mine.safetensors")
parameters: int = sum(p.numel() for p in network.parameters())
geoglnet.options.progress = False
reveal_type(geoglnet.predict)
reveal_type(manifest.legend)
"""


def check_types(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    """mypy --strict on a program outside the project; with the project's cache, which ``scripts/check`` fills."""
    (folder / "downstream.py").write_text(source, encoding="utf-8")
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", str(folder / "downstream.py")]
    return subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_a_program_that_uses_the_public_names_passes_mypy_strict(tmp_path: Path) -> None:
    ran = check_types(tmp_path, DOWNSTREAM)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "-> geoglnet.api.prediction.Prediction" in ran.stdout  # not Any
    assert 'Revealed type is "geoglnet.legend.Legend"' in ran.stdout


@pytest.mark.slow
def test_a_program_that_misuses_them_does_not(tmp_path: Path) -> None:
    lines = (
        'geoglnet.predict("scene.tif", overwrite="yes")',
        'geoglnet.vectorize(1, "a.gpkg")',
        'geoglnet.vectorize("a", "b", batch=3)',
    )
    ran = check_types(tmp_path, "\n".join(("import geoglnet", *lines)) + "\n")
    for number, error in ((2, "arg-type"), (3, "arg-type"), (4, "call-arg")):
        assert re.search(rf"downstream\.py:{number}: error: .*\[{error}\]", ran.stdout), ran.stdout
