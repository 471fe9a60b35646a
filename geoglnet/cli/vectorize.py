"""``geoglnet vectorize``: polygons of a raster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geoglnet.cli.options import overwrite_option, path_option, progress_options
from geoglnet.cli.polygon_options import polygon_options
from geoglnet.cli.terminal import Reporter, count_of
from geoglnet.cli.value_options import value_options
from geoglnet.cli.verb import Verb
from geoglnet.vector.settings import VectorConfig

if TYPE_CHECKING:
    from geoglnet.vector.values import RasterValues


@click.command(cls=Verb)
@click.argument("raster", metavar="RASTER.tif")
@click.argument("vector", metavar="OUT.gpkg", type=click.Path(path_type=Path))
@path_option(
    "--confidence", group="Outputs", help="Confidence or probabilities of the same labels, for the attribute confidence."
)
@overwrite_option
@value_options
@polygon_options
@progress_options
def vectorize(
    raster: str,
    vector: Path,
    confidence: Path | None,
    overwrite: bool,
    reporter: Reporter,
    legend: Path | None,
    values: RasterValues,
    polygon_settings: dict[str, Any],
) -> None:
    """Trace a raster into styled polygons.

    Its values are class labels or codes, objects, or quantities.

    OUT is a GeoPackage (.gpkg, opens styled in QGIS), FlatGeobuf (.fgb), GeoJSON (.geojson, or .geojsonl with one feature
    per line; in longitude and latitude) or GeoParquet (.parquet). Attributes: class_id, class_name, area_m2 and perimeter_m
    (on the ellipsoid), confidence (0 to 1), part_of, scene, model. The result equals tracing the whole raster at once, but
    memory does not grow with the raster.
    """
    from geoglnet.api.polygons import vectorize as tool

    layer = tool(
        raster,
        vector,
        values=values,
        legend=legend,
        confidence_path=confidence,
        config=VectorConfig(**polygon_settings),
        overwrite=overwrite,
        progress=reporter,
    )
    reporter.done(
        f"{count_of(layer.num_polygons, 'polygon')} in {vector}", {"vector": vector, "num_polygons": layer.num_polygons}
    )
