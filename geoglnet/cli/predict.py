"""``geoglnet predict``: labels and polygons for a scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geoglnet.cli.options import option, overwrite_option, path_option, progress_options, uncertain_option, with_option
from geoglnet.cli.polygon_options import polygon_options
from geoglnet.cli.predict_options import config_options
from geoglnet.cli.terminal import Reporter, clock, count_of
from geoglnet.cli.verb import Verb
from geoglnet.models.shipped import DEFAULT_MODEL
from geoglnet.prediction.layers import LAYERS, VECTOR, output_names

if TYPE_CHECKING:
    from geoglnet.api.prediction import Prediction
    from geoglnet.prediction.predict_config import PredictConfig


def _output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every layer that the table knows, and for polygons."""
    for name in reversed(output_names()):  # as decorators are applied: the last one added comes first in the help
        if name == VECTOR:
            options, explanation = [f"--{VECTOR}"], "Write polygons: .gpkg (opens styled in QGIS), .fgb, .geojson or .parquet."
        else:
            layer = LAYERS[name]
            options, explanation = [word for word in (layer.short_option, layer.option) if word], layer.help
        function = path_option(*options, group="Outputs", help=explanation)(function)
    return function


@click.command(cls=Verb)
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True)
@_output_options
@uncertain_option
@overwrite_option
@option(
    "--model",
    group="Model",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="NAME|FILE",
    help="Name of a shipped model (see geoglnet models), or a .safetensors file.",
)
@config_options
@with_option
@polygon_options
@option(
    "--raw-polygons",
    group="Polygons",
    is_flag=True,
    help="Leave out the model's own settings for polygons: outlines as the pixels have them.",
)
@option(
    "--dry-run",
    group="Run",
    is_flag=True,
    help="Check everything, say how the scene would be read and how long it would take, and write nothing.",
)
@option("--resume", group="Run", is_flag=True, help="Continue a run that was interrupted; the result is the same.")
@progress_options
def predict(
    scenes: tuple[str, ...],
    beside: dict[str, str],
    model: str,
    overwrite: bool,
    resume: bool,
    dry_run: bool,
    reporter: Reporter,
    config: PredictConfig,
    polygon_settings: dict[str, Any],
    raw_polygons: bool,
    **outputs: Path | None,
) -> None:
    """Predict labels and polygons for a scene.

    SCENE is any raster that GDAL opens, a Sentinel-2 product or STAC item; several files of one grid are one mosaic. It is
    read at the model's resolution. Nodata and transparent pixels get no class. Outputs appear only when they are complete.
    """
    if not any(outputs.values()):
        raise click.UsageError("nothing to write: give -o labels.tif, --vector polygons.gpkg, or both")
    from geoglnet.api import prediction
    from geoglnet.vector.settings import VectorConfig

    request: dict[str, Any] = {
        **{f"{name}_path": path for name, path in outputs.items()},
        "beside": beside,
        "model": model,
        "config": config,
        "vector_config": VectorConfig(**polygon_settings) if raw_polygons else polygon_settings,
        "overwrite": overwrite,
        "progress": reporter,
    }
    if dry_run:
        expected = prediction.estimate(scenes, **request)
        return reporter.done(f"nothing written: {expected.rule}", expected.figures)
    return report_done(reporter, prediction.predict(scenes, **request, resume=resume))


def report_done(reporter: Reporter, done: Prediction) -> None:
    """Say what was written, for people and for programs."""
    polygons = f"; {count_of(done.num_polygons, 'polygon')}" if done.num_polygons is not None else ""
    told = f"{done.shape.width} × {done.shape.height} px in {clock(done.seconds)}{polygons}"
    sentence = f"{', '.join(map(str, done.paths.values()))}  ({told})"
    counts = {} if done.num_polygons is None else {"num_polygons": done.num_polygons}
    reporter.done(sentence, {**done.paths, **counts, "seams": done.seams.to_dict(), "seconds": round(done.seconds, 2)})
