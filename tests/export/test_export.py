"""Exported models take one image, describe themselves to other programs, and equal the network that they were made of."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pystac
import pytest
import torch
from click.testing import CliRunner

from geoglnet.cli.main import geoglnet
from geoglnet.config import ARCHITECTURES, Architecture, Branches, Compat, ModelConfig, RegionConfig, Sharing
from geoglnet.errors import ConfigError, OutputExistsError
from geoglnet.export import parity as parities
from geoglnet.export.parity import compared, drawn_images, parity
from geoglnet.export.programs import ExportConfig, Exported, export_model
from geoglnet.export.region_graph import RegionGraph
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.checks import trusted
from geoglnet.models.manifest import Manifest, read_manifest
from geoglnet.models.mlm import mlm_item
from geoglnet.models.network import build_network
from geoglnet.models.shipped import model_path, shipped_models
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.segmenter import RegionSegmenter
from geoglnet.raster.scene import Pixels
from tests.networks import small
from tests.stac import faults_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

LEGEND = Legend(("ground", "roof", "tall tree"), ((0, 0, 0), (230, 75, 50), (0, 128, 0)), background=0)
REGION = RegionConfig(region_size=96, overview_size=64, patch_size=48, patch_overlap=16, margin=16)


@pytest.fixture(scope="module")
def families() -> Iterator[None]:
    with mock.patch.dict(ARCHITECTURES, {"pixelwise": Architecture("tests.families:Pixelwise")}):
        yield


@pytest.fixture(scope="module")
def model(families: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two convolutions, which sees patches."""
    torch.manual_seed(1)
    alone = {"branches": Branches.LOCAL, "sharing": Sharing.NONE, "aggregate": False}
    config = ModelConfig(3, "mobilenet_v2", architecture="pixelwise", **alone)
    path = tmp_path_factory.mktemp("models") / "pixels.safetensors"
    manifest = Manifest("pixels", config, REGION, LEGEND, 0.25, (0.2, 0.3), 0.25, training={"license": "CC-BY-4.0"})
    save_checkpoint(path, build_network(config), manifest)
    return path


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_model(model, tmp_path_factory.mktemp("exported") / "pixels.onnx")


def session_of(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_any_number_of_images_goes_through_the_exported_model_and_gives_probabilities(exported: Exported) -> None:
    session = session_of(exported.path)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == ("image", ["batch", 3, 48, 48], "tensor(float)")
    assert (given.name, given.shape, given.type) == ("probabilities", ["batch", 3, 48, 48], "tensor(float)")
    for count in (1, 3):
        (found,) = session.run(None, {"image": np.random.default_rng(0).random((count, 3, 48, 48), np.float32)})
        np.testing.assert_allclose(found.sum(axis=1), np.ones((count, 48, 48)), atol=1e-6)


def test_the_exported_model_equals_the_predictor(model: Path, exported: Exported) -> None:
    network, manifest = load_checkpoint(model)
    image = drawn_images(1, 3, 48, seed=5)
    segmenter = RegionSegmenter(network.for_inference(), manifest, PredictConfig(device="cpu"))
    planned = RegionGraph(network, manifest, 48).planned
    wanted = segmenter.probabilities(planned, Pixels(image[0], np.ones((48, 48), bool))).numpy()
    (found,) = session_of(exported.path).run(None, {"image": image.astype(np.float32) / 255})
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)
    assert len(np.unique(wanted.argmax(axis=0))) > 1
    assert exported.parity.equal_labels == 1


def test_deepness_finds_all_that_it_asks_for(exported: Exported) -> None:
    """Its reader's demands: one input, square tiles, class names numbered from 0 without gaps, JSON of kinds it converts."""
    session = session_of(exported.path)
    assert len(session.get_inputs()) == 1
    shape = session.get_inputs()[0].shape
    assert isinstance(shape[0], str)
    assert shape[-1] == shape[-2]
    texts = session.get_modelmeta().custom_metadata_map
    assert str(json.loads(texts["model_type"])).capitalize() == "Segmentor"
    names = json.loads(texts["class_names"])
    assert [names[str(index)] for index in range(len(names))] == ["ground", "roof", "tall tree"]
    assert float(json.loads(texts["resolution"])) == 25.0
    assert int(json.loads(texts["tile_size"])) == int(json.loads(texts["tiles_size"])) == shape[-1]
    assert int(json.loads(texts["tiles_overlap"])) == 34  # percent: 16 of 48 px, rounded up
    assert float(json.loads(texts["seg_thresh"])) == int(json.loads(texts["seg_small_segment"])) == 0
    # It normalizes by these, and GeoDeep does not: both must feed the same.
    assert [float(value) for value in json.loads(texts["standardization_mean"])] == [0.0] * 3
    assert [float(value) for value in json.loads(texts["standardization_std"])] == [1.0] * 3
    # Not sigmoid by its rule: four dimensions, more than one channel.
    assert len(session.get_outputs()[0].shape) == 4
    assert session.get_outputs()[0].shape[-3] == len(names)


def test_geodeep_finds_all_that_it_asks_for(exported: Exported) -> None:
    texts = session_of(exported.path).get_modelmeta().custom_metadata_map
    assert json.loads(texts["model_type"]) == "Segmentor"
    assert (float(texts["resolution"]), float(texts["tiles_overlap"]), float(texts["seg_thresh"])) == (25.0, 34.0, 0.0)
    assert int(texts["seg_small_segment"]) == 0
    assert ast.literal_eval(texts["class_names"])["2"] == "tall tree"


def test_opset_and_origin_are_stated_in_the_file(exported: Exported) -> None:
    proto = onnx.load(exported.path)
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 18)]
    assert proto.ir_version == 8
    texts = {text.key: text.value for text in proto.metadata_props}
    assert texts["geoglnet_model"].startswith("pixels sha256:")
    described = json.loads(texts["mlm"])
    assert described["mlm:framework"] == "ONNX"
    assert described["mlm:hyperparameters"]["opset"] == 18
    assert str(Path(__file__).parents[2]) not in exported.path.read_bytes().decode("latin-1")


def test_the_description_beside_is_a_valid_item(exported: Exported) -> None:
    item = json.loads(exported.item_path.read_text())
    assert faults_of(item) == []
    opened = pystac.Item.from_file(str(exported.item_path))
    assert opened.assets["model"].extra_fields["mlm:artifact_type"] == "onnx"
    assert (exported.path.parent / opened.assets["model"].href).resolve() == exported.path.resolve()
    assert item["properties"]["mlm:input"][0]["input"]["shape"] == [-1, 3, 48, 48]
    assert item["properties"]["license"] == "CC-BY-4.0"


def test_a_spoilt_item_is_not_valid(exported: Exported) -> None:
    item = json.loads(exported.item_path.read_text())
    del item["properties"]["mlm:output"]
    item["assets"]["model"]["roles"] = ["data"]
    assert len(faults_of(item)) >= 2


@pytest.mark.parametrize("name", shipped_models())
def test_every_shipped_model_has_a_valid_description(name: str) -> None:
    item = mlm_item(read_manifest(model_path(name)), f"{name}.safetensors", sha256="0" * 64, size=1)
    assert faults_of(item) == []


def test_half_precision_is_half_as_large_and_takes_and_gives_float32(model: Path, exported: Exported, tmp_path: Path) -> None:
    half = export_model(model, tmp_path / "half.onnx", ExportConfig(precision="float16"))
    session = session_of(half.path)
    assert {session.get_inputs()[0].type, session.get_outputs()[0].type} == {"tensor(float)"}
    kinds = {part.data_type for part in onnx.load(half.path).graph.initializer if len(part.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert half.parity.equal_labels >= 0.99
    assert half.parity.probability_error > exported.parity.probability_error


def test_the_program_of_torch_is_written_by_the_command_line(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "pixels.pt2"
    ran = CliRunner().invoke(geoglnet, ["export", str(model), "-o", str(path), "--size", "40", "--progress", "json"])
    assert ran.exit_code == 0, ran.output
    done = json.loads(ran.stdout.splitlines()[-1])
    assert done["outputs"]["equal_labels"] == 1
    assert "torch.export, float32, images of 40 px; 100.0000% of the labels equal" in done["message"]
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()
    module = torch.export.load(path).module()
    assert module(torch.zeros(2, 3, 40, 40)).shape == (2, 3, 40, 40)
    assert faults_of(json.loads(path.with_name("pixels.pt2.json").read_text())) == []


def test_what_differs_from_its_network_is_not_written(model: Path, tmp_path: Path) -> None:
    wrong = parities.Parity(0.5, 0.1, 1.0)
    with mock.patch("geoglnet.export.programs.parity", return_value=wrong), pytest.raises(ConfigError, match=r"50\.0000% of"):
        export_model(model, tmp_path / "wrong.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("model.pth", {}, "model.pth: models are exported as .onnx or .pt2"),
        ("model.onnx", {"size": 97}, "size 97 must be from 32 to 96, the region that pixels was trained for"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    model: Path, tmp_path: Path, name: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        export_model(model, tmp_path / name, ExportConfig(**config))
    assert list(tmp_path.iterdir()) == []


def test_settings_that_nothing_is_exported_with_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown precision 'float61'; did you mean 'float16'"):
        ExportConfig(precision="float61")
    with pytest.raises(ConfigError, match="opset 17 is none that is written; use 18 to 21"):
        ExportConfig(opset=17)


def test_existing_files_stay(model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx.json").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"model\.onnx\.json exists"):
        export_model(model, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx.json"]


def test_differences_are_counted() -> None:
    wanted = np.zeros((1, 2, 2, 2), np.float32)
    wanted[:, 0], wanted[:, 1] = 0.75, 0.25
    found = wanted.copy()
    found[0, :, 0, 0] = 0.25, 0.75
    told = compared(found, wanted)
    assert (told.equal_labels, told.probability_error) == (0.75, 0.5)
    assert told.logit_error == pytest.approx(2 * np.log(3))


@pytest.mark.slow  # tracing takes half a minute each
@pytest.mark.parametrize(
    "changes",
    [{}, {"sharing": Sharing.BIDIRECTIONAL}, {"shared_levels": (3,)}, {"branches": Branches.GLOBAL}],
    ids=str,
)
def test_a_folded_network_equals_its_program(changes: dict[str, Any]) -> None:
    if changes.get("branches"):
        changes |= {"sharing": Sharing.NONE, "aggregate": False}
    network = small(**changes)
    manifest = Manifest("small", network.config, REGION, LEGEND, 1, (1, 1), 1, temperature=1.5)
    graph = RegionGraph(network.for_inference(), manifest, 80).eval()
    batch = 1 if network.has_two_rounds else None
    image = torch.zeros(batch or 2, 3, 80, 80)
    shapes = None if batch else ({0: torch.export.Dim("batch", min=1, max=8)},)
    with torch.no_grad(), trusted():
        program = torch.export.export(graph, (image,), dynamic_shapes=shapes).module()
    with torch.no_grad():
        told = parity(network, manifest, 80, lambda images: program(torch.from_numpy(images)).numpy(), batch=batch)
    assert told.equal_labels == 1
    assert told.logit_error < 1e-3


def test_the_authors_way_of_blending_is_not_exported() -> None:
    network = small(compat=Compat.OFFICIAL)
    manifest = Manifest("small", network.config, REGION, LEGEND, 1, (1, 1), 1)
    with pytest.raises(ConfigError, match="sums of logits, which no exported model is"):
        RegionGraph(network.for_inference(), manifest, 80)
