"""Models that other programs saved: ONNX with the metadata of Deepness, run by the predictor; what is refused, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import rasterio
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from geoglnet.cli.main import geoglnet
from geoglnet.errors import CheckpointError, ConfigError, OutputExistsError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.description import describe_model
from geoglnet.models.foreign.importing import Description, import_model
from geoglnet.models.opening import open_model
from geoglnet.prediction.run import begin, take_over
from tests.rasters import write_raster
from tests.stac import faults_of

TILE = 64
TEXTS = {
    "model_type": json.dumps("Segmentor"),
    "class_names": json.dumps({"0": "_background", "1": "roof", "2": "tree"}),
    "resolution": json.dumps(100),
    "tiles_overlap": json.dumps(25),
    "standardization_mean": json.dumps([0.5, 0.5, 0.5]),
    "standardization_std": json.dumps([0.25, 0.25, 0.25]),
}
SIGMOID = TEXTS | {"class_names": json.dumps([{"0": "roof"}])}


def make(
    path: Path,
    *,
    texts: dict[str, str] = TEXTS,
    shape: tuple[Any, ...] = ("batch", 3, TILE, TILE),
    results: int = 3,
    head: str | None = "Softmax",
    kind: int = TensorProto.FLOAT,
    opset: int = 18,
    crop: int = 0,
    domain: str = "",
    more_inputs: tuple[str, ...] = (),
    location: str | None = None,
) -> Path:
    """A convolution of 3 × 3 px and a head, as Deepness takes them."""
    channels = shape[1] if isinstance(shape[1], int) else 3
    weight = np.random.default_rng(3).normal(0, 0.5, (results, channels, 3, 3)).astype(np.float32)
    tensor = numpy_helper.from_array(weight, "weight")
    if location is not None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    pads = [1 - crop] * 4
    image = "image" if kind == TensorProto.FLOAT else "cast"
    nodes = [] if image == "image" else [helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Conv", [image, "weight"], ["scores" if head else "result"], pads=pads))
    if head == "ArgMax":
        nodes.append(helper.make_node("ArgMax", ["scores"], ["result"], axis=1))
    elif head:
        nodes.append(
            helper.make_node(head, ["scores"], ["result"], domain=domain, **({"axis": 1} if head == "Softmax" else {}))
        )
    inputs = [helper.make_tensor_value_info("image", kind, shape)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in more_inputs]
    side = shape[2] - 2 * crop if isinstance(shape[2], int) else None
    given = TensorProto.INT64 if head == "ArgMax" else TensorProto.FLOAT
    output = helper.make_tensor_value_info("result", given, (shape[0], 1 if head == "ArgMax" else results, side, side))
    graph = helper.make_graph(nodes, "model", inputs, [output], [tensor])
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, texts)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 255, (3, 20, 25)), np.ones((10, 10))) + rng.integers(-20, 20, (3, 200, 250))
    return write_raster(tmp_path / "scene.tif", coarse.clip(1, 255).astype(np.uint8), pixel_size=1)


def predict(scene: Path, model: Path, *words: str) -> Any:
    return CliRunner().invoke(geoglnet, ["predict", str(scene), "--model", str(model), "--device", "cpu", *words])


def by_hand(path: Path, scene: Path) -> np.ndarray:
    """Labels of the whole scene at once, with the same weights in ONNX Runtime."""
    model = onnx.load(path)
    for value in (model.graph.input[0], model.graph.output[0]):
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with rasterio.open(scene) as src:
        image = (src.read()[None].astype(np.float32) / 255 - 0.5) / 0.25
    (found,) = session.run(None, {"image": image})
    if found.shape[1] == 1:
        return (found[0, 0] >= 0.5).astype(np.uint8)
    return found[0].argmax(axis=0).astype(np.uint8)


def labels_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


@pytest.mark.parametrize(
    ("changes", "head"),
    [
        ({}, "softmax"),
        ({"shape": (2, 3, TILE, TILE)}, "softmax"),
        ({"head": None}, "logits"),
        ({"head": "Sigmoid", "results": 1, "texts": SIGMOID}, "sigmoid"),
        ({"shape": ("batch", 3, "height", "width"), "texts": TEXTS | {"tiles_size": "48"}}, "softmax"),
        ({"crop": 1}, "softmax"),
    ],
    ids=["any batch", "batch of 2", "logits", "sigmoid", "any size", "smaller result"],
)
def test_a_model_for_deepness_gives_the_labels_that_it_gives_by_hand(
    tmp_path: Path, scene: Path, changes: dict[str, Any], head: str
) -> None:
    model = make(tmp_path / "model.onnx", **changes)
    network, manifest = open_model(model)
    assert network.head == head
    assert (manifest.resolution_m, manifest.legend.background) == (1.0, 0)
    assert manifest.bands.names == ("red", "green", "blue")
    ran = predict(scene, model, "-o", str(tmp_path / "labels.tif"), "--vector", str(tmp_path / "polygons.gpkg"))
    assert ran.exit_code == 0, ran.output
    found, wanted = labels_of(tmp_path / "labels.tif"), by_hand(model, scene)
    assert len(np.unique(wanted)) == manifest.legend.num_classes
    inner = (slice(4, -4), slice(4, -4))
    edge = changes.get("crop", 0)
    wanted = np.pad(wanted, edge)
    # A patch's own zeros stand beside its border; blending leaves a pixel there to its neighbor, but for those of equal weight.
    assert (found[inner] == wanted[inner]).mean() > 0.995
    assert (tmp_path / "polygons.gpkg").exists()


def test_a_run_of_a_foreign_model_is_taken_over_by_another_process(tmp_path: Path, scene: Path) -> None:
    model = make(tmp_path / "model.onnx")
    whole, parts = tmp_path / "whole.tif", tmp_path / "parts.tif"
    assert predict(scene, model, "-o", str(whole)).exit_code == 0
    with begin(str(scene), {"labels": parts}, model=str(model)) as run:
        folder, places = run.folder, list(run.missing())
        run.compute(places[:1])
    assert not parts.exists()
    with take_over(folder) as run:
        run.compute()
        run.finish()
    assert whole.read_bytes() == parts.read_bytes()


def test_a_scene_smaller_than_the_models_images_is_filled_up(tmp_path: Path) -> None:
    small = write_raster(tmp_path / "small.tif", np.random.default_rng(1).integers(1, 255, (3, 40, 50), np.uint8), pixel_size=1)
    model = make(tmp_path / "model.onnx")
    assert predict(small, model, "-o", str(tmp_path / "labels.tif")).exit_code == 0
    found = labels_of(tmp_path / "labels.tif")
    assert found.shape == (40, 50)
    assert (found[1:-1, 1:-1] == by_hand(model, small)[1:-1, 1:-1]).all()


def test_what_a_file_does_not_say_is_described_beside_it(tmp_path: Path, scene: Path) -> None:
    model = make(tmp_path / "model.onnx", texts={}, shape=("batch", 4, TILE, TILE))
    refused = predict(scene, model, "-o", str(tmp_path / "labels.tif"))
    assert refused.exit_code == 1
    assert "does not say its resolution, classes; describe it: geoglnet import-model" in refused.stderr
    words = ["import-model", str(model), "--resolution", "1", "--classes", "ground,roof,tree", "--background", "ground"]
    words += ["--bands", "red,green,blue,height", "--mean", "0,0,0,0", "--std", "1,1,1,2", "--overlap", "20"]
    ran = CliRunner().invoke(geoglnet, words)
    assert ran.exit_code == 0, ran.output
    assert "bands red, green, blue, height; 1 m pixels, images of 64 px; softmax" in ran.stderr
    manifest = describe_model(model)
    assert (manifest.bands.names, manifest.bands.std) == (("red", "green", "blue", "height"), (1, 1, 1, 2))
    assert (manifest.legend.names, manifest.legend.background) == (("ground", "roof", "tree"), 0)
    assert manifest.region.patch_overlap == 20
    item = json.loads((tmp_path / "model.onnx.json").read_text())
    assert faults_of(item) == []
    with pytest.raises(OutputExistsError, match="exists"):
        import_model(model)
    make(model, shape=("batch", 3, TILE, TILE))
    with pytest.raises(CheckpointError, match=r"describes another state of model\.onnx"):
        describe_model(model)


def test_scores_of_classes_that_overlap_are_taken_by_the_largest_on_request(tmp_path: Path, scene: Path) -> None:
    model = make(tmp_path / "model.onnx", head="Sigmoid")
    with pytest.raises(CheckpointError, match="may all hold at once, and a pixel has one class; describe it"):
        open_model(model)
    assert import_model(model, Description(head="largest")).head == "largest"
    assert predict(scene, model, "-o", str(tmp_path / "labels.tif")).exit_code == 0
    assert (labels_of(tmp_path / "labels.tif") == by_hand(model, scene))[4:-4, 4:-4].mean() > 0.995


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more_inputs": ("heights",)}, "has 2 inputs (image, heights); networks of one image are run"),
        ({"shape": ("batch", 3, 64, 96)}, "takes images of (64, 96) px; only squares"),
        ({"shape": ("batch", 3, 16, 16)}, "takes images of 16 px; 32 to 8192"),
        ({"shape": ("batch", 3, "h", "w")}, "does not say its size; describe it"),
        (
            {"shape": ("batch", 64, 64, 3)},
            "takes images of the shape (batch, 64, 64, 3); (batch, bands, height, width) is read",
        ),
        ({"texts": {}}, "does not say its resolution, classes; describe it"),
        ({"texts": TEXTS | {"standardization_mean": "[0.5]"}}, "give one of each per band"),
        ({"texts": TEXTS | {"class_names": '{"0": "a"}'}}, "names 1 classes (a) and gives 3"),
        ({"texts": TEXTS | {"class_names": "__import__('os').system('x')"}}, "in its metadata, which cannot be read"),
        ({"texts": TEXTS | {"class_names": '{"1": "a", "2": "b", "3": "c"}'}}, "they must be numbered from 0"),
        ({"texts": TEXTS | {"resolution": '"fine"'}}, "resolution = 'fine' in its metadata; it must be a number"),
        ({"texts": TEXTS | {"model_type": '"Detector"'}}, "is a 'Detector' by its metadata; only models that segment are run"),
        ({"opset": 99}, "has opset 99, known here up to"),
        ({"kind": TensorProto.UINT8}, "takes images of uint8, as quantized models do"),
        ({"head": "ArgMax"}, "gives no float32 or float16"),
        ({"head": "Evil", "domain": "com.evil"}, "uses 'Evil' of 'com.evil', which ONNX does not have"),
        (
            {"location": "https://evil.example/weights"},
            "takes weights from 'https://evil.example/weights', outside of its folder",
        ),
        ({"location": "../weights"}, "takes weights from '../weights', outside of its folder"),
        ({"location": "/etc/passwd"}, "takes weights from '/etc/passwd', outside of its folder"),
        ({"location": "weights"}, "takes weights from 'weights', which is not beside it"),
        ({"texts": TEXTS | {"mlm": "{"}}, "has a description (mlm) that cannot be read"),
        ({"texts": {"mlm": '{"mlm:input": []}'}}, "the description of"),
    ],
)
def test_what_cannot_be_predicted_with_is_one_line(tmp_path: Path, scene: Path, changes: dict[str, Any], message: str) -> None:
    model = make(tmp_path / "model.onnx", **changes)
    ran = predict(scene, model, "-o", str(tmp_path / "labels.tif"))
    assert ran.exit_code == 1
    assert ran.stderr.count("\n") == 1
    assert message in ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "scene.tif"]


def test_a_link_out_of_the_folder_is_no_place_for_weights(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 1000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights").symlink_to(tmp_path / "secret")
    model = make(tmp_path / "folder" / "model.onnx", location="weights")
    with pytest.raises(CheckpointError, match="outside of its folder"):
        describe_model(model)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08" + b"\xff" * 40])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a whole ONNX file"):
        describe_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "model.ckpt", "model.pkl"])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, scene: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    ran = predict(scene, tmp_path / name, "-o", str(tmp_path / "labels.tif"))
    assert ran.exit_code == 1
    assert "is a pickle, which can execute anything and is not opened; save the model as ONNX" in ran.stderr
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"head": "softmax"}, "is said to give softmax, and gives logits"),
        ({"size": 48}, "takes images of 64 px, not of 48"),
        ({"classes": ("a", "b")}, "gives 3 classes, not 2: a, b"),
        ({"background": "sea"}, "background = 'sea' is no class of"),
        ({"bands": ("red", "green")}, r"2 band names \(red, green\) for images of 3 bands"),
    ],
)
def test_a_description_is_checked_against_the_file(tmp_path: Path, description: dict[str, Any], message: str) -> None:
    model = make(tmp_path / "model.onnx", head=None)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        import_model(model, Description(**description))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_info_describes_a_foreign_model(tmp_path: Path) -> None:
    ran = CliRunner().invoke(geoglnet, ["info", str(make(tmp_path / "model.onnx")), "--json"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert (found["kind"], found["resolution_m"], found["region"]["patch_size"]) == ("model", 1.0, TILE)


def test_training_does_not_begin_from_a_foreign_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        load_checkpoint(make(tmp_path / "model.onnx"))
