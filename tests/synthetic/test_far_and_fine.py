"""The mechanism of paper §3.1 on generated scenes: neither branch alone can, both together do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from geoglnet.errors import ConfigError
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.synthetic.far_and_fine import FAR_AND_FINE_LEGEND, FIELDS, Valley, far_and_fine_region, write_far_and_fine
from geoglnet.training.fit import fit, local_only
from geoglnet.training.scoring import score
from geoglnet.training.train_config import read_config

CONFIG = Path(__file__).parents[2] / "examples/configs/far_and_fine.toml"
FIELD_VALUES = [FAR_AND_FINE_LEGEND.value_of(name) for name in FIELDS]
LANDMARKS = [FAR_AND_FINE_LEGEND.value_of(name) for name in ("lake", "dune")]


@pytest.mark.parametrize("seed", range(6))
def test_no_patch_sees_a_field_and_what_waters_it(seed: int) -> None:
    labels = far_and_fine_region(seed)[1]
    to_landmark = ndimage.distance_transform_cdt(~np.isin(labels, LANDMARKS), metric="chessboard")
    nearest = to_landmark[np.isin(labels, FIELD_VALUES)].min()
    assert nearest >= Valley().distance >= read_config(CONFIG).region.patch_size


@pytest.mark.parametrize("seed", range(6))
def test_a_scene_is_all_irrigated_or_all_dry_as_its_landmark_says(seed: int) -> None:
    names = {FAR_AND_FINE_LEGEND.names[value] for value in np.unique(far_and_fine_region(seed)[1])}
    assert ("lake" in names) != ("dune" in names)
    wrong = "dry" if "lake" in names else "irrigated"
    assert not any(name.startswith(wrong) for name in names)


def test_the_overview_does_not_see_what_grows_on_a_field() -> None:
    """Decimated by the config's factor, dots and rows alike are plain: of equal mean, and without texture but for noise."""
    config = read_config(CONFIG)
    means: dict[str, list[float]] = {"orchard": [], "vineyard": []}
    for seed in range(12):
        pixels, labels = far_and_fine_region(seed)
        image = torch.from_numpy(pixels).float()[None]
        side = config.region.overview_size
        overview = F.interpolate(image, size=(side, side), mode="bilinear", antialias=True, align_corners=False)[0, 0].numpy()
        ground = overview[overview > 0].mean()
        fields, count = ndimage.label(np.isin(labels, FIELD_VALUES))
        for number in range(1, count + 1):
            inside = ndimage.binary_erosion(fields == number, iterations=6)[2::4, 2::4]
            full = pixels[0][ndimage.binary_erosion(fields == number, iterations=6)]
            assert overview[inside].std() < 0.2 * full.std()
            crop = FAR_AND_FINE_LEGEND.names[labels[fields == number][0]].split()[1]
            means[crop].append(float(overview[inside].mean() - ground))
    assert abs(np.mean(means["orchard"]) - np.mean(means["vineyard"])) < np.std(means["orchard"] + means["vineyard"])


def test_a_seed_is_a_scene_and_a_valley_too_small_is_refused() -> None:
    first, again, other = (far_and_fine_region(seed) for seed in (3, 3, 4))
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
    with pytest.raises(ConfigError, match="a valley of 128 px has no room for a field 104 px from its border"):
        Valley(size=128)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning", "ignore:.*does not have many workers.*")
def test_glnet_beats_either_branch_alone_where_classes_are_far_and_fine(tmp_path: Path) -> None:
    """Mean IoU of the fields' four classes; guessing between two equally likely classes gives 1/3. Margin: 0.25."""
    write_far_and_fine(tmp_path / "train", range(80))
    write_far_and_fine(tmp_path / "validation", range(1002, 1010))
    steps = {f"optim.{stage}_steps": 45 for stage in ("global", "local")}
    whole = read_config(CONFIG, {**steps, "optim.save_every_s": 1000.0})
    config = replace(whole, validation=())  # no pictures while it trains, and each network is scored once

    def fields_iou(name: str) -> float:
        network, manifest = load_checkpoint(tmp_path / f"{name}.safetensors")
        total = score(network, manifest, whole.validation, tmp_path).total.to_dict()
        return sum(total[name] for name in FIELDS) / len(FIELDS)

    fit(config, tmp_path, tmp_path / "glnet.safetensors")
    fit(local_only(config), tmp_path, tmp_path / "local.safetensors")
    alone = max(fields_iou("local"), fields_iou("glnet.global"))
    assert alone < 0.4
    assert fields_iou("glnet") > alone + 0.25
