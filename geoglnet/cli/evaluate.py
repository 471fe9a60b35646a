"""``geoglnet evaluate``: scores of a model on labelled scenes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geoglnet.cli.options import data_option, json_option, progress_options
from geoglnet.cli.terminal import Reporter
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("model", metavar="MODEL")
@click.argument("config", metavar="CONFIG.toml", type=click.Path(path_type=Path))
@data_option
@json_option
@progress_options
def evaluate(model: str, config: Path, data: Path, as_json: bool, reporter: Reporter) -> None:
    """Score a model on held-out scenes.

    MODEL is a shipped one's name or a file; the scenes are the validation sources of CONFIG.toml.
    """
    from geoglnet.training.evaluate import evaluate as score

    evaluation = score(model, config, data, progress=reporter).to_dict()
    click.echo(json.dumps(evaluation, indent=2))
