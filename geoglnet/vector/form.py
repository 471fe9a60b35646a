"""The form of a polygon layer in QGIS: classes to choose from, fields that fill themselves, rounded numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from xml.etree.ElementTree import Element, SubElement

from geoglnet.escaping import storable

_ALIASES = {
    "class_name": "Class",
    "class_id": "Class number",
    "area_m2": "Area (m²)",
    "perimeter_m": "Perimeter (m)",
    "confidence": "Confidence (0 to 1)",
    "object_id": "Object",
    "part_of": "Part of",
    "scene": "Scene",
    "model": "Model",
}
_HIDDEN = ("fid", "class_id", "part_of", "scene", "model")
_DECIMALS = {"area_m2": 1, "perimeter_m": 1, "confidence": 2}
_MEASURED = {"area_m2": "round($area, 1)", "perimeter_m": "round($perimeter, 1)"}
_FEW_CODES = 256  # with more, a number is not derived from a name: the expression would take long for every row


def add_form(root: Element, columns: Collection[str], names: Mapping[int, str]) -> None:
    """Add a form to a QML document, for the fields that the layer has.

    Who draws a polygon chooses its class from a list; number of the class, area and perimeter follow from that, and from its
    outline whenever it is changed. The confidence of what a person draws is 1.

    Args:
        root: element ``qgis`` of the document.
        columns: fields of the layer.
        names: of the classes that polygons can have, by code.
    """
    configuration, aliases, defaults, editable = (
        SubElement(root, tag) for tag in ("fieldConfiguration", "aliases", "defaults", "editable")
    )
    stored = {code: storable(name) for code, name in names.items()}
    shown = [column for column in ("fid", *_ALIASES) if column == "fid" or column in columns]
    for column in shown:
        field = SubElement(configuration, "field", name=column, configurationFlags="None")
        if column == "class_name" and stored:
            _add_values(field, list(stored.values()))
        elif column in _DECIMALS:
            _add_number(field, _DECIMALS[column])
        elif column in _HIDDEN:
            SubElement(field, "editWidget", type="Hidden")
        if column in _ALIASES:
            SubElement(aliases, "alias", field=column, name=_ALIASES[column])
        expression = _default(column, stored)
        if expression:
            follows = column in _MEASURED or column == "class_id"
            SubElement(defaults, "default", field=column, expression=expression, applyOnUpdate=str(int(follows)))
        is_drawn = column == "class_name"
        SubElement(editable, "field", name=column, editable=str(int(is_drawn)))


def _default(column: str, names: Mapping[int, str]) -> str:
    """Return the expression of QGIS that fills a field; empty where none can."""
    if column == "class_name" and names:
        return _quoted(next(iter(names.values())))
    if column == "class_id" and 0 < len(names) <= _FEW_CODES:
        cases = " ".join(f'WHEN "class_name" = {_quoted(name)} THEN {code}' for code, name in names.items())
        # Fields are filled in their order: the name comes after the number, and is the first one then.
        return f'CASE {cases} ELSE coalesce("class_id", {next(iter(names))}) END'
    return "1" if column == "confidence" else _MEASURED.get(column, "")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _add_values(field: Element, values: list[str]) -> None:
    """Add a list of texts to choose from."""
    options = _options(field, "ValueMap")
    listed = SubElement(options, "Option", type="List", name="map")
    for value in values:
        SubElement(SubElement(listed, "Option", type="Map"), "Option", type="QString", name=value, value=value)


def _add_number(field: Element, decimals: int) -> None:
    """Add a number that is shown rounded."""
    options = _options(field, "Range")
    for name, kind, value in (
        ("AllowNull", "bool", "true"),
        ("Min", "double", "0"),
        ("Max", "double", "1e+15"),
        ("Precision", "int", str(decimals)),
        ("Step", "double", "1"),
        ("Style", "QString", "SpinBox"),
    ):
        SubElement(options, "Option", type=kind, name=name, value=value)


def _options(field: Element, widget: str) -> Element:
    config = SubElement(SubElement(field, "editWidget", type=widget), "config")
    return SubElement(config, "Option", type="Map")
