"""``geoglnet work``: tasks of a planned prediction."""

from __future__ import annotations

from typing import Any

import click

from geoglnet.cli.cluster_options import run_argument
from geoglnet.cli.options import device_option, option, progress_options
from geoglnet.cli.terminal import Reporter, count_of
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@run_argument
@option(
    "--shard",
    group="Run",
    metavar="I/N|auto",
    help="Compute this share of the tasks, such as 3/64; auto takes the number that Slurm, AWS Batch, Kubernetes, Google Cloud "
    "Batch or PBS gives this process, auto/64 where that is of how many.  [default: all that are missing]",
)
@device_option
@option(
    "--allow-mixed",
    group="Run",
    is_flag=True,
    help="Compute on another kind of machine than the first one: labels are the same but for rounding.",
)
@option("--retry", group="Run", is_flag=True, help="Try tasks again that have failed, or at which processes have died.")
@progress_options
def work(run: str, shard: str | None, device: str, reporter: Reporter, **options: Any) -> None:
    """Compute tasks of a planned prediction.

    Tasks that are finished are skipped, so the same command goes on after whatever has ended it. Exits with code 4 if all other
    tasks are finished and some cannot be computed.
    """
    from geoglnet.cluster.shards import Shard
    from geoglnet.cluster.store import store_at

    share = None if shard is None else Shard.parsed(shard)
    from geoglnet.cluster.worker import work as tool  # loads torch

    chosen = None if device == "auto" else device
    done = tool(store_at(run), shard=share, device=chosen, **options, progress=reporter)
    told = f"{count_of(len(done.computed), 'task')} computed, {done.found} of this share were finished before"
    reporter.done(f"{run}  ({told})", {"run": run, "computed": len(done.computed), "found": done.found})
