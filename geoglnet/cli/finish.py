"""``geoglnet finish``: the outputs of a prediction that was computed by many."""

from __future__ import annotations

import click

from geoglnet.cli.cluster_options import run_argument
from geoglnet.cli.options import option, overwrite_option, progress_options
from geoglnet.cli.terminal import Reporter, count_of
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@run_argument
@overwrite_option
@option("--keep", group="Outputs", is_flag=True, help="Keep RUN when the outputs are whole.")
@progress_options
def finish(run: str, overwrite: bool, keep: bool, reporter: Reporter) -> None:
    """Write the outputs of a planned prediction.

    All its tasks must be finished. The outputs are those that one process would have written, byte for byte.
    """
    from geoglnet.cluster.finishing import finish as tool
    from geoglnet.cluster.store import store_at

    done = tool(store_at(run), overwrite=overwrite, keep=keep, progress=reporter)
    counts = {} if done.num_polygons is None else {"num_polygons": done.num_polygons}
    told = "" if done.num_polygons is None else f"  ({count_of(done.num_polygons, 'polygon')})"
    sentence = f"{', '.join(map(str, done.paths.values()))}{told}"
    reporter.done(sentence, {**done.paths, **counts, "seams": done.seams.to_dict()})
