"""Class tables: names and colors of class codes, which may be any integers, as raster attribute tables hold them.

A :class:`~geoglnet.legend.Legend` numbers classes from 0 without gaps, because a network's channels are numbered so. Rasters of
others have codes such as 111 to 523; they name them in an attribute table, in category names, or not at all.
"""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

import rasterio.shutil
from rasterio.io import DatasetReader, MemoryFile

from geoglnet.config import suggestion
from geoglnet.errors import LegendError, SceneError
from geoglnet.legend import Color, Legend
from geoglnet.raster.classnames import distinct_names, sidecar_path
from geoglnet.raster.cog import LEGEND_TAG, parsed_legend
from geoglnet.raster.files import GDAL_ERRORS, is_remote
from geoglnet.raster.gdal import environment, open_raster

# GDAL's usages of the columns of an attribute table
_NAME, _MIN, _MAX, _VALUE, _CHANNELS = "2", "3", "4", "5", ("6", "7", "8")
_VALUE_NAMES = ("value", "code", "id", "gridcode", "class_id")
_NAME_NAMES = ("class_name", "classname", "class_names", "class", "name", "label", "category", "description", "landcover")
_CHANNEL_NAMES = ("red", "green", "blue")
_ERRORS: tuple[type[Exception], ...] = (*GDAL_ERRORS, ElementTree.ParseError)
_ALL_ROWS = 256  # a table of at most so many rows is a legend as a whole; of a longer one only what occurs
_LISTED = 12
STYLED_CODES = 1000
"""Codes that a style has a category for; more are no legend that anybody reads, and QGIS takes long to draw them."""


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Names and colors of class codes.

    >>> table = ClassTable({111: "spruce"}, {111: (0, 90, 40)})
    >>> table.name_of(111), table.name_of(523)
    ('spruce', 'class 523')

    Args:
        names: by code; others are named after their number.
        colors: by code; others get one that their number decides.
        background: code that is no polygon; ``None`` where every code is one.
        none: further codes that stand for no class.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, Color] = field(default_factory=dict)
    background: int | None = None
    none: frozenset[int] = frozenset()

    @classmethod
    def of(cls, legend: Legend) -> ClassTable:
        """Take over the classes of a legend."""
        return cls(
            dict(enumerate(legend.names)), dict(enumerate(legend.colors)), legend.background, frozenset({legend.ignore_value})
        )

    @property
    def omitted(self) -> frozenset[int]:
        """Codes that do not become polygons."""
        return self.none if self.background is None else self.none | {self.background}

    def name_of(self, code: int) -> str:
        """Return the name of a code, or one made of its number."""
        return self.names.get(code) or f"class {code}"

    def color_of(self, code: int) -> Color:
        """Return the color of a code, or a generated one."""
        return self.colors.get(code) or generated_color(code)

    def only(self, codes: frozenset[int]) -> ClassTable:
        """Leave out the names and colors of all other codes."""
        return replace(self, names={code: name for code, name in self.names.items() if code in codes})

    def codes_of(self, chosen: Iterable[str]) -> frozenset[int]:
        """Find the codes of classes that are named, or given as numbers.

        Raises:
            LegendError: no class is called so, or it does not become polygons.
        """
        by_name = {name: code for code, name in self.names.items()}
        found = set()
        for word in chosen:
            code = by_name.get(word, int(word) if re.fullmatch(r"-?\d+", word) else None)
            if code is None:
                known = [name for code, name in sorted(self.names.items()) if code not in self.omitted]
                shown = ", ".join(known[:_LISTED]) + (f" … ({len(known)})" if len(known) > _LISTED else "")
                raise LegendError(
                    f"no class is called {word!r}{suggestion(word, tuple(known))}; there are {shown or 'no names'}"
                )
            if code in self.omitted:
                raise LegendError(f"{word!r} is no class that becomes polygons: it is the background, or stands for no class")
            found.add(code)
        return frozenset(found)

    def entries(self, found: Iterable[int] = ()) -> list[tuple[str, Color]]:
        """List name and color of every class that a style shows, in the order of the codes.

        Args:
            found: codes that occur, which need not be in the table.
        """
        return [(name, self.color_of(code)) for code, name in self.shown(found).items()]

    def shown(self, found: Iterable[int] = ()) -> dict[int, str]:
        """Name the classes that a style shows, by code: those that occur, and those of a table that is a legend as a whole."""
        codes = set(found) | (set(self.names) - self.omitted if len(self.names) <= _ALL_ROWS else set())
        return {code: self.name_of(code) for code in sorted(codes)[:STYLED_CODES]}


def generated_color(code: int) -> Color:
    """Generate the color of a code: steps of the golden ratio keep neighboring numbers far apart in hue."""
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(code * 0.618034 % 1.0, 0.65, 0.85))
    return red, green, blue


def distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Give every code a name of its own: empty ones are called after the number, repeated ones get it appended.

    >>> distinct({41: "Forest", 42: "Forest ", 43: ""})
    {41: 'Forest (41)', 42: 'Forest (42)', 43: 'class 43'}
    """
    found = {code: " ".join(name.split()) or f"class {code}" for code, name in names.items()}
    while len(set(found.values())) < len(found):  # a name with a number may exist already
        count = Counter(found.values())
        found = {code: f"{name} ({code})" if count[name] > 1 else name for code, name in found.items()}
    return found


def read_class_table(src: DatasetReader, band: int = 1) -> tuple[ClassTable, bool]:
    """Read names and colors of the codes of an open raster.

    They come from our own tag, else from category names, else from the attribute table (also ArcGIS's ``.vat.dbf``), and from
    the color table.

    Args:
        src: the raster.
        band: 1-based number of the band that holds the codes.

    Returns:
        The table, and whether the raster names its classes; where it does not, 0 is the background.

    Raises:
        LegendError: our tag is not a legend.
    """
    tag = src.tags().get(LEGEND_TAG)
    if tag is not None:
        return ClassTable.of(parsed_legend(tag, src.name)), True
    node = _described(src, band)
    categories = [category.text or "" for category in node.iterfind("./CategoryNames/Category")]
    colors = _color_table(src, band)
    table = node.find("./GDALRasterAttributeTable")
    names, others = ({}, {}) if table is None else _attribute_table(table)
    if categories:
        names = dict(enumerate(distinct_names(categories)))
    elif not names:
        names, others = _arcgis_table(src.name)
    colors = others | colors
    if not names:
        return ClassTable({}, colors, background=0), False
    return ClassTable(distinct(names), colors), True


def _described(src: DatasetReader, band: int) -> ElementTree.Element:
    """Describe a band as GDAL's VRT does, which is the one way to its attribute table that rasterio offers."""
    with environment(src.name), MemoryFile(ext=".vrt") as described:
        try:
            rasterio.shutil.copy(src, described.name, driver="VRT")
            root = ElementTree.fromstring(described.read())
        except _ERRORS:  # a raster that cannot be described has no names that matter
            return ElementTree.Element("VRTRasterBand")
    found = root.find(f"./VRTRasterBand[@band='{band}']")
    return ElementTree.Element("VRTRasterBand") if found is None else found


def _color_table(src: DatasetReader, band: int) -> dict[int, Color]:
    """Read the color table of a band; empty when there is none."""
    try:
        return {value: (red, green, blue) for value, (red, green, blue, _) in src.colormap(band).items()}
    except ValueError:  # raised by rasterio where there is no color table
        return {}


def _attribute_table(table: ElementTree.Element) -> tuple[dict[int, str], dict[int, Color]]:
    """Take names and colors out of GDAL's attribute table."""
    fields = [
        (node.findtext("Name", "").strip().lower(), node.findtext("Usage", "0"), node.findtext("Type", "2"))
        for node in table.iterfind("FieldDefn")
    ]
    rows = [[cell.text or "" for cell in row.iterfind("F")] for row in table.iterfind("Row")]
    usages = [usage for _, usage, _ in fields]
    # By its usage, else by its name; where neither says what the codes are, rows are numbered from 0.
    value = _column(fields, _VALUE, _VALUE_NAMES)
    if value is None and _MIN in usages and _MAX in usages:
        low, high = usages.index(_MIN), usages.index(_MAX)
        rows = [row for row in rows if len(row) > max(low, high) and _code(row[low]) == _code(row[high])]
        value = low
    name = _column(
        [(called, usage, kind) if kind == "2" else ("", "", "") for called, usage, kind in fields], _NAME, _NAME_NAMES
    )
    channels = [_column(fields, usage, (called,)) for usage, called in zip(_CHANNELS, _CHANNEL_NAMES, strict=True)]
    return _rows(rows, value, name, channels)


def _column(fields: list[tuple[str, str, str]], usage: str, names: tuple[str, ...]) -> int | None:
    """Find a column by its usage, else by its name."""
    by_usage = [number for number, (_, found, _) in enumerate(fields) if found == usage]
    by_name = [number for name in names for number, (found, _, _) in enumerate(fields) if found == name]
    return next(iter([*by_usage, *by_name]), None)


def _rows(
    rows: list[list[str]], value: int | None, name: int | None, channels: list[int | None]
) -> tuple[dict[int, str], dict[int, Color]]:
    """Collect names and colors of the rows whose codes are whole numbers."""
    names, colors = dict[int, str](), dict[int, Color]()
    for number, row in enumerate(rows):
        cells: list[str | None] = [None if at is None or at >= len(row) else row[at] for at in (value, name, *channels)]
        code = number if cells[0] is None else _code(cells[0])
        if code is None:
            continue
        if cells[1] is not None and cells[1].strip():
            names[code] = cells[1]
        color = color_of_cells(cells[2:])
        if color is not None:
            colors[code] = color
    return names, colors


def _code(text: str) -> int | None:
    """Read a code; ``None`` where it is no whole number."""
    try:
        number = float(text)
        return int(text) if text.strip().lstrip("+-").isdecimal() else int(number) if number.is_integer() else None
    except (ValueError, OverflowError):
        return None


def color_of_cells(cells: Iterable[Any]) -> Color | None:
    """Make a color of three numbers, from 0 to 255 or fractions with a point; ``None`` where they are none."""
    texts = ["" if cell is None else str(cell).strip() for cell in cells]
    try:
        channels = [float(text) for text in texts]
    except ValueError:
        return None
    if any("." in text for text in texts) and max(channels) <= 1:
        channels = [255 * channel for channel in channels]
    if len(channels) != 3 or not all(0 <= channel <= 255 for channel in channels):
        return None
    return round(channels[0]), round(channels[1]), round(channels[2])


def _arcgis_table(name: str) -> tuple[dict[int, str], dict[int, Color]]:
    """Read the table that ArcGIS keeps beside a raster, which GDAL 3.10 does not; empty when there is none."""
    path = sidecar_path(name).with_name(f"{sidecar_path(name).name.removesuffix('.aux.xml')}.vat.dbf")
    if is_remote(name) or not path.is_file():
        return {}, {}
    import pyogrio  # half a second that other rasters need not wait for
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        meta, _, _, columns = pyogrio.raw.read(path.absolute(), read_geometry=False)
    except (DataSourceError, DataLayerError):
        return {}, {}
    fields = [
        (field.lower(), "", "2" if column.dtype == object else "0")
        for field, column in zip(meta["fields"], columns, strict=True)
    ]
    rows = [["" if cell is None else str(cell) for cell in row] for row in zip(*columns, strict=True)]
    value = _column(fields, "", _VALUE_NAMES)
    name_at = _column([field if field[2] == "2" else ("", "-", "") for field in fields], _NAME, _NAME_NAMES)
    channels = [_column(fields, usage, (called,)) for usage, called in zip(_CHANNELS, _CHANNEL_NAMES, strict=True)]
    return _rows(rows, value, name_at, channels) if value is not None else ({}, {})


def table_of(path: str) -> ClassTable | None:
    """Read the class table of a raster by its name; ``None`` where it names no classes.

    Raises:
        SceneError: the file is not a raster.
        LegendError: our tag is not a legend.
    """
    with open_raster(path) as src, environment(path):
        if not src.count:
            raise SceneError(f"{src.name} has no bands; give a label raster")
        table, is_named = read_class_table(src)
    return table if is_named else None
