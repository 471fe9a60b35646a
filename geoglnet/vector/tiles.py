"""Sources of the tiles to trace: a port, and its adapters for open rasters and for arrays in memory.

Whatever a raster holds becomes codes here: labels as they are, the position among breaks, the most probable band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geoglnet.errors import BandsError, SceneError
from geoglnet.message import Keyword
from geoglnet.raster.band_choice import check_real
from geoglnet.raster.cog import LEGEND_TAG
from geoglnet.raster.failures import check_filled, reading
from geoglnet.raster.files import short_name
from geoglnet.types import Shape
from geoglnet.vector.tracing import LARGEST_CODE, MAX_CONFIDENCE, NO_CODE, NO_CONFIDENCE, NO_LABEL, SMALLEST_CODE, Codes
from geoglnet.vector.values import RasterValues

_MODEL_TAG = "GEOGLNET_MODEL"
_LOOKED_AT = 1024  # pixels along a side, for a message


@dataclass(frozen=True, slots=True)
class LabelTile:
    """Labels of one window, and their confidence.

    Args:
        labels: ``(h, w)`` uint8, 255 where there is no class; or int64, ``NO_CODE`` where there is none.
        confidence: ``(h, w)`` uint8, probability × 254, 255 where unknown; ``None`` without a confidence raster.
    """

    labels: Codes
    confidence: npt.NDArray[np.uint8] | None = None


class TileSource(Protocol):
    """Port: labels by window."""

    @property
    def shape(self) -> Shape: ...

    @property
    def has_confidence(self) -> bool: ...

    def read_tile(self, window: Window) -> LabelTile: ...


@dataclass(frozen=True, slots=True)
class ArrayTiles:
    """Tiles of arrays in memory: ``labels`` are ``(h, w)`` uint8 or int64, ``confidence`` is uint8."""

    labels: Codes
    confidence: npt.NDArray[np.uint8] | None = None

    @property
    def shape(self) -> Shape:
        return Shape(*self.labels.shape)

    @property
    def has_confidence(self) -> bool:
        return self.confidence is not None

    def read_tile(self, window: Window) -> LabelTile:
        place = window.toslices()
        return LabelTile(self.labels[place], None if self.confidence is None else self.confidence[place])


@dataclass(frozen=True, slots=True)
class DatasetTiles:
    """Tiles of an open raster.

    Pixels without a value (nodata, dataset mask, alpha, NaN) have no class; in our own label rasters, 255 is none either.

    Args:
        labels: the raster.
        confidence: raster of the same shape: one band, or one per class, of uint8 (probability × 254) or of fractions. Where
            the bands of ``labels`` are probabilities, they are the confidence too.
        values: what the raster's values mean.

    Attributes:
        bands: 1-based numbers of the bands that are read; several only where they are probabilities.
        scaling: factor and offset from stored values to quantities.
        is_ours: whether this is a label raster of ours.

    Raises:
        BandsError: the raster has several bands, and none is chosen; or lacks the one that is.
        SceneError: its values cannot be read in this way, or the confidence raster does not fit.
    """

    labels: DatasetReader
    confidence: DatasetReader | None = None
    values: RasterValues = field(default_factory=RasterValues)
    bands: tuple[int, ...] = field(init=False)
    scaling: tuple[float, float] = field(init=False)
    is_ours: bool = field(init=False)

    def __post_init__(self) -> None:
        bands = _chosen_bands(self.labels, self.values)
        check_real(self.labels, bands)
        object.__setattr__(self, "bands", bands)
        object.__setattr__(self, "is_ours", LEGEND_TAG in self.labels.tags())
        object.__setattr__(self, "scaling", _scaling(self.labels, bands[0]))
        if not (self.values.breaks or self.values.argmax or self.values.whole_numbers):
            _check_whole(self.labels, bands[0])
        if self.confidence is not None:
            _check_confidence(self.confidence, self.labels)

    @property
    def shape(self) -> Shape:
        return Shape(*self.labels.shape)

    @property
    def has_confidence(self) -> bool:
        return self.confidence is not None or self.values.argmax

    @property
    def are_bytes(self) -> bool:
        """Whether all codes are bytes, and 255 is none of them."""
        if self.values.breaks or self.values.argmax:
            return True
        is_byte = self.labels.dtypes[self.bands[0] - 1] == "uint8"
        return is_byte and (self.is_ours or self.labels.nodatavals[self.bands[0] - 1] == NO_LABEL)

    @property
    def is_wide(self) -> bool:
        """Whether codes may be beyond 31 bits."""
        dtype = np.dtype(self.labels.dtypes[self.bands[0] - 1])
        is_code = not (self.values.breaks or self.values.argmax)
        return is_code and (dtype.kind == "f" or np.iinfo(dtype).max > np.iinfo(np.int32).max)

    def read_tile(self, window: Window) -> LabelTile:
        """Read one window.

        Raises:
            SceneError: the file is damaged there, or a value is no code that fits 32 bits.
        """
        labels: Codes
        if self.values.argmax:
            labels, confidence = self._read_most_probable(window)
            if self.confidence is None:
                return LabelTile(labels, confidence)
        else:
            labels = self._read_breaks(window) if self.values.breaks else self._read_codes(window)
        return LabelTile(labels, None if self.confidence is None else _read_confidence(self.confidence, window, labels))

    def _read_codes(self, window: Window) -> Codes:
        """Read codes: bytes as they are, unless one of them is 255 and means it; all others as int64."""
        values: npt.NDArray[Any] = _read(self.labels, window, self.bands)[0]
        is_valid = None if self._is_plain() else _read_valid(self.labels, window, self.bands[0])
        if values.dtype == np.uint8:
            if is_valid is None:
                if not self._has_class_255(values):
                    return values
            elif self.is_ours or not (is_valid & (values == NO_LABEL)).any():
                return np.where(is_valid, values, np.uint8(NO_LABEL))
        elif values.dtype.kind == "f":
            is_valid = np.isfinite(values) if is_valid is None else is_valid & np.isfinite(values)
            self._check_all(values, is_valid & (values != np.rint(values)), window, "is not whole; read quantities with ")
        if values.dtype.itemsize == 8 or values.dtype.kind == "f":  # before the cast, in which large values would wrap
            beyond = (values < SMALLEST_CODE) | (values > LARGEST_CODE)
            self._check_all(values, beyond if is_valid is None else beyond & is_valid, window, "")
            values = np.where(beyond, 0, np.nan_to_num(values)) if values.dtype.kind == "f" else values
        codes = values.astype(np.int64)
        return codes if is_valid is None else np.where(is_valid, codes, NO_CODE)

    def _has_class_255(self, values: npt.NDArray[np.uint8]) -> bool:
        """Check bytes of which all are valid for a 255 that is a class."""
        declared = self.is_ours or self.labels.nodatavals[self.bands[0] - 1] == NO_LABEL
        return not declared and b"\xff" in values.tobytes()  # looks at 16 bytes at a time

    def _check_all(self, values: npt.NDArray[Any], is_wrong: npt.NDArray[np.bool_], window: Window, reason: str) -> None:
        """Refuse the first wrong value of a window, with its place."""
        if not is_wrong.any():
            return
        row, col = (int(number[0]) for number in np.nonzero(is_wrong))
        place = f"at column {int(window.col_off) + col}, row {int(window.row_off) + row}"
        found = f"{short_name(self.labels.name)} holds the value {values[row, col]} {place}, which "
        if reason:
            raise SceneError(found + reason + Keyword("breaks"))
        raise SceneError(f"{found}does not fit 32 bits; codes are from {SMALLEST_CODE} to {LARGEST_CODE}, so renumber them")

    def _read_breaks(self, window: Window) -> npt.NDArray[np.uint8]:
        """Count for every pixel the breaks that are not above its value."""
        band = self.bands[0]
        values: npt.NDArray[Any] = _read(self.labels, window, self.bands)[0]
        is_valid = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, dtype=bool)
        if not self._is_plain():
            is_valid &= _read_valid(self.labels, window, band)
        factor, offset = self.scaling
        if (factor, offset) != (1.0, 0.0):
            values = values * factor + offset
        # In the raster's own precision: 0.7 as a user writes it equals a pixel of 0.7, which is not 0.7 as a double.
        breaks = np.array(self.values.breaks, dtype=values.dtype if values.dtype.kind == "f" else np.float64)
        codes = np.zeros(values.shape, dtype=np.uint8)
        for threshold in breaks:
            codes += values >= threshold
        codes[~is_valid] = NO_LABEL
        return codes

    def _read_most_probable(self, window: Window) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Choose the band with the largest value, the first of equals, at every pixel; return its number and probability."""
        values: npt.NDArray[Any] = _read(self.labels, window, self.bands)
        best = np.full(values.shape[1:], -np.inf, dtype=np.float32 if values.dtype.itemsize < 4 else np.float64)
        labels = np.full(values.shape[1:], NO_LABEL, dtype=np.uint8)
        for number, (band, found) in enumerate(zip(self.bands, values, strict=True)):
            is_better = found > best  # NaN is not
            if not self._is_plain(band):
                is_better &= _read_valid(self.labels, window, band)
            np.copyto(best, found, where=is_better, casting="same_kind")
            labels[is_better] = number
        is_known = labels != NO_LABEL
        return labels, _as_confidence(np.where(is_known, best, 0).astype(values.dtype), is_known)

    def _is_plain(self, band: int | None = None) -> bool:
        """Check whether values say alone what is valid; else the dataset mask has to be read too."""
        band = band or self.bands[0]
        flags = self.labels.mask_flag_enums[band - 1]
        is_byte = self.labels.dtypes[band - 1] == "uint8" and not (self.values.breaks or self.values.argmax)
        is_none = is_byte and MaskFlags.nodata in flags and self.labels.nodatavals[band - 1] == NO_LABEL
        return MaskFlags.all_valid in flags or is_none


def _chosen_bands(src: DatasetReader, values: RasterValues) -> tuple[int, ...]:
    """Choose the bands to read: all but alpha where they are probabilities, else the one that is chosen, or the only one."""
    name = short_name(src.name)
    if values.band is not None:
        if values.band > src.count:
            raise BandsError(f"{name} has {src.count} bands, no band {values.band}; choose one of them")
        return (values.band,)
    bands = tuple(band for band, color in zip(src.indexes, src.colorinterp, strict=True) if color != ColorInterp.alpha)
    if values.argmax:
        if not 2 <= len(bands) <= NO_LABEL - 1:
            raise BandsError(f"{name} has {len(bands)} bands; argmax compares 2 to {NO_LABEL - 1}, one for each class")
        return bands
    if len(bands) != 1:
        raise BandsError(
            f"{name} has {src.count} bands; labels are a raster with one band of class numbers: choose it with "
            + Keyword("band", 1)
            + ", or read class probabilities with "
            + Keyword("argmax", True)
        )
    return bands


def _scaling(src: DatasetReader, band: int) -> tuple[float, float]:
    """Return factor and offset of a band: those that it declares, or that of our rasters of fractions."""
    tags = src.tags()
    if src.dtypes[band - 1] == "uint8" and _MODEL_TAG in tags and LEGEND_TAG not in tags:
        return 1 / MAX_CONFIDENCE, 0.0
    return src.scales[band - 1], src.offsets[band - 1]


def _check_whole(src: DatasetReader, band: int) -> None:
    """Refuse a band of floating-point numbers as codes, and say which setting reads it."""
    dtype = src.dtypes[band - 1]
    if np.issubdtype(np.dtype(dtype), np.integer):
        return
    window = Window(0, 0, min(src.width, _LOOKED_AT), min(src.height, _LOOKED_AT))
    values = _read(src, window, (band,))[0]
    found = np.unique(values[np.isfinite(values) & _read_valid(src, window, band)])[:1000]
    name = short_name(src.name)
    if len(found) and (found == np.rint(found)).all():
        shown = ", ".join(f"{value:g}" for value in found[:4]) + (", …" if len(found) > 4 else "")
        raise SceneError(
            f"{name} holds {dtype} values, which are whole numbers ({shown}): read them as codes with "
            + Keyword("whole_numbers", True)
            + ", or as quantities with "
            + Keyword("breaks")
        )
    raise SceneError(f"{name} holds {dtype} values, labels are integers; make classes of them with " + Keyword("breaks"))


def _check_confidence(confidence: DatasetReader, labels: DatasetReader) -> None:
    """Refuse a confidence raster of another type or shape."""
    dtype = confidence.dtypes[0]
    if dtype not in ("uint8", "float32", "float64"):
        raise SceneError(
            f"{confidence.name} has {confidence.count} bands of {dtype}; confidence is one band, or one per class, of uint8 "
            "(probability × 254) or of fractions from 0 to 1"
        )
    if confidence.shape != labels.shape:
        raise SceneError(
            f"{confidence.name} is {confidence.width} × {confidence.height} px, "
            f"but {labels.name} {labels.width} × {labels.height}; give the confidence raster of the same prediction"
        )


def _read_confidence(src: DatasetReader, window: Window, labels: Codes) -> npt.NDArray[np.uint8]:
    """Read the probability × 254 of the label at every pixel, 255 where unknown; of several bands, the label's own."""
    if src.count == 1:
        values = _read(src, window)[0]
    else:
        # Labels beyond the last band (255, or a class that the raster lacks) take any value here and are unknown below.
        bands = _read(src, window, src.indexes)
        values = np.take_along_axis(bands, np.clip(labels, 0, src.count - 1)[None].astype(np.intp), axis=0)[0]
    return _as_confidence(
        values, (labels < src.count) & (labels != NO_CODE) if src.count > 1 else np.ones(labels.shape, dtype=bool)
    )


def _as_confidence(values: npt.NDArray[Any], is_known: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Convert probabilities to uint8 × 254; those that are none become 255."""
    # Fractions outside of 0 to 1, NaN too, are no probabilities; uint8 values are taken as they are.
    if values.dtype != np.uint8:
        is_known = is_known & np.isfinite(values) & (values >= 0) & (values <= 1)
        values = np.rint(np.where(is_known, values, 0) * MAX_CONFIDENCE)
    confidence: npt.NDArray[np.uint8] = np.where(is_known, values, NO_CONFIDENCE).astype(np.uint8)
    return confidence


def _read(src: DatasetReader, window: Window, bands: Sequence[int] = (1,)) -> npt.NDArray[Any]:
    """Read values, and make sure that GDAL has read them all."""
    with reading(src, window):
        values: npt.NDArray[Any] = src.read(list(bands), window=window)
        check_filled(src, bands, window, values)
    return values


def _read_valid(src: DatasetReader, window: Window, band: int) -> npt.NDArray[np.bool_]:
    """Read the mask of a band."""
    with reading(src, window):
        values = src.read_masks(band, window=window)
    return np.asarray(values > 0)
