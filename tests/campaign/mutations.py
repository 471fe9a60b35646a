"""Ways to spoil bytes, trees of plain values, and text."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

Rng = np.random.Generator

TEXTS = (
    "", " ", "x", "a;b", "..", "../x", "/etc/passwd", "-x", "#12", "a:b", "\u0007", "\x1b[31mred", "a\nb", "é" * 300,
    "\u202etxt",
    "{{ 7*7 }}", "<script>alert(1)</script>", "';--", "%s%n", "\ud800", "nan", "1e999", "timm/hf-hub:x/y", "&amp;", "]]>",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 7, 255, 256, 65536, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.0, -0.0, 0.5, 1e-300, 1e300, -1e300, 1e-9,
    math.inf, -math.inf, math.nan,
)  # fmt: skip
KINDS: tuple[Any, ...] = (None, True, False, [], {}, [1], [[]], {"a": 1}, ["a", "b", "c"], [0, 0, 0])


def nested(depth: int, kind: type = list) -> Any:
    """A value inside many others."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def nasty(rng: Rng) -> Any:
    """A value that is rarely right."""
    which = rng.integers(10)
    if which == 0:
        return nested(int(rng.choice([3, 200, 2000])), [list, dict][rng.integers(2)])
    pool = NUMBERS if which < 5 else TEXTS if which < 8 else KINDS
    return copy.deepcopy(pool[rng.integers(len(pool))])


def chance(rng: Rng, share: float) -> bool:
    """Whether something happens that does in a share of the cases."""
    return bool(rng.random() < share)


def pick(rng: Rng, pool: Any) -> Any:
    """One of a sequence, of any kinds."""
    pool = list(pool)
    return pool[int(rng.integers(len(pool)))]


def spoil_bytes(rng: Rng, content: bytes, head: int | None = None) -> bytes:
    """Flip, cut, repeat, insert or blank some bytes, mostly among the first."""
    if not content:
        return bytes(rng.integers(0, 256, 20, dtype=np.uint8))
    array = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 2, 5, 20]))):
        reach = min(len(array), head) if head and chance(rng, 0.8) else len(array)
        place = int(rng.integers(reach)) if reach else 0
        way = rng.integers(7)
        if way <= 2 and array:
            array[place] = pick(rng, (0, 255, 128, int(rng.integers(256)), array[place] ^ (1 << int(rng.integers(8)))))
        elif way == 3:
            array[place : place + 4] = pick(rng, (b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80"))
        elif way == 4:
            del array[place : place + int(rng.integers(1, 64))]
        elif way == 5:
            array[place:place] = array[place : place + int(rng.integers(1, 64))]
        else:
            del array[int(rng.integers(len(array) + 1)) :]
    return bytes(array)


def spoil_text(rng: Rng, text: str) -> str:
    """Spoil text as text: words are doubled, swapped, left out, or changed into others."""
    words = text.replace("<", " <").split(" ")
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        place = int(rng.integers(len(words)))
        way = rng.integers(5)
        if way == 0:
            del words[place]
        elif way == 1:
            words.insert(place, words[place])
        elif way == 2:
            other = int(rng.integers(len(words)))
            words[place], words[other] = words[other], words[place]
        elif way == 3:
            words[place] = spoil_bytes(rng, words[place].encode()).decode("latin-1")
        else:
            plain = (*NUMBERS, *(text.encode("utf-8", "replace").decode() for text in TEXTS))  # without lone surrogates
            words[place] = "".join(str(pick(rng, plain))[:200] if c.isdigit() and chance(rng, 0.3) else c for c in words[place])
        words = words or [""]
    return " ".join(words)


def spoil_tree(rng: Rng, tree: Any) -> Any:
    """Change one to three values of a tree of dicts and lists, or their keys."""
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        places = list(_places(tree))
        if not places:
            return tree
        holder, key = pick(rng, places)
        way = rng.integers(12)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[str(pick(rng, TEXTS)) or key] = holder.pop(key)
        elif way == 2:
            holder[key] = [holder[key]]
        elif way == 3 and isinstance(holder[key], list):
            holder[key] = holder[key] * int(rng.choice([0, 2, 300]))
        elif way == 4 and isinstance(holder[key], (int, float)):
            holder[key] = holder[key] * pick(rng, (-1, 0, 2, 1000, 0.5, 1e9))
        else:
            holder[key] = nasty(rng)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys):
        yield tree, key
        yield from _places(tree[key]) if not _is_deep(tree[key]) else ()


def _is_deep(value: Any, left: int = 30) -> bool:
    while isinstance(value, (list, dict)) and value and left:
        value, left = next(iter(value.values() if isinstance(value, dict) else value)), left - 1
    return not left


def to_toml(table: dict[str, Any]) -> str:
    """A tree as TOML, tables inline; what TOML has no word for as text."""
    return "".join(f"{_key(name)} = {_toml(value)}\n" for name, value in table.items())


def _toml(value: Any) -> str:
    closing = []
    words = []
    while isinstance(value, (list, dict)) and len(value) == 1:  # as deep as it likes, without recursion
        if isinstance(value, list):
            words.append("[")
            closing.append("]")
            value = value[0]
        else:
            ((name, value),) = value.items()
            words.append(f"{{{_key(name)} = ")
            closing.append("}")
    return "".join(words) + _toml_shallow(value) + "".join(reversed(closing))


def _toml_shallow(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_toml(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(value if isinstance(value, str) else "none", ensure_ascii=False)


def _key(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def to_json(value: Any) -> str:
    """A tree as JSON, as deep as it likes."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return json.dumps(value)
    finally:
        sys.setrecursionlimit(limit)
