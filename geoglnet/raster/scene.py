"""Scenes: rasters of any size, type and georeference, read window by window as 8-bit images at a chosen resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geoglnet.bands import Bands
from geoglnet.config import ScalingRule
from geoglnet.errors import ConfigError, SceneError
from geoglnet.message import Keyword
from geoglnet.progress import Progress, Rule, SilentProgress
from geoglnet.raster.band_choice import check_real, checked_bands, choose_bands
from geoglnet.raster.band_reader import BandReader
from geoglnet.raster.failures import check_filled, reading
from geoglnet.raster.files import Mosaic, iter_files, short_name, silenced
from geoglnet.raster.gdal import environment, open_raster
from geoglnet.raster.grid import Grid, choose_grid, ground_pixel_size, pixel_size_m
from geoglnet.raster.scaling import AS_IS, Scaling, choose_scaling, find_collar, find_sentinel
from geoglnet.types import Shape, StrPath

SAMPLE_SIZE = 512


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixels of a window.

    Args:
        image: ``(C, h, w)`` uint8; undefined where ``valid`` is false.
        valid: ``(h, w)`` bool; false for nodata, transparent and masked pixels.
    """

    image: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_]


class Scene(Protocol):
    """Port: a raster that can be read window by window."""

    @property
    def name(self) -> str:
        """Name for messages: a path or another identity."""

    @property
    def shape(self) -> Shape: ...

    @property
    def transform(self) -> Affine: ...

    @property
    def crs(self) -> CRS | None: ...

    @property
    def num_bands(self) -> int: ...

    @property
    def pixel_size_m(self) -> float | None:
        """Geodesic ground size of a pixel at the scene's center in meters; ``None`` without a CRS."""

    def read_window(self, window: Window) -> Pixels:
        """Read a window of whole pixels inside the scene."""

    def reopened(self) -> AbstractContextManager[Scene]:
        """Open the same scene once more, for another thread, until the context ends."""


@dataclass(frozen=True, slots=True)
class ArrayScene:
    """A scene in memory, for tests and for images that are arrays already.

    Args:
        image: ``(C, H, W)`` uint8.
        valid: ``(H, W)`` bool; all pixels when left out.
        transform: pixel to CRS coordinates.
        crs: coordinate reference system.
        name: identity for messages.
    """

    image: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.bool_] | None = None
    transform: Affine = Affine.identity()  # noqa: RUF009 - an Affine is a tuple
    crs: CRS | None = None
    name: str = "array"

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.dtype != np.uint8:
            raise SceneError(
                f"{self.name} is {self.image.dtype} of shape {self.image.shape}; give (bands, height, width) uint8"
            )

    @property
    def shape(self) -> Shape:
        return Shape(*self.image.shape[1:])

    @property
    def num_bands(self) -> int:
        return int(self.image.shape[0])

    @property
    def pixel_size_m(self) -> float | None:
        return pixel_size_m(ground_pixel_size(self.crs, self.transform, self.shape))

    def read_window(self, window: Window) -> Pixels:
        rows, cols = _inside(window, self.shape).toslices()
        image = self.image[:, rows, cols]
        valid = np.ones(image.shape[1:], bool) if self.valid is None else self.valid[rows, cols]
        return Pixels(image, valid)

    def reopened(self) -> AbstractContextManager[Scene]:
        return nullcontext(self)


class RasterScene:
    """A raster dataset as a :class:`Scene`; made by :func:`open_scene`, closed by ``with`` or :meth:`close`.

    A read costs the window's pixels in the raster's type, their float32 copy unless the raster is 8-bit, and GDAL's cache.
    """

    def __init__(
        self,
        dataset: DatasetReader,
        bands: tuple[int, ...],
        grid: Grid,
        scaling: Scaling = AS_IS,
        open_options: Mapping[str, Any] | None = None,
        nodata: float | None = None,
    ) -> None:
        self.scaling = scaling
        self.name = short_name(dataset.name)
        self._open_options = dict(open_options or {})
        self._reader = BandReader(dataset, bands, nodata)
        self._grid = grid

    @property
    def bands(self) -> tuple[int, ...]:
        """1-based numbers of the raster's bands that are read, in order."""
        return self._reader.bands

    @property
    def nodata(self) -> float | None:
        """Value that all bands have where a pixel has no value, beside what the raster itself declares."""
        return self._reader.nodata

    @property
    def shape(self) -> Shape:
        return self._grid.shape

    @property
    def transform(self) -> Affine:
        return self._grid.transform

    @property
    def crs(self) -> CRS | None:
        return self._grid.crs

    @property
    def num_bands(self) -> int:
        return len(self.bands)

    @property
    def pixel_size_m(self) -> float | None:
        return self._grid.pixel_size_m

    @property
    def file_paths(self) -> tuple[str, ...]:
        """Names of all files that the raster is made of: itself, sidecars, parts of a VRT or tile index, and their parts."""
        with environment(self._reader.dataset.name), silenced(NotGeoreferencedWarning):
            return tuple(iter_files(self._reader.dataset))

    @property
    def native_pixel_size_m(self) -> float | None:
        """Ground size of the raster's own pixels, before they are resampled; ``None`` without a CRS."""
        return self._grid.native_pixel_size_m

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._reader.dataset.close()

    def reopened(self) -> RasterScene:
        """Open the same scene once more, for another thread: GDAL datasets cannot be shared.

        Raises:
            SceneError: the file is gone.
        """
        dataset = open_raster(self._reader.dataset.name, **self._open_options)
        scene = RasterScene(dataset, self.bands, self._grid, self.scaling, self._open_options, self.nodata)
        scene.name = self.name
        return scene

    def read_window(self, window: Window) -> Pixels:
        """Read a window, resampled to the scene's grid: averaged when coarser than the raster, bilinear when finer.

        A pixel is valid when at least half of its area is.

        Raises:
            ConfigError: the window is not inside the scene.
            SceneError: the file is truncated or damaged there.
        """
        # A small window is read with some of its surroundings, else GDAL would not resample it as part of a larger one.
        large = self._grid.readable(_inside(window, self.shape))
        source = self._grid.source_window(large, _shape(self._reader.dataset))
        with reading(self._reader.dataset, source, self.name):
            values, valid = self._reader.read(source, Shape(int(large.height), int(large.width)), self._grid.resampling)
            check_filled(self._reader.dataset, self.bands, source, values)
        rows, cols = Window(
            window.col_off - large.col_off, window.row_off - large.row_off, window.width, window.height
        ).toslices()
        return Pixels(self.scaling.apply(values[:, rows, cols]), valid[rows, cols])

    @property
    def values_rule(self) -> str:
        """Rule by which values are read, in words; empty for 8-bit values as they are."""
        nodata = "" if self.nodata is None else f"{self.nodata:g} is no value"
        return "; ".join(part for part in ("" if self.scaling == AS_IS else str(self.scaling), nodata) if part)

    def measure(self, rule: ScalingRule, progress: Progress) -> None:
        """Choose the scaling from a decimated read of the whole raster, without values that stand for "no value".

        Args:
            rule: rule of the model.
            progress: receives warnings about doubtful values.

        Raises:
            SceneError: the raster cannot be read.
        """
        # One cheap read of at most 512 × 512 pixels, which is the same for every block, machine and resumed run.
        factor = max(1.0, max(_shape(self._reader.dataset)) / SAMPLE_SIZE)
        shape = Shape(*(max(1, round(n / factor)) for n in _shape(self._reader.dataset)))
        whole = Window(col_off=0, row_off=0, width=self._reader.dataset.width, height=self._reader.dataset.height)
        # Nearest, because averages would mix undeclared nodata into the values, and pull extremes together.
        with reading(self._reader.dataset, name=self.name):
            values, valid = self._reader.read(whole, shape, Resampling.nearest)
        sentinel = find_sentinel(values[:, valid]) if values.dtype != np.uint8 else None
        if sentinel is not None:
            is_sentinel = (values == sentinel).all(axis=0)
            if self.nodata is None and (is_sentinel & valid).any():
                self._reader.nodata = sentinel
                progress.warn(
                    f"{self.name}: {sentinel:g} lies far from all other values and is read as nodata, in "
                    f"{np.mean(is_sentinel):.1%} of the pixels; choose another value with " + Keyword("nodata")
                )
            valid &= ~is_sentinel
        collar = find_collar(values, valid) if values.dtype != np.uint8 else None
        if collar is not None:
            progress.warn(
                f"{self.name}: all bands are {collar:g} along one of its sides; if that means nodata, pass "
                + Keyword("nodata", collar)
            )
        self.scaling = choose_scaling(values[:, valid], values.dtype, rule)
        if self.scaling.doubt:
            progress.warn(f"{self.name}: " + self.scaling.doubt)


def open_scene(
    path: StrPath,
    *,
    bands: Sequence[int] | None = None,
    model_bands: Bands | None = None,
    resolution_m: float | None = None,
    assumed_pixel_size_m: float | None = None,
    scaling: Scaling | None = None,
    nodata: float | None = None,
    is_strict: bool = False,
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> RasterScene:
    """Open a raster for reading at a resolution; every rule that is applied goes to ``progress.log``.

    >>> from rasterio.windows import Window
    >>> with open_scene("scene.tif", resolution_m=0.5) as scene:
    ...     pixels = scene.read_window(Window(col_off=10, row_off=20, width=100, height=50))
    >>> pixels.image.shape, pixels.image.dtype, bool(pixels.valid.all())
    ((3, 50, 100), dtype('uint8'), True)

    Nothing is read but the header (of rasters other than uint8, also a decimated picture); a window costs its own pixels.

    Args:
        path: anything GDAL opens: a file, a URL, a /vsi path.
        bands: 1-based bands to read in this order; left out, see :func:`~geoglnet.raster.band_choice.choose_bands`.
        model_bands: bands of a model: as many are chosen when ``bands`` is left out, and their rule scales the values. Left
            out, three bands, or as many as there are, by the rule for their type.
        resolution_m: ground pixel size of the grid that windows refer to; the raster's own when left out.
        assumed_pixel_size_m: pixel size of a raster without CRS.
        scaling: scaling of values to 0–255; chosen by the rule of ``model_bands`` when left out.
        nodata: value that all bands have where a pixel has no value, beside what the raster itself declares. Left out, values
            such as -9999 that lie far from all others are found and warned about, except in 8-bit rasters and where ``scaling``
            is passed.
        is_strict: refuse a raster that is much too coarse for ``resolution_m``, instead of interpolating it.
        progress: receives the rules that are applied.

    Returns:
        The scene, open; use it in a ``with``. Windows come as ``(C, h, w)`` uint8 with ``(h, w)`` validity.

    Raises:
        SceneNotFoundError: there is no such file.
        SceneError: the file is not a raster, it is damaged, or its values are complex.
        BandsError: the raster lacks the bands.
        ResolutionError: ``is_strict``, and the raster's pixels are more than four times as large.
    """
    with environment(path), ExitStack() as on_error:  # listing pyramid levels searches for sidecars
        options: dict[str, Any] = {"driver": "VRT"} if isinstance(path, Mosaic) else {}
        dataset = on_error.enter_context(open_raster(path, **options))
        count = None if model_bands is None else len(model_bands)
        chosen = choose_bands(dataset, count) if bands is None else checked_bands(dataset, tuple(bands))
        check_real(dataset, chosen)
        grid = choose_grid(dataset, resolution_m, assumed_pixel_size_m, progress, is_strict=is_strict)
        # The level is an open option, so the raster is opened again with it.
        level = grid.pyramid_level(dataset.overviews(chosen[0]))
        if level is not None:
            options["OVERVIEW_LEVEL"] = level
            dataset.close()
            dataset = on_error.enter_context(open_raster(path, **options))
        scene = RasterScene(dataset, chosen, grid, scaling or AS_IS, options, nodata)
        rule = Bands().scaling if model_bands is None else model_bands.scaling
        if scaling is None and _is_scaled(dataset, chosen, rule):
            scene.measure(rule, progress)
        if scaling is None and scene.values_rule:
            progress.log(Rule(scene.values_rule))
        on_error.pop_all()
    return scene


def _is_scaled(dataset: DatasetReader, bands: Sequence[int], rule: ScalingRule) -> bool:
    """Return whether the scaling depends on the values: most models take 8-bit ones as they are."""
    return rule is ScalingRule.STRETCH or any(dataset.dtypes[band - 1] != "uint8" for band in bands)


def _inside(window: Window, shape: Shape) -> Window:
    """Refuse a window that reaches beyond the scene."""
    last_col, last_row = window.col_off + window.width, window.row_off + window.height
    starts_inside = window.col_off >= 0 and window.row_off >= 0 and window.width > 0 and window.height > 0
    if not starts_inside or last_col > shape.width or last_row > shape.height:
        raise ConfigError(f"{window} is not inside a scene of {shape.width} × {shape.height} px; cut it to the scene")
    return window


def _shape(dataset: DatasetReader) -> Shape:
    """Return the shape of a raster."""
    return Shape(dataset.height, dataset.width)
