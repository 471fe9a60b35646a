"""Existing files under the name of an output: whether they may be replaced, and what happens to their sidecars.

Formats and programs keep files beside a raster or a vector file, and find them by its name. When the file is replaced, none of
them may describe the new one:

* Files that programs make again by themselves are removed: statistics, pyramids and masks of GDAL (``labels.tif.aux.xml``,
  ``.ovr``, ``.msk``), tables of ArcGIS (``.vat.dbf``), journals of SQLite (``roofs.gpkg-wal``, ``-shm``, ``-journal``).
* Files that people make are renamed to ``….old``: styles and descriptions of QGIS (``labels.qml``, ``.sld``, ``.qmd``),
  metadata of ArcGIS (``labels.tif.xml``), world files and projections (``labels.tfw``, ``.wld``, ``.prj``). Those named after
  the stem may belong to another file of that stem (``labels.png``), and stay where there is one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from geoglnet.errors import OutputError
from geoglnet.escaping import sql_name
from geoglnet.types import StrPath

CARRIED = (".aux.xml", ".ovr", ".msk")  # sidecars of a part file that are renamed with it
_MACHINE_MADE = (*CARRIED, ".ovr.aux.xml", ".msk.ovr", ".vat.dbf", ".vat.cpg", "-wal", "-shm", "-journal")
_BY_HAND = (".xml",)
_BY_HAND_OF_THE_STEM = (".qml", ".sld", ".qmd", ".prj", ".wld")
_RESERVED_NAMES = ("gpkg_", "rtree_", "sqlite_", "layer_styles")
_SPECIAL = "`~!@#$%^&*()+-={}|[]\\:\";'<>?,./ "  # GDAL refuses names of layers that begin with one of these
OUR_COLUMNS = frozenset({"class_id", "class_name", "area_m2", "perimeter_m", "confidence", "part_of", "scene", "model"})
_TABLES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"


def layer_name(path: StrPath) -> str:
    """Name the layer of a vector file: by its stem, after ``polygons_`` where that is reserved or begins with a sign."""
    stem = Path(path).stem
    is_refused = stem.lower().startswith(_RESERVED_NAMES) or stem[:1] in _SPECIAL
    return f"polygons_{stem}" if is_refused else stem


def machine_made(path: Path) -> list[Path]:
    """List the paths of sidecars that programs can make again, whether they exist or not."""
    return [path.with_name(path.name + suffix) for suffix in _MACHINE_MADE]


def made_by_hand(path: Path) -> Iterator[Path]:
    """Yield the existing sidecars that people made for a file, and for no other file of the same stem."""
    yield from (beside for suffix in _BY_HAND if (beside := path.with_name(path.name + suffix)).is_file())
    suffix = path.suffix.lower()
    world = (f".{suffix[1]}{suffix[-1]}w", f"{suffix}w") if len(suffix) > 2 else ()  # .tif: .tfw and .tifw
    of_the_stem = (*_BY_HAND_OF_THE_STEM, *world)
    # A folder may hold a hundred thousand files: it is listed only where there is something to decide.
    found = [beside for one in of_the_stem if (beside := path.with_suffix(one)).is_file()]
    if found and not _is_shared(path, of_the_stem):
        yield from found


def _is_shared(path: Path, of_the_stem: Collection[str]) -> bool:
    """Return whether another file of the same stem could own the sidecars."""
    others = (other for other in path.parent.iterdir() if other.stem == path.stem and other.name != path.name)
    return any(other.suffix.lower() not in of_the_stem for other in others if other.is_file())


def set_aside(path: Path) -> None:
    """Rename a file to the first free of ``….old``, ``….old2`` and so on."""
    number = 1
    while (kept := path.with_name(f"{path.name}.old{number if number > 1 else ''}")).exists():
        number += 1
    path.rename(kept)


def check_replaceable(path: Path) -> None:
    """Refuse to replace a GeoPackage, or another SQLite database, that holds more than a layer of ours.

    Raises:
        OutputError: it holds other tables or styles, which the message names.
    """
    try:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                return
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as database:
            foreign = _foreign(database, path)
    except sqlite3.OperationalError as error:
        raise OutputError(
            f"{path} cannot be checked before it is replaced ({error}); close the program that uses it"
        ) from error
    except (sqlite3.DatabaseError, OSError):
        return  # damaged: there is nothing to lose
    if foreign:
        named = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise OutputError(f"{path} holds more than a layer of ours ({named}), which would be lost; choose another output")


def _foreign(database: sqlite3.Connection, path: Path) -> list[str]:
    """Name the tables and styles that replacing the file would lose: all but a single layer of ours and its style."""
    tables = [name for (name,) in database.execute(_TABLES) if not name.lower().startswith(_RESERVED_NAMES)]
    ours = [name for name in tables if _columns(database, name) >= OUR_COLUMNS]
    named = [name for name in tables if name == layer_name(path)]
    # The layer that is replaced: the only one with our columns, whatever its name (users rename files); of several, the one
    # with the file's name.
    replaced = (ours if len(ours) == 1 or not named else named)[:1] or named[:1]
    styles = "layer_styles" in (name for (name,) in database.execute(_TABLES))
    styled = {name for (name,) in database.execute("SELECT f_table_name FROM layer_styles")} if styles else set()
    return [
        *(name for name in tables if name not in replaced),
        *(f"style of {name}" for name in sorted(map(str, styled)) if name not in tables),
    ]


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    """Return the names of a table's columns."""
    return {row[1] for row in database.execute(f"PRAGMA table_info({sql_name(table)})")}
