"""Stacks: bands of one raster or of several, read as one array on the grid of the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import array_bounds
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from geoglnet.errors import BandsError
from geoglnet.progress import Progress, Rule
from geoglnet.raster.band_reader import BandReader
from geoglnet.raster.band_sources import OpenRasters, SceneBands, open_options
from geoglnet.raster.failures import reading
from geoglnet.raster.files import GDAL_ERRORS, iter_files, silenced
from geoglnet.raster.gdal import environment
from geoglnet.raster.grid import Grid, described_m, georeference, ground_pixel_size, pixel_size_m
from geoglnet.types import Shape

Values: TypeAlias = npt.NDArray[Any]
Validity: TypeAlias = npt.NDArray[np.bool_]
SAMPLE_SIZE = 512
_MARGIN = 3  # pixels read around a window, for interpolation
_SAME_PLACE = 0.01  # of a pixel
_COVERED = 0.99  # of a scene, without a warning


class WarpedReader:
    """Bands of a raster with another CRS, resolution or extent, resampled to the grid of a scene.

    Every window is warped by itself, so that it does not depend on what was read before. Memory: the window's pixels in
    float32, and about as many of the raster, which are averages where it is finer than the grid.

    Args:
        reader: of the raster, on its own grid.
        grid: of the scene; both have a CRS.
    """

    def __init__(self, reader: BandReader, grid: Grid) -> None:
        self.reader = reader
        self._grid = grid
        with silenced(NotGeoreferencedWarning):
            self._place = georeference(reader.dataset)

    def reopened(self) -> WarpedReader:
        """Open the same raster once more, for another thread."""
        return WarpedReader(self.reader.reopened(), self._grid)

    def read_window(self, grid: Grid, window: Window) -> tuple[Values, Validity]:
        """Read a window of the scene's grid: averaged where the raster is finer, bilinear where it is coarser.

        Raises:
            SceneError: the file is truncated or damaged there.
        """
        shape = Shape(int(window.height), int(window.width))
        return self._warped(window_transform(window, grid.transform), shape, Resampling.bilinear)

    def sample(self, shape: Shape) -> tuple[Values, Validity]:
        """Read the nearest pixels over the whole scene at a shape.

        Raises:
            SceneError: the raster cannot be read.
        """
        scale = Affine.scale(self._grid.shape.width / shape.width, self._grid.shape.height / shape.height)
        return self._warped(self._grid.transform @ scale, shape, Resampling.nearest)

    @property
    def name(self) -> str:
        """Name of the raster for messages."""
        return self.reader.name

    def close(self) -> None:
        self.reader.close()

    @property
    def coverage(self) -> float:
        """Share of the scene's rectangle that the raster covers, about; without regard to its nodata."""
        place = self._window_of(self._grid.transform, self._grid.shape)
        if place is None:
            return 0.0
        rows = min(self.reader.shape.height, place.row_off + place.height) - max(0, place.row_off)
        cols = min(self.reader.shape.width, place.col_off + place.width) - max(0, place.col_off)
        return float(max(0, rows) * max(0, cols) / (place.height * place.width))

    def _warped(self, transform: Affine, shape: Shape, resampling: Resampling) -> tuple[Values, Validity]:
        """Read the bands on any grid in the scene's CRS: values in the raster's type, and where they are valid."""
        dtype, size = self.reader.dtype, (len(self.reader.bands), *shape)
        place = self._window_of(transform, shape)
        # Where the raster is finer than the grid, averages of step × step pixels are warped.
        step = 1 if place is None else max(1, math.floor(min(place.height / shape.height, place.width / shape.width)))
        source = None if place is None else _clipped(place, self.reader.shape, step)
        if source is None:
            return np.zeros(size, dtype), np.zeros(shape, np.bool_)
        few = Shape(math.ceil(source.height / step), math.ceil(source.width / step))
        is_nearest = step == 1 or resampling is Resampling.nearest
        warped = np.full(size, np.nan, np.float64 if dtype.itemsize > 4 else np.float32)
        # Arrays in memory have no place when rasterio creates datasets of them; it silences that itself, but for one thread.
        with reading(self.reader.dataset, source, self.reader.name), silenced(NotGeoreferencedWarning):
            values, valid = self.reader.read(source, few, Resampling.nearest if is_nearest else Resampling.average)
            reproject(
                np.where(valid, values, np.nan).astype(warped.dtype),
                warped,
                src_transform=self._place.transform
                @ Affine.translation(source.col_off, source.row_off)
                @ Affine.scale(source.width / few.width, source.height / few.height),
                src_crs=self._place.crs,
                src_nodata=np.nan,
                dst_transform=transform,
                dst_crs=self._grid.crs,
                dst_nodata=np.nan,
                resampling=resampling,
            )
        known = np.isfinite(warped).all(axis=0)
        warped[:, ~known] = 0
        return (np.rint(warped) if np.issubdtype(dtype, np.integer) else warped).astype(dtype), known

    def _window_of(self, transform: Affine, shape: Shape) -> Window | None:
        """Find where a grid in the scene's CRS lies in the raster, in its pixels; ``None`` where its CRS does not reach."""
        bounds = array_bounds(*shape, transform)
        if self._place.crs != self._grid.crs:
            try:
                bounds = transform_bounds(self._grid.crs, self._place.crs, *bounds, densify_pts=21)
            except GDAL_ERRORS:
                return None
        left, bottom, right, top = bounds
        corners = [~self._place.transform @ corner for corner in ((left, top), (right, top), (left, bottom), (right, bottom))]
        if not all(map(math.isfinite, (number for corner in corners for number in corner))):
            return None
        cols, rows = zip(*corners, strict=True)
        return Window(min(cols), min(rows), max(cols) - min(cols), max(rows) - min(rows))


class BandStack:
    """The open bands of a scene.

    Args:
        readers: one for every raster, the first of which has the scene's grid.
        names: what the bands are, in the scene's order.
        order: for every band of the scene, its place among those of all readers.
        is_product: whether the first raster is one file of a product, and not what the scene was opened by.
        metadata: files that describe the product.
    """

    def __init__(
        self,
        readers: Sequence[BandReader | WarpedReader],
        names: Sequence[str],
        order: Sequence[int],
        is_product: bool,
        metadata: tuple[str, ...] = (),
    ) -> None:
        self.readers = tuple(readers)
        self.names = tuple(names)
        self.is_product = is_product
        self._metadata = metadata
        self._order = list(order)

    @property
    def first(self) -> BandReader:
        """Reader of the first raster, whose grid is the scene's."""
        return _plain(self.readers[0])

    @property
    def bands(self) -> tuple[int, ...]:
        """1-based numbers of the bands in their rasters, in the scene's order."""
        numbers = [band for reader in map(_plain, self.readers) for band in reader.bands]
        return tuple(numbers[at] for at in self._order)

    @property
    def units(self) -> tuple[tuple[float, float], ...]:
        """Scale and offset of the bands, in the scene's order: physical value = stored value × scale + offset."""
        units = [unit for reader in map(_plain, self.readers) for unit in reader.units]
        return tuple(units[at] for at in self._order)

    @property
    def nodata_values(self) -> tuple[float | None, ...]:
        """Nodata values that the rasters declare for the bands, in the scene's order."""
        values = [reader.dataset.nodatavals[band - 1] for reader in map(_plain, self.readers) for band in reader.bands]
        return tuple(values[at] for at in self._order)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that are read."""
        return np.result_type(*(_plain(reader).dtype for reader in self.readers))

    @property
    def file_paths(self) -> tuple[str, ...]:
        """Names of all files that are read: the rasters, sidecars, parts of a VRT or tile index, a product's metadata."""
        names: dict[str, None] = {}
        for reader in map(_plain, self.readers):
            with environment(reader.dataset.name), silenced(NotGeoreferencedWarning):
                names |= dict.fromkeys(iter_files(reader.dataset))
        return (*names, *self._metadata)

    @property
    def rule(self) -> str:
        """Where bands of other rasters than the first come from, in words; empty for one raster."""
        parts = [
            f"band{'' if len(reader.bands) == 1 else 's'} {', '.join(map(str, reader.bands))} of {reader.name}"
            + ("" if reader.nodata is None else f" ({reader.nodata:.10g} is no value)")
            for reader in map(_plain, self.readers[1:])
        ]
        return " and ".join(parts)

    def close(self) -> None:
        for reader in self.readers:
            reader.close()

    def reopened(self) -> BandStack:
        """Open the same rasters once more, for another thread."""
        return BandStack(
            [reader.reopened() for reader in self.readers], self.names, self._order, self.is_product, self._metadata
        )

    def onto(self, grid: Grid) -> BandStack:
        """Resample all rasters to a grid that may lie elsewhere, in another CRS; the open datasets are shared."""
        warped = [WarpedReader(_plain(reader), grid) for reader in self.readers]
        return BandStack(warped, self.names, self._order, self.is_product)

    def read_window(self, grid: Grid, window: Window) -> tuple[Values, Validity]:
        """Read a window of the scene's grid, ``(C, h, w)``; valid where all rasters are.

        Raises:
            SceneError: a file is truncated or damaged there.
        """
        return self._stacked([reader.read_window(grid, window) for reader in self.readers])

    def sample(self, size: int, progress: Progress) -> tuple[Values, Validity]:
        """Read the nearest pixels of the whole scene at a shape of at most ``size`` × ``size``, and find undeclared nodata.

        Args:
            size: of the sample.
            progress: receives a warning about a value of the first raster that is taken for nodata.

        Raises:
            SceneError: a raster cannot be read.
        """
        shape = self.first.shape_within(size)
        values, valid = self.first.sample(shape)
        valid = self.first.exclude_sentinel(values, valid, progress)
        return self._stacked([(values, valid), *(reader.sample(shape) for reader in self.readers[1:])])

    def _stacked(self, parts: Sequence[tuple[Values, Validity]]) -> tuple[Values, Validity]:
        if len(parts) == 1:
            return parts[0]
        values = np.concatenate([values for values, _ in parts])[self._order]
        return values, np.logical_and.reduce([valid for _, valid in parts])


def open_stack(files: OpenRasters, bands: SceneBands, grid: Grid, nodata: float | None, progress: Progress) -> BandStack:
    """Open the rasters of a scene on its grid.

    Args:
        files: has opened them for the choice of bands.
        bands: of the scene.
        grid: of the scene, chosen over the first raster.
        nodata: value that all bands of the first raster have where a pixel has no value, beside what it declares.
        progress: receives rules, and warnings about other rasters than the first.

    Raises:
        BandsError: a raster does not overlap the scene, or has no place and another size.
        SceneError: a raster cannot be read.
    """
    readers: list[BandReader | WarpedReader] = []
    order: list[int] = []
    for path in dict.fromkeys((bands.first, *(source.path for source in bands.sources))):
        places = [at for at, source in enumerate(bands.sources) if source.path == path]
        sources = [bands.sources[at] for at in places]
        order += places
        is_first = path == bands.first
        reader = BandReader(
            files.open(path),
            tuple(source.number for source in sources),
            nodata if is_first and nodata is not None else sources[0].nodata,
            open_options(path),
            [source.unit for source in sources if source.unit is not None],
        )
        if not is_first and sources[0].nodata is None and reader.dtype != np.uint8:
            reader.exclude_sentinel(*reader.sample(reader.shape_within(SAMPLE_SIZE)), progress)
        fitted = reader if is_first else _fitted(reader, grid, readers[0].name, progress)
        if isinstance(fitted, BandReader):
            fitted = fitted.at_level(grid)
        files.on_error.callback(fitted.close)
        readers.append(fitted)
    stack = BandStack(readers, bands.names, [order.index(at) for at in range(len(order))], bool(bands.name), bands.metadata)
    stack.first.name = bands.name or stack.first.name
    return stack


def _fitted(reader: BandReader, grid: Grid, name: str, progress: Progress) -> BandReader | WarpedReader:
    """Fit another raster to the grid of a scene; pixel by pixel where both have one grid.

    Args:
        reader: of the other raster.
        grid: of the scene.
        name: of the scene's first raster.
        progress: receives the rule, and a warning where the raster covers a part of the scene only.
    """
    size, theirs = grid.native_shape, georeference(reader.dataset)
    native = grid.transform @ Affine.scale(grid.shape.width / size.width, grid.shape.height / size.height)
    if reader.shape == size and theirs.crs == grid.crs and _is_same_place(native, theirs.transform, size):
        return reader
    if grid.crs is None or theirs.crs is None:
        without = name if grid.crs is None else reader.name
        if reader.shape == size:
            progress.log(Rule(f"{reader.name} is read pixel by pixel with {name}, as {without} has no CRS"))
            return reader
        raise BandsError(
            f"{reader.name} has {reader.shape.width} × {reader.shape.height} px, {name} {size.width} × {size.height}, and "
            f"{without} has no CRS to place it by; give rasters of one size, or georeference both"
        )
    warped = WarpedReader(reader, grid)
    covered = warped.coverage
    if not covered:
        raise BandsError(f"{reader.name} does not overlap {name}; check the places and CRS of both")
    if covered < _COVERED:
        progress.warn(f"{reader.name} covers about {covered:.0%} of {name}; elsewhere there is no class")
    pixel_m = pixel_size_m(ground_pixel_size(theirs.crs, theirs.transform, reader.shape))
    pixels = "pixels of unknown size" if pixel_m is None else f"{described_m(pixel_m)} pixels"
    crs = "" if theirs.crs == grid.crs else f" in {theirs.crs.to_string()[:60]}"
    progress.log(Rule(f"{reader.name} ({pixels}{crs}) is resampled to the grid of {name}"))
    return warped


def _is_same_place(ours: Affine, theirs: Affine, size: Shape) -> bool:
    """Return whether two rasters of a size have the same pixels, but for a rounding error at any corner."""
    corners = ((0, 0), (size.width, 0), (0, size.height), (size.width, size.height))
    return all(math.dist(~ours @ (theirs @ corner), corner) <= _SAME_PLACE for corner in corners)


def _clipped(place: Window, shape: Shape, step: int) -> Window | None:
    """Enlarge a window by a margin, to whole steps, and cut it to a raster; ``None`` outside of it."""
    sides = []
    for start, extent, length in ((place.row_off, place.height, shape.height), (place.col_off, place.width, shape.width)):
        first = max(0, (math.floor(start / step) - _MARGIN) * step)
        last = min(length, (math.ceil((start + extent) / step) + _MARGIN) * step)
        if first >= last:
            return None
        sides.append((first, last))
    return Window.from_slices(*(slice(*side) for side in sides))


def _plain(reader: BandReader | WarpedReader) -> BandReader:
    return reader.reader if isinstance(reader, WarpedReader) else reader
