"""Reads class tables from files: our TOML, QGIS's QML, SLD, CSV, and label rasters that name their classes."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from geoglnet.errors import ConfigError, LegendError
from geoglnet.legend import Color, Legend
from geoglnet.raster.class_table import ClassTable, color_of_cells, table_of
from geoglnet.raster.gdal import check_exists
from geoglnet.types import StrPath

_LARGEST_FILE = 16 * 2**20
_HEX = re.compile(r"#([0-9a-fA-F]{6})(?:[0-9a-fA-F]{2})?")
_CODE = re.compile(r"[+-]?\d+(?:\.0*)?")
_CODE_COLUMNS = ("code", "value", "class_id", "id", "class", "gridcode")
_NAME_COLUMNS = ("name", "class_name", "label", "classname", "description", "category")
_COLOR_COLUMNS = ("color", "colour", "hex")
_CHANNELS = (("red", "green", "blue"), ("r", "g", "b"))
_EXPECTED = "give code,name,color (CSV), a QML or SLD of a raster or of polygons by code, or classes = [{name, color}] (TOML)"

Row = tuple[int, str, Color | None]


def read_class_file(path: StrPath) -> ClassTable:
    """Read names and colors of codes from a file, by its suffix; one that is none of ours is taken for a raster.

    Args:
        path: ``.toml``, ``.qml``, ``.sld``, ``.csv`` or ``.txt``, or a label raster.

    Raises:
        SceneNotFoundError: there is no such file.
        LegendError: it names no codes, or one of them twice and in different ways.
        SceneError: it is no raster either.
    """
    path = Path(path)
    check_exists(path)
    readers: Mapping[str, Callable[[Path], Iterable[Row] | ClassTable]] = {
        ".toml": _read_toml,
        ".qml": _read_qml,
        ".sld": _read_sld,
        ".csv": _read_csv,
        ".txt": _read_csv,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        table = table_of(str(path))
        if table is None:
            raise LegendError(f"{path.name} names no classes; {_EXPECTED}")
        return table
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise LegendError(f"it is too large for a legend; {_EXPECTED}")
        read = reader(path)
        return read if isinstance(read, ClassTable) else _table(read)
    except LegendError as error:
        raise LegendError(f"{path.name}: {error}") from error
    except (OSError, UnicodeDecodeError, ElementTree.ParseError, tomllib.TOMLDecodeError, csv.Error, ConfigError) as error:
        raise LegendError(f"{path.name} is not a legend ({' '.join(str(error).split())}); {_EXPECTED}") from error


def _table(rows: Iterable[Row]) -> ClassTable:
    """Collect rows, of which none may contradict another."""
    names, colors = dict[int, str](), dict[int, Color]()
    for code, name, color in rows:
        name = " ".join(name.split())
        if names.get(code, name) != name:
            raise LegendError(f"it names code {code} twice: {names[code]!r} and {name!r}; remove one")
        names[code] = name
        if color is not None:
            colors[code] = color
    if not names:
        raise LegendError(f"it names no codes; {_EXPECTED}")
    return ClassTable({code: name for code, name in names.items() if name}, colors)


def _read_toml(path: Path) -> ClassTable | list[Row]:
    """Read a legend of ours, the file of a training configuration too, or classes with a ``value`` each."""
    whole = tomllib.loads(path.read_text(encoding="utf-8"))
    plain = whole.get("legend", whole)
    classes = plain.get("classes") if isinstance(plain, dict) else None
    if isinstance(classes, list) and classes and all(isinstance(entry, dict) and "value" in entry for entry in classes):
        return [
            (_whole(entry["value"]), str(entry.get("name", "")), color_of_cells(entry.get("color", ()))) for entry in classes
        ]
    return ClassTable.of(Legend.from_dict(plain))


def _whole(value: Any) -> int:
    """Read a code that has to be a whole number."""
    if not _CODE.fullmatch(str(value).strip()):
        raise LegendError(f"{value!r} is not a code; codes are whole numbers")
    return int(float(value)) if "." in str(value) else int(value)


def _is_code(text: str | None) -> bool:
    return text is not None and _CODE.fullmatch(text.strip()) is not None


def _color(text: str | None) -> Color | None:
    """Read a color as ``#rrggbb``, or as three numbers with commas or spaces between; ``None`` where it is none."""
    found = _HEX.fullmatch((text or "").strip())
    if found is not None:
        red, green, blue = bytes.fromhex(found[1])
        return red, green, blue
    return color_of_cells(re.split(r"[,;\s]+", (text or "").strip())[:3])


def _read_qml(path: Path) -> Iterator[Row]:
    """Read the entries of a paletted raster, or the categories of polygons by code."""
    root = ElementTree.parse(path).getroot()
    for entry in (*root.iter("paletteEntry"), *root.iter("item")):
        if _is_code(entry.get("value")):
            yield _whole(entry.get("value")), entry.get("label") or "", _color(entry.get("color"))
    symbols = {symbol.get("name"): _qml_color(symbol) for symbol in root.iter("symbol")}
    for category in root.iter("category"):
        if _is_code(category.get("value")):
            yield _whole(category.get("value")), category.get("label") or "", symbols.get(category.get("symbol"))


def _qml_color(symbol: Element) -> Color | None:
    """Read the fill color of a symbol, of QGIS 3.22 and newer or of older ones."""
    texts = [option.get("value") for option in symbol.iter("Option") if option.get("name") == "color"]
    texts += [prop.get("v") for prop in symbol.iter("prop") if prop.get("k") == "color"]
    return next((color for color in map(_color, texts) if color is not None), None)


def _read_sld(path: Path) -> Iterator[Row]:
    """Read the color map of a raster, or the rules of polygons by code; prefixes and versions of SLD do not matter."""
    root = ElementTree.parse(path).getroot()
    for entry in _named(root, "ColorMapEntry"):
        if _is_code(entry.get("quantity")):
            yield _whole(entry.get("quantity")), entry.get("label") or "", _color(entry.get("color"))
    for rule in _named(root, "Rule"):
        literals = [node.text for equal in _named(rule, "PropertyIsEqualTo") for node in _named(equal, "Literal")]
        if len(literals) == 1 and _is_code(literals[0]):
            names = [node.text for tag in ("Title", "Name") for node in _named(rule, tag) if node.text]
            fills = [
                node.text
                for fill in _named(rule, "Fill")
                for tag in ("SvgParameter", "CssParameter")
                for node in _named(fill, tag)
                if node.get("name") == "fill"
            ]
            yield _whole(str(literals[0]).strip()), names[0] if names else "", _color(fills[0] if fills else None)


def _named(root: Element, name: str) -> Iterator[Element]:
    """Yield the elements of a local name, in any namespace."""
    return (node for node in root.iter() if isinstance(node.tag, str) and node.tag.rpartition("}")[2] == name)


def _read_csv(path: Path) -> Iterator[Row]:
    """Read code, name and color, with or without a header; columns may be separated by comma, semicolon or tab."""
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return
    separator = max(",;\t", key=lines[0].count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    header = [cell.lower() for cell in rows[0]]
    if _is_code(header[0]):
        header = ["code", "name", *(("red", "green", "blue") if len(header) > 4 else ("color",))]
    else:
        rows = rows[1:]
    code, name, color = (_find(header, names) for names in (_CODE_COLUMNS, _NAME_COLUMNS, _COLOR_COLUMNS))
    if code is None:
        raise LegendError(f"no column holds codes (it has {', '.join(header)}); {_EXPECTED}")
    channels = next(([header.index(c) for c in three] for three in _CHANNELS if set(three) <= set(header)), [])
    for row in rows:
        cells = [*row, *[""] * (len(header) - len(row))]
        mixed = color_of_cells([cells[at] for at in channels]) if channels else None
        yield _whole(cells[code]), "" if name is None else cells[name], mixed if color is None else _color(cells[color])


def _find(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)
