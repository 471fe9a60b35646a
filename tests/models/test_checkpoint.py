"""Checkpoints: whole, ours, readable without torch, refused in one line otherwise."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from geoglnet.bands import RGB
from geoglnet.config import ModelConfig, RegionConfig, from_plain, to_plain
from geoglnet.errors import CheckpointError, ConfigError, ModelNotFoundError, OutputError, OutputExistsError
from geoglnet.legend import Legend
from geoglnet.models.backbone import build_backbone, load_backbone_weights
from geoglnet.models.checkpoint import load_checkpoint, save_checkpoint
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import FORMAT_VERSION, MANIFEST_KEY, Manifest, model_digest, read_manifest
from geoglnet.models.shipped import model_path

LEGEND = Legend(("background", "building"), ((0, 0, 0), (200, 60, 40)), background=0)
MANIFEST = Manifest(
    name="test",
    model=ModelConfig(2, "mobilenet_v3_small", pyramid_channels=8, smooth_channels=4),
    region=RegionConfig(96, 48, 48, 16, 16),
    legend=LEGEND,
    resolution_m=0.2,
    resolution_range_m=(0.1, 0.4),
    assumed_pixel_size_m=0.2,
    training={"license": "none", "split": ["a", "b"]},
    metrics={"building": 0.5},
)


@pytest.fixture(scope="module")
def initial() -> GLNet:
    torch.manual_seed(1)
    return GLNet(MANIFEST.model).eval()


@pytest.fixture
def network(initial: GLNet) -> GLNet:
    return deepcopy(initial)


@pytest.fixture(scope="module")
def saved_path(tmp_path_factory: pytest.TempPathFactory, initial: GLNet) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    save_checkpoint(path, initial, MANIFEST)
    return path


@pytest.fixture
def path(tmp_path: Path, saved_path: Path) -> Path:
    return Path(shutil.copy(saved_path, tmp_path))


def test_a_checkpoint_gives_back_network_and_manifest(path: Path, network: GLNet) -> None:
    loaded, manifest = load_checkpoint(path)
    assert manifest == MANIFEST
    assert not loaded.training
    assert all(t.dtype is torch.float32 for t in loaded.state_dict().values() if t.is_floating_point())
    overview, patch, whole = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 64), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    with torch.inference_mode():
        expected, got = (n(overview, patch, whole)[1].final for n in (network, loaded))
    assert (expected - got).abs().max() < 5e-3 * expected.abs().max()


def test_full_precision_is_exact(tmp_path: Path, network: GLNet) -> None:
    save_checkpoint(tmp_path / "full.safetensors", network, MANIFEST, half=False)
    loaded, _ = load_checkpoint(tmp_path / "full.safetensors")
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in network.state_dict().items())


def test_a_checkpoint_is_not_overwritten_unasked(path: Path, network: GLNet) -> None:
    before = model_digest(path)
    with pytest.raises(OutputExistsError, match="overwrite"):
        save_checkpoint(path, network, MANIFEST)
    assert model_digest(path) == before


def test_others_may_read_what_the_umask_lets_them(path: Path) -> None:
    beside = path.with_suffix(".txt")
    beside.touch()
    assert path.stat().st_mode == beside.stat().st_mode


def test_reading_a_manifest_loads_no_torch(path: Path) -> None:
    code = (
        "import sys; from geoglnet.models.manifest import read_manifest;"
        f"read_manifest({str(path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", [0, 4, 100, -5])
def test_a_truncated_file_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    for read in (read_manifest, load_checkpoint):
        with pytest.raises(CheckpointError, match=r"not a whole safetensors file|does not hold"):
            read(path)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="without a geoglnet manifest"):
        load_checkpoint(foreign)
    (tmp_path / "pickle.pth").write_bytes(b"\x80\x04garbage that nobody unpickles")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(tmp_path / "pickle.pth")
    with pytest.raises(CheckpointError, match="no model file"):
        load_checkpoint(tmp_path / "absent.safetensors")


def rewrite(path: Path, **changes: object) -> None:
    header = {"format_version": FORMAT_VERSION, **MANIFEST.to_dict(), **changes}
    save_file(load_file(path), path, metadata={MANIFEST_KEY: json.dumps(header)})


def test_a_newer_format_asks_for_an_upgrade(path: Path) -> None:
    rewrite(path, format_version=FORMAT_VERSION + 1)
    with pytest.raises(CheckpointError, match="upgrade geoglnet"):
        read_manifest(path)


def test_a_manifest_that_does_not_fit_the_tensors_is_refused(path: Path) -> None:
    rewrite(path, model=to_plain(replace(MANIFEST.model, pyramid_channels=16)))
    with pytest.raises(CheckpointError, match="does not hold the network"):
        load_checkpoint(path)


FIRST = '{"name": "a", "color": [0, 0, 0]}'


@pytest.mark.parametrize(
    ("key", "json_text", "message"),
    [
        ("legend", "null", "None is not a table of a legend"),
        ("unheard_of", "1", "unknown key 'unheard_of' for Manifest"),
        ("format_version", "Infinity", "format_version = inf is no whole number"),
        ("format_version", "true", "format_version = True is no whole number"),
        ("format_version", "9" * 5000, "cannot be read"),
        ("name", "7", "name = 7 must be text"),
        ("name", f'"{"a" * 300}"', "has 300 characters"),
        ("model", "[]", r"\[\] must be a table of ModelConfig"),
        ("model.backbone", '"resnet999"', "did you mean 'resnet"),
        ("model.backbone", '["resnet18"]', "must be text"),
        ("model.backbone", '"timm/hf-hub:x/y"', "unknown backbone"),
        ("model.backbone", '"timm/hf-hub:y"', "is not the plain name of a network"),
        ("model.backbone", '"timm/local-dir:y"', "is not the plain name of a network"),
        ("model.backbone", '"timm/local-dir:/tmp/x"', "unknown backbone"),
        ("model.backbone", '"tu-hf-hub:y"', "is not the plain name of a network"),
        ("model.backbone", '"https://x.org/resnet18"', "unknown backbone"),
        ("model.backbone", '"../resnet18"', "unknown backbone"),
        ("model.backbone", '"timm/.."', "is not the plain name of a network"),
        ("model.architecture", "[1]", "must be text"),
        ("model.in_channels", "true", "must be a whole number"),
        ("model.pyramid_channels", "1" + "0" * 30, "is too large a number"),
        ("model.pyramid_channels", "1000000", "at most 8192"),
        ("model.sharing", "{}", "is not one of none"),
        ("model.shared_levels", '[2, "3"]', r"shared_levels\[1\] = '3' must be a whole number"),
        ("model.aggregate", "1", "must be true or false"),
        ("region.region_size", "1000000000", "region_size 1000000000 must be at most"),
        ("region.patch_overlap", "47", "leaves steps of 1 px"),
        ("legend.ignore_value", "Infinity", "must be a whole number"),
        ("legend.background", "[0]", "must be a whole number"),
        ("legend.classes", FIRST, r"must be a list"),
        ("legend.classes", f'[{FIRST}, {{"name": "b", "color": [NaN, 0, 0]}}]', "not three numbers from 0 to 255"),
        ("legend.classes", f'[{FIRST}, {{"name": "b", "color": "x"}}]', "not three numbers from 0 to 255"),
        ("legend.classes", rf'[{FIRST}, {{"name": "\ud800", "color": [0, 0, 0]}}]', r"U\+D800, which is not text"),
        ("legend.classes", rf'[{FIRST}, {{"name": "\u0007", "color": [0, 0, 0]}}]', r"U\+0007, which is not text"),
        ("legend.classes", f'[{FIRST}, {{"name": 7, "color": [0, 0, 0]}}]', "= 7 must be text"),
        ("resolution_m", '"x"', "must be a number"),
        ("resolution_m", "NaN", "must be a finite number"),
        ("resolution_m", "1e-300", "must be a positive size"),
        ("resolution_range_m", "[1]", "must be a list of 2"),
        ("resolution_range_m", "[2, 1]", "two sizes in meters, in order"),
        ("assumed_pixel_size_m", "-Infinity", "must be a finite number"),
        ("bands", '"rgb"', "must be a list"),
        ("bands", '["red", "red", "blue"]', "differ from each other"),
        ("mean", "[0.5]", "3 bands, 1 means, 3 stds"),
        ("mean", '["a", "b", "c"]', r"mean\[0\] = 'a' must be a number"),
        ("std", "[0.2, 0.2, NaN]", r"std\[2\] = nan must be a finite"),
        ("std", "[0.2, 0.2, 1e-30]", "std positive"),
        ("scaling", "5", "is not one of"),
        ("training", '"x"', "training = 'x' must be a table"),
        ("training", '{"a": ' + "[" * 40 + "]" * 40 + "}", "nested more than 16 deep"),
        ("training", '{"a": ' + "[" * 20_000 + "]" * 20_000 + "}", "nested more than 16 deep|cannot be read"),
        ("training", r'{"license": "a\u001b[2J"}', r"U\+001B, which is not text"),
        ("metrics", r'{"\udcff": 1}', r"U\+DCFF, which is not text"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_used_is_refused_in_one_line(path: Path, key: str, json_text: str, message: str) -> None:
    plain = {"format_version": FORMAT_VERSION, **MANIFEST.to_dict()}
    part, _, name = key.rpartition(".")
    (plain[part] if part else plain)[name] = "to be replaced"
    text = json.dumps(plain).replace('"to be replaced"', json_text)
    save_file(load_file(path), path, metadata={MANIFEST_KEY: text})
    for read in (read_manifest, load_checkpoint):
        with pytest.raises(CheckpointError, match=message) as raised:
            read(path)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 500


WEIGHT, VARIANCE = "f_agg.weight", "local_branch.backbone.features.0.1.running_var"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (WEIGHT, lambda t: t.index_fill(0, torch.tensor([0]), float("nan")), f"NaN or infinite values in {WEIGHT}"),
        (WEIGHT, lambda t: t * float("inf"), f"NaN or infinite values in {WEIGHT}"),
        (WEIGHT, lambda t: t.double() * 1e300, f"NaN or infinite values in {WEIGHT}"),
        (VARIANCE, lambda t: -t, "negative variance"),
        (WEIGHT, lambda t: t.to(torch.int64), f"{WEIGHT} as I64; it must be F16"),
        (WEIGHT, lambda t: t.to(torch.float8_e4m3fn), f"{WEIGHT} as F8_E4M3"),
        (WEIGHT, lambda t: t[:1].contiguous(), "does not hold the network"),
        (WEIGHT, lambda _: None, f"'{WEIGHT}' is not in it"),
        ("another", lambda _: torch.zeros(1), "'another' is none of that network"),
    ],
)  # fmt: skip
def test_tensors_that_no_network_can_work_with_are_refused(
    path: Path, name: str, change: Callable[[torch.Tensor | None], torch.Tensor | None], message: str
) -> None:
    state = load_file(path)
    changed = change(state.get(name))
    state = {n: t for n, t in state.items() if n != name} | ({} if changed is None else {name: changed})
    save_file(state, path, metadata={MANIFEST_KEY: json.dumps({"format_version": FORMAT_VERSION, **MANIFEST.to_dict()})})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_a_network_larger_than_its_file_is_refused_before_memory_is_taken(path: Path) -> None:
    rewrite(path, model=to_plain(replace(MANIFEST.model, pyramid_channels=8192, smooth_channels=8192)))
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="does not hold the network"):
        load_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB; its weights would take 30 GB


def test_weights_beyond_half_precision_are_kept_as_they_are(tmp_path: Path, network: GLNet) -> None:
    with torch.no_grad():
        network.f_agg.weight[0, 0, 0, 0] = 1e6
    save_checkpoint(tmp_path / "large.safetensors", network, MANIFEST)
    assert load_checkpoint(tmp_path / "large.safetensors")[0].f_agg.weight[0, 0, 0, 0] == 1e6
    assert load_file(tmp_path / "large.safetensors")["local_branch.pyramid.classify.weight"].dtype is torch.float16


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EDQUOT, "disk full while writing .*a.safetensors"), (errno.EIO, r"\(Input/output")]
)
def test_what_the_disk_says_is_said_when_weights_cannot_be_written(
    tmp_path: Path, network: GLNet, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")

    monkeypatch.setattr("geoglnet.models.checkpoint.save_file", fail)
    with pytest.raises(OutputError, match=words):
        save_checkpoint(tmp_path / "a.safetensors", network, MANIFEST)
    assert not list(tmp_path.iterdir())


def test_a_diverged_network_is_not_written(tmp_path: Path, network: GLNet) -> None:
    with torch.no_grad():
        network.f_agg.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match="diverged"):
        save_checkpoint(tmp_path / "nan.safetensors", network, MANIFEST)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("torchvision/fcn_resnet50", "has no network 'fcn_resnet50' for classification"),
        ("torchvision/quantized_resnet18", "for classification"),
        ("timm/nothing_of_the_kind", "timm has no network"),
        ("timm/hiera_tiny_224", "takes no image of 128 px"),
    ],
)
def test_a_backbone_that_is_none_reaches_no_network_and_prints_nothing(
    backbone: str, message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if backbone.startswith("timm"):
        pytest.importorskip("timm")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("reached for the network"))
    with pytest.raises(ConfigError, match=message):
        build_backbone(backbone)
    assert capfd.readouterr().err == ""


def test_a_manifest_checks_its_parts_against_each_other() -> None:
    with pytest.raises(ConfigError, match="3 classes, its legend 2"):
        replace(MANIFEST, model=replace(MANIFEST.model, num_classes=3))


def test_configs_survive_the_round_trip_through_plain_values() -> None:
    assert from_plain(ModelConfig, to_plain(MANIFEST.model)) == MANIFEST.model
    with pytest.raises(ConfigError, match="did you mean 'backbone'"):
        from_plain(ModelConfig, {"num_classes": 2, "backbon": "resnet18"})


def test_an_unknown_model_name_suggests_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoglnet.models.shipped.shipped_models", lambda: ("buildings", "landcover"))
    with pytest.raises(ModelNotFoundError, match="did you mean 'buildings'"):
        model_path("bulidings")


@pytest.mark.parametrize("bands", [3, 5])
def test_backbone_weights_load_from_a_local_file(tmp_path: Path, bands: int) -> None:
    source = build_backbone("resnet18")
    save_file(source.state_dict(), tmp_path / "resnet18.safetensors")
    target = build_backbone("resnet18", in_channels=bands)
    load_backbone_weights(target, str(tmp_path / "resnet18.safetensors"))
    assert torch.equal(source.layer4[0].conv1.weight, target.layer4[0].conv1.weight)
    gray = torch.full((1, bands, 64, 64), 0.3)
    if bands == 3:
        torch.testing.assert_close(source.eval()(gray)[0], target.eval()(gray)[0])
    else:
        torch.testing.assert_close(source.conv1(torch.full((1, 3, 64, 64), 0.3)), target.conv1(gray), rtol=1e-3, atol=1e-4)


def test_the_weights_of_colors_reach_a_backbone_of_timm(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    source, target = build_backbone("timm/resnet18"), build_backbone("timm/resnet18", in_channels=4)
    save_file(source.state_dict(), tmp_path / "timm.safetensors")
    load_backbone_weights(target, str(tmp_path / "timm.safetensors"), ("nir", "red", "green", "blue"))
    colors = source.state_dict()["body.conv1.weight"]
    torch.testing.assert_close(target.state_dict()["body.conv1.weight"][:, 1:], colors * 3 / 4)


@pytest.mark.parametrize("bands", [("blue", "green", "red"), ("nir", "red", "green", "blue"), ("pan",)])
def test_the_weights_of_colors_go_to_the_bands_of_their_names(tmp_path: Path, bands: tuple[str, ...]) -> None:
    source = build_backbone("resnet18")
    save_file(source.state_dict(), tmp_path / "resnet18.safetensors")
    target = build_backbone("resnet18", in_channels=len(bands))
    load_backbone_weights(target, str(tmp_path / "resnet18.safetensors"), bands)
    colors, stem = source.conv1.weight.detach(), target.conv1.weight.detach() * len(bands) / 3
    for index, name in enumerate(bands):
        expected = colors[:, RGB.index(name)] if name in RGB else colors.mean(dim=1)
        torch.testing.assert_close(stem[:, index], expected)
    gray = torch.full((1, len(bands), 64, 64), 0.3)
    if "nir" in bands or "pan" in bands:  # maps keep their size
        torch.testing.assert_close(source.conv1(gray[:, :1].expand(1, 3, 64, 64)), target.conv1(gray), rtol=1e-3, atol=1e-4)


def test_backbone_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(build_backbone("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    with pytest.raises(CheckpointError, match="lacks"):
        load_backbone_weights(build_backbone("mobilenet_v2"), str(tmp_path / "resnet18.safetensors"))
    with pytest.raises(CheckpointError, match="no backbone weights"):
        load_backbone_weights(build_backbone("resnet18"), str(tmp_path / "absent.safetensors"))
