"""Coordinate reference systems: how their units become meters on the ground, and whether two describe the same place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError, ProjError

WGS84 = Geod(ellps="WGS84")
_NO_UNIT = ("", "unknown", "unnamed")
_UNKNOWN_UNIT = "unknown unit"


@dataclass(frozen=True, slots=True, eq=False)  # an ellipsoid has no hash
class Ground:
    """The way from coordinates of a CRS to meters.

    Args:
        degrees: CRS of longitude and latitude on the ellipsoid below; ``None`` where the CRS has no place on any body.
        ellipsoid: ellipsoid of the body, :data:`WGS84` on the Earth; ``None`` where there is none.
        unit_m: length in meters of one unit in a plane that lies nowhere (engineering and local CRSs); ``None`` elsewhere, and
            where the unit is unknown.
        rule: sentence for the log about how meters are measured, where that is unusual; else empty.
        reason: reason for messages why nothing can be measured in meters; empty where it can.
        is_placeless: whether the coordinates lie on no body at all.
    """

    degrees: CRS | None = None
    ellipsoid: Geod | None = None
    unit_m: float | None = None
    rule: str = ""
    reason: str = ""
    is_placeless: bool = False

    @property
    def is_measured(self) -> bool:
        """Whether meters are known."""
        return not self.reason

    @property
    def is_earth(self) -> bool:
        """Whether coordinates can be transformed to longitude and latitude of WGS 84."""
        return self.ellipsoid is WGS84


def ground_of(crs: Any) -> Ground:
    """Find the way from coordinates of a CRS to meters.

    Args:
        crs: anything that pyproj accepts as a CRS, rasterio's included; ``None`` when there is none.
    """
    if crs is None:
        return Ground(reason="no CRS", is_placeless=True)
    try:
        return _ground(crs if isinstance(crs, str) else crs.to_wkt())
    except CRSError:
        return Ground(reason="a CRS that PROJ does not know")


def parsed(crs: Any) -> CRS:
    """Convert a CRS to pyproj's class, for coordinates in the order of files: east or longitude first.

    Raises:
        CRSError: PROJ does not know it.
    """
    return _parsed(crs if isinstance(crs, str) else crs.to_wkt())


def horizontal(crs: Any) -> CRS:
    """Drop the heights of a CRS: take the first part of a compound one, two axes of three.

    Raises:
        CRSError: PROJ does not know it.
    """
    found = parsed(crs)
    while found.is_compound or found.is_bound:
        part = found.source_crs if found.is_bound else found.sub_crs_list[0]
        if part is None:
            break
        found = part
    return found.to_2d() if len(found.axis_info) > 2 and not found.is_geocentric else found


def are_one_place(first: Any, second: Any) -> bool:
    """Return whether coordinates of two CRSs mean the same places; heights and dialects of definitions do not matter.

    Local CRSs are compared by name and unit: they have nothing else.

    Raises:
        CRSError: PROJ does not know one of them.
    """
    ours, theirs = horizontal(first), horizontal(second)
    if ours.is_engineering and theirs.is_engineering:
        return _name(ours) == _name(theirs) and _unit_m(ours) == _unit_m(theirs)
    return bool(ours == theirs or ours.equals(theirs, ignore_axis_order=True))


def crs_label(crs: Any) -> str:
    """Name a CRS in messages: by its code, else by its name; ``no CRS`` for ``None``."""
    if crs is None:
        return "no CRS"
    try:
        found = parsed(crs)
    except CRSError:
        return "a CRS that PROJ does not know"
    authority = found.to_authority(min_confidence=100)
    return ":".join(authority) if authority else f"{found.name!r}"


def stored_wkt(crs: Any) -> str:
    """Write a CRS of rasterio's as text that GDAL reads back as the same one.

    WKT 2 says most. But a name such as "WGS_1984_Web_Mercator" GDAL takes for another CRS there, and not in WKT 1.
    """
    versions = ("WKT2_2019", "WKT1_GDAL") if crs.is_projected else ("WKT2_2019",)
    texts = [str(crs.to_wkt(version=version)) for version in versions]
    return next((text for text in texts if type(crs).from_wkt(text) == crs), texts[0])


def _name(crs: CRS) -> str:
    """Return the name of a CRS in a form that survives what formats do to case, spaces and underscores."""
    return "".join(crs.name.casefold().replace("_", " ").split())


@lru_cache(maxsize=32)
def _parsed(definition: str) -> CRS:
    """Parse a definition, once: PROJ takes milliseconds for it."""
    found = CRS.from_user_input(definition)
    if found.type_name == "Geodetic CRS" and len(found.axis_info) == 2:
        # Planetocentric latitudes: PROJ leaves them in front of longitudes; GDAL takes them for geodetic ones, and so do we.
        return CRS.from_wkt(found.to_wkt("WKT1_GDAL"))
    return found


@lru_cache(maxsize=32)
def _ground(definition: str) -> Ground:
    """Find the way to meters: by the Earth, else by the body of the CRS, else by the unit of its plane."""
    crs = _parsed(definition)
    if crs.is_geocentric:
        return Ground(reason=f"a CRS ({crs.name}) whose axes are no plane")
    earth = CRS.from_epsg(4326)
    if _has_way(crs, earth):
        return Ground(earth, WGS84)
    body = crs.geodetic_crs
    if body is not None and body.ellipsoid is not None and _has_way(crs, body):
        shape = body.ellipsoid
        ellipsoid = Geod(a=shape.semi_major_metre, b=shape.semi_minor_metre)
        return Ground(body, ellipsoid, rule=f"meters are those of the ellipsoid of {shape.name} ({crs.name})")
    unit_m = _unit_m(horizontal(crs))
    if unit_m is None:
        reason = f"a CRS ({crs.name}) without a place on the Earth and without a known unit of length"
        return Ground(reason=reason, is_placeless=True)
    rule = f"its CRS ({crs.name}) has no place on the Earth: meters are measured in its plane"
    return Ground(unit_m=unit_m, rule=rule, is_placeless=True)


def _has_way(crs: CRS, degrees: CRS) -> bool:
    """Return whether PROJ can transform from one CRS to the other."""
    try:
        Transformer.from_crs(crs, degrees, always_xy=True)
    except ProjError:
        return False
    return True


def _unit_m(crs: CRS) -> float | None:
    """Return the length in meters of one unit along the axes; ``None`` where it is unknown or not a length."""
    # GDAL names the CRS of layers without one "unknown unit", but formats such as GeoTIFF store meters with it.
    if _UNKNOWN_UNIT in crs.name.casefold():
        return None
    # Only PROJ's JSON distinguishes lengths from angles and scales.
    axes = crs.to_json_dict().get("coordinate_system", {}).get("axis", [])
    units = [axis.get("unit", "") for axis in axes[:2]]
    if len(units) < 2 or units[0] != units[1]:
        return None
    if isinstance(units[0], str):
        return 1.0 if units[0] == "metre" else None
    is_length = units[0].get("type") == "LinearUnit" and units[0].get("name", "").casefold() not in _NO_UNIT
    return float(units[0]["conversion_factor"]) if is_length else None
