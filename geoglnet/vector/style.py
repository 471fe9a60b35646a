"""Writes a legend as a map style: QML for QGIS, SLD 1.1 for everything else. Translucent fills let the scene show."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from geoglnet.escaping import qgis_label, storable
from geoglnet.legend import Color
from geoglnet.raster.class_table import generated_color
from geoglnet.vector.form import add_form

FILL_OPACITY = 0.6
OUTLINE_WIDTH_MM = 0.26
_OUTLINE_TONE = 0.55
_PIXELS_PER_MM = 1 / 0.28  # the standardized pixel of SLD

_SLD = "http://www.opengis.net/sld"
_SE = "http://www.opengis.net/se"
_OGC = "http://www.opengis.net/ogc"


def qml(
    classes: Sequence[tuple[str, Color]],
    attribute: str = "class_name",
    *,
    columns: Collection[str] = (),
    names: Mapping[int, str] | None = None,
) -> str:
    """Write the style of a polygon layer for QGIS 3: one category per class, or one symbol where there are none; and its form.

    Args:
        classes: names and colors, see :meth:`~geoglnet.raster.class_table.ClassTable.entries`.
        attribute: field with the class names.
        columns: fields of the layer, for its form; no form without.
        names: of the classes that polygons can have, by code, for the form.

    Returns:
        A QML document.
    """
    categories_of_style = "Symbology|Fields|Forms" if columns else "Symbology"
    root = Element("qgis", version="3.22.0", styleCategories=categories_of_style)
    if columns:
        add_form(root, columns, names or {})
    if not classes:
        renderer = SubElement(root, "renderer-v2", type="singleSymbol", symbollevels="0", enableorderby="0", forceraster="0")
        SubElement(renderer, "symbols").append(_qml_symbol("0", generated_color(1)))
        return _qml_text(root)
    renderer = SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=attribute, symbollevels="0", enableorderby="0", forceraster="0"
    )
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    # QGIS links a category to its symbol by the position of the symbol, as a string.
    for position, (class_name, color) in enumerate(classes):
        name, symbol = storable(class_name), str(position)
        SubElement(categories, "category", symbol=symbol, value=name, label=qgis_label(name), render="true", type="string")
        symbols.append(_qml_symbol(symbol, color))
    return _qml_text(root)


def _qml_text(root: Element) -> str:
    """Finish a QML document of a polygon layer."""
    SubElement(root, "layerGeometryType").text = "2"  # polygons
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + _text(root)


def sld(classes: Sequence[tuple[str, Color]], layer: str, attribute: str = "class_name") -> str:
    """Write the style of a polygon layer as OGC Styled Layer Descriptor 1.1: a rule per class, or one where there are none.

    Args:
        classes: names and colors, see :meth:`~geoglnet.raster.class_table.ClassTable.entries`.
        layer: name of the layer.
        attribute: field with the class names.

    Returns:
        An SLD document.
    """
    for prefix, address in {"sld": _SLD, "se": _SE, "ogc": _OGC}.items():
        ElementTree.register_namespace(prefix, address)
    root = Element(f"{{{_SLD}}}StyledLayerDescriptor", version="1.1.0")
    named = SubElement(root, f"{{{_SLD}}}NamedLayer")
    SubElement(named, f"{{{_SE}}}Name").text = storable(layer)
    user_style = SubElement(named, f"{{{_SLD}}}UserStyle")
    rules = SubElement(user_style, f"{{{_SE}}}FeatureTypeStyle")
    for name, color in classes:
        rules.append(_sld_rule(storable(name), color, attribute))
    if not classes:
        rules.append(_sld_rule("", generated_color(1), ""))
    return _text(root)


def outline_color(color: Color) -> Color:
    """Darken a fill color for its outline; the hue stays."""
    red, green, blue = (round(channel * _OUTLINE_TONE) for channel in color)
    return red, green, blue


def _qml_symbol(name: str, color: Color) -> Element:
    """Make the fill symbol of one category."""
    symbol = Element("symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0")
    layer = SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    properties: Mapping[str, str] = {
        "color": _rgba(color, FILL_OPACITY),
        "style": "solid",
        "joinstyle": "miter",
        "outline_color": _rgba(outline_color(color), 1.0),
        "outline_style": "solid",
        "outline_width": str(OUTLINE_WIDTH_MM),
        "outline_width_unit": "MM",
    }
    options = SubElement(layer, "Option", type="Map")
    for key, value in properties.items():
        SubElement(options, "Option", type="QString", name=key, value=value)
    return symbol


def _sld_rule(name: str, color: Color, attribute: str) -> Element:
    """Make the rule of one class: a filter on its name (none without an attribute), and a fill with an outline."""
    rule = Element(f"{{{_SE}}}Rule")
    if attribute:
        SubElement(rule, f"{{{_SE}}}Name").text = name
        is_equal = SubElement(SubElement(rule, f"{{{_OGC}}}Filter"), f"{{{_OGC}}}PropertyIsEqualTo")
        SubElement(is_equal, f"{{{_OGC}}}PropertyName").text = attribute
        SubElement(is_equal, f"{{{_OGC}}}Literal").text = name
    symbol = SubElement(rule, f"{{{_SE}}}PolygonSymbolizer")
    width = f"{OUTLINE_WIDTH_MM * _PIXELS_PER_MM:.2f}"  # SLD has no millimeters
    _sld_parameters(symbol, "Fill", {"fill": _hex(color), "fill-opacity": str(FILL_OPACITY)})
    _sld_parameters(symbol, "Stroke", {"stroke": _hex(outline_color(color)), "stroke-width": width})
    return rule


def _sld_parameters(symbol: Element, kind: str, parameters: Mapping[str, str]) -> None:
    """Add a fill or a stroke to a symbolizer."""
    part = SubElement(symbol, f"{{{_SE}}}{kind}")
    for key, value in parameters.items():
        SubElement(part, f"{{{_SE}}}SvgParameter", name=key).text = value


def _rgba(color: Color, opacity: float) -> str:
    return ",".join(str(channel) for channel in (*color, round(255 * opacity)))


def _hex(color: Color) -> str:
    return "#" + bytes(color).hex()


def _text(root: Element) -> str:
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode")
