"""One entry in the table of layers is an output everywhere: raster, option, keyword."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner

import geoglnet
from geoglnet import filenames
from geoglnet.cli import predict as verb
from geoglnet.errors import ConfigError
from geoglnet.prediction.layers import LAYERS, SCALE, VECTOR, Layer, layer_named, output_names, told_apart, winners
from tests.stubs import CPU

MARGIN = Layer(
    "class_margin",
    lambda probabilities: probabilities.topk(2, dim=0).values.diff(dim=0).neg(),
    "Write by how much the chosen class is more probable than the next one.",
    bands=lambda legend: (f"the best of {legend.num_classes}",),
)


def test_the_first_of_the_largest_stored_probabilities_is_the_label() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 200, 300) * 0.02  # probabilities so close that many are stored alike
    probabilities = logits.softmax(dim=0)
    stored = (told_apart(probabilities) * SCALE).round().byte().numpy()
    plain = (probabilities * SCALE).round().byte().numpy()
    labels = winners(probabilities).numpy()
    assert (plain.argmax(axis=0) != labels).any()
    assert (stored.argmax(axis=0) == labels).all()
    assert (stored.max(axis=0) == plain.max(axis=0)).all()
    assert np.abs(stored.astype(int) - plain).max() == 1


def test_the_largest_probability_of_each_pixel_gives_the_polygons_of_the_labels(
    scene_path: Path, tiny_model_path: Path, tmp_path: Path
) -> None:
    paths = {"probabilities_path": tmp_path / "p.tif", "vector_path": tmp_path / "v.gpkg"}
    done = geoglnet.predict(scene_path, **paths, model=tiny_model_path, config=CPU)
    again = geoglnet.vectorize(tmp_path / "p.tif", tmp_path / "a.gpkg", values=geoglnet.RasterValues(argmax=True))
    one, other = done.polygons(), again.polygons()
    assert one.equals(other)
    with rasterio.open(tmp_path / "p.tif") as src:
        threshold = 0.5
        above = geoglnet.vectorize(
            tmp_path / "p.tif", tmp_path / "t.gpkg", values=geoglnet.RasterValues(band=2, breaks=(threshold,))
        )
        pixels = int(((src.read(2) / 254 >= threshold) & (src.read_masks(2) > 0)).sum())
        assert above.polygons().geometry.area.sum() == pytest.approx(pixels * abs(src.transform.a * src.transform.e))


@pytest.fixture
def margin(monkeypatch: pytest.MonkeyPatch) -> Layer:
    monkeypatch.setitem(LAYERS, MARGIN.name, MARGIN)
    return MARGIN


def test_a_new_entry_is_a_raster_and_a_keyword(margin: Layer, scene_path: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    paths = {"probabilities_path": tmp_path / "p.tif", "class_margin_path": tmp_path / "m.tif"}
    done = geoglnet.predict(scene_path, **paths, model=tiny_model_path, config=CPU)
    assert done.paths == {"probabilities": tmp_path / "p.tif", "class_margin": tmp_path / "m.tif"}
    with rasterio.open(tmp_path / "p.tif") as src, rasterio.open(tmp_path / "m.tif") as dst:
        first, second = src.read().astype(int)
        assert np.abs(dst.read(1) - abs(first - second)).max() <= 1
        assert (dst.dtypes, dst.nodata, dst.descriptions) == (("uint8",), 255, ("the best of 2",))
        assert dst.tags()["GEOGLNET_MODEL"] == src.tags()["GEOGLNET_MODEL"]


def test_a_new_entry_is_an_option(margin: Layer, scene_path: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    try:
        command = importlib.reload(verb).predict  # as a process that begins with the entry
        words = [
            str(scene_path),
            "--class-margin",
            str(tmp_path / "m.tif"),
            "--model",
            str(tiny_model_path),
            "--device",
            "cpu",
            "--batch",
            "9",
        ]
        ran = CliRunner().invoke(command, [*words, "--progress", "json"])
        assert ran.exit_code == 0, ran.output
        assert json.loads(ran.stdout.splitlines()[-1])["outputs"]["class_margin"] == str(tmp_path / "m.tif")
        assert margin.help in " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    finally:
        LAYERS.pop(margin.name)
        importlib.reload(verb)


def test_a_new_entry_is_computed_block_by_block(margin: Layer, scene_path: Path, tiny_model_path: Path) -> None:
    blocks = geoglnet.iter_blocks(scene_path, layers=["class_margin"], model=tiny_model_path, config=CPU)
    assert all(block.layers["class_margin"].shape[0] == 1 for block in blocks)


def test_the_keywords_written_for_editors_are_those_of_the_table() -> None:
    parameters = inspect.signature(geoglnet.predict).parameters
    written = [name for name in parameters if name.endswith("_path") and name != "scene_path"]
    assert written == [*(f"{name}_path" for name in output_names()), "uncertain_path"]  # which is made of the entropy
    with pytest.raises(TypeError, match=r"predict\(\) got an unexpected keyword argument 'entropie_path'"):
        geoglnet.predict("a.tif", entropie_path="b.tif")


def test_the_options_are_those_of_the_table() -> None:
    words = [(option, param.name) for param in verb.predict.params for option in param.opts]
    options = dict(words)
    assert len(options) == len(words), "a layer has the name of another option"
    assert all(options[layer.option] == name for name, layer in LAYERS.items())
    assert options["-o"] == "labels"
    assert VECTOR in options.values()
    assert isinstance(verb.predict, click.Command)


def test_names_of_layers_are_short_words_and_unknown_ones_are_named() -> None:
    for name in ("vector", "scene", "Margin", "a-b", "", "probabilities_", "../x"):
        with pytest.raises(ConfigError, match="is no name of a layer"):
            Layer(name, lambda probabilities: probabilities, "")
    with pytest.raises(ConfigError, match=r"unknown layer 'entropie'; did you mean 'entropy'\?"):
        layer_named("entropie")
    longest = rf".unfinished\{max(LAYERS, key=len)}\000000_000000.tif"
    assert len(longest) <= filenames.LONGEST_BESIDE
