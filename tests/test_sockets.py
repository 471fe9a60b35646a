"""What a stranger adds with one file, or one line: a vector format, a data set, a blending weight.

A family of networks is added in ``training/test_fit.py``, a layer in ``prediction/test_layers.py``, and a run is computed
elsewhere in ``prediction/test_run.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pyogrio
import pytest

import geoglnet
from geoglnet.blending import core_weights
from geoglnet.datasets.coding import legend_coding
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import SOURCE_KINDS, source_files, source_from_plain
from geoglnet.datasets.truth import image_truth
from geoglnet.legend import Legend
from geoglnet.prediction.predictor import ArraySink, predict_scene
from geoglnet.progress import SilentProgress
from geoglnet.vector.formats import FORMATS, Format
from tests.rasters import noise, write_raster
from tests.stubs import CPU, SMALL, StubNetwork, manifest_of, random_scene, untiled


def test_a_vector_format_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, ".sqlite", Format("SQLite"))
    labels = np.kron(np.arange(16).reshape(1, 4, 4) % 3, np.ones((1, 8, 8))).astype(np.uint8)
    path = write_raster(tmp_path / "labels.tif", labels)
    for name in ("a.sqlite", "a.gpkg"):
        geoglnet.vectorize(path, tmp_path / name)
    theirs, ours = (pyogrio.read_dataframe(tmp_path / name, layer="a") for name in ("a.sqlite", "a.gpkg"))
    assert len(theirs) == len(ours) > 3
    assert theirs.geometry.geom_equals(ours.geometry).all()
    assert np.array_equal(theirs["area_m2"], ours["area_m2"])


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Every image has its labels in a folder of its own."""

    kind: Literal["folders"] = "folders"
    root: str = ""
    weight: float = 1.0


def test_a_data_set_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def iter_pairs(source: FolderSource, reader: PairReader) -> Iterator[Pair]:
        coding = legend_coding(reader.legend, {}, ())
        for path in sorted((reader.folder / source.root).glob("*/image.tif")):
            file = reader.look_at(path)
            assert file is not None
            yield Pair(file, image_truth(path, path.with_name("labels.tif"), coding, reader.legend, file.shape))

    module: Any = ModuleType("geoglnet.datasets.folders")
    module.iter_pairs = iter_pairs
    monkeypatch.setitem(sys.modules, "geoglnet.datasets.folders", module)  # the file
    monkeypatch.setitem(SOURCE_KINDS, "folders", FolderSource)  # the line
    truth = np.random.default_rng(0).integers(0, 2, (1, 40, 60), dtype=np.uint8)
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        write_raster(tmp_path / "set" / name / "image.tif", noise(3, 40, 60))
        write_raster(tmp_path / "set" / name / "labels.tif", truth)
    source = source_from_plain({"kind": "folders", "root": "set"})
    legend = Legend(("ground", "roof"), ((0, 0, 0), (255, 0, 0)), background=0)
    scenes = list(PairReader(tmp_path, legend, 0.5, SilentProgress()).iter_scenes(source))
    assert [Path(scene.name).parent.name for scene in scenes] == ["a", "b"]
    assert np.array_equal(scenes[0].read_labels(slice(0, 40), slice(0, 60)), truth[0])
    assert {path.name for path in source_files(source, tmp_path)} >= {"image.tif", "labels.tif"}


def test_a_blending_weight_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, manifest = random_scene(150, 117), manifest_of(SMALL)
    found = {}
    for name, fade in {"linear": lambda t: t, "cosine": lambda t: (1 - np.cos(np.pi * t)) / 2}.items():
        monkeypatch.setattr("geoglnet.blending.fade", fade)
        labels, confidence = ArraySink(scene.shape), ArraySink(scene.shape)
        predict_scene(scene, StubNetwork(manifest.model), manifest, labels, confidence, CPU)
        found[name] = core_weights((0, 64, 128), 0, 16)
        # What patches and regions say is the same where they overlap, so it is what they say, however it is weighed.
        assert np.array_equal(labels.array, untiled(scene, manifest)[0])
        assert np.abs(confidence.array - untiled(scene, manifest)[1]).max() <= 1.01
    assert not np.array_equal(found["linear"], found["cosine"])
