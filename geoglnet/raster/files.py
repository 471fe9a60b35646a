"""Files that a raster is made of, with the parts of its parts, and the check which of them may be read."""

from __future__ import annotations

import os
import re
import threading
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from geoglnet.errors import SceneError
from geoglnet.types import StrPath

# Errors of reading and writing through rasterio; GDAL's own ones come through where rasterio does not wrap them.
GDAL_ERRORS: tuple[type[Exception], ...] = (RasterioError, CPLE_BaseError, OSError)
_OPENING_ERRORS: tuple[type[Exception], ...] = (*GDAL_ERRORS, UnicodeDecodeError)  # rasterio decodes the CRS
DRIVERS_VARIABLE = "GEOGLNET_DRIVERS"
DEEPEST = 16  # VRTs of VRTs: more is a circle
_NETWORK = re.compile(r"/vsi(?!zip|tar|gzip|mem)\w+|(?<![\w+])(?!(?:file|zip|tar|gzip)://)[\w+.-]{2,}://", re.IGNORECASE)
_SERVED = re.compile(r"(/vsi(curl|s3|gs|az|adls|oss|swift)(_streaming)?/|https?://)")
_URL = re.compile(r"[A-Za-z0-9_.+-]{2,}://")  # C:// is a drive
_ONE_FILE = {".tif", ".tiff", ".jpg", ".jpeg", ".png", ".jp2", ".webp"}  # formats without parts, except sidecars
_HEADS = (
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"\0\0\0\x0cjP",
    b"\xff\x4f\xff\x51",
    b"RIFF",
)  # first bytes of these formats
_FILES = _ONE_FILE | {".vrt"}  # suffixes of names that mean files, not descriptions
_SIDECARS = (".msk", ".ovr", ".aux.xml", ".aux")
# Drivers whose headers name, by any path, the file that is read as numbers.
_RAW_DRIVERS = {"ISIS2", "ISIS3", "PDS", "PDS4", "VICAR", "MRF", "SNODAS", "HFA", "ERS", "PAux", "MAP", "RRASTER", "GXF"}
_FILTERS = threading.RLock()
_BLOCK_NAME = re.compile(r"\w+/\d{6}_\d{6}(-[0-9a-f]{16})?\.tif")  # of the mosaics of runs and jobs


class Mosaic(str):
    """XML of a VRT that we wrote ourselves, of rasters that the user named and that have been checked."""

    __slots__ = ()


@contextmanager
def silenced(category: type[Warning]) -> Iterator[None]:
    """Suppress warnings of a category; in one thread at a time, because Python's filters are global."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def is_remote(path: StrPath) -> bool:
    """Return whether a name is a URL or a GDAL virtual path instead of a local file.

    >>> is_remote("https://host/scene.tif"), is_remote("/vsizip/scene.zip"), is_remote("C:/scene.tif")
    (True, True, False)
    """
    name = gdal_name(path)
    return _URL.search(name) is not None or name.startswith("/vsi")


def gdal_name(path: StrPath) -> str:
    """Convert a path to GDAL's form: on Windows a :class:`Path` turns the slashes of a virtual path around."""
    name = os.fspath(path)
    return name.replace("\\", "/") if name.startswith("\\vsi") else name


def short_name(path: StrPath) -> str:
    """Name a raster for messages and tags; one that is described by a string of XML by its root element."""
    name = os.fspath(path)
    root = re.match(r"\s*<(?:\?[^>]*\?>\s*<)?(\w+)", name)
    return name if root is None else f"<{root[1]}> (described in a string)"


def allowed_drivers() -> list[str] | None:
    """List the GDAL drivers that may read inputs; ``None`` allows all of them, and the network too.

    They are set by the environment variable ``GEOGLNET_DRIVERS``, separated by commas, for services that read files of
    strangers. GTiff, which we write, is always allowed.
    """
    names = [name.strip() for name in os.environ.get(DRIVERS_VARIABLE, "").split(",")]
    chosen = [name for name in names if name]
    return [*dict.fromkeys([*chosen, "GTiff"])] if chosen else None


def check_name(path: StrPath) -> None:
    """Refuse a name that is not a local file or in a local archive, if drivers are restricted.

    Raises:
        SceneError: it is a URL, or a virtual path of another kind.
    """
    if allowed_drivers() is not None and (found := _NETWORK.search(os.fspath(path))):
        raise SceneError(f"{short_name(path)} is not a local file ({found[0]}), and {DRIVERS_VARIABLE} allows nothing else")


def check_parts(dataset: DatasetReader) -> None:
    """Refuse a raster that would read unrelated files as pixels, or run code.

    Raw bands of a VRT, and drivers whose header names a file of numbers, may only read files beside or below the raster; else
    ``/etc/passwd`` could be read as an image. Where drivers are restricted, every part must be of an allowed one, too.

    Raises:
        SceneError: it is such a raster, or one of its parts is; or a local part is missing, or not a raster.
    """
    for part, tree in _iter_datasets(dataset, DEEPEST, set()):
        if tree is not None:
            _check_vrt(part, tree)
        elif part.driver in _RAW_DRIVERS:
            _check_beside(part, part.files)


def iter_files(dataset: DatasetReader) -> Iterator[str]:
    """Yield the names of all files that a raster is made of, each once: itself, sidecars, and those of its parts."""
    yield from dict.fromkeys(_iter_names(dataset, DEEPEST, set()))


def own_mosaic(dataset: DatasetReader) -> bool:
    """Return whether a raster is the block mosaic of an unfinished run: made only of label files below its folder."""
    tree = _tree(dataset)
    return tree is not None and _is_own_mosaic(tree)


def block_sources(dataset: DatasetReader) -> list[str] | None:
    """Return the XML of the sources of each band of a block mosaic, for a VRT elsewhere; ``None`` for any other raster."""
    tree = _tree(dataset)
    if tree is None or not _is_own_mosaic(tree):
        return None
    for name in tree.iter("SourceFilename"):
        name.set("relativeToVRT", "0")
        name.text = str(Path(dataset.name).absolute().parent / (name.text or ""))
    bands = tree.findall("VRTRasterBand")
    return ["".join(ElementTree.tostring(node, encoding="unicode") for node in band.iter("SimpleSource")) for band in bands]


def _iter_names(dataset: DatasetReader, depth: int, seen: set[str]) -> Iterator[str]:
    """Yield names of files, depth first; parts in ``seen`` have been visited."""
    yield from dataset.files or _named(dataset)
    for name in _parts(dataset, _tree(dataset)):
        if name in seen:
            continue
        seen.add(name)
        if _is_one_file(name):
            yield name
            yield from (f"{name}{suffix}" for suffix in _SIDECARS if Path(f"{name}{suffix}").exists())
            continue
        yield name
        if depth and (part := _opened(name, dataset.name)) is not None:
            with part:
                yield from _iter_names(part, depth - 1, seen)


def _iter_datasets(
    dataset: DatasetReader, depth: int, seen: set[str]
) -> Iterator[tuple[DatasetReader, ElementTree.Element | None]]:
    """Yield a raster, and all its parts that may have parts or read raw numbers, each open until the next one is requested.

    Every VRT comes with its XML tree.
    """
    tree = _tree(dataset)
    yield dataset, tree
    for name in _parts(dataset, tree):
        if name in seen:
            continue
        seen.add(name)
        check_name(name)
        if _is_file_name(name) and not Path(name).exists():  # now, not after hours of a run
            raise SceneError(
                f"{short_name(dataset.name)} cannot be read, its part {name} does not exist; restore it, or rebuild the mosaic "
                "without it"
            )
        if allowed_drivers() is None and _is_one_file(name):
            continue
        if not depth:
            raise SceneError(f"{short_name(dataset.name)} is made of rasters within rasters, {DEEPEST} deep; flatten it")
        if (part := _opened(name, dataset.name)) is not None:
            with part:
                yield from _iter_datasets(part, depth - 1, seen)


def _named(dataset: DatasetReader) -> list[str]:
    """Name the file of a raster whose driver lists none; nothing for a description in a string or a service."""
    name = str(dataset.name).removeprefix("GTI:")
    return [name] if is_remote(name) or Path(name).is_file() else []


def _parts(dataset: DatasetReader, tree: ElementTree.Element | None) -> list[str]:
    """Name the rasters that a VRT (with its tree) or a tile index is made of."""
    if tree is not None:
        return _sources(tree, _folder(dataset))
    return _tiles(dataset) if dataset.driver == "GTI" else []


def _sources(tree: ElementTree.Element, folder: str | None) -> list[str]:
    """Name the sources of a VRT, without the files of raw bands, which are not opened as rasters."""
    found: dict[str, None] = {}
    for tag in ("SourceFilename", "SourceDataset"):
        for node in tree.iter(tag):
            text = (node.text or "").strip()
            is_relative = node.get("relativeToVRT") == "1" and folder is not None
            found[os.path.join(folder, text) if is_relative and folder is not None else text] = None  # noqa: PTH118 - /vsi
    raw = {(node.findtext("SourceFilename") or "").strip() for node in _raw_bands(tree)}
    return [name for name in found if name and name not in raw]


def _tree(dataset: DatasetReader) -> ElementTree.Element | None:
    """Return the XML of a VRT as GDAL has parsed it, wherever it was read from; ``None`` for any other raster."""
    return ElementTree.fromstring(dataset.tags(ns="xml:VRT")["xml:VRT"]) if dataset.driver == "VRT" else None


def _raw_bands(tree: ElementTree.Element) -> list[ElementTree.Element]:
    """Find the bands that read a file as plain numbers."""
    return [node for node in tree.iter("VRTRasterBand") if node.get("subClass") == "VRTRawRasterBand"]


def _folder(dataset: DatasetReader) -> str | None:
    """Return the folder of a raster; ``None`` for one that is described in a string."""
    name = str(dataset.name)
    if name.lstrip().startswith("<"):
        return None
    return os.path.dirname(name.removeprefix("vrt://").partition("?")[0])  # noqa: PTH120 - may be a virtual path


def _tiles(dataset: DatasetReader) -> list[str]:
    """Read the names of tiles in a tile index; none where its layout is not that of gdaltindex."""
    import pyogrio.raw  # which imports pandas and geopandas
    from pyogrio.errors import DataLayerError, DataSourceError

    name, field, layer = str(dataset.name).removeprefix("GTI:"), "location", None
    try:
        is_described = name.lstrip().startswith("<") or Path(name).read_bytes()[:200].lstrip().startswith(b"<")
        if is_described:
            tree = ElementTree.fromstring(name if name.lstrip().startswith("<") else Path(name).read_text(encoding="utf-8"))
            folder = "" if name.lstrip().startswith("<") else str(Path(name).parent)
            name = str(Path(folder) / (tree.findtext("IndexDataset") or ""))
            field, layer = tree.findtext("LocationField") or field, tree.findtext("IndexLayer")
        columns = pyogrio.raw.read(name, layer=layer, columns=[field], read_geometry=False)[3]
    except (OSError, ValueError, ElementTree.ParseError, DataSourceError, DataLayerError):
        return []
    except UnboundLocalError:  # what pyogrio makes of a CRS that is not in UTF-8
        return []
    beside = Path(name).parent
    locations = [str(location) for location in columns[0]] if columns else []
    return [str(beside / location) if (beside / location).exists() else location for location in locations]


def _is_file_name(name: str) -> bool:
    """Return whether a name means a local file, by its suffix."""
    return not is_remote(name) and Path(name).suffix.lower() in _FILES


def _is_own_mosaic(tree: ElementTree.Element) -> bool:
    """Return whether a VRT has only sources with the names that we give to blocks, and no special bands."""
    is_plain = all(node.get("subClass") is None for node in tree.iter("VRTRasterBand"))
    return is_plain and all(_BLOCK_NAME.fullmatch(node.text or "") for node in tree.iter("SourceFilename"))


def _is_one_file(name: str) -> bool:
    """Return whether a name is a file without parts, by its suffix and its first bytes, or a local file that is missing.

    Checking thousands of files like this takes as long as opening a hundred.
    """
    if is_remote(name):
        return _SERVED.match(name) is not None and Path(name.partition("?")[0]).suffix.lower() in _ONE_FILE
    if Path(name).suffix.lower() not in _ONE_FILE:
        return False
    try:
        with Path(name).open("rb") as file:
            return file.read(12).startswith(_HEADS)
    except OSError:  # not a file, or one without permission
        return not Path(name).exists()


def _opened(name: str, whole: str) -> DatasetReader | None:
    """Open a part of a raster; return ``None`` for a remote one that cannot be opened: reading its pixels raises the error."""
    drivers = allowed_drivers()
    try:
        with silenced(NotGeoreferencedWarning):
            return rasterio.open(name) if drivers is None else DatasetReader(name, driver=drivers)
    except _OPENING_ERRORS as error:
        if drivers is not None and (is_remote(name) or Path(name).exists()):
            raise SceneError(
                f"{short_name(name)} is not of the drivers that {DRIVERS_VARIABLE} allows ({', '.join(drivers)})"
            ) from error
        if _is_file_name(name):
            reason = " ".join(str(error).split())
            raise SceneError(
                f"{short_name(whole)} cannot be read, its part {name} is not a raster that GDAL can read ({reason}); restore "
                "it, or rebuild the mosaic without it"
            ) from error
        return None


def _check_vrt(dataset: DatasetReader, tree: ElementTree.Element) -> None:
    """Refuse a VRT that runs Python, unless the user allows it for GDAL, or that reads raw files from elsewhere."""
    language = (node.text or "" for node in tree.iter("PixelFunctionLanguage"))
    is_allowed = os.environ.get("GDAL_VRT_ENABLE_PYTHON", "").upper() in ("YES", "TRUE", "ON", "1")
    if any(text.strip().lower() == "python" for text in language) and not is_allowed:
        raise SceneError(
            f"{short_name(dataset.name)} holds Python code, and code inside a VRT is not run; "
            "write its result into a file with gdal_translate where you trust it"
        )
    _check_beside(dataset, [name for band in _raw_bands(tree) for name in _raw_names(band, dataset)])


def _raw_names(band: ElementTree.Element, dataset: DatasetReader) -> Iterator[str]:
    """Yield the files that a raw band reads."""
    for node in band.iter("SourceFilename"):
        text = (node.text or "").strip()
        yield os.path.join(_folder(dataset) or "", text) if node.get("relativeToVRT") == "1" else text  # noqa: PTH118


def _check_beside(dataset: DatasetReader, names: Collection[str]) -> None:
    """Refuse raw files that do not lie beside or below the raster, after following links; all of them for one in a string."""
    folder = _folder(dataset)
    for name in names:
        if folder is not None and _is_below(name, folder):
            continue
        raise SceneError(
            f"{short_name(dataset.name)} would read {name} as raw pixels, which is allowed only beside or below it; "
            "convert it with gdal_translate where you trust it"
        )


def _is_below(name: str, folder: str) -> bool:
    """Return whether a file lies in a folder or below it."""
    if is_remote(name) or is_remote(folder):
        return ".." not in name and bool(folder) and name.startswith(f"{folder}/")
    return Path(name).resolve().is_relative_to(Path(folder or ".").resolve())
