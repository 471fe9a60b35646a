"""What a run is about, opened and checked: scene, area, layers and facts. Loads no torch."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.models.shipped import model_path
from geoglnet.output import OutputFile, refuse_inputs
from geoglnet.prediction.area import Area, choose_area
from geoglnet.prediction.facts import RunSettings, request_facts
from geoglnet.prediction.journal import Journal
from geoglnet.prediction.layers import CONFIDENCE, LABELS, LAYERS, VECTOR, Layer
from geoglnet.prediction.outputs import polygon_config_of_model
from geoglnet.prediction.plan import Plan
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.request import in_order, output_files, polygon_config
from geoglnet.prediction.source import SceneFiles, Source
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.class_table import ClassTable
from geoglnet.raster.gdal import local_files
from geoglnet.raster.scene import RasterScene
from geoglnet.types import StrPath
from geoglnet.vector.settings import VectorConfig


@dataclass(frozen=True, slots=True)
class Preparation:
    """An open scene, and what is to be made of it.

    Args:
        settings: what the run is made from; those of polygons are settled.
        manifest: of the model.
        scene: open as the model wants it.
        files: of the scene, as they are now.
        area: what of the scene is wanted.
        layers: what blocks hold.
        facts: what the result depends on beside the machine, as text by name.
    """

    settings: RunSettings
    manifest: Manifest
    scene: RasterScene
    files: SceneFiles
    area: Area
    layers: tuple[Layer, ...]
    facts: Mapping[str, str]

    @property
    def plan(self) -> Plan:
        """Plan the scene's regions."""
        return Plan(self.scene.shape, self.manifest.region)

    @property
    def tags(self) -> dict[str, str]:
        """Tags of every raster that is written."""
        values = {"GEOGLNET_VALUES": self.scene.values_rule} if self.scene.values_rule else {}
        return values | {
            "GEOGLNET_MODEL": f"{self.manifest.name} sha256:{model_digest(self.settings.model_path)}",
            "GEOGLNET_SCENE": Source(self.settings.scene_paths, self.settings.beside).name,
            "GEOGLNET_VERSION": version("geoglnet"),
        }


def settings_of(
    scene_path: StrPath | Sequence[StrPath],
    paths: Mapping[str, StrPath | None],
    beside: Mapping[str, StrPath] | None,
    model: str,
    config: PredictConfig | None,
    vector_config: VectorConfig | Mapping[str, Any] | None,
    overwrite: bool,
) -> RunSettings:
    """Gather what a run is to be made from, as it is asked for; see :func:`~geoglnet.prediction.run.begin`."""
    source = Source.of(scene_path, beside)
    return RunSettings(
        source.paths,
        model_path(model),
        in_order(paths),
        config or PredictConfig(),
        polygon_config(vector_config),
        overwrite,
        source.beside,
        None if isinstance(vector_config, VectorConfig) else vector_config or {},
    )


@contextmanager
def prepared(
    settings: RunSettings, manifest: Manifest, outputs: Mapping[str, OutputFile], progress: Progress, *, portable: bool = False
) -> Iterator[Preparation]:
    """Open the scene of a run, as long as the context lasts.

    Args:
        settings: what the run is made from.
        manifest: of its model.
        outputs: files that this process will write; none in one that only computes.
        progress: receives the rules applied.
        portable: describe the scene's files by what copies of them on other machines share.

    Raises:
        GeoglnetError: the scene or the mask cannot be used, or not for these polygons.
    """
    config, vector_config = settings.config, settings.vector_config
    with Source(settings.scene_paths, settings.beside).open_for(manifest, config, progress) as scene:
        if VECTOR in outputs:
            from geoglnet.vector.polygonizer import check_ground  # loads pandas and numba

            if settings.over_model is not None:
                vector_config = polygon_config_of_model(manifest, settings.over_model, scene.crs, progress)
                settings = replace(settings, vector_config=vector_config, over_model=None)
            # For its errors only; its warnings come when the polygons are written.
            check_ground(outputs[VECTOR].path, scene.name, scene.crs, vector_config, SilentProgress())
            ClassTable.of(manifest.legend).codes_of(vector_config.classes)  # for its errors too
        area = choose_area(scene, config.bounds, config.mask_path, progress)
        layers, files = layers_of(settings.outputs), SceneFiles.of(scene, portable=portable)
        facts = request_facts(scene, files, (Path(settings.model_path), manifest), config, layers)
        yield Preparation(settings, manifest, scene, files, area, layers, facts)


def layers_of(outputs: Collection[str]) -> tuple[Layer, ...]:
    """Choose what blocks hold: labels always, and confidence also for polygons."""
    names = {LABELS.name, *outputs, *((CONFIDENCE.name,) if VECTOR in outputs else ())}
    return tuple(layer for layer in LAYERS.values() if layer.name in names)


def checked_outputs(settings: RunSettings, earlier: Journal | None = None) -> dict[str, OutputFile]:
    """Check that all outputs of a run can be written, and that none replaces what the run reads.

    Args:
        settings: what the run is made from.
        earlier: journal of the run that is resumed, which may have written some already.

    Raises:
        ConfigError: see :func:`~geoglnet.prediction.request.output_files`.
        OutputError: see there; or an output is an input too.
    """
    outputs = output_files(settings.outputs, settings.vector_config, overwrite=settings.overwrite, journal=earlier)
    refuse_inputs(outputs.values(), _inputs(settings))
    return outputs


def _inputs(settings: RunSettings) -> Iterator[tuple[str, StrPath]]:
    """Name what the run reads, so that no output replaces it."""
    source = Source(settings.scene_paths, settings.beside)
    yield "the model", settings.model_path
    yield from (("the mask", path) for path in (settings.config.mask_path,) if path is not None)
    if settings.vector_config.statistics_path is not None:
        yield from (("the raster of the statistics", path) for path in local_files(settings.vector_config.statistics_path))
    named = {Path(os.fspath(path)) for path in source.paths}
    yield from (("the scene itself" if path in named else "a file of the scene", path) for path in source.iter_files())
