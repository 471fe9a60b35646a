"""``geoglnet plan``: a prediction for many machines, stored as a job of tasks."""

from __future__ import annotations

from typing import Any

import click

from geoglnet.cli.cluster_options import run_option
from geoglnet.cli.options import option, progress_options
from geoglnet.cli.request_options import request_options
from geoglnet.cli.terminal import Reporter, count_of
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True)
@run_option
@request_options()
@option(
    "--task-shape",
    group="Run",
    nargs=2,
    type=click.IntRange(min=1),
    metavar="ROWS COLUMNS",
    help="Blocks of a task.  [default: 16 16, less for a small scene]",
)
@progress_options
def plan(
    scenes: tuple[str, ...], run: str, task_shape: tuple[int, int] | None, reporter: Reporter, request: dict[str, Any]
) -> None:
    """Plan a prediction for many machines.

    Everything is checked, and what is to be measured once is measured. Then start "geoglnet work RUN" as often as you like, on
    any machine that finds scene, model and RUN under the same paths, and "geoglnet finish RUN" in the end. The outputs are
    those of "geoglnet predict", byte for byte.
    """
    from geoglnet.cluster.planning import plan as tool
    from geoglnet.cluster.store import store_at
    from geoglnet.prediction.layers import output_names

    paths = {name: request.pop(f"{name}_path") for name in output_names()}
    job = tool(store_at(run), scenes, paths, **request, task_shape=task_shape, progress=reporter)
    counted = count_of(len(job.tasks), "task")
    reporter.done(f"{run}  ({counted}; compute them with: geoglnet work {run})", {"run": run, "tasks": len(job.tasks)})
