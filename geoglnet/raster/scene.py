"""Scenes: rasters of any size, type and georeference, read window by window as 8-bit images at a chosen resolution."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geoglnet.bands import Bands
from geoglnet.config import ScalingRule
from geoglnet.errors import ConfigError, SceneError
from geoglnet.message import Keyword
from geoglnet.progress import Progress, Rule, SilentProgress
from geoglnet.raster.band_choice import BandSelection
from geoglnet.raster.band_sources import OpenRasters, choose_scene_bands
from geoglnet.raster.gdal import environment
from geoglnet.raster.grid import Grid, choose_grid, ground_pixel_size, pixel_size_m
from geoglnet.raster.scaling import (
    AS_IS,
    SENTINELS,
    BandSample,
    BandScaling,
    Scaling,
    choose_band_scaling,
    choose_scaling,
    find_collar,
    find_sentinel,
    is_expected,
    negative_reflectance,
    same_for_all,
    stands_apart,
)
from geoglnet.raster.stack import SAMPLE_SIZE, BandStack, open_stack
from geoglnet.types import BandValues, Shape, StrPath

_ENOUGH = 16  # values that are not equal by accident


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixels of a window.

    Args:
        image: ``(C, h, w)`` uint8, or float32 on the same scale of 0 to 255, not rounded, for a model that is not an 8-bit one;
            undefined where ``valid`` is false.
        valid: ``(h, w)`` bool; false for nodata, transparent and masked pixels.
        is_stretched: whether the contrast is the scene's own (:class:`~geoglnet.raster.scaling.Scaling`).
    """

    image: BandValues
    valid: npt.NDArray[np.bool_]
    is_stretched: bool = False


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
        image: ``(C, H, W)`` uint8, or float32 on the scale of 0 to 255.
        valid: ``(H, W)`` bool; all pixels when left out.
        transform: pixel to CRS coordinates.
        crs: coordinate reference system.
        name: identity for messages.
    """

    image: BandValues
    valid: npt.NDArray[np.bool_] | None = None
    transform: Affine = Affine.identity()  # noqa: RUF009 - an Affine is a tuple
    crs: CRS | None = None
    name: str = "array"

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.dtype not in (np.uint8, np.float32):
            raise SceneError(
                f"{self.name} is {self.image.dtype} of shape {self.image.shape}; give (bands, height, width) uint8, or float32 "
                "on the scale of 0 to 255"
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
    """A raster, or several as one, as a :class:`Scene`; made by :func:`open_scene`, closed by ``with`` or :meth:`close`.

    A read costs the window's pixels in the raster's type, their float32 copy unless the raster is 8-bit, and GDAL's cache.

    Args:
        stack: the open bands.
        grid: that windows refer to.
        scaling: of values to 0–255.
    """

    def __init__(self, stack: BandStack, grid: Grid, scaling: Scaling | BandScaling = AS_IS) -> None:
        self.scaling = scaling
        self._stack = stack
        self._grid = grid

    @property
    def name(self) -> str:
        """Name for messages: that of the first raster, or what it was renamed to."""
        return self._stack.first.name

    @name.setter
    def name(self, name: str) -> None:
        self._stack.first.name = name

    @property
    def bands(self) -> tuple[int, ...]:
        """1-based numbers of the bands that are read, in order, each in its own raster."""
        return self._stack.bands

    @property
    def first_bands(self) -> tuple[int, ...]:
        """Numbers of the bands of the first raster, by which it can be opened again; none for a product of many files."""
        return () if self._stack.is_product else self._stack.first.bands

    @property
    def band_names(self) -> tuple[str, ...]:
        """What the bands are, in order: names of the model's; without a model of those of the raster, as far as known."""
        return self._stack.names

    @property
    def band_units(self) -> tuple[tuple[float, float], ...]:
        """Scale and offset of every band: physical value = stored value × scale + offset."""
        return self._stack.units

    @property
    def other_rasters(self) -> str:
        """Bands of other rasters than the first one, in words; empty where there is one raster."""
        return self._stack.rule

    @property
    def nodata(self) -> float | None:
        """Value that all bands of the first raster have where a pixel has no value, beside what it declares."""
        return self._stack.first.nodata

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
        return len(self._stack.bands)

    @property
    def pixel_size_m(self) -> float | None:
        return self._grid.pixel_size_m

    @property
    def file_paths(self) -> tuple[str, ...]:
        """Names of all files that the raster is made of: itself, sidecars, parts of a VRT or tile index, and their parts."""
        return self._stack.file_paths

    @property
    def native_pixel_size_m(self) -> float | None:
        """Ground size of the raster's own pixels, before they are resampled; ``None`` without a CRS."""
        return self._grid.native_pixel_size_m

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def reopened(self) -> RasterScene:
        """Open the same scene once more, for another thread: GDAL datasets cannot be shared.

        Raises:
            SceneError: the file is gone.
        """
        return RasterScene(self._stack.reopened(), self._grid, self.scaling)

    def onto(self, grid: Grid) -> RasterScene:
        """Return the same scene, by the same scaling, on a grid that may lie elsewhere, in another CRS, or be turned.

        It shares the open rasters, which are this scene's to close.
        """
        return RasterScene(self._stack.onto(grid), grid, self.scaling)

    def read_window(self, window: Window) -> Pixels:
        """Read a window, resampled to the scene's grid: averaged when coarser than the raster, bilinear when finer.

        A pixel is valid when at least half of its area is.

        Raises:
            ConfigError: the window is not inside the scene.
            SceneError: the file is truncated or damaged there.
        """
        # A small window is read with some of its surroundings, else GDAL would not resample it as part of a larger one.
        large = self._grid.readable(_inside(window, self.shape))
        values, valid = self._stack.read_window(self._grid, large)
        rows, cols = Window(
            window.col_off - large.col_off, window.row_off - large.row_off, window.width, window.height
        ).toslices()
        values, valid = values[:, rows, cols], valid[rows, cols]
        if isinstance(self.scaling, Scaling):
            return Pixels(self.scaling.apply(values), valid, self.scaling.is_stretched)
        # Of bands with rules of their own, one may lack a value where the others have theirs.
        image = self.scaling.apply(values)
        is_known = np.isfinite(image).all(axis=0)
        image[:, ~is_known] = 0
        return Pixels(image, valid & is_known)

    @property
    def values_rule(self) -> str:
        """Rule by which values are read, in words; empty for 8-bit values as they are."""
        nodata = "" if self.nodata is None else f"{self.nodata:.10g} is no value"
        return "; ".join(part for part in ("" if self.scaling == AS_IS else str(self.scaling), nodata) if part)

    def measure(self, bands: Bands, progress: Progress) -> None:
        """Choose the scaling from a decimated read of the whole raster, without values that stand for "no value".

        Args:
            bands: of the model, with its rules.
            progress: receives warnings about doubtful values.

        Raises:
            ConfigError: the raster's scale is not positive.
            SceneError: the raster cannot be read, a band has no value or, where its percentiles are needed, a single one, or
                most of its reflectance is negative.
        """
        # One cheap read of at most 512 × 512 pixels, which is the same for every block, machine and resumed run.
        values, valid = self._stack.sample(SAMPLE_SIZE, progress)
        self._check_values(values, valid)
        collar = find_collar(values, valid) if values.dtype != np.uint8 else None
        if collar is not None and not is_expected(collar, bands, self.band_units):
            found, is_collar = f"{self.name}: all bands are {collar:g} along one of its sides", (values == collar).all(axis=0)
            others = values[:, valid & ~is_collar]
            if self.nodata is None and stands_apart(collar, others):
                self._stack.first.nodata = collar
                progress.warn(
                    f"{found}, apart from all other values, and read as nodata, in {np.mean(is_collar):.1%} of the pixels; "
                    "choose another value with " + Keyword("nodata")
                )
            else:
                progress.warn(f"{found}; if that means nodata, pass " + Keyword("nodata", collar))
            if others.size:  # nodata or not, so many equal values say nothing about the others
                valid &= ~is_collar
        if bands.joint_rule is not None:
            # One value everywhere is a blank tile, which must not end a batch: it gets labels, and the doubt of the rule.
            self.scaling = choose_scaling(values[:, valid], values.dtype, bands.joint_rule)
        else:
            self.scaling = self._choose_band_scaling(values, valid, bands, progress)
        for number, name, band in zip(self.bands, self.band_names, values, strict=True):
            if len(values) > 1 and valid.any() and np.ptp(band[valid]) == 0 < np.ptp(values[:, valid]):
                found = f"{self.name}: band {number} ({name}) is {band[valid][0]:g} everywhere, so a model sees nothing in it"
                progress.warn(found)
        for doubt in self.scaling.doubts:
            progress.warn(f"{self.name}: " + doubt)

    def _choose_band_scaling(
        self, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_], bands: Bands, progress: Progress
    ) -> BandScaling:
        """Choose the scaling of each band, and find what stands for "no value" in one of them alone.

        Raises:
            ConfigError: the raster's scale is not positive.
            SceneError: a band has one value, and its rule is percentiles, or most of its reflectance is negative.
        """
        samples, missing = list[BandSample](), list[float | None]()
        for number, name, rule, band, unit in zip(self.bands, bands.names, bands.rules, values, self.band_units, strict=True):
            known = band[valid]
            none = find_sentinel(known) if band.dtype != np.uint8 else None
            if none is not None:
                progress.warn(
                    f"{self.name}: band {name} is {none:.10g} in {np.mean(known == none):.1%} of the pixels, far from its "
                    "other values, and read as nodata there; declare it with gdal_edit.py -a_nodata"
                )
                known = known[known != none]
            if rule is ScalingRule.PERCENTILES and known.size >= _ENOUGH and np.ptp(known) == 0:
                raise SceneError(
                    f"{self.name}: band {number} ({name}) is {known[0]:g} everywhere, which has no range to stretch; give "
                    "another raster, or set its black and white values with " + Keyword("scaling")
                )
            missing.append(none)
            samples.append(BandSample(known, *unit))
        scaling = choose_band_scaling(samples, bands)
        if negative := negative_reflectance(samples, scaling, bands):
            raise SceneError(
                f"{self.name}: {negative}, so scale or offset is wrong; correct them (gdal_edit.py -scale S -offset O) or set "
                + Keyword("scaling")
            )
        return replace(scaling, missing=tuple(missing))

    def _check_values(self, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> None:
        """Refuse a band that has no value where others have one: with it no pixel is valid.

        Raises:
            SceneError: a band is NaN or nodata everywhere.
        """
        is_finite = np.isfinite(values).any(axis=(1, 2))
        for number, name, band, none, has_value in zip(
            self.bands, self.band_names, values, self._stack.nodata_values, is_finite, strict=True
        ):
            known = band[valid]
            is_one = known.size >= _ENOUGH and np.ptp(known) == 0 and np.isfinite(known[0])
            if not has_value and is_finite.any():
                found = "NaN"
            elif is_one and float(known[0]) in (none, *SENTINELS) and np.ptp(values[:, valid]) > 0:
                found = f"{known[0]:g}"
            else:
                continue
            raise SceneError(
                f"{self.name}: band {number} ({name}) has no value but {found}, so no pixel is valid; choose another with "
                + Keyword("bands")
            )


def open_scene(
    path: StrPath,
    *,
    bands: BandSelection | None = None,
    beside: Mapping[str, StrPath] | None = None,
    model_bands: Bands | None = None,
    resolution_m: float | None = None,
    assumed_pixel_size_m: float | None = None,
    scaling: Scaling | BandScaling | None = None,
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
        bands: names or numbers (from 1) of bands to read in this order, or a preset such as ``"BGR"``, which says what the
            bands of the file are; left out, see :func:`~geoglnet.raster.band_choice.choose_bands`.
        beside: other rasters of the same place, by the name of the band that is read from each; of any CRS and resolution.
        model_bands: bands of a model: they are found by name when ``bands`` is left out, and their rules scale the values.
            Left out, three bands, or as many as there are, by the rule for their type.
        resolution_m: ground pixel size of the grid that windows refer to; the raster's own when left out.
        assumed_pixel_size_m: pixel size of a raster without CRS.
        scaling: scaling of values to 0–255; chosen by the rules of ``model_bands`` when left out.
        nodata: value that all bands have where a pixel has no value, beside what the raster itself declares. Left out, values
            such as -9999 that lie far from all others are found and warned about, except in 8-bit rasters and where ``scaling``
            is passed.
        is_strict: refuse a raster that is much too coarse for ``resolution_m``, instead of interpolating it.
        progress: receives the rules that are applied.

    Returns:
        The scene, open; use it in a ``with``. Windows come as ``(C, h, w)`` uint8 with ``(h, w)`` validity; as float32 for a
        model that is not an 8-bit one.

    Raises:
        SceneNotFoundError: there is no such file.
        SceneError: the file is not a raster, it is damaged, its values are complex, or a band's contradict the model's rules.
        BandsError: the raster lacks the bands.
        ResolutionError: ``is_strict``, and the raster's pixels are more than four times as large.
    """
    with environment(path), ExitStack() as on_error:  # listing pyramid levels searches for sidecars
        files = OpenRasters(on_error)
        wanted = None if model_bands is None else model_bands.names
        chosen = choose_scene_bands(files, path, wanted, bands, beside or {}, progress)
        first = files.open(chosen.first)
        grid = choose_grid(first, resolution_m, assumed_pixel_size_m, progress, is_strict=is_strict)
        stack = open_stack(files, chosen, grid, nodata, progress)
        model_bands = model_bands or Bands()
        if isinstance(scaling, Scaling):
            scaling = same_for_all(scaling, model_bands)
        scene = RasterScene(stack, grid, scaling or AS_IS)
        # Most models take 8-bit values as they are.
        is_measured = model_bands.joint_rule is not ScalingRule.BY_TYPE or stack.dtype != np.uint8
        if scaling is None and is_measured:
            scene.measure(model_bands, progress)
        if model_bands.is_8bit and (units := set(scene.band_units) - {(1.0, 0.0)}):
            words = " and ".join(f"scale {scale:g} with offset {offset:g}" for scale, offset in sorted(units))
            progress.log(f"{scene.name} declares {words}, which an 8-bit model does not use")
        if scaling is None and scene.values_rule:
            progress.log(Rule(scene.values_rule))
        on_error.pop_all()
    return scene


def _inside(window: Window, shape: Shape) -> Window:
    """Refuse a window that reaches beyond the scene."""
    last_col, last_row = window.col_off + window.width, window.row_off + window.height
    starts_inside = window.col_off >= 0 and window.row_off >= 0 and window.width > 0 and window.height > 0
    if not starts_inside or last_col > shape.width or last_row > shape.height:
        raise ConfigError(f"{window} is not inside a scene of {shape.width} × {shape.height} px; cut it to the scene")
    return window
