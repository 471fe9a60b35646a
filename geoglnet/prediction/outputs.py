"""The files of a prediction: checked beforehand, written from finished blocks, handed to the caller."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geoglnet.errors import ConfigError
from geoglnet.models.manifest import Manifest
from geoglnet.output import OutputFile, refuse_sharing
from geoglnet.prediction.area import Area
from geoglnet.prediction.blocks import Layer
from geoglnet.prediction.journal import Journal
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.seam_report import SeamReport, seam_report
from geoglnet.prediction.workspace import Workspace, workspace_path
from geoglnet.progress import Progress
from geoglnet.raster.cog import write_cog
from geoglnet.raster.gdal import environment, open_raster
from geoglnet.raster.lazy import open_lazily
from geoglnet.raster.scene import RasterScene
from geoglnet.types import Shape
from geoglnet.vector.formats import check_suffix
from geoglnet.vector.settings import VectorConfig
from geoglnet.vector.vectorize import vector_files, write_polygons

if TYPE_CHECKING:
    from xarray import DataArray


RASTER_SUFFIXES = (".tif", ".tiff")
SEAMS_TAG = "GEOGLNET_SEAMS"


@dataclass(frozen=True, slots=True)
class Destinations:
    """Files to write; at least one.

    Args:
        labels_path: cloud-optimized GeoTIFF of class numbers, 255 where the scene is invalid.
        vector_path: GeoPackage of polygons with class, area and confidence.
        confidence_path: cloud-optimized GeoTIFF of the chosen class's probability times 254, 255 where the scene is invalid.
        entropy_path: the same of the probabilities' entropy, as a fraction of the largest possible.
        probabilities_path: the same of every class's probability, one band each.
        overwrite: replace files that exist.

    Raises:
        ConfigError: nothing to write, or the same file twice.
    """

    labels_path: Path | None = None
    vector_path: Path | None = None
    confidence_path: Path | None = None
    entropy_path: Path | None = None
    probabilities_path: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        paths = self.paths.values()
        if not paths:
            raise ConfigError("nothing to write: give a label raster, a vector file, or both")
        if len({path.absolute() for path in paths}) < len(paths):
            raise ConfigError(f"outputs share a file: {', '.join(map(str, paths))}; give each its own")

    @property
    def paths(self) -> dict[str, Path]:
        """The files by kind: ``"labels"``, ``"vector"``, ``"confidence"``, ``"entropy"``, ``"probabilities"``."""
        named = {
            "labels": self.labels_path,
            "vector": self.vector_path,
            "confidence": self.confidence_path,
            "entropy": self.entropy_path,
            "probabilities": self.probabilities_path,
        }
        return {kind: path for kind, path in named.items() if path is not None}

    @property
    def first(self) -> Path:
        """The file beside which an unfinished run lies."""
        return next(iter(self.paths.values()))

    def workspace(self, *, resume: bool) -> Path:
        """Where the unfinished run lies: beside the first file, or beside another that it was begun with, to go on there."""
        folders = [workspace_path(path) for path in self.paths.values()]
        return next((folder for folder in folders if resume and folder.is_dir()), folders[0])

    def files(self, config: VectorConfig, journal: Journal | None = None) -> dict[str, OutputFile]:
        """The files by kind, each of which can be written; also ``"style"``, when the polygons get one beside them.

        Args:
            config: how polygons are written.
            journal: of the run that is resumed, which may have written some already.

        Raises:
            ConfigError: a file's suffix names a format that is not written, or two are one file.
            OutputExistsError: a file exists, and was not to be overwritten.
            OutputError: a folder is missing or not writable, or no file can be written under a name.
        """
        for kind, path in self.paths.items():
            if kind != "vector" and path.suffix.lower() not in RASTER_SUFFIXES:  # s.tif.msk would be a mask to GDAL
                raise ConfigError(f"{path.name}: {kind} is written as a GeoTIFF; let its name end in .tif")
        named = {kind for kind, path in self.paths.items() if journal is not None and journal.has_named(kind, path)}
        files = {kind: OutputFile(path, self.overwrite or kind in named) for kind, path in self.paths.items()}
        if self.vector_path is not None:
            check_suffix(self.vector_path)
            files |= vector_files(self.vector_path, config, overwrite=files["vector"].overwrite)
        refuse_sharing([*files.values()])
        return files


@dataclass(frozen=True)
class Finishing:
    """The steps after the last block; each output appears when it is whole, and the journal knows of it.

    Args:
        workspace: holds the blocks.
        scene: what was segmented.
        area: what of it.
        manifest: of the model.
        tags: of every raster.
        progress: told of every raster and polygon.
    """

    workspace: Workspace
    scene: RasterScene
    area: Area
    manifest: Manifest
    tags: Mapping[str, str]
    progress: Progress

    @property
    def shape(self) -> Shape:
        return Shape(int(self.area.window.height), int(self.area.window.width))

    @property
    def transform(self) -> Affine:
        return self.scene.transform @ Affine.translation(self.area.window.col_off, self.area.window.row_off)

    def mosaic(self, layer: Layer) -> Path:
        """A VRT of a layer's blocks."""
        place = self.scene.crs, self.transform
        return self.workspace.mosaic(layer, self.area.window, self.manifest.model.num_classes, place)

    @cached_property
    def seams(self) -> SeamReport:
        """How well the blocks fit together."""
        plan = Plan(self.scene.shape, self.manifest.region)
        (top, bottom), (left, right) = self.area.window.toranges()
        rows = [row - top for row in plan.row_edges if top < row < bottom]
        cols = [col - left for col in plan.col_edges if left < col < right]
        with open_raster(self.mosaic(Layer.LABELS)) as src, environment():

            def read(window: Window) -> npt.NDArray[np.uint8]:
                labels: npt.NDArray[np.uint8] = src.read(1, window=window)
                return labels

            return seam_report(self.workspace.journal.blocks.values(), read, self.shape, (rows, cols))

    def write(self, files: Mapping[str, OutputFile], vector_config: VectorConfig) -> int | None:
        """Write everything that was asked for and is not there yet; the number of polygons, if there are some.

        Raises:
            OutputError: the disk is full, or a folder is not writable.
        """
        num_polygons, journal = None, self.workspace.journal
        for kind, file in files.items():
            if kind == "style" or (kind in journal.written and file.path.exists() and kind != "vector"):
                continue
            if kind == "vector":
                num_polygons = self._vectorize(files, vector_config)
            else:
                self._write_raster(Layer(kind), file)
            journal.add_output(kind)
        return num_polygons

    def _write_raster(self, layer: Layer, file: OutputFile) -> None:
        with file as part_path:
            write_cog(
                self.mosaic(layer),
                part_path,
                legend=self.manifest.legend if layer is Layer.LABELS else None,
                band_names=self.manifest.legend.names if layer is Layer.PROBABILITIES else (),
                tags={**self.tags, SEAMS_TAG: json.dumps(self.seams.to_dict())},
                num_valid=self.workspace.num_valid,
                progress=self.progress,
            )
            self.workspace.journal.add_ready(layer.value, part_path)

    def _vectorize(self, files: Mapping[str, OutputFile], config: VectorConfig) -> int:
        return write_polygons(
            self.mosaic(Layer.LABELS),
            files,
            legend=self.manifest.legend,
            confidence_path=self.mosaic(Layer.CONFIDENCE),
            config=replace(config, scene=self.tags["GEOGLNET_SCENE"], model=self.tags["GEOGLNET_MODEL"]),
            on_ready=partial(self.workspace.journal.add_ready, "vector"),
            progress=self.progress,
        )


@dataclass(frozen=True, slots=True)
class Segmented:
    """What a run wrote.

    Args:
        paths: files by kind: ``"labels"``, ``"vector"``, ``"confidence"``, ``"entropy"``, ``"probabilities"``.
        num_polygons: how many polygons; ``None`` when none were asked for.
        shape: of the rasters, at the resolution that the model was run at.
        crs: of everything written; ``None`` when the scene has none.
        transform: of the rasters, pixel to CRS coordinates.
        seams: how well the blocks fit together.
        seconds: wall-clock time.
    """

    paths: Mapping[str, Path]
    num_polygons: int | None
    shape: Shape
    crs: CRS | None
    transform: Affine
    seams: SeamReport
    seconds: float

    @property
    def labels_path(self) -> Path | None:
        """Label raster, if one was asked for."""
        return self.paths.get("labels")

    @property
    def vector_path(self) -> Path | None:
        """Polygons, if they were asked for."""
        return self.paths.get("vector")

    @property
    def confidence_path(self) -> Path | None:
        """Confidence raster, if one was asked for."""
        return self.paths.get("confidence")

    def open(self, kind: str = "labels") -> DataArray:
        """A raster as an :class:`xarray.DataArray` with CRS and coordinates, whose pixels are read where they are asked for.

        Needs ``pip install 'geoglnet[xarray]'``. Nothing is read here; ``.values`` of the whole would read the whole::

            done.open()[0, 5000:6000, 5000:6000].values

        Args:
            kind: ``"labels"``, ``"confidence"``, ``"entropy"`` or ``"probabilities"``.

        Raises:
            ConfigError: no such raster was written.
            ModuleNotFoundError: rioxarray is not installed.
        """
        if kind not in self.paths or kind == "vector":
            raise ConfigError(f"no raster {kind!r} was written; there are {', '.join(k for k in self.paths if k != 'vector')}")
        opened: DataArray = open_lazily(self.paths[kind])
        return opened
