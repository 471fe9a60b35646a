"""Configurations are checked when they are made, and a wrong key is answered with the right one."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoglnet.config import Branches, ModelConfig, RegionConfig, Sharing, from_plain, suggestion, to_plain
from geoglnet.errors import ConfigError
from geoglnet.types import Shape

model_configs = st.builds(
    ModelConfig,
    num_classes=st.integers(1, 255),
    backbone=st.sampled_from(["resnet18", "resnet50", "mobilenet_v2"]),
    pyramid_channels=st.integers(1, 512),
    sharing=st.sampled_from(Sharing),
    shared_levels=st.sampled_from([(2,), (5,), (3, 4), (2, 3, 4, 5)]),
    aggregate=st.just(True),
) | st.builds(ModelConfig, num_classes=st.just(2), sharing=st.just(Sharing.NONE), aggregate=st.booleans())


@settings(max_examples=50)
@given(model_configs)
def test_a_configuration_survives_json(config: ModelConfig) -> None:
    assert from_plain(ModelConfig, json.loads(json.dumps(to_plain(config)))) == config


def test_a_configuration_is_read_from_toml() -> None:
    plain = tomllib.loads('num_classes = 2\nbackbone = "resnet18"\nbranches = "global"\nsharing = "none"\naggregate = false')
    config = from_plain(ModelConfig, plain)
    assert (config.branches, config.sharing) == (Branches.GLOBAL, Sharing.NONE)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"num_clases": 2}, "unknown key 'num_clases' for ModelConfig; did you mean 'num_classes'"),
        ({}, "ModelConfig lacks num_classes"),
        ({"num_classes": 2, "sharing": "both"}, "sharing = 'both' is not one of none, global_to_local"),
        ({"num_classes": 2, "backbone": "resnet51"}, "unknown backbone 'resnet51'; did you mean 'resnet"),
        ({"num_classes": 2, "in_channels": "3"}, "in_channels = '3' must be a whole number"),
        ({"num_classes": 0}, "num_classes = 0 must be at least 1"),
        ({"num_classes": 2, "branches": "local"}, "nothing to share or aggregate"),
    ],
)
def test_a_wrong_setting_is_said_with_the_way_out(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_plain(ModelConfig, plain)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"patch_size": 31}, "patch_size 31"),
        ({"patch_size": 4000}, "patch_size 4000"),
        ({"overview_size": 4000}, "overview_size 4000"),
        ({"patch_overlap": 500}, "patch_overlap 500"),
        ({"margin": -1}, "margin -1"),
        ({"margin": 201}, "multiple of 16"),
        ({"margin": 1000}, "no smaller than the margin"),
    ],
)
def test_sizes_that_do_not_fit_into_each_other_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegionConfig(**sizes)


def test_the_default_region_is_the_papers() -> None:
    region = RegionConfig()
    assert (region.region_size, region.overview_size, region.patch_size, region.patch_overlap) == (2448, 500, 500, 50)
    assert region.overview_shape(Shape(2448, 2448)) == Shape(500, 500)


def test_a_region_at_the_edge_is_decimated_as_much_as_a_full_one() -> None:
    assert RegionConfig().overview_shape(Shape(1224, 2448)) == Shape(250, 500)


def test_the_suggestion_names_the_nearest_word_or_all() -> None:
    assert suggestion("bildings", ("buildings", "landcover")) == "; did you mean 'buildings'?"
    assert suggestion("xyz", ("buildings", "landcover")) == "; known: buildings, landcover"
