"""Labeled scenes from files: each raster with its truth on one grid, opened anew for every read.

Nothing stays open, so that any number of scenes can be trained on, and a process that prepares samples can be forked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from geoglnet.bands import Bands
from geoglnet.datasets.regions import LabeledRegion, fill_of
from geoglnet.datasets.truth import Truth
from geoglnet.legend import NO_CLASS
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.band_choice import BandSelection
from geoglnet.raster.gdal import open_raster
from geoglnet.raster.grid import Grid, check_interpolated
from geoglnet.raster.scaling import BandScaling, Scaling
from geoglnet.raster.scene import Pixels, Scene, open_scene
from geoglnet.types import BandValues, Labels, Shape, StrPath


@dataclass(frozen=True, slots=True)
class SceneFile:
    """A raster file with everything that opening it again in the same way needs.

    Args:
        path: the file.
        resolution_m: ground pixel size of the grid; ``None`` for the raster's own.
        assumed_pixel_size_m: pixel size of a raster without CRS.
        scaling: scaling of their values to 0–255.
        nodata: value of pixels without a value, beside what the raster declares.
        bands: that are read of the raster, in the order of the model's.
        model_bands: names of the model's bands.
        beside: other rasters, by the name of the band that is read from each.
        shape: shape of the grid.
        transform: grid pixel to CRS coordinates.
        crs: CRS of the grid; ``None`` without georeference.
        has_holes: whether some pixels may be invalid.
        elsewhere: grid in another CRS or of other bounds that the raster is warped to; ``None`` for one over the raster.
    """

    path: Path
    resolution_m: float | None
    assumed_pixel_size_m: float | None
    scaling: Scaling | BandScaling
    nodata: float | None
    bands: BandSelection | None
    model_bands: Bands | None
    beside: Mapping[str, StrPath]
    shape: Shape
    transform: Affine
    crs: CRS | None
    has_holes: bool
    elsewhere: Grid | None = None

    @contextmanager
    def open(self, progress: Progress = SilentProgress()) -> Iterator[Scene]:  # noqa: B008 - it has no state
        """Open the scene until the context ends; damage that libjpeg would fill with gray is an error.

        Raises:
            SceneError: the file is damaged.
        """
        with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True):
            scene = open_scene(
                self.path,
                bands=self.bands,
                beside=self.beside,
                model_bands=self.model_bands,
                resolution_m=self.resolution_m,
                assumed_pixel_size_m=self.assumed_pixel_size_m,
                scaling=self.scaling,
                nodata=self.nodata,
                progress=progress,
            )
            with scene:
                yield scene if self.elsewhere is None else scene.onto(self.elsewhere)


def scene_file(
    path: Path,
    resolution_m: float | None,
    assumed_pixel_size_m: float | None,
    progress: Progress,
    bands: Bands | None = None,
    *,
    nodata: float | None = None,
    selection: BandSelection | None = None,
    beside: Mapping[str, StrPath] | None = None,
    elsewhere: Grid | None = None,
) -> SceneFile:
    """Open a raster once, to choose its grid at a resolution and its scaling to 0–255.

    Args:
        path: the raster.
        resolution_m: ground pixel size of the grid; ``None`` for the raster's own.
        assumed_pixel_size_m: pixel size of a raster without CRS.
        progress: receives the rules that were applied.
        bands: of the model, with the rules for their values; red, green and blue when left out.
        nodata: value of pixels without a value, beside what the raster declares.
        selection: bands of the raster; found by name when left out.
        beside: other rasters, by the name of the model's band that is read from each.
        elsewhere: grid in another CRS or of other bounds that the raster is warped to.

    Raises:
        SceneError: the file cannot be read.
        ResolutionError: its pixels are much too large for the resolution.
    """
    scene = open_scene(
        path,
        bands=selection,
        beside=beside,
        resolution_m=resolution_m,
        assumed_pixel_size_m=assumed_pixel_size_m,
        model_bands=bands,
        nodata=nodata,
        progress=progress,
    )
    with scene:
        # Refused here, not at the first sample; what was measured once is the same for every later read.
        check_interpolated(str(path), scene.native_pixel_size_m, resolution_m, "train at a coarser resolution_m")
        grid = elsewhere or scene
        return SceneFile(
            path=path,
            resolution_m=resolution_m,
            assumed_pixel_size_m=assumed_pixel_size_m,
            scaling=scene.scaling,
            nodata=scene.nodata,
            bands=scene.first_bands or selection,  # chosen once, and announced once
            model_bands=bands,
            beside=dict(beside or {}),
            shape=grid.shape,
            transform=grid.transform,
            crs=grid.crs,
            has_holes=(
                scene.nodata is not None or bool(beside) or not scene.first_bands or bool(elsewhere) or _has_holes(path)
            ),
            elsewhere=elsewhere,
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """A raster and its truth on one grid; a :class:`~geoglnet.datasets.regions.LabeledScene`.

    Args:
        file: the raster.
        truth: its labels.
    """

    file: SceneFile
    truth: Truth

    @property
    def name(self) -> str:
        """Path of the raster."""
        return str(self.file.path)

    @property
    def shape(self) -> Shape:
        """Shape of the grid."""
        return self.file.shape

    def read_region(self, rows: slice, cols: slice) -> LabeledRegion:
        """Read image and labels; without a value, and unlabeled, where the raster is not valid.

        Raises:
            SceneError: the raster is damaged there.
            DatasetError: its labels cannot be used.
        """
        pixels, labels = self.read_pixels(rows, cols)
        return LabeledRegion(np.where(pixels.valid, pixels.image, fill_of(pixels.image.dtype)), labels)

    def read_pixels(self, rows: slice, cols: slice) -> tuple[Pixels, Labels]:
        """Read the image with its validity, and labels, unlabeled where the raster is not valid.

        Raises:
            SceneError: the raster is damaged there.
            DatasetError: its labels cannot be used.
        """
        window = Window.from_slices(rows, cols)
        pixels = self._read(window)
        # The network must not learn classes from pixels that it cannot see, nor from colors under a mask.
        return pixels, np.where(pixels.valid, self.truth.read_labels(window), np.uint8(NO_CLASS))

    def read_valid(self, rows: slice, cols: slice) -> BandValues:
        """Read the valid pixels of the image, ``(C, n)``.

        Raises:
            SceneError: the raster is damaged there.
        """
        pixels = self._read(Window.from_slices(rows, cols))
        return pixels.image[:, pixels.valid]

    def _read(self, window: Window) -> Pixels:
        # Opened for this read alone: samplers jump between scenes, and open datasets of all would exhaust file handles.
        with self.file.open() as scene:
            return scene.read_window(window)

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        """Read labels alone; the raster is read too only if some of its pixels may be invalid."""
        if self.file.has_holes:  # else the image, which costs most, need not be decoded for the survey
            return self.read_region(rows, cols).labels
        return self.truth.read_labels(Window.from_slices(rows, cols))


def _has_holes(path: Path) -> bool:
    """Return whether some pixels of a raster may be invalid: by nodata value, mask, alpha band or NaN."""
    with open_raster(path) as src:
        is_whole = all(MaskFlags.all_valid in flags for flags in src.mask_flag_enums)
        is_float = any(dtype.startswith("float") for dtype in src.dtypes)  # may hold NaN
        return not is_whole or is_float or ColorInterp.alpha in src.colorinterp
