"""Opening what is to be segmented: one scene or several as one, at the model's resolution, and saying so."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoglnet.errors import ConfigError, ResolutionError
from geoglnet.models.manifest import Manifest, read_manifest
from geoglnet.models.registry import model_path, shipped_models
from geoglnet.prediction.config import PredictConfig
from geoglnet.progress import Progress
from geoglnet.raster.environment import local_files
from geoglnet.raster.files import short_name
from geoglnet.raster.grid import NATIVE_TOLERANCE
from geoglnet.raster.mosaic import mosaic_of
from geoglnet.raster.scene import RasterScene, open_scene
from geoglnet.types import StrPath


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be segmented: one raster, or several that make one mosaic.

    Args:
        paths: at least one; of pixels that several cover the last valid one counts.

    Raises:
        ConfigError: no path.
    """

    paths: tuple[StrPath, ...]

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("no scene given; name at least one raster")

    @classmethod
    def of(cls, given: StrPath | Sequence[StrPath]) -> Source:
        """A source of one path or a sequence of them."""
        return cls((given,) if isinstance(given, (str, os.PathLike)) else tuple(given))

    @property
    def name(self) -> str:
        """For messages and tags."""
        given = os.fspath(self.paths[0])
        first = short_name(given) if given.lstrip().startswith("<") else Path(given).name
        return first if len(self.paths) == 1 else f"{first} and {len(self.paths) - 1} more"

    def iter_files(self) -> Iterator[Path]:
        """Every local file that is read."""
        for path in self.paths:
            yield from local_files(path)

    def open_for(self, manifest: Manifest, config: PredictConfig, progress: Progress) -> RasterScene:
        """Open it as a model wants it; every rule applied goes to ``progress``.

        Raises:
            SceneNotFoundError: there is no such file.
            SceneError: a raster cannot be read, or several don't fit together.
            BandsError: the bands don't fit the model.
            ResolutionError: its pixels are much too large for the model.
        """
        resolution_m = config.resolution_m or manifest.resolution_m
        try:
            scene = open_scene(
                self.paths[0] if len(self.paths) == 1 else mosaic_of(self.paths),
                bands=config.bands,
                num_bands=manifest.model.in_channels,
                resolution_m=resolution_m,
                assumed_pixel_size_m=config.assumed_pixel_size_m or manifest.assumed_pixel_size_m,
                scaling=config.scaling or manifest.scaling,
                nodata=config.nodata,
                is_strict=True,
                progress=progress,
            )
        except ResolutionError as error:
            raise _too_coarse(error, manifest) from None
        if len(self.paths) > 1:
            scene.name = self.name
            progress.log(f"{len(self.paths)} scenes as one of {scene.shape.width} × {scene.shape.height} px")
        bands = ", ".join(str(band) for band in scene.bands)
        progress.log(f"model {manifest.name}: bands {bands} as {', '.join(manifest.bands)}, {resolution_m:g} m pixels")
        _check_resolution(scene, manifest, resolution_m, progress)
        return scene


def _too_coarse(error: ResolutionError, manifest: Manifest) -> ResolutionError:
    """The same error with the shipped model that fits, if there is one, and the way out."""
    fitting = [name for name in shipped_models() if _fits(read_manifest(model_path(name)), error.pixel_size_m)]
    if fitting:
        way_out = f"--model {fitting[0]} is made for such pixels"
    else:
        way_out = "no shipped model is made for such pixels: train one (geoglnet train)"
    finest, coarsest = manifest.resolution_range_m
    return ResolutionError(
        f"{error}, and model {manifest.name} was trained on {finest:g} to {coarsest:g} m; {way_out}, or say "
        f"--resolution {float(f'{error.pixel_size_m:.3g}'):.15g} and expect poor labels",
        error.pixel_size_m,
    )


def _fits(manifest: Manifest, size_m: float) -> bool:
    finest, coarsest = manifest.resolution_range_m
    return finest / (1 + NATIVE_TOLERANCE) <= size_m <= coarsest * (1 + NATIVE_TOLERANCE)


def _check_resolution(scene: RasterScene, manifest: Manifest, resolution_m: float, progress: Progress) -> None:
    found, (finest, coarsest) = scene.native_pixel_size_m, manifest.resolution_range_m
    known = f"model {manifest.name} was trained on {finest:g} to {coarsest:g} m"
    if not finest <= resolution_m <= coarsest:
        progress.warn(f"segmented at {resolution_m:g} m, {known}: expect poor labels")
    if found is None or finest <= found <= coarsest:
        return
    if found > coarsest:
        progress.warn(f"the scene has {found:.3g} m pixels, {known}: detail will be missing, expect poor labels")
    else:
        progress.log(f"the scene has {found:.3g} m pixels, {known}: averaged down")
