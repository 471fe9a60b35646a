"""``geoglnet predict``: labels and polygons of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from geoglnet.cli.options import overwrite_option, path_option, progress_options
from geoglnet.cli.polygons import polygon_options
from geoglnet.cli.predict_options import config_options
from geoglnet.cli.terminal import Reporter, clock, count_of
from geoglnet.cli.verb import Verb
from geoglnet.models.shipped import DEFAULT_MODEL

if TYPE_CHECKING:
    from geoglnet.prediction.config import PredictConfig
    from geoglnet.prediction.outputs import Segmented
    from geoglnet.vector.config import VectorConfig


@click.command(cls=Verb)
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True)
@path_option("-o", "--labels", help="Label raster to write (a cloud-optimized GeoTIFF).")
@path_option("--vector", help="Polygons to write: .gpkg (opens styled in QGIS), .fgb, .geojson or .parquet.")
@path_option("--confidence", help="Raster of the winning class's probability to write.")
@path_option("--entropy", help="Raster of how unsure the model is to write.")
@path_option("--probabilities", help="Raster of every class's probability to write, one band each.")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="A shipped model's name, or a .safetensors file.")
@config_options
@polygon_options
@overwrite_option
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped; the result is the same.")
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
    """Segment a scene into labels and polygons.

    SCENE is any raster that GDAL opens, of any size; several of one grid are one mosaic. It is read at the model's
    resolution, nodata and transparent pixels get no class and no polygon, and nothing appears under its final name
    before it is whole.
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
