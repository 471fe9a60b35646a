"""Bands of a model: one value for configurations, checkpoints and scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from safetensors import safe_open

from geoglnet.bands import Bands, ValueRange
from geoglnet.config import ScalingRule
from geoglnet.errors import ConfigError
from geoglnet.models.manifest import MANIFEST_KEY, Manifest, read_manifest
from geoglnet.models.shipped import model_path, shipped_models
from tests.stubs import SMALL, manifest_of


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("red", "green"), "mean": (0.5,) * 3, "std": (0.5,) * 3}, "2 bands, 3 means, 3 stds; give one of each"),
        ({"mean": (0.5,) * 3}, "3 bands, 3 means, 0 stds; give one of each per band, or leave out both"),
        ({"scaling": (ScalingRule.AS_IS, ValueRange(0, 1))}, "3 bands, 2 rules in scaling"),
        (
            {"scaling": (ScalingRule.AS_IS, ScalingRule.STRETCH, ScalingRule.AS_IS)},
            "'stretch' is a rule for all bands together",
        ),
        ({"names": ("red", "red", "blue")}, "differ from each other"),
        ({"names": (), "mean": (), "std": ()}, "at least one"),
        ({"names": ("red", "green", "b\x07")}, r"U\+0007"),
        ({"names": ("red", "green", "b" * 256)}, "256 characters"),
        ({"mean": (0.2,) * 3, "std": (0.2, 0.2, 0.0)}, "std positive"),
        ({"mean": (0.2, 0.2, float("inf")), "std": (0.2,) * 3}, "moderate numbers"),
    ],
)
def test_bands_that_no_scene_can_be_read_by_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Bands(**changes)


def test_a_manifest_keeps_its_bands_where_version_1_of_the_format_has_them() -> None:
    bands = Bands(("nir", "red", "green"), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), ScalingRule.STRETCH)
    manifest = replace(manifest_of(SMALL), bands=bands)
    plain = manifest.to_dict()
    assert (plain["bands"], plain["mean"], plain["std"]) == (["nir", "red", "green"], [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert plain["scaling"] == "stretch"
    assert "names" not in plain
    assert Manifest.from_dict(plain) == manifest


def test_a_model_has_as_many_bands_as_its_network_takes() -> None:
    with pytest.raises(ConfigError, match=r"3 input channels but 1 bands \(gray\)"):
        replace(manifest_of(SMALL), bands=Bands(("gray",), (0.5,), (0.2,)))


PER_BAND = (ScalingRule.REFLECTANCE, ScalingRule.REFLECTANCE, ValueRange(0, 30))
MIXED = Bands(("red", "nir", "height"), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), PER_BAND)


@pytest.mark.parametrize(
    "bands", [Bands(), MIXED, Bands(("nir",), scaling=ValueRange(-1, 1)), Bands(scaling=ScalingRule.AS_IS)]
)
def test_bands_survive_json(bands: Bands) -> None:
    assert Bands.from_dict(json.loads(json.dumps(bands.to_dict()))) == bands


def test_rules_are_one_for_all_bands_or_a_table_of_their_names() -> None:
    assert Bands.from_dict({"names": ["nir"], "scaling": {"range": [0, 30]}}).rules == (ValueRange(0, 30),)
    plain = {"names": ["red", "height"], "scaling": {"height": {"range": [0, 30]}, "red": "as_is"}}
    assert Bands.from_dict(plain).rules == (ScalingRule.AS_IS, ValueRange(0, 30))
    equal = Bands.from_dict({"names": ["red", "nir"], "scaling": {"red": "reflectance", "nir": "reflectance"}})
    assert equal == Bands(("red", "nir"), scaling=ScalingRule.REFLECTANCE)
    assert (equal.is_8bit, Bands().is_8bit) == (False, True)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ("reflectence", r"scaling = 'reflectence' is not one of by_type, stretch, .* or \{range = \[low, high\]\}"),
        ({"red": "as_is", "nir": "log"}, "scaling.nir = 'log' is not one of"),
        ({"red": "as_is"}, "scaling has no rule for nir; give one for each of red, nir"),
        ({"red": "as_is", "nri": "as_is"}, "scaling has a rule for 'nri', which is no band; did you mean 'nir'"),
        ({"red": "as_is", "nir": {"range": [5, 5]}}, r"range = \[5, 5\] must have a low end below its high end"),
        ({"range": [0, 1, 2]}, "scaling.range = .* must be a list of 2"),
        ({"red": {"range": [0, 1], "unit": "m"}, "nir": "as_is"}, "scaling.red = .* is not one of"),
        (7, "scaling = 7 is not one of"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(scaling: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Bands.from_dict({"names": ["red", "nir"], "scaling": scaling})


def test_imagenet_s_mean_and_std_are_those_of_8_bit_colors_alone() -> None:
    assert Bands(("blue", "green", "red")).mean == (0.406, 0.456, 0.485)
    assert not Bands(("red", "green", "blue", "nir")).is_measured
    assert not Bands(scaling=ScalingRule.REFLECTANCE).is_measured
    with pytest.raises(ConfigError, match="bands red, green, blue have no mean and std; give one of each"):
        replace(manifest_of(SMALL), bands=Bands(scaling=ScalingRule.REFLECTANCE))


@pytest.mark.parametrize("name", shipped_models())
def test_what_version_1_of_the_format_can_say_is_written_as_ever(name: str) -> None:
    with safe_open(model_path(name), framework="numpy") as opened:
        text = opened.metadata()[MANIFEST_KEY]
    manifest = read_manifest(model_path(name))
    plain = {"format_version": manifest.format_version, **manifest.to_dict()}
    for key in ("format_version", "bands", "mean", "std", "scaling"):
        assert plain[key] == json.loads(text).get(key, "by_type"), key


def test_bands_that_only_a_newer_program_can_read_say_so() -> None:
    newer = replace(manifest_of(SMALL), bands=MIXED)
    assert (manifest_of(SMALL).format_version, newer.format_version) == (1, 2)
    assert Manifest.from_dict(newer.to_dict()) == newer
