"""``geoglnet batch``: labels and polygons for all scenes of a catalog."""

from __future__ import annotations

from typing import Any

import click

from geoglnet.cli.options import option, path_option, progress_options
from geoglnet.cli.request_options import request_options
from geoglnet.cli.terminal import Reporter, count_of
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("catalog", metavar="CATALOG")
@request_options()
@path_option(
    "--index",
    group="Outputs",
    help="Write a row for every scene (.parquet).  [default: index.parquet in the folder of the first output]",
)
@option(
    "--common-stretch",
    group="Input values",
    is_flag=True,
    help="Stretch 16-bit values of all scenes alike, so that neighboring scenes look alike.",
)
@option(
    "--shard",
    group="Run",
    metavar="I/N|auto",
    help="Compute this share of the scenes, such as 3/64; auto takes the number of an array job, as with geoglnet work.",
)
@option("--retry", group="Run", is_flag=True, help="Try scenes again that have failed.")
@progress_options
def batch(
    catalog: str, shard: str | None, common_stretch: bool, reporter: Reporter, request: dict[str, Any], **options: Any
) -> None:
    """Predict every scene of a catalog.

    CATALOG is a folder of rasters, a pattern in quotes ("2024/?.tif"), a list of paths (.txt, .csv), STAC items (.json or an
    address, or stac-geoparquet) or an index of tiles. Names of outputs have {id} in them: -o "maps/{id}.tif". A scene that
    fails is a row of the index and not the end. The same command goes on where it was stopped.
    """
    from geoglnet.cluster.shards import Shard
    from geoglnet.prediction.layers import output_names

    share = None if shard is None else Shard.parsed(shard)
    from geoglnet.cluster.catalog_run import BatchRequest  # loads torch
    from geoglnet.cluster.catalog_run import batch as tool

    outputs = {name: request.pop(f"{name}_path") for name in output_names()}
    wanted = BatchRequest.of(outputs, **request, common_stretch=common_stretch)
    done = tool(catalog, wanted, **options, shard=share, progress=reporter)
    failed = sum(not row.is_done for row in done.rows)
    told = f"{count_of(len(done.rows) - failed, 'scene')} done, {failed} failed"
    if done.index is None:
        return reporter.done(f"{told}; other shares are not finished yet", {"done": len(done.rows) - failed, "failed": failed})
    return reporter.done(f"{done.index}  ({told})", {"index": done.index, "done": len(done.rows) - failed, "failed": failed})
