"""Maps for a browser, with folium (the extra ``notebook``): the scene's picture, polygons per class, a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import folium
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from geoglnet.api.figures import PALETTE
from geoglnet.escaping import html
from geoglnet.raster.crs import ground_of

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from geoglnet.raster.picture import Picture

WGS84 = CRS.from_epsg(4326)
ATTRIBUTES = ("class_name", "area_m2", "perimeter_m", "confidence")
_DECIMALS = 1e-7  # of a degree, about a centimeter: longer numbers only make the page larger

_LEGEND = """
<div style="position: fixed; bottom: 24px; left: 24px; z-index: 9999; background: white; color: black; padding: 6px 10px;
border-radius: 4px; max-width: 40%; max-height: 80%; overflow: auto;
overflow-wrap: anywhere; box-shadow: 0 0 6px rgba(0, 0, 0, 0.4); font: 13px sans-serif;">{rows}</div>
"""
_ROW = '<div><span style="display: inline-block; width: 12px; height: 12px; background: {color};"></span> {name}</div>'


class WebMap:
    """A folium map in the making; in a plane of its own where what is added has no place on the Earth."""

    def __init__(self) -> None:
        self.layers: list[folium.Element] = []
        self.boxes: list[tuple[float, float, float, float]] = []
        self.colors: dict[str, str] = {}
        self.is_earth = True

    def add_picture(self, name: str, picture: Picture, *, opacity: float = 1.0, shown: bool = True) -> None:
        """Add a layer with a picture, which becomes part of the page."""
        box = self._box(picture.bounds, picture.crs)
        # Leaflet stretches an image between two corners in its own plane, so the pixels must lie in that projection.
        image = picture.in_web_mercator().image
        layer = folium.raster_layers.ImageOverlay(image, _corners(box), opacity=opacity, name=name, show=shown)
        self.layers.append(layer)

    def add_polygons(self, polygons: GeoDataFrame, colors: Mapping[str, str]) -> None:
        """Add a layer per class, with a tooltip of attributes."""
        if not len(polygons):
            return
        # Before the frame is made: this also settles whether it is a map of the Earth.
        self._box(tuple(polygons.total_bounds), polygons.crs)
        columns = [name for name in ATTRIBUTES if name in polygons.columns]
        frame = polygons[[*columns, polygons.geometry.name]]
        if self.is_earth:
            frame = frame.to_crs(4326)
            # Pointwise: the default mode may drop or split polygons that rounding lets touch themselves.
            frame = frame.set_geometry(frame.geometry.set_precision(_DECIMALS, mode="pointwise"))
        else:
            frame = frame.set_crs(None, allow_override=True)  # folium would bring it to the Earth
        for number, (name, part) in enumerate(frame.groupby("class_name")):
            color = colors.get(str(name), PALETTE[number % len(PALETTE)])
            self.colors[str(name)] = color
            self.layers.append(_class_layer(str(name), _literal(part.round(3), columns), columns, color))

    def finished(self, colors: Mapping[str, str]) -> folium.Map:
        """Return the map, zoomed to what was added."""
        world = folium.Map(tiles="OpenStreetMap" if self.is_earth else None, crs="EPSG3857" if self.is_earth else "Simple")
        # A pixel of the screen is then 4 cm at the equator: scenes are finer than OpenStreetMap's last level (19, 30 cm).
        world.options["maxZoom"] = 22
        for layer in self.layers:
            layer.add_to(world)
        world.get_root().html.add_child(  # type: ignore[attr-defined]  # a Figure's
            # folium renders this as a Jinja template; html() has escaped the braces of names.
            folium.Element(_legend(dict(colors) | self.colors))
        )
        folium.LayerControl(collapsed=False).add_to(world)
        if self.boxes:
            lefts, bottoms, rights, tops = zip(*self.boxes, strict=True)
            world.fit_bounds(_corners((min(lefts), min(bottoms), max(rights), max(tops))))
        return world

    def _box(self, bounds: tuple[float, ...], crs: object) -> tuple[float, float, float, float]:
        left, bottom, right, top = bounds
        self.is_earth = ground_of(crs).is_earth
        box = transform_bounds(crs, WGS84, left, bottom, right, top) if self.is_earth else (left, bottom, right, top)
        self.boxes.append(box)
        return box


def _class_layer(name: str, polygons: GeoDataFrame, columns: list[str], color: str) -> folium.GeoJson:
    return folium.GeoJson(
        polygons.to_json(drop_id=True),
        name=html(name),  # Leaflet's list of layers takes HTML
        style_function=lambda _: {"color": color, "weight": 1.5, "fillColor": color, "fillOpacity": 0.35},
        highlight_function=lambda _: {"weight": 3, "fillOpacity": 0.6},
        tooltip=folium.GeoJsonTooltip(columns),
    )


def _literal(polygons: GeoDataFrame, columns: Sequence[str]) -> GeoDataFrame:
    """Escape text attributes for a tooltip, which takes HTML."""
    return polygons.assign(
        **{name: [html(value) if isinstance(value, str) else value for value in polygons[name]] for name in columns}
    )


def _legend(colors: Mapping[str, str]) -> str:
    rows = "".join(_ROW.format(color=color, name=html(name)) for name, color in colors.items())
    return _LEGEND.format(rows=rows)


def _corners(box: tuple[float, float, float, float]) -> list[list[float]]:
    left, bottom, right, top = box
    return [[bottom, left], [top, right]]  # Leaflet takes latitude first
