"""``geoglnet predict``: labels and polygons for a scene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from geoglnet.cli.options import option, progress_options
from geoglnet.cli.request_options import request_options
from geoglnet.cli.terminal import Reporter, clock, count_of
from geoglnet.cli.verb import Verb

if TYPE_CHECKING:
    from geoglnet.api.prediction import Prediction


@click.command(cls=Verb)
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True)
@request_options(uncertain=True)
@option(
    "--dry-run",
    group="Run",
    is_flag=True,
    help="Check everything, say how the scene would be read and how long it would take, and write nothing.",
)
@option(
    "--engine",
    group="Run",
    type=click.Choice(["processes", "ray"]),
    help="Have several workers compute the scene, as many as --workers says and one for each GPU at least: processes of this "
    "machine, or actors of a Ray cluster. The bytes are the same.",
)
@option("--resume", group="Run", is_flag=True, help="Continue a run that was interrupted; the result is the same.")
@progress_options
def predict(
    scenes: tuple[str, ...], resume: bool, engine: str | None, dry_run: bool, reporter: Reporter, request: dict[str, Any]
) -> None:
    """Predict labels and polygons for a scene.

    SCENE is any raster that GDAL opens, a Sentinel-2 product or STAC item; several files of one grid are one mosaic. It is
    read at the model's resolution. Nodata and transparent pixels get no class. Outputs appear only when they are complete.
    """
    from geoglnet.api import prediction

    if dry_run:
        expected = prediction.estimate(scenes, **request, progress=reporter)
        return reporter.done(f"nothing written: {expected.rule}", expected.figures)
    return report_done(reporter, prediction.predict(scenes, **request, resume=resume, engine=engine, progress=reporter))


def report_done(reporter: Reporter, done: Prediction) -> None:
    """Say what was written, for people and for programs."""
    polygons = f"; {count_of(done.num_polygons, 'polygon')}" if done.num_polygons is not None else ""
    told = f"{done.shape.width} × {done.shape.height} px in {clock(done.seconds)}{polygons}"
    sentence = f"{', '.join(map(str, done.paths.values()))}  ({told})"
    counts = {} if done.num_polygons is None else {"num_polygons": done.num_polygons}
    reporter.done(sentence, {**done.paths, **counts, "seams": done.seams.to_dict(), "seconds": round(done.seconds, 2)})
