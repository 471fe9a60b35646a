"""Settings of polygons: :class:`VectorConfig`, and lengths and areas with a unit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from geoglnet.config import suggestion
from geoglnet.errors import ConfigError

_WRITTEN = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*(px|m2|m²|m)\s*", re.IGNORECASE)
STYLES = ("qml", "sld")
LARGEST_OPENING = 64


@dataclass(frozen=True, slots=True)
class Quantity:
    """A length or an area, in pixels of the raster or on the ground.

    Args:
        value: not negative.
        unit: ``"px"`` (pixel sides of a length, pixels of an area), ``"m"`` or ``"m2"``.

    Raises:
        ConfigError: a negative or infinite value.
    """

    value: float
    unit: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0):
            raise ConfigError(f"{self.value:g}{self.unit} must be zero or more")

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    @classmethod
    def parse(cls, written: Quantity | str, units: tuple[str, ...]) -> Self:
        """Parse a text such as ``2px``.

        Args:
            written: the text, or a quantity, which is only checked.
            units: accepted units.

        Raises:
            ConfigError: it is no number with one of these units.
        """
        found = _WRITTEN.fullmatch(str(written))
        unit = found[2].lower().replace("²", "2") if found else ""
        if found is None or unit not in units:
            examples = " or ".join(f"2{unit}" for unit in units)
            raise ConfigError(f"{str(written)!r} must be a number with a unit: write {examples}")
        return cls(float(found[1]), unit)

    def in_pixels(self, pixel_size_m: float | None, reason: str = "no CRS") -> float:
        """Convert the quantity to pixels: a length to pixel sides, an area to numbers of pixels.

        Args:
            pixel_size_m: side of a pixel on the ground; ``None`` where it is unknown.
            reason: why it is unknown: what the raster has, for the message.

        Raises:
            ConfigError: it is in meters, and the pixel size is unknown.
        """
        if self.unit == "px":
            return self.value
        if pixel_size_m is None:
            raise ConfigError(f"{self} cannot be converted to pixels: the raster has {reason}; give it in pixels (px)")
        return self.value / (pixel_size_m if self.unit == "m" else pixel_size_m**2)


@dataclass(frozen=True, slots=True)
class VectorConfig:
    """Settings of polygons: the labels are cleaned first, then traced, then the polygons are finished.

    >>> VectorConfig(sieve="20m2", simplify="1.5px", regularize=True).cleans
    True

    Args:
        tile_size: side in pixels of the tiles that are traced one by one; memory grows with its square.
        connectivity: 4, or 8 to join areas that touch at a corner only (they become multipolygons).
        opening: radius in pixels of the square with which every class but the background is opened: parts thinner than
            ``2 · opening + 1`` pixels become background, or their neighbors where there is none.
        sieve: areas smaller than this (``"50px"``, ``"20m2"``) go to the neighbor with which they share the longest border.
        fill_holes: background that a single class encloses becomes that class, up to 256 px across.
        simplify: outlines are simplified within this distance (``"1.5px"``, ``"2m"``), neighbors keeping shared borders.
        smooth: corners are rounded, neighbors keeping shared borders.
        regularize: polygons get straight walls and right angles where that fits them well. Neighbors may then overlap:
            for buildings, not for land cover.
        min_area_m2: polygons smaller than this are dropped (needs a CRS).
        min_hole_m2: holes smaller than this are closed (needs a CRS).
        min_confidence: polygons whose mean confidence, 0 to 1, is below this are dropped (needs a confidence raster).
        classes: names, or codes as text, of the classes that become polygons; all when empty. Their outlines are the same.
        max_vertices: most vertices that incomplete polygons may have together; where they have more, the largest is cut along
            tile lines, and its parts share a number in ``part_of``. Bounds memory.
        workers: number of processes that trace.
        statistics_path: raster of which every polygon gets the mean, standard deviation, minimum and maximum of each band
            inside (needs the extra ``statistics``).
        scene: name of the scene, for the attribute; the label raster's tag ``GEOGLNET_SCENE`` when left out.
        model: name and hash of the model, for the attribute; the tag ``GEOGLNET_MODEL`` when left out.
        style: ``"qml"`` or ``"sld"`` writes the legend's style beside the vector file.

    Raises:
        ConfigError: a value is out of range or unknown.
    """

    tile_size: int = 1024
    connectivity: int = 4
    opening: int = 0
    sieve: Quantity | str | None = None
    fill_holes: bool = False
    simplify: Quantity | str | None = None
    smooth: bool = False
    regularize: bool = False
    min_area_m2: float = 0.0
    min_hole_m2: float = 0.0
    min_confidence: float = 0.0
    classes: tuple[str, ...] = ()
    max_vertices: int = 2_000_000
    workers: int = 1
    statistics_path: Path | None = None
    scene: str | None = None
    model: str | None = None
    style: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.tile_size <= 16384:
            raise ConfigError(f"tile_size = {self.tile_size} px must be from 1 to 16384")
        if self.connectivity not in (4, 8):
            raise ConfigError(f"connectivity = {self.connectivity} must be 4 or 8")
        if not 0 <= self.opening <= LARGEST_OPENING:
            raise ConfigError(f"opening = {self.opening} px must be from 0 to {LARGEST_OPENING}")
        if self.max_vertices < 4:  # a rectangle
            raise ConfigError(f"max_vertices = {self.max_vertices} must be at least 4")
        if self.workers < 1:
            raise ConfigError(f"workers = {self.workers} must be at least 1")
        if self.style is not None and self.style not in STYLES:
            raise ConfigError(f"unknown style {self.style!r}{suggestion(self.style, STYLES)}")
        self._check_quantities()

    def _check_quantities(self) -> None:
        """Check areas, and parse texts with units."""
        for name in ("min_area_m2", "min_hole_m2"):
            if not getattr(self, name) >= 0:  # not `< 0`: NaN is refused too
                raise ConfigError(f"{name} = {getattr(self, name)} must not be negative")
        if not 0 <= self.min_confidence <= 1:
            raise ConfigError(f"min_confidence = {self.min_confidence} must be from 0 to 1")
        classes: object = self.classes
        if isinstance(classes, str):
            raise ConfigError(f"classes = {classes!r} must be a list of names")
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))  # frozen, as below
        for name, units in (("simplify", ("px", "m")), ("sieve", ("px", "m2"))):
            written = getattr(self, name)
            if written is not None:  # frozen: only so can a field be replaced by what was parsed
                object.__setattr__(self, name, Quantity.parse(written, units))

    @property
    def cleans(self) -> bool:
        """Whether labels are changed before they are traced."""
        return bool(self.opening or self.sieve or self.fill_holes)
