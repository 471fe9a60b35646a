"""Texts that name settings in the words of their reader: ``overwrite=True`` in Python, ``--overwrite`` in a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Message(str):
    """A text that remembers which of its parts are keyword arguments; as a string, it is what a Python program should read.

    Errors and :class:`~geoglnet.progress.Progress` take it wherever they take a string. It keeps its keywords when something
    is added to it, and becomes plain text inside an f-string.

    >>> message = "labels.tif exists; pass " + Keyword("overwrite", True) + " to replace it"
    >>> print(message)
    labels.tif exists; pass overwrite=True to replace it
    >>> message.spelled(lambda keyword: f"--{keyword.name}")
    'labels.tif exists; pass --overwrite to replace it'

    Args:
        parts: texts, keywords and other messages, in order.
    """

    parts: tuple[str | Keyword, ...]

    def __new__(cls, *parts: str | Keyword) -> Message:
        self = super().__new__(cls, "".join(map(str, parts)))
        self.parts = tuple(inner for part in parts for inner in (part.parts if isinstance(part, Message) else (part,)))
        return self

    def __add__(self, other: str | Keyword) -> Message:
        return Message(self, other)

    def __radd__(self, other: str) -> Message:
        return Message(other, self)

    def spelled(self, spell: Callable[[Keyword], str]) -> str:
        """Return the text with every keyword written as ``spell`` says."""
        return "".join(spell(part) if isinstance(part, Keyword) else part for part in self.parts)


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword argument of the public functions, or a field of their configurations; added to a text, it makes a message.

    Args:
        name: of the argument.
        value: what to set it to; ``None`` where the reader has to choose.
    """

    name: str
    value: object = None

    def __str__(self) -> str:
        return f"{self.name}=…" if self.value is None else f"{self.name}={self.value!r}"

    def __add__(self, other: str) -> Message:
        return Message(self, other)

    def __radd__(self, other: str) -> Message:
        return Message(other, self)
