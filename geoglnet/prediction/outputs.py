"""Writes the files of a prediction from finished blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geoglnet.errors import CheckpointError, ConfigError
from geoglnet.legend import Legend
from geoglnet.models.manifest import Manifest
from geoglnet.output import OutputFile
from geoglnet.prediction.area import Area
from geoglnet.prediction.layers import CONFIDENCE, LABELS, LAYERS, VECTOR, Layer
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.seam_report import SeamReport, seam_report
from geoglnet.prediction.workspace import Workspace
from geoglnet.progress import Progress
from geoglnet.raster.cog import CLASSES_TAG, write_cog
from geoglnet.raster.crs import ground_of
from geoglnet.raster.gdal import environment, open_raster
from geoglnet.raster.scene import RasterScene
from geoglnet.types import Shape
from geoglnet.vector.settings import VectorConfig

SEAMS_TAG = "GEOGLNET_SEAMS"


@dataclass(frozen=True, slots=True)
class Written:
    """What a prediction has written.

    Args:
        paths: files by output.
        num_polygons: how many; ``None`` when none were asked for.
        shape: of the rasters, in pixels.
        crs: of everything; ``None`` when the scene has none.
        transform: of the rasters, pixel to CRS coordinates.
        seams: how well the blocks fit together.
        legend: classes.
        model: name of the model.
    """

    paths: Mapping[str, Path]
    num_polygons: int | None
    shape: Shape
    crs: CRS | None
    transform: Affine
    seams: SeamReport
    legend: Legend
    model: str


@dataclass(frozen=True)
class OutputWriter:
    """Writes outputs from finished blocks; each appears when it is whole, and is entered in the journal.

    Args:
        workspace: holds the blocks.
        scene: what is predicted.
        area: what of it.
        manifest: of the model.
        tags: of every raster.
        files: to write, by output.
        progress: told of every raster and polygon.
    """

    workspace: Workspace
    scene: RasterScene
    area: Area
    manifest: Manifest
    tags: Mapping[str, str]
    files: Mapping[str, OutputFile]
    progress: Progress

    @property
    def shape(self) -> Shape:
        """Give the shape of the rasters, in pixels."""
        return Shape(int(self.area.window.height), int(self.area.window.width))

    @property
    def transform(self) -> Affine:
        """Give the transform of the rasters, from pixels to the scene's CRS."""
        return self.scene.transform @ Affine.translation(self.area.window.col_off, self.area.window.row_off)

    def mosaic(self, layer: Layer) -> Path:
        """Write a VRT of a layer's blocks."""
        num_bands = len(layer.bands(self.manifest.legend))
        return self.workspace.mosaic(layer, self.area.window, num_bands, (self.scene.crs, self.transform))

    @cached_property
    def seams(self) -> SeamReport:
        """Measure how well the blocks fit together."""
        # Lines of the plan that lie inside the area; those on its border have nothing on the other side.
        plan = Plan(self.scene.shape, self.manifest.region)
        (top, bottom), (left, right) = self.area.window.toranges()
        rows = [row - top for row in plan.row_edges if top < row < bottom]
        cols = [col - left for col in plan.col_edges if left < col < right]
        with open_raster(self.mosaic(LABELS)) as src, environment():

            def read(window: Window) -> npt.NDArray[np.uint8]:
                labels: npt.NDArray[np.uint8] = src.read(1, window=window)
                return labels

            return seam_report(self.workspace.journal.blocks.values(), read, self.shape, (rows, cols))

    def write(self, vector_config: VectorConfig) -> int | None:
        """Write every output that is not there yet; polygons always.

        Args:
            vector_config: how polygons are made.

        Returns:
            Number of polygons, if there are some to write.

        Raises:
            OutputError: the disk is full, or a folder is not writable.
        """
        num_polygons, journal = None, self.workspace.journal
        for name, file in self.files.items():
            # Polygons are written again even so: their number is part of what a run returns.
            if name == "style" or (name in journal.written and file.path.exists() and name != VECTOR):
                continue
            if name == VECTOR:
                num_polygons = self._vectorize(vector_config)
            else:
                self._write_raster(LAYERS[name], file)
            journal.add_output(name)
        return num_polygons

    def written(self, paths: Mapping[str, Path], num_polygons: int | None) -> Written:
        """Describe what has been written; the seams must have been measured while the blocks were there.

        Args:
            paths: files by output.
            num_polygons: that :meth:`write` has returned.
        """
        legend, name = self.manifest.legend, self.manifest.name
        return Written(dict(paths), num_polygons, self.shape, self.scene.crs, self.transform, self.seams, legend, name)

    def _write_raster(self, layer: Layer, file: OutputFile) -> None:
        names = layer.bands(self.manifest.legend)
        # By which the polygons of the most probable classes are named and colored as those of the labels.
        classes = {CLASSES_TAG: json.dumps(self.manifest.legend.to_dict())} if any(names) else {}
        with file as part_path:
            write_cog(
                self.mosaic(layer),
                part_path,
                legend=self.manifest.legend if layer.is_categorical else None,
                band_names=names if any(names) else (),
                tags={**self.tags, **classes, SEAMS_TAG: json.dumps(self.seams.to_dict())},
                num_valid=self.workspace.num_valid,
                progress=self.progress,
            )
            # From here the file is known by its identity, even if the run is killed before it can enter the new name.
            self.workspace.journal.add_ready(layer.name, part_path)

    def _vectorize(self, config: VectorConfig) -> int:
        from geoglnet.vector.polygonizer import write_polygons  # loads pandas and numba, which rasters need nothing of

        return write_polygons(
            self.mosaic(LABELS),
            self.files,
            legend=self.manifest.legend,
            confidence_path=self.mosaic(CONFIDENCE),
            config=replace(config, scene=self.tags["GEOGLNET_SCENE"], model=self.tags["GEOGLNET_MODEL"]),
            on_ready=partial(self.workspace.journal.add_ready, VECTOR),
            progress=self.progress,
        )


def polygon_config_of_model(manifest: Manifest, settings: Mapping[str, Any], crs: Any, progress: Progress) -> VectorConfig:
    """Make the settings of polygons: the model's own, and over them those that were asked for.

    Args:
        manifest: of the model.
        settings: what was asked for, by name.
        crs: of the scene. Where it does not tell meters, the model's limits in meters are left out.
        progress: receives the rule.

    Raises:
        CheckpointError: the model's own settings cannot be used.
        ConfigError: those asked for cannot.
    """
    is_measured = ground_of(crs).is_measured
    own = {name: value for name, value in manifest.polygons.items() if is_measured or not _is_in_meters(name, value)}
    try:
        VectorConfig(**own)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"the settings of polygons of {manifest.name} cannot be used: {error}") from error
    used = {name: value for name, value in own.items() if name not in settings}
    if used:
        listed = ", ".join(name if value is True else f"{name} {value}" for name, value in used.items())
        progress.log(f"polygons by the model's settings ({manifest.name}): {listed}")
    return VectorConfig(**{**own, **settings})


def _is_in_meters(name: str, value: Any) -> bool:
    return name.endswith("_m2") or (isinstance(value, str) and not value.strip().endswith("px"))
