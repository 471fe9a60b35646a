"""Checkpoints of the authors' code: their names, their geometry, their logits; what is none of theirs is refused."""

from __future__ import annotations

import functools
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor

from geoglnet.cli.main import geoglnet
from geoglnet.config import Compat, ModelConfig, Sharing
from geoglnet.errors import CheckpointError, ConfigError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.glnet import GLNet
from geoglnet.models.official.conversion import region_of
from geoglnet.models.official.weights import official_network, read_state
from geoglnet.types import Shape
from geoglnet.windows import footprints, patch_windows
from tests.official import Reference, random_state

SIDE = 64
SHAPES = [  # places of every kind relative to the cells of the maps
    Shape(130, 201),
    *(pytest.param(shape, marks=pytest.mark.slow) for shape in (Shape(150, 150), Shape(177, 96))),
]


def region(shape: Shape) -> tuple[Reference, Tensor]:
    torch.manual_seed(1)
    image = torch.rand(1, 3, *shape)
    windows = patch_windows(shape, SIDE, 16)
    overview = F.interpolate(image, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    starts = [(int(w.row_off), int(w.col_off)) for w in windows]
    return Reference(image, overview, starts, SIDE), torch.from_numpy(footprints(windows, shape))


def close(got: Tensor, expected: Tensor) -> bool:
    return bool((got - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_imported_networks_give_the_authors_logits_in_every_mode(shape: Shape) -> None:
    reference, places = region(shape)
    fixed, second, third = (random_state(7, seed=seed) for seed in range(3))

    network = official_network(fixed, None)
    assert close(network.see(reference.overview).logits, reference.global_branch(fixed)[0])

    network = official_network(second, Sharing.GLOBAL_TO_LOCAL)
    s_agg, s_loc = reference.mode_2(second)
    logits = network.segment(reference.patches, places, network.see(reference.overview))
    assert close(logits.final, s_agg)
    assert close(logits.s_loc, s_loc)

    network = official_network(third, Sharing.BIDIRECTIONAL, fixed)
    s_agg, s_glb = reference.mode_3(third, fixed)
    maps, logits = network(reference.overview, reference.patches, places)
    assert close(maps.logits, s_glb)
    assert close(logits.final, s_agg)
    batches = [(reference.patches[i : i + 2], places[i : i + 2]) for i in range(0, len(places), 2)]
    assert close(torch.cat(list(network.iter_logits(reference.overview, network.see(reference.overview), batches))), s_agg)


@torch.inference_mode()
def test_exact_geometry_is_another_network() -> None:
    reference, places = region(SHAPES[0])
    official = official_network(random_state(7), Sharing.GLOBAL_TO_LOCAL)
    exact = type(official)(ModelConfig(7, "resnet18", 3, 16, 8)).eval()
    exact.load_state_dict(official.state_dict())
    one, other = (n.segment(reference.patches, places, n.see(reference.overview)).final for n in (official, exact))
    assert not close(one, other)


@functools.cache
def expected_network(sharing: Sharing | None) -> GLNet:
    """What a stage's checkpoint of seed 1 is imported as, above a first stage of seed 0."""
    fixed = random_state(7, seed=0) if sharing is Sharing.BIDIRECTIONAL else None
    return official_network(random_state(7, seed=1), sharing, fixed)


@pytest.mark.parametrize("prefix", [pytest.param("", marks=pytest.mark.slow), pytest.param("module.", marks=pytest.mark.smoke)])
def test_the_verb_imports_all_stages_with_either_kind_of_names(prefix: str, tmp_path: Path) -> None:
    for name, seed in (("g", 0), ("l2g", 1)):
        state = {prefix + key: tensor for key, tensor in random_state(7, seed=seed).items()}
        torch.save(state, tmp_path / f"{name}.pth")
    run = CliRunner().invoke
    stages = (("global", []), ("g2l", []), ("bidirectional", ["--global-checkpoint", str(tmp_path / "g.pth")]))
    for stage, more in stages[-1:] if prefix else stages:  # the last one reads both files
        path = tmp_path / f"{stage}.safetensors"
        ended = run(geoglnet, ["import-official", str(tmp_path / "l2g.pth"), "-o", str(path), "--stage", stage, *more])
        assert ended.exit_code == 0, ended.stderr
        network, manifest = load_checkpoint(path)
        assert manifest.model.compat is Compat.OFFICIAL
        assert manifest.legend.names[:2] == ("unknown", "urban")
        assert (manifest.region.region_size, manifest.region.overview_size, manifest.bands.mean) == (2448, 508, (0.0, 0.0, 0.0))
        expected = expected_network({"global": None, "g2l": Sharing.GLOBAL_TO_LOCAL}.get(stage, Sharing.BIDIRECTIONAL))
        assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in expected.state_dict().items())


def test_what_the_last_checkpoint_lacks_comes_from_the_second(tmp_path: Path) -> None:
    whole = random_state(2, seed=1)
    torch.save({k: v for k, v in whole.items() if "local" not in k}, tmp_path / "l2g.pth")
    torch.save(whole, tmp_path / "g2l.pth")
    torch.save(random_state(2), tmp_path / "g.pth")
    arguments = ["import-official", str(tmp_path / "l2g.pth"), "-o", str(tmp_path / "m.safetensors")]
    arguments += ["--global-checkpoint", str(tmp_path / "g.pth")]
    assert "no tensor" in CliRunner().invoke(geoglnet, arguments).stderr
    ended = CliRunner().invoke(geoglnet, [*arguments, "--g2l-checkpoint", str(tmp_path / "g2l.pth")])
    assert ended.exit_code == 0, ended.stderr
    assert load_checkpoint(tmp_path / "m.safetensors")[1].legend.names == ("background", "building")


def test_foreign_truncated_and_harmful_checkpoints_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(random_state(7), whole)
    (tmp_path / "truncated.pth").write_bytes(whole.read_bytes()[:5000])
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "foreign.pth")
    torch.save({"epoch": 3, "model": {}}, tmp_path / "nested.pth")
    torch.save({"harm": Harmful()}, tmp_path / "harmful.pth")
    for name, message in {
        "absent": "no checkpoint at",
        "truncated": "not a whole PyTorch checkpoint",
        "foreign": "no tensor fpn_global",
        "nested": "no state_dict",
        "harmful": "not a whole PyTorch checkpoint of tensors",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            official_network(read_state(tmp_path / f"{name}.pth"), None)
    assert not HARM.exists()
    ended = CliRunner().invoke(
        geoglnet, ["import-official", str(tmp_path / "truncated.pth"), "-o", str(tmp_path / "m.safetensors")]
    )
    assert ended.exit_code == 1
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "m.safetensors").exists()


HARM = Path("/tmp/geoglnet-test-harm")


class Harmful:
    """Touches a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (HARM,))


def test_the_last_stage_needs_the_first_ones_checkpoint() -> None:
    with pytest.raises(CheckpointError, match="global_path="):
        official_network(random_state(7), Sharing.BIDIRECTIONAL)


def test_a_checkpoint_with_layers_of_another_shape_is_refused() -> None:
    state = random_state(7)
    state["fpn_local.smooth1_1.weight"] = state["fpn_local.smooth1_1.weight"][:, :-1]
    with pytest.raises(CheckpointError, match="not the authors' network"):
        official_network(state, Sharing.GLOBAL_TO_LOCAL)


def test_shallow_sharing_is_not_the_authors() -> None:
    with pytest.raises(ConfigError, match="official"):
        ModelConfig(7, shared_levels=(5,), compat=Compat.OFFICIAL)


@pytest.mark.parametrize("image_size", [2448, 5000, 1500, 536])
def test_an_imported_models_region_is_the_authors_image(image_size: int) -> None:
    region = region_of(image_size, 508)
    assert (region.region_size, region.overview_size, region.patch_size) == (image_size, 508, 508)


def lying(size: int) -> bytes:
    """A file whose pickle says that a tensor has more values than are stored."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(50)}, whole)
    changed = io.BytesIO()
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"K\x32", b"J" + size.to_bytes(4, "little"))
            new.writestr(name, content)
    return changed.getvalue()


def in_old_tar() -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:") as tar:
        for name in ("storages", "tensors", "pickle"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return whole.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole"),
        (b"\x80\x02", "not a whole"),
        (b"\x80\x02(", "not a whole"),
        (b"\x80\x02.", "not a whole"),
        (b"PK\x03\x04", "not a whole"),
        (lying(1_000_000_000), "not a whole|more than it holds"),
        (in_old_tar(), "not safe to read"),
    ],
    ids=["empty", "begun", "marked", "ended", "zip", "lying", "tar"],
)
def test_damaged_and_hostile_pickles_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "theirs.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_state(path)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_checkpoint_cut_off_anywhere_is_refused_in_one_line(tmp_path: Path, is_new: bool) -> None:
    path, whole = tmp_path / "theirs.pth", io.BytesIO()
    torch.save({"module.a": torch.randn(4, 4), "module.b": torch.arange(3)}, whole, _use_new_zipfile_serialization=is_new)
    for size in range(0, len(whole.getvalue()) - 1, 13):
        path.write_bytes(whole.getvalue()[:size])
        with pytest.raises(CheckpointError) as raised:
            read_state(path)
        assert "\n" not in str(raised.value)


def test_a_number_repeated_a_billion_times_takes_no_memory(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1_000_000_000)}, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match="more than it holds"):
        read_state(tmp_path / "theirs.pth")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("fpn_global.classify.weight", torch.tensor(1.0)),
        ("fpn_global.smooth4_2.weight", torch.zeros(3)),
        ("fpn_global.classify.weight", torch.zeros(2, 1, 3, 3)),
        ("ensemble_conv.weight", torch.tensor(1.0)),
        ("fpn_local.smooth.weight", torch.zeros(32, 2, 3, 3)),
    ],
)
def test_tensors_of_other_sizes_are_not_the_authors(name: str, tensor: Tensor) -> None:
    with pytest.raises(CheckpointError, match=r"not the authors' network|not a checkpoint of the authors"):
        official_network(random_state(2) | {name: tensor}, Sharing.GLOBAL_TO_LOCAL)
