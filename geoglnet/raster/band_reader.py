"""Reads bands of one open raster at any window and shape, and where they are valid, however that is declared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NodataShadowWarning
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geoglnet.message import Keyword
from geoglnet.progress import Progress
from geoglnet.raster.failures import check_filled, reading
from geoglnet.raster.files import short_name, silenced
from geoglnet.raster.gdal import open_raster
from geoglnet.raster.grid import Grid
from geoglnet.raster.scaling import find_sentinel
from geoglnet.types import Shape

STRIP_PIXELS = 1_000_000  # of the raster, averaged at once where GDAL cannot; bounds memory


class BandReader:
    """Some bands of an open raster, on its own grid.

    Args:
        dataset: the raster, which the reader closes.
        bands: 1-based numbers, in the order of the values that are read.
        nodata: value that all bands have where a pixel has no value, beside what the raster itself declares.
        open_options: with which the raster was opened.
        units: scale and offset of every band, where they are known better than the raster declares them.
    """

    def __init__(
        self,
        dataset: DatasetReader,
        bands: tuple[int, ...],
        nodata: float | None = None,
        open_options: Mapping[str, Any] | None = None,
        units: Sequence[tuple[float, float]] = (),
    ) -> None:
        self.dataset = dataset
        self.bands = bands
        self.nodata = nodata
        self.name = short_name(dataset.name)
        self.units = tuple(units) or tuple((dataset.scales[band - 1], dataset.offsets[band - 1]) for band in bands)
        self._open_options = dict(open_options or {})

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that are read."""
        return np.result_type(*(self.dataset.dtypes[band - 1] for band in self.bands))

    @property
    def shape(self) -> Shape:
        """Shape of the raster, or of the pyramid level that is read."""
        return Shape(self.dataset.height, self.dataset.width)

    def shape_within(self, size: int) -> Shape:
        """Return the largest shape of the raster's proportions within ``size`` × ``size``."""
        factor = max(1.0, max(self.shape) / size)
        return Shape(*(max(1, round(n / factor)) for n in self.shape))

    def at_level(self, grid: Grid) -> BandReader:
        """Open the raster again at the pyramid level that a grid is averaged from, if that is another one."""
        level = grid.pyramid_level(self.dataset.overviews(self.bands[0]))
        if level is None:
            return self
        self.close()
        options = self._open_options | {"OVERVIEW_LEVEL": level}
        dataset = open_raster(self.dataset.name, **options)
        return BandReader(dataset, self.bands, self.nodata, options, self.units)

    def close(self) -> None:
        self.dataset.close()

    def reopened(self) -> BandReader:
        """Open the same raster once more, for another thread: GDAL datasets cannot be shared."""
        dataset = open_raster(self.dataset.name, **self._open_options)
        reader = BandReader(dataset, self.bands, self.nodata, self._open_options, self.units)
        reader.name = self.name
        return reader

    def read_window(self, grid: Grid, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read a window of a grid that has the raster's bounds, averaged or interpolated.

        Raises:
            SceneError: the file is truncated or damaged there.
        """
        source = grid.source_window(window, self.shape)
        with reading(self.dataset, source, self.name):
            values, valid = self.read(source, _size(window), grid.resampling)
            check_filled(self.dataset, self.bands, source, values)
        return values, valid

    def sample(self, shape: Shape) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read the nearest pixels of the whole raster at a shape.

        Raises:
            SceneError: the raster cannot be read.
        """
        whole = Window(col_off=0, row_off=0, width=self.shape.width, height=self.shape.height)
        # Nearest, because averages would mix undeclared nodata into the values, and pull extremes together.
        with reading(self.dataset, name=self.name):
            return self.read(whole, shape, Resampling.nearest)

    def exclude_sentinel(
        self, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_], progress: Progress
    ) -> npt.NDArray[np.bool_]:
        """Find an undeclared nodata value in a sample of the bands, and take it for one from now on.

        Args:
            values: ``(C, h, w)`` in the order of the bands.
            valid: ``(h, w)`` bool.
            progress: receives a warning about it.

        Returns:
            Where the sample is valid without that value, ``(h, w)`` bool.
        """
        sentinel = find_sentinel(values[:, valid]) if values.dtype != np.uint8 else None
        if sentinel is None:
            return valid
        is_sentinel = (values == sentinel).all(axis=0)
        if self.nodata is None and (is_sentinel & valid).any():
            self.nodata = sentinel
            progress.warn(
                f"{self.name}: {sentinel:.10g} lies far from all other values and is read as nodata, in "
                f"{np.mean(is_sentinel):.1%} of the pixels; choose another value with " + Keyword("nodata")
            )
        return np.asarray(valid & ~is_sentinel)

    def read(self, source: Window, shape: Shape, resampling: Resampling) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read values of a window of the raster, and where they are valid, at a shape.

        GDAL resamples values well, but not everything that makes them invalid: NaN that is not declared, a nodata value that
        the user names, an alpha band beside a mask. Pixels that GDAL has mixed with such values are computed here.

        Args:
            source: window of the raster, may have fractions.
            shape: shape of the outcome.
            resampling: nearest, average or bilinear.

        Returns:
            ``(C, h, w)`` values in the raster's type and ``(h, w)`` bool.
        """
        values = self._values(source, shape, resampling)
        if self._is_valid_throughout and not np.issubdtype(values.dtype, np.floating):
            return values, np.ones(shape, bool)
        # Validity is sampled at four points of a pixel that averages many, at one point of others.
        samples = 2 if resampling is Resampling.average else 1
        fine = Shape(shape.height * samples, shape.width * samples)
        points = self._valid_points(source, fine)
        valid = _majority(points, samples)
        is_float = np.issubdtype(values.dtype, np.floating)
        if is_float and resampling is Resampling.nearest:
            valid &= np.isfinite(values).all(axis=0)
        if resampling is Resampling.nearest:
            return values, valid
        spoilt: npt.NDArray[np.bool_] = np.zeros(shape, bool)
        if is_float and not (finite := np.isfinite(values).all(axis=0))[valid].all():
            # An undeclared NaN makes every average that it is part of NaN, also of pixels that are valid for the most part.
            points &= np.isfinite(self._values(source, fine, Resampling.nearest)).all(axis=0)
            valid = _majority(points, samples)
            spoilt = valid & ~finite
        # Averages may hold the user's nodata value, or colors under an alpha of 0: any valid pixel may be spoilt.
        if (self.nodata is not None or (self._hides_alpha and samples > 1)) and not points.all():
            spoilt = valid
        if spoilt.any():
            rows = np.asarray(spoilt.any(axis=1))
            known = self._values(source, shape, Resampling.nearest) if samples == 1 else self._averaged(source, shape, rows)
            values[:, spoilt] = known[:, spoilt] if is_float else np.rint(known[:, spoilt])
        return values, valid

    @property
    def _is_valid_throughout(self) -> bool:
        """Whether nothing declares a pixel invalid."""
        flags = self.dataset.mask_flag_enums[self.bands[0] - 1]
        has_mask = MaskFlags.all_valid not in flags and not (MaskFlags.alpha in flags and self._selects_alpha)
        return not has_mask and MaskFlags.per_dataset not in flags and not self._hides_alpha and self.nodata is None

    @property
    def _hides_alpha(self) -> bool:
        """Whether GDAL ignores the alpha band, because there is a nodata value or a mask too."""
        flags = self.dataset.mask_flag_enums[self.bands[0] - 1]
        return MaskFlags.alpha not in flags and ColorInterp.alpha in self.dataset.colorinterp and not self._selects_alpha

    @property
    def _selects_alpha(self) -> bool:
        """Whether the band that is called alpha is selected, and therefore something else: near infrared, often."""
        kinds = self.dataset.colorinterp
        return any(kinds[band - 1] == ColorInterp.alpha for band in self.bands)

    def _values(self, source: Window, shape: Shape, resampling: Resampling) -> npt.NDArray[Any]:
        """Read the bands of a window, ``(C, *shape)``, in the raster's type."""
        bands = list(self.bands)
        values: npt.NDArray[Any] = self.dataset.read(
            bands, window=source, out_shape=(len(bands), *shape), resampling=resampling
        )
        return values

    def _averaged(self, source: Window, shape: Shape, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Average the valid, finite pixels of the raster under some rows of a window's pixels.

        As GDAL does, a pixel that lies under two counts for each by its share. Memory: a strip of the raster.

        Args:
            source: window of the raster, may have fractions.
            shape: shape of the outcome.
            rows: ``(h,)`` bool, rows that are needed.

        Returns:
            ``(C, h, w)``; NaN in other rows, and where nothing is valid.
        """
        averages = np.full((len(self.bands), *shape), np.nan)
        # Edges of the outcome's pixels in pixels of the raster; a rounding error must not add a row or column past the last.
        tops = source.row_off + np.arange(shape.height + 1) * (source.height / shape.height)
        lefts = source.col_off + np.arange(shape.width + 1) * (source.width / shape.width)
        first_col, last_col = math.floor(lefts[0]), min(math.ceil(lefts[-1] - 1e-9), self.dataset.width)
        step = max(1, int(STRIP_PIXELS / (source.width * source.height / shape.height)))
        for start in range(0, shape.height, step):
            if not rows[start : start + step].any():
                continue
            edges = tops[start : start + step + 1]
            first_row, last_row = math.floor(edges[0]), min(math.ceil(edges[-1] - 1e-9), self.dataset.height)
            part = Window(col_off=first_col, row_off=first_row, width=last_col - first_col, height=last_row - first_row)
            native = self._values(part, _size(part), Resampling.nearest)
            known = self._valid_points(part, _size(part)) & np.isfinite(native).all(axis=0)
            # Sums of the valid values, and as the last band their number: integrated along columns, then along rows.
            terms = np.concatenate([np.where(known, native, 0), known[None]], dtype=np.float64)
            sums = _sums_between(_sums_between(terms, lefts - first_col).swapaxes(1, 2), edges - first_row).swapaxes(1, 2)
            with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where nothing is valid
                averages[:, start : start + step] = sums[:-1] / sums[-1]
        return averages

    def _valid_points(self, source: Window, shape: Shape) -> npt.NDArray[np.bool_]:
        """Sample validity at ``shape`` points of a window: by nodata value, mask and alpha.

        Points, not areas, because GDAL resamples a nodata mask to "any valid", and scales 255 of a 16-bit alpha to 1.
        """
        options = {"window": source, "resampling": Resampling.nearest}
        flags = self.dataset.mask_flag_enums[self.bands[0] - 1]
        valid = np.ones(shape, bool)
        if MaskFlags.per_dataset in flags:
            valid &= self.dataset.read_masks(self.bands[0], out_shape=shape, **options) > 0
        elif MaskFlags.all_valid not in flags and not (MaskFlags.alpha in flags and self._selects_alpha):
            # rasterio warns that a nodata value hides the alpha band; it is read below.
            with silenced(NodataShadowWarning) if ColorInterp.alpha in self.dataset.colorinterp else nullcontext():
                masks = self.dataset.read_masks(list(self.bands), out_shape=(len(self.bands), *shape), **options)
            valid &= masks.any(axis=0)
        if self._hides_alpha:
            alpha = self.dataset.colorinterp.index(ColorInterp.alpha) + 1
            valid &= self.dataset.read(alpha, out_shape=shape, **options) > 0
        if self.nodata is not None:
            values = self._values(source, shape, Resampling.nearest)
            # Compared in the raster's type: -3.4e38 as float64 differs from the float32 that is stored.
            with np.errstate(over="ignore"):
                valid &= ~(values == np.asarray(self.nodata).astype(np.result_type(values.dtype, np.float32))).all(axis=0)
        return valid


def _majority(points: npt.NDArray[np.bool_], samples: int) -> npt.NDArray[np.bool_]:
    """Reduce ``samples`` × ``samples`` points to one pixel: true where at least half of them are."""
    if samples == 1:
        return points
    height, width = points.shape
    counts = points.reshape(height // samples, samples, width // samples, samples).sum(axis=(1, 3), dtype=np.uint8)
    return np.asarray(2 * counts >= samples * samples)


def _sums_between(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Integrate pixels along the last axis between fractional edges; a pixel that is cut counts in part.

    Args:
        values: ``(..., n)`` pixels.
        edges: ``(m + 1,)`` ascending edges, in pixels.

    Returns:
        ``(..., m)`` integrals, as differences of the cumulative sum interpolated at the edges.
    """
    length = values.shape[-1]
    total = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    places = np.clip(edges, 0, length)
    whole = np.minimum(places.astype(np.int64), length - 1)
    upto = total[..., whole] + values[..., whole] * (places - whole)
    return np.diff(upto, axis=-1)


def _size(window: Window) -> Shape:
    """Return the shape of a window of whole pixels."""
    return Shape(int(window.height), int(window.width))
