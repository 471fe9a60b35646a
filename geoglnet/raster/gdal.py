"""Opens rasters with GDAL: its settings (a small block cache, no listing of folders on servers), and errors as ours."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import rasterio
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
# A server that stops answering is tried again, then given up: GDAL's defaults wait forever. Values that the user set win.
_PATIENCE = {
    "GDAL_HTTP_CONNECTTIMEOUT": 15,
    "GDAL_HTTP_LOW_SPEED_TIME": 30,  # seconds with less than …
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,  # … bytes per second
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}
_CARE = {"GDAL_ERROR_ON_LIBJPEG_WARNING": True}  # else everything after a damaged byte of a JPEG is read as garbage
_ON_SERVER = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)|(?!(?:file|zip|tar|gzip)\b)[\w+.-]{2,}://")
_NOT_A_PATH = re.compile(r"[A-Za-z0-9_]{2,}:|\s*<")  # NETCDF:file.nc:name, or a VRT or web service described in a string
_MADE_OF_OTHERS = {"VRT", "GTI", "WMS", "WMTS", "WCS", "STACIT", "STACTA", "DERIVED"}  # drivers of what has no pixels itself


def environment(path: StrPath | None = None) -> rasterio.Env:
    """Return GDAL's settings for reading or writing ``path``: a context manager for every open, read and write.

    Args:
        path: the raster; without it, the settings for local files.
    """
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
    """Say how GDAL finds sidecars (masks, statistics, world files) of a remote raster; in an archive by listing it, as on disk.

    On a server each is requested by its name, nine or so requests per file and process, because the list of a folder may be
    that of a whole bucket. For an address with a query there are none: the requests would carry the same query.
    """
    if _ON_SERVER.match(name) is None:
        return {}
    return {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR" if "?" in name else "TRUE"}


def _unless_set(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the options that the user has set in the environment."""
    return {name: value for name, value in options.items() if name not in os.environ}


def open_raster(path: StrPath, **options: Any) -> DatasetReader:
    """Open any raster for reading, with or without georeference.

    Args:
        path: file, URL or GDAL virtual path.
        options: GDAL open options; with ``driver``, the raster is one of ours, whose parts have been checked already.

    Returns:
        The open dataset; the caller closes it.

    Raises:
        SceneNotFoundError: there is no such local file.
        SceneError: GDAL cannot read the file, or it must not be read: see :func:`~geoglnet.raster.files.check_parts`.
    """
    name = gdal_name(path)
    check_exists(name)
    check_name(name)
    drivers = allowed_drivers()
    with environment(name), silenced(NotGeoreferencedWarning):  # the log says so where a CRS is needed
        try:
            is_narrow = drivers is not None and "driver" not in options
            dataset = _open_narrowly(name, drivers or [], options) if is_narrow else rasterio.open(name, **options)
        except SceneError:
            raise
        except UnicodeEncodeError as error:
            raise SceneError(f"{name!a} is not a UTF-8 name, which GDAL requires; rename it, or set a UTF-8 locale") from error
        except UnicodeDecodeError as error:  # rasterio decodes the CRS when it opens a raster, and what GDAL says of an error
            raise SceneError(
                f"{short_name(name)} holds text that is not in UTF-8, mostly its CRS ({error}); "
                "give a copy another CRS with gdal_translate -a_srs"
            ) from error
        except GDAL_ERRORS as error:
            raise SceneError(_unopened(name, error)) from error
        if "driver" in options:
            return dataset
        # After opening, because only GDAL knows what parts the file has; before any pixel of them is read.
        with ExitStack() as on_error:
            on_error.callback(dataset.close)
            check_parts(dataset)
            on_error.pop_all()
    return dataset


def _open_narrowly(name: str, drivers: list[str], options: Mapping[str, Any]) -> DatasetReader:
    """Open a raster with the allowed drivers only, or as the mosaic of an unfinished run."""
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
    """Explain why a raster cannot be opened."""
    if assets := _stac_assets(name):
        return f"{name} is a STAC item, which lists rasters but is not one; give one of its assets: {assets}"
    if name.lstrip().startswith("<"):
        return f"{short_name(name)} cannot be opened ({one_line(error)}); check the service and the network"
    return f"{name} is not a raster that GDAL can read ({one_line(error)}); give a GeoTIFF, JPEG, VRT …"


def _stac_assets(name: str) -> str:
    """List the assets of a STAC item in a local JSON file, for a message; return an empty text for anything else."""
    path = Path(name)
    if path.suffix.lower() not in (".json", ".geojson") or not _exists(path) or path.stat().st_size > _LARGEST_STAC_ITEM:
        return ""
    try:
        assets = json.loads(path.read_bytes()).get("assets", {})
        found = [f"{key} ({asset['href']})" for key, asset in assets.items() if "href" in asset]
    except (ValueError, AttributeError, TypeError):  # no JSON, or JSON of another kind
        return ""
    return ", ".join(found[:4]) + (", …" if len(found) > 4 else "")


def check_exists(path: StrPath) -> None:
    """Refuse the name of a local file that does not exist; what a name of another kind leads to, only GDAL knows.

    Raises:
        SceneNotFoundError: there is no such file.
    """
    name = gdal_name(path)
    if not is_remote(name) and not _NOT_A_PATH.match(name) and not _exists(Path(name)):
        raise SceneNotFoundError(f"{name} does not exist; check the path")


def _exists(path: Path) -> bool:
    """Return whether a path exists; one that the file system cannot hold does not."""
    try:
        return path.exists()
    except OSError:  # a name that is too long for the file system
        return False


def one_line(error: BaseException) -> str:
    """Return the innermost message of a GDAL error, in one line and without its final stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()).rstrip(".")


def unreadable(dataset: DatasetReader, window: Window | None, error: Exception, name: str = "") -> SceneError:
    """Make the error to raise when pixels of an open raster cannot be read: the place, GDAL's reason, and the way out.

    Only a file that holds pixels itself can be called damaged.

    Args:
        dataset: the raster.
        window: place that was read, if it was a part.
        error: error of GDAL or rasterio.
        name: name of the raster for the message, if it has another than the dataset's.
    """
    place = ""
    if window is not None:
        place = f"{window.width:.0f} × {window.height:.0f} px at column {window.col_off:.0f}, row {window.row_off:.0f}: "
    way_out = "if it is truncated or damaged, fetch it again"
    if dataset.driver in _MADE_OF_OTHERS:
        way_out = "check the rasters that it is made of"
    elif is_remote(dataset.name):
        way_out = "try again, or download it first"
    return SceneError(f"{name or short_name(dataset.name)} cannot be read ({place}{one_line(error)}); {way_out}")


def local_files(path: StrPath) -> Iterator[Path]:
    """Yield every local file that is read with a raster, its parts and their parts included; for members of an archive, it.

    A file that cannot be opened is skipped here: reading it raises the error.
    """
    names = [os.fspath(path)]
    with suppress(SceneError), open_raster(path) as src, environment(path):
        names += iter_files(src)
    for name in names:
        virtual = _VIRTUAL.match(name)
        inside = Path(name[virtual.end() :] if virtual else name)
        with suppress(OSError, ValueError):
            yield from [one for one in ((inside, *inside.parents) if virtual else (inside,)) if one.is_file()][:1]
