"""Catalogs: many scenes, each for itself, from a folder, a pattern, a list, STAC items or an index of tiles."""

from __future__ import annotations

import glob
import http.client
import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

import pyarrow.parquet

from geoglnet.errors import DatasetError
from geoglnet.raster.files import is_remote

SUFFIXES = {".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".safe"}
"""Of what counts as a scene in a folder."""
_LISTS = {".txt", ".lst", ".csv"}
_ITEMS = {".json", ".geojson"}
_PATIENCE_S, _LARGEST = 60, 2**28
_NOT_SCENES = {"thumbnail", "overview", "metadata"}
_PLAIN = re.compile(r"[^\w.@+-]+")


@dataclass(frozen=True, slots=True)
class CatalogScene:
    """One scene of a catalog.

    Args:
        id: by which outputs are named; distinct in its catalog.
        path: that GDAL opens, or of a STAC item; empty where ``item`` has to be written to a file first.
        item: the STAC item that it was listed as.
    """

    id: str
    path: str
    item: Mapping[str, Any] | None = None


def read_catalog(place: str) -> list[CatalogScene]:
    """List the scenes of a catalog.

    Args:
        place: a folder of rasters; a pattern such as ``2024/*/*.tif``; a list of paths (``.txt``, or ``.csv`` with a column
            ``path`` and perhaps one ``id``); STAC items or an ItemCollection, as a file or an address (``.json``), or as
            stac-geoparquet (``.parquet``); or an index of tiles with a column ``location`` (``.gpkg``, ``.shp``, ``.fgb``).

    Raises:
        DatasetError: it cannot be read, or there is nothing in it.
    """
    suffix = PurePosixPath(urlsplit(place).path if "://" in place else place).suffix.lower()
    if "://" in place or suffix in _ITEMS:
        scenes = [*_of_items(_json(place), place)]
    elif Path(place).is_dir():
        scenes = [_scene(str(path)) for path in sorted(Path(place).iterdir()) if path.suffix.lower() in SUFFIXES]
    elif not Path(place).exists():
        scenes = [_scene(path) for path in sorted(glob.glob(place, recursive=True))]  # noqa: PTH207 - patterns may be absolute
    elif suffix in _LISTS:
        scenes = [*_of_list(Path(place))]
    elif suffix == ".parquet":
        scenes = [*_of_parquet(place)]
    else:
        scenes = [*_of_tiles(place)]
    if not scenes:
        raise DatasetError(
            f"{place} lists no scenes; give a folder of rasters, a pattern, a list of paths, STAC items, or an index of tiles"
        )
    return _distinct(scenes)


def _scene(path: str, name: str = "") -> CatalogScene:
    return CatalogScene(_plain(name or PurePosixPath(path.replace("\\", "/").partition("?")[0]).stem), path)


def _plain(text: str) -> str:
    """Make a text that any file may be named by."""
    return _PLAIN.sub("_", text).strip("._") or "scene"


def _distinct(scenes: Iterable[CatalogScene]) -> list[CatalogScene]:
    """Put the folder before ids that come more than once; number those that still do."""
    scenes = [*scenes]
    counts = Counter(scene.id for scene in scenes)
    longer = []
    for scene in scenes:
        is_same = counts[scene.id] > 1 and scene.path and scene.item is None
        longer.append(replace(scene, id=f"{_plain(Path(scene.path).parent.name)}_{scene.id}") if is_same else scene)
    seen: Counter[str] = Counter()
    found = []
    for scene in longer:
        seen[scene.id] += 1
        found.append(scene if seen[scene.id] == 1 else replace(scene, id=f"{scene.id}_{seen[scene.id]}"))
    if len({scene.id for scene in found}) < len(found):
        raise DatasetError(f"{len(scenes)} scenes have ids that cannot be told apart; give each an id of its own")
    return found


def _of_list(path: Path) -> Iterator[CatalogScene]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if path.suffix.lower() != ".csv":
        yield from (_scene(_beside(line, path)) for line in lines)
        return
    columns = [column.strip().strip('"') for column in lines[0].split(",")] if lines else []
    if "path" not in columns:
        raise DatasetError(
            f"{path} has no column called path (columns: {', '.join(columns) or 'none'}); name it in the first line"
        )
    for line in lines[1:]:
        row = dict(zip(columns, (value.strip().strip('"') for value in line.split(",")), strict=False))
        if row.get("path"):
            yield _scene(_beside(row["path"], path), row.get("id", ""))


def _beside(name: str, catalog: Path) -> str:
    """Resolve a path against the folder of the catalog."""
    return name if is_remote(name) or Path(name).is_absolute() else str(catalog.parent / name)


def _of_tiles(place: str) -> Iterator[CatalogScene]:
    import pyogrio  # loads pandas

    try:
        meta, _, _, columns = pyogrio.raw.read(place, columns=["location"], read_geometry=False)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError) as error:
        raise DatasetError(
            f"{place} is no catalog ({' '.join(str(error).split())[:120]}); see the help for those that are"
        ) from error
    if [*meta["fields"]] != ["location"]:
        raise DatasetError(f"{place} has no column called location, as an index of tiles (gdaltindex) has")
    yield from (_scene(_beside(str(location), Path(place))) for location in columns[0])


def _of_parquet(place: str) -> Iterator[CatalogScene]:
    try:
        table = pyarrow.parquet.read_table(place)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DatasetError(f"{place} is no Parquet file ({' '.join(str(error).split())[:120]}); fetch it again") from error
    if "assets" in table.column_names and "id" in table.column_names:
        wanted = [name for name in table.column_names if name != "geometry"]
        yield from _of_items(table.select(wanted).to_pylist(), place)
    elif "location" in table.column_names:
        yield from (_scene(_beside(str(location), Path(place))) for location in table["location"].to_pylist())
    else:
        raise DatasetError(f"{place} has neither STAC items (id, assets) nor a column called location")


def _of_items(plain: Any, place: str) -> Iterator[CatalogScene]:
    if isinstance(plain, Mapping) and plain.get("type") == "Feature":
        plain = [plain]
    items = plain.get("features") if isinstance(plain, Mapping) else plain
    if not isinstance(items, list):
        raise DatasetError(f"{place} is neither a STAC item nor a collection of them")
    for item in items:
        if not isinstance(item, Mapping) or not isinstance(item.get("assets"), Mapping):
            raise DatasetError(f"{place} has a feature without assets; give STAC items")
        yield _of_item(item, place)


def _of_item(item: Mapping[str, Any], place: str) -> CatalogScene:
    """Take the one raster of an item, or the item itself where there are several: its bands are then found by name."""
    assets = {
        key: {**asset, "href": _resolved(str(asset["href"]), place)}
        for key, asset in item["assets"].items()
        if isinstance(asset, Mapping) and asset.get("href")
    }
    rasters = [asset["href"] for key, asset in assets.items() if _is_raster(key, asset)]
    name = _plain(str(item.get("id") or "scene"))
    whole = {**item, "assets": assets, "stac_version": item.get("stac_version", "1.0.0")}
    if "properties" not in whole:  # as in stac-geoparquet, whose columns they are
        whole["properties"] = {key: value for key, value in item.items() if key in ("datetime", "platform", "constellation")}
    return CatalogScene(name, rasters[0] if len(rasters) == 1 else "", whole)


def _is_raster(key: str, asset: Mapping[str, Any]) -> bool:
    roles = {str(role) for role in asset.get("roles") or ()} | {key}
    suffix = PurePosixPath(urlsplit(str(asset["href"])).path).suffix.lower()
    is_image = suffix in SUFFIXES or str(asset.get("type", "")).startswith("image/tiff")
    return is_image and not roles & _NOT_SCENES


def _resolved(href: str, place: str) -> str:
    if "://" in href or href.startswith("/vsi") or Path(href).is_absolute():
        return href
    return urljoin(place, href) if "://" in place else str(Path(place).absolute().parent / href)


def _json(place: str) -> Any:
    try:
        if "://" not in place:
            content = Path(place).read_bytes()
        else:
            if not place.lower().startswith(("http://", "https://")):
                raise DatasetError(f"{place} cannot be fetched; give a file or an http(s) address")
            request = urllib.request.Request(place, headers={"User-Agent": "geoglnet", "Accept": "application/json"})
            with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
                content = answer.read(_LARGEST)
        return json.loads(content)
    except (OSError, http.client.HTTPException) as error:
        raise DatasetError(f"{place} cannot be read ({' '.join(str(error).split())}); check it") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{place} is no JSON ({error}); give STAC items") from error
