"""Maps for a browser: the scene's picture, polygons with their attributes, a legend, in one page that needs no network.

The page holds Leaflet itself (BSD 2-Clause, ``page/LICENSE-leaflet``). Only the streets beneath come from OpenStreetMap, where
there is a network.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.env import Env
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.warp import transform_bounds

from geoglnet.api.figures import PALETTE
from geoglnet.escaping import storable
from geoglnet.raster.crs import ground_of
from geoglnet.raster.files import silenced

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from geoglnet.raster.picture import Picture
    from geoglnet.types import StrPath
    from geoglnet.vector.rings import Geometries

WGS84 = CRS.from_epsg(4326)
ATTRIBUTES = ("class_name", "area_m2", "perimeter_m", "confidence")
_DECIMALS = {"area_m2": 1, "perimeter_m": 1, "confidence": 2}
_FINEST = 1e-7  # of a degree, about a centimeter
_MOST_POINTS = 200_000  # 2 MB; beyond, outlines are simplified
_COLORS = 300  # more than a legend has
_SCREEN = 4000  # pixels: what is smaller than the whole map over this is not seen when it opens


@dataclass(frozen=True)
class WebMap:
    """A web map: a page of HTML that shows itself in a notebook.

    >>> import geoglnet
    >>> page = geoglnet.predict("scene.tif", "map.tif").explore(size=200)
    >>> page.save("map.html")

    Args:
        html: the page; it needs no other file and no network.
    """

    html: str

    def save(self, path: StrPath) -> None:
        """Write the page into a file, replacing one that is there."""
        Path(path).write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        source = self.html.replace("&", "&amp;").replace('"', "&quot;")
        return f'<iframe srcdoc="{source}" style="width: 100%; height: 600px; border: none" allowfullscreen></iframe>'


class MapBuilder:
    """Collects what a map shows; in a plane of its own where what is added has no place on the Earth."""

    def __init__(self) -> None:
        self.pictures: list[dict[str, Any]] = []
        self.boxes: list[tuple[float, float, float, float]] = []
        self.colors: dict[str, str] = {}
        self.polygons: dict[str, Any] = {"origin": [0, 0], "step": 1, "polygons": [], "class_of": [], "attributes": {}}
        self.note = ""
        self.is_earth = True

    def add_picture(self, name: str, picture: Picture, *, opacity: float = 1.0, shown: bool = True) -> None:
        """Add a layer with a picture, which becomes part of the page."""
        box = self._box(picture.bounds, picture.crs)
        # Leaflet stretches an image between two corners in its own plane, so the pixels must lie in that projection.
        layer = {"name": name, "image": _image(picture.in_web_mercator().image), "corners": _corners(box)}
        self.pictures.append(layer | {"opacity": opacity, "shown": shown})

    def add_polygons(self, polygons: GeoDataFrame, colors: Mapping[str, str]) -> None:
        """Add a layer per class; attributes are shown under the pointer."""
        if not len(polygons):
            return
        # Before coordinates are made: this also settles whether it is a map of the Earth.
        box = self._box(tuple(polygons.total_bounds), polygons.crs)
        geometries = (polygons.to_crs(4326) if self.is_earth else polygons).geometry.to_numpy()
        geometries, tolerance = _simplified(geometries, max(box[2] - box[0], box[3] - box[1]) / _SCREEN)
        if tolerance:
            self.note = "Outlines are simplified for this page."
        names = [str(name) for name in polygons["class_name"]]
        for name in names:
            self.colors.setdefault(name, colors.get(name, PALETTE[len(self.colors) % len(PALETTE)]))
        numbers = {name: number for number, name in enumerate(self.colors)}
        columns = {name: polygons[name] for name in ATTRIBUTES if name in polygons.columns}
        step = _FINEST if self.is_earth else 1e-3
        self.polygons = {
            "origin": [box[0], box[1]],
            "step": step,
            "polygons": _steps(geometries, np.array(box[:2]), step),
            "class_of": [numbers[name] for name in names],
            "attributes": {name: _shown(name, values.tolist()) for name, values in columns.items()},
        }

    def finished(self, colors: Mapping[str, str]) -> WebMap:
        """Make the page, zoomed to what was added; its legend has the classes of ``colors`` and those of polygons."""
        # The classes of polygons first: their numbers are those of the polygons.
        classes = [{"name": storable(name), "color": color} for name, color in (self.colors | dict(colors)).items()]
        content = {"is_earth": self.is_earth, "pictures": self.pictures, "classes": classes, "note": self.note}
        if self.boxes:
            lefts, bottoms, rights, tops = zip(*self.boxes, strict=True)
            content["corners"] = _corners((min(lefts), min(bottoms), max(rights), max(tops)))
        # Inside a script element, only "</" and "<!--" could end the text early.
        text = json.dumps(content | self.polygons, separators=(",", ":")).replace("<", "\\u003c")
        page = _part("map.html")
        style = re.sub(r"url\(images/[^)]*\)", "none", _part("leaflet.css"))  # icons that this page does not use
        for mark, part in (("CSS", style), ("JS", _part("leaflet.js"))):
            page = page.replace(f"/*LEAFLET_{mark}*/", part)
        return WebMap(page.replace("/*CONTENT*/", text))

    def _box(self, bounds: tuple[float, ...], crs: object) -> tuple[float, float, float, float]:
        left, bottom, right, top = bounds
        self.is_earth = ground_of(crs).is_earth
        box = transform_bounds(crs, WGS84, left, bottom, right, top) if self.is_earth else (left, bottom, right, top)
        self.boxes.append(box)
        return box


def _image(pixels: npt.NDArray[np.uint8]) -> str:
    """Encode ``(h, w, 4)`` pixels for a page: photographs as WebP, a tenth as large, and the few colors of labels as PNG."""
    is_photograph = len(np.unique(pixels[::7, ::7].reshape(-1, 4), axis=0)) > _COLORS
    with Env() as env:
        driver = "WEBP" if is_photograph and "WEBP" in env.drivers() else "PNG"
    height, width = pixels.shape[:2]
    profile = {"driver": driver, "count": 4, "height": height, "width": width, "dtype": "uint8"}
    with MemoryFile() as file:
        with silenced(NotGeoreferencedWarning), file.open(**profile) as dst:
            dst.write(np.moveaxis(pixels, -1, 0))
        code = base64.b64encode(file.read()).decode()
    return f"data:image/{driver.lower()};base64,{code}"


@cache
def _part(name: str) -> str:
    return (files("geoglnet.api") / "page" / name).read_text(encoding="utf-8")


def _simplified(geometries: Geometries, screen_pixel: float) -> tuple[Geometries, float]:
    """Simplify outlines as far as a page of bounded size needs; return also by how much, 0 where they are as they were."""
    tolerance, simplified = 0.0, geometries
    while int(shapely.get_num_coordinates(simplified).sum()) > _MOST_POINTS and tolerance < 16 * screen_pixel:
        tolerance = 4 * tolerance or screen_pixel / 4
        simplified = shapely.simplify(geometries, tolerance)
    return simplified, tolerance


def _steps(geometries: Geometries, origin: np.ndarray[Any, Any], step: float) -> list[list[list[list[int]]]]:
    """Write polygons as whole steps from point to point: a list of parts each, of rings, of x, y, dx, dy, …"""
    parts, of_polygon = shapely.get_parts(geometries, return_index=True)
    rings, of_part = shapely.get_rings(parts, return_index=True)
    points, of_ring = shapely.get_coordinates(rings, return_index=True)
    places = np.rint((points - origin) / step).astype(np.int64)
    moves = np.diff(places, axis=0, prepend=places[:1])
    starts = np.flatnonzero(np.diff(of_ring, prepend=-1))
    moves[starts] = places[starts]
    found: list[list[list[list[int]]]] = [[] for _ in geometries]
    last = -1
    for ring, part in zip(np.split(moves, starts[1:]), of_part.tolist(), strict=True):
        if part != last:
            found[int(of_polygon[part])].append([])
            last = part
        found[int(of_polygon[part])][-1].append(ring[:-1].ravel().tolist())  # Leaflet closes rings itself
    return found


def _shown(name: str, values: list[Any]) -> list[Any]:
    if name in _DECIMALS:
        return [None if value is None or value != value else round(value, _DECIMALS[name]) for value in values]
    return [storable(value) if isinstance(value, str) else value for value in values]


def _corners(box: tuple[float, float, float, float]) -> list[list[float]]:
    left, bottom, right, top = box
    return [[bottom, left], [top, right]]  # Leaflet takes latitude first
