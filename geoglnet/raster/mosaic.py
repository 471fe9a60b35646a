"""Mosaics: many rasters read as one, without copying a pixel, through GDAL's virtual format (VRT)."""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geoglnet.errors import SceneError
from geoglnet.legend import NO_CLASS
from geoglnet.raster.band_choice import check_real
from geoglnet.raster.crs import stored_wkt
from geoglnet.raster.files import Mosaic, is_remote, short_name
from geoglnet.raster.gdal import environment, open_raster
from geoglnet.raster.grid import BARE_TRANSFORM, georeference
from geoglnet.types import Shape, StrPath

_ALIGNMENT = 0.05  # of a pixel: most that scenes of one mosaic may be off each other's grid
_LARGEST_EMPTY = 2**31  # pixels of a mosaic, up to which it may be empty for the most part
_LEAST_COVERED = 1e-3  # of a larger one that must be covered; a thousand tiles along a diagonal valley cover this much
_EACH = "or predict each for itself (geoglnet batch)"
_RGB = ("Red", "Green", "Blue")
_NAMED = (*_RGB, "Alpha")
_GDAL_TYPES = {"uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32"} | {
    "float32": "Float32",
    "float64": "Float64",
}


def write_block_mosaic(
    path: Path,
    blocks: Iterable[tuple[str, Window, Window]],
    shape: Shape,
    num_bands: int,
    place: tuple[CRS | None, Affine],
) -> None:
    """Write a VRT of block files; gaps between blocks are nodata, 255. Memory: some 2 kB per block and band.

    Args:
        path: VRT to write; the blocks lie below its folder.
        blocks: file names relative to the folder, the window of each that is used, and where in the mosaic that lies.
        shape: of the mosaic.
        num_bands: number of bands of every block.
        place: CRS and transform of the mosaic.
    """
    root = _root(shape, *place)
    bands = [_band(root, number, "Byte") for number in range(1, num_bands + 1)]
    for band in bands:
        ElementTree.SubElement(band, "NoDataValue").text = str(NO_CLASS)
    for name, part, window in blocks:
        for number, band in enumerate(bands, start=1):
            _source(band, "SimpleSource", name, str(number), part, window, is_beside=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8")


def mosaic_of(paths: Sequence[StrPath]) -> Mosaic:
    """Combine several scenes on one grid to a VRT; where they overlap, the last valid pixel wins.

    Args:
        paths: scenes; bands, types and colors are those of the first one.

    Returns:
        XML that GDAL opens like a file name.

    Raises:
        SceneNotFoundError: a scene is missing.
        SceneError: a scene cannot be read; they are not of one CRS, pixel size, orientation, type, band count and colors;
            or they are so far apart that the mosaic is nearly empty.
    """
    # Every check comes before the first pixel: a scene that does not fit would otherwise end a run of hours.
    parts = [_described(path) for path in paths]
    first = parts[0]
    for other in parts[1:]:
        _check_alike(first, other)
    # In pixels of the first scene's grid, then shifted so that the mosaic begins at its upper left scene.
    windows = [part.window_in(first.transform) for part in parts]
    top, left = (int(min(getattr(window, name) for window in windows)) for name in ("row_off", "col_off"))
    shape = Shape(
        int(max(window.row_off + window.height for window in windows)) - top,
        int(max(window.col_off + window.width for window in windows)) - left,
    )
    _check_coverage(parts, shape)
    root = _root(shape, first.crs, first.transform @ Affine.translation(left, top))
    placed = [
        (part, Window(window.col_off - left, window.row_off - top, window.width, window.height))
        for part, window in zip(parts, windows, strict=True)
    ]
    orders = [_bands_as(first, part) for part in parts]
    for number, (kind, color) in enumerate(zip(first.dtypes, first.colors, strict=True)):
        band = _band(root, number + 1, kind)
        ElementTree.SubElement(band, "ColorInterp").text = color
        for (part, window), order in zip(placed, orders, strict=True):
            _masked_source(band, part.name, str(order[number]), part.whole, window)
    # One mask for all bands, made of the scenes' own masks (nodata, alpha or mask band): 0 where no scene is valid.
    mask = _band(ElementTree.SubElement(root, "MaskBand"), None, "Byte")
    for part, window in placed:
        source = _source(mask, "ComplexSource", part.name, "mask,1", part.whole, window)
        ElementTree.SubElement(source, "NODATA").text = "0"
    return Mosaic(ElementTree.tostring(root, encoding="unicode"))


@dataclass(frozen=True, slots=True)
class _Part:
    """One scene of a mosaic."""

    name: str
    shape: Shape
    crs: CRS | None
    transform: Affine
    dtypes: tuple[str, ...]
    colors: tuple[str, ...]

    @property
    def whole(self) -> Window:
        """Window of all its pixels."""
        return Window(0, 0, self.shape.width, self.shape.height)

    def window_in(self, grid: Affine) -> Window:
        """Find its window, in whole pixels, on the grid of another transform.

        Raises:
            SceneError: its pixels lie between those of the grid.
        """
        col, row = ~grid @ (self.transform.c, self.transform.f)
        if max(abs(col - round(col)), abs(row - round(row))) > _ALIGNMENT:
            raise SceneError(
                f"{self.name} lies {col % 1:.2f}, {row % 1:.2f} px off the first scene's grid; warp them to one grid, {_EACH}"
            )
        return Window(round(col), round(row), self.shape.width, self.shape.height)


def _described(path: StrPath) -> _Part:
    """Open a scene and record what the mosaic needs to know of it."""
    with open_raster(path) as src, environment(path):
        check_real(src, src.indexes)
        place = georeference(src)
        if place.transform == BARE_TRANSFORM:
            raise SceneError(
                f"{short_name(src.name)} {place.remark or 'has no georeference'}, so its place in the mosaic is unknown; "
                "predict it separately (geoglnet batch)"
            )
        unknown = sorted({dtype for dtype in src.dtypes if dtype not in _GDAL_TYPES})
        if unknown:
            raise SceneError(f"{src.name} holds {unknown[0]} values; convert it with gdal_translate -ot Float32")
        name = src.name if is_remote(path) or src.name.startswith("<") else str(Path(src.name).absolute())
        types = tuple(_GDAL_TYPES[dtype] for dtype in src.dtypes)
        return _Part(name, Shape(*src.shape), src.crs, src.transform, types, _colors(src))


def _colors(src: DatasetReader) -> tuple[str, ...]:
    """Return the color interpretation of every band, spelled as in VRTs."""
    return tuple(kind.name.capitalize() if kind.name != "gray" else "Gray" for kind in src.colorinterp)


def _check_alike(first: _Part, other: _Part) -> None:
    """Refuse a scene with another CRS, other types or numbers of bands, or other pixels than the first one."""
    for what, found, wanted in (("CRS", other.crs, first.crs), ("bands", other.dtypes, first.dtypes)):
        if found != wanted:
            raise SceneError(
                f"{other.name} has {what} {_text(found)}, {first.name} {_text(wanted)}; warp them to one grid, or give a VRT, "
                + _EACH
            )
    ours, theirs = first.transform, other.transform
    tolerance = 1e-6 * math.hypot(ours.a, ours.d)  # rounding errors of whoever wrote the file
    if any(abs(getattr(ours, name) - getattr(theirs, name)) > tolerance for name in "abde"):
        raise SceneError(
            f"{other.name} has {_steps(theirs)}, {first.name} {_steps(ours)}; put them on one grid with gdalwarp, {_EACH}"
        )


def _text(value: object) -> str:
    """Write a value for a message."""
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _steps(transform: Affine) -> str:
    """Describe the size and orientation of a transform's pixels."""
    turned = math.degrees(math.atan2(transform.d, transform.a)) % 180
    return "".join(
        (
            f"pixels of {math.hypot(transform.a, transform.d):.6g} × {math.hypot(transform.b, transform.e):.6g}",
            " in rows that run northwards" if transform.e > 0 else "",
            " in columns that run westwards" if transform.a < 0 else "",
            f" turned by {turned:.3g}°" if 1e-6 < turned < 180 - 1e-6 else "",
        )
    )


def _bands_as(first: _Part, other: _Part) -> list[int]:
    """Find the 1-based band of a scene for every band of the first one: by colors where both name red, green and blue.

    Raises:
        SceneError: their colors contradict each other.
    """
    in_order = list(range(1, len(first.colors) + 1))
    if other.colors == first.colors:
        return in_order
    # Both name all colors, in different orders: match by color, and the others in order.
    ours, theirs = ({kind: part.colors.index(kind) for kind in _NAMED if kind in part.colors} for part in (first, other))
    if all(color in ours and color in theirs for color in _RGB) and ours.keys() == theirs.keys():
        spare = iter(index for index in range(len(in_order)) if index not in theirs.values())
        return [1 + (theirs[kind] if kind in theirs else next(spare)) for kind in first.colors]
    # One names fewer colors (GDAL calls the bands of many files gray or undefined): in order, if nothing contradicts it and
    # what only one of them names is where red, green and blue usually are.
    is_same = all(ours[kind] == theirs[kind] for kind in ours.keys() & theirs.keys())
    lone = {kind: index for kind, index in (ours | theirs).items() if kind not in ours or kind not in theirs}
    if is_same and all(lone.get(color, index) == index for index, color in enumerate(_RGB)):
        return in_order
    raise SceneError(
        f"{other.name} has the colors {_text(other.colors)}, {first.name} {_text(first.colors)}; give both the same, "
        "in one order, with gdal_edit.py -colorinterp_1 red …, or gdal_translate -b"
    )


def _check_coverage(parts: Sequence[_Part], shape: Shape) -> None:
    """Refuse scenes so far apart that their mosaic is nearly empty.

    Raises:
        SceneError: they cover less than a thousandth of a large mosaic.
    """
    total, covered = math.prod(shape), sum(math.prod(part.shape) for part in parts)
    if total <= _LARGEST_EMPTY or covered >= _LEAST_COVERED * total:
        return
    first = parts[0]
    centers = [part.transform @ (part.shape.width / 2, part.shape.height / 2) for part in parts]
    furthest = max(zip(centers, parts, strict=True), key=lambda one: math.dist(one[0], centers[0]))[1]
    empty = min(100 * (1 - covered / total), 99.9999)
    raise SceneError(
        f"{len(parts)} scenes make a mosaic of {shape.width} × {shape.height} px, of which {empty:.6g} % is empty "
        f"({first.name} and {furthest.name} lie furthest apart); predict them separately, "
        "each with an output of its own (geoglnet batch)"
    )


def _root(shape: Shape, crs: CRS | None, transform: Affine) -> ElementTree.Element:
    """Begin a VRT."""
    root = ElementTree.Element("VRTDataset", rasterXSize=str(shape.width), rasterYSize=str(shape.height))
    if crs is not None:
        ElementTree.SubElement(root, "SRS", dataAxisToSRSAxisMapping="1,2").text = stored_wkt(crs)
    ElementTree.SubElement(root, "GeoTransform").text = ", ".join(repr(float(n)) for n in transform.to_gdal())
    return root


def _band(parent: ElementTree.Element, number: int | None, kind: str) -> ElementTree.Element:
    """Add a band of a data type; a mask band has no number."""
    numbered = {} if number is None else {"band": str(number)}
    return ElementTree.SubElement(parent, "VRTRasterBand", {"dataType": kind} | numbered)


def _masked_source(band: ElementTree.Element, name: str, number: str, whole: Window, window: Window) -> None:
    """Add a scene to a band; its invalid pixels leave those of the scenes before it."""
    source = _source(band, "ComplexSource", name, number, whole, window)
    ElementTree.SubElement(source, "UseMaskBand").text = "true"


def _source(
    band: ElementTree.Element, kind: str, name: str, number: str, part: Window, place: Window, *, is_beside: bool = False
) -> ElementTree.Element:
    """Add a source to a band: a window of a file, and the window of the mosaic that it fills."""
    source = ElementTree.SubElement(band, kind)
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT=str(int(is_beside))).text = os.fspath(name)
    ElementTree.SubElement(source, "SourceBand").text = number
    for tag, window in (("SrcRect", part), ("DstRect", place)):
        ElementTree.SubElement(source, tag, _rectangle(window))
    return source


def _rectangle(window: Window) -> dict[str, str]:
    """Write a window as the attributes of a VRT."""
    numbers = (window.col_off, window.row_off, window.width, window.height)
    return {key: str(int(number)) for key, number in zip(("xOff", "yOff", "xSize", "ySize"), numbers, strict=True)}
