"""The shipped models do what their cards say: on generated scenes anywhere, on the held-out scenes where these are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geoglnet.config import RegionConfig
from geoglnet.legend import Legend
from geoglnet.metrics import ConfusionMatrix
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import read_manifest
from geoglnet.models.shipped import card_text, model_path, shipped_models
from geoglnet.prediction.predictor import ArraySink, predict_scene
from geoglnet.raster.scene import ArrayScene
from geoglnet.synthetic import GENERATED_LEGEND, generate_scene, landcover_labels
from geoglnet.training.scoring import evaluate
from geoglnet.types import Shape
from geoglnet.windows import footprints, patch_windows

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("GEOGLNET_DATA", ROOT.parent / "shared" / "data"))
UNSEEN = 77  # a seed that no configuration trains on


def segmented(model: str, image: np.ndarray) -> np.ndarray:
    network, manifest = load_checkpoint(model_path(model))
    sink = ArraySink(Shape(*image.shape[1:]))
    predict_scene(ArrayScene(image), network, manifest, sink)
    return sink.array


def test_the_default_model_finds_generated_buildings() -> None:
    scene = generate_scene(Shape(640, 640), UNSEEN, 0.2)
    labels = segmented("buildings", scene.image)
    matrix = ConfusionMatrix(Legend(("background", "building"), ((0, 0, 0), (1, 1, 1)), background=0))
    matrix.update((scene.labels == GENERATED_LEGEND.value_of("building")).astype(np.uint8), labels)
    assert matrix.to_dict()["building"] > 0.5


def test_the_landcover_model_tells_villages_fields_and_woods_apart() -> None:
    scene = generate_scene(Shape(1280, 1280), UNSEEN, 0.25)
    legend = read_manifest(model_path("landcover")).legend
    truth = landcover_labels(scene.labels, legend)[::4, ::4]
    image = torch.nn.functional.avg_pool2d(torch.from_numpy(scene.image).float(), 4).byte().numpy()
    matrix = ConfusionMatrix(legend)
    matrix.update(truth, segmented("landcover", image))
    scores = matrix.to_dict()
    assert min(scores[name] for name in ("urban", "agriculture", "forest")) > 0.3


@pytest.mark.parametrize("model", shipped_models())
def test_a_card_states_the_scores_that_the_checkpoint_carries(model: str) -> None:
    manifest, card = read_manifest(model_path(model)), card_text(model)
    total = manifest.metrics["total"]
    assert all(f"{total[name]:.3f}" in card for name in manifest.legend.names if name in total)
    assert str(manifest.resolution_m) in card
    assert json.loads(json.dumps(manifest.training))["license"]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("model", shipped_models())
def test_the_held_out_scores_can_be_repeated(model: str) -> None:
    if not DATA.is_dir():
        pytest.skip(f"no imagery at {DATA}; set GEOGLNET_DATA to the folder that the configurations start from")
    scores = evaluate(model, ROOT / "examples" / "configs" / f"{model}.toml", DATA).total.to_dict()
    stated = read_manifest(model_path(model)).metrics["total"]
    assert scores == pytest.approx(stated, abs=0.01)


@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=pytest.mark.slow) if name.startswith("landcover-") else name for name in shipped_models()],
)
def test_trained_weights_fold_exactly(model: str) -> None:
    network, manifest = load_checkpoint(model_path(model))
    sizes = RegionConfig(
        region_size=512, overview_size=192, patch_size=192, patch_overlap=64, margin=64
    )  # quicker than its own
    shape = Shape(sizes.region_size, sizes.region_size)
    scene = generate_scene(shape, UNSEEN, min(manifest.resolution_m, 1.0))  # there is more to draw in coarser ones
    colors = [band % 3 for band in range(len(manifest.bands))]  # any picture will do for a band beyond color
    image = torch.from_numpy(scene.image[colors]).float()[None] / 255
    image = (image - torch.tensor(manifest.bands.mean)[:, None, None]) / torch.tensor(manifest.bands.std)[:, None, None]
    overview = torch.nn.functional.interpolate(image, size=sizes.overview_shape(shape), mode="bilinear", antialias=True)
    window = patch_windows(shape, sizes.patch_size, sizes.patch_overlap)[1]
    patch, place = image[(..., *window.toslices())], torch.from_numpy(footprints([window], shape))
    folded = network.fold()
    with torch.inference_mode():
        logits = [form.segment(patch, place, form.see(overview)).final for form in (network, folded)]
    expected, got = (final - final[:, :1] for final in logits)  # all that softmax sees
    ring = folded.ring_size // 4
    inside = (..., slice(ring, -ring), slice(ring, -ring))
    assert (expected - got)[inside].abs().max() < 1e-4 * expected.abs().max()
    assert torch.equal(expected[inside].argmax(1), got[inside].argmax(1))
