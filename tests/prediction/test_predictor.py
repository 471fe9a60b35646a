"""Tiled prediction equals untiled prediction, whatever the scene, the nodata pattern and the sizes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from rasterio.windows import Window

from geoglnet.config import Branches, RegionConfig, Sharing
from geoglnet.errors import BandsError, Canceled, ConfigError
from geoglnet.models.manifest import Manifest
from geoglnet.prediction.area import Area
from geoglnet.prediction.device import resolve_device
from geoglnet.prediction.layers import LABELS, LAYERS, PROBABILITIES
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import ArraySink, Predictor, predict_scene
from geoglnet.progress import RecordedProgress, SilentProgress
from geoglnet.raster.scene import ArrayScene, Pixels
from geoglnet.types import Shape
from tests.networks import small
from tests.stubs import CLASSES, CPU, SMALL, StubNetwork, manifest_of, random_scene, region_configs, scenes, untiled


def predicted(
    scene: ArrayScene, network: Any, manifest: Manifest, config: PredictConfig = CPU
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    labels, confidence = ArraySink(scene.shape), ArraySink(scene.shape)
    predict_scene(scene, network, manifest, labels, confidence, config)
    return labels.array, confidence.array


@given(scene=scenes(), config=region_configs())
@settings(max_examples=200, deadline=None)
def test_tiled_equals_untiled_for_any_scene_nodata_and_sizes(scene: ArrayScene, config: RegionConfig) -> None:
    manifest = manifest_of(config)
    labels, confidence = predicted(scene, StubNetwork(manifest.model), manifest)
    expected, certainty = untiled(scene, manifest)
    np.testing.assert_array_equal(labels, expected)
    assert np.abs(confidence - certainty).max() <= 0.5 + 1e-3


@given(scene=scenes(), config=region_configs())
@settings(max_examples=25, deadline=None)
def test_blended_probabilities_add_up_to_one_at_every_valid_pixel(scene: ArrayScene, config: RegionConfig) -> None:
    manifest = manifest_of(config)
    predictor = Predictor(StubNetwork(manifest.model), manifest, CPU)
    total = np.zeros(scene.shape)
    for pending in predictor.iter_blocks(scene, [PROBABILITIES]):
        block = pending.resolve()
        total[block.window.toslices()] = block.layers["probabilities"].sum(axis=0, dtype=np.uint32)
    valid = np.ones(scene.shape, bool) if scene.valid is None else scene.valid
    assert np.abs(total[valid] - 254).max(initial=0) <= 0.5 * CLASSES + 1e-3
    assert (total[~valid] == 255 * CLASSES).all()


def test_every_core_is_written_once_and_blocks_begin_on_multiples_of_the_core() -> None:
    scene, manifest = random_scene(150, 117), manifest_of(SMALL)
    windows: list[Window] = []
    sink = SimpleNamespace(write_block=lambda window, block: windows.append(window))
    predict_scene(scene, StubNetwork(manifest.model), manifest, sink, config=CPU)
    assert [(w.row_off, w.col_off) for w in windows] == [(r, c) for r in (0, 32, 64, 96, 128) for c in (0, 32, 64, 96)]
    assert sum(w.width * w.height for w in windows) == 150 * 117


def test_the_network_never_sees_a_region_without_a_valid_pixel() -> None:
    scene, manifest = random_scene(200, 200), manifest_of(SMALL)
    valid = np.zeros((200, 200), bool)
    valid[74:90, 75:90] = True
    network = StubNetwork(manifest.model)
    labels, confidence = predicted(ArrayScene(scene.image, valid), network, manifest)
    assert len(network.overviews) == 1
    assert ((labels == 255) == ~valid).all()
    assert ((confidence == 255) == ~valid).all()
    network = StubNetwork(manifest.model)
    labels, _ = predicted(ArrayScene(scene.image, np.zeros_like(valid)), network, manifest)
    assert not network.overviews
    assert (labels == 255).all()


def test_patches_that_cannot_count_are_left_out() -> None:
    scene, manifest = random_scene(64, 64), manifest_of(SMALL)
    valid = np.zeros((64, 64), bool)
    valid[:5, :5] = True
    network = StubNetwork(manifest.model)
    predicted(ArrayScene(scene.image, valid), network, manifest)
    assert sum(len(batch) for batch in network.patches) == 1
    last = Plan(Shape(64, 84), SMALL).region(0, 2)
    assert [patch.col for patch in last.patches] == [1, 2] * 3


def test_invalid_pixels_reach_the_network_as_the_mean() -> None:
    manifest = manifest_of(SMALL)
    valid = np.ones((40, 40), bool)
    valid[10:20] = False
    network = StubNetwork(manifest.model)
    predicted(ArrayScene(random_scene(40, 40).image, valid), network, manifest)
    first = network.patches[0][0]
    assert (first[:, 10:20] == 0).all()
    assert (first[:, :10] != 0).any()


def test_patches_are_normalized_crops_at_their_footprints() -> None:
    scene, manifest = random_scene(64, 64), manifest_of(SMALL)
    network = StubNetwork(manifest.model)
    predicted(scene, network, manifest)
    patches, footprints = torch.cat(network.patches), torch.cat(network.footprints)
    assert patches.shape == (9, 3, 32, 32)
    assert footprints[4].tolist() == [0.25, 0.25, 0.75, 0.75]
    mean, std = (torch.tensor(v)[:, None, None] for v in (manifest.bands.mean, manifest.bands.std))
    expected = (torch.from_numpy(scene.image[:, 16:48, 16:48]) / 255 - mean) / std
    torch.testing.assert_close(patches[4], expected, atol=1e-5, rtol=1e-5)


def test_the_overview_is_decimated_with_antialiasing() -> None:
    image = np.zeros((3, 64, 64), np.uint8)
    image[:, ::2] = 255
    manifest = manifest_of(SMALL)
    network = StubNetwork(manifest.model)
    predicted(ArrayScene(image), network, manifest)
    (overview,) = network.overviews
    assert overview.shape == (1, 3, 32, 32)
    mean, std = (torch.tensor(v)[:, None, None] for v in (manifest.bands.mean, manifest.bands.std))
    gray = overview[0, :, 2:-2] * std + mean
    torch.testing.assert_close(gray, torch.full_like(gray, 0.5), atol=0.15, rtol=0)


def test_a_local_branch_alone_gets_no_overview() -> None:
    scene, manifest = random_scene(100, 90), manifest_of(SMALL, Branches.LOCAL)
    network = StubNetwork(manifest.model)
    labels, _ = predicted(scene, network, manifest)
    assert not network.overviews
    np.testing.assert_array_equal(labels, untiled(scene, manifest)[0])


def test_a_global_branch_alone_gives_its_upsampled_logits() -> None:
    region = RegionConfig(region_size=64, overview_size=64, patch_size=32, patch_overlap=8, margin=16)
    scene, manifest = random_scene(100, 90), manifest_of(region, Branches.GLOBAL)
    network = StubNetwork(manifest.model)
    labels, _ = predicted(scene, network, manifest)
    assert not network.patches
    np.testing.assert_array_equal(labels, untiled(scene, manifest)[0])


def test_a_batch_too_large_for_the_gpu_is_halved_and_the_labels_stay() -> None:
    scene, manifest = random_scene(64, 64), manifest_of(SMALL)
    network = StubNetwork(manifest.model, fits=2)
    labels, _ = predicted(scene, network, manifest, PredictConfig(batch_size=8, device="cpu"))
    assert [len(batch) for batch in network.patches] == [2, 2, 2, 2, 1]
    np.testing.assert_array_equal(labels, untiled(scene, manifest)[0])


def test_a_single_patch_too_large_for_the_gpu_is_said_in_one_line() -> None:
    manifest = manifest_of(SMALL)
    with pytest.raises(ConfigError, match="no memory left for a single patch"):
        predicted(random_scene(64, 64), StubNetwork(manifest.model, fits=0), manifest)


def test_progress_counts_every_patch_of_the_plan_even_those_left_out() -> None:
    scene, manifest, progress = random_scene(150, 117), manifest_of(SMALL), RecordedProgress()
    valid = np.zeros((150, 117), bool)
    valid[:60, :60] = True
    scene = ArrayScene(scene.image, valid)
    predict_scene(scene, StubNetwork(manifest.model), manifest, ArraySink(scene.shape), None, CPU, progress)
    plan, *steps = progress.events
    assert plan["unit"] == "patches"
    assert sum(step["amount"] for step in steps) == plan["total"]


def test_progress_may_cancel() -> None:
    class Impatient(SilentProgress):
        def advance(self, amount: int = 1, **figures: float) -> None:
            raise Canceled("stop")

    manifest = manifest_of(SMALL)
    network = StubNetwork(manifest.model)
    with pytest.raises(Canceled):
        predict_scene(random_scene(64, 64), network, manifest, ArraySink(Shape(64, 64)), None, CPU, Impatient())


def test_wrong_bands_are_refused() -> None:
    manifest = manifest_of(SMALL)
    with pytest.raises(BandsError, match="4 bands read, the model takes 3"):
        predicted(ArrayScene(np.zeros((4, 40, 40), np.uint8)), StubNetwork(manifest.model), manifest)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PredictConfig(batch_size=0), "batch_size 0"),
        (lambda: PredictConfig(precision="bfloat"), "did you mean 'bfloat16'"),
        (lambda: resolve_device("gpu"), "unknown device 'gpu'"),
        (lambda: resolve_device("cuda:99"), "'cuda:99'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_automatic_device_is_one_that_exists() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("branches", list(Branches))
@pytest.mark.parametrize("shape", [(1, 1), (20, 90), (90, 70)])
def test_a_real_network_labels_any_shape(branches: Branches, shape: tuple[int, int]) -> None:
    manifest = manifest_of(SMALL, branches)
    shares = {} if branches is Branches.BOTH else {"sharing": Sharing.NONE, "aggregate": False}
    labels, confidence = predicted(random_scene(*shape), small(branches=branches, **shares), manifest)
    assert labels.shape == shape
    assert labels.max() < CLASSES
    assert confidence.min() >= 254 // CLASSES


def test_labels_hardly_depend_on_the_batch() -> None:
    manifest = manifest_of(SMALL)
    network, scene = small("mobilenet_v2"), random_scene(64, 64)
    four, _ = predicted(scene, network, manifest)
    three, _ = predicted(scene, network, manifest, PredictConfig(batch_size=3, device="cpu"))
    assert (four == three).mean() > 0.999


def test_bfloat16_changes_few_labels() -> None:
    manifest = manifest_of(SMALL)
    network, scene = small("mobilenet_v2"), random_scene(40, 64)
    full, _ = predicted(scene, network, manifest)
    half, _ = predicted(scene, network, manifest, PredictConfig(device="cpu", precision="bfloat16"))
    assert (full == half).mean() > 0.9


def test_pixels_are_read_once_per_region() -> None:
    manifest, scene = manifest_of(SMALL), random_scene(150, 117)
    windows: list[Window] = []

    def read_window(window: Window) -> Pixels:
        windows.append(window)
        return scene.read_window(window)

    counted = SimpleNamespace(shape=scene.shape, transform=scene.transform, read_window=read_window)
    counted.reopened = lambda: nullcontext(counted)
    predicted(cast(ArrayScene, counted), StubNetwork(manifest.model), manifest)
    assert len(windows) == len(Plan(scene.shape, SMALL)) == 20


@pytest.mark.parametrize("branches", [Branches.BOTH, Branches.GLOBAL])
@pytest.mark.parametrize("is_measured", [False, True])
def test_patches_minutes_and_bytes_are_said_before_the_work_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch, branches: Branches, is_measured: bool
) -> None:
    monkeypatch.setattr("geoglnet.prediction.estimate._MEASURED_FROM", 1 if is_measured else 10_000)
    scene, manifest, progress = random_scene(150, 117), manifest_of(SMALL, branches), RecordedProgress()
    predictor = Predictor(StubNetwork(manifest.model), manifest, CPU)
    first, *rest = (pending.resolve() for pending in predictor.iter_blocks(scene, [*LAYERS.values()], progress=progress))
    plan, *advances = progress.events
    steps = sum(event["amount"] for event in advances)
    assert plan["patches"] == plan["total"] == steps
    assert steps == len(rest) + 1 if branches is Branches.GLOBAL else steps > len(rest)
    assert plan["output_bytes"] == 150 * 117 * (3 + CLASSES)
    assert 0 < plan["minutes"] < 60
    whole = Area(scene.shape, Window(col_off=0, row_off=0, width=117, height=150))
    rule = predictor.estimate(whole, [LABELS]).rule
    assert rule.startswith(f"{steps} {plan['unit']} to segment: about a minute on cpu (")
    assert ("measured" in rule) == is_measured
    if branches is Branches.BOTH:
        expected, _ = untiled(scene, manifest)
        np.testing.assert_array_equal(first.labels, expected[first.window.toslices()])


@pytest.mark.parametrize("branches", [Branches.BOTH, Branches.GLOBAL])
@pytest.mark.parametrize(("precision", "way_out"), [("bfloat16", "use precision='float32'"), ("float32", "take another model")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_overflow_are_refused_with_the_precision_and_the_way_out(
    branches: Branches, precision: str, way_out: str, value: float
) -> None:
    scene, manifest = random_scene(150, 117), manifest_of(SMALL, branches)

    class Overflowing(StubNetwork):
        """Some pixels of one class are beyond any number, or those of all are below."""

        def see(self, overviews: torch.Tensor) -> Any:
            overviews[:, 0 if value > 0 else slice(None), 4:8, 4:8] = value
            return super().see(overviews)

        def segment(self, patches: torch.Tensor, footprints: torch.Tensor, maps: Any) -> Any:
            patches[:, 0 if value > 0 else slice(None), 8:12, 8:12] = value
            return super().segment(patches, footprints, maps)

    predictor = Predictor(Overflowing(manifest.model), manifest, PredictConfig(device="cpu", precision=precision))
    with pytest.raises(ConfigError, match=rf"\d+ pixels from column 0, row 0: numbers overflow in {precision}; .*{way_out}"):
        next(predictor.iter_blocks(scene)).resolve()


def test_numbers_that_overflow_where_nobody_looks_do_not_matter() -> None:
    scene, manifest = random_scene(150, 117), manifest_of(SMALL)

    class Overflowing(StubNetwork):
        def segment(self, patches: torch.Tensor, footprints: torch.Tensor, maps: Any) -> Any:
            patches[:, :, :4, :4] = np.nan
            return super().segment(patches, footprints, maps)

    valid = np.ones((150, 117), bool)
    valid[:8, :8] = False
    predictor = Predictor(Overflowing(manifest.model), manifest, CPU)
    plain = Predictor(StubNetwork(manifest.model), manifest, CPU)
    found, expected = (
        next(p.iter_blocks(ArrayScene(scene.image[:, :32, :32], valid[:32, :32]))).resolve() for p in (predictor, plain)
    )
    np.testing.assert_array_equal(found.labels, expected.labels)
