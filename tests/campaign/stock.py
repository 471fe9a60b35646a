"""Good inputs, small, from which the campaign makes bad ones; and what becomes of them undisturbed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from rasterio import Affine

from tests.campaign.faults import Fault
from tests.campaign.harness import Bench, Ended
from tests.miniature import picture, polygons_of, write_layer_of
from tests.rasters import write_raster

TRANSFORM = Affine(1, 0, 500_000, 0, -1, 5_000_000)
CRS = "EPSG:32633"
ALL_OUTPUTS = ("labels.tif", "vector.gpkg", "confidence.tif", "entropy.tif", "probabilities.tif")
PREDICT = (
    "predict", "scene.tif", "-o", "labels.tif", "--vector", "vector.gpkg", "--confidence", "confidence.tif",
    "--entropy", "entropy.tif", "--probabilities", "probabilities.tif", "--model", "tiny.safetensors", "--device", "cpu",
)  # fmt: skip
VECTORIZE = ("vectorize", "truth.tif", "vector.gpkg", "--confidence", "gray.tif", "--simplify", "1px", "--style", "qml")
MADE = ("made.safetensors", "made.global.safetensors")
TRAIN = ("train", "train.toml", "-o", "made.safetensors")
CONFIG = {
    "name": "toy",
    "resolution_m": 1.0,
    "assumed_pixel_size_m": 1.0,
    "legend": {
        "classes": [{"name": "ground", "color": [1, 1, 1]}, {"name": "roof", "color": [255, 0, 0]}],
        "background": 0,
    },
    "model": {"backbone": "mobilenet_v3_small", "pyramid_channels": 4, "smooth_channels": 2},
    "region": {"region_size": 64, "overview_size": 32, "patch_size": 32, "patch_overlap": 8, "margin": 16},
    "sample": {"region_size": 64, "patch_size": 32, "patches_per_region": 1},
    "train": [{"images": "scene.tif", "labels": "truth.tif", "pixel_size_m": 1.0}],
    "optim": {
        "global_steps": 3,
        "local_steps": 2,
        "batch_size": 2,
        "backbone_weights": "",
        "save_every_s": 0.0,
        "ema_decay": 0.5,
        "workers": 0,
    },
}
INPUTS = {
    "predict": (PREDICT, ("scene.tif", "tiny.safetensors"), ALL_OUTPUTS),
    "vectorize": (VECTORIZE, ("truth.tif", "gray.tif"), ("vector.gpkg",)),
    "train": (TRAIN, ("train.toml", "scene.tif", "truth.tif"), MADE),
}
"""By verb: the command, its inputs in the stock, its outputs."""


def make_stock(folder: Path, *, everything: bool = True) -> None:
    """Write the good inputs; with ``everything`` also results, unfinished runs, and how many calls a run makes."""
    from tests.campaign.mutations import to_toml

    labels = np.kron(np.random.default_rng(3).integers(0, 2, (8, 10)), np.ones((8, 8), int)).astype(np.uint8)
    write_raster(folder / "scene.tif", picture(labels * 5, 3), transform=TRANSFORM, crs=CRS)
    write_raster(folder / "truth.tif", labels[None], transform=TRANSFORM, crs=CRS)
    gray = np.random.default_rng(1).integers(1, 255, (1, 64, 80)).astype(np.uint8)
    write_raster(folder / "gray.tif", gray, transform=TRANSFORM, crs=CRS)
    write_layer_of(folder / "polygons.gpkg", {"roof": polygons_of(labels, TRANSFORM, 1)}, CRS)
    (folder / "train.toml").write_text(to_toml(CONFIG))
    if everything:
        in_fork(lambda: _make_model(folder / "tiny.safetensors"))
        for verb in INPUTS:
            _make_results(folder, verb)


def in_fork(work: object) -> None:
    """Do something in a fork: its threads would not survive the forks to come."""
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError("the good inputs cannot be made")


def _make_model(path: Path) -> None:
    import torch

    from geoglnet.config import ModelConfig, RegionConfig
    from geoglnet.legend import Legend
    from geoglnet.models.checkpoint import save_checkpoint
    from geoglnet.models.glnet import GLNet
    from geoglnet.models.manifest import Manifest

    torch.manual_seed(0)
    model = ModelConfig(2, "mobilenet_v3_small", pyramid_channels=4, smooth_channels=2)
    region = RegionConfig(region_size=64, overview_size=32, patch_size=32, patch_overlap=8, margin=16)
    legend = Legend(("ground", "roof"), ((0, 0, 0), (230, 75, 50)), background=0)
    save_checkpoint(path, GLNet(model), Manifest("tiny", model, region, legend, 1.0, (0.5, 2.0), 1.0))


def _make_results(folder: Path, verb: str) -> None:
    """``VERB.expected``: the outputs; ``VERB.calls``: how many by kind; ``VERB.begun``: what a killed run leaves."""
    from geoglnet.cli.main import main

    words, inputs, outputs = INPUTS[verb]
    bench = Bench(Path(tempfile.mkdtemp(dir=folder.parent)), folder, main)
    bench.take(*inputs)
    _check(bench, bench.run(words, outputs, fault=Fault("", 0)))
    (folder / f"{verb}.calls").write_text(json.dumps(bench.last.calls if bench.last else {}))
    (folder / f"{verb}.expected").mkdir()
    for path in bench.folder.iterdir():
        if path.name not in inputs and path.is_file():
            shutil.move(path, folder / f"{verb}.expected" / path.name)
    shutil.rmtree(bench.folder)
    if verb != "vectorize":
        _make_unfinished(folder, verb)


def _make_unfinished(folder: Path, verb: str) -> None:
    """``VERB.begun``: everything that a run leaves that was killed halfway, before a write in its midst.

    The run kills itself: who watches it from outside may look too late on a busy machine.
    """
    from geoglnet.cli.main import main

    words, inputs, outputs = INPUTS[verb]
    calls = json.loads((folder / f"{verb}.calls").read_text())
    for share in (0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.9):
        for kind in (kind for kind in ("write", "sync", "rename") if calls[kind]):
            bench = Bench(Path(tempfile.mkdtemp(dir=folder.parent)), folder, main)
            bench.take(*inputs)
            bench.run(words, outputs, fault=Fault(kind, 1 + int(share * calls[kind])))
            # An output that has its name is known by its inode until it is entered, and the cases get copies.
            if _is_halfway(bench.folder) and not any((bench.folder / name).exists() for name in outputs):
                for name in inputs:
                    (bench.folder / name).unlink()
                bench.folder.rename(folder / f"{verb}.begun")
                return
            shutil.rmtree(bench.folder)
    raise RuntimeError(f"no run of {verb} could be stopped halfway")


def _is_halfway(folder: Path) -> bool:
    journal = folder / "labels.tif.unfinished" / "journal.jsonl"
    return (folder / "made.resume.pt").exists() or (journal.exists() and journal.read_bytes().count(b"\n") > 3)


def _check(bench: Bench, ended: Ended) -> None:
    if ended.code or bench.problems:
        raise RuntimeError(f"a good run fails: {bench.runs[-1]['argv']}: {ended.err} {bench.problems}")
