"""Options that say what is to be predicted, with which model, how, and into which files: of every verb that predicts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import FunctionT, option, overwrite_option, path_option, uncertain_option, with_option
from geoglnet.cli.polygon_options import polygon_options
from geoglnet.cli.predict_options import config_options
from geoglnet.models.shipped import DEFAULT_MODEL
from geoglnet.prediction.layers import LAYERS, VECTOR, output_names


def request_options(*, uncertain: bool = False) -> Callable[[FunctionT], FunctionT]:
    """Add the options; the function receives them as ``request``, the keywords of the tools that predict.

    Args:
        uncertain: add ``--uncertain`` too, which the function receives as ``uncertain_path`` of the request.
    """

    def add_to(function: FunctionT) -> FunctionT:
        @functools.wraps(function)
        def gathered(**arguments: Any) -> Any:
            outputs = {name: arguments.pop(name) for name in output_names()}
            outputs |= {"uncertain": arguments.pop("uncertain")} if uncertain else {}
            request = _request(outputs, **_taken(arguments))  # first: it takes arguments away
            return function(**arguments, request=request)

        for add in (
            _raw_polygons_option,
            polygon_options,
            with_option,
            config_options,
            _model_option,
            overwrite_option,
            *([uncertain_option] if uncertain else []),
            _output_options,
        ):
            gathered = add(gathered)
        return gathered  # type: ignore[return-value]

    return add_to


def _taken(arguments: dict[str, Any]) -> dict[str, Any]:
    names = ("beside", "model", "overwrite", "config", "polygon_settings", "raw_polygons")
    return {name: arguments.pop(name) for name in names}


def _request(
    outputs: dict[str, Path | None], *, polygon_settings: dict[str, Any], raw_polygons: bool, **others: Any
) -> dict[str, Any]:
    from geoglnet.vector.settings import VectorConfig

    if not any(outputs.values()):
        raise click.UsageError("nothing to write: give -o labels.tif, --vector polygons.gpkg, or both")
    vector_config = VectorConfig(**polygon_settings) if raw_polygons else polygon_settings
    return {**{f"{name}_path": path for name, path in outputs.items()}, **others, "vector_config": vector_config}


def _output_options(function: FunctionT) -> FunctionT:
    """Add an option for every layer that the table knows, and for polygons."""
    for name in reversed(output_names()):  # as decorators are applied: the last one added comes first in the help
        if name == VECTOR:
            options, explanation = [f"--{VECTOR}"], "Write polygons: .gpkg (opens styled in QGIS), .fgb, .geojson or .parquet."
        else:
            layer = LAYERS[name]
            options, explanation = [word for word in (layer.short_option, layer.option) if word], layer.help
        function = path_option(*options, group="Outputs", help=explanation)(function)
    return function


_model_option = option(
    "--model",
    group="Model",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="NAME|FILE",
    help="Name of a shipped model (see geoglnet models), a .safetensors file, or an .onnx file of another program.",
)
_raw_polygons_option = option(
    "--raw-polygons",
    group="Polygons",
    is_flag=True,
    help="Leave out the model's own settings for polygons: outlines as the pixels have them.",
)
