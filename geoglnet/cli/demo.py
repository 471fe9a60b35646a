"""``geoglnet demo``: a small generated scene to try everything on."""

from __future__ import annotations

from pathlib import Path

import click

from geoglnet.cli.options import overwrite_option, progress_options
from geoglnet.cli.terminal import Reporter
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@overwrite_option
@progress_options
def demo(folder: Path, overwrite: bool, reporter: Reporter) -> None:
    """Write a small generated scene to try geoglnet on.

    FOLDER receives a georeferenced scene (roofs, roads, fields, trees and water, with shadows and noise) and its true
    polygons. Needs no data and no network.
    """
    from geoglnet.api.demonstration import demo as tool

    scene_path = tool(folder, overwrite=overwrite, progress=reporter)
    written = (scene_path, scene_path.with_name("truth.gpkg"))
    reporter.done(f"{folder}: {', '.join(path.name for path in written)}", {"files": written})
