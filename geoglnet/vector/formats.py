"""Formats of vector files, by their suffixes; loads neither GDAL nor Arrow, so that wrong names are refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from geoglnet.errors import ConfigError
from geoglnet.filenames import check_filename
from geoglnet.output import OutputFile
from geoglnet.types import StrPath
from geoglnet.vector.settings import VectorConfig


def vector_files(path: StrPath, config: VectorConfig, *, overwrite: bool) -> dict[str, OutputFile]:
    """Check the files that polygons are written to: ``"vector"``, and ``"style"`` when ``config.style`` puts one beside it.

    Raises:
        ConfigError: the suffix is not one of :data:`FORMATS`.
        OutputExistsError: a file exists, and is not to be overwritten.
        OutputError: a file cannot be written, or the path ends in no name (``.``, ``..``).
    """
    check_filename(Path(path))
    suffix = Path(path).suffix
    if suffix.lower() not in FORMATS:
        raise ConfigError(
            f"{Path(path).name}: polygons cannot be written as {suffix or 'a file without suffix'!r}; use {', '.join(FORMATS)}"
        )
    if config.style is None:
        return {"vector": OutputFile(path, overwrite)}
    style = OutputFile(Path(path).with_suffix(f".{config.style}"), overwrite)
    return {"vector": OutputFile(path, overwrite, companions=[style.target]), "style": style}


def is_geopackage(path: StrPath) -> bool:
    """Return whether a file needs no conversion."""
    return Path(path).suffix.lower() == ".gpkg"


@dataclass(frozen=True, slots=True)
class Format:
    """One vector format.

    Args:
        driver: GDAL's name; empty when it is written without GDAL.
        options: layer creation options.
        is_lon_lat: coordinates are longitude and latitude of WGS 84, whatever the raster's CRS.
    """

    driver: str
    options: Mapping[str, str] = field(default_factory=dict)
    is_lon_lat: bool = False


FORMATS: dict[str, Format] = {
    ".gpkg": Format("GPKG"),
    ".fgb": Format("FlatGeobuf"),
    ".geojson": Format("GeoJSON", {"RFC7946": "YES", "WRITE_NAME": "NO"}, is_lon_lat=True),
    ".geojsonl": Format("GeoJSONSeq", {"RS": "NO"}, is_lon_lat=True),
    ".geojsons": Format("GeoJSONSeq", {"RS": "YES"}, is_lon_lat=True),
    ".parquet": Format(""),
}
"""What is written, by suffix. Another format of GDAL's is one line; what GDAL does not write is a branch of
:func:`~geoglnet.vector.exchange.convert`."""
