"""Folders of segmentation-models-pytorch become checkpoints of ours with the same logits; other networks are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from geoglnet.cli.main import geoglnet
from geoglnet.errors import CheckpointError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.foreign.importing import Description
from geoglnet.models.foreign.library_folder import import_folder

library = pytest.importorskip("segmentation_models_pytorch")
SAID = Description(resolution_m=0.5, classes=("roof",), size=64)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    model = library.Unet("mobilenet_v2", encoder_weights=None, in_channels=3, classes=1).eval()
    folder = tmp_path_factory.mktemp("saved") / "roofs"
    model.save_pretrained(folder)
    return folder, model


def test_a_network_of_the_library_gives_the_same_logits_as_a_model_of_ours(
    saved: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    folder, theirs = saved
    path = tmp_path / "roofs.safetensors"
    words = ["import-model", str(folder), "-o", str(path), "--resolution", "0.5", "--classes", "roof", "--size", "64"]
    ran = CliRunner().invoke(geoglnet, words)
    assert ran.exit_code == 0, ran.output
    assert (
        "background, roof (background: background); bands red, green, blue; 0.5 m pixels, images of 64 px; unet" in ran.stderr
    )
    network, manifest = load_checkpoint(path)
    assert manifest.bands.mean == (0.485, 0.456, 0.406)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours = network.segment(image, torch.tensor([[0.0, 0.0, 1.0, 1.0]])).final
        wanted = theirs(image)
    assert torch.equal(ours[:, :1], torch.zeros_like(wanted))
    torch.testing.assert_close(ours[:, 1:], wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_model_class": "Linknet"}, "holds a 'Linknet'; Unet, PSPNet"),
        ({"decoder_attention_type": "scse"}, "decoder_attention_type = 'scse', our Unet None; export it as ONNX"),
        ({"activation": "sigmoid"}, "activation = 'sigmoid'"),
        ({"trust_remote_code": True}, "trust_remote_code = True"),
        ({"classes": "many"}, "classes = 'many'; it must be a whole number"),
        ({"classes": 3}, "gives 3 classes, not 1: roof"),
        ({"in_channels": 4}, "has backbone.features.0.0.weight of the shape"),
    ],
)
def test_a_network_that_ours_is_not_is_refused(
    saved: tuple[Path, torch.nn.Module], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(saved[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match=message):
        import_folder(folder, tmp_path / "model.safetensors", SAID)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_other_folders_and_damaged_ones_are_one_line(saved: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json to read"):
        import_folder(tmp_path, tmp_path / "model.safetensors", SAID)
    folder = tmp_path / "folder"
    shutil.copytree(saved[0], folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        import_folder(folder, tmp_path / "model.safetensors", SAID)
    ran = CliRunner().invoke(geoglnet, ["predict", "scene.tif", "--model", str(folder), "-o", str(tmp_path / "labels.tif")])
    assert ran.exit_code == 1
    assert "is a folder; write it as a model file first: geoglnet import-model" in ran.stderr
