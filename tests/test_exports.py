"""Every public name exists, and nothing public is missing from ``__all__``."""

from __future__ import annotations

import importlib

import pytest

import geoglnet
from geoglnet import _HOME  # the one table of public names


@pytest.mark.parametrize("name", geoglnet.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(geoglnet, name) is not None


@pytest.mark.parametrize(("name", "home"), _HOME.items())
def test_public_names_are_the_objects_of_their_home(name: str, home: str) -> None:
    assert getattr(geoglnet, name) is getattr(importlib.import_module(home), name)


def test_dir_lists_exactly_the_public_names() -> None:
    assert sorted(dir(geoglnet)) == sorted(geoglnet.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Regionn'"):
        geoglnet.Regionn  # noqa: B018 - the access is what is tested
