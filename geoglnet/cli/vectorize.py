"""``geoglnet vectorize``: polygons of a label raster."""

from __future__ import annotations

from pathlib import Path

import click

from geoglnet.cli.options import overwrite_option, path_option, progress_options
from geoglnet.cli.terminal import Reporter, count_of
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("labels", metavar="LABELS.tif")
@click.argument("vector", metavar="OUT.gpkg", type=click.Path(path_type=Path))
@path_option("--confidence", help="Confidence raster of the same labels, for the attribute of that name.")
@click.option(
    "--min-area", "min_area_m2", type=click.FloatRange(min=0), default=0.0, metavar="M2", help="Drop smaller polygons."
)
@overwrite_option
@progress_options
def vectorize(
    labels: str, vector: Path, confidence: Path | None, min_area_m2: float, overwrite: bool, reporter: Reporter
) -> None:
    """Trace a label raster into styled polygons.

    OUT.gpkg opens styled in QGIS. Attributes: class_id, class_name, area_m2 (geodesic), confidence (0 to 1). The
    result is the same as if the whole raster had been traced at once, in memory that does not grow with it.
    """
    from geoglnet.vector.vectorize import VectorConfig
    from geoglnet.vector.vectorize import vectorize as trace

    config = VectorConfig(min_area_m2=min_area_m2)
    count = trace(labels, vector, confidence_path=confidence, config=config, overwrite=overwrite, progress=reporter)
    reporter.done(f"{count_of(count, 'polygon')} in {vector}", {"vector": vector, "num_polygons": count})
