"""Products of many files: Sentinel-2 SAFE folders and archives, and STAC items, as bands by name."""

from __future__ import annotations

import http.client
import json
import math
import re
import urllib.request
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

from geoglnet.errors import BandsError, SceneError
from geoglnet.message import Keyword
from geoglnet.plain import shortened
from geoglnet.progress import Progress
from geoglnet.raster.band_choice import PRESETS, RGB, BandSelection, announce, find_by_name, parse_bands
from geoglnet.raster.band_names import CODE, SENSORS, SENTINEL_2, NamedBand, common_name
from geoglnet.raster.files import check_name, gdal_name
from geoglnet.types import StrPath

LARGEST_ITEM = 2**22  # bytes of a STAC item
_PATIENCE_S = 15
_BAND_FILE = re.compile(r"_B(0[1-9]|1[0-2]|8A)(?:_(\d\d)m)?\.jp2$", re.IGNORECASE)
_METADATA = re.compile(r"MTD_MSIL[12][AC]\.xml$")
_NATIVE_M = dict.fromkeys(("02", "03", "04", "08"), 10) | dict.fromkeys(("01", "09", "10"), 60)  # all others: 20
_NOT_DATA = {"thumbnail", "overview", "visual", "metadata"}  # roles, and common keys, of assets that hold no measured values
_RASTER_SUFFIXES = {".tif", ".tiff", ".jp2", ".vrt", ".cog", ".img"}


@dataclass(frozen=True, slots=True)
class BandSource:
    """Where a band of a scene is read from.

    Args:
        path: the raster.
        number: of the band in it, from 1.
        unit: scale and offset, where they are known better than the raster declares them.
        nodata: value where a pixel has none, beside what the raster declares.
    """

    path: StrPath
    number: int
    unit: tuple[float, float] | None = None
    nodata: float | None = None


@dataclass(frozen=True, slots=True)
class Product:
    """Bands of a product, in its order.

    Args:
        name: for messages.
        bands: what each is; its number counts the product's bands.
        sources: where each is read from.
        metadata: files, or the address, that say so.
    """

    name: str
    bands: tuple[NamedBand, ...]
    sources: tuple[BandSource, ...]
    metadata: tuple[str, ...] = ()

    def choose(self, wanted: Sequence[str] | None, selection: BandSelection | None, progress: Progress) -> list[BandSource]:
        """Choose the bands of a model by name.

        Args:
            wanted: names of the model's bands; red, green and blue, or the first three bands, when left out.
            selection: names or numbers that the user has selected, in the order of the model's bands.
            progress: receives the rule.

        Raises:
            BandsError: a band is missing, or the selection is not of as many bands, or a preset.
        """
        selected = parse_bands(selection)
        if selected and (selected[0] in PRESETS or (wanted is not None and len(selected) != len(wanted))):
            raise BandsError(
                f"{self.name} names its bands, and {', '.join(map(str, selected))} are not those of the model; leave out "
                + Keyword("bands")
            )
        has_colors = set(RGB) <= {band.name for band in self.bands}
        names = wanted or (RGB if has_colors else tuple(band.name or band.text for band in self.bands[:3]))
        texts = [band.text if isinstance(n, int) and (band := self._numbered(n)) else str(n) for n in selected or names]
        numbers = announce(find_by_name(self.bands, texts, self.name), wanted or texts, self.name, progress)
        return [self.sources[number - 1] for number in numbers]

    def name_of(self, source: BandSource) -> str:
        """Return what a band is: its common name, else what the product calls it."""
        band = self.bands[self.sources.index(source)]
        return band.name or band.text

    def _numbered(self, number: int) -> NamedBand:
        if not 1 <= number <= len(self.bands):
            raise BandsError(f"there is no band {number}: {self.name} has bands 1 to {len(self.bands)}; choose among them")
        return self.bands[number - 1]


def find_product(path: StrPath) -> Product | None:
    """Recognize a product by its name and list its bands; ``None`` for any other path, of which nothing is read.

    Raises:
        SceneError: it is a product without the files or metadata that it should have, or a STAC item that cannot be fetched.
    """
    name = gdal_name(path)
    if name.lstrip().startswith("<"):
        return None
    name = name.removeprefix("/vsicurl/") if name.startswith("/vsicurl/http") else name
    suffix = PurePosixPath(urlsplit(name).path if "://" in name else name.rstrip("/\\")).suffix.lower()
    if suffix in (".json", ".geojson") or ("://" in name and "/items/" in name and not suffix):
        return _stac_item(name)
    if suffix == ".zip" and "://" not in name and not name.startswith("/vsi"):
        return _zipped(Path(name))
    if suffix == ".safe" or _METADATA.search(name):
        folder = Path(name).parent if _METADATA.search(name) else Path(name)
        if folder.is_dir():
            files = {file.relative_to(folder).as_posix(): str(file) for file in sorted(folder.rglob("*")) if file.is_file()}
            described = tuple(file for key, file in files.items() if _METADATA.fullmatch(key))
            product = _sentinel_2(folder.name, files, Path(described[0]).read_bytes() if described else None)
            return replace(product, metadata=described)
    return None


def _zipped(path: Path) -> Product | None:
    """List the bands of a zipped SAFE folder, which is read where it is; ``None`` for other archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
            inside = next((name for name in names if _METADATA.search(name) and name.count("/") <= 1), None)
            metadata = None if inside is None else archive.read(inside)
    except (OSError, zipfile.BadZipFile):
        return None
    if metadata is None:
        return None
    files = {name: f"/vsizip/{path.absolute().as_posix()}/{name}" for name in names}
    return _sentinel_2(path.name, files, metadata)


def _sentinel_2(name: str, files: Mapping[str, str], metadata: bytes | None) -> Product:
    """List the bands of a Sentinel-2 product, each at its finest resolution.

    Args:
        name: of the product.
        files: names that GDAL opens, by their paths in the product.
        metadata: XML of the product, with the unit of its values.
    """
    finest: dict[str, tuple[int, str]] = {}
    for inside, file in files.items():
        match = _BAND_FILE.search(inside)
        if match is None or "IMG_DATA" not in inside:
            continue
        code = match[1].upper()
        pixel_m = int(match[2]) if match[2] else _NATIVE_M.get(code, 20)
        known = finest.get(code)
        if known is not None and known[0] == pixel_m:
            raise SceneError(f"{name} has two granules with a band B{code}; give one of them, as files")
        if known is None or pixel_m < known[0]:
            finest[code] = (pixel_m, file)
    if not finest:
        raise SceneError(f"{name} has no bands B01 to B12 as .jp2 in GRANULE/…/IMG_DATA; unpack or fetch it again")
    units = {} if metadata is None else _sentinel_2_units(metadata)
    codes = sorted(finest, key=lambda code: list(SENTINEL_2).index(code.lstrip("0")))
    bands = [
        NamedBand(number, SENTINEL_2[code.lstrip("0")], f"B{code}", f"codes of {name}") for number, code in enumerate(codes, 1)
    ]
    sources = [BandSource(finest[code][1], 1, units.get(code.lstrip("0")), nodata=0) for code in codes]
    return Product(name, tuple(bands), tuple(sources))


def _sentinel_2_units(metadata: bytes) -> dict[str, tuple[float, float]]:
    """Read scale and offset of reflectance by band code from a product's metadata (offsets since baseline 04.00)."""
    try:
        root = ElementTree.fromstring(metadata)
        quantities = [node for node in root.iter() if node.tag in ("QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE")]
        full = float((quantities[0].text or "") if quantities else 10_000)
        added = {
            int(node.get("band_id", "-1")): float(node.text or 0)
            for node in root.iter()
            if node.tag in ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET")
        }
    except (ElementTree.ParseError, ValueError) as error:
        raise SceneError(f"the metadata of a Sentinel-2 product are damaged ({error}); fetch it again") from error
    return {code: (1 / full, added.get(index, 0.0) / full) for index, code in enumerate(SENTINEL_2)}


def _stac_item(name: str) -> Product | None:
    """List the bands of the assets of a STAC item; ``None`` for JSON that is none."""
    item = _json_of(name)
    if not isinstance(item, Mapping) or not isinstance(item.get("assets"), Mapping) or "stac_version" not in item:
        return None
    properties = item["properties"] if isinstance(item.get("properties"), Mapping) else {}
    said = " ".join(str(text) for text in (properties.get("constellation"), properties.get("platform"), item.get("id")))
    codes = next((sensor.codes for sensor in SENSORS if sensor.codes and sensor.pattern.search(said)), {})
    found: dict[str, tuple[NamedBand, BandSource]] = {}
    for key, asset in item["assets"].items():
        if not isinstance(asset, Mapping) or not _is_data(key, asset):
            continue
        path = _placed(str(asset["href"]), name)
        for number, (known, unit) in enumerate(_asset_bands(key, asset), start=1):
            band = _stac_band(len(found) + 1, key, known, codes)
            source = BandSource(path, number, _unit(unit), _number(unit.get("nodata")))
            found.setdefault(band.text, (band, source))
    title = str(item.get("id") or PurePosixPath(name).name)
    if not found and "://" not in name:
        return None  # the message of the raster that it is not lists the assets
    if not found:
        keys = ", ".join(list(item["assets"])[:6])
        raise SceneError(f"STAC item {title} has no asset whose bands are named (assets: {keys}); give one of its files")
    bands, sources = zip(*found.values(), strict=True)
    return Product(title, bands, sources, (name,))


def _json_of(name: str) -> Any:
    """Read JSON from a file or an address; ``None`` where it is none.

    Raises:
        SceneError: an address that does not answer, is not of the web, or ends in ``.json`` and has no JSON.
    """
    check_name(name)
    is_served = "://" in name
    if is_served and not name.lower().startswith(("http://", "https://")):
        raise SceneError(f"{name} cannot be fetched: a STAC item is read from a file or an http(s) address; give one of these")
    content = b""
    try:
        if is_served:
            request = urllib.request.Request(name, headers={"User-Agent": "geoglnet", "Accept": "application/json"})
            with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
                content = answer.read(LARGEST_ITEM)
        elif (path := Path(name)).is_file() and path.stat().st_size <= LARGEST_ITEM:
            content = path.read_bytes()
        return json.loads(content)
    except (OSError, http.client.HTTPException) as error:
        raise SceneError(
            f"{name} cannot be fetched ({' '.join(str(error).split())}); check the address and the network"
        ) from error
    except (ValueError, RecursionError) as error:  # nested deeper than Python reads
        if not is_served or not urlsplit(name).path.endswith("json") or len(content) == LARGEST_ITEM:
            return None
        start = shortened(content[:40].decode(errors="replace"))
        raise SceneError(f"{name} is not JSON: it begins with {start}; check the address, which may lead to a page") from error


def _is_data(key: str, asset: Mapping[str, Any]) -> bool:
    """Return whether an asset is a raster of measured values."""
    roles = {str(role) for role in _list(asset, "roles")} | {key}
    href = str(asset.get("href", ""))
    is_raster = str(asset.get("type", "")).startswith("image/") or PurePosixPath(urlsplit(href).path).suffix in _RASTER_SUFFIXES
    return bool(href) and is_raster and not roles & _NOT_DATA


def _asset_bands(key: str, asset: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield what an asset says of each of its bands, and of its values; an asset that says nothing is the band of its key."""
    values = _list(asset, "raster:bands")
    bands = _list(asset, "eo:bands") or _list(asset, "bands") or [{"name": key}]
    for number, band in enumerate(bands):
        if isinstance(band, Mapping):
            unit = values[number] if number < len(values) else {**asset, **band}
            yield band, unit if isinstance(unit, Mapping) else {}


def _list(asset: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list of an asset; an empty one for what is none."""
    value = asset.get(key)
    return value if isinstance(value, list) else []


def _stac_band(number: int, key: str, known: Mapping[str, Any], codes: Mapping[str, str]) -> NamedBand:
    """Name a band: by its code where the sensor is known, which tells red edges apart, else by its common name."""
    text = str(known.get("name") or key)
    common = str(known.get("common_name") or known.get("eo:common_name") or "")
    code = CODE.search(text) or CODE.search(key)
    exact = codes.get(code[1].upper(), "") if code else ""
    exact = exact or common_name(text) or common_name(key)
    return NamedBand(number, exact if exact.startswith(common) else common, text, "STAC item")


def _unit(values: Mapping[str, Any]) -> tuple[float, float] | None:
    scale = _number(values.get("scale", values.get("raster:scale")))
    offset = _number(values.get("offset", values.get("raster:offset")))
    return None if scale is None and offset is None else (1.0 if scale is None else scale, offset or 0.0)


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _placed(href: str, item: str) -> str:
    """Resolve the address of an asset against that of its item: ``/a.tif`` of a served one is not on this disk."""
    if "://" in href or href.startswith("/vsi"):
        return href
    return urljoin(item, href) if "://" in item else str(Path(item).parent / href)  # an absolute path stays
