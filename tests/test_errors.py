"""The error tree: one root, and the builtin that a caller would guess."""

from __future__ import annotations

import inspect

import pytest

from geoglnet import errors

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_of_ours_has_one_root(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.GeoglnetError)


@pytest.mark.parametrize("kind", ALL)
def test_the_tree_in_the_docstring_names_every_error(kind: type[Exception]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.SceneError, OSError),
        (errors.SceneNotFoundError, FileNotFoundError),
        (errors.BandsError, ValueError),
        (errors.CheckpointError, ValueError),
        (errors.ModelNotFoundError, LookupError),
        (errors.OutputError, OSError),
        (errors.OutputExistsError, FileExistsError),
    ],
)
def test_errors_are_also_the_builtin_a_caller_would_catch(kind: type[Exception], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="what, value, way out"):
        raise kind("what, value, way out")


@pytest.mark.parametrize("kind", ALL)
def test_the_message_is_what_was_said(kind: type[Exception]) -> None:
    assert str(kind("one line")) == "one line"
