"""``geoglnet status``: how far a planned prediction has come."""

from __future__ import annotations

import json

import click

from geoglnet.cli.cluster_options import run_argument
from geoglnet.cli.options import json_option
from geoglnet.cli.verb import Verb
from geoglnet.escaping import visible


@click.command(cls=Verb)
@run_argument
@json_option
def status(run: str, as_json: bool) -> None:
    """Say how far a planned prediction has come."""
    from geoglnet.cluster.finishing import status as tool
    from geoglnet.cluster.store import store_at

    found = tool(store_at(run))
    if as_json:
        return click.echo(json.dumps(found.to_dict(), indent=2))
    lines = [f"{len(found.finished)} of {len(found.job.tasks)} tasks are finished"]
    lines += [f"begun: {', '.join(task.name for task in found.begun)}"] if found.begun else []
    lines += [visible(str(trouble)) for trouble in found.troubles]
    click.echo("\n".join(lines))
    return None
