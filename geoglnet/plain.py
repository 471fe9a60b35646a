"""Checks plain values, as JSON and TOML hold them, against type annotations."""

from __future__ import annotations

import math
import reprlib
import unicodedata
from collections.abc import Mapping
from datetime import date, time
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from geoglnet.errors import ConfigError


def checked(key: str, value: Any, hint: Any) -> Any:
    """Convert a value from JSON or TOML to an annotated type: lists to tuples, whole numbers to floats, enums by value.

    Args:
        key: name of the value, for the message.
        value: value as it was read.
        hint: the annotation: ``int``, ``float``, ``bool``, ``str``, an enum, a ``Literal``, a union, a tuple or a mapping of
            these, ``Any`` (everything that JSON can hold), or a class of which the value must be an instance already.

    Raises:
        ConfigError: a value of another kind, a number that is not finite or beyond 64 bits, or text that
            :func:`check_text` refuses.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return _checked_tree(key, value, _DEPTH)
    if origin is tuple:
        return _checked_tuple(key, value, arguments)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key} = {shortened(value)} must be a table")
        return {checked(f"a key of {key}", k, str): checked(f"{key}.{k}", v, arguments[1]) for k, v in value.items()}
    if origin in (Union, UnionType):
        return _checked_union(key, value, arguments)
    if origin is Literal or (isinstance(hint, type) and issubclass(hint, Enum)):
        choices = arguments if origin is Literal else tuple(member.value for member in hint)
        if type(value) is hint:
            return value
        if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
            raise ConfigError(f"{key} = {shortened(value)} is not one of {', '.join(map(str, choices))}")
        return value if origin is Literal else hint(value)
    return _checked_scalar(key, value, hint)


def _checked_scalar(key: str, value: Any, kind: type[Any]) -> Any:
    """Check a number, a truth value or a text."""
    if kind is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):  # in Python, True is an int
        raise ConfigError(f"{key} = {shortened(value)} must be {_WORDS.get(kind, kind.__name__)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} = {value} must be a finite number")
    if kind is int and abs(value) >= 2**63:
        raise ConfigError(f"{key} = {shortened(value)} is too large a number")
    if kind is str:
        check_text(key, value)
    return value


def _checked_tuple(key: str, value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    """Check a list of fixed or of any length."""
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{key} = {shortened(value)} must be a list")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise ConfigError(f"{key} = {shortened(value)} must be a list of {len(kinds)}")
    return tuple(checked(f"{key}[{i}]", v, kind) for i, (v, kind) in enumerate(zip(value, kinds, strict=True)))


def _checked_union(key: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    """Check a value of one of several types; the first one speaks in the message where it is of none."""
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    exact = [kind for kind in kinds if type(value) is (get_origin(kind) or kind)]
    return checked(key, value, (exact or kinds)[0])


def _checked_tree(key: str, value: Any, depth: int) -> Any:
    """Check a value that checkpoints store unchanged, such as scores and licenses: anything that JSON can hold."""
    if depth == 0:
        raise ConfigError(f"{key} is nested more than {_DEPTH} deep")
    if isinstance(value, Mapping):
        for name in value:
            checked(f"a key of {shortened(key)}", name, str)
        return {name: _checked_tree(f"{key}.{name}"[:_LONGEST_KEY], part, depth - 1) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_checked_tree(f"{key}[{index}]"[:_LONGEST_KEY], part, depth - 1) for index, part in enumerate(value)]
    if isinstance(value, (date, time)):  # TOML's
        return value.isoformat()
    if isinstance(value, str):
        check_text(key, value, is_name=False)
    elif isinstance(value, int) and not isinstance(value, bool):
        checked(key, value, int)
    elif not (value is None or isinstance(value, (bool, float))):
        raise ConfigError(f"{key} = {shortened(value)} cannot be kept in a model file")
    return value


def check_text(key: str, text: str, *, is_name: bool = True) -> None:
    """Refuse text that tables, legends and terminals cannot show.

    Args:
        key: name of the value, for the message.
        text: a name, or a longer text.
        is_name: whether it must be a single line; longer texts may have line breaks and tabs.

    Raises:
        ConfigError: control characters, lone surrogates (bytes that were not UTF-8), or more than 4,096 characters
            (65,536 of a longer text).
    """
    longest = 4_096 if is_name else 65_536
    if len(text) > longest:
        raise ConfigError(f"{key} = {shortened(text)} has {len(text)} characters; at most {longest} can be kept")
    allowed = "" if is_name else "\n\r\t"
    for character in text:
        if unicodedata.category(character) in _NO_TEXT and character not in allowed:
            raise ConfigError(
                f"{key} = {shortened(text)} has the character U+{ord(character):04X}, which is not text; remove it"
            )


_NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line and paragraph separators
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_DEPTH = 16
_LONGEST_KEY = 200


class _Shortener(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 60, 60

    def repr_int(self, x: int, level: int) -> str:  # Python refuses to print more than 4300 digits
        return repr(x) if x.bit_length() <= 128 else f"a number of {x.bit_length()} bits"


shortened = _Shortener().repr
"""``repr`` of anything on one line, of bounded length and depth: for messages."""
