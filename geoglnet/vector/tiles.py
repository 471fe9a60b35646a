"""Sources of the tiles to trace: a port, and its adapters for open rasters and for arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geoglnet.errors import BandsError, SceneError
from geoglnet.raster.band_choice import check_real
from geoglnet.raster.failures import check_filled, reading
from geoglnet.types import Shape
from geoglnet.vector.tracing import MAX_CONFIDENCE, NO_CONFIDENCE, NO_LABEL


@dataclass(frozen=True, slots=True)
class LabelTile:
    """Labels of one window, and their confidence.

    Args:
        labels: ``(h, w)`` uint8, 255 where there is no class.
        confidence: ``(h, w)`` uint8, probability × 254, 255 where unknown; ``None`` without a confidence raster.
    """

    labels: npt.NDArray[np.uint8]
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
    """Tiles of arrays in memory: ``labels`` and ``confidence`` are ``(h, w)`` uint8."""

    labels: npt.NDArray[np.uint8]
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
    """Tiles of an open label raster.

    Pixels without a value (nodata, dataset mask) and the value 255 have no class.

    Args:
        labels: one band of integers.
        confidence: raster of the same shape: one band, or one per class, of uint8 (probability × 254) or of fractions.
        is_mask: 255 is read as class 1, as in masks of 0 and 255.
        seen: ``(256,)`` bool, the labels that have been read so far; updated by :meth:`read_tile`.

    Raises:
        BandsError: the label raster has more than one band.
        SceneError: the labels are not integers, or the confidence raster does not fit.
    """

    labels: DatasetReader
    confidence: DatasetReader | None = None
    is_mask: bool = False
    seen: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(256, dtype=bool))

    def __post_init__(self) -> None:
        name = self.labels.name
        if self.labels.count != 1:
            raise BandsError(f"{name} has {self.labels.count} bands; labels are a raster with one band of class numbers")
        check_real(self.labels)
        dtype = self.labels.dtypes[0]
        if not np.issubdtype(np.dtype(dtype), np.integer):
            raise SceneError(f"{name} holds {dtype} values; labels are integers from 0 to 254 (take the argmax first)")
        if self.confidence is not None:
            _check_confidence(self.confidence, self.labels)

    @property
    def shape(self) -> Shape:
        return Shape(*self.labels.shape)

    @property
    def has_confidence(self) -> bool:
        return self.confidence is not None

    def read_tile(self, window: Window) -> LabelTile:
        """Read one window.

        Raises:
            SceneError: the file is damaged there, or a value is not from 0 to 255.
        """
        labels = self._read_labels(window)
        self._record(labels)
        return LabelTile(labels, None if self.confidence is None else _read_confidence(self.confidence, window, labels))

    def has_undeclared_255(self, window: Window) -> bool:
        """Check a window that has been read for pixels of 255 which the raster does not declare to be without a value."""
        if not self.seen[NO_LABEL] or self.labels.nodata == NO_LABEL:
            return False
        return bool(((_read(self.labels, window)[0] == NO_LABEL) & _read_valid(self.labels, window)).any())

    def _record(self, labels: npt.NDArray[np.uint8]) -> None:
        """Add the labels of a window to those that have been seen."""
        # bytes.translate deletes known labels, in a third of the time that np.bincount takes; mostly nothing is left.
        known = np.flatnonzero(self.seen).astype(np.uint8).tobytes()
        unknown = labels.tobytes().translate(None, known)
        self.seen[np.frombuffer(unknown, dtype=np.uint8)] = True

    def _read_labels(self, window: Window) -> npt.NDArray[np.uint8]:
        """Read labels of any integer type as uint8, 255 where the raster says that there is no value."""
        values: npt.NDArray[Any] = _read(self.labels, window)[0]
        # Before the dataset mask is applied, so that pixels without a value get no class from it.
        if self.is_mask:
            values = np.where(values == NO_LABEL, np.uint8(1), values)
        if not self._is_plain():
            # A signed byte has no room for 255.
            wide = values if values.dtype.itemsize > 1 or values.dtype == np.uint8 else values.astype(np.int16)
            values = np.where(_read_valid(self.labels, window), wide, NO_LABEL)
        if values.dtype != np.uint8:
            low, high = values.min(), values.max()
            if low < 0 or high > NO_LABEL:
                found = low if low < 0 else high
                raise SceneError(f"{self.labels.name} holds the value {found}; labels are from 0 to 254, and 255 for no class")
        return values.astype(np.uint8, copy=False)

    def _is_plain(self) -> bool:
        """Check whether values say alone what is valid; else the dataset mask has to be read too."""
        flags = self.labels.mask_flag_enums[0]
        return MaskFlags.all_valid in flags or (MaskFlags.nodata in flags and self.labels.nodata == NO_LABEL)


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


def _read_confidence(src: DatasetReader, window: Window, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Read the probability × 254 of the label at every pixel, 255 where unknown; of several bands, the label's own."""
    if src.count == 1:
        values = _read(src, window)[0]
    else:
        # Labels beyond the last band (255, or a class that the raster lacks) take any value here and are unknown below.
        bands = _read(src, window, src.indexes)
        values = np.take_along_axis(bands, np.minimum(labels, src.count - 1)[None].astype(np.intp), axis=0)[0]
    # Fractions outside of 0 to 1, NaN too, are no probabilities; uint8 values are taken as they are.
    is_known = labels < src.count if src.count > 1 else np.ones(labels.shape, dtype=bool)
    if values.dtype != np.uint8:
        is_known &= np.isfinite(values) & (values >= 0) & (values <= 1)
        values = np.rint(np.where(is_known, values, 0) * MAX_CONFIDENCE)
    confidence: npt.NDArray[np.uint8] = np.where(is_known, values, NO_CONFIDENCE).astype(np.uint8)
    return confidence


def _read(src: DatasetReader, window: Window, bands: Sequence[int] = (1,)) -> npt.NDArray[Any]:
    """Read values, and make sure that GDAL has read them all."""
    with reading(src, window):
        values: npt.NDArray[Any] = src.read(list(bands), window=window)
        check_filled(src, bands, window, values)
    return values


def _read_valid(src: DatasetReader, window: Window) -> npt.NDArray[np.bool_]:
    """Read the dataset mask."""
    with reading(src, window):
        values = src.read_masks(1, window=window)
    return np.asarray(values > 0)
