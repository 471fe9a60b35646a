"""Bands of a raster: which of them a model reads, and whether their values are real."""

from __future__ import annotations

from collections.abc import Iterable

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from geoglnet.errors import BandsError, SceneError
from geoglnet.raster.files import short_name

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def choose_bands(dataset: DatasetReader, count: int | None = None) -> tuple[int, ...]:
    """Choose the 1-based bands of a raster for a model of ``count`` bands; never the alpha band.

    Three bands are red, green and blue by their color interpretation; otherwise the first ``count`` are taken; without a count,
    three or as many as there are.

    Raises:
        BandsError: the raster has fewer bands.
    """
    name = short_name(dataset.name)
    if not dataset.count:
        parts = f"name one of its parts, such as {dataset.subdatasets[0]}" if dataset.subdatasets else "give another raster"
        raise BandsError(f"{name} has no bands; {parts}")
    kinds = dataset.colorinterp
    usable = tuple(i for i, kind in enumerate(kinds, start=1) if kind != ColorInterp.alpha)
    if not usable:
        raise BandsError(f"{name} has an alpha band and nothing else; give another raster")
    count = min(len(RGB), len(usable)) if count is None else count
    if count == len(RGB) and all(kind in kinds for kind in RGB):
        return tuple(kinds.index(kind) + 1 for kind in RGB)
    if len(usable) >= count:
        return usable[:count]
    # A palette is one band of numbers whose colors GDAL does not apply by itself.
    if ColorInterp.palette in kinds:
        raise BandsError(f"{name} has one band of palette colors, {count} are needed; use gdal_translate -expand rgb")
    found = f"{len(usable)} image band{'' if len(usable) == 1 else 's'}"
    raise BandsError(f"{name} has {found}, {count} are needed; choose another model or raster")


def checked_bands(dataset: DatasetReader, bands: tuple[int, ...]) -> tuple[int, ...]:
    """Refuse band numbers that the raster lacks.

    Raises:
        BandsError: there is no such band, or none is chosen.
    """
    name = short_name(dataset.name)
    wrong = [b for b in bands if not 1 <= b <= dataset.count]
    if wrong or not bands:
        found = f"there is no band {wrong[0]}" if wrong else "no bands are chosen"
        raise BandsError(f"{found}: {name} has bands 1 to {dataset.count}; choose among them")
    return bands


def check_real(dataset: DatasetReader, bands: Iterable[int] = (1,)) -> None:
    """Refuse complex values, of which reading would silently take the real part.

    Raises:
        SceneError: one of the 1-based bands holds them.
    """
    for band in bands:
        if dataset.dtypes[band - 1].startswith("complex"):
            name = short_name(dataset.name)
            raise SceneError(
                f"{name} holds complex values ({dataset.dtypes[band - 1]} in band {band}), which are not an image; "
                f"give its amplitude, DERIVED_SUBDATASET:AMPLITUDE:{name}"
            )
