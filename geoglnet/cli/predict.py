"""``geoglnet predict``: labels and polygons for a scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from geoglnet.cli.options import option, overwrite_option, path_option, progress_options
from geoglnet.cli.polygon_options import polygon_options
from geoglnet.cli.predict_options import config_options
from geoglnet.cli.terminal import Reporter, clock, count_of
from geoglnet.cli.verb import Verb
from geoglnet.models.shipped import DEFAULT_MODEL

if TYPE_CHECKING:
    from geoglnet.prediction.config import PredictConfig
    from geoglnet.prediction.outputs import Segmented
    from geoglnet.vector.settings import VectorConfig


@click.command(cls=Verb)
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True)
@path_option("-o", "--labels", group="Outputs", help="Write labels, as a cloud-optimized GeoTIFF.")
@path_option("--vector", group="Outputs", help="Write polygons: .gpkg (opens styled in QGIS), .fgb, .geojson or .parquet.")
@path_option("--confidence", group="Outputs", help="Write the probability of the chosen class.")
@path_option("--entropy", group="Outputs", help="Write the entropy of the class probabilities: how uncertain the model is.")
@path_option("--probabilities", group="Outputs", help="Write the probability of every class, one band each.")
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
@polygon_options
@option("--resume", group="Run", is_flag=True, help="Continue a run that was interrupted; the result is the same.")
@progress_options
def predict(
    scenes: tuple[str, ...],
    labels: Path | None,
    vector: Path | None,
    confidence: Path | None,
    entropy: Path | None,
    probabilities: Path | None,
    model: str,
    overwrite: bool,
    resume: bool,
    reporter: Reporter,
    config: PredictConfig,
    vector_config: VectorConfig,
) -> None:
    """Predict labels and polygons for a scene.

    SCENE is any raster that GDAL opens, of any size; several files of one grid are read as one mosaic. The scene is read
    at the model's resolution. Nodata and transparent pixels get no class and no polygon. Outputs appear under their final
    names only when they are complete.
    """
    if not any((labels, vector, confidence, entropy, probabilities)):
        raise click.UsageError("nothing to write: give -o labels.tif, --vector polygons.gpkg, or both")
    from geoglnet.api.prediction import predict as segment

    segmented = segment(
        scenes,
        labels,
        model=model,
        vector_path=vector,
        confidence_path=confidence,
        entropy_path=entropy,
        probabilities_path=probabilities,
        config=config,
        vector_config=vector_config,
        overwrite=overwrite,
        resume=resume,
        progress=reporter,
    )
    report_done(reporter, segmented)


def report_done(reporter: Reporter, segmented: Segmented) -> None:
    """Say what was written, for people and for programs."""
    outputs = segmented.paths
    polygons = f"; {count_of(segmented.num_polygons, 'polygon')}" if segmented.num_polygons is not None else ""
    pixels = f"{segmented.shape.width} × {segmented.shape.height} px"
    sentence = f"{', '.join(map(str, outputs.values()))}  ({pixels} in {clock(segmented.seconds)}{polygons})"
    counts = {} if segmented.num_polygons is None else {"num_polygons": segmented.num_polygons}
    reporter.done(sentence, {**outputs, **counts, "seams": segmented.seams.to_dict(), "seconds": round(segmented.seconds, 2)})
