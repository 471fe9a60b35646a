"""What an output has to fulfill whatever its input was, and when two are the same."""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely
from rasterio.errors import NotGeoreferencedWarning, RasterioError

READ_ERRORS = (RasterioError, pyogrio.errors.DataSourceError, shapely.errors.GEOSException, OSError, ValueError)
VECTORS = (".gpkg", ".fgb", ".geojson", ".geojsonl", ".json", ".parquet")


def fault_of_output(path: Path) -> str:
    """Why a file is not a whole output of its kind; empty when it is one."""
    try:
        with warnings.catch_warnings(record=True) as said:  # what pyogrio makes of GDAL's; one that is raised there is lost
            warnings.simplefilter("always")
            fault = _fault_of(path)
        gdals = [warning for warning in said if issubclass(warning.category, RuntimeWarning)]
        return fault or (f"RuntimeWarning: {gdals[0].message}"[:100] if gdals else "")
    except READ_ERRORS as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"


def _fault_of(path: Path) -> str:
    if path.suffix.lower() in (".tif", ".tiff"):
        return _fault_of_raster(path)
    if path.suffix.lower() in VECTORS:
        return _fault_of_polygons(path)
    if path.suffix == ".safetensors":
        from geoglnet.models.checkpoint import load_checkpoint

        load_checkpoint(path)
    return ""


def _fault_of_raster(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as src:
            src.read()
            return "" if src.dtypes[0] == "uint8" else f"of {src.dtypes[0]}"


def _fault_of_polygons(path: Path) -> str:
    if path.suffix == ".geojsonl" and not path.stat().st_size:
        return ""  # no polygon, no line
    _, geometries, columns = rows(path)
    if path.suffix.lower() == ".gpkg":
        import sqlite3

        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            said = database.execute("PRAGMA integrity_check").fetchone()[0]
        if said != "ok":
            return f"integrity_check: {said}"
    if any(geometry is None for geometry in geometries):
        return "a row without a geometry"
    shapes = shapely.from_wkb(geometries)
    if not shapely.is_valid(shapes).all():
        return "invalid polygons"
    if shapely.is_empty(shapes).any() or not set(shapely.get_type_id(shapes)) <= {3, 6}:
        return "a row that is no polygon"
    areas = columns.get("area_m2", np.ones(1)).astype(float)  # objects, where all of them are null
    return "" if (areas[~np.isnan(areas)] >= 0).all() else "a negative area"


def rows(path: Path) -> tuple[dict[str, object], np.ndarray, dict[str, np.ndarray]]:
    """Facts, geometries as WKB, and columns of a vector file; under a plain name, for pyogrio takes others for URLs."""
    if not re.fullmatch(r"[A-Za-z0-9_/.-]+", str(path)):
        with tempfile.TemporaryDirectory() as folder:
            return rows(Path(shutil.copyfile(path, Path(folder, "plain").with_suffix(path.suffix))))
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path).to_pandas()
        name = next(name for name in ("geometry", "geom") if name in table)
        columns = {key: table[key].to_numpy() for key in table if key not in (name, "bbox")}
        return {}, table[name].to_numpy(), columns
    layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
    facts, _, geometries, values = pyogrio.raw.read(path, layer=layers[0] if layers else None)
    kept = {key: facts[key] for key in ("crs", "fields", "geometry_type") if key in facts}
    return kept, geometries, dict(zip(facts["fields"], values, strict=True))


def differences(folder: Path, expected: Path) -> list[str]:
    """How the files of a folder differ from those expected: bytes of all, rows of vector files (which carry time stamps)."""
    theirs = {path.relative_to(expected) for path in expected.rglob("*") if path.is_file()}
    found = []
    for name in sorted(theirs):
        if not (folder / name).is_file():
            found.append(f"{name} is missing")
        elif name.suffix in VECTORS:
            if not _equal_rows(folder / name, expected / name):
                found.append(f"rows of {name} differ")
        elif ".run/" not in str(name) and (folder / name).read_bytes() != (expected / name).read_bytes():
            found.append(f"bytes of {name} differ")
    return found


def _equal_rows(path: Path, other: Path) -> bool:
    (facts, geometries, columns), (others_facts, others_geometries, others_columns) = rows(path), rows(other)
    same = [
        str(facts) == str(others_facts),
        list(geometries) == list(others_geometries),
        columns.keys() == others_columns.keys(),
    ]
    return all(same) and all(
        np.array_equal(values, others_columns[name], equal_nan=values.dtype.kind == "f") for name, values in columns.items()
    )
