"""Bands of a model: one value for configurations, checkpoints and scenes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from geoglnet.bands import Bands
from geoglnet.config import ScalingRule
from geoglnet.errors import ConfigError
from geoglnet.models.manifest import Manifest
from tests.stubs import SMALL, manifest_of


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("red", "green")}, "2 bands, 3 means, 3 stds; give one of each per band"),
        ({"names": ("red", "red", "blue")}, "differ from each other"),
        ({"names": (), "mean": (), "std": ()}, "at least one"),
        ({"names": ("red", "green", "b\x07")}, r"U\+0007"),
        ({"names": ("red", "green", "b" * 256)}, "256 characters"),
        ({"std": (0.2, 0.2, 0.0)}, "std positive"),
        ({"mean": (0.2, 0.2, float("inf"))}, "moderate numbers"),
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
