"""Escapes text: names of classes, layers and scenes come from strangers, and must stay text wherever they are written.

Each kind of place has one function, which is the only way to write there. XML that ``ElementTree`` builds needs
:func:`storable` alone; text that is put between tags by hand needs :func:`xml`.
"""

from __future__ import annotations

import html as standard_html
import re

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_NOT_STORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LINE_ENDS = re.compile("\r\n?")
# Control characters, line and paragraph separators, marks and overrides of the writing direction, halves of surrogate pairs
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_FORMULA = re.compile(r"[=+\-@\t\r]")
_LONGEST = 60  # characters of a name in a figure


def storable(text: str) -> str:
    """Replace what XML 1.0, SQLite and UTF-8 cannot hold, so that one name is the same in a table and in its style."""
    return _NOT_STORABLE.sub(_REPLACEMENT, _LINE_ENDS.sub("\n", text))


def xml(text: str) -> str:
    """Escape text for XML, between tags or between quotes."""
    return standard_html.escape(storable(text)).replace("&#x27;", "&apos;")


def html(text: str) -> str:
    """Escape text for HTML that may pass through a template engine: braces are those of Jinja's expressions."""
    return standard_html.escape(storable(text)).replace("{", "&#123;").replace("}", "&#125;")


def sql_name(name: str) -> str:
    """Quote the name of a table or column; values are bound, never quoted."""
    return '"' + storable(name).replace('"', '""') + '"'


def visible(text: str) -> str:
    """Make characters that control a terminal visible (escape sequences, line breaks, writing direction), as ``\\x1b``."""
    return _UNSEEN.sub(lambda match: _code(ord(match[0])), text)


def encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which stand for bytes of file names that are not UTF-8; JSON parsers refuse them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def figure_text(text: str) -> str:
    """Escape text for matplotlib, which reads ``$…$`` as mathematics and leaves a leading ``_`` out of legends."""
    shown = visible(text)
    shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
    return shown.replace("$", r"\$").replace("_", "\N{ZERO WIDTH SPACE}_", 1 if shown.startswith("_") else 0)


def csv_cell(text: str) -> str:
    """Keep spreadsheets from computing a cell that begins like a formula."""
    return f"'{storable(text)}" if _FORMULA.match(text) else storable(text)


def qgis_label(text: str) -> str:
    """Keep QGIS from evaluating ``[% … %]`` in a legend: an invisible character parts the bracket from the percent sign."""
    return storable(text).replace("[%", "[\N{WORD JOINER}%")


def _code(number: int) -> str:
    """Write the code of a character as Python does."""
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
