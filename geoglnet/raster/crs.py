"""What a coordinate reference system says about the ground: how its units become meters, and whether two are one place."""

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
    """How the coordinates of a CRS become meters.

    Args:
        degrees: CRS of longitude and latitude on the ellipsoid below; ``None`` where the CRS has no place on any body.
        ellipsoid: of the body, :data:`WGS84` on the Earth; ``None`` where there is none.
        unit_m: meters of a step in a plane that lies nowhere (engineering and local CRSs); ``None`` elsewhere, and where
            the unit is unknown.
        rule: how things are measured, in words, where that is not as usual; else empty.
        reason: why nothing can be measured in meters, in words; empty where it can.
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
        """Whether coordinates can be brought to longitude and latitude of WGS 84."""
        return self.ellipsoid is WGS84


def ground_of(crs: Any) -> Ground:
    """How the coordinates of a CRS become meters.

    Args:
        crs: what pyproj takes for a CRS, rasterio's included; ``None`` when there is none.
    """
    if crs is None:
        return Ground(reason="no CRS", is_placeless=True)
    try:
        return _ground(crs if isinstance(crs, str) else crs.to_wkt())
    except CRSError:
        return Ground(reason="a CRS that PROJ does not know")


def parsed(crs: Any) -> CRS:
    """A CRS as pyproj's, for coordinates in the order that files have: east or longitude first.

    Raises:
        CRSError: PROJ does not know it.
    """
    return _parsed(crs if isinstance(crs, str) else crs.to_wkt())


def horizontal(crs: Any) -> CRS:
    """A CRS without its heights: the first part of a compound one, two axes of three.

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
    """Whether coordinates of two CRSs mean the same places, heights and the flavor of their definitions apart.

    A local CRS has nothing but its name and its unit to be known by.

    Raises:
        CRSError: PROJ does not know one of them.
    """
    ours, theirs = horizontal(first), horizontal(second)
    if ours.is_engineering and theirs.is_engineering:
        return _name(ours) == _name(theirs) and _unit_m(ours) == _unit_m(theirs)
    return bool(ours == theirs or ours.equals(theirs, ignore_axis_order=True))


def crs_label(crs: Any) -> str:
    """A CRS in a few words for messages: its code, else its name; ``no CRS`` for ``None``."""
    if crs is None:
        return "no CRS"
    try:
        found = parsed(crs)
    except CRSError:
        return "a CRS that PROJ does not know"
    authority = found.to_authority(min_confidence=100)
    return ":".join(authority) if authority else f"{found.name!r}"


def _name(crs: CRS) -> str:
    return "".join(crs.name.casefold().replace("_", " ").split())


@lru_cache(maxsize=32)
def _parsed(definition: str) -> CRS:
    found = CRS.from_user_input(definition)
    if found.type_name == "Geodetic CRS" and len(found.axis_info) == 2:
        # Planetocentric latitudes: PROJ leaves them in front of longitudes; GDAL takes them for geodetic ones, and so do we.
        return CRS.from_wkt(found.to_wkt("WKT1_GDAL"))
    return found


@lru_cache(maxsize=32)
def _ground(definition: str) -> Ground:
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
    try:
        Transformer.from_crs(crs, degrees, always_xy=True)
    except ProjError:
        return False
    return True


def _unit_m(crs: CRS) -> float | None:
    """Meters of a unit along the axes; ``None`` where it is unknown or no length. Only PROJ's JSON tells kinds of units."""
    if _UNKNOWN_UNIT in crs.name.casefold():  # GDAL's word for layers of no CRS; files such as GeoTIFF make it meters
        return None
    axes = crs.to_json_dict().get("coordinate_system", {}).get("axis", [])
    units = [axis.get("unit", "") for axis in axes[:2]]
    if len(units) < 2 or units[0] != units[1]:
        return None
    if isinstance(units[0], str):
        return 1.0 if units[0] == "metre" else None
    is_length = units[0].get("type") == "LinearUnit" and units[0].get("name", "").casefold() not in _NO_UNIT
    return float(units[0]["conversion_factor"]) if is_length else None
