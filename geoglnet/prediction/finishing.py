"""From finished blocks to the files that were asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.windows import Window

from geoglnet.models.manifest import Manifest
from geoglnet.output import OutputFile
from geoglnet.prediction.area import Area
from geoglnet.prediction.block import Layer
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.seams import SeamReport, seam_report
from geoglnet.prediction.workspace import Workspace
from geoglnet.progress import Progress
from geoglnet.raster.cog import write_cog
from geoglnet.raster.environment import environment, open_raster
from geoglnet.raster.scene import RasterScene
from geoglnet.types import Shape
from geoglnet.vector.config import VectorConfig
from geoglnet.vector.vectorize import write_polygons

SEAMS_TAG = "GEOGLNET_SEAMS"


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
