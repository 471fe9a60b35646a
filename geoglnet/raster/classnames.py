"""Class names in a sidecar, GDAL's ``.aux.xml``, from which QGIS, ArcGIS and GDAL itself read the names of values."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from geoglnet.escaping import storable
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.output import unwritable
from geoglnet.types import StrPath

# GDAL's codes of column types (integer, text) and usages (value, name, red, green, blue)
_INTEGER, _TEXT = "0", "2"
_COLUMNS = (("Value", _INTEGER, "5"), ("Class", _TEXT, "2"), ("R", _INTEGER, "6"), ("G", _INTEGER, "7"), ("B", _INTEGER, "8"))


def sidecar_path(path: StrPath) -> Path:
    """Return the path of the sidecar in which GDAL stores what a raster's format cannot hold."""
    return Path(f"{os.fspath(path)}.aux.xml")


def write_class_names(path: Path, legend: Legend) -> None:
    """Write a sidecar with category names and a raster attribute table.

    Raises:
        OutputError: it cannot be written.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    categories = ElementTree.SubElement(band, "CategoryNames")
    for name in legend.names:
        ElementTree.SubElement(categories, "Category").text = storable(name)
    band.append(_attribute_table(legend))
    ElementTree.indent(root)
    try:
        ElementTree.ElementTree(root).write(path, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error


def read_class_names(path: StrPath) -> tuple[str, ...]:
    """Read the category names of a local raster's first band, from its sidecar or from a VRT; empty when there are none."""
    for candidate in (sidecar_path(path), Path(path)):
        if candidate.suffix not in (".xml", ".vrt") or not candidate.is_file():
            continue
        try:
            categories = ElementTree.parse(candidate).iterfind("./*[@band='1']/CategoryNames/Category")
            names = tuple(category.text or "" for category in categories)
        except ElementTree.ParseError:
            continue  # GDAL ignores a broken sidecar too
        if names:
            return names
    return ()


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Give every value of a category table a name of its own: tables of land cover leave names empty, or repeat them.

    A value without a name is named after its number, a name that several values share gets the number appended, and the entry
    of :data:`~geoglnet.legend.NO_CLASS`, the last of a table of 256, is no class.

    >>> distinct_names(["Unclassified", "", "Forest", "Forest"])
    ('Unclassified', 'class 1', 'Forest (2)', 'Forest (3)')
    """
    distinct = [" ".join(name.split()) or f"class {value}" for value, name in enumerate(names[:NO_CLASS])]
    while len(set(distinct)) < len(distinct):  # a name with a number may exist already
        count = Counter(distinct)
        distinct = [f"{name} ({value})" if count[name] > 1 else name for value, name in enumerate(distinct)]
    return tuple(distinct)


def _attribute_table(legend: Legend) -> ElementTree.Element:
    """Make the raster attribute table: value, name and color of every class."""
    table = ElementTree.Element("GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_COLUMNS):
        column = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", kind), ("Usage", usage)):
            ElementTree.SubElement(column, tag).text = text
    for value, (name, color) in enumerate(zip(legend.names, legend.colors, strict=True)):
        row = ElementTree.SubElement(table, "Row", index=str(value))
        for cell in (value, name, *color):
            ElementTree.SubElement(row, "F").text = storable(str(cell))
    return table
