"""How GDAL is set up whenever we open a raster: a small block cache, and no listing of folders on servers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geoglnet.errors import SceneError, SceneNotFoundError
from geoglnet.raster.files import (
    DRIVERS_VARIABLE,
    GDAL_ERRORS,
    allowed_drivers,
    check_name,
    check_parts,
    gdal_name,
    is_remote,
    iter_files,
    own_mosaic,
    short_name,
    silenced,
)
from geoglnet.types import StrPath

_VIRTUAL = re.compile(r"(?:/vsi[a-z0-9]+/)+\{?")
_LARGEST_STAC_ITEM = 2**20
BLOCK_CACHE_BYTES = 64 * 2**20  # GDAL's default, 5 % of the machine's memory, would be our largest allocation
# A server that stops answering is asked again, then given up: GDAL alone would wait for ever. What the user set wins.
_PATIENCE = {
    "GDAL_HTTP_CONNECTTIMEOUT": 15,
    "GDAL_HTTP_LOW_SPEED_TIME": 30,  # seconds with less than …
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,  # … bytes per second
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}
_CARE = {"GDAL_ERROR_ON_LIBJPEG_WARNING": True}  # else all that lies behind a damaged byte of a JPEG is read as garbage
_ON_SERVER = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)|(?!(?:file|zip|tar|gzip)\b)[\w+.-]{2,}://")
_NOT_A_PATH = re.compile(r"[A-Za-z0-9_]{2,}:|\s*<")  # NETCDF:file.nc:name, or a VRT or web service described in a string
_MADE_OF_OTHERS = {"VRT", "GTI", "WMS", "WMTS", "WCS", "STACIT", "STACTA", "DERIVED"}  # drivers of what has no pixels itself


def environment(path: StrPath | None = None) -> rasterio.Env:
    """GDAL settings for reading or writing ``path``; use it as a context manager around every open, read and write."""
    options: dict[str, Any] = {
        "GDAL_CACHEMAX": BLOCK_CACHE_BYTES,
        "GDAL_NUM_THREADS": 1,  # with more, GDAL's writers lose the error of a full disk
        "VRT_NUM_THREADS": 1,  # with more, GDAL 3.10 gives zeros for all parts that it cannot read
        "GTI_NUM_THREADS": 1,
        "GDAL_TIFF_INTERNAL_MASK": True,
        **_unless_set(_CARE),
    }
    if path is not None and is_remote(path):
        options |= {"VSI_CACHE": True, "VSI_CACHE_SIZE": 16 * 2**20}
        options |= _unless_set(_PATIENCE | _sidecars(gdal_name(path)))
    if allowed_drivers() is not None:
        options |= {"CPL_VSIL_CURL_ALLOWED_FILENAME": "none"}
    return rasterio.Env(**options)


def _sidecars(name: str) -> dict[str, str]:
    """How sidecars (masks, statistics, world files) of a raster are found: in an archive by its list of files, as on a disk.

    On a server each is asked for by its name, nine or so requests for a file and process, because the list of a folder may be
    that of a whole bucket. An address with a query has none: they would be asked for with other queries.
    """
    if _ON_SERVER.match(name) is None:
        return {}
    return {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR" if "?" in name else "TRUE"}


def _unless_set(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in os.environ}


def open_raster(path: StrPath, **options: Any) -> DatasetReader:
    """Open any raster for reading, with or without georeference.

    Args:
        path: file, URL or GDAL virtual path.
        options: GDAL open options; ``driver`` for a raster that we made, of parts that were checked when they were opened.

    Raises:
        SceneNotFoundError: there is no such local file.
        SceneError: the file is not a raster that GDAL reads, or one that must not be: see :func:`check_parts`.
    """
    name = gdal_name(path)
    if not is_remote(name) and not _NOT_A_PATH.match(name) and not _exists(Path(name)):
        raise SceneNotFoundError(f"{name} does not exist; check the path")
    check_name(name)
    drivers = allowed_drivers()
    with environment(name), silenced(NotGeoreferencedWarning):  # whoever needs the CRS says so in our words
        try:
            is_narrow = drivers is not None and "driver" not in options
            dataset = _open_narrowly(name, drivers or [], options) if is_narrow else rasterio.open(name, **options)
        except SceneError:
            raise
        except UnicodeEncodeError as error:
            raise SceneError(f"{name!a} is no name in UTF-8, as GDAL reads them; rename it, or set a UTF-8 locale") from error
        except GDAL_ERRORS as error:
            raise SceneError(_unopened(name, error)) from error
        if "driver" in options:
            return dataset
        with ExitStack() as on_error:
            on_error.callback(dataset.close)
            check_parts(dataset)
            on_error.pop_all()
    return dataset


def _open_narrowly(name: str, drivers: list[str], options: Mapping[str, Any]) -> DatasetReader:
    """Open a raster with the only drivers that may, or as the mosaic of an unfinished run."""
    if name.endswith(".vrt") and Path(name).parent.suffix == ".unfinished":
        dataset = rasterio.open(name, driver="VRT", **options)
        if own_mosaic(dataset):
            return dataset
        dataset.close()
    try:
        return DatasetReader(name, driver=drivers, **options)  # rasterio.open takes a single driver
    except GDAL_ERRORS as error:
        raise SceneError(
            f"{short_name(name)} is not of the drivers that {DRIVERS_VARIABLE} allows ({', '.join(drivers)}), or damaged "
            f"({one_line(error)})"
        ) from error


def _unopened(name: str, error: Exception) -> str:
    if assets := _stac_assets(name):
        return f"{name} is a STAC item, which names rasters and is none; give one of its assets: {assets}"
    if name.lstrip().startswith("<"):
        return f"{short_name(name)} cannot be opened ({one_line(error)}); check the service and the network"
    return f"{name} is not a raster that GDAL can read ({one_line(error)}); give a GeoTIFF, JPEG, VRT …"


def _stac_assets(name: str) -> str:
    """The assets of a STAC item in a local JSON file, for a message; empty for anything else."""
    path = Path(name)
    if path.suffix.lower() not in (".json", ".geojson") or not _exists(path) or path.stat().st_size > _LARGEST_STAC_ITEM:
        return ""
    try:
        assets = json.loads(path.read_bytes()).get("assets", {})
        found = [f"{key} ({asset['href']})" for key, asset in assets.items() if "href" in asset]
    except (ValueError, AttributeError, TypeError):  # JSON of another kind, or none
        return ""
    return ", ".join(found[:4]) + (", …" if len(found) > 4 else "")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for the file system
        return False


def one_line(error: BaseException) -> str:
    """The innermost message of a GDAL error, in one line and without its final stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()).rstrip(".")


def color_bands(dataset: DatasetReader) -> tuple[int, ...]:
    """1-based indexes of all bands that hold an image: every band but alpha."""
    return tuple(i for i, kind in enumerate(dataset.colorinterp, start=1) if kind != ColorInterp.alpha)


def unreadable(dataset: DatasetReader, window: Window | None, error: Exception, name: str = "") -> SceneError:
    """The error to raise when pixels of an open raster cannot be read: where, what GDAL says of it, and the way out.

    Only of a file that holds pixels itself can it be said that it is damaged.
    """
    place = ""
    if window is not None:
        place = f"{window.width:.0f} × {window.height:.0f} px at column {window.col_off:.0f}, row {window.row_off:.0f}: "
    way_out = "if it is truncated or damaged, fetch it again"
    if dataset.driver in _MADE_OF_OTHERS:
        way_out = "see to what it is made of"
    elif is_remote(dataset.name):
        way_out = "try again, or download it first"
    return SceneError(f"{name or short_name(dataset.name)} cannot be read ({place}{one_line(error)}); {way_out}")


def check_real(dataset: DatasetReader, bands: Iterable[int] = (1,)) -> None:
    """Refuse complex values, of which reading would take the real part without a word.

    Raises:
        SceneError: one of the 1-based bands holds them.
    """
    for band in bands:
        if dataset.dtypes[band - 1].startswith("complex"):
            name = short_name(dataset.name)
            raise SceneError(
                f"{name} holds complex values ({dataset.dtypes[band - 1]} in band {band}), which are no image; "
                f"give its amplitude, DERIVED_SUBDATASET:AMPLITUDE:{name}"
            )


def local_files(path: StrPath) -> Iterator[Path]:
    """Every local file that is read when a raster is, all the way down; of what lies in an archive the archive.

    What cannot be opened is passed over; whoever reads it says so.
    """
    names = [os.fspath(path)]
    with suppress(SceneError), open_raster(path) as src, environment(path):
        names += iter_files(src)
    for name in names:
        virtual = _VIRTUAL.match(name)
        inside = Path(name[virtual.end() :] if virtual else name)
        with suppress(OSError, ValueError):
            yield from [one for one in ((inside, *inside.parents) if virtual else (inside,)) if one.is_file()][:1]
