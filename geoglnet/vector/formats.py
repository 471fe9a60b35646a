"""Vector formats: which can be written, and how a GeoPackage becomes one of the others.

Only a GeoPackage can be appended to, indexed and corrected afterwards. The others are made from it in one stream of batches,
so that memory does not grow with the number of polygons.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyogrio

from geoglnet.errors import ConfigError
from geoglnet.types import StrPath
from geoglnet.vector.geoparquet import write_geoparquet
from geoglnet.vector.writer import Layer, errors_named

_BATCH_SIZE = 20_000
_NO_FEATURES = '{"type": "FeatureCollection", "features": []}\n'


@dataclass(frozen=True, slots=True)
class Format:
    """One vector format.

    Args:
        driver: GDAL's name; empty when we write it ourselves.
        options: of the layer.
        is_lon_lat: coordinates are longitude and latitude of WGS 84, whatever the raster's CRS.
    """

    driver: str
    options: Mapping[str, str] = field(default_factory=dict)
    is_lon_lat: bool = False


FORMATS: Mapping[str, Format] = {
    ".gpkg": Format("GPKG"),
    ".fgb": Format("FlatGeobuf"),
    ".geojson": Format("GeoJSON", {"RFC7946": "YES", "WRITE_NAME": "NO"}, is_lon_lat=True),
    ".geojsonl": Format("GeoJSONSeq", {"RS": "NO"}, is_lon_lat=True),
    ".geojsons": Format("GeoJSONSeq", {"RS": "YES"}, is_lon_lat=True),
    ".parquet": Format(""),
}
SUFFIXES = tuple(FORMATS)


def check_suffix(path: StrPath) -> None:
    """Refuse a vector file in a format that is not written here.

    Raises:
        ConfigError: the suffix is not one of :data:`SUFFIXES`.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"{Path(path).name}: polygons are not written as {suffix or 'a file without suffix'!r}; use {', '.join(SUFFIXES)}"
        )


def is_geopackage(path: StrPath) -> bool:
    """Whether a file is written as it is, instead of being converted."""
    return Path(path).suffix.lower() == ".gpkg"


def convert(source_path: Path, part_path: Path, layer: Layer) -> None:
    """Make a vector file of another format from a finished GeoPackage.

    Args:
        source_path: GeoPackage with the one layer.
        part_path: file to make; its suffix says the format.
        layer: what the polygons have in common.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    target = FORMATS[part_path.suffix.lower()]
    if not target.driver:
        write_geoparquet(source_path, part_path, layer)
        return
    options = dict(target.options)
    crs = layer.crs_wkt
    if target.is_lon_lat and crs is None:
        options.pop("RFC7946", None)
    with errors_named(layer.path), _opened(source_path, layer) as (meta, stream), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_arrow(
            stream,
            part_path,
            layer=layer.name,
            driver=target.driver,
            geometry_name=meta["geometry_name"],
            geometry_type=layer.geometry_type,
            crs=crs,
            layer_options=options,
        )
    if target.driver == "GeoJSONSeq" and part_path.stat().st_size == 0:
        # A sequence of no features is a file of no bytes, which nothing recognizes; a collection of none is one line, too.
        part_path.write_text(_NO_FEATURES, encoding="utf-8")


def _opened(source_path: Path, layer: Layer) -> Any:
    return pyogrio.open_arrow(source_path, layer=layer.name, batch_size=_BATCH_SIZE, use_pyarrow=False)
