"""What a prediction is asked for, as far as names tell; checked before torch, pandas and numba are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from geoglnet.config import suggestion
from geoglnet.errors import ConfigError
from geoglnet.filenames import check_filename
from geoglnet.models.shipped import model_path
from geoglnet.output import OutputFile, refuse_sharing
from geoglnet.prediction.journal import Journal
from geoglnet.prediction.layers import LAYERS, SUFFIXES, VECTOR, layer_named, output_names
from geoglnet.raster.gdal import check_exists
from geoglnet.types import StrPath
from geoglnet.vector.formats import vector_files
from geoglnet.vector.settings import VectorConfig


def check_request(
    scene_paths: Sequence[StrPath],
    paths: Mapping[str, StrPath | None],
    model: str,
    vector_config: VectorConfig,
    *,
    overwrite: bool,
) -> None:
    """Refuse a prediction whose model or scene is not there, or whose outputs cannot be written.

    Args:
        scene_paths: one raster, or several that make one mosaic.
        paths: files to write, by output.
        model: name of a shipped model, or a ``.safetensors`` file.
        vector_config: how polygons are written.
        overwrite: replace files that exist.

    Raises:
        ConfigError: nothing to write, or a file's suffix names a format that is not written, or two are one file.
        ModelNotFoundError: no such model.
        OutputExistsError: a file exists, and was not to be overwritten.
        OutputError: a folder is missing or not writable, or no file can be written under a name.
        SceneNotFoundError: no such scene.
    """
    model_path(model)
    output_files(in_order(paths), vector_config, overwrite=overwrite)
    for path in scene_paths:
        check_exists(path)


def in_order(paths: Mapping[str, StrPath | None]) -> dict[str, Path]:
    """Order the files to write as they are written.

    Args:
        paths: by output, see :func:`~geoglnet.prediction.layers.output_names`; those that are ``None`` are left out.

    Raises:
        ConfigError: nothing is left, or there is no such output.
    """
    for name in paths:
        if name != VECTOR:
            layer_named(name)
    named = {name: Path(path) for name in output_names() if (path := paths.get(name)) is not None}
    if not named:
        raise ConfigError("nothing to write: give a label raster, a vector file, or both")
    return named


def output_files(
    paths: Mapping[str, Path], config: VectorConfig, *, overwrite: bool, journal: Journal | None = None
) -> dict[str, OutputFile]:
    """Check that all outputs can be written.

    Args:
        paths: of the outputs, in order.
        config: how polygons are written.
        overwrite: replace files that exist.
        journal: of the run that is resumed, which may have written some already.

    Returns:
        Files by output; also ``"style"``, when the polygons get one beside them.

    Raises:
        ConfigError: a file's suffix names a format that is not written, or two are one file.
        OutputExistsError: a file exists, and was not to be overwritten.
        OutputError: a folder is missing or not writable, or no file can be written under a name.
    """
    for name, path in paths.items():
        check_filename(path)
        if name in LAYERS and path.suffix.lower() not in SUFFIXES:  # s.tif.msk would be a mask to GDAL
            raise ConfigError(f"{path.name}: {name} is written as a GeoTIFF; let its name end in .tif")
    # A run that was killed after it had named an output resumes over its own file.
    is_replaced = {name: overwrite or (journal is not None and journal.has_named(name, path)) for name, path in paths.items()}
    files = {name: OutputFile(path, is_replaced[name]) for name, path in paths.items()}
    if VECTOR in paths:
        files |= vector_files(paths[VECTOR], config, overwrite=is_replaced[VECTOR])
    refuse_sharing([*files.values()])
    return files


def polygon_config(settings: VectorConfig | Mapping[str, Any] | None) -> VectorConfig:
    """Make the settings of polygons of what was asked for, before the model is known.

    Raises:
        ConfigError: an unknown name, or a value that cannot be used.
    """
    if isinstance(settings, VectorConfig):
        return settings
    known = tuple(field.name for field in fields(VectorConfig))
    for name in settings or {}:
        if name not in known:
            raise ConfigError(f"unknown setting of polygons {name!r}{suggestion(name, known)}")
    return VectorConfig(**(settings or {}))
