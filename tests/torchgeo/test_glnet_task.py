"""GLNetTask and GLNetDataModule: Lightning's Trainer and TorchGeo's command line train what ``geoglnet predict`` reads."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import rasterio
import torch
from lightning import Trainer
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, VectorDataset
from torchgeo.main import main

import geoglnet
from geoglnet.config import RegionConfig, Sharing, Stage
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.errors import CheckpointError, ConfigError, OutputExistsError
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.torchgeo import (
    BalancedRegionSampler,
    GLNetCheckpoint,
    GLNetDataModule,
    GLNetTask,
    GlobalLocalDataset,
    GriddedRegionSampler,
    collate,
    region_batch,
)
from geoglnet.training.devices import UnwrappedDDP
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import OptimConfig
from tests.miniature import write_own, write_two_crs

pytestmark = [
    pytest.mark.smoke,
    pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning", "ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*JsonargparseDeprecationWarning", "ignore:.*jsonargparse"),
]

LEGEND = Legend(("background", "building"), ((0, 0, 0), (255, 0, 0)), background=0)
REGION = RegionConfig(64, 32, 32, 8, 8)
SMALL: dict[str, Any] = {
    "num_classes": 2,
    "backbone": "mobilenet_v3_small",
    "model": {"pyramid_channels": 8, "smooth_channels": 4},
    "optim": {"backbone_weights": ""},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_own(tmp_path)


def images_and_labels(folder: Path) -> Any:
    return RasterDataset([str(folder / f"scene_{n}.tif") for n in (0, 1)], cache=False) & VectorDataset(
        str(folder / "buildings.gpkg")
    )


def loader(folder: Path, *, patches: int = 2, length: int = 4, batch_size: int = 2) -> DataLoader[Any]:
    dataset = GlobalLocalDataset(images_and_labels(folder), LEGEND, region=REGION, sample=SampleConfig(64, 32, patches))
    sampler = BalancedRegionSampler(dataset, 64, length=length, generator=0)
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, collate_fn=collate)


def trainer(**options: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, num_sanity_val_steps=0, **(quiet | options))


def task(stage: str = "all", **changes: Any) -> GLNetTask:
    torch.manual_seed(0)
    settings = SMALL | {"stage": stage} | changes
    return GLNetTask(**settings)


def test_a_step_is_that_of_geoglnet_train_bit_by_bit(folder: Path) -> None:
    batches, ours = loader(folder), task("joint")
    plain = StageTask(task("joint").network, Stage.JOINT, OptimConfig(backbone_weights=""), 2)
    bands = batches.dataset.bands
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (bands.mean, bands.std))
    own = [region_batch(batch).normalized(mean, std) for batch in batches]
    theirs = DataLoader(own, batch_size=None)
    batches.sampler.set_epoch(0)
    trainer(max_steps=2).fit(ours, batches)
    trainer(max_steps=2, use_distributed_sampler=False).fit(plain.train(), theirs)
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(tensor, ours.network.state_dict()[name]), name


@pytest.mark.parametrize("sharing", [Sharing.GLOBAL_TO_LOCAL, pytest.param(Sharing.BIDIRECTIONAL, marks=pytest.mark.slow)])
def test_all_stages_are_trained_in_one_fit_and_each_as_it_says(folder: Path, sharing: Sharing) -> None:
    ours = task(model=SMALL["model"] | {"sharing": sharing.value}, optim={"backbone_weights": "", "ema_decay": 0.9})
    seen: list[tuple[Stage, int]] = []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            seen.append((pl_module.stage, pl_module.steps))

    before = {name: tensor.clone() for name, tensor in ours.network.state_dict().items()}
    trainer(max_epochs=5, callbacks=[Watch()]).fit(ours, loader(folder, patches=0))
    epochs = [stage for stage, _ in seen][::2]
    expected = {
        Sharing.GLOBAL_TO_LOCAL: [Stage.GLOBAL] * 4 + [Stage.LOCAL],
        Sharing.BIDIRECTIONAL: [Stage.GLOBAL] * 2 + [Stage.LOCAL] + [Stage.BIDIRECTIONAL] * 2,
    }
    assert epochs == expected[sharing]
    assert dict(seen) == {stage: 2 * epochs.count(stage) for stage in epochs}
    moved = {name.split(".")[0] for name, tensor in ours.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name, _ in ours.network.named_children()}


def test_stages_go_on_from_what_earlier_ones_saved(folder: Path) -> None:
    model = SMALL["model"] | {"sharing": "bidirectional"}
    path = None
    for stage in ("global", "local", "bidirectional"):
        ours = task(stage, model=model, weights=path)
        first = {name: tensor.clone() for name, tensor in ours.network.state_dict().items()}
        trainer(max_epochs=1).fit(ours, loader(folder, patches=0))
        if path is not None:
            taken, _ = load_checkpoint(path)
            assert all(torch.equal(tensor, first[name]) for name, tensor in taken.state_dict().items())
        path = str(folder / f"{stage}.safetensors")
        ours.save(path)
    assert load_checkpoint(folder / "global.safetensors")[0].config.branches.value == "global"
    assert load_checkpoint(folder / "local.safetensors")[0].config.sharing is Sharing.GLOBAL_TO_LOCAL
    assert load_checkpoint(folder / "bidirectional.safetensors")[0].config.sharing is Sharing.BIDIRECTIONAL
    with pytest.raises(CheckpointError, match="has another architecture"):
        task(backbone="resnet18", weights=path)


def test_a_saved_model_says_all_of_it_and_predicts_a_scene(folder: Path) -> None:
    ours = task("joint", name="mine")
    with pytest.raises(ConfigError, match="nothing to save"):
        ours.save(folder / "mine.safetensors")
    trainer(max_epochs=1, callbacks=[GLNetCheckpoint(str(folder / "mine.safetensors"))]).fit(ours, loader(folder))
    model = geoglnet.load_model(folder / "mine.safetensors")
    _, manifest = load_checkpoint(folder / "mine.safetensors")
    assert (manifest.name, manifest.legend, manifest.region, manifest.bands.names) == (
        "mine", LEGEND, REGION, ("red", "green", "blue"),
    )  # fmt: skip
    assert manifest.resolution_m == pytest.approx(1, rel=0.001)
    assert manifest.training["sample"]["patches_per_region"] == 2
    geoglnet.predict(folder / "scene_0.tif", folder / "labels.tif", model=model)
    with rasterio.open(folder / "labels.tif") as src:
        assert set(np.unique(src.read())) <= {0, 1}
    with pytest.raises(OutputExistsError):
        ours.save(folder / "mine.safetensors")
    with pytest.raises(OutputExistsError):
        GLNetCheckpoint(str(folder / "mine.safetensors"))


def test_validation_scores_whole_regions_and_prediction_says_where_they_lie(folder: Path) -> None:
    dataset = GlobalLocalDataset(images_and_labels(folder), LEGEND, region=REGION, sample=SampleConfig(64, 32, 0))
    whole = DataLoader(dataset, batch_size=2, sampler=GriddedRegionSampler(dataset, 64), collate_fn=collate)
    ours = task("joint")
    tried = trainer(max_epochs=1)
    tried.fit(ours, loader(folder), whole)
    assert {"train_loss", "val_loss", "val_MulticlassAccuracy", "val_MulticlassJaccardIndex", "val_mean_iou"} <= set(
        tried.callback_metrics
    )
    (scores,) = tried.test(ours, whole, verbose=False)
    predicted = tried.predict(ours, whole)
    right = total = 0
    for batch, made in zip(whole, predicted, strict=True):
        assert made["probabilities"].shape == (len(batch["image"]), 2, 64, 64)
        assert torch.allclose(made["probabilities"].sum(dim=1), torch.ones(len(batch["image"]), 64, 64), atol=1e-5)
        assert len(made["bounds"]) == len(made["transform"]) == len(batch["image"])
        known = batch["mask"] != 255
        right, total = right + int((made["prediction"] == batch["mask"])[known].sum()), total + int(known.sum())
    assert scores["test_MulticlassAccuracy"] == pytest.approx(right / total, abs=1e-5)


@pytest.mark.slow
def test_a_fit_goes_on_from_a_checkpoint_of_lightning_as_if_nothing_had_been(folder: Path) -> None:
    optim = {"backbone_weights": "", "ema_decay": 0.9, "cosine": True, "global_steps": 1, "local_steps": 1}
    whole, part = task(optim=optim), task(optim=optim)
    trainer(max_epochs=4).fit(whole, loader(folder))

    class Stop(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                trainer.save_checkpoint(folder / "last.ckpt")

    cut = trainer(max_epochs=4, callbacks=[Stop()])
    cut.fit(part, loader(folder))
    again = task(optim=optim)
    trainer(max_epochs=4).fit(again, loader(folder), ckpt_path=str(folder / "last.ckpt"), weights_only=False)
    assert again.stage is Stage.LOCAL
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
    loaded = GLNetTask.load_from_checkpoint(folder / "last.ckpt", weights_only=False)
    assert loaded.manifest is not None
    assert loaded.manifest.legend == LEGEND


def module(folder: Path, **options: Any) -> GLNetDataModule:
    settings: dict[str, Any] = {
        "settings": {"region": REGION, "sample": SampleConfig(64, 32, 2)},
        "splits_args": {"fractions": [0.5, 0.25, 0.25], "grid_size": 4},
        "length": 4,
        "batch_size": 2,
    }
    return GLNetDataModule(images_and_labels(folder), LEGEND, **(settings | options))


def test_a_datamodule_splits_fits_tests_and_predicts(folder: Path, tmp_path: Path) -> None:
    data, ours = module(folder), task("joint")
    tried = trainer(max_epochs=1, logger=lightning.pytorch.loggers.TensorBoardLogger(tmp_path))
    tried.fit(ours, data)
    (scores,) = tried.test(ours, data, verbose=False)
    assert 0 <= scores["test_mean_iou"] <= 1
    assert len(tried.predict(ours, data)) >= 2
    covered = [data.train_dataset, data.val_dataset, data.test_dataset]
    area = sum(dataset.index.geometry.area.sum() for dataset in covered)
    assert area == pytest.approx(data.whole.index.geometry.area.sum())


def test_settings_of_a_datamodule_may_be_tables_of_a_configuration_file(folder: Path) -> None:
    tables: dict[str, Any] = {
        "bands": {"names": ["red", "green", "blue"], "scaling": "as_is"},
        "region": {"region_size": 64, "overview_size": 32, "patch_size": 32, "patch_overlap": 8, "margin": 8},
        "sample": {"region_size": 64, "patch_size": 32, "patches_per_region": 1},
        "augment": {"color": 0.0},
    }
    data = module(folder, settings=tables)
    data.setup("fit")
    assert data.region == REGION
    assert data.train_dataset.bands.is_measured
    assert data.val_dataset.bands == data.train_dataset.bands
    with pytest.raises(ConfigError, match="unknown key 'patchsize'"):
        module(folder, settings={"sample": {"patchsize": 32}})
    with pytest.raises(ConfigError, match=r"unknown settings\.samples; did you mean 'sample'"):
        module(folder, settings={"samples": {}})
    data = module(folder, splits_args={"fractions": [0.5, 0.5]})
    with pytest.raises(ConfigError, match="gives 2 parts, and none for test"):
        data.setup("test")


@pytest.mark.slow
def test_two_processes_train_one_network_and_save_it(folder: Path) -> None:
    ours, path = task("joint"), folder / "mine.safetensors"
    before = {name: tensor.clone() for name, tensor in ours.network.state_dict().items()}
    options = {"max_epochs": 1, "devices": 2, "callbacks": [GLNetCheckpoint(str(path))]}
    trainer(strategy=UnwrappedDDP(), **options).fit(ours, loader(folder, length=8))
    trained, _ = load_checkpoint(path)
    counted = [int(tensor) for name, tensor in trained.state_dict().items() if name.endswith("num_batches_tracked")]
    assert max(counted) == 2  # steps of four regions, two in each process
    assert any(not torch.equal(tensor, before[name]) for name, tensor in trained.named_parameters() if tensor.ndim == 1)


PAGE = Path(__file__).parents[2] / "docs" / "torchgeo.md"


def block(language: str, word: str) -> str:
    """The block of the page that has a word in it."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    (chosen,) = [text for text in found if word in text]
    return str(chosen)


def test_the_documented_script_trains_and_predicts_in_forty_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_two_crs(tmp_path))
    script = block("python", "Trainer(")
    assert len(script.splitlines()) <= 40
    exec(compile(script, str(PAGE), "exec"), {})
    with rasterio.open("west.tif") as src, rasterio.open("scenes/west.tif") as scene:
        assert (src.crs, src.bounds) == (scene.crs, scene.bounds)


def test_torchgeos_command_line_trains_from_the_documented_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_two_crs(tmp_path))
    Path("glnet.yaml").write_text(block("yaml", "GLNetDataModule"), encoding="utf-8")
    monkeypatch.setattr("os.environ", dict(os.environ))  # TorchGeo's sets GDAL's options there
    main(["fit", "--config", "glnet.yaml"])
    model = geoglnet.load_model("from_yaml.safetensors")
    assert model.legend.names == ("ground", "building")
    geoglnet.predict("scenes/east.tif", "east.tif", model=model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "both"}, "stage = 'both' is not one of all, global, local, bidirectional, joint"),
        ({"stage": "bidirectional"}, "has no bidirectional stage"),
        ({"optim": {"gama": 1}}, "unknown key 'gama'"),
        ({"model": {"sharin": "none"}}, "unknown key 'sharin'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task(**changes)


def test_what_a_fit_lacks_is_said_at_its_start(folder: Path) -> None:
    with pytest.raises(ConfigError, match="1 epochs cannot be divided among stages global, local"):
        trainer(max_epochs=1).fit(task(), loader(folder))
    with pytest.raises(ConfigError, match="stages and schedules need an end"):
        trainer(max_epochs=-1).fit(task(), loader(folder))
    with pytest.raises(ConfigError, match="merges the patches of whole regions"):
        trainer(max_epochs=3).fit(task(model=SMALL["model"] | {"sharing": "bidirectional"}), loader(folder, patches=2))
    with pytest.raises(ConfigError, match="the network has 3 classes, its legend 2"):
        trainer(max_epochs=2).fit(task(num_classes=3), loader(folder))
    plain = DataLoader([{"image": torch.zeros(3, 32, 32)}])
    with pytest.raises(ConfigError, match="takes batches of a GlobalLocalDataset"):
        trainer(max_epochs=2).fit(task(), plain)
