"""Arrays as rasters: writes numpy and xarray arrays to temporary files, so that one path reads them all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning
from rasterio.windows import Window

from geoglnet.errors import ConfigError
from geoglnet.raster.failures import writing
from geoglnet.raster.files import silenced

_STRIP = 1024  # rows that are in memory at once, of arrays that are computed when they are read
_STORED = {"bool": "uint8", "float16": "float32"}  # types that GeoTIFF lacks
_EVEN = 1e-3  # of a pixel, by which coordinates may be off an even grid


@contextmanager
def array_raster(array: Any, *, transform: Affine | None = None, crs: Any = None) -> Iterator[Path]:
    """Write an array to a temporary GeoTIFF, which lives as long as the context; see :func:`write_array`."""
    with tempfile.TemporaryDirectory(prefix="geoglnet-") as folder:
        path = Path(folder, "array.tif")
        write_array(array, path, transform=transform, crs=crs)
        yield path


def write_array(array: Any, path: Path, *, transform: Affine | None = None, crs: Any = None) -> None:
    """Write an array to a GeoTIFF. Memory: a strip of 1024 rows, also of arrays that are computed when they are read.

    Args:
        array: ``(h, w)`` or ``(bands, h, w)`` numbers; masked arrays, and xarray's ``DataArray`` with its coordinates, CRS,
            nodata value and names of bands (a coordinate of texts, or ``long_name``).
        path: file to write.
        transform: pixel to CRS; left out, that of the coordinates, else none.
        crs: left out, that of a ``DataArray``.

    Raises:
        ConfigError: an array of another shape or type, or coordinates that are no grid.
        OutputError: the disk is full.
    """
    is_labeled = hasattr(array, "dims") and hasattr(array, "coords")
    if is_labeled:
        array = _bands_first(array)
    values = array if is_labeled else np.ma.asanyarray(array)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ConfigError(f"an array of shape {tuple(values.shape)} is not a raster; give (h, w) or (bands, h, w)")
    if values.ndim == 3 and not is_labeled and values.shape[2] <= 4 < values.shape[0]:
        raise ConfigError(f"an array of shape {tuple(values.shape)} has its bands last; give np.moveaxis(array, -1, 0)")
    dtype = _STORED.get(str(values.dtype), str(values.dtype))
    if np.dtype(dtype).kind not in "iufc":
        raise ConfigError(f"an array of {values.dtype} is not a raster; give numbers")
    if transform is None:
        transform = _transform_of(array) if is_labeled else Affine.identity()
    bands, (height, width) = 1 if values.ndim == 2 else values.shape[0], values.shape[-2:]
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": dtype, "count": bands, "height": height, "width": width}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "bigtiff": "IF_SAFER", "crs": _crs_of(array, crs)}
    profile |= {} if transform.is_identity else {"transform": transform}
    nodata = _nodata_of(array, dtype) if is_labeled else None
    profile |= {} if nodata is None else {"nodata": nodata}
    with writing(path), silenced(NotGeoreferencedWarning), rasterio.open(path, "w", **profile) as dst:
        if is_labeled and (names := _names_of(array, bands)):
            dst.descriptions = names
        for row in range(0, height, _STRIP):
            strip = values[..., row : row + _STRIP, :]
            plain: npt.NDArray[Any] = np.ma.asanyarray(strip.values if is_labeled else strip).reshape(bands, -1, width)
            window = Window(0, row, width, plain.shape[1])
            dst.write(np.ma.getdata(plain).astype(dtype), window=window)
            if np.ma.isMaskedArray(values):
                dst.write_mask(~np.ma.getmaskarray(plain).any(axis=0), window=window)


def _bands_first(array: Any) -> Any:
    """Bring a labeled array's bands before its rows and columns, which are the last two dimensions where no name tells."""
    columns = next((name for name in array.dims if name in ("x", "lon", "longitude")), None)
    rows = next((name for name in array.dims if name in ("y", "lat", "latitude")), None)
    return array if columns is None or rows is None else array.transpose(..., rows, columns)


def _names_of(array: Any, bands: int) -> tuple[str, ...] | None:
    """Return the names of a labeled array's bands, if it has some."""
    if array.ndim == 3 and array.dims[0] in array.coords and array.coords[array.dims[0]].dtype.kind in "UO":
        return tuple(map(str, array.coords[array.dims[0]].values.tolist()))
    long_name = array.attrs.get("long_name")
    names = (long_name,) if isinstance(long_name, str) else tuple(map(str, long_name or ()))
    return names if len(names) == bands else None


def _crs_of(array: Any, crs: Any) -> CRS | None:
    """Return the CRS that is given, else that of a labeled array as rioxarray and CF write it."""
    attributes = getattr(getattr(array, "coords", {}).get("spatial_ref"), "attrs", {})
    found = crs if crs is not None else attributes.get("crs_wkt") or attributes.get("spatial_ref")
    if found is None:
        return None
    try:
        return CRS.from_user_input(found.to_wkt() if hasattr(found, "to_wkt") else found)
    except CRSError as error:
        raise ConfigError(f"crs = {str(found)[:80]!r} is not a coordinate reference system ({error})") from error


def _nodata_of(array: Any, dtype: str) -> float | None:
    """Return the nodata value of a labeled array, if its type can hold it."""
    for source in (array.attrs, array.encoding):
        for key in ("_FillValue", "nodata"):
            if source.get(key) is not None:
                value = float(source[key])
                fits = np.dtype(dtype).kind == "f" or np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
                return value if fits else None
    return None


def _transform_of(array: Any) -> Affine:
    """Make the transform of a labeled array from the coordinates of its last two dimensions, at pixels' centers.

    Raises:
        ConfigError: they are not even.
    """
    names = array.dims[-2:]
    if not all(name in array.coords for name in names):
        return Affine.identity()
    written = getattr(array.coords.get("spatial_ref"), "attrs", {}).get("GeoTransform", "").split()
    sides = []
    for name, width in zip(names, (5, 1), strict=True):
        centers = np.asarray(array.coords[name].values, dtype=np.float64)
        if len(centers) == 1:  # the distance of a single one to the next is known from elsewhere only
            step = float(written[width]) if len(written) == 6 else 1.0
        else:
            step = float(centers[-1] - centers[0]) / (len(centers) - 1)
        even = centers[0] + step * np.arange(len(centers))
        if step == 0 or np.abs(centers - even).max() > _EVEN * abs(step):
            raise ConfigError(f"coordinate {name!r} is not an even grid; give transform, or interpolate the array")
        sides.append((centers[0] - step / 2, step))
    (top, height), (left, width_of) = sides
    return Affine(width_of, 0.0, left, 0.0, height, top)
